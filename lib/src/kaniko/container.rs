//! Whether this is a container, whose file system kaniko may wipe.
//!
//! Sources: docker and podman leave files in the root of their containers; Kubernetes sets variables in its containers;
//! cgroup paths name the runtime where control groups are of version 1.

use std::path::Path;

use crate::failure::{Failure, Result};

/// Files that runtimes leave.
const MARKS: [&str; 2] = [".dockerenv", "run/.containerenv"];
/// Words in the control group of a container's processes.
const CONTROL_GROUPS: [&str; 6] = ["docker", "kubepods", "containerd", "libpod", "lxc", "garden"];
/// What kaniko leaves alone, besides mounts and its own folder.
const SPARED: [&str; 4] = ["dev", "kaniko", "proc", "sys"];

/// Refuses to have this file system wiped, unless it is a container's. `in_kubernetes` says whether Kubernetes told so.
///
/// # Errors
/// Denied (exit 4), naming what would be deleted.
pub(super) fn check(in_kubernetes: bool) -> Result<()> {
    check_at(Path::new("/"), in_kubernetes)
}

/// As [`check`], for a file system whose root is elsewhere.
fn check_at(root: &Path, in_kubernetes: bool) -> Result<()> {
    if in_kubernetes || is_marked(root) {
        return Ok(());
    }
    Err(Failure::denied(format!(
        "this does not look like a container, and kaniko would delete {} here between the stages of a build",
        doomed(root).join(", ")
    ))
    .hint("use --isolation chroot or --builder buildah; where this is a container all the same, say so with --outside-container (TOWPATH_OUTSIDE_CONTAINER)"))
}

fn is_marked(root: &Path) -> bool {
    let is_named = |file: &str| {
        std::fs::read_to_string(root.join(file))
            .is_ok_and(|groups| CONTROL_GROUPS.iter().any(|word| groups.contains(word)))
    };
    MARKS.iter().any(|mark| root.join(mark).exists())
        || is_named("proc/1/cgroup")
        || is_named("proc/self/cgroup")
}

/// The folders and files of the root that are neither spared nor mounts.
fn doomed(root: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string(root.join("proc/self/mounts")).unwrap_or_default();
    let is_mount = |path: &str| mounts.lines().any(|line| line.split(' ').nth(1) == Some(path));
    let mut names: Vec<String> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !SPARED.contains(&name.as_str()))
        .map(|name| format!("/{name}"))
        .filter(|path| !is_mount(path))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn a_machine_is_not_wiped_and_a_container_may_be() {
        let machine = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            for (file, text) in files {
                let path = root.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            root
        };
        let bare: &[(&str, &str)] = &[
            ("home/someone", ""),
            ("data/x", ""),
            ("usr/x", ""),
            ("kaniko/executor", ""),
            ("proc/1/cgroup", "0::/init.scope\n"),
            (
                "proc/self/mounts",
                "/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /data ext4 rw 0 0\n",
            ),
        ];
        let failure = check_at(machine(bare).path(), false).expect_err("a machine");
        assert_eq!(failure.kind(), Kind::Denied);
        assert!(failure.message().contains("delete /home, /usr here"), "{failure}");
        check_at(machine(bare).path(), true).unwrap();
        for mark in [
            (".dockerenv", ""),
            ("run/.containerenv", ""),
            ("proc/1/cgroup", "0::/kubepods.slice/x\n"),
        ] {
            check_at(machine(&[bare, &[mark]].concat()).path(), false).unwrap();
        }
    }
}
