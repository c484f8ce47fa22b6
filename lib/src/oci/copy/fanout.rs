//! Bringing one blob to several targets while reading it once.
//!
//! Each target has an upload of its own, fed through a channel that holds a few pieces; the pieces themselves are
//! shared, so that what is in memory is what the slowest target has still to take. A target that breaks off or takes
//! nothing any more drops out, and is served alone when the others are done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::reading::{Reading, opener};
use super::record::{Flaw, Marks, Record};
use super::transfer::{LARGE, Moved, Mover, Underway, stopped};
use crate::failure::{Failure, Kind, Result};
use crate::http::Body;
use crate::oci::{Descriptor, Setback};

/// How many pieces a target may lie behind the others.
const DEPTH: usize = 4;

type Piece = std::result::Result<Bytes, std::io::Error>;

/// How a target came out of a common reading.
enum Leg {
    Copied,
    /// It goes on alone, with this upload or from the beginning.
    Alone(Option<Underway>),
    Failed(Failure),
}

/// When a target's upload begins: once the one before it in line has begun, or is over.
///
/// A registry that limits our rate counts an upload that only waits for the next piece, and no piece comes while another
/// target of the same blob waits to be let in. Two blobs that were let in at one registry each would wait for each other;
/// with all blobs asking the registries in one order they do not.
struct Turn {
    earlier: Option<CancellationToken>,
    begun: CancellationToken,
}

impl Turn {
    /// A line of so many.
    fn line(number: usize) -> Vec<Self> {
        let mut earlier = None;
        let turn = |_| {
            let begun = CancellationToken::new();
            Turn {
                earlier: earlier.replace(begun.clone()),
                begun,
            }
        };
        (0..number).map(turn).collect()
    }

    async fn comes(&self) {
        if let Some(earlier) = &self.earlier {
            earlier.cancelled().await;
        }
    }
}

impl Mover<'_> {
    /// Brings a blob to the targets of all movers, which share a source and should be at different registries. What
    /// befalls one does not keep the others from getting it; results are in the movers' order.
    pub(super) async fn bring_to_all(movers: &[Mover<'_>], blob: &Descriptor) -> Vec<Result<Moved>> {
        let mut outcomes: Vec<Option<Result<Moved>>> = movers.iter().map(|_| None).collect();
        let mut effects = BTreeMap::new();
        // Everybody takes claims in one order, or two copies could wait for each other; turns likewise.
        let mut order: Vec<usize> = (0..movers.len()).collect();
        order.sort_by_key(|index| movers[*index].target.reference().to_string());
        let mut claims = BTreeMap::new();
        let mut again = Vec::new();
        for index in order {
            let mover = &movers[index];
            let claimed = |other: &usize| movers[*other].target.is_same_as(mover.target);
            if claims.keys().any(claimed) {
                again.push(index);
                continue;
            }
            let claim = async { Ok(mover.traffic.claim(mover.target, &blob.digest).await) };
            match mover.unless_stopped(claim).await {
                Ok(Some(claim)) => {
                    claims.insert(index, claim);
                    effects.insert(index, mover.effect(blob));
                }
                Ok(None) => outcomes[index] = Some(Ok(Moved::Skipped)),
                Err(failure) => outcomes[index] = Some(Err(failure)),
            }
        }
        {
            let claimed: Vec<usize> = claims.keys().copied().collect();
            let (_lanes, ready) = turns(movers, claimed, false, &mut outcomes).await;
            let carried = carry(movers, blob, ready).await;
            for (index, outcome) in carried {
                if outcome.is_ok()
                    && let Some(claim) = claims.remove(&index)
                {
                    claim.fulfil();
                }
                outcomes[index] = Some(match effects.remove(&index) {
                    Some(effect) => outcome.map(|moved| moved.told_by(effect)),
                    None => outcome,
                });
            }
        }
        drop(claims);
        // The same repository twice, for two tags.
        for index in again {
            outcomes[index] = Some(movers[index].bring(blob).await);
        }
        let missing = || Err(Failure::internal("a target of a blob has no outcome"));
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(missing))
            .collect()
    }
}

/// Waits for a turn at each registry, one for all targets there; gives back whose turn it is.
async fn turns(
    movers: &[Mover<'_>],
    mut wanted: Vec<usize>,
    large: bool,
    outcomes: &mut [Option<Result<Moved>>],
) -> (Vec<tokio::sync::OwnedSemaphorePermit>, Vec<usize>) {
    let endpoint = |index: usize| movers[index].target.reference().endpoint();
    wanted.sort_by_key(|index| endpoint(*index));
    let mut lanes = Vec::new();
    let mut ready: Vec<usize> = Vec::new();
    for index in wanted {
        let mover = &movers[index];
        if ready.last().is_none_or(|last| endpoint(*last) != endpoint(index)) {
            let lane = async {
                if large {
                    mover.traffic.enter_large(mover.target).await
                } else {
                    mover.traffic.enter(mover.target).await
                }
            };
            match mover.unless_stopped(lane).await {
                Ok(lane) => lanes.push(lane),
                Err(failure) => {
                    outcomes[index] = Some(Err(failure));
                    continue;
                }
            }
        }
        ready.push(index);
    }
    (lanes, ready)
}

/// Begins at every target, serves together those that need the bytes, and then alone those that fell behind.
async fn carry(movers: &[Mover<'_>], blob: &Descriptor, targets: Vec<usize>) -> Vec<(usize, Result<Moved>)> {
    let mut outcomes = Vec::with_capacity(targets.len());
    let mut alone = Vec::new();
    let mut together = Vec::new();
    let marks: Arc<Mutex<Marks>> = Arc::default();
    let begun = targets
        .into_iter()
        .map(|index| async move { (index, movers[index].begin(blob).await) });
    for (index, begun) in join_all(begun).await {
        match begun {
            Ok(Ok(moved)) => outcomes.push((index, Ok(moved))),
            Ok(Err(upload)) => {
                let underway = movers[index].underway(blob, upload, marks.clone());
                together.push((index, underway));
            }
            Err(failure) if failure.kind() == Kind::Unavailable => alone.push((index, None)),
            Err(failure) => outcomes.push((index, Err(failure))),
        }
    }
    if together.len() > 1 && blob.size > 0 {
        for (index, leg) in pour_together(movers, blob, together, marks).await {
            match leg {
                Leg::Copied => outcomes.push((index, Ok(Moved::Copied))),
                Leg::Alone(underway) => alone.push((index, underway)),
                Leg::Failed(failure) => outcomes.push((index, Err(failure))),
            }
        }
    } else {
        alone.extend(
            together
                .into_iter()
                .map(|(index, underway)| (index, Some(underway))),
        );
    }
    let served = alone
        .into_iter()
        .map(|(index, underway)| async move { (index, movers[index].persist(blob, underway).await) });
    outcomes.extend(join_all(served).await);
    outcomes
}

async fn pour_together(
    movers: &[Mover<'_>],
    blob: &Descriptor,
    mut together: Vec<(usize, Underway)>,
    marks: Arc<Mutex<Marks>>,
) -> Vec<(usize, Leg)> {
    together.sort_by_key(|(index, _)| movers[*index].target.reference().endpoint());
    let mut stopped_early: Vec<Option<Result<Moved>>> = movers.iter().map(|_| None).collect();
    let indices = together.iter().map(|(index, _)| *index).collect();
    let _large = if blob.size >= LARGE {
        Some(turns(movers, indices, true, &mut stopped_early).await)
    } else {
        None
    };
    // The reading goes on as long as anybody listens.
    let nobody = CancellationToken::new();
    let _over = nobody.clone().drop_guard();
    let reader = &movers[together[0].0];
    let common = Record::new(reader.progress.clone(), marks);
    let open = opener(reader.source, blob);
    let reading = Reading::open(open, blob, 0, &common, &nobody);
    let reading = tokio::select! {
        reading = reading => reading,
        () = all_stopped(movers, &together) => Err(Flaw::last(stopped())),
    };
    let mut listeners = Vec::new();
    let mut legs = Vec::new();
    for (index, underway) in together {
        let (sender, receiver) = mpsc::channel(DEPTH);
        let gone = CancellationToken::new();
        listeners.push((sender, gone.clone()));
        legs.push((index, underway, receiver, gone));
    }
    let (read, sent) = match reading {
        Ok(reading) => {
            let line = Turn::line(legs.len());
            let sent =
                legs.into_iter()
                    .zip(line)
                    .map(|((index, underway, receiver, gone), turn)| async move {
                        // However it ends, nobody waits for it any more.
                        let _gone = (gone.drop_guard(), turn.begun.clone().drop_guard());
                        let pieces = pieces(receiver, underway.record.clone(), turn.begun.clone());
                        let body = Body::stream(pieces, blob.size);
                        let sending = async {
                            turn.comes().await;
                            tokio::select! {
                                sent = underway.upload.finish(&blob.digest, body) => sent,
                                () = underway.record.stalls(blob.size) => Err(movers[index].stalled(blob)),
                            }
                        };
                        let sent = tokio::select! {
                            sent = sending => Some(sent),
                            () = movers[index].stop.cancelled() => None,
                        };
                        (index, underway, sent)
                    });
            join(distribute(reading, listeners), join_all(sent)).await
        }
        Err(flaw) => {
            let unsent = legs
                .into_iter()
                .map(|(index, underway, ..)| (index, underway, None))
                .collect();
            (Err(flaw), unsent)
        }
    };
    join_all(
        sent.into_iter()
            .map(|(index, underway, sent)| conclude(index, underway, sent, read.as_ref().err())),
    )
    .await
}

/// What becomes of a target after the common reading.
async fn conclude(
    index: usize,
    mut underway: Underway,
    sent: Option<Result<(), Setback>>,
    flaw: Option<&Flaw>,
) -> (usize, Leg) {
    let leg = match (sent, flaw) {
        (Some(Ok(())), _) => return (index, Leg::Copied),
        (Some(Err(setback)), None) => {
            underway.setback = Some(setback);
            return (index, Leg::Alone(Some(underway)));
        }
        (Some(Err(_)), Some(flaw)) if flaw.again => Leg::Alone(None),
        (_, Some(flaw)) => {
            let same = Failure::new(flaw.failure.kind(), flaw.failure.message());
            Leg::Failed(match flaw.failure.next_action() {
                Some(hint) => same.hint(hint),
                None => same,
            })
        }
        (None, None) => Leg::Failed(stopped()),
    };
    underway.upload.abandon().await;
    (index, leg)
}

async fn all_stopped(movers: &[Mover<'_>], targets: &[(usize, Underway)]) {
    join_all(targets.iter().map(|(index, _)| movers[*index].stop.cancelled())).await;
}

/// Hands every piece to everybody who still listens. The slowest sets the pace.
async fn distribute(
    mut reading: Reading,
    mut listeners: Vec<(mpsc::Sender<Piece>, CancellationToken)>,
) -> Result<(), Flaw> {
    loop {
        let next = tokio::select! {
            next = reading.next() => next,
            // Whoever has it all already, or gave up, says so while nothing comes too.
            () = all_gone(&listeners) => return Ok(()),
        };
        let (piece, flaw) = match next {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => (Ok(bytes), None),
            Err(flaw) => (Err(flaw.failure.message().to_owned()), Some(flaw)),
        };
        let handed = listeners.iter().map(|(sender, gone)| {
            let piece = piece.clone().map_err(std::io::Error::other);
            async move {
                tokio::select! {
                    sent = sender.send(piece) => sent.is_ok(),
                    () = gone.cancelled() => false,
                }
            }
        });
        let mut listening = join_all(handed).await.into_iter();
        listeners.retain(|_| listening.next().unwrap_or(false));
        if let Some(flaw) = flaw {
            return Err(flaw);
        }
        if listeners.is_empty() {
            return Ok(());
        }
    }
}

async fn all_gone(listeners: &[(mpsc::Sender<Piece>, CancellationToken)]) {
    join_all(listeners.iter().map(|(_, gone)| gone.cancelled())).await;
}

/// What one target is sent. That it is asked for says that the upload has begun.
fn pieces(
    receiver: mpsc::Receiver<Piece>,
    record: Arc<Record>,
    begun: CancellationToken,
) -> impl Stream<Item = Piece> + Send + 'static {
    stream::unfold(receiver, move |mut receiver| {
        let (record, begun) = (record.clone(), begun.clone());
        async move {
            begun.cancel();
            record.waits(true);
            let piece = receiver.recv().await;
            record.waits(false);
            if let Some(Ok(bytes)) = &piece {
                record.advance(bytes.len() as u64);
            }
            piece.map(|piece| (piece, receiver))
        }
    })
}

#[cfg(test)]
mod tests;
