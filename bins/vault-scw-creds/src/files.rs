//! `write` and `revoke`: credentials in files, and out of them again.

use std::collections::BTreeSet;

use towpath::cli::{Outcome, Run, effect};
use towpath::failure::{Failure, Result};
use towpath::scaleway::{
    Change, Content, Locked, PrivateFile, Profile, Removed, Written, is_object_name, is_profile_name,
    pull_secret,
};
use towpath::secret::Secret;

use crate::access::{self, Access};
use crate::args::{Format, RevokeArgs, WriteArgs};
use crate::plan::{self, Environment};
use crate::report::{self, FileOutcome, SecretVersion, token_word};

/// Gets credentials and writes the files: all of them, or none. What can be refused is refused before anything is asked of
/// the server.
pub(crate) async fn write(args: &WriteArgs, run: &Run) -> anyhow::Result<Outcome> {
    let files = plan::files(&args.files);
    check(args, &files)?;
    let mut signals = run.take_signals()?;
    let access = access::obtain(&args.source, run, &mut signals).await?;
    let mut report = report::Outcome::of("write", args.dry_run);
    report.secret = Some(SecretVersion::got(&args.source, &access.reading));
    report.token = Some(token_word(access.token));
    let contents = files
        .iter()
        .map(|file| content(file, args, &access))
        .collect::<Result<Vec<Content>>>()?;
    let decide = || {
        let pairs = files.iter().zip(&contents);
        pairs
            .map(|(file, content)| file.plan_write(content))
            .collect::<Result<Vec<Change>>>()
    };
    if args.dry_run {
        decide()?;
        report.files = files.iter().map(|file| told(file, "write")).collect();
        return Ok(Outcome::report(&report)?);
    }
    let mut locks = tokio::select! {
        locks = lock(&files, run) => locks?,
        signal = signals.ending() => {
            return Err(run.ended_by(signal, "waiting for another run to be done with a file").into());
        }
    };
    let changes = decide()?;
    let mut failure = None;
    for ((file, lock), change) in files.iter().zip(&mut locks).zip(&changes) {
        if failure.is_some() {
            report.files.push(told(file, "skipped"));
            continue;
        }
        let effect = effect("write", file.to_string());
        match lock.apply(change) {
            Ok(()) => {
                let outcome = word(change.written());
                effect.done(outcome);
                report.files.push(told(file, outcome));
            }
            Err(why) => {
                drop(effect);
                report.files.push(told(file, "failed"));
                failure = Some(why);
            }
        }
    }
    if failure.is_some() {
        take_back(&files, &mut locks, &changes, &mut report);
    }
    report.changed = report.files.iter().any(FileOutcome::is_change);
    let outcome = Outcome::report(&report)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// Locks all files, in one order for all runs: two that wait for each other would wait for ever.
async fn lock(files: &[PrivateFile], run: &Run) -> Result<Vec<Locked>> {
    let mut order = Vec::new();
    for (index, file) in files.iter().enumerate() {
        order.push((file.place()?, index));
    }
    order.sort();
    let mut locks = Vec::new();
    for (_, index) in order {
        locks.push((index, files[index].lock(run.deadline).await?));
    }
    locks.sort_by_key(|(index, _)| *index);
    Ok(locks.into_iter().map(|(_, lock)| lock).collect())
}

/// Takes back what was written before something else could not be.
fn take_back(files: &[PrivateFile], locks: &mut [Locked], changes: &[Change], report: &mut report::Outcome) {
    let written = report.files.iter_mut().zip(files).zip(locks).zip(changes);
    for (((told, file), lock), change) in written {
        if !told.is_change() {
            continue;
        }
        let effect = effect("take back", file.to_string());
        match lock.undo(change) {
            Ok(()) => {
                effect.done("done");
                told.outcome = "taken back";
            }
            Err(why) => {
                drop(effect);
                tracing::error!(
                    action = "take back",
                    object = %file,
                    hint = "run `revoke` for it",
                    "{file} holds what was written: {why}"
                );
            }
        }
    }
}

fn told(file: &PrivateFile, outcome: &'static str) -> FileOutcome {
    FileOutcome {
        path: file.to_string(),
        outcome,
    }
}

fn word(written: Written) -> &'static str {
    match written {
        Written::Created => "written",
        Written::Changed => "changed",
        Written::Unchanged => "unchanged",
    }
}

fn check(args: &WriteArgs, files: &[PrivateFile]) -> Result<()> {
    let for_registry = args.files.docker_config.is_some() || args.files.pull_secret.is_some();
    if for_registry && args.registry_login.is_empty() {
        return Err(
            Failure::usage("--docker-config and --pull-secret need a registry to log in to")
                .hint("add --registry-login rg.fr-par.scw.cloud (TOWPATH_REGISTRY_LOGIN)"),
        );
    }
    if let Some(name) = args.scw_profile.as_deref().filter(|name| !is_profile_name(name)) {
        return Err(Failure::usage(format!("malformed profile name {name:?}"))
            .hint("use letters, digits, `-` and `_` in --scw-profile (TOWPATH_SCW_PROFILE)"));
    }
    if !is_object_name(&args.pull_secret_name) {
        return Err(Failure::usage(format!(
            "malformed name of a pull secret {:?}",
            args.pull_secret_name
        ))
        .hint("use small letters, digits, `-` and `.` in --pull-secret-name (TOWPATH_PULL_SECRET_NAME)"));
    }
    let mut places = BTreeSet::new();
    for file in files {
        if !places.insert(file.place()?) {
            return Err(
                Failure::usage(format!("{file} is named by two flags")).hint("give each its own file")
            );
        }
    }
    if let Some(project) = args.project_dir.as_deref().filter(|_| !args.force) {
        for file in files {
            file.check_outside(project)?;
        }
    }
    Ok(())
}

fn content(file: &PrivateFile, args: &WriteArgs, access: &Access) -> Result<Content> {
    let credentials = &access.credentials;
    let whole = |text: Secret| Content::Whole {
        text,
        access_key: credentials.access_key().to_owned(),
    };
    Ok(match file {
        PrivateFile::ScwConfig(_) => Content::Profile(Profile::of(credentials, args.scw_profile.as_deref())),
        PrivateFile::DockerConfig(_) => {
            Content::Logins(args.registry_login.clone(), credentials.secret_key().clone())
        }
        PrivateFile::PullSecret(_) => whole(pull_secret(
            &args.pull_secret_name,
            &args.registry_login,
            credentials.secret_key(),
        )?),
        PrivateFile::Dotenv(_) => {
            let origin = args.source.shown();
            let environment = Environment::of(credentials, &access.reading, &args.variables, &origin)?;
            whole(environment.render(Format::Dotenv)?)
        }
    })
}

/// Removes files and revokes a token. A file that cannot be removed does not keep the token alive, nor the reverse.
pub(crate) async fn revoke(args: &RevokeArgs, run: &Run) -> anyhow::Result<Outcome> {
    let mut report = report::Outcome::of("revoke", args.dry_run);
    let mut first_failure = None;
    for file in plan::files(&args.files) {
        let outcome = run
            .interruptible(
                "waiting for another run to be done with a file",
                remove(&file, args, run),
            )
            .await;
        report
            .files
            .push(told(&file, outcome.as_ref().unwrap_or(&"failed")));
        if let Err(failure) = outcome {
            first_failure.get_or_insert(failure);
        }
    }
    report.changed = report.files.iter().any(FileOutcome::is_change);
    match run
        .interruptible("revoking the token", revoke_token(args, run))
        .await
    {
        Ok(token) => {
            report.changed |= token == Some("revoked");
            report.token = token;
        }
        Err(failure) => {
            report.token = Some("unknown");
            first_failure.get_or_insert(failure);
        }
    }
    let outcome = Outcome::report(&report)?;
    Ok(match first_failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

async fn remove(file: &PrivateFile, args: &RevokeArgs, run: &Run) -> Result<&'static str> {
    let names = names(file, args);
    if args.dry_run {
        return Ok(match file.plan_removal(names.as_deref())?.removed() {
            Removed::File => "remove",
            Removed::Part => "take out",
            Removed::Nothing => "absent",
        });
    }
    if !file.is_there() {
        return Ok("absent");
    }
    let effect = effect("remove", file.to_string());
    let mut lock = file.lock(run.deadline).await?;
    let change = file.plan_removal(names.as_deref())?;
    lock.apply(&change)?;
    let outcome = match change.removed() {
        Removed::File => "removed",
        Removed::Part => "taken out",
        Removed::Nothing => "absent",
    };
    effect.done(outcome);
    Ok(outcome)
}

/// What is to be taken out of a file, if not all.
fn names(file: &PrivateFile, args: &RevokeArgs) -> Option<Vec<String>> {
    match file {
        PrivateFile::ScwConfig(_) => args.scw_profile.clone().map(|name| vec![name]),
        PrivateFile::DockerConfig(_) if !args.registry_login.is_empty() => {
            Some(args.registry_login.iter().map(ToString::to_string).collect())
        }
        _ => None,
    }
}

async fn revoke_token(args: &RevokeArgs, run: &Run) -> Result<Option<&'static str>> {
    let (Some(file), Some(address)) = (&args.token_file, &args.vault_addr) else {
        return Ok(None);
    };
    let token = Secret::from_file(file, "token")?;
    let vault = access::server(address, &args.reach, run.deadline)?;
    if args.dry_run {
        return Ok(Some("revoke"));
    }
    let effect = effect("revoke", format!("token in {}", file.display()));
    let outcome = vault.revoke(&token).await?;
    effect.done(outcome.name());
    Ok(Some(outcome.name()))
}
