//! From a login to credentials, with the token given back whatever happens in between.

use std::pin::pin;
use std::time::Duration;

use towpath::cli::{Run, effect, is_switched_on, secret_variable};
use towpath::deadline::Deadline;
use towpath::failure::{Failure, Result, survive};
use towpath::http::{Client, ClientIdentity, PlainHttp, Settings, parse_base_url};
use towpath::process::Signals;
use towpath::scaleway::Credentials;
use towpath::secret::Secret;
use towpath::vault::{
    Inline, KvVersion, Lease, Login, Mount, Reading, Revocation, SecretPath, Session, Vault,
};

use crate::args::{Auth, InlineAuth, LoginArgs, ReachArgs, SourceArgs};
use crate::plan;

/// How long giving a token back may take where the server limits our rate; one that does not answer is given 5 s. It has
/// its own time, since the run's may be over by then.
const REVOKE_WITHIN: Duration = Duration::from_secs(30);

/// How long a server may go on limiting our rate before we give up: many jobs that begin at once have to take turns.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How long a login that is under way has after a signal.
const LOGIN_GRACE: Duration = Duration::from_secs(3);

/// Variables of the servers' own tools that have no effect here, and what to do instead.
const NOT_HEEDED: [(&str, &str); 6] = [
    (
        "VAULT_SKIP_VERIFY",
        "certificates are always checked: give the authority that signed the server's with --vault-ca-file (VAULT_CACERT)",
    ),
    (
        "VAULT_CAPATH",
        "give one file with the authorities with --vault-ca-file (VAULT_CACERT)",
    ),
    (
        "VAULT_CACERT_BYTES",
        "give a file with the authorities with --vault-ca-file (VAULT_CACERT)",
    ),
    (
        "VAULT_TLS_SERVER_NAME",
        "give the name that the certificate is for in --vault-addr (VAULT_ADDR)",
    ),
    ("VAULT_PROXY_ADDR", "give an address that is reached without it"),
    ("VAULT_HTTP_PROXY", "give an address that is reached without it"),
];

/// Credentials that were read, and what became of the token that they were read with.
#[derive(Debug)]
pub(crate) struct Access {
    /// The credentials.
    pub(crate) credentials: Credentials,
    /// The secret that they are from.
    pub(crate) reading: Reading,
    /// What became of the token; none when the server could not be asked, so that it should be asked again.
    pub(crate) token: Option<Revocation>,
    /// None when the secret was read without a token.
    session: Option<Session>,
}

/// Credentials that hang on a lease, which hangs on a token.
#[derive(Debug)]
pub(crate) struct Leased {
    /// The credentials.
    pub(crate) credentials: Credentials,
    /// All that the engine gave.
    pub(crate) reading: Reading,
    /// The lease.
    pub(crate) lease: Lease,
    /// The token.
    pub(crate) session: Session,
}

/// A secret and its version in words: `secret/ci/scaleway (version 3)`.
pub(crate) fn origin(secret: &SecretPath, reading: &Reading) -> String {
    match reading.version {
        Some(version) => format!("{secret} (version {version})"),
        None => secret.to_string(),
    }
}

/// Warns of settings that somebody relies on and that have no effect.
pub(crate) fn tell_what_is_not_heeded() {
    for (variable, hint) in NOT_HEEDED {
        if is_switched_on(variable) {
            tracing::warn!(hint, "{variable} is set and has no effect");
        }
    }
}

/// The server that the arguments name.
///
/// # Errors
/// Usage (exit 2) or denied (exit 4) for an address that cannot be used; usage for a CA file that cannot be read.
pub(crate) fn server(address: &str, reach: &ReachArgs, deadline: Deadline) -> Result<Vault> {
    let settings = Settings {
        ca_file: reach.vault_ca_file.clone(),
        client_identity: reach
            .vault_client_cert
            .clone()
            .zip(reach.vault_client_key.clone())
            .map(|(certificate, key)| ClientIdentity { certificate, key }),
        patience: Some(PATIENCE),
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
            wrapped: args.wrapped_secret_id,
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

/// What the login is made with, and what others lie about in variables for the same purpose: nothing for the command,
/// under whatever names.
///
/// # Errors
/// As [`login`].
pub(crate) fn material(args: &LoginArgs) -> Result<Vec<Secret>> {
    let mut secrets = login(args)?.secrets();
    let variables = plan::LOGIN_SECRETS
        .into_iter()
        .chain([args.jwt_variable.as_str()]);
    // One that is empty or no text holds nothing.
    secrets.extend(variables.filter_map(|name| secret_variable(name).ok().flatten()));
    Ok(secrets)
}

/// Reads the secret, without a token where the server lets us; else logs in, reads and gives the token back. Nothing that
/// is read hangs on the token, so that not even KILL, once this is done, leaves one behind.
///
/// # Errors
/// Whatever logging in and reading fail with; deadline (exit 128+n) after a signal. The token is given back first.
pub(crate) async fn obtain(source: &SourceArgs, run: &Run, signals: &mut Signals) -> Result<Access> {
    let secret = source.secret()?;
    let vault = server(&source.vault_addr, &source.reach, run.deadline)?;
    let login = login(&source.login)?;
    let likely = source.likely_mount(secret);
    let inline = match &likely {
        Some(place) if source.inline_auth == InlineAuth::Auto && login.goes_along() => {
            Some(read_inline(&vault, &login, place, source, run, signals).await?)
        }
        _ => None,
    };
    // A server that does not know of inline authentication has cost a request, as unwrapping has; where the secret is in
    // the most likely place, that is made up for.
    let made_up_for = match &inline {
        Some(Inline::Absent) => false,
        Some(_) => true,
        None => !login.is_one_request() || source.tells_mount(),
    };
    let in_vain = inline.is_some() || made_up_for;
    if let Some(Inline::Read(reading)) = inline {
        let credentials = plan::credentials(&reading, &source.fields, &origin(secret, &reading))?;
        return Ok(Access {
            credentials,
            reading,
            token: Some(Revocation::NeverIssued),
            session: None,
        });
    }
    let session = log_in(&vault, &login, run, signals).await?;
    let effect = effect("read", secret.as_str());
    let read = async {
        if let Some(place) = likely.as_ref().filter(|_| made_up_for)
            && let Some(reading) = session.read_by_guess(place, source.secret_version).await?
        {
            return Ok(reading);
        }
        let mount = session.mount_of(secret).await?;
        let reading = session.read(&mount, source.secret_version).await?;
        if let (true, Some(hint)) = (in_vain, where_it_is(likely.as_ref(), &mount)) {
            tracing::info!(hint, "{secret} was not looked for at {} first", mount.path);
        }
        Ok(reading)
    };
    let gathered = survive(async {
        let reading = tokio::select! {
            reading = read => reading?,
            signal = signals.ending() => return Err(run.ended_by(signal, "reading the secret")),
        };
        let credentials = plan::credentials(&reading, &source.fields, &origin(secret, &reading))?;
        Ok((reading, credentials))
    })
    .await
    .flatten();
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
        session: Some(session),
    })
}

/// What to say the next time of where a secret is; none when it was looked for there.
pub(crate) fn where_it_is(likely: Option<&Mount>, mount: &Mount) -> Option<String> {
    let likely = likely.filter(|likely| *likely != mount)?;
    // Without versions, nothing stands between the mount and the rest of the path.
    Some(match (likely.version, mount.version) {
        (KvVersion::One, KvVersion::One) => return None,
        (_, KvVersion::One) => "--kv-version 1 (TOWPATH_KV_VERSION) takes fewer requests".to_owned(),
        (KvVersion::Two, KvVersion::Two) => {
            format!(
                "--kv-mount {} (TOWPATH_KV_MOUNT) takes fewer requests",
                mount.path
            )
        }
        (KvVersion::One, KvVersion::Two) => format!(
            "--kv-mount {} (TOWPATH_KV_MOUNT) and --kv-version 2 (TOWPATH_KV_VERSION) take fewer requests",
            mount.path
        ),
    })
}

async fn read_inline(
    vault: &Vault,
    login: &Login,
    place: &Mount,
    source: &SourceArgs,
    run: &Run,
    signals: &mut Signals,
) -> Result<Inline> {
    let started = effect("read", format!("{}/{}", place.path, place.below));
    let reading = tokio::select! {
        reading = vault.read_inline(login, place, source.secret_version) => reading?,
        signal = signals.ending() => return Err(run.ended_by(signal, "logging in")),
    };
    match &reading {
        Inline::Read(reading) => started.done(&format!(
            "{}, without a token by {}",
            got(reading, source.secret_version),
            login.shown()
        )),
        Inline::Absent | Inline::Refused => started.forget(),
    }
    Ok(reading)
}

/// Logs in and has an engine make credentials. What fails after the login gives back what there is.
///
/// # Errors
/// Whatever logging in and reading fail with; usage (exit 2) when the engine gives no lease; deadline (exit 128+n) after
/// a signal.
pub(crate) async fn obtain_leased(
    source: &SourceArgs,
    path: &SecretPath,
    run: &Run,
    signals: &mut Signals,
) -> Result<Leased> {
    let vault = server(&source.vault_addr, &source.reach, run.deadline)?;
    let login = login(&source.login)?;
    let session = log_in(&vault, &login, run, signals).await?;
    if session.uses() > 0 {
        tracing::warn!(
            hint = "let the role set no limit (token_num_uses)",
            "the token is good for {} requests, and the lease of {path} ends with the last of them",
            session.uses()
        );
    }
    let effect = effect("read", path.as_str());
    let made = survive(async {
        let mut making = pin!(session.obtain(path));
        tokio::select! {
            made = &mut making => made,
            signal = signals.ending() => {
                // The engine may be making them at this moment.
                if let Ok(Ok((_, Some(lease)))) = tokio::time::timeout(LOGIN_GRACE, making).await {
                    session.release(&lease).await;
                }
                Err(run.ended_by(signal, "waiting for credentials"))
            }
        }
    })
    .await
    .flatten();
    let (reading, lease) = match made {
        Ok((reading, Some(lease))) => (reading, lease),
        Ok((_, None)) => {
            drop(effect);
            give_back(&session).await;
            return Err(Failure::usage(format!(
                "{path} gives no lease, so nothing that it gives would end with the command"
            ))
            .hint("a key/value secret is read with --secret (TOWPATH_SECRET)"));
        }
        Err(failure) => {
            drop(effect);
            give_back(&session).await;
            return Err(failure);
        }
    };
    let renewable = if lease.is_renewable() {
        ""
    } else {
        ", not renewable"
    };
    effect.done(&format!("lease of {} s{renewable}", lease.length().as_secs()));
    match plan::credentials(&reading, &source.fields, path.as_str()) {
        Ok(credentials) => Ok(Leased {
            credentials,
            reading,
            lease,
            session,
        }),
        Err(failure) => {
            session.release(&lease).await;
            Err(failure)
        }
    }
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
    session.release_token(Deadline::after(REVOKE_WITHIN)).await
}

impl Access {
    /// Tries once more to give the token back, if that did not work before.
    pub(crate) async fn settle(&mut self) {
        if let (None, Some(session)) = (self.token, &self.session) {
            self.token = give_back(session).await;
        }
    }
}
