//! Hears of an application's changes: by the stream, and by asking where the stream is not to be had or stays silent.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use towpath::argocd::Located;
use towpath::failure::{Failure, Kind};

use crate::source::{Event, Source};

/// Between two looks where there is no stream: readiness has to be noticed within a second.
const LOOK_EVERY: Duration = Duration::from_millis(800);
/// A stream may be silent since nothing happens, or since something in between dropped it, or a change of it, without a
/// word. So it is asked now and then what the stream should have said.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long a stream may be behind what was asked.
const BEHIND: Duration = Duration::from_secs(2);
/// How long asking beside a stream may take, which nobody reads meanwhile.
const ASK_LIMIT: Duration = Duration::from_secs(10);
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

/// Why a stream is no longer followed.
enum Break {
    /// It is not to be had.
    Refused(Failure),
    /// It broke off.
    Off(Failure),
    /// The other side ended it, as proxies do after a while.
    Ended,
    /// It is open, and does not say what asking does.
    Stalled(String),
}

async fn listen(source: &Source, located: &Located, sender: &mpsc::Sender<Heard>) -> Result<(), Gone> {
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = Instant::now();
        let broken = follow(source, located, sender).await?;
        // A stream that lasted was a good one, and the next may be had at once.
        if opened.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        broken.tell(located);
        let again = Instant::now() + pause;
        while Instant::now() < again {
            look(source, located, sender).await?;
            sleep(LOOK_EVERY).await;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Break {
    fn tell(&self, located: &Located) {
        let object = format!("application {located}");
        let (outcome, failure) = match self {
            Break::Ended => {
                tracing::debug!(action = "follow", object, outcome = "its stream ended");
                return;
            }
            // The run's time is over, which says nothing about the stream.
            Break::Refused(failure) | Break::Off(failure) if failure.kind() == Kind::Deadline => return,
            Break::Refused(failure) => (
                "by asking, since its stream is not to be had",
                failure.to_string(),
            ),
            Break::Off(failure) => ("by asking, since its stream broke off", failure.to_string()),
            Break::Stalled(how) => ("by asking, since its stream is stalled", how.clone()),
        };
        tracing::info!(action = "follow", object, outcome, "{failure}");
    }
}

/// Follows the stream to its end. Gives back why it broke.
async fn follow(source: &Source, located: &Located, sender: &mpsc::Sender<Heard>) -> Result<Break, Gone> {
    let mut changes = match source.changes(located).await {
        Ok(changes) => changes,
        Err(failure) => return Ok(Break::Refused(failure)),
    };
    let mut said = String::new();
    // What was asked and the stream has not said yet.
    let mut owed: Option<String> = None;
    let mut until = Instant::now() + ASK_EVERY;
    loop {
        match timeout_at(until, changes.next()).await {
            Ok(Ok(Some(event))) => {
                if let Event::Seen(application) = &event {
                    said.clone_from(&application.metadata.resource_version);
                }
                sender.send(Heard::Event(event)).await?;
                // One that goes on telling what is past is behind as well.
                if owed.as_ref().is_none_or(|owed| !is_behind(&said, owed)) {
                    owed = None;
                    until = Instant::now() + ASK_EVERY;
                }
            }
            Ok(Ok(None)) => return Ok(Break::Ended),
            Ok(Err(failure)) => return Ok(Break::Off(failure)),
            Err(_silent) => {
                if let Some(owed) = owed {
                    return Ok(Break::Stalled(format!(
                        "it told of version {said:?}, and asking of {owed}"
                    )));
                }
                let asked = timeout(ASK_LIMIT, look(source, located, sender)).await;
                let asked = asked.unwrap_or(Ok(None))?;
                owed = asked.filter(|asked| is_behind(&said, asked));
                until = Instant::now() + if owed.is_some() { BEHIND } else { ASK_EVERY };
            }
        }
    }
}

/// Whether a stream that said this version should have said another one. Versions that are no numbers have no order, and
/// another one is a later one then.
fn is_behind(said: &str, asked: &str) -> bool {
    match (said.parse::<u64>(), asked.parse::<u64>()) {
        (Ok(said), Ok(asked)) => said < asked,
        _ => said != asked,
    }
}

/// Asks, and gives back the version that was seen.
async fn look(
    source: &Source,
    located: &Located,
    sender: &mpsc::Sender<Heard>,
) -> Result<Option<String>, Gone> {
    let (heard, version) = match source.look(located).await {
        Ok(application) => {
            let version = application.metadata.resource_version.clone();
            (Heard::Event(Event::Seen(Box::new(application))), Some(version))
        }
        Err(failure) if failure.kind() == Kind::Deadline => return Ok(None),
        Err(failure) => (Heard::Trouble(failure), None),
    };
    sender.send(heard).await?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers_where_they_are() {
        for (said, asked, behind) in [
            ("9", "10", true),
            ("10", "10", false),
            ("11", "10", false),
            // Nothing was said although a stream begins with how it is.
            ("", "10", true),
            ("a", "b", true),
            ("a", "a", false),
            ("", "", false),
        ] {
            assert_eq!(is_behind(said, asked), behind, "{said:?} {asked:?}");
        }
    }
}
