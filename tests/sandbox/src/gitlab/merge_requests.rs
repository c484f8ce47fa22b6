//! Merge requests: what state one is in, and merging it for real.
//!
//! Kept from GitLab: `detailed_merge_status`, merging with a merge commit (or a squashed one) or not at all, the lock
//! on `sha`, the check in the background that every move of either branch makes necessary again, auto-merge that waits for the head pipeline and merges when that succeeds. A merge request whose head
//! has no pipeline merges at once even when auto-merge is asked for.
//!
//! Not modelled: approvals, discussions, drafts by any means but the title, forks, fast-forward-only projects.

use std::sync::Arc;

use anyhow::Context as _;

use super::hub::{Hub, Shared};
use super::pushes::{self, Update};
use super::state::{MergeRequest, Pipeline, Status, now};

/// The newest pipeline of the merge request's head.
pub(super) fn head_pipeline(hub: &Hub, request: &MergeRequest) -> Option<Pipeline> {
    let state = hub.state();
    let of_head = |pipeline: &&Pipeline| {
        pipeline.project == request.project
            && pipeline.sha == request.sha
            && pipeline.ref_name == request.source_branch
            && !pipeline.tag
    };
    state.pipelines.values().rev().find(of_head).cloned()
}

/// Whether source and target as they are now were checked against each other; they are from now on. GitLab checks in
/// the background once somebody looks, and says `checking` until then.
pub(super) async fn was_checked(hub: &Hub, request: &MergeRequest) -> bool {
    let Some(project) = hub.state().projects.get(&request.project).cloned() else {
        return true;
    };
    let repository = hub.repository(&project);
    let source = repository.branch(&request.source_branch).await;
    let heads = source.zip(repository.branch(&request.target_branch).await);
    let mut state = hub.state();
    let Some(found) = state.merge_requests.get_mut(&request.id) else {
        return true;
    };
    if heads.is_none() || request.state != "opened" {
        return true;
    }
    std::mem::replace(&mut found.checked, heads.clone()) == heads
}

/// GitLab's word for what stands between the request and a merge, once it was checked.
pub(super) async fn merge_status(hub: &Hub, request: &MergeRequest) -> &'static str {
    if request.state != "opened" {
        return "not_open";
    }
    let title = request.title.to_lowercase();
    if title.starts_with("draft:") || title.starts_with("[draft]") || title.starts_with("(draft)") {
        return "draft_status";
    }
    let Some(project) = hub.state().projects.get(&request.project).cloned() else {
        return "not_open";
    };
    let repository = hub.repository(&project);
    let target = repository.branch(&request.target_branch).await;
    let Some((target, source)) = target.zip(repository.branch(&request.source_branch).await) else {
        return "broken_status";
    };
    if repository
        .git(&["merge-base", "--is-ancestor", &source, &target])
        .await
        .is_ok()
    {
        return "commits_status";
    }
    if repository
        .git(&["merge-tree", "--write-tree", &target, &source])
        .await
        .is_err()
    {
        return "conflict";
    }
    "mergeable"
}

/// Merges an open request and returns the merge commit.
///
/// # Errors
/// When it conflicts, or when the target moved in this moment.
pub(super) async fn merge(hub: &Shared, id: u64, user: u64, message: Option<&str>) -> anyhow::Result<String> {
    let (request, project, author) = {
        let state = hub.state();
        let request = state
            .merge_requests
            .get(&id)
            .context("no such merge request")?
            .clone();
        let project = state
            .projects
            .get(&request.project)
            .context("no such project")?
            .clone();
        let author = state.users.get(&user).context("no such user")?.clone();
        (request, project, author)
    };
    let lock = hub.branch_lock(project.id);
    let _guard = lock.lock().await;
    let repository = hub.repository(&project);
    let target = repository
        .branch(&request.target_branch)
        .await
        .context("the target branch is gone")?;
    let source = repository
        .branch(&request.source_branch)
        .await
        .context("the source branch is gone")?;
    let tree = repository
        .line(&["merge-tree", "--write-tree", &target, &source])
        .await?;
    let default = format!(
        "Merge branch '{}' into '{}'\n\n{}\n\nSee merge request {}!{}",
        request.source_branch, request.target_branch, request.title, project.path, request.iid
    );
    let message = message.unwrap_or(if request.squash { &request.title } else { &default });
    let parents: &[&str] = if request.squash {
        &[&target]
    } else {
        &[&target, &source]
    };
    let commit = repository
        .commit_tree(
            &tree,
            parents,
            message,
            (&author.name, &author.email),
            (&author.name, &author.email),
        )
        .await?;
    repository
        .update_branch(&request.target_branch, &commit, Some(&target))
        .await?;
    {
        let mut state = hub.state();
        let request = state
            .merge_requests
            .get_mut(&id)
            .context("no such merge request")?;
        request.state = "merged";
        request.sha = source.clone();
        request.merge_commit_sha = Some(commit.clone());
        request.merged_by = Some(user);
        request.merged_at = Some(now());
        request.updated_at = now();
        request.auto_merge_by = None;
    }
    let name = format!("refs/heads/{}", request.target_branch);
    pushes::moved_by_api(
        hub,
        project.id,
        user,
        Update {
            old: target,
            new: commit.clone(),
            name,
        },
        false,
    );
    if request.remove_source_branch {
        let name = format!("refs/heads/{}", request.source_branch);
        repository.git(&["update-ref", "-d", &name, &source]).await?;
    }
    hub.changed();
    Ok(commit)
}

/// Lets open requests know that their source branch moved.
pub(super) fn branch_moved(hub: &Hub, project: u64, update: &Update) {
    let Some(branch) = update.name.strip_prefix("refs/heads/") else {
        return;
    };
    let mut state = hub.state();
    let open = state.merge_requests.values_mut().filter(|request| {
        request.project == project && request.state == "opened" && request.source_branch == branch
    });
    for request in open {
        if update.new.bytes().any(|byte| byte != b'0') {
            request.sha.clone_from(&update.new);
        }
        request.updated_at = now();
    }
}

/// Merges what waits for this pipeline, if it succeeded; after a failure the wait goes on for a newer one.
pub(super) fn pipeline_finished(hub: &Shared, pipeline: u64) {
    let waiting: Vec<(u64, u64)> = {
        let state = hub.state();
        let Some(pipeline) = state.pipelines.get(&pipeline) else {
            return;
        };
        if pipeline.status != Status::Success {
            return;
        }
        let waits = state.merge_requests.values().filter(|request| {
            request.project == pipeline.project
                && request.state == "opened"
                && request.sha == pipeline.sha
                && request.source_branch == pipeline.ref_name
        });
        waits
            .filter_map(|request| Some((request.id, request.auto_merge_by?)))
            .collect()
    };
    for (request, user) in waiting {
        let hub = Arc::clone(hub);
        tokio::spawn(async move {
            // A conflict that came up meanwhile leaves the request open, as in GitLab.
            let _ = merge(&hub, request, user, None).await;
        });
    }
}
