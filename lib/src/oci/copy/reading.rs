//! Reading one blob from its source: hashed while it flows, and gone on with where it broke off.
//!
//! The last piece is held back until the hash is right, so that a wrong blob never becomes a complete upload. What is
//! hashed is what was accepted, whatever number of answers it came in.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::record::{Flaw, Record};
use super::source::Source;
use super::transfer::stopped;
use crate::failure::{Failure, Kind, Result};
use crate::oci::{BlobStream, Descriptor, Verifier};

/// How often in a row a blob is asked for again without getting a byte of it.
const TRIES: usize = 5;
/// A source that says nothing for so long is asked again. Targets drop uploads that nothing comes in for, many after a
/// minute.
const SILENCE: Duration = Duration::from_secs(30);
/// The pauses before trying once more what gets nowhere.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_times(TRIES)
        .with_jitter()
        .build()
}

/// Opens a blob, or opens it once more at an offset.
pub(super) type Open =
    Arc<dyn Fn(Option<u64>) -> Pin<Box<dyn Future<Output = Result<BlobStream>> + Send>> + Send + Sync>;

pub(super) fn opener(source: &Source, blob: &Descriptor) -> Open {
    let (source, blob) = (source.clone(), blob.clone());
    Arc::new(move |from| {
        let (source, blob) = (source.clone(), blob.clone());
        Box::pin(async move {
            match from {
                None => source.blob(&blob).await,
                Some(from) => source.blob_from(&blob, from).await,
            }
        })
    })
}

/// A blob that is being read.
pub(super) struct Reading {
    open: Open,
    blob: Descriptor,
    content: Option<BlobStream>,
    /// Whether it was open before.
    opened: bool,
    verifier: Verifier,
    /// How far it was read and hashed.
    at: u64,
    /// What lies before is at the target already.
    from: u64,
    record: Arc<Record>,
    stop: CancellationToken,
}

impl Reading {
    /// Opens the blob so that its bytes come from `from` on; some before that are read again, for the hash.
    pub(super) async fn open(
        open: Open,
        blob: &Descriptor,
        from: u64,
        record: &Arc<Record>,
        stop: &CancellationToken,
    ) -> Result<Self, Flaw> {
        let (at, verifier) = record
            .marks()
            .before(from)
            .unwrap_or_else(|| (0, blob.digest.verifier()));
        let mut reading = Reading {
            open,
            blob: blob.clone(),
            content: None,
            opened: false,
            verifier,
            at,
            from,
            record: record.clone(),
            stop: stop.clone(),
        };
        let mut pauses = pauses();
        while reading.content.is_none() {
            if let Err(failure) = reading.connect().await {
                reading.rest(failure, &mut pauses).await?;
            }
        }
        Ok(reading)
    }

    async fn connect(&mut self) -> Result<()> {
        let from = (self.opened || self.at > 0).then_some(self.at);
        self.content = Some((self.open)(from).await?);
        self.opened = true;
        Ok(())
    }

    /// The next bytes that the target lacks; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Flaw> {
        while self.at < self.blob.size {
            let before = self.at;
            let mut piece = self.piece().await?;
            if self.at > self.from {
                let there = usize::try_from(self.from.saturating_sub(before)).unwrap_or(usize::MAX);
                return Ok(Some(piece.split_off(there.min(piece.len()))));
            }
        }
        Ok(None)
    }

    /// Some bytes that are right as far as one can know, or what is wrong with them.
    async fn piece(&mut self) -> Result<Bytes, Flaw> {
        let mut pauses = pauses();
        loop {
            let failure = match &mut self.content {
                None => match self.connect().await {
                    Ok(()) => continue,
                    Err(failure) => failure,
                },
                Some(content) => match tokio::time::timeout(SILENCE, content.next()).await {
                    Ok(Some(Ok(bytes))) if bytes.is_empty() => continue,
                    Ok(Some(Ok(bytes))) => return self.accept(bytes),
                    Ok(Some(Err(failure))) => failure,
                    Ok(None) => Failure::unavailable(format!(
                        "the blob {} ended after {} of {} bytes",
                        self.blob.digest, self.at, self.blob.size
                    )),
                    Err(_elapsed) => Failure::unavailable(format!(
                        "the source of the blob {} says nothing any more after {} of {} bytes",
                        self.blob.digest, self.at, self.blob.size
                    )),
                },
            };
            self.content = None;
            self.rest(failure, &mut pauses).await?;
        }
    }

    /// Waits before the next try, if there is one.
    async fn rest(&mut self, failure: Failure, pauses: &mut ExponentialBackoff) -> Result<(), Flaw> {
        let Some(pause) = pauses.next().filter(|_| failure.kind() == Kind::Unavailable) else {
            return Err(Flaw::last(failure));
        };
        tracing::debug!(
            action = "resume",
            object = self.blob.digest.as_str(),
            offset = self.at,
            reason = format!("{failure:?}"),
            "reading on"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stop.cancelled() => Err(Flaw::last(stopped())),
        }
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes, Flaw> {
        // Wrong bytes come from a broken cache or proxy more often than from a wrong registry, and may be right at the
        // next attempt, but not from here on.
        let wrong = |what: &str| Flaw {
            failure: Failure::unavailable(format!(
                "the source gives other bytes for the blob {} than its {what} says",
                self.blob.digest
            ))
            .hint("if it stays so, the image is damaged at its source: build it again"),
            again: true,
        };
        let at = self.at + bytes.len() as u64;
        if at > self.blob.size {
            return Err(wrong("size"));
        }
        self.verifier.update(&bytes);
        if at == self.blob.size && self.verifier.clone().digest() != self.blob.digest {
            return Err(wrong("digest"));
        }
        self.at = at;
        self.record.marks().note(at, &self.verifier);
        Ok(bytes)
    }

    /// As the body of a request. What goes wrong stands in the record.
    pub(super) fn into_body(
        self,
    ) -> impl Stream<Item = std::result::Result<Bytes, std::io::Error>> + Send + 'static {
        stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            let record = reading.record.clone();
            record.waits(true);
            let next = reading.next().await;
            record.waits(false);
            match next {
                Ok(None) => None,
                Ok(Some(bytes)) => {
                    record.advance(bytes.len() as u64);
                    Some((Ok(bytes), Some(reading)))
                }
                Err(flaw) => {
                    let told = std::io::Error::other(flaw.failure.message().to_owned());
                    record.fail(flaw);
                    Some((Err(told), None))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::pin;
    use std::sync::Mutex;

    use super::*;
    use crate::cli::Progress;
    use crate::oci::Digest;

    const SECOND: Duration = Duration::from_secs(1);

    /// What a source does when it is asked.
    #[derive(Clone, Copy)]
    enum Part {
        /// Gives so many of the bytes that come next.
        Gives(usize),
        /// Gives others.
        Lies(usize),
        Waits(Duration),
        Breaks,
    }
    use Part::{Breaks, Gives, Lies, Waits};

    struct Source {
        whole: Vec<u8>,
        /// For each time that it is asked.
        answers: VecDeque<Vec<Part>>,
        asked: Vec<u64>,
    }

    /// A source of bytes that follows a script and then gives all the rest.
    fn source(whole: &[u8], answers: &[&[Part]]) -> (Open, Arc<Mutex<Source>>) {
        let source = Arc::new(Mutex::new(Source {
            whole: whole.to_vec(),
            answers: answers.iter().map(|answer| answer.to_vec()).collect(),
            asked: Vec::new(),
        }));
        let shared = source.clone();
        let open: Open = Arc::new(move |from| {
            let from = from.unwrap_or(0);
            let mut source = shared.lock().unwrap();
            source.asked.push(from);
            let rest = source.whole[usize::try_from(from).unwrap()..].to_vec();
            let parts = source
                .answers
                .pop_front()
                .unwrap_or_else(|| vec![Gives(rest.len())]);
            let stream = stream::unfold(
                (rest, VecDeque::from(parts)),
                |(mut rest, mut parts)| async move {
                    loop {
                        match parts.pop_front()? {
                            Waits(time) => tokio::time::sleep(time).await,
                            Breaks => {
                                return Some((Err(Failure::unavailable("reset")), (rest, VecDeque::new())));
                            }
                            Gives(bytes) => {
                                let later = rest.split_off(bytes.min(rest.len()));
                                return Some((Ok(Bytes::from(rest)), (later, parts)));
                            }
                            Lies(bytes) => {
                                let later = rest.split_off(bytes.min(rest.len()));
                                return Some((Ok(vec![b'?'; bytes].into()), (later, parts)));
                            }
                        }
                    }
                },
            );
            Box::pin(async move { Ok(Box::pin(stream) as BlobStream) })
        });
        (open, source)
    }

    fn blob(whole: &[u8]) -> Descriptor {
        Descriptor {
            media_type: "layer".to_owned(),
            digest: Digest::of(whole),
            size: whole.len() as u64,
        }
    }

    fn record() -> Arc<Record> {
        Record::new(Arc::new(Progress::bytes("test", 0)), Arc::default())
    }

    /// What comes out as a body, and what was found wrong.
    async fn read(
        open: &Open,
        blob: &Descriptor,
        from: u64,
        record: &Arc<Record>,
    ) -> (Vec<u8>, Option<Flaw>) {
        let stop = CancellationToken::new();
        record.start_at(from);
        let reading = match Reading::open(open.clone(), blob, from, record, &stop).await {
            Ok(reading) => reading,
            Err(flaw) => return (Vec::new(), Some(flaw)),
        };
        let mut body = pin!(reading.into_body());
        let mut bytes = Vec::new();
        while let Some(Ok(piece)) = body.next().await {
            bytes.extend_from_slice(&piece);
        }
        (bytes, record.take_flaw())
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_stalls_or_ends_early_goes_on_where_it_was() {
        let whole = b"onetwothreefour";
        let (open, source) = source(
            whole,
            &[
                &[Gives(3), Breaks],
                &[Gives(3)],
                &[Gives(0), Gives(5), Waits(SECOND * 100), Gives(4)],
            ],
        );
        let record = record();
        let (bytes, flaw) = read(&open, &blob(whole), 0, &record).await;
        assert!(flaw.is_none(), "{flaw:?}");
        assert_eq!(bytes, whole);
        assert_eq!(source.lock().unwrap().asked, [0, 3, 6, 11]);
        assert_eq!(record.farthest(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_drip_is_not_asked_twice() {
        let whole = vec![7; 40];
        let drip: Vec<Part> = [Waits(SECOND * 20), Gives(1)].repeat(40);
        let (open, source) = source(&whole, &[&drip]);
        let (bytes, flaw) = read(&open, &blob(&whole), 0, &record()).await;
        assert!(flaw.is_none(), "{flaw:?}");
        assert_eq!(bytes, whole);
        assert_eq!(source.lock().unwrap().asked, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_when_nothing_comes_but_not_while_something_does() {
        let whole = vec![7; 40];
        let crumbs: Vec<&[Part]> = vec![&[Gives(1), Breaks]; 39];
        let (open, _source) = source(&whole, &crumbs);
        let (bytes, flaw) = read(&open, &blob(&whole), 0, &record()).await;
        assert_eq!(bytes, whole, "{flaw:?}");

        let mut dead: Vec<&[Part]> = vec![&[Gives(1), Breaks]];
        dead.extend(vec![&[Breaks][..]; 40]);
        let (open, source) = source(&whole, &dead);
        let (bytes, flaw) = read(&open, &blob(&whole), 0, &record()).await;
        assert_eq!(bytes.len(), 1);
        let flaw = flaw.expect("a flaw");
        assert_eq!((flaw.failure.kind(), flaw.again), (Kind::Unavailable, false));
        assert_eq!(source.lock().unwrap().asked.len(), 1 + TRIES);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interruption_ends_the_pauses() {
        let whole = b"one";
        let (open, source) = source(whole, &[&[Breaks][..]; 9]);
        let stop = CancellationToken::new();
        let record = record();
        let mut reading = Reading::open(open, &blob(whole), 0, &record, &stop)
            .await
            .unwrap();
        stop.cancel();
        assert_eq!(reading.next().await.unwrap_err().failure.kind(), Kind::Deadline);
        assert_eq!(source.lock().unwrap().asked, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_bytes_never_become_complete_and_are_read_anew_only_from_the_start() {
        let whole = b"onetwo";
        for (parts, size) in [
            (&[Gives(3), Lies(3)][..], 6),
            (&[Lies(6)], 6),
            (&[Gives(6)], 5),
            (&[Gives(3), Breaks], 5),
            (&[Gives(3), Lies(30)], 6),
        ] {
            let (open, _source) = source(whole, &[parts]);
            let blob = Descriptor { size, ..blob(whole) };
            let (bytes, flaw) = read(&open, &blob, 0, &record()).await;
            assert!((bytes.len() as u64) < size, "became complete");
            let flaw = flaw.expect("a flaw");
            assert_eq!((flaw.failure.kind(), flaw.again), (Kind::Unavailable, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sending_goes_on_from_any_offset_with_all_bytes_hashed() {
        let mebibyte = 1024 * 1024;
        let whole: Vec<u8> = (0..mebibyte * 4).map(|n| (n % 251) as u8).collect();
        let blob = blob(&whole);
        for offset in [0, 1, mebibyte - 1, mebibyte, mebibyte * 3 + 5, mebibyte * 4 - 1] {
            let pieces = vec![Gives(mebibyte / 8); 32];
            let (open, source) = source(&whole, &[&pieces, &pieces]);
            let record = record();
            read(&open, &blob, 0, &record).await;
            let (rest, flaw) = read(&open, &blob, offset as u64, &record).await;
            assert!(flaw.is_none(), "{offset}: {flaw:?}");
            assert!(rest == whole[offset..], "{offset}");
            let from = (offset / mebibyte * mebibyte) as u64;
            assert_eq!(source.lock().unwrap().asked, [0, from]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_read_again_are_checked_again() {
        let whole = vec![7; 3 * 1024 * 1024];
        let blob = blob(&whole);
        let (open, _source) = source(
            &whole,
            &[
                &[Gives(1024 * 1024 + 7), Gives(usize::MAX)],
                &[Lies(5), Gives(usize::MAX)],
            ],
        );
        let record = record();
        read(&open, &blob, 0, &record).await;
        let (_, flaw) = read(&open, &blob, 1024 * 1024 + 10, &record).await;
        assert!(flaw.expect("a flaw").again);
    }
}
