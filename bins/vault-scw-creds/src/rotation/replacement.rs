//! A new key in the place of the old one, or no new key.

use std::time::Duration;

use jiff::Timestamp;
use towpath::cli::effect;
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Kind, Result};
use towpath::process::Signals;
use towpath::scaleway::{ApiKey, Field, NewApiKey};
use towpath::secret::Secret;
use towpath::vault::{Original, Replaced};

use super::decision::later;
use super::marker::Marker;
use super::{Work, field};
use crate::plan;

/// How long it may take to take back a key that nobody is to have, whatever became of the run.
const UNDO_WITHIN: Duration = Duration::from_secs(15);

impl Work<'_> {
    /// Makes a key, proves it and puts it into the secret. Whatever goes wrong before, it is deleted again.
    pub(super) async fn replace(&mut self, current: &ApiKey, signals: &mut Signals) -> Result<ApiKey> {
        let marker = Marker {
            secret: self.args.source.shown(),
            born: self.metadata.created_time.clone(),
            after: self.original.version,
            replaces: current.access_key.clone(),
        };
        let description = marker.to_string();
        let lifetime = self.args.rhythm.key_lifetime;
        let wanted = NewApiKey::of(&current.bearer, &description)
            .ending(lifetime.map(|lifetime| later(Timestamp::now(), lifetime)))
            .in_project(current.default_project_id.as_deref());
        let making = effect("create", format!("API key in place of {}", current.access_key));
        let (key, secret_key) = self.iam.create(&wanted).await?;
        making.done(&key.access_key);

        let proving = effect("prove", format!("API key {}", key.access_key));
        let proof = self.args.proof.proof();
        let proven = tokio::select! {
            proven = self.iam.prove(&key.access_key, &secret_key, &proof) => proven,
            signal = signals.ending() => Err(self.run.ended_by(signal, "proving the new key")),
        };
        match proven {
            Ok(asked) => proving.done(&format!("good after {asked} requests")),
            Err(failure) => {
                drop(proving);
                return Err(self.undo(&key, failure).await);
            }
        }
        if let Err((failure, may_be_there)) = self.put(&key, &secret_key).await {
            if may_be_there {
                return Err(failure);
            }
            return Err(self.undo(&key, failure).await);
        }
        Ok(key)
    }

    /// Writes the key to the secret, and reads it back. With a failure goes whether the key may be there all the same.
    async fn put(&mut self, key: &ApiKey, secret_key: &Secret) -> Result<(), (Failure, bool)> {
        let writing = effect("write", self.args.source.shown());
        let fields = &self.args.source.fields;
        let changes = [
            (plan::key_of(fields, Field::AccessKey), key.access_key.as_str()),
            (plan::key_of(fields, Field::SecretKey), secret_key.expose()),
        ];
        let written = self.session.replace(&self.mount, &self.original, &changes).await;
        let (refused, doubt) = match written {
            Ok(Replaced::Version(_)) => (false, None),
            Ok(Replaced::Refused) => (true, None),
            Err(failure) if matches!(failure.kind(), Kind::Unavailable | Kind::Deadline) => {
                (false, Some(failure))
            }
            Err(failure) => return Err((failure, false)),
        };
        let there = match self.session.original(&self.mount).await {
            Ok(there) => there,
            Err(failure) => return Err((doubt.unwrap_or(failure), !refused)),
        };
        let is_there = |there: &Original| {
            self.access_key(there).is_ok_and(|name| name == key.access_key)
                && field(there, &self.args.source, Field::SecretKey)
                    .is_ok_and(|value| value == secret_key.expose())
        };
        if is_there(&there) {
            writing.done(&format!("version {}", there.version));
            self.original = there;
            return Ok(());
        }
        let path = self.args.source.shown();
        if there.version > self.original.version {
            return Err((
                Failure::conflict(format!(
                    "somebody wrote version {} of {path} meanwhile",
                    there.version
                ))
                .hint("look at it, and run `rotate` again; in GitLab a `resource_group` lets one job at a time do it"),
                false,
            ));
        }
        match doubt {
            // It may be written yet, by a server that is slow.
            Some(failure) => Err((
                failure
                    .hint("nobody knows whether the new key was written: run `rotate` again, it finds out"),
                true,
            )),
            None if refused => Err((
                Failure::conflict(format!("vault refuses version {} of {path}", there.version + 1))
                    .hint("does the mount demand something of a secret that this one lacks?"),
                false,
            )),
            None => Err((
                Failure::unavailable(format!("{path} was written but reads as before"))
                    .hint("is this a standby that is behind? Run `rotate` again, it finds out"),
                true,
            )),
        }
    }

    /// Takes back a key that nobody is to have, and hands on why.
    async fn undo(&self, key: &ApiKey, failure: Failure) -> Failure {
        let undoing = effect("delete", format!("API key {}", key.access_key));
        let iam = self.iam.with_deadline(Deadline::after(UNDO_WITHIN));
        match iam.delete_new(&key.access_key).await {
            Ok(()) => undoing.done("done"),
            Err(why) => {
                drop(undoing);
                tracing::error!(
                    "the API key {} is left, for the next rotation to delete: {why}",
                    key.access_key
                );
            }
        }
        failure
    }
}
