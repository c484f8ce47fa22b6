//! The kaniko executor: its arguments, and running it in its own container.

use std::path::Path;

use super::{Built, Recipe, ended_badly, read_digest, without_secrets};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;

/// Where the executor finds things, as it sees them.
pub(super) struct Places<'a> {
    pub(super) context: &'a Path,
    pub(super) dockerfile: &'a Path,
    pub(super) digest_file: &'a Path,
}

/// The executor's arguments. Retries are asked for, since its defaults are none.
pub(super) fn arguments(recipe: &Recipe, places: &Places<'_>) -> Vec<String> {
    let mut arguments = vec![
        format!("--context=dir://{}", places.context.display()),
        format!("--dockerfile={}", places.dockerfile.display()),
        format!("--digest-file={}", places.digest_file.display()),
        "--push-retry=3".to_owned(),
        "--image-download-retry=3".to_owned(),
        "--image-fs-extract-retry=3".to_owned(),
        // Colours and times come from us, not from it.
        "--log-format=text".to_owned(),
        "--log-timestamp=false".to_owned(),
    ];
    arguments.extend(recipe.destinations.iter().map(|to| format!("--destination={to}")));
    arguments.extend(
        recipe
            .labels
            .iter()
            .map(|(name, value)| format!("--label={name}={value}")),
    );
    arguments.extend(
        recipe
            .build_args
            .iter()
            .map(|(name, value)| format!("--build-arg={name}={value}")),
    );
    arguments.extend(
        recipe
            .plain_http
            .iter()
            .map(|host| format!("--insecure-registry={host}")),
    );
    arguments.extend(recipe.target.iter().map(|stage| format!("--target={stage}")));
    if recipe.created.is_some() {
        // It takes no time of its own; it strips all times instead, which serves the same end.
        arguments.push("--reproducible".to_owned());
    }
    arguments
}

/// Runs the executor right here.
pub(super) async fn build(
    executor: &Path,
    recipe: &Recipe,
    deadline: Deadline,
    line: impl FnMut(&str),
) -> Result<Built> {
    let scratch = tempfile::Builder::new()
        .prefix("towpath-build-")
        // Everything else may be wiped between stages.
        .tempdir_in("/kaniko")
        .map_err(|error| {
            Failure::denied("cannot write to /kaniko")
                .because(error)
                .hint("the kaniko image runs as root")
        })?;
    let digest_file = scratch.path().join("digest");
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map_err(|error| Failure::usage(format!("no such path: {}", path.display())).because(error))
    };
    let context = absolute(&recipe.context)?;
    let dockerfile = absolute(&recipe.dockerfile)?;
    let places = Places {
        context: &context,
        dockerfile: &dockerfile,
        digest_file: &digest_file,
    };
    let mut command = without_secrets(Command::new(executor).args(arguments(recipe, &places)));
    if let Some(folder) = &recipe.docker_config {
        command = command.env("DOCKER_CONFIG", folder);
    }
    let ended = command.follow(deadline, line).await?;
    if !ended.success() {
        return Err(ended_badly("kaniko", &ended));
    }
    read_digest(&digest_file, "kaniko")
}
