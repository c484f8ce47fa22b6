//! buildah as the second builder: chroot isolation and vfs storage, which need neither a daemon nor a device.

use std::path::Path;

use super::{Built, Recipe, ended_badly, read_digest, without_secrets};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;

/// Builds into a storage folder of its own, pushes each destination, and removes the folder.
pub(super) async fn build(
    program: &Path,
    recipe: &Recipe,
    deadline: Deadline,
    mut line: impl FnMut(&str),
) -> Result<Built> {
    let scratch = tempfile::Builder::new()
        .prefix("towpath-buildah-")
        .tempdir()
        .map_err(|error| Failure::internal("cannot make a folder for buildah's storage").because(error))?;
    let at = |name: &str| scratch.path().join(name);
    let registries = at("registries.conf");
    std::fs::write(&registries, registries_conf(&recipe.plain_http))
        .map_err(|error| Failure::internal("cannot write buildah's registries.conf").because(error))?;

    let buildah = |subcommand: &str| {
        let mut command = Command::new(program)
            .args(["--storage-driver", "vfs"])
            .arg("--root")
            .arg(at("storage"))
            .arg("--runroot")
            .arg(at("run"))
            .arg(subcommand)
            .env("CONTAINERS_REGISTRIES_CONF", &registries)
            .env("TMPDIR", scratch.path());
        command = without_secrets(command);
        if let Some(config) = recipe
            .docker_config
            .as_ref()
            .map(|folder| folder.join("config.json"))
            && config.is_file()
        {
            command = command.arg("--authfile").arg(config);
        }
        command
    };

    let id_file = at("image-id");
    let mut bud = buildah("bud")
        .args(["--isolation", "chroot", "--format", "oci", "--layers=false"])
        .arg("--iidfile")
        .arg(&id_file)
        .arg("--file")
        .arg(&recipe.dockerfile);
    for (name, value) in &recipe.labels {
        bud = bud.arg("--label").arg(format!("{name}={value}"));
    }
    for (name, value) in &recipe.build_args {
        bud = bud.arg("--build-arg").arg(format!("{name}={value}"));
    }
    if let Some(stage) = &recipe.target {
        bud = bud.arg("--target").arg(stage);
    }
    if let Some(created) = recipe.created {
        bud = bud.arg("--timestamp").arg(created.as_second().to_string());
    }
    let ended = bud.arg(&recipe.context).follow(deadline, &mut line).await?;
    if !ended.success() {
        return Err(ended_badly("buildah", &ended));
    }
    let id = std::fs::read_to_string(&id_file)
        .map_err(|error| Failure::internal("buildah ended well but left no image id").because(error))?;

    let digest_file = at("digest");
    for destination in &recipe.destinations {
        let push = buildah("push")
            .arg("--digestfile")
            .arg(&digest_file)
            .arg(id.trim())
            .arg(format!("docker://{destination}"))
            .follow(deadline, &mut line)
            .await?;
        if !push.success() {
            return Err(ended_badly("buildah push", &push));
        }
    }
    read_digest(&digest_file, "buildah")
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
