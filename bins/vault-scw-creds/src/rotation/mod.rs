//! `rotate`: another API key in the secret, and an end for the one before.
//!
//! Each step leaves a state that the next run understands: see [`decision`].

mod decision;
mod marker;
mod replacement;

use jiff::Timestamp;
use serde::Serialize;
use towpath::cli::{Outcome, Run, effect};
use towpath::failure::{Failure, Kind, Result, survive};
use towpath::http::{Client, PlainHttp, Settings, parse_base_url};
use towpath::process::Signals;
use towpath::scaleway::{ApiKey, Field, Iam};
use towpath::secret::Secret;
use towpath::vault::{KvVersion, Mount, Original, SecretMetadata, SecretPath, Session};

pub(crate) use self::decision::age;
use self::decision::{Gone, Other, Past, Rhythm, State, Step, Why, decide};
use self::marker::Marker;
use crate::access;
use crate::args::{ApiArgs, ManagerArgs, RotateArgs, SourceArgs};
use crate::plan;
use crate::report::{self, token_word};

/// What is noted in the secret's metadata.
const NOTED_KEY: &str = "towpath_access_key";
const NOTED_PREVIOUS: &str = "towpath_previous_access_key";
const NOTED_TIME: &str = "towpath_rotated_at";

/// What the report says of a rotation.
#[derive(Debug, Serialize)]
pub(crate) struct Rotation {
    /// The key that is in use now.
    pub(crate) access_key: String,
    /// Its age in whole days.
    pub(crate) age_days: u64,
    /// Whether that was more than `--max-age` when the run began.
    pub(crate) too_old: bool,
    /// What was done, or would be in a dry run, in order.
    pub(crate) steps: Vec<Taken>,
}

/// A step that was taken, or would be in a dry run.
#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    /// `rotated`, `noted`, `retired` or `deleted`; `rotate`, `note`, `retire` or `delete` in a dry run.
    pub(crate) step: &'static str,
    /// The key it is about.
    pub(crate) access_key: String,
    /// Why, or until when.
    pub(crate) detail: String,
}

/// What a run works with.
struct Work<'a> {
    args: &'a RotateArgs,
    run: &'a Run,
    session: &'a Session,
    iam: Iam,
    mount: Mount,
    metadata: SecretMetadata,
    original: Original,
}

/// Looks, decides, acts, and looks again.
pub(crate) async fn rotate(args: &RotateArgs, run: &Run) -> anyhow::Result<Outcome> {
    let mut signals = run.take_signals()?;
    if args.source.secret_version.is_some() {
        return Err(
            Failure::usage("a version that is pinned cannot be replaced: versions do not change")
                .hint("leave --version (TOWPATH_SECRET_VERSION) out of `rotate`")
                .into(),
        );
    }
    args.source.secret()?;
    let vault = access::server(&args.source.vault_addr, &args.source.reach, run.deadline)?;
    let login = access::login(&args.source.login)?;
    let session = access::log_in(&vault, &login, run, &mut signals).await?;
    let mut rotation = None;
    let worked = survive(with_session(args, run, &session, &mut signals, &mut rotation))
        .await
        .flatten();
    let token = access::give_back(&session).await;
    let mut report = report::Outcome::of("rotate", args.dry_run);
    report.token = Some(token_word(token));
    report.changed = !args.dry_run
        && rotation
            .as_ref()
            .is_some_and(|rotation: &Rotation| !rotation.steps.is_empty());
    if worked.is_err() && !report.changed {
        worked?;
        return Ok(Outcome::report(&report)?);
    }
    report.rotation = rotation;
    let outcome = Outcome::report(&report)?;
    Ok(match worked {
        Ok(()) => outcome,
        Err(failure) => outcome.failing(failure),
    })
}

async fn with_session(
    args: &RotateArgs,
    run: &Run,
    session: &Session,
    signals: &mut Signals,
    report: &mut Option<Rotation>,
) -> Result<()> {
    // Nothing was made yet, so a signal ends it at once.
    let looking = async {
        let work = Work::begin(args, run, session).await?;
        let state = work.look().await?;
        Ok::<_, Failure>((work, state))
    };
    let (mut work, mut state) = tokio::select! {
        looked = looking => looked?,
        signal = signals.ending() => return Err(run.ended_by(signal, "looking at the key")),
    };
    let rhythm = Rhythm {
        every: args.rhythm.every,
        now: args.rhythm.now,
        grace: args.rhythm.grace,
    };
    let began = Timestamp::now();
    let old = age(&state.current, began);
    let report = report.insert(Rotation {
        access_key: state.current.access_key.clone(),
        age_days: old.as_secs() / 86_400,
        too_old: old > args.rhythm.max_age,
        steps: Vec::new(),
    });
    if report.too_old {
        tracing::warn!(
            action = "age",
            object = state.current.access_key,
            days = report.age_days,
            "the key in {} is older than --max-age allows",
            args.source.shown()
        );
    }
    let mut steps = decide(&state, &rhythm, began);
    if args.dry_run {
        report.steps = steps.iter().map(|step| foretold(step, &state)).collect();
        return Ok(());
    }
    // What was asked for is done once.
    let again = Rhythm { now: false, ..rhythm };
    let mut rotated = false;
    while !steps.is_empty() {
        for step in steps {
            before_the_next(run, signals).await?;
            rotated |= matches!(step, Step::Rotate(_));
            let taken = work.take(step, &mut state, signals).await?;
            report.access_key.clone_from(&state.current.access_key);
            report.age_days = age(&state.current, Timestamp::now()).as_secs() / 86_400;
            report.steps.push(taken);
        }
        steps = decide(&state, &again, Timestamp::now());
        // One new key a run, whatever clocks and life times say: a key that is due as soon as it is made would be
        // replaced without end.
        if rotated && steps.iter().any(|step| matches!(step, Step::Rotate(_))) {
            tracing::warn!(
                action = "rotate",
                object = state.current.access_key,
                "the new key is due to be replaced already: compare --key-lifetime and --every with --grace"
            );
            steps.retain(|step| !matches!(step, Step::Rotate(_)));
        }
    }
    Ok(())
}

/// Between two steps is a good moment to end.
async fn before_the_next(run: &Run, signals: &mut Signals) -> Result<()> {
    tokio::select! {
        biased;
        signal = signals.ending() => Err(run.ended_by(signal, "rotating: the next run goes on from here")),
        () = std::future::ready(()) => Ok(()),
    }
}

/// IAM, asked with the key that is in a secret.
pub(crate) async fn manager(
    args: &ManagerArgs,
    api: &ApiArgs,
    source: &SourceArgs,
    run: &Run,
    session: &Session,
) -> Result<Iam> {
    let secret: &SecretPath = match &args.iam_secret {
        Some(secret) => secret,
        None => source.secret()?,
    };
    let mount = session.mount_of(secret).await?;
    let reading = session.read(&mount, None).await?;
    let origin = access::origin(secret, &reading);
    let credentials = plan::credentials(&reading, args.fields(&source.fields), &origin)?;
    iam(api, source, run, credentials.secret_key().clone())
}

/// IAM, asked with a key.
///
/// # Errors
/// Usage (exit 2) or denied (exit 4) for an address that cannot be used.
pub(crate) fn iam(api: &ApiArgs, source: &SourceArgs, run: &Run, key: Secret) -> Result<Iam> {
    let settings = Settings {
        plain_http: if source.reach.plain_http {
            PlainHttp::Allowed
        } else {
            PlainHttp::LoopbackOnly
        },
        ..Settings::new("scaleway")
    };
    let address = parse_base_url("--scw-api-url", &api.scw_api_url)?;
    Iam::new(Client::new(settings, run.deadline)?, address, key)
}

impl<'a> Work<'a> {
    /// Reads the secret, and sees that all may be done that will have to be.
    async fn begin(args: &'a RotateArgs, run: &'a Run, session: &'a Session) -> Result<Self> {
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
        Ok(Work {
            args,
            run,
            session,
            iam: manager.with_pause(args.proof.proof_pause),
            mount,
            metadata,
            original,
        })
    }

    fn access_key(&self, original: &Original) -> Result<String> {
        field(original, &self.args.source, Field::AccessKey)
    }

    /// Gathers what is known of the secret's keys.
    async fn look(&self) -> Result<State> {
        let access_key = self.access_key(&self.original)?;
        let effect = effect("look", format!("API keys at {}", self.iam.shown()));
        let current = self.iam.get(&access_key).await?.ok_or_else(|| {
            Failure::conflict(format!(
                "the key in {} is {access_key}, which IAM does not know",
                self.args.source.shown()
            ))
            .hint("was it deleted, or is it of another organization? Write a key that is there to the secret, then rotate")
        })?;
        let own = Marker::read(&current.description).filter(|own| self.is_ours(own));
        let mut others = Vec::new();
        for key in self.iam.list(&current.bearer).await? {
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
    async fn past(&self, key: &ApiKey) -> Result<Option<Past>> {
        let Some(marker) = Marker::read(&key.description).filter(|marker| self.is_ours(marker)) else {
            return Ok(None);
        };
        if marker.after >= self.original.version {
            return Ok(Some(Past::Pending));
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

    async fn take(&mut self, step: Step, state: &mut State, signals: &mut Signals) -> Result<Taken> {
        let mut taken = foretold(&step, state);
        match step {
            Step::Note => {
                self.note(&state.current).await?;
                state.noted = true;
                taken.step = "noted";
            }
            Step::Delete(access_key, _) => {
                let effect = effect("delete", format!("API key {access_key}"));
                let there = self.iam.delete(&access_key).await?;
                effect.done(if there { "done" } else { "gone already" });
                state.others.retain(|other| other.key.access_key != access_key);
                taken.step = "deleted";
            }
            Step::Retire(access_key, at) => {
                let effect = effect("retire", format!("API key {access_key}"));
                let there = self.iam.end_at(&access_key, at).await?;
                effect.done(&if there {
                    format!("ends at {at}")
                } else {
                    "gone already".to_owned()
                });
                if there {
                    for other in &mut state.others {
                        if other.key.access_key == access_key {
                            other.key.expires_at = Some(at);
                        }
                    }
                } else {
                    state.others.retain(|other| other.key.access_key != access_key);
                }
                taken.step = "retired";
            }
            Step::Rotate(_) => {
                let new = self.replace(&state.current, signals).await?;
                let before = std::mem::replace(&mut state.current, new);
                for other in &mut state.others {
                    // The version that a pending key could have been in is taken.
                    match other.past {
                        Past::Pending => other.past = Past::NeverUsed,
                        Past::Predecessor => other.past = Past::Used,
                        Past::Used | Past::NeverUsed => {}
                    }
                }
                state.others.push(Other {
                    key: before,
                    past: Past::Predecessor,
                });
                state.noted = false;
                taken.access_key.clone_from(&state.current.access_key);
                taken.step = "rotated";
            }
        }
        Ok(taken)
    }

    async fn note(&mut self, current: &ApiKey) -> Result<()> {
        let noting = effect("note", format!("metadata of {}", self.args.source.shown()));
        let previous = Marker::read(&current.description).map(|marker| marker.replaces);
        let notes = [
            (NOTED_KEY, current.access_key.clone()),
            (NOTED_PREVIOUS, previous.unwrap_or_default()),
            (NOTED_TIME, current.created_at.to_string()),
        ];
        // Somebody may have noted something since.
        self.metadata = self.session.metadata(&self.mount).await?;
        self.session.annotate(&self.mount, &self.metadata, &notes).await?;
        noting.done("done");
        Ok(())
    }
}

/// Sees that the token may do what will have to be done, before a key is made that could not be stored.
pub(crate) async fn may_write(session: &Session, mount: &Mount) -> Result<()> {
    let paths = [mount.data_path(), mount.metadata_path()];
    let capabilities = session.capabilities(&paths).await?;
    for path in &paths {
        let may = |wanted: &str| {
            capabilities
                .get(path)
                .is_some_and(|list| list.iter().any(|has| has == wanted || has == "root"))
        };
        for wanted in ["read", "update"] {
            if !may(wanted) {
                return Err(
                    Failure::denied(format!("the token may not {wanted} {path}")).hint(format!(
                        "let one of its policies ({}) have the capabilities read and update there",
                        session.policies().join(", ")
                    )),
                );
            }
        }
    }
    Ok(())
}

/// A field of the secret that there has to be.
fn field(original: &Original, source: &SourceArgs, field: Field) -> Result<String> {
    let name = plan::key_of(&source.fields, field);
    let value = original
        .field(name)
        .ok_or_else(|| Failure::not_found(format!("{} has no text {name:?}", source.shown())))?;
    if !field.accepts(value.trim()) {
        return Err(Failure::input(format!(
            "{name} of {} is not a {field} of Scaleway",
            source.shown()
        )));
    }
    Ok(value.trim().to_owned())
}

/// A step, as a dry run tells it.
fn foretold(step: &Step, state: &State) -> Taken {
    let current = &state.current.access_key;
    let (step, access_key, detail) = match step {
        Step::Note => ("note", current, "in the secret's metadata".to_owned()),
        Step::Delete(access_key, Gone::Ended) => ("delete", access_key, "it has ended".to_owned()),
        Step::Delete(access_key, Gone::NeverUsed) => ("delete", access_key, "it never was in use".to_owned()),
        Step::Retire(access_key, at) => ("retire", access_key, format!("it ends at {at}")),
        Step::Rotate(why) => {
            let why = match why {
                Why::Age => "it is old",
                Why::Ending => "it would end soon",
                Why::Asked => "it was asked for",
            };
            ("rotate", current, format!("in place of {current}: {why}"))
        }
    };
    Taken {
        step,
        access_key: access_key.clone(),
        detail,
    }
}
