//! From a login to credentials, with the token given back whatever happens in between.

use std::pin::pin;
use std::time::Duration;

use towpath::cli::{Run, effect, secret_variable};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result};
use towpath::http::{Client, PlainHttp, Settings, parse_base_url};
use towpath::process::Signals;
use towpath::scaleway::Credentials;
use towpath::secret::Secret;
use towpath::vault::{Login, Reading, Revocation, SecretPath, Session, Vault};

use crate::args::{Auth, LoginArgs, ReachArgs, SourceArgs};
use crate::plan;

/// How long giving a token back may take. It has its own time, since the run's may be over by then.
const REVOKE_WITHIN: Duration = Duration::from_secs(10);

/// How long a login that is under way has after a signal.
const LOGIN_GRACE: Duration = Duration::from_secs(3);

/// Credentials that were read, and what became of the token that they were read with.
#[derive(Debug)]
pub(crate) struct Access {
    /// The credentials.
    pub(crate) credentials: Credentials,
    /// The secret that they are from.
    pub(crate) reading: Reading,
    /// What became of the token; none when the server could not be asked, so that it should be asked again.
    pub(crate) token: Option<Revocation>,
    session: Session,
}

/// A secret and its version in words: `secret/ci/scaleway (version 3)`.
pub(crate) fn origin(secret: &SecretPath, reading: &Reading) -> String {
    match reading.version {
        Some(version) => format!("{secret} (version {version})"),
        None => secret.to_string(),
    }
}

/// The server that the arguments name.
///
/// # Errors
/// Usage (exit 2) or denied (exit 4) for an address that cannot be used; usage for a CA file that cannot be read.
pub(crate) fn server(address: &str, reach: &ReachArgs, deadline: Deadline) -> Result<Vault> {
    let settings = Settings {
        ca_file: reach.vault_ca_file.clone(),
        plain_http: if reach.plain_http {
            PlainHttp::Allowed
        } else {
            PlainHttp::LoopbackOnly
        },
        ..Settings::new("vault")
    };
    let address = parse_base_url("--vault-addr", address)?;
    Vault::new(
        Client::new(settings, deadline)?,
        address,
        reach.vault_namespace.clone(),
    )
}

/// The login that the arguments describe.
///
/// # Errors
/// Usage (exit 2) when what the method needs was not given.
pub(crate) fn login(args: &LoginArgs) -> Result<Login> {
    let needed = |flag: &str, variable: &str| {
        Failure::usage(format!("{flag} is missing")).hint(format!("pass {flag}, or set {variable}"))
    };
    match args.auth {
        Auth::Kubernetes => Ok(Login::Kubernetes {
            mount: args.mount(),
            role: args
                .role
                .clone()
                .ok_or_else(|| needed("--role", "TOWPATH_VAULT_ROLE"))?,
            jwt_file: args.service_account_file(),
        }),
        Auth::Jwt => {
            // The variable is the job's own; a template may set the file for the other method.
            let jwt = match (secret_variable(&args.jwt_variable)?, &args.jwt_file) {
                (Some(jwt), _) => jwt,
                (None, Some(file)) => Secret::from_file(file, "JWT")?,
                (None, None) => {
                    return Err(Failure::usage(format!(
                        "there is no JWT: the variable {} is not set",
                        args.jwt_variable
                    ))
                    .hint(
                        "let the job have it by `id_tokens:` in .gitlab-ci.yml, name another variable by \
                         --jwt-variable, or a file by --jwt-file",
                    ));
                }
            };
            Ok(Login::Jwt {
                mount: args.mount(),
                role: args.role.clone(),
                jwt,
            })
        }
        Auth::AppRole => Ok(Login::AppRole {
            mount: args.mount(),
            role_id_file: args
                .role_id_file
                .clone()
                .ok_or_else(|| needed("--role-id-file", "VAULT_ROLE_ID_FILE"))?,
            secret_id_file: args
                .secret_id_file
                .clone()
                .ok_or_else(|| needed("--secret-id-file", "VAULT_SECRET_ID_FILE"))?,
        }),
        Auth::Token => {
            let token = match &args.token_file {
                Some(file) => Secret::from_file(file, "token")?,
                None => secret_variable("VAULT_TOKEN")?
                    .ok_or_else(|| needed("--token-file", "VAULT_TOKEN_FILE or VAULT_TOKEN"))?,
            };
            Ok(Login::Token { token })
        }
    }
}

/// Logs in, reads the secret and gives the token back. Nothing that is read hangs on the token, so that not even KILL,
/// once this is done, leaves one behind.
///
/// # Errors
/// Whatever logging in and reading fail with; deadline (exit 128+n) after a signal. The token is given back first.
pub(crate) async fn obtain(source: &SourceArgs, run: &Run, signals: &mut Signals) -> Result<Access> {
    let vault = server(&source.vault_addr, &source.reach, run.deadline)?;
    let login = login(&source.login)?;
    let session = log_in(&vault, &login, run, signals).await?;
    let effect = effect("read", source.secret.as_str());
    let read = async {
        let mount = session.mount_of(&source.secret).await?;
        session.read(&mount, source.secret_version).await
    };
    let read = tokio::select! {
        reading = read => reading,
        signal = signals.ending() => Err(run.ended_by(signal, "reading the secret")),
    };
    let gathered = read.and_then(|reading| {
        let origin = origin(&source.secret, &reading);
        let credentials = plan::credentials(&reading, &source.fields, &origin)?;
        Ok((reading, credentials))
    });
    if let Ok((reading, _)) = &gathered {
        effect.done(&got(reading, source.secret_version));
    } else {
        drop(effect);
    }
    let token = give_back(&session).await;
    let (reading, credentials) = gathered?;
    Ok(Access {
        credentials,
        reading,
        token,
        session,
    })
}

/// The version that was got, for the log: one that nobody pinned may be another the next time.
fn got(reading: &Reading, pinned: Option<u64>) -> String {
    match (reading.version, pinned) {
        (None, _) => "done, without versions".to_owned(),
        (Some(version), Some(_)) => format!("version {version}, as asked for"),
        (Some(version), None) => format!("version {version}, the latest"),
    }
}

/// Logs in. A signal does not cut this short at once: the server may be about to hand out a token, which would be
/// nobody's then.
///
/// # Errors
/// As [`Vault::login`]; deadline (exit 128+n) after a signal.
pub(crate) async fn log_in(
    vault: &Vault,
    login: &Login,
    run: &Run,
    signals: &mut Signals,
) -> Result<Session> {
    let effect = effect("login", format!("{} {}", vault.shown(), login.shown()));
    let mut opening = pin!(vault.login(login));
    let session = tokio::select! {
        session = &mut opening => session?,
        signal = signals.ending() => {
            if let Ok(Ok(session)) = tokio::time::timeout(LOGIN_GRACE, opening).await {
                give_back(&session).await;
            }
            return Err(run.ended_by(signal, "logging in"));
        }
    };
    effect.done("done");
    tracing::debug!(
        action = "token",
        object = vault.shown(),
        policies = session.policies().join(","),
        lease_seconds = session.lease().as_secs(),
    );
    Ok(session)
}

/// Gives a token back; none when the server could not be asked, which is logged.
pub(crate) async fn give_back(session: &Session) -> Option<Revocation> {
    let effect = effect("revoke", format!("token of {}", session.vault().shown()));
    match session.revoke(Deadline::after(REVOKE_WITHIN)).await {
        Ok(outcome) => {
            effect.done(outcome.name());
            Some(outcome)
        }
        Err(failure) => {
            drop(effect);
            tracing::warn!(
                action = "revoke",
                lease_seconds = session.lease().as_secs(),
                "the token lives on until its lease ends: {failure}"
            );
            None
        }
    }
}

impl Access {
    /// Tries once more to give the token back, if that did not work before.
    pub(crate) async fn settle(&mut self) {
        if self.token.is_none() {
            self.token = give_back(&self.session).await;
        }
    }
}
