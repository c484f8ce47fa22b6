//! `exec`: one command, with credentials for as long as it runs.

use std::collections::BTreeSet;

use towpath::cli::{Outcome, Run, effect, is_path_of, variables_holding};
use towpath::failure::survive;
use towpath::process::{Command, Mask, Signals, Supervised};
use towpath::scaleway::{Credentials, DockerFolder, docker_config, registry_login};
use towpath::secret::Secret;
use towpath::vault::{Reading, Revocation, SecretPath, looks_like_token};

use crate::access::{self, Access};
use crate::args::ExecArgs;
use crate::mint;
use crate::plan::{self, Environment};
use crate::report::{self, SecretVersion, token_word};

/// What the command is given, and what is kept from it.
struct Given<'a> {
    credentials: &'a Credentials,
    reading: &'a Reading,
    withheld: &'a [Secret],
}

/// What came of it.
enum Done {
    /// The command ran, or could not be started.
    Ran(Outcome),
    /// It would have got these variables.
    Foretold(Vec<String>),
}

/// Gets credentials, runs the command with them, and cleans up.
pub(crate) async fn exec(args: &ExecArgs, run: &Run) -> anyhow::Result<Outcome> {
    // From here on every signal is either the command's, or ends us in order.
    let mut signals = run.take_signals()?;
    match &args.source.dynamic {
        Some(path) => with_lease(args, path, run, &mut signals).await,
        None => with_secret(args, run, &mut signals).await,
    }
}

/// With a secret that stays: its token is gone before the command starts.
async fn with_secret(args: &ExecArgs, run: &Run, signals: &mut Signals) -> anyhow::Result<Outcome> {
    let withheld = access::material(&args.source.login)?;
    let mut access = access::obtain(&args.source, run, signals).await?;
    // A dry run makes no key: nobody else should have to clean up after it.
    let done = if args.mint && !args.dry_run {
        with_minted_key(args, &access, &withheld, run, signals).await
    } else {
        let given = Given {
            credentials: &access.credentials,
            reading: &access.reading,
            withheld: &withheld,
        };
        survive(with_credentials(args, &given, run, signals))
            .await
            .map_err(Into::into)
            .flatten()
    };
    access.settle().await;
    conclude(args, done?, &access.reading, access.token, None)
}

/// With a key that IAM makes for this command.
async fn with_minted_key(
    args: &ExecArgs,
    access: &Access,
    withheld: &[Secret],
    run: &Run,
    signals: &mut Signals,
) -> anyhow::Result<Done> {
    let minted = mint::mint(args, access, run, signals).await?;
    // The key that makes keys may lie about in the job's variables as well.
    let mut withheld = withheld.to_vec();
    withheld.push(access.credentials.secret_key().clone());
    withheld.push(minted.manager.clone());
    let given = Given {
        credentials: &minted.credentials,
        reading: &minted.reading,
        withheld: &withheld,
    };
    let done = survive(with_credentials(args, &given, run, signals)).await;
    minted.delete().await;
    done?
}

/// With credentials that end with their lease: token and lease last as long as the command.
async fn with_lease(
    args: &ExecArgs,
    path: &SecretPath,
    run: &Run,
    signals: &mut Signals,
) -> anyhow::Result<Outcome> {
    let withheld = access::material(&args.source.login)?;
    let leased = access::obtain_leased(&args.source, path, run, signals).await?;
    let given = Given {
        credentials: &leased.credentials,
        reading: &leased.reading,
        withheld: &withheld,
    };
    let work = with_credentials(args, &given, run, signals);
    let (done, released) = leased.session.hold(&leased.lease, work).await;
    let lease = Some(token_word(released.lease));
    conclude(args, done??, &leased.reading, released.token, lease)
}

fn conclude(
    args: &ExecArgs,
    done: Done,
    reading: &Reading,
    token: Option<Revocation>,
    lease: Option<&'static str>,
) -> anyhow::Result<Outcome> {
    match done {
        Done::Ran(outcome) => Ok(outcome),
        Done::Foretold(variables) => {
            let mut report = report::Outcome::of("exec", true);
            report.secret = Some(SecretVersion::got(&args.source, reading));
            report.token = Some(token_word(token));
            report.lease = lease;
            report.variables = variables;
            Ok(Outcome::report(&report)?)
        }
    }
}

async fn with_credentials(
    args: &ExecArgs,
    given: &Given<'_>,
    run: &Run,
    signals: &mut Signals,
) -> anyhow::Result<Done> {
    let origin = args.source.shown();
    let environment = Environment::of(given.credentials, given.reading, &args.variables, &origin)?
        .without_login(&args.source.login.jwt_variable);
    // From here on they are known for what they are, wherever they are printed.
    let _known: Vec<Secret> = plan::further_secrets(given.reading, &args.variables, &args.source.fields)
        .map(Secret::with_lines)
        // Whatever writes a docker configuration makes this of the key, and a pull secret has that in base64 once more.
        .chain([registry_login(given.credentials.secret_key())])
        .collect();
    if args.dry_run {
        let mut variables = environment.names();
        if !args.registry_login.is_empty() {
            variables.push("DOCKER_CONFIG".to_owned());
        }
        return Ok(Done::Foretold(variables));
    }
    if args.registry_login.is_empty() {
        return supervise(args, environment, given.withheld, run, signals).await;
    }
    let config = docker_config(&args.registry_login, given.credentials.secret_key())?;
    let folder = DockerFolder::create(&config, args.project_dir.as_deref())?;
    let shown = folder.path().to_string_lossy().into_owned();
    let environment = environment.with_docker_config(&shown);
    let outcome = supervise(args, environment, given.withheld, run, signals).await;
    let removal = effect("remove", shown);
    match folder.remove() {
        Ok(()) => removal.done("done"),
        Err(failure) => {
            drop(removal);
            // The command's own code matters more than what it left where it should not.
            tracing::error!(hint = failure.next_action(), "{failure}");
        }
    }
    outcome
}

async fn supervise(
    args: &ExecArgs,
    environment: Environment,
    withheld: &[Secret],
    run: &Run,
    signals: &mut Signals,
) -> anyhow::Result<Done> {
    let mut words = args.command.iter();
    let program = words.next().map_or_else(Default::default, Clone::clone);
    let mut command = Command::new(program).args(words);
    let unset: BTreeSet<&str> = environment.to_unset().collect();
    let is_file_of_login = |text: &str| args.source.login.files().any(|file| is_path_of(text, file));
    let looks_bad = |text: &str| looks_like_token(text) || is_file_of_login(text);
    for name in variables_holding(withheld, looks_bad) {
        let shown = name.to_string_lossy();
        if !unset.contains(&*shown) {
            tracing::info!(
                action = "withhold",
                object = &*shown,
                "the command does not get a variable that holds a secret of the login, or names its file"
            );
        }
        command = command.env_remove(&name);
    }
    for name in unset {
        command = command.env_remove(name);
    }
    for (name, value) in environment.to_set() {
        command = command.env(name, value);
    }
    // The command's log lines belong to the same delivery as ours.
    command = command.env("TRACEPARENT", run.trace.to_string());
    if !args.no_mask {
        command = command.mask(Mask::of_known_secrets());
    }
    let effect = effect("exec", command.name());
    match command.supervise(run.deadline, signals).await? {
        Supervised::Ended(code) => {
            effect.done(&format!("ended with {code}"));
            Ok(Done::Ran(Outcome::child(code)))
        }
        Supervised::NotStarted(code, failure) => {
            drop(effect);
            tracing::error!(exit_code = code, hint = failure.next_action(), "{failure}");
            Ok(Done::Ran(Outcome::child(code)))
        }
        Supervised::Forestalled(signal) => {
            effect.forget();
            Err(run.ended_by(signal, "about to start the command").into())
        }
    }
}
