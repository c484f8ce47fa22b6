//! A new key in the place of the old one, or no new key.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use towpath::cli::effect;
use towpath::failure::{Failure, Kind, Result};
use towpath::process::Signals;
use towpath::scaleway::{ApiKey, Field, NewApiKey};
use towpath::secret::Secret;
use towpath::vault::{Original, Replaced};

use super::decision::later;
use super::marker::Marker;
use super::{Work, field};
use crate::making::{self, Wanted};
use crate::plan;

/// How long writing that is under way has after a signal: what is known of it is worth more than a quick end.
const GRACE: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// Makes a key, proves it and puts it into the secret. Whatever goes wrong before, it is deleted again.
    pub(super) async fn replace(&mut self, current: &ApiKey, signals: &mut Signals) -> Result<ApiKey> {
        let until = later(self.iam.now(), self.run.deadline.remaining());
        let marker = Marker {
            secret: self.args.source.shown(),
            born: self.metadata.created_time.clone(),
            after: self.original.version,
            replaces: current.access_key.clone(),
            until: Timestamp::from_second(until.as_second()).unwrap_or(until),
            nonce: making::nonce(),
        };
        let description = marker.to_string();
        let lifetime = self.args.rhythm.key_lifetime;
        let key = NewApiKey::of(&current.bearer, &description)
            .ending(lifetime.map(|lifetime| later(self.iam.now(), lifetime)))
            .in_project(current.default_project_id.as_deref());
        let wanted = Wanted {
            bearer: &current.bearer,
            description: &description,
            key,
        };
        let making = effect("create", format!("API key in place of {}", current.access_key));
        let made = making::make(&self.iam, &wanted, self.run, signals);
        let (key, secret_key) = self.session.kept(made).await?;
        making.done(&key.access_key);

        let proving = effect("prove", format!("API key {}", key.access_key));
        let proof = self.args.proof.proof();
        let proven = tokio::select! {
            proven = self.session.kept(self.iam.prove(&key.access_key, &secret_key, &proof)) => proven,
            signal = signals.ending() => Err(self.run.ended_by(signal, "proving the new key")),
        };
        match proven {
            Ok(asked) => proving.done(&format!("good after {asked} requests")),
            Err(failure) => {
                drop(proving);
                making::take_back(&self.iam, &key.access_key).await;
                return Err(failure);
            }
        }
        let put = match self.fresh(signals).await {
            // Whoever finds the key after this moment takes it for nobody's, and deletes it.
            Ok(()) if self.iam.now() > marker.until => Err((
                Failure::deadline("the time was up before the new key could be written")
                    .hint("raise --timeout (TOWPATH_TIMEOUT); or was the clock moved?"),
                false,
            )),
            Ok(()) => self.put_in_time(&key, &secret_key, signals).await,
            Err(failure) => Err((failure, false)),
        };
        if let Err((failure, may_be_there)) = put {
            if !may_be_there {
                making::take_back(&self.iam, &key.access_key).await;
            }
            return Err(failure);
        }
        Ok(key)
    }

    /// The same as [`Work::put`], and not for long after a signal.
    async fn put_in_time(
        &mut self,
        key: &ApiKey,
        secret_key: &Secret,
        signals: &mut Signals,
    ) -> Result<(), (Failure, bool)> {
        let run = self.run;
        let mut putting = pin!(self.put(key, secret_key));
        tokio::select! {
            put = &mut putting => put,
            signal = signals.ending() => match tokio::time::timeout(GRACE, putting).await {
                Ok(put) => put,
                Err(_elapsed) => Err((
                    run.ended_by(signal, "writing the new key")
                        .hint("nobody knows whether it was written: run `rotate` again, it finds out"),
                    true,
                )),
            },
        }
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
            // These the server has answered itself, and written nothing.
            Err(failure) if matches!(failure.kind(), Kind::Denied | Kind::NotFound) => {
                return Err((failure, false));
            }
            // An answer that is lost, or cannot be read, may tell of a version that is there.
            Err(failure) => (false, Some(failure)),
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
}
