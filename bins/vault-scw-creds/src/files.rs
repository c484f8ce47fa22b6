//! `write` and `revoke`: credentials in files, and out of them again.

use towpath::cli::{Outcome, Run, effect};
use towpath::failure::{Failure, Result};
use towpath::scaleway::{
    Content, PrivateFile, Profile, Removed, Written, is_object_name, is_profile_name, pull_secret,
};
use towpath::secret::Secret;

use crate::access::{self, Access};
use crate::args::{Format, RevokeArgs, WriteArgs};
use crate::plan::{self, Environment};
use crate::report::{self, FileOutcome, SecretVersion, token_word};

/// Gets credentials and writes the files. What can be refused is refused before anything is asked of the server.
pub(crate) async fn write(args: &WriteArgs, run: &Run) -> anyhow::Result<Outcome> {
    let files = plan::files(&args.files);
    check(args, &files)?;
    let mut signals = run.take_signals()?;
    let access = access::obtain(&args.source, run, &mut signals).await?;
    let mut report = report::Outcome::of("write", args.dry_run);
    report.secret = Some(SecretVersion::got(&args.source, &access.reading));
    report.token = Some(token_word(access.token));
    for file in files {
        let content = content(&file, args, &access)?;
        let outcome = if args.dry_run {
            "write"
        } else {
            let effect = effect("write", file.to_string());
            let outcome = match file.write(&content)? {
                Written::Created => "written",
                Written::Changed => "changed",
                Written::Unchanged => "unchanged",
            };
            effect.done(outcome);
            outcome
        };
        report.changed |= matches!(outcome, "written" | "changed");
        report.files.push(FileOutcome {
            path: file.to_string(),
            outcome,
        });
    }
    Ok(Outcome::report(&report)?)
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
        match remove(&file, args.dry_run) {
            Ok(outcome) => {
                report.changed |= matches!(outcome, "removed" | "taken out");
                report.files.push(FileOutcome {
                    path: file.to_string(),
                    outcome,
                });
            }
            Err(failure) => {
                report.files.push(FileOutcome {
                    path: file.to_string(),
                    outcome: "failed",
                });
                first_failure.get_or_insert(failure);
            }
        }
    }
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

fn remove(file: &PrivateFile, dry_run: bool) -> Result<&'static str> {
    if dry_run {
        return Ok(match file.removal()? {
            Removed::File => "remove",
            Removed::Part => "take out",
            Removed::Nothing => "absent",
        });
    }
    let effect = effect("remove", file.to_string());
    let outcome = match file.remove()? {
        Removed::File => "removed",
        Removed::Part => "taken out",
        Removed::Nothing => "absent",
    };
    effect.done(outcome);
    Ok(outcome)
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
