//! What follows a push: protection before it, pipelines and webhooks after it.
//!
//! Two real git hooks do the work inside `receive-pack`: `pre-receive` refuses what GitLab refuses on protected
//! branches, `post-receive` leaves a record of the accepted updates and the push options. A push with a job token
//! starts no pipeline, nor does one with `ci.skip` or with `[skip ci]` in the newest commit's message.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::hub::{Hub, Shared, UnderWay};
use super::pipelines::{self, Draft};
use super::settings::PipelineRequest;
use super::state::{Source, User};

/// Names of the environment variables through which the hooks hear about the push.
pub(super) const RECORD: &str = "SANDBOX_PUSH_RECORD";
pub(super) const PROTECTED: &str = "SANDBOX_PROTECTED_BRANCHES";
pub(super) const MAY_PUSH_PROTECTED: &str = "SANDBOX_MAY_PUSH_PROTECTED";

const PRE_RECEIVE: &str = r#"#!/bin/sh
# Refuses what GitLab refuses on protected branches.
set -f
zero=0000000000000000000000000000000000000000
refuse() { echo "GitLab: $1" >&2; exit 1; }
while read -r old new ref; do
  case "$ref" in refs/heads/*) branch=${ref#refs/heads/} ;; *) continue ;; esac
  for pattern in $SANDBOX_PROTECTED_BRANCHES; do
    case "$branch" in $pattern) ;; *) continue ;; esac
    [ "$SANDBOX_MAY_PUSH_PROTECTED" = true ] ||
      refuse "You are not allowed to push code to protected branches on this project."
    [ "$new" != $zero ] ||
      refuse "You can only delete protected branches using the web interface."
    [ "$old" = $zero ] || git merge-base --is-ancestor "$old" "$new" ||
      refuse "You are not allowed to force push code to a protected branch on this project."
  done
done
"#;

const POST_RECEIVE: &str = r#"#!/bin/sh
# Leaves a record of the push: options first, then one line for each updated ref.
i=0
while [ "$i" -lt "${GIT_PUSH_OPTION_COUNT:-0}" ]; do
  eval "printf 'option %s\n' \"\$GIT_PUSH_OPTION_$i\""
  i=$((i + 1))
done > "$SANDBOX_PUSH_RECORD"
cat >> "$SANDBOX_PUSH_RECORD"
"#;

/// Writes the hooks that every repository of this instance uses.
pub(super) fn install_hooks(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, content) in [("pre-receive", PRE_RECEIVE), ("post-receive", POST_RECEIVE)] {
        let path = folder.join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// One accepted push.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Push {
    pub(super) options: Vec<String>,
    pub(super) updates: Vec<Update>,
}

/// One ref that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) old: String,
    pub(super) new: String,
    pub(super) name: String,
}

impl Push {
    /// Reads what the `post-receive` hook left.
    pub(super) fn read(record: &str) -> Push {
        let mut push = Push::default();
        for line in record.lines() {
            if let Some(option) = line.strip_prefix("option ") {
                push.options.push(option.to_owned());
            } else if let [old, new, name] = line.splitn(3, ' ').collect::<Vec<_>>()[..] {
                push.updates.push(Update {
                    old: old.into(),
                    new: new.into(),
                    name: name.into(),
                });
            }
        }
        push
    }
}

/// Does what follows an accepted push; `quiet` is a push that starts no pipelines. It is under way from the call on, even
/// before it is first polled.
pub(super) fn accepted(
    hub: Shared,
    project: u64,
    user: u64,
    push: Push,
    quiet: bool,
) -> impl Future<Output = ()> + Send {
    let under_way = UnderWay::new(&hub);
    async move {
        follow(hub, project, user, push, quiet).await;
        drop(under_way);
    }
}

async fn follow(hub: Shared, project: u64, user: u64, push: Push, quiet: bool) {
    let skipped = quiet || push.options.iter().any(|option| option == "ci.skip");
    for update in push.updates {
        notify(&hub, project, user, &update).await;
        super::merge_requests::branch_moved(&hub, project, &update);
        if update.new.bytes().all(|byte| byte == b'0') {
            continue;
        }
        start_pipeline(&hub, project, user, &update, skipped).await;
    }
}

async fn start_pipeline(hub: &Shared, id: u64, user: u64, update: &Update, skipped: bool) {
    let Some(project) = hub.state().projects.get(&id).cloned() else {
        return;
    };
    let repository = hub.repository(&project);
    let message = repository
        .commit(&update.new)
        .await
        .map(|commit| commit.message.to_lowercase());
    let asks_to_skip =
        message.is_some_and(|message| message.contains("[skip ci]") || message.contains("[ci skip]"));
    if skipped
        || asks_to_skip
        || repository
            .file(&update.new, &project.settings.ci_config_path)
            .await
            .is_none()
    {
        return;
    }
    let is_branch = update.name.starts_with("refs/heads/");
    let existed = update.old.bytes().any(|byte| byte != b'0');
    let draft = Draft {
        project: id,
        ref_name: update.name.clone(),
        user,
        source: Source::Push,
        request: PipelineRequest::default(),
        before_sha: (is_branch && existed).then(|| update.old.clone()),
        sha: repository.commit_id(&update.new).await,
        source_job: None,
    };
    // A broken configuration stays visible as a failed pipeline; other refusals leave no trace, as in GitLab.
    let _ = pipelines::create(hub, draft).await;
}

/// Posts GitLab's push event to everyone who asked for it.
async fn notify(hub: &Hub, id: u64, user: u64, update: &Update) {
    let (hooks, project, user) = {
        let state = hub.state();
        let (Some(project), Some(user)) = (state.projects.get(&id), state.users.get(&user)) else {
            return;
        };
        (state.push_hooks.clone(), project.clone(), user.clone())
    };
    if hooks.is_empty() {
        return;
    }
    let tag = update.name.starts_with("refs/tags/");
    let event = event(hub, &project, &user, update, tag).await;
    let header = if tag { "Tag Push Hook" } else { "Push Hook" };
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(10))
        .build();
    let Ok(client) = client else { return };
    for hook in hooks {
        // A hook that cannot be reached is its owner's problem, as with GitLab.
        let _ = client
            .post(&hook)
            .header("X-Gitlab-Event", header)
            .json(&event)
            .send()
            .await;
    }
}

async fn event(hub: &Hub, project: &super::state::Project, user: &User, update: &Update, tag: bool) -> Value {
    let url = format!("{}/{}", hub.url, project.path);
    let repository = hub.repository(project);
    let range = if update.old.bytes().all(|byte| byte == b'0') {
        update.new.clone()
    } else {
        format!("{}..{}", update.old, update.new)
    };
    let mut commits = Vec::new();
    for commit in repository.log(&range, None, 20, 0).await.unwrap_or_default() {
        let changed = repository
            .git(&[
                "diff-tree",
                "--root",
                "--no-commit-id",
                "--name-status",
                "-r",
                &commit.id,
            ])
            .await
            .unwrap_or_default();
        let changed = String::from_utf8_lossy(&changed).into_owned();
        let of = |kind: char| -> Vec<&str> {
            let lines = changed.lines().filter(|line| line.starts_with(kind));
            lines
                .filter_map(|line| line.split_once('\t').map(|(_, path)| path))
                .collect()
        };
        commits.push(json!({
            "id": commit.id,
            "message": commit.message,
            "title": commit.title(),
            "timestamp": commit.committed_date,
            "url": format!("{url}/-/commit/{}", commit.id),
            "author": { "name": commit.author_name, "email": commit.author_email },
            "added": of('A'),
            "modified": of('M'),
            "removed": of('D'),
        }));
    }
    commits.reverse();
    let http_url = format!("{url}.git");
    let kind = if tag { "tag_push" } else { "push" };
    json!({
        "object_kind": kind,
        "event_name": kind,
        "before": update.old,
        "after": update.new,
        "ref": update.name,
        "checkout_sha": update.new,
        "message": null,
        "user_id": user.id,
        "user_name": user.name,
        "user_username": user.username,
        "user_email": user.email,
        "project_id": project.id,
        "project": {
            "id": project.id,
            "name": project.name(),
            "description": null,
            "web_url": url,
            "git_http_url": http_url,
            "http_url": http_url,
            "url": http_url,
            "namespace": project.namespace(),
            "path_with_namespace": project.path,
            "default_branch": project.settings.default_branch,
            "homepage": url,
        },
        "commits": commits,
        "total_commits_count": commits.len(),
        "repository": { "name": project.name(), "url": http_url, "homepage": url, "git_http_url": http_url },
    })
}

/// The same for a branch that the API moved.
pub(super) fn moved_by_api(hub: &Shared, project: u64, user: u64, update: Update, skip_ci: bool) {
    let push = Push {
        options: Vec::new(),
        updates: vec![update],
    };
    tokio::spawn(accepted(Arc::clone(hub), project, user, push, skip_ci));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_options_and_updates() {
        let push = Push::read("option ci.skip\na b refs/heads/main\n");
        assert_eq!(push.options, ["ci.skip"]);
        assert_eq!(push.updates[0].name, "refs/heads/main");
    }
}
