//! `doctor`: the way to the credentials, one step after the other.

use towpath::cli::{Outcome, Run};
use towpath::failure::Failure;
use towpath::process::Signals;
use towpath::vault::{Login, Session, Vault, claims, seconds_since_epoch};

use crate::access;
use crate::args::DoctorArgs;
use crate::plan;
use crate::report::{self, Check, SecretVersion, token_word};

/// More than this many seconds between the clocks makes tokens expire early or not count yet.
const SKEW: u64 = 60;

/// The steps, in the order in which each needs the ones before.
const STEPS: [&str; 7] = ["address", "server", "login", "token", "mount", "secret", "fields"];

/// The checks so far, and what broke the row.
struct Row {
    checks: Vec<Check>,
    failure: Option<Failure>,
}

/// Tries each step and reports on all; the exit code is that of the first that fails.
pub(crate) async fn examine(args: &DoctorArgs, run: &Run) -> anyhow::Result<Outcome> {
    let mut signals = run.take_signals()?;
    let mut row = Row {
        checks: Vec::new(),
        failure: None,
    };
    let mut report = report::Outcome::of("doctor", false);
    if let Some((vault, login)) = prepare(args, run, &mut row, &mut signals).await
        && let Some(session) = row.take("token", open(&vault, &login, run, &mut signals).await)
    {
        read(args, run, &session, &mut row, &mut report, &mut signals).await;
        report.token = Some(token_word(access::give_back(&session).await));
    }
    for step in STEPS.into_iter().skip(row.checks.len()) {
        row.checks.push(Check {
            check: step,
            outcome: "skipped",
            detail: "depends on what failed".to_owned(),
            hint: None,
        });
    }
    report.checks = row.checks;
    let outcome = Outcome::report(&report)?;
    Ok(match row.failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// What can be checked without a token.
async fn prepare(
    args: &DoctorArgs,
    run: &Run,
    row: &mut Row,
    signals: &mut Signals,
) -> Option<(Vault, Login)> {
    let vault = access::server(&args.source.vault_addr, &args.source.reach, run.deadline)
        .map(|vault| (vault.shown(), vault));
    let vault = row.take("address", vault)?;
    let health = tokio::select! {
        health = vault.health() => health,
        signal = signals.ending() => Err(run.ended_by(signal, "asking for the server's health")),
    };
    let health = health.and_then(|health| {
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
        Ok((format!("version {}, {role}, clocks agree", health.version), ()))
    });
    row.take("server", health)?;
    let login = access::login(&args.source.login).and_then(|login| {
        let Some(jwt) = login.jwt()? else {
            return Ok((login.shown(), login));
        };
        let claims = claims(&jwt).ok_or_else(|| {
            Failure::usage("what is to be logged in with is not a JWT")
                .hint("check --jwt-file or --jwt-variable")
        })?;
        Ok((
            format!(
                "{}; the JWT says: {}",
                login.shown(),
                claims.text(seconds_since_epoch())
            ),
            login,
        ))
    });
    let login = row.take("login", login)?;
    Some((vault, login))
}

async fn open(
    vault: &Vault,
    login: &Login,
    run: &Run,
    signals: &mut Signals,
) -> towpath::failure::Result<(String, Session)> {
    let session = access::log_in(vault, login, run, signals).await?;
    let said = format!(
        "policies {}, good for {} s",
        session.policies().join(", "),
        session.lease().as_secs()
    );
    Ok((said, session))
}

/// What needs the token.
async fn read(
    args: &DoctorArgs,
    run: &Run,
    session: &Session,
    row: &mut Row,
    report: &mut report::Outcome,
    signals: &mut Signals,
) -> Option<()> {
    let source = &args.source;
    let secret = match source.secret() {
        Ok(secret) => secret,
        Err(failure) => return row.take("mount", Err(failure)),
    };
    let mount = tokio::select! {
        mount = session.mount_of(secret) => mount,
        signal = signals.ending() => Err(run.ended_by(signal, "looking for the mount")),
    };
    let mount = mount.map(|mount| (format!("{} (KV {})", mount.path, mount.version), mount));
    let mount = row.take("mount", mount)?;
    let reading = tokio::select! {
        reading = session.read(&mount, source.secret_version) => reading,
        signal = signals.ending() => Err(run.ended_by(signal, "reading the secret")),
    };
    let reading = row.take(
        "secret",
        reading.map(|reading| (access::origin(secret, &reading), reading)),
    )?;
    report.secret = Some(SecretVersion::got(source, &reading));
    let origin = access::origin(secret, &reading);
    let fields = plan::credentials(&reading, &source.fields, &origin).map(|credentials| {
        let names: Vec<&str> = credentials.environment().iter().map(|(name, _)| *name).collect();
        (format!("well formed, for {}", names.join(", ")), ())
    });
    row.take("fields", fields)
}

impl Row {
    /// Notes the next check with what was found, and hands on what came of it.
    fn take<T>(&mut self, check: &'static str, outcome: towpath::failure::Result<(String, T)>) -> Option<T> {
        match outcome {
            Ok((detail, value)) => {
                self.checks.push(Check {
                    check,
                    outcome: "ok",
                    detail,
                    hint: None,
                });
                Some(value)
            }
            Err(failure) => {
                let described = towpath::failure::describe(&failure);
                self.checks.push(Check {
                    check,
                    outcome: "failed",
                    detail: described.message,
                    hint: described.hint,
                });
                self.failure = Some(failure);
                None
            }
        }
    }
}
