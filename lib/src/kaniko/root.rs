//! A private root for the kaniko executor, where we are not in its container.
//!
//! The executor unpacks base images over `/` and wipes it between stages. Here `/` is a folder of our own: the
//! executor, devices, and nothing else of this machine but the context, which it can read and not write. Mounts live in a
//! mount and a process namespace that end with the build, so that nothing is left even when we are killed; then only the
//! folder stays.
//!
//! Needs root (mount namespaces, chroot). Seen with the executor 1.28.3: a RUN step fails without `/dev/null`, the
//! executor wants `/kaniko/ssl/certs` for https, and it leaves alone what is below `/kaniko`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::executor::{Places, ROOT, arguments};
use super::ground::Ground;
use super::{Built, Recipe, ended_badly, finish};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::process::Command;

/// kaniko's own folder in the root.
pub(super) const KANIKO: &str = "/kaniko";

/// Mounts what a build needs and becomes the executor. `$1` is the root, `$2` the context, `$3` the ground, the rest the
/// executor's arguments.
const ENTER: &str = r#"
set -e
root=$1
context=$2
ground=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# A mount of its own, so that wiping the root leaves the devices alone.
mount --rbind "$root/dev" "$root/dev"
mount --bind "$ground" "$root/kaniko/build"
mount --rbind "$context" "$root/kaniko/context"
mount -o remount,bind,ro "$root/kaniko/context"
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
    let context = fs::canonicalize(&recipe.context).map_err(|error| {
        Failure::usage(format!("no such path: {}", recipe.context.display())).because(error)
    })?;
    let ground = Ground::lay(recipe, None)?;
    let root = lay_out(executor, &ground).map_err(|error| {
        Failure::internal("cannot lay out a private root for kaniko")
            .because(error)
            .hint("is there room in the temporary folder (TMPDIR)?")
    })?;
    let places = Places {
        context: Path::new("/kaniko/context"),
        dockerfile: Path::new("/kaniko/build/Dockerfile"),
        digest: Path::new("/kaniko/build/digest"),
        layout: Path::new("/kaniko/build/layout"),
        authority: Path::new("/kaniko/build/certificates/ca.crt"),
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
        .arg(&root)
        .arg(context)
        .arg(ground.path())
        .args(arguments(recipe, &places))
        // RUN steps are root and read the executor's environment in /proc: nothing of the job's may be there.
        .env_clear()
        .envs(&recipe.environment)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("USER", ROOT)
        .env("DOCKER_CONFIG", "/kaniko/build/docker")
        .env_remove("SSL_CERT_FILE")
        .env_remove("TMPDIR")
        .env("SSL_CERT_DIR", "/kaniko/ssl/certs")
        .follow(deadline, line)
        .await?;
    if !ended.success() {
        return Err(ended_badly("kaniko", &ended, ground.path()));
    }
    let (digest, layout) = (ground.digest(), ground.layout());
    finish(ground, &digest, layout, "kaniko")
}

/// Lays out a root in the ground, and gives back where.
fn lay_out(executor: &Path, ground: &Ground) -> io::Result<PathBuf> {
    // Steps may run as other users, who have to get past its top.
    let root = ground.open_folder("root")?;
    let at = |path: &str| root.join(path);
    for folder in [
        "kaniko/build",
        "kaniko/context",
        "kaniko/ssl/certs",
        "etc",
        "tmp",
        "var",
        "proc",
        "sys",
        "dev",
        "root",
    ] {
        fs::create_dir_all(at(folder))?;
    }
    fs::set_permissions(at("tmp"), Permissions::from_mode(0o1777))?;
    fs::write(at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(at("etc/group"), "root:x:0:\n")?;
    for name in ["hosts", "resolv.conf"] {
        let from = Path::new("/etc").join(name);
        if from.is_file() {
            fs::copy(from, at("etc").join(name))?;
        }
    }
    fs::copy(executor, at("kaniko/executor"))?;
    if let Some(bundle) = CA_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()) {
        fs::copy(bundle, at("kaniko/ssl/certs/ca-certificates.crt"))?;
    }
    Ok(root)
}
