//! A key that IAM makes for one command, and that is deleted when it ends.
//!
//! The key in the secret only makes keys; the command never sees it. The new key has an end besides, which is there for
//! KILL alone: whatever else ends us, the key is deleted first.

use std::time::Duration;

use jiff::Timestamp;
use towpath::cli::{Run, effect};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result, survive};
use towpath::process::Signals;
use towpath::scaleway::{Credentials, Field, Iam, NewApiKey};

use crate::access::Access;
use crate::args::{ExecArgs, MintArgs};
use crate::{plan, rotation};

/// How long deleting may take. It has its own time, since the run's may be over by then.
const DELETE_WITHIN: Duration = Duration::from_secs(10);
/// How much longer than the run the key lives, so that it is not the key that ends first.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// A key for one command.
pub(crate) struct Minted {
    /// The credentials of the command.
    pub(crate) credentials: Credentials,
    access_key: String,
    iam: Iam,
}

/// Makes the key, if one is asked for.
///
/// # Errors
/// Whatever making and proving it fail with; then it is deleted again. Usage (exit 2) when the command would get the key
/// that makes keys all the same.
pub(crate) async fn mint(
    args: &ExecArgs,
    access: &Access,
    run: &Run,
    signals: &mut Signals,
) -> Result<Option<Minted>> {
    let (Some(bearer), false) = (&args.mint.mint, args.dry_run) else {
        return Ok(None);
    };
    refuse_exposure(args)?;
    let manager = access.credentials.secret_key().clone();
    let iam = rotation::iam(&args.mint.proof.api, &args.source, run, manager)?
        .with_pause(args.mint.proof.proof_pause);
    let description = format!("vault-scw-creds exec: for one command, trace {}", run.trace);
    let project = access
        .credentials
        .defaults()
        .find(|(field, _)| *field == Field::ProjectId)
        .map(|(_, id)| id.to_owned());
    let wanted = NewApiKey::of(bearer, &description)
        .ending(Some(end(&args.mint, run)))
        .in_project(project.as_deref());
    let making = effect("create", format!("API key of {}", bearer.id()));
    let (key, secret_key) = iam.create(&wanted).await?;
    making.done(&key.access_key);

    let proving = effect("prove", format!("API key {}", key.access_key));
    let proof = args.mint.proof.proof();
    let proven = survive(async {
        let asked = tokio::select! {
            asked = iam.prove(&key.access_key, &secret_key, &proof) => asked?,
            signal = signals.ending() => return Err(run.ended_by(signal, "proving the new key")),
        };
        Ok((asked, access.credentials.with_key(&key.access_key, &secret_key)?))
    })
    .await
    .flatten();
    match proven {
        Ok((asked, credentials)) => {
            proving.done(&format!("good after {asked} requests"));
            Ok(Some(Minted {
                credentials,
                access_key: key.access_key,
                iam,
            }))
        }
        Err(failure) => {
            drop(proving);
            delete(&iam, &key.access_key).await;
            Err(failure)
        }
    }
}

/// When the key ends by itself.
fn end(args: &MintArgs, run: &Run) -> Timestamp {
    let lives = args
        .mint_for
        .unwrap_or_else(|| run.deadline.remaining().saturating_add(MARGIN));
    Timestamp::now().checked_add(lives).unwrap_or(Timestamp::MAX)
}

/// The halves of the key that makes keys are fields of the secret, which variables can be made of.
fn refuse_exposure(args: &ExecArgs) -> Result<()> {
    let halves = [Field::AccessKey, Field::SecretKey].map(|half| plan::key_of(&args.source.fields, half));
    match args
        .variables
        .tf_vars
        .iter()
        .find(|(_, key)| halves.contains(&key.as_str()))
    {
        Some((name, key)) => Err(Failure::usage(format!(
            "--tf-var {name}={key} would hand the key that makes keys to the command"
        ))
        .hint("with --mint the command has a key of its own, in SCW_ACCESS_KEY and SCW_SECRET_KEY")),
        None => Ok(()),
    }
}

impl Minted {
    /// Deletes the key.
    pub(crate) async fn release(self) {
        delete(&self.iam, &self.access_key).await;
    }
}

async fn delete(iam: &Iam, access_key: &str) {
    let deleting = effect("delete", format!("API key {access_key}"));
    match iam
        .with_deadline(Deadline::after(DELETE_WITHIN))
        .delete(access_key)
        .await
    {
        Ok(true) => deleting.done("done"),
        Ok(false) => deleting.done("gone already"),
        Err(failure) => {
            drop(deleting);
            tracing::error!(
                action = "delete",
                hint = failure.next_action(),
                "the API key {access_key} lives on until it ends by itself: {failure}"
            );
        }
    }
}
