//! `exec`: one command, with credentials for as long as it runs.

use towpath::cli::{Outcome, Run, effect};
use towpath::process::{Command, Signals, Supervised};
use towpath::scaleway::{DockerFolder, docker_config};

use crate::access::{self, Access};
use crate::args::ExecArgs;
use crate::plan::Environment;
use crate::report::{self, SecretVersion, token_word};

/// Gets credentials, runs the command with them, and cleans up.
pub(crate) async fn exec(args: &ExecArgs, run: &Run) -> anyhow::Result<Outcome> {
    // From here on every signal is either the command's, or ends us in order.
    let mut signals = run.take_signals()?;
    let mut access = access::obtain(&args.source, run, &mut signals).await?;
    let outcome = with_access(args, &access, run, &mut signals).await;
    access.settle().await;
    outcome
}

async fn with_access(
    args: &ExecArgs,
    access: &Access,
    run: &Run,
    signals: &mut Signals,
) -> anyhow::Result<Outcome> {
    let origin = access::origin(&args.source.secret, &access.reading);
    let environment = Environment::of(&access.credentials, &access.reading, &args.variables, &origin)?
        .without_login(&args.source.login.jwt_variable);
    if args.dry_run {
        return foretell(args, access, environment);
    }
    if args.registry_login.is_empty() {
        return supervise(args, environment, run, signals).await;
    }
    let config = docker_config(&args.registry_login, access.credentials.secret_key())?;
    let folder = DockerFolder::create(&config, args.project_dir.as_deref())?;
    let shown = folder.path().to_string_lossy().into_owned();
    let outcome = supervise(args, environment.with_docker_config(&shown), run, signals).await;
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
    run: &Run,
    signals: &mut Signals,
) -> anyhow::Result<Outcome> {
    let mut words = args.command.iter();
    let program = words.next().map_or_else(Default::default, Clone::clone);
    let mut command = Command::new(program).args(words);
    for name in environment.to_unset() {
        command = command.env_remove(name);
    }
    for (name, value) in environment.to_set() {
        command = command.env(name, value);
    }
    // The command's log lines belong to the same delivery as ours.
    command = command.env("TRACEPARENT", run.trace.to_string());
    let effect = effect("exec", command.name());
    match command.supervise(run.deadline, signals).await? {
        Supervised::Ended(code) => {
            effect.done(&format!("ended with {code}"));
            Ok(Outcome::child(code))
        }
        Supervised::NotStarted(code, failure) => {
            drop(effect);
            tracing::error!(exit_code = code, hint = failure.next_action(), "{failure}");
            Ok(Outcome::child(code))
        }
    }
}

fn foretell(args: &ExecArgs, access: &Access, environment: Environment) -> anyhow::Result<Outcome> {
    let mut variables = environment.names();
    if !args.registry_login.is_empty() {
        variables.push("DOCKER_CONFIG".to_owned());
    }
    let mut report = report::Outcome::of("exec", true);
    report.secret = Some(SecretVersion::got(&args.source, &access.reading));
    report.token = Some(token_word(access.token));
    report.variables = variables;
    Ok(Outcome::report(&report)?)
}
