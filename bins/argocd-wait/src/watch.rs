//! Hears of an application's changes: by the stream, and by asking where the stream is not to be had or stays silent.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use towpath::argocd::Located;
use towpath::failure::{Failure, Kind};

use crate::source::{Event, Source};

/// Between two looks where there is no stream: readiness has to be noticed within a second.
const LOOK_EVERY: Duration = Duration::from_millis(800);
/// A stream may be silent since nothing happens, or since something in between dropped it without a word.
const SILENCE: Duration = Duration::from_secs(15);
/// Between two attempts to have a stream again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What was heard.
pub(crate) enum Heard {
    Event(Event),
    /// It could not be looked at. Those of kind `Unavailable` may pass.
    Trouble(Failure),
}

/// Ears on one application. Dropping it ends the listening.
pub(crate) struct Watch {
    pub(crate) heard: mpsc::Receiver<Heard>,
    listener: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Watch {
    /// Begins to listen.
    pub(crate) fn begin(source: Source, located: Located) -> Self {
        let (sender, heard) = mpsc::channel(1);
        let listener = tokio::spawn(async move {
            // Whoever listened has gone: nothing is left to do.
            let _ = listen(&source, &located, &sender).await;
        });
        Watch { heard, listener }
    }
}

type Gone = mpsc::error::SendError<Heard>;

async fn listen(source: &Source, located: &Located, sender: &mpsc::Sender<Heard>) -> Result<(), Gone> {
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = Instant::now();
        let broken = follow(source, located, sender).await?;
        // A stream that lasted was a good one, and the next may be had at once.
        if opened.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if let Some(failure) = broken {
            tracing::info!(
                action = "follow",
                object = format!("application {located}"),
                outcome = "by asking, since its stream is not to be had",
                "{failure}"
            );
        }
        let again = Instant::now() + pause;
        while Instant::now() < again {
            look(source, located, sender).await?;
            sleep(LOOK_EVERY).await;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows the stream to its end. Gives back why it broke.
async fn follow(
    source: &Source,
    located: &Located,
    sender: &mpsc::Sender<Heard>,
) -> Result<Option<Failure>, Gone> {
    let mut changes = match source.changes(located).await {
        Ok(changes) => changes,
        Err(failure) => return Ok(Some(failure)),
    };
    loop {
        match timeout(SILENCE, changes.next()).await {
            Ok(Ok(Some(event))) => sender.send(Heard::Event(event)).await?,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(failure)) => return Ok(Some(failure)),
            Err(_silent) => look(source, located, sender).await?,
        }
    }
}

async fn look(source: &Source, located: &Located, sender: &mpsc::Sender<Heard>) -> Result<(), Gone> {
    let heard = match source.look(located).await {
        Ok(application) => Heard::Event(Event::Seen(Box::new(application))),
        Err(failure) if failure.kind() == Kind::Deadline => return Ok(()),
        Err(failure) => Heard::Trouble(failure),
    };
    sender.send(heard).await
}
