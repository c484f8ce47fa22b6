//! What is known of a secret's keys, in Vault and in IAM.

use std::time::Duration;

use towpath::cli::{Run, effect};
use towpath::failure::{Failure, Kind, Result};
use towpath::scaleway::{ApiKey, Field};
use towpath::secret::Secret;
use towpath::vault::{KvVersion, Login, Original, Session, Vault};

use super::decision::{Other, Past, State, later};
use super::marker::Marker;
use super::{NOTED_KEY, Work, field, iam, manager, may_write};
use crate::args::RotateArgs;
use crate::plan;

/// How much later than it says a run may write, at a server that is slow.
const SLOW: Duration = Duration::from_secs(10 * 60);

impl<'a> Work<'a> {
    /// Reads the secret, sees that all may be done that will have to be, and gathers what is known of its keys.
    pub(super) async fn begin(
        args: &'a RotateArgs,
        run: &'a Run,
        vault: &'a Vault,
        login: &'a Login,
        session: &'a mut Session,
    ) -> Result<(Self, State)> {
        let secret = args.source.secret()?;
        let effect = effect("read", secret.as_str());
        let mount = session.mount_of(secret).await?;
        if mount.version != KvVersion::Two {
            return Err(Failure::usage(format!(
                "{} is a KV {} mount, which has no check-and-set",
                mount.path, mount.version
            ))
            .hint("keep the secret in a KV v2 mount"));
        }
        may_write(session, &mount).await?;
        let metadata = session.metadata(&mount).await?;
        let original = session.original(&mount).await?;
        effect.done(&format!("version {}", original.version));
        let manager = match &args.manager.iam_secret {
            Some(_) => manager(&args.manager, &args.proof.api, &args.source, run, session).await?,
            None => {
                let key = field(&original, &args.source, Field::SecretKey)?;
                iam(&args.proof.api, &args.source, run, Secret::new(key))?
            }
        };
        let mut work = Work {
            args,
            run,
            vault,
            login,
            session,
            iam: manager.with_pause(args.proof.proof_pause),
            mount,
            metadata,
            original,
        };
        let state = work.look().await?;
        Ok((work, state))
    }

    pub(super) fn access_key(&self, original: &Original) -> Result<String> {
        field(original, &self.args.source, Field::AccessKey)
    }

    /// Gathers what is known of the secret's keys.
    async fn look(&mut self) -> Result<State> {
        let access_key = self.access_key(&self.original)?;
        let effect = effect("look", format!("API keys at {}", self.iam.shown()));
        let current = self.session.kept(self.iam.get(&access_key)).await?.ok_or_else(|| {
            Failure::conflict(format!(
                "the key in {} is {access_key}, which IAM does not know",
                self.args.source.shown()
            ))
            .hint("was it deleted, or is it of another organization? Write a key that is there to the secret, then rotate")
        })?;
        let own = Marker::read(&current.description).filter(|own| self.is_ours(own));
        let mut others = Vec::new();
        for key in self.session.kept(self.iam.list(&current.bearer)).await? {
            if key.access_key == access_key {
                continue;
            }
            let past = if own.as_ref().is_some_and(|own| own.replaces == key.access_key) {
                Some(Past::Predecessor)
            } else {
                self.past(&key).await?
            };
            others.extend(past.map(|past| Other { key, past }));
        }
        effect.done(&format!("{} beside the one in use", others.len()));
        Ok(State {
            noted: own.is_none() || self.metadata.custom.get(NOTED_KEY) == Some(&access_key),
            current,
            others,
        })
    }

    fn is_ours(&self, marker: &Marker) -> bool {
        marker.born == self.metadata.created_time
    }

    /// What a key was for this secret; none when it was not made for it.
    async fn past(&mut self, key: &ApiKey) -> Result<Option<Past>> {
        let Some(marker) = Marker::read(&key.description).filter(|marker| self.is_ours(marker)) else {
            return Ok(None);
        };
        if marker.after >= self.original.version {
            let is_over = later(marker.until, SLOW) < self.iam.now();
            return Ok(Some(if is_over { Past::NeverUsed } else { Past::Pending }));
        }
        let name = plan::key_of(&self.args.source.fields, Field::AccessKey);
        Ok(Some(
            match self.session.read(&self.mount, Some(marker.after + 1)).await {
                Ok(next) if next.field(name) == Some(&key.access_key) => Past::Used,
                Ok(_) => Past::NeverUsed,
                // It is not known any more whether it was used, so it may have been.
                Err(failure) if failure.kind() == Kind::NotFound => Past::Used,
                Err(failure) => return Err(failure),
            },
        ))
    }
}
