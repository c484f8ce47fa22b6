//! Having IAM make a key, so that there is one that is known, or none.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::time::Duration;

use towpath::cli::{Run, effect};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result};
use towpath::process::Signals;
use towpath::scaleway::{ApiKey, Bearer, Iam, NewApiKey};
use towpath::secret::Secret;

/// How long a key that is being made is waited for after a signal.
const GRACE: Duration = Duration::from_secs(3);
/// How long a key is looked for and deleted that nobody is to have, whatever became of the run.
pub(crate) const UNDO_WITHIN: Duration = Duration::from_secs(15);

/// A key that is to be made.
pub(crate) struct Wanted<'a> {
    /// Whose it is to be.
    pub(crate) bearer: &'a Bearer,
    /// What it is said to be for, which no other key may say.
    pub(crate) description: &'a str,
    /// All that IAM is to know of it.
    pub(crate) key: NewApiKey<'a>,
}

/// Something that no other run says, for a description.
pub(crate) fn nonce() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Has a key made. One that may have been made without our knowing it, since IAM's answer is lost or cannot be read, or a
/// signal came first, is looked for and deleted: nobody ever learns its secret half.
///
/// # Errors
/// As [`Iam::create`]; deadline (exit 128+n) after a signal.
pub(crate) async fn make(
    iam: &Iam,
    wanted: &Wanted<'_>,
    run: &Run,
    signals: &mut Signals,
) -> Result<(ApiKey, Secret)> {
    let mut creating = pin!(iam.create(&wanted.key));
    let (failure, in_doubt) = tokio::select! {
        created = &mut creating => match created {
            Ok(made) => return Ok(made),
            Err(not_made) => (not_made.failure, not_made.in_doubt),
        },
        signal = signals.ending() => {
            let failure = run.ended_by(signal, "waiting for an API key");
            match tokio::time::timeout(GRACE, creating).await {
                Ok(Ok((key, _))) => {
                    take_back(iam, &key.access_key).await;
                    (failure, false)
                }
                Ok(Err(not_made)) => (failure, not_made.in_doubt),
                Err(_elapsed) => (failure, true),
            }
        }
    };
    if in_doubt {
        take_back_lost(iam, wanted).await;
    }
    Err(failure)
}

/// Deletes a key that nobody is to have.
pub(crate) async fn take_back(iam: &Iam, access_key: &str) {
    let undoing = effect("delete", format!("API key {access_key}"));
    let iam = iam.with_deadline(Deadline::after(UNDO_WITHIN));
    match iam.delete_new(access_key).await {
        Ok(()) => undoing.done("done"),
        Err(why) => {
            drop(undoing);
            left(access_key, &why);
        }
    }
}

async fn take_back_lost(iam: &Iam, wanted: &Wanted<'_>) {
    let undoing = effect("delete", "an API key that IAM may have made".to_owned());
    let iam = iam.with_deadline(Deadline::after(UNDO_WITHIN));
    match iam.delete_lost(wanted.bearer, wanted.description).await {
        Ok(Some(access_key)) => undoing.done(&format!("{access_key} is deleted")),
        Ok(None) => undoing.done("there is none"),
        Err(why) => {
            drop(undoing);
            left(&format!("described as {:?}", wanted.description), &why);
        }
    }
}

fn left(which: &str, why: &Failure) {
    tracing::error!(
        action = "delete",
        object = which,
        hint = why.next_action(),
        "the API key {which} is left, if there is one, and nobody has its secret half: {why}"
    );
}
