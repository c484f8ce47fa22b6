//! `doctor`: the way to the credentials, one step after the other.

use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Kind, Result};
use towpath::process::Signals;
use towpath::vault::{Login, Mount, SecretPath, Session, Vault, claims, seconds_since_epoch};

use crate::args::DoctorArgs;
use crate::report::{self, Check, SecretVersion, token_word};
use crate::{access, plan, rotation};

/// More than this many seconds between the clocks makes tokens expire early or not count yet.
const SKEW: u64 = 60;
/// A JWT that ends within this many seconds is likely to have ended when a job uses it.
const SOON: i64 = 60;

/// The steps, in the order in which they are told.
const STEPS: [&str; 8] = [
    "address", "login", "server", "token", "mount", "policy", "secret", "fields",
];
/// The steps where an engine makes the credentials: what it gives cannot be looked at without having some made.
const LEASED: [&str; 7] = ["address", "login", "server", "token", "engine", "policy", "lease"];
/// Those that only `rotate` needs.
const ROTATION: [&str; 2] = ["rotation", "key"];

/// Where leases and tokens are renewed, and leases revoked.
const RENEW: &str = "sys/leases/renew";
const REVOKE: &str = "sys/leases/revoke";
const RENEW_SELF: &str = "auth/token/renew-self";

/// What a check found.
enum Found<T> {
    /// All is well.
    Fine(String, T),
    /// It works, but: what was found, and what to do.
    But(String, String, T),
}

/// The checks so far, and the worst failure.
#[derive(Default)]
struct Row {
    checks: Vec<Check>,
    failure: Option<Failure>,
}

/// Tries each step and reports on all. The exit code is that of the worst failure: of the first that will not go away by
/// itself, or else of the first.
pub(crate) async fn examine(args: &DoctorArgs, run: &Run) -> anyhow::Result<Outcome> {
    let mut signals = run.take_signals()?;
    let sought = args.source.shown();
    if args.rotation && args.source.dynamic.is_some() {
        return Err(Failure::usage(
            "--rotation (TOWPATH_CHECK_ROTATION) is about a secret, not about --dynamic",
        )
        .hint("leave one of them out")
        .into());
    }
    let mut row = Row::default();
    let mut report = report::Outcome::of("doctor", false);
    let vault = row.take("address", address(args, run));
    let login = row.take("login", login(args));
    if let (Some(vault), false) = (vault, args.offline) {
        let health = tokio::select! {
            health = server(&vault) => health,
            signal = signals.ending() => Err(run.ended_by(signal, "asking for the server's health")),
        };
        if let (Some(()), Some(login)) = (row.take("server", health), login)
            && let Some(session) = row.take("token", open(&vault, &login, run, &mut signals).await)
        {
            let looking = async {
                match &args.source.dynamic {
                    Some(path) => leased(path, &session, &mut row).await,
                    None => with_token(args, run, &session, &mut row, &mut report).await,
                }
            };
            let signal = tokio::select! {
                _ = looking => None,
                signal = signals.ending() => Some(signal),
            };
            if let Some(signal) = signal {
                row.failure = Some(run.ended_by(signal, &format!("looking at {sought}")));
            }
            report.token = Some(token_word(access::give_back(&session).await));
        }
    }
    let why = if args.offline {
        "not looked at: --offline"
    } else {
        "depends on what failed"
    };
    let steps = if args.source.dynamic.is_some() {
        &LEASED[..]
    } else {
        &STEPS[..]
    };
    let more = if args.rotation { &ROTATION[..] } else { &[] };
    for (place, step) in steps.iter().chain(more).enumerate() {
        if row.checks.get(place).is_none_or(|check| check.check != *step) {
            row.checks.insert(
                place.min(row.checks.len()),
                Check {
                    check: step,
                    outcome: "skipped",
                    detail: why.to_owned(),
                    hint: None,
                },
            );
        }
    }
    report.checks = row.checks;
    let outcome = Outcome::report(&report)?;
    Ok(match row.failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// Address, certificates and key files are all read by now.
fn address(args: &DoctorArgs, run: &Run) -> Result<Found<Vault>> {
    let reach = &args.source.reach;
    let vault = access::server(&args.source.vault_addr, reach, run.deadline)?;
    let mut said = vault.shown();
    if let Some(file) = &reach.vault_ca_file {
        said.push_str(&format!(", trusting {}", file.display()));
    }
    if let Some(file) = &reach.vault_client_cert {
        said.push_str(&format!(", showing {}", file.display()));
    }
    Ok(Found::Fine(said, vault))
}

/// What is to be logged in with, as far as it can be told without the server.
fn login(args: &DoctorArgs) -> Result<Found<Login>> {
    let login = access::login(&args.source.login)?;
    let Some(jwt) = login.jwt()? else {
        return Ok(Found::Fine(login.shown(), login));
    };
    let claims = claims(&jwt).ok_or_else(|| {
        Failure::usage("what is to be logged in with is not a JWT").hint("check --jwt-file or --jwt-variable")
    })?;
    let now = seconds_since_epoch();
    let said = format!("{}; the JWT says: {}", login.shown(), claims.text(now));
    if claims.expired(now) {
        return Err(Failure::denied(format!("the JWT has ended; {said}"))
            .hint("use one that is valid for longer than the job waits"));
    }
    if claims.expired(now.saturating_add(SOON)) {
        return Ok(Found::But(
            said,
            "let it be valid for longer than the job waits before it logs in".to_owned(),
            login,
        ));
    }
    Ok(Found::Fine(said, login))
}

async fn server(vault: &Vault) -> Result<Found<()>> {
    let health = vault.health().await?;
    if !health.initialized || health.sealed {
        let state = if health.initialized {
            "sealed"
        } else {
            "not set up yet"
        };
        return Err(Failure::unavailable(format!("{} is {state}", vault.shown()))
            .hint("ask whoever runs the server to unseal it"));
    }
    let skew = health.server_time_utc.saturating_sub(seconds_since_epoch());
    if skew.unsigned_abs() > SKEW {
        return Err(Failure::unavailable(format!(
            "the clock of {} is {skew} s away from ours",
            vault.shown()
        ))
        .hint("set the clocks by NTP: tokens end too early, or do not count yet"));
    }
    let role = if health.standby { "standby" } else { "active" };
    Ok(Found::Fine(
        format!("version {}, {role}, clocks agree", health.version),
        (),
    ))
}

async fn open(vault: &Vault, login: &Login, run: &Run, signals: &mut Signals) -> Result<Found<Session>> {
    let session = access::log_in(vault, login, run, signals).await?;
    let said = format!(
        "policies {}, good for {} s",
        session.policies().join(", "),
        session.lease().as_secs()
    );
    Ok(Found::Fine(said, session))
}

/// What needs the token.
async fn with_token(
    args: &DoctorArgs,
    run: &Run,
    session: &Session,
    row: &mut Row,
    report: &mut report::Outcome,
) -> Option<()> {
    let source = &args.source;
    let secret = source.secret().ok()?;
    let mount = session.mount_of(secret).await;
    let mount = mount.map(|mount| {
        let said = format!("{} (KV {})", mount.path, mount.version);
        match access::where_it_is(source.likely_mount(secret).as_ref(), &mount) {
            Some(hint) if source.tells_mount() => Found::But(said, hint, mount),
            Some(hint) => Found::Fine(format!("{said}; {hint}"), mount),
            None => Found::Fine(said, mount),
        }
    });
    let mount = row.take("mount", mount)?;
    row.take("policy", policy(args, session, &mount).await);
    let reading = session.read(&mount, source.secret_version).await;
    let reading = reading.map(|reading| Found::Fine(access::origin(secret, &reading), reading));
    let reading = row.take("secret", reading)?;
    report.secret = Some(SecretVersion::got(source, &reading));
    let origin = access::origin(secret, &reading);
    let fields = plan::credentials(&reading, &source.fields, &origin).map(|credentials| {
        let names: Vec<&str> = credentials.environment().iter().map(|(name, _)| *name).collect();
        let said = format!("well formed, for {}", names.join(", "));
        Found::Fine(said, credentials.access_key().to_owned())
    });
    let access_key = row.take("fields", fields)?;
    if args.rotation {
        let may = rotation::may_write(session, &mount).await;
        row.take(
            "rotation",
            may.map(|()| Found::Fine("may write the secret and its metadata".to_owned(), ())),
        );
        row.take("key", key(args, run, session, &access_key).await);
    }
    Some(())
}

/// What can be told of credentials with a lease while none are made.
async fn leased(path: &SecretPath, session: &Session, row: &mut Row) -> Option<()> {
    let engine = session.engine_of(path).await;
    let engine = engine.map(|(mount, kind)| Found::Fine(format!("{mount} ({kind})"), ()));
    row.take("engine", engine)?;
    let paths = [path.as_str(), RENEW, REVOKE, RENEW_SELF].map(str::to_owned);
    let Ok(found) = session.capabilities(&paths).await else {
        row.take("policy", Ok(cannot_ask()));
        return None;
    };
    let may = |path: &str, wanted: &[&str]| {
        found.get(path).is_some_and(|has| {
            has.iter()
                .any(|has| has == "root" || wanted.contains(&has.as_str()))
        })
    };
    let policies = session.policies().join(", ");
    // Engines that take parameters are written to; `exec` reads.
    let read = if may(path.as_str(), &["read"]) {
        Ok(Found::Fine(
            format!("read at {path}; none were made to try it"),
            (),
        ))
    } else {
        Err(
            Failure::denied(format!("the token may not read {path}")).hint(format!(
                "let one of its policies ({policies}) have the capability read there"
            )),
        )
    };
    row.take("policy", read);
    let missing: Vec<&str> = [RENEW, REVOKE, RENEW_SELF]
        .into_iter()
        .filter(|path| !may(path, &["update"]))
        .collect();
    row.take(
        "lease",
        Ok(lease_rights(&missing, &policies, session.is_issued())),
    );
    Some(())
}

/// What comes of it when the token may not do these things to its leases and itself.
fn lease_rights(missing: &[&str], policies: &str, issued: bool) -> Found<()> {
    if missing.is_empty() {
        return Found::Fine(
            "it may be renewed and revoked, and so may the token".to_owned(),
            (),
        );
    }
    let mut said = Vec::new();
    if missing.contains(&RENEW) {
        said.push("it cannot be renewed, so it has to last for as long as the command");
    }
    if missing.contains(&RENEW_SELF) {
        said.push("the token cannot be renewed, and the lease ends with it");
    }
    if missing.contains(&REVOKE) {
        said.push(if issued {
            "it cannot be revoked by itself, but ends with the token, which is revoked after the command"
        } else {
            "it cannot be revoked, and outlives the command"
        });
    }
    let hint = format!(
        "let one of the token's policies ({policies}) have the capability update at {}",
        missing.join(", ")
    );
    Found::But(said.join("; "), hint, ())
}

fn cannot_ask() -> Found<()> {
    Found::But(
        "the token may not ask what it may do".to_owned(),
        "let it have the policy `default`, which allows sys/capabilities-self".to_owned(),
        (),
    )
}

/// Whether the token may do what it has to, and no more.
async fn policy(args: &DoctorArgs, session: &Session, mount: &Mount) -> Result<Found<()>> {
    let path = mount.values_path();
    let Ok(found) = session.capabilities(std::slice::from_ref(&path)).await else {
        return Ok(cannot_ask());
    };
    let capabilities = found.get(&path).map(Vec::as_slice).unwrap_or_default();
    let may = |wanted: &[&str]| capabilities.iter().any(|has| wanted.contains(&has.as_str()));
    if !may(&["read", "root"]) {
        return Err(
            Failure::denied(format!("the token may not read {path}")).hint(format!(
                "let one of its policies ({}) have the capability read there",
                session.policies().join(", ")
            )),
        );
    }
    let said = format!("{} at {path}", capabilities.join(", "));
    if !args.rotation && may(&["root", "sudo", "create", "update", "patch", "delete"]) {
        return Ok(Found::But(
            said,
            "a job that reads needs the capability read alone".to_owned(),
            (),
        ));
    }
    Ok(Found::Fine(said, ()))
}

/// Whether IAM knows the key, and how old it is.
async fn key(args: &DoctorArgs, run: &Run, session: &Session, access_key: &str) -> Result<Found<()>> {
    let iam = rotation::manager(&args.manager, &args.api, &args.source, run, session).await?;
    let key = iam.get(access_key).await?.ok_or_else(|| {
        Failure::conflict(format!("{} does not know the key {access_key}", iam.shown()))
            .hint("was it deleted? Write a key that is there to the secret")
    })?;
    let age = rotation::age(&key, iam.now());
    let end = key
        .expires_at
        .map_or_else(|| "no end".to_owned(), |end| format!("ends at {end}"));
    let said = format!("{access_key}, {} days old, {end}", age.as_secs() / 86_400);
    if age > args.max_age {
        return Ok(Found::But(
            said,
            "it is older than --max-age: let `rotate` run, or see why it fails".to_owned(),
            (),
        ));
    }
    Ok(Found::Fine(said, ()))
}

impl Row {
    /// Notes the next check with what was found, and hands on what came of it.
    fn take<T>(&mut self, check: &'static str, outcome: Result<Found<T>>) -> Option<T> {
        let (outcome, detail, hint, value) = match outcome {
            Ok(Found::Fine(detail, value)) => ("ok", detail, None, Some(value)),
            Ok(Found::But(detail, hint, value)) => ("warning", detail, Some(hint), Some(value)),
            Err(failure) => {
                let described = towpath::failure::describe(&failure);
                self.fail(failure);
                ("failed", described.message, described.hint, None)
            }
        };
        self.checks.push(Check {
            check,
            outcome,
            detail,
            hint,
        });
        value
    }

    /// Keeps the worst: what may go away by itself is better than what does not.
    fn fail(&mut self, failure: Failure) {
        let passes = |failure: &Failure| matches!(failure.kind(), Kind::Unavailable | Kind::Deadline);
        let is_worse = match &self.failure {
            None => true,
            Some(so_far) => passes(so_far) && !passes(&failure),
        };
        if is_worse {
            self.failure = Some(failure);
        }
    }
}
