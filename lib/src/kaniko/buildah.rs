//! buildah as the second builder: chroot isolation and vfs storage, which need neither a daemon nor a device.

use std::path::Path;

use super::ground::Ground;
use super::{Built, Recipe, ended_badly, finish};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;

/// Builds into a storage folder of its own, writes the image out as a layout, and leaves the rest to be removed.
pub(super) async fn build(
    program: &Path,
    recipe: &Recipe,
    deadline: Deadline,
    mut line: impl FnMut(&str),
) -> Result<Built> {
    if recipe.cache.is_some() {
        return Err(Failure::usage("a cache repository is for kaniko alone")
            .hint("leave --cache-repo (TOWPATH_CACHE_REPOSITORY) out, or use --builder kaniko"));
    }
    let ground = Ground::lay(recipe, None)?;
    let registries = ground.at("registries.conf");
    std::fs::write(&registries, registries_conf(&recipe.plain_http))
        .map_err(|error| Failure::internal("cannot write buildah's registries.conf").because(error))?;

    let buildah = |subcommand: &str| {
        Command::new(program)
            .args(["--storage-driver", "vfs"])
            .arg("--root")
            .arg(ground.at("storage"))
            .arg("--runroot")
            .arg(ground.at("run"))
            .arg(subcommand)
            .env_clear()
            .envs(&recipe.environment)
            .env("CONTAINERS_REGISTRIES_CONF", &registries)
            .env("TMPDIR", ground.path())
    };

    let id_file = ground.at("image-id");
    let mut bud = buildah("bud")
        .args(["--isolation", "chroot", "--format", "oci", "--layers=false"])
        .arg("--authfile")
        .arg(ground.logins())
        .arg("--iidfile")
        .arg(&id_file)
        .arg("--file")
        .arg(ground.dockerfile());
    let pairs = [
        ("--label", recipe.labels.iter().collect::<Vec<_>>()),
        ("--annotation", recipe.annotations().collect()),
        ("--build-arg", recipe.build_args.iter().collect()),
    ];
    for (flag, pairs) in pairs {
        for (name, value) in pairs {
            bud = bud.arg(flag).arg(format!("{name}={value}"));
        }
    }
    if recipe.ca_file.is_some() {
        bud = bud.arg("--cert-dir").arg(ground.certificates());
    }
    if let Some(stage) = &recipe.target {
        bud = bud.arg("--target").arg(stage);
    }
    if let Some(platform) = &recipe.platform {
        bud = bud.arg("--platform").arg(platform.to_string());
    }
    if let Some(created) = recipe.created {
        bud = bud.arg("--timestamp").arg(created.as_second().to_string());
    }
    let ended = bud.arg(&recipe.context).follow(deadline, &mut line).await?;
    if !ended.success() {
        return Err(ended_badly("buildah", &ended, ground.path()));
    }
    let id = std::fs::read_to_string(&id_file)
        .map_err(|error| Failure::internal("buildah ended well but left no image id").because(error))?;
    let push = buildah("push")
        .arg("--digestfile")
        .arg(ground.digest())
        .arg(id.trim())
        .arg(format!("oci:{}", ground.layout().display()))
        .follow(deadline, &mut line)
        .await?;
    if !push.success() {
        return Err(ended_badly("buildah push", &push, ground.path()));
    }
    let (digest, layout) = (ground.digest(), ground.layout());
    finish(ground, &digest, layout, "buildah")
}

/// Source: containers-registries.conf(5), version 2.
fn registries_conf(plain_http: &[String]) -> String {
    let mut text = String::from("unqualified-search-registries = [\"docker.io\"]\n");
    for host in plain_http {
        text.push_str(&format!(
            "\n[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"
        ));
    }
    text
}
