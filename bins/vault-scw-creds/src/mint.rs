//! `exec --mint`: a key that IAM makes for one command, and that is deleted when the command has ended.
//!
//! The key of the secret stays with us: the command gets the new one in its place, wherever it would have got the other.

use std::time::Duration;

use jiff::SignedDuration;
use towpath::cli::{Run, effect};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result, survive};
use towpath::process::Signals;
use towpath::scaleway::{ApiKey, Bearer, Credentials, Field, Iam, NewApiKey};
use towpath::secret::Secret;
use towpath::vault::Reading;

use crate::access::{self, Access};
use crate::args::ExecArgs;
use crate::making::{self, Wanted};
use crate::plan;
use crate::rotation;

/// How long deleting may take. It has its own time, since the run's may be over by then.
const DELETE_WITHIN: Duration = Duration::from_secs(30);
/// How much longer than the run a key lasts that nobody deletes.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// A key of a command's own.
#[derive(Debug)]
pub(crate) struct Minted {
    /// The secret's credentials with this key.
    pub(crate) credentials: Credentials,
    /// The secret with this key in the place of its own.
    pub(crate) reading: Reading,
    /// What it was made with, which is nothing for the command.
    pub(crate) manager: Secret,
    key: ApiKey,
    iam: Iam,
}

/// Has a key made and tries it until it is known. What fails after it was made deletes it again.
///
/// # Errors
/// Whatever IAM answers; unsuccessful (exit 8) when the key does not become good; deadline (exit 128+n) after a signal.
pub(crate) async fn mint(
    args: &ExecArgs,
    access: &Access,
    run: &Run,
    signals: &mut Signals,
) -> Result<Minted> {
    let manager = manager(args, access, run, signals).await?;
    let iam = rotation::iam(&args.proof.api, &args.source, run, manager.clone())?
        .with_pause(args.proof.proof_pause);
    let bearer = async {
        match &args.mint_application {
            Some(id) => Ok(Bearer::Application(id.clone())),
            None => whose(&iam, access.credentials.access_key()).await,
        }
    };
    let bearer = tokio::select! {
        bearer = bearer => bearer?,
        signal = signals.ending() => return Err(run.ended_by(signal, "asking whose the key is")),
    };
    let project = access
        .credentials
        .defaults()
        .find(|(field, _)| *field == Field::ProjectId)
        .map(|(_, id)| id.to_owned());
    let lasts = args.mint_for.unwrap_or_else(|| run.deadline.remaining() + MARGIN);
    let seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
    let end = iam
        .now()
        .checked_add(SignedDuration::from_secs(seconds))
        .map_err(|_| Failure::usage("--mint-for is longer than time is counted"))?;
    let description = format!(
        "for one command, by vault-scw-creds exec (trace {}, run {})",
        run.trace.trace_id(),
        making::nonce()
    );
    let key = NewApiKey::of(&bearer, &description)
        .ending(Some(end))
        .in_project(project.as_deref());
    let wanted = Wanted {
        bearer: &bearer,
        description: &description,
        key,
    };

    let making = effect("create", format!("API key for {}", bearer.id()));
    let (key, secret_key) = making::make(&iam, &wanted, run, signals).await?;
    making.done(&format!("{}, until {end} at most", key.access_key));
    let proven = survive(async {
        let proving = effect("prove", format!("API key {}", key.access_key));
        let proof = args.proof.proof();
        let asked = tokio::select! {
            asked = iam.prove(&key.access_key, &secret_key, &proof) => asked?,
            signal = signals.ending() => return Err(run.ended_by(signal, "proving the new key")),
        };
        proving.done(&format!("good after {asked} requests"));
        let credentials = access.credentials.with_key(&key.access_key, &secret_key)?;
        Ok((credentials, in_place(args, access, &key, &secret_key)))
    })
    .await
    .flatten();
    match proven {
        Ok((credentials, reading)) => Ok(Minted {
            credentials,
            reading,
            manager,
            key,
            iam,
        }),
        Err(failure) => {
            delete(&iam, &key, false).await;
            Err(failure)
        }
    }
}

/// The key that may make others: that of the secret, or of a secret of its own.
async fn manager(args: &ExecArgs, access: &Access, run: &Run, signals: &mut Signals) -> Result<Secret> {
    let Some(secret) = &args.manager.iam_secret else {
        return Ok(access.credentials.secret_key().clone());
    };
    let mut source = args.source.clone();
    source.secret = Some(secret.clone());
    source.secret_version = None;
    source.fields = args.manager.fields(&args.source.fields).to_vec();
    let mut managing = access::obtain(&source, run, signals).await?;
    managing.settle().await;
    Ok(managing.credentials.secret_key().clone())
}

async fn whose(iam: &Iam, access_key: &str) -> Result<Bearer> {
    iam.get(access_key).await?.map(|key| key.bearer).ok_or_else(|| {
        Failure::not_found(format!(
            "IAM does not know the API key {access_key} of the secret"
        ))
        .hint("say whose the new key is to be by --mint-application (TOWPATH_MINT_APPLICATION)")
    })
}

/// The secret's fields, with the new key for its own.
fn in_place(args: &ExecArgs, access: &Access, key: &ApiKey, secret_key: &Secret) -> Reading {
    let fields = &args.source.fields;
    let (public, secret) = (
        plan::key_of(fields, Field::AccessKey),
        plan::key_of(fields, Field::SecretKey),
    );
    let values = access.reading.names().map(|name| {
        let value = if name == public {
            key.access_key.as_str()
        } else if name == secret {
            secret_key.expose()
        } else {
            access.reading.field(name).unwrap_or_default()
        };
        (name.to_owned(), value.to_owned())
    });
    Reading::new(access.reading.version, values)
}

impl Minted {
    /// Deletes the key. The outcome is logged.
    pub(crate) async fn delete(&self) {
        delete(&self.iam, &self.key, true).await;
    }
}

/// Deletes a key; one that was not `proven` may not be known everywhere yet.
async fn delete(iam: &Iam, key: &ApiKey, proven: bool) {
    let deleting = effect("delete", format!("API key {}", key.access_key));
    let deadline = Deadline::after(DELETE_WITHIN);
    let iam = iam.with_deadline(deadline);
    let deleted = if proven {
        iam.delete(&key.access_key).await
    } else {
        iam.delete_new(&key.access_key).await.map(|()| true)
    };
    match deleted {
        Ok(true) => deleting.done("done"),
        Ok(false) => deleting.done("gone already"),
        Err(failure) => {
            drop(deleting);
            let end = key
                .expires_at
                .map_or_else(|| "somebody deletes it".to_owned(), |end| end.to_string());
            tracing::error!(
                action = "delete",
                object = key.access_key,
                hint = failure.next_action(),
                "the API key {} lives on until {end}: {failure}",
                key.access_key
            );
        }
    }
}
