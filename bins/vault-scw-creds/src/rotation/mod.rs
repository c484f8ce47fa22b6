//! `rotate`: another API key in the secret, and an end for the one before.
//!
//! Each step leaves a state that the next run understands: see [`decision`].

mod decision;
mod looking;
mod marker;
mod replacement;

use std::time::Duration;

use serde::Serialize;
use towpath::cli::{Outcome, Run, effect};
use towpath::failure::{Failure, Result, survive};
use towpath::http::{Client, PlainHttp, Settings, parse_base_url};
use towpath::process::Signals;
use towpath::scaleway::{ApiKey, Field, Iam};
use towpath::secret::Secret;
use towpath::vault::{Login, Mount, Original, SecretMetadata, SecretPath, Session, Vault};

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
/// No key is replaced more often than this: while its predecessors have their grace, the bearer's quota fills up.
const SHORTEST_EVERY: Duration = Duration::from_secs(10 * 60);
/// An end that is nearer may be over before IAM hears of it, which takes none that is.
const SHORTEST_GRACE: Duration = Duration::from_secs(60);

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
    vault: &'a Vault,
    login: &'a Login,
    session: &'a mut Session,
    iam: Iam,
    mount: Mount,
    metadata: SecretMetadata,
    original: Original,
}

/// Looks, decides, acts, and looks again.
pub(crate) async fn rotate(args: &RotateArgs, run: &Run) -> anyhow::Result<Outcome> {
    let mut signals = run.take_signals()?;
    if let Some(pinned) = args.pinned_elsewhere {
        tracing::info!(
            pinned,
            "TOWPATH_SECRET_VERSION is for commands that read: rotate replaces the key of the latest version"
        );
    }
    args.source.secret()?;
    check(args)?;
    let vault = access::server(&args.source.vault_addr, &args.source.reach, run.deadline)?;
    let login = access::login(&args.source.login)?;
    let mut session = access::log_in(&vault, &login, run, &mut signals).await?;
    let mut rotation = None;
    let worked = survive(async {
        // Nothing was made yet, so a signal ends it at once.
        let (work, state) = tokio::select! {
            looked = Work::begin(args, run, &vault, &login, &mut session) => looked?,
            signal = signals.ending() => return Err(run.ended_by(signal, "looking at the key")),
        };
        go_on(work, state, &mut signals, &mut rotation).await
    })
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

/// Refuses a rhythm in which keys would end that are in use, or in which there is always one to be replaced.
fn check(args: &RotateArgs) -> Result<()> {
    let rhythm = &args.rhythm;
    let shortest = SHORTEST_EVERY.max(args.proof.prove_within);
    if rhythm.every < shortest {
        return Err(
            Failure::usage(format!("--every is less than {} minutes", shortest.as_secs().div_ceil(60)))
                .hint("rotating takes that long (--prove-within), and each replaced key stays for --grace (TOWPATH_ROTATE_EVERY)"),
        );
    }
    if rhythm.grace < SHORTEST_GRACE {
        return Err(Failure::usage(
            "--grace is less than a minute, so that a key may end before IAM hears of it",
        )
        .hint("let commands that have the key finish: give it as long as they take (TOWPATH_GRACE)"));
    }
    // Runs come now and then, so that a key is replaced somewhat after it could be.
    let needed = rhythm.every + rhythm.every / 10 + rhythm.grace;
    if rhythm.key_lifetime.is_some_and(|lifetime| lifetime < needed) {
        return Err(Failure::usage(
            "--key-lifetime is not clearly longer than --every and --grace together, so that keys would end in use",
        )
        .hint(format!(
            "let it be {} h at least, or rotate more often (TOWPATH_KEY_LIFETIME, TOWPATH_ROTATE_EVERY)",
            needed.as_secs().div_ceil(3600)
        )));
    }
    Ok(())
}

/// Decides, acts, and decides again.
async fn go_on(
    mut work: Work<'_>,
    mut state: State,
    signals: &mut Signals,
    report: &mut Option<Rotation>,
) -> Result<()> {
    let (args, run) = (work.args, work.run);
    let rhythm = Rhythm {
        every: args.rhythm.every,
        now: args.rhythm.now,
        grace: args.rhythm.grace,
    };
    let began = work.iam.now();
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
            report.age_days = age(&state.current, work.iam.now()).as_secs() / 86_400;
            report.steps.push(taken);
        }
        steps = decide(&state, &again, work.iam.now());
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

impl Work<'_> {
    /// Sees that the token is good for the next request: renews it, or logs in again where that is not enough. One that was
    /// given to us is used as long as it is good.
    async fn fresh(&mut self, signals: &mut Signals) -> Result<()> {
        if !self.session.ends_soon() {
            return Ok(());
        }
        let renewed = tokio::select! {
            renewed = self.session.renew() => renewed,
            signal = signals.ending() => return Err(self.run.ended_by(signal, "renewing the token")),
        };
        if renewed.is_ok() && !self.session.ends_soon() {
            return Ok(());
        }
        if !self.session.is_issued() {
            return Ok(());
        }
        let next = access::log_in(self.vault, self.login, self.run, signals).await?;
        let before = std::mem::replace(self.session, next);
        access::give_back(&before).await;
        Ok(())
    }

    async fn take(&mut self, step: Step, state: &mut State, signals: &mut Signals) -> Result<Taken> {
        self.fresh(signals).await?;
        if !matches!(step, Step::Rotate(_)) {
            let run = self.run;
            // Each of these can be done again by the next run.
            return tokio::select! {
                taken = self.settle(step, state) => taken,
                signal = signals.ending() => {
                    Err(run.ended_by(signal, "rotating: the next run goes on from here"))
                }
            };
        }
        let mut taken = foretold(&step, state);
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
        Ok(taken)
    }

    /// Takes a step that makes no key.
    async fn settle(&mut self, step: Step, state: &mut State) -> Result<Taken> {
        let mut taken = foretold(&step, state);
        match step {
            Step::Note => {
                self.note(&state.current).await?;
                state.noted = true;
                taken.step = "noted";
            }
            Step::Delete(access_key, _) => {
                let effect = effect("delete", format!("API key {access_key}"));
                let there = self.session.kept(self.iam.delete(&access_key)).await?;
                effect.done(if there { "done" } else { "gone already" });
                state.others.retain(|other| other.key.access_key != access_key);
                taken.step = "deleted";
            }
            Step::Retire(access_key, at) => {
                let effect = effect("retire", format!("API key {access_key}"));
                let there = self.session.kept(self.iam.end_at(&access_key, at)).await?;
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
            Step::Rotate(_) => {}
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
