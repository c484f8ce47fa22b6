//! Bringing one blob to a folder.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;

use super::reading::{Reading, opener};
use super::record::{Flaw, Marks, Record};
use super::source::Source;
use super::transfer::{Moved, stopped};
use crate::cli::{Progress, effect};
use crate::failure::{Failure, Result};
use crate::oci::{Descriptor, Digest, LayoutWriter};

/// How often a blob whose bytes are wrong is read anew.
const REPETITIONS: usize = 3;

/// Brings blobs from one source to one folder.
pub(super) struct Filer<'a> {
    pub(super) source: &'a Source,
    pub(super) target: &'a LayoutWriter,
    pub(super) stop: &'a CancellationToken,
    pub(super) progress: &'a Arc<Progress>,
    /// What is there with other bytes, and is written again.
    pub(super) damaged: &'a BTreeSet<Digest>,
}

impl Filer<'_> {
    pub(super) async fn bring(&self, blob: &Descriptor) -> Result<Moved> {
        let effect = effect("bring", format!("blob {} to {}", blob.digest, self.target));
        if !self.damaged.contains(&blob.digest) && self.target.has_blob(blob).await? {
            return Ok(Moved::Skipped.told_by(effect));
        }
        self.progress.grow(blob.size);
        let mut tries = 0;
        loop {
            tries += 1;
            let filed = tokio::select! {
                filed = self.file(blob) => filed,
                () = self.stop.cancelled() => return Err(stopped()),
            };
            match filed {
                Ok(()) => return Ok(Moved::Copied.told_by(effect)),
                Err(Flaw { again: true, .. }) if tries <= REPETITIONS => {}
                Err(Flaw { failure, .. }) => return Err(failure),
            }
        }
    }

    async fn file(&self, blob: &Descriptor) -> Result<(), Flaw> {
        let marks = Arc::new(Mutex::new(Marks::default()));
        let record = Record::new(self.progress.clone(), marks);
        let open = opener(self.source, blob);
        let reading = Reading::open(open, blob, 0, &record, self.stop).await?;
        let flaw = Arc::new(Mutex::new(None));
        let written = self
            .target
            .write_blob(blob, pieces(reading, record, flaw.clone()))
            .await;
        let flaw = flaw.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (written, flaw) {
            (Ok(()), _) => Ok(()),
            (Err(failure), again) => Err(Flaw {
                failure,
                again: again.unwrap_or(false),
            }),
        }
    }
}

/// The bytes of a blob. `again` is told whether reading anew may help, when they end early.
fn pieces(
    reading: Reading,
    record: Arc<Record>,
    again: Arc<Mutex<Option<bool>>>,
) -> impl Stream<Item = Result<bytes::Bytes>> {
    stream::try_unfold(reading, move |mut reading| {
        let (record, again) = (record.clone(), again.clone());
        async move {
            match reading.next().await {
                Ok(Some(bytes)) => {
                    record.advance(bytes.len() as u64);
                    Ok(Some((bytes, reading)))
                }
                Ok(None) => Ok(None),
                Err(flaw) => {
                    *again.lock().unwrap_or_else(PoisonError::into_inner) = Some(flaw.again);
                    Err::<_, Failure>(flaw.failure)
                }
            }
        }
    })
}
