//! The kaniko executor: its arguments, and running it in its own container.
//!
//! | what happens (executor 1.28.3) | exit code | it prints | it leaves |
//! |---|---|---|---|
//! | the build succeeds | 0 | `level=info` lines on standard error, what steps print on their own streams | the layout, and the digest without a line's end |
//! | a `RUN` step ends with code n | n | `error building image: ... exit status n` | nothing |
//! | a `RUN` step is killed | 255 | `... signal: killed` | nothing |
//! | the executor is killed | 137 | nothing | what it had begun |
//! | a file to copy is missing | 1 | `... lstat PATH: no such file or directory` | nothing |
//! | a base image, or its tag, is missing | 1 | `... MANIFEST_UNKNOWN` | nothing |
//! | the registry wants another login | 1 | `... UNAUTHORIZED` | nothing |
//! | the registry does not answer | 1 | `... connection refused` | nothing |
//! | a push is refused: of the cache, which is all that we have it push | 1 | `error checking push permissions: ... UNAUTHORIZED`, before the build | nothing |
//! | a push is refused that was not asked for before (not by us) | 1 | `error pushing image: failed to push to destination ... 401 Unauthorized` | the digest |
//! | the Dockerfile is malformed | 1 | `... dockerfile parse error on line n` | nothing |
//! | a flag is unknown, or the Dockerfile is missing | 1 | its usage | nothing |
//! | the disk is full while the layout is written | 1 | `error pushing image: ... no space left on device` | a part of the layout, no digest, and some of the room again |
//! | TERM, as the first process of its namespace | 2 | nothing | nothing |
//! | no sign of a container, and no `--force` | 1 | `kaniko should only be run inside of a container, ...` | nothing |
//!
//! Seen besides: `--no-push --oci-layout-path` needs no destination; times in lines stay whatever `--log-timestamp` says;
//! `--image-format=oci` leaves an image on a base of docker's format in that; `RUN --mount=from=IMAGE` neither pulls the
//! image nor fails; a `RUN` step can read all of `/kaniko`, logins among it. With exit code 0 and mostly without a word it leaves
//! out of the image what is written below `/kaniko`: by `RUN` and by `COPY` of a folder nothing is said, of a single file it
//! says that it skips it, an archive that `ADD` unpacks does get in, and the next layer after a `WORKDIR` there takes all of
//! `/kaniko` away again, be it from the base image.

use std::path::Path;

use super::ground::Ground;
use super::{Built, Recipe, ended_badly, finish, standing};
use crate::deadline::Deadline;
use crate::failure::Result;
use crate::process::Command;

/// Who the executor is: on an image without `/etc/passwd`, on `scratch` above all, it knows that from the variable USER alone,
/// and copies nothing without it. kaniko's image sets it.
pub(super) const ROOT: &str = "root";

/// Where the executor finds things, as it sees them.
pub(super) struct Places<'a> {
    pub(super) context: &'a Path,
    pub(super) dockerfile: &'a Path,
    pub(super) digest: &'a Path,
    pub(super) layout: &'a Path,
    pub(super) authority: &'a Path,
}

/// The executor's arguments. Retries are asked for, since its defaults are none.
pub(super) fn arguments(recipe: &Recipe, places: &Places<'_>) -> Vec<String> {
    let mut arguments = vec![
        // Its own check knows fewer containers than ours, which came before.
        "--force".to_owned(),
        format!("--context=dir://{}", places.context.display()),
        format!("--dockerfile={}", places.dockerfile.display()),
        // The image is pushed by our own engine, from the layout.
        "--no-push".to_owned(),
        format!("--oci-layout-path={}", places.layout.display()),
        format!("--digest-file={}", places.digest.display()),
        "--push-retry=3".to_owned(),
        "--image-download-retry=3".to_owned(),
        "--image-fs-extract-retry=3".to_owned(),
        // Colours come from us, not from it.
        "--log-format=text".to_owned(),
        "--log-timestamp=false".to_owned(),
    ];
    let pairs = |flag: &'static str, (name, value): (&String, &String)| format!("--{flag}={name}={value}");
    arguments.extend(recipe.labels.iter().map(|pair| pairs("label", pair)));
    arguments.extend(recipe.annotations().map(|pair| pairs("annotation", pair)));
    arguments.extend(recipe.build_args.iter().map(|pair| pairs("build-arg", pair)));
    arguments.extend(
        recipe
            .plain_http
            .iter()
            .map(|host| format!("--insecure-registry={host}")),
    );
    if recipe.ca_file.is_some() {
        let trusted = |host: &String| format!("--registry-certificate={host}={}", places.authority.display());
        arguments.extend(recipe.hosts.iter().map(trusted));
    }
    arguments.extend(recipe.target.iter().map(|stage| format!("--target={stage}")));
    let platform = recipe.platform.iter();
    arguments.extend(platform.map(|platform| format!("--custom-platform={platform}")));
    if recipe.created.is_some() {
        // It takes no time of its own; it strips all times instead, which serves the same end.
        arguments.push("--reproducible".to_owned());
    }
    if let Some(cache) = &recipe.cache {
        arguments.push("--cache=true".to_owned());
        arguments.push(format!("--cache-repo={}", cache.repository));
        if let Some(age) = cache.longest {
            arguments.push(format!("--cache-ttl={}s", age.as_secs()));
        }
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
    // Everything but kaniko's own folder may be wiped between stages.
    let ground = Ground::lay(recipe, Some(&recipe.kaniko_folder))?;
    let context = standing(&recipe.context)?;
    let places = Places {
        context: &context,
        dockerfile: &ground.dockerfile(),
        digest: &ground.digest(),
        layout: &ground.layout(),
        authority: &ground.authority(),
    };
    let ended = Command::new(executor)
        .args(arguments(recipe, &places))
        .env_clear()
        .envs(&recipe.environment)
        .env("DOCKER_CONFIG", ground.logins_folder())
        .env("KANIKO_DIR", &recipe.kaniko_folder)
        .env("USER", ROOT)
        .follow(deadline, line)
        .await?;
    if !ended.success() {
        return Err(ended_badly("kaniko", &ended, ground.path()));
    }
    let (digest, layout) = (ground.digest(), ground.layout());
    finish(ground, &digest, layout, "kaniko")
}
