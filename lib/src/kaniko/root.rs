//! A private root for the kaniko executor, where we are not in its container.
//!
//! The executor unpacks base images over `/` and wipes it between stages. Here `/` is a folder of our own: the
//! executor, a copy of the context, devices, and nothing else of this machine. Mounts live in a mount and a process
//! namespace that end with the build, so that nothing is left even when we are killed; then only the folder stays.
//!
//! Needs root (mount namespaces, chroot). Seen with the executor 1.28.3: a RUN step fails without `/dev/null`, the
//! executor wants `/kaniko/ssl/certs` for https, and it wipes `/workspace` in builds of several stages.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::executor::{Places, arguments};
use super::{Built, Recipe, ended_badly, read_digest};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;

/// Mounts what a build needs and becomes the executor. `$1` is the root, the rest the executor's arguments.
const ENTER: &str = r#"
set -e
root=$1
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# A mount of its own, so that wiping the root leaves the devices alone.
mount --rbind "$root/dev" "$root/dev"
exec chroot "$root" /kaniko/executor "$@"
"#;

/// Where distributions keep the bundle of certificate authorities.
const CA_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Builds in a private root that is removed afterwards.
pub(super) async fn build(
    executor: &Path,
    recipe: &Recipe,
    deadline: Deadline,
    line: impl FnMut(&str),
) -> Result<Built> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            Failure::denied("kaniko needs root to run outside its own container")
                .hint("run this in the kaniko image, or use --builder buildah"),
        );
    }
    let root = lay_out(executor, recipe, deadline).await?;
    let places = Places {
        context: Path::new("/workspace"),
        dockerfile: Path::new("/kaniko/towpath/Dockerfile"),
        digest_file: Path::new("/kaniko/towpath/digest"),
    };
    let ended = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ])
        .args(["sh", "-c", ENTER, "kaniko"])
        .arg(root.path())
        // It looks for signs of a container, and this root has none.
        .arg("--force")
        .args(arguments(recipe, &places))
        // RUN steps are root and read the executor's environment in /proc: nothing of the job's may be there.
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("DOCKER_CONFIG", "/kaniko/.docker")
        .env("SSL_CERT_DIR", "/kaniko/ssl/certs")
        .follow(deadline, line)
        .await?;
    if !ended.success() {
        return Err(ended_badly("kaniko", &ended));
    }
    read_digest(&root.path().join("kaniko/towpath/digest"), "kaniko")
}

async fn lay_out(executor: &Path, recipe: &Recipe, deadline: Deadline) -> Result<tempfile::TempDir> {
    let broke = |error: std::io::Error| {
        Failure::internal("cannot lay out a private root for kaniko")
            .because(error)
            .hint("is there room in the temporary folder (TMPDIR)?")
    };
    let root = tempfile::Builder::new()
        .prefix("towpath-root-")
        .tempdir()
        .map_err(broke)?;
    let at = |path: &str| root.path().join(path);
    for folder in [
        "kaniko/.docker",
        "kaniko/ssl/certs",
        "kaniko/towpath",
        "etc",
        "workspace",
        "tmp",
        "var",
        "proc",
        "sys",
        "dev",
        "root",
    ] {
        fs::create_dir_all(at(folder)).map_err(broke)?;
    }
    fs::set_permissions(at("tmp"), Permissions::from_mode(0o1777)).map_err(broke)?;
    fs::write(at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").map_err(broke)?;
    fs::write(at("etc/group"), "root:x:0:\n").map_err(broke)?;
    for name in ["hosts", "resolv.conf"] {
        let from = Path::new("/etc").join(name);
        if from.is_file() {
            fs::copy(from, at("etc").join(name)).map_err(broke)?;
        }
    }
    fs::copy(executor, at("kaniko/executor")).map_err(broke)?;
    if let Some(bundle) = CA_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()) {
        fs::copy(bundle, at("kaniko/ssl/certs/ca-certificates.crt")).map_err(broke)?;
    }
    fs::copy(&recipe.dockerfile, at("kaniko/towpath/Dockerfile")).map_err(broke)?;
    if let Some(folder) = &recipe.docker_config {
        let from = folder.join("config.json");
        if from.is_file() {
            let to = at("kaniko/.docker/config.json");
            fs::copy(from, &to).map_err(broke)?;
            fs::set_permissions(to, Permissions::from_mode(0o600)).map_err(broke)?;
        }
    }
    // cp keeps modes, links and times as the context has them.
    let mut all = recipe.context.clone().into_os_string();
    all.push("/.");
    let copied = Command::new("cp")
        .arg("-a")
        .arg("--")
        .arg(all)
        .arg(at("workspace"))
        .capture(deadline)
        .await?;
    if !copied.success() {
        return Err(Failure::internal(format!(
            "cannot copy the build context {}",
            recipe.context.display()
        ))
        .because(copied.tail));
    }
    Ok(root)
}
