//! Clones for configurations and jobs, and the private files beside them.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;

use super::hub::Hub;
use super::state::Project;

/// Makes a clone of the project at a commit, with a detached head and `origin` at the stand-in's URL.
///
/// The objects are borrowed from the bare repository, so a large repository costs its checkout alone; history and
/// tags are complete, where GitLab's runner fetches the newest 20 commits by default.
pub(super) async fn check_out(hub: &Hub, project: &Project, sha: &str, clone: &Path) -> anyhow::Result<()> {
    let bare = hub.repository(project).path;
    let parent = clone.parent().context("a clone has a folder around it")?;
    tokio::fs::create_dir_all(parent)
        .await
        .with_context(|| format!("cannot make {}", parent.display()))?;
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("the folder's path is not UTF-8")
    };
    let (bare, target) = (text(&bare)?, text(clone)?);
    git(
        hub,
        parent,
        &["clone", "--quiet", "--shared", "--no-checkout", &bare, &target],
    )
    .await?;
    let default = format!("refs/remotes/origin/{}", project.settings.default_branch);
    let url = format!("{}/{}.git", hub.url, project.path);
    git(hub, clone, &["remote", "set-url", "origin", &url]).await?;
    git(
        hub,
        clone,
        &["symbolic-ref", "refs/remotes/origin/HEAD", &default],
    )
    .await?;
    git(hub, clone, &["checkout", "--quiet", "--detach", sha]).await
}

/// Runs git in a folder, without anyone's configuration.
pub(super) async fn git(hub: &Hub, folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = hub.clean_command(&hub.git);
    command
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command.output().await.context("cannot start git")?;
    if !output.status.success() {
        let verb = arguments.first().copied().unwrap_or_default();
        bail!("git {verb}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Writes a git configuration that knows a token for this instance, and returns its path.
///
/// The token is in a file of its own that git's `store` helper reads: never in a URL or an argument.
pub(super) async fn write_git_config(
    hub: &Hub,
    folder: &Path,
    username: &str,
    token: &str,
) -> anyhow::Result<PathBuf> {
    let credentials = folder.join("git-credentials");
    write_private(
        &credentials,
        &format!("http://{username}:{token}@127.0.0.1:{}\n", hub.port),
    )
    .await?;
    let config = folder.join("gitconfig");
    let content = format!(
        "[credential \"{}\"]\n\thelper = \"store --file='{}'\"\n",
        hub.url,
        credentials.display()
    );
    write_private(&config, &content).await?;
    Ok(config)
}

/// Writes a file that no other user can read.
pub(super) async fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = tokio::fs::OpenOptions::from(options).open(path).await;
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(content.as_bytes()).await?;
    file.flush().await?;
    Ok(())
}

/// Copies a folder's content into another, over what is there.
pub(super) fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            if target.symlink_metadata().is_ok() {
                std::fs::remove_file(&target)?;
            }
            if kind.is_symlink() {
                std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
            } else {
                std::fs::copy(entry.path(), &target)?;
            }
        }
    }
    Ok(())
}
