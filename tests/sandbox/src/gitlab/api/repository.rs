//! Files, commits and branches of a project's repository: reading. Writing is in [`super::commits`].

use axum::Json;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::repository::Along;
use super::super::settings::{Role, Scope};
use super::super::state::Project;
use super::call::{Call, JobTokens, Refusal};
use super::{Answer, entities};

fn reader(call: &Call, id: &str, scopes: &[Scope]) -> Result<Project, Refusal> {
    let caller = call.caller_with(JobTokens::Allowed, scopes)?;
    call.project(id, &caller, Role::Reporter)
}

const FILES: [Scope; 3] = [Scope::Api, Scope::ReadApi, Scope::ReadRepository];
const API: [Scope; 2] = [Scope::Api, Scope::ReadApi];

struct File {
    content: Vec<u8>,
    reference: String,
    commit: String,
    last_commit: String,
    blob: String,
    executable: bool,
}

async fn read_file(call: &Call, project: &Project, path: &str) -> Result<File, Refusal> {
    let default = || project.settings.default_branch.clone();
    let reference = call
        .params
        .text("ref")
        .map_or_else(default, |name| if name == "HEAD" { default() } else { name });
    let repository = call.hub.repository(project);
    let commit = repository
        .commit_id(&reference)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    let missing = || Refusal::not_found("File");
    let content = repository.file(&commit, path).await.ok_or_else(missing)?;
    let tree = repository.line(&["ls-tree", &commit, "--", path]).await?;
    let mut fields = tree.split_whitespace();
    let executable = fields.next() == Some("100755");
    let blob = fields.nth(1).ok_or_else(missing)?.to_owned();
    let log = repository.log(&commit, Some(path), 1, 0).await?;
    let last_commit = log.into_iter().next().ok_or_else(missing)?.id;
    Ok(File {
        content,
        reference,
        commit,
        last_commit,
        blob,
        executable,
    })
}

/// `GET` and `HEAD /projects/:id/repository/files/:file_path`.
pub(super) async fn file(Path((id, path)): Path<(String, String)>, call: Call) -> Answer {
    let project = reader(&call, &id, &FILES)?;
    let file = read_file(&call, &project, &path).await?;
    let content = base64::engine::general_purpose::STANDARD.encode(&file.content);
    let digest: String = Sha256::digest(&file.content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body = json!({
        "file_name": path.rsplit('/').next(),
        "file_path": path,
        "size": file.content.len(),
        "encoding": "base64",
        "content_sha256": digest,
        "ref": file.reference,
        "blob_id": file.blob,
        "commit_id": file.commit,
        "last_commit_id": file.last_commit,
        "execute_filemode": file.executable,
        "content": content,
    });
    Ok((file_headers(&file, &path), Json(body)).into_response())
}

fn file_headers(file: &File, path: &str) -> [(&'static str, String); 6] {
    [
        ("x-gitlab-blob-id", file.blob.clone()),
        ("x-gitlab-commit-id", file.commit.clone()),
        ("x-gitlab-file-path", path.to_owned()),
        ("x-gitlab-last-commit-id", file.last_commit.clone()),
        ("x-gitlab-ref", file.reference.clone()),
        ("x-gitlab-size", file.content.len().to_string()),
    ]
}

/// `GET /projects/:id/repository/files/:file_path/raw`.
pub(super) async fn raw_file(Path((id, path)): Path<(String, String)>, call: Call) -> Answer {
    let project = reader(&call, &id, &FILES)?;
    let file = read_file(&call, &project, &path).await?;
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((file_headers(&file, &path), kind, file.content).into_response())
}

/// `GET /projects/:id/repository/commits`.
pub(super) async fn commits(Path(id): Path<String>, call: Call) -> Answer {
    /// As far back as a list goes.
    const MOST: usize = 1000;
    let project = reader(&call, &id, &API)?;
    let branch = call
        .params
        .text("ref_name")
        .unwrap_or_else(|| project.settings.default_branch.clone());
    let repository = call.hub.repository(&project);
    let at = repository
        .commit_id(&branch)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    let path = call.params.text("path");
    let along = if call.params.flag("first_parent") == Some(true) {
        Along::FirstParents
    } else {
        Along::AllParents
    };
    let found = repository.log_along(along, &at, path.as_deref(), MOST, 0).await?;
    Ok(call.page(found, |hub, commit| entities::commit(hub, &project, commit)))
}

/// `GET /projects/:id/repository/tree`. With `pagination=keyset` the next page is named by `Link` alone.
pub(super) async fn tree(Path(id): Path<String>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    let reference = call
        .params
        .text("ref")
        .unwrap_or_else(|| project.settings.default_branch.clone());
    let repository = call.hub.repository(&project);
    let missing = || Refusal::not_found("invalid revision or path");
    let commit = repository.commit_id(&reference).await.ok_or_else(missing)?;
    let path = call.params.text("path").unwrap_or_default();
    let treeish = format!("{commit}:{}", path.trim_matches('/'));
    let mut arguments = vec!["ls-tree", "-z"];
    if call.params.flag("recursive") == Some(true) {
        arguments.extend(["-r", "-t"]);
    }
    arguments.push(&treeish);
    let listed = repository.git(&arguments).await.map_err(|_| missing())?;
    let prefix = match path.trim_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let mut entries: Vec<Value> = String::from_utf8_lossy(&listed)
        .split_terminator('\0')
        .filter_map(|line| {
            let (meta, below) = line.split_once('\t')?;
            let mut meta = meta.split(' ');
            let (mode, kind, object) = (meta.next()?, meta.next()?, meta.next()?);
            Some(json!({
                "id": object,
                "name": below.rsplit('/').next(),
                "type": kind,
                "path": format!("{prefix}{below}"),
                "mode": mode,
            }))
        })
        .collect();
    if call.params.text("pagination").as_deref() != Some("keyset") {
        return Ok(call.page(entries, |_, entry| entry.clone()));
    }
    if let Some(after) = call.params.text("page_token") {
        let seen = entries.iter().position(|entry| entry["path"] == after.as_str());
        entries.drain(..seen.map_or(0, |at| at + 1));
    }
    Ok(call.keyset_page(entries, |entry| {
        entry["path"].as_str().unwrap_or_default().to_owned()
    }))
}

/// `GET /projects/:id/repository/commits/:sha`.
pub(super) async fn commit(Path((id, sha)): Path<(String, String)>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    let repository = call.hub.repository(&project);
    let commit = repository
        .commit(&sha)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    let numbers = repository
        .git(&[
            "diff-tree",
            "--root",
            "--no-commit-id",
            "--numstat",
            "-r",
            &commit.id,
        ])
        .await?;
    let numbers = String::from_utf8_lossy(&numbers).into_owned();
    let sum = |column: usize| -> u64 {
        let cells = numbers.lines().filter_map(|line| line.split('\t').nth(column));
        cells.filter_map(|cell| cell.parse::<u64>().ok()).sum()
    };
    let (additions, deletions) = (sum(0), sum(1));
    let last = {
        let state = call.hub.state();
        let mut newest = state.pipelines.values().rev();
        newest
            .find(|pipeline| pipeline.project == project.id && pipeline.sha == commit.id)
            .cloned()
    };
    let mut shown = entities::commit(&call.hub, &project, &commit);
    if let Some(shown) = shown.as_object_mut() {
        let total = additions + deletions;
        let stats = json!({ "additions": additions, "deletions": deletions, "total": total });
        shown.insert("stats".into(), stats);
        shown.insert(
            "status".into(),
            json!(last.as_ref().map(|pipeline| pipeline.status.as_str())),
        );
        shown.insert("project_id".into(), json!(project.id));
        let last = last.map(|pipeline| entities::pipeline_basic(&call.hub, &pipeline));
        shown.insert("last_pipeline".into(), json!(last));
    }
    Ok(Json(shown).into_response())
}

/// `GET /projects/:id/repository/commits/:sha/diff`.
pub(super) async fn diff(Path((id, sha)): Path<(String, String)>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    let repository = call.hub.repository(&project);
    let commit = repository
        .commit_id(&sha)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    let patch = repository
        .git(&[
            "-c",
            "core.quotePath=false",
            "diff-tree",
            "--root",
            "--no-commit-id",
            "-p",
            "-M",
            "-r",
            "--full-index",
            &commit,
        ])
        .await?;
    Ok(call.page(diffs(&String::from_utf8_lossy(&patch)), |_, diff| diff.clone()))
}

/// One entry for each file of a patch.
fn diffs(patch: &str) -> Vec<Value> {
    let mut starts: Vec<usize> = patch.match_indices("diff --git ").map(|(at, _)| at).collect();
    starts.retain(|at| *at == 0 || patch.as_bytes()[at - 1] == b'\n');
    let ends = starts.iter().skip(1).copied().chain([patch.len()]);
    let files = starts.iter().zip(ends).map(|(from, to)| &patch[*from..to]);
    files
        .map(|file| {
            let (head, hunks) = file.find("\n@@ ").map_or((file, ""), |at| file.split_at(at + 1));
            let line = |start: &str| head.lines().find_map(|line| line.strip_prefix(start));
            let strip = |path: &str| path.get(2..).unwrap_or_default().to_owned();
            let named = head.lines().next().unwrap_or_default();
            let names = named.trim_start_matches("diff --git ");
            // Both are the same unless it is a rename, which has lines of its own: a blank in them does not matter.
            let half = names.len() / 2;
            let (a, b) = (
                names.get(..half).unwrap_or_default(),
                names.get(half + 1..).unwrap_or_default(),
            );
            let (new, deleted) = (line("new file mode "), line("deleted file mode "));
            let index = line("index ").unwrap_or_default();
            let mode = new
                .or(deleted)
                .or_else(|| index.split_once(' ').map(|(_, mode)| mode));
            let (a_mode, b_mode) = (mode.filter(|_| new.is_none()), mode.filter(|_| deleted.is_none()));
            json!({
                "diff": hunks,
                "old_path": line("rename from ").map_or_else(|| strip(a), str::to_owned),
                "new_path": line("rename to ").map_or_else(|| strip(b), str::to_owned),
                "a_mode": line("old mode ").or(a_mode).unwrap_or("0"),
                "b_mode": line("new mode ").or(b_mode).unwrap_or("0"),
                "new_file": new.is_some(),
                "renamed_file": line("rename from ").is_some(),
                "deleted_file": deleted.is_some(),
                "generated_file": null,
            })
        })
        .collect()
}

async fn show_branch(call: &Call, project: &Project, name: &str) -> Result<Value, Refusal> {
    let repository = call.hub.repository(project);
    let head = repository
        .branch(name)
        .await
        .ok_or_else(|| Refusal::not_found("Branch"))?;
    let commit = repository
        .commit(&head)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    let protected = project.is_protected(name, false);
    let caller = call.caller_with(JobTokens::Allowed, &API)?;
    let may_push = caller
        .user()
        .is_some_and(|user| call.hub.state().may_change_ref(user, project, name, false));
    Ok(json!({
        "name": name,
        "commit": entities::commit(&call.hub, project, &commit),
        "merged": false,
        "protected": protected,
        "developers_can_push": !protected || project.settings.protected_push_role <= Role::Developer,
        "developers_can_merge": !protected || project.settings.protected_push_role <= Role::Developer,
        "can_push": may_push,
        "default": name == project.settings.default_branch,
        "web_url": format!("{}/{}/-/tree/{name}", call.hub.url, project.path),
    }))
}

/// `GET /projects/:id/repository/branches`.
pub(super) async fn branches(Path(id): Path<String>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    let repository = call.hub.repository(&project);
    let names = repository
        .line(&["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"])
        .await?;
    let search = call.params.text("search").unwrap_or_default();
    let mut shown = Vec::new();
    for name in names.lines().filter(|name| name.contains(&search)) {
        shown.push(show_branch(&call, &project, name).await?);
    }
    Ok(call.page(shown, |_, branch| branch.clone()))
}

/// `GET /projects/:id/repository/tags/:tag`.
pub(super) async fn tag(Path((id, name)): Path<(String, String)>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    let repository = call.hub.repository(&project);
    let full = format!("refs/tags/{name}");
    let target = repository
        .commit_id(&full)
        .await
        .ok_or_else(|| Refusal::not_found("Tag"))?;
    let commit = repository
        .commit(&target)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    let body = json!({
        "name": name,
        "target": target,
        "commit": entities::commit(&call.hub, &project, &commit),
        "message": "",
        "release": null,
        "protected": project.is_protected(&name, true),
    });
    Ok(Json(body).into_response())
}

/// `GET /projects/:id/repository/branches/:branch`.
pub(super) async fn branch(Path((id, name)): Path<(String, String)>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    Ok(Json(show_branch(&call, &project, &name).await?).into_response())
}

/// `DELETE /projects/:id/repository/branches/:branch`.
pub(super) async fn delete_branch(Path((id, name)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    if project.is_protected(&name, false) || name == project.settings.default_branch {
        return Err(Refusal::forbidden(None));
    }
    let repository = call.hub.repository(&project);
    let head = repository
        .branch(&name)
        .await
        .ok_or_else(|| Refusal::not_found("Branch"))?;
    repository
        .git(&["update-ref", "-d", &format!("refs/heads/{name}"), &head])
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /projects/:id/repository/compare`: from the merge base, unless `straight`.
pub(super) async fn compare(Path(id): Path<String>, call: Call) -> Answer {
    let project = reader(&call, &id, &API)?;
    let (from, to) = (call.required("from")?, call.required("to")?);
    let repository = call.hub.repository(&project);
    let missing = || Refusal::not_found("Ref");
    let base = repository.commit_id(&from).await.ok_or_else(missing)?;
    let head = repository.commit_id(&to).await.ok_or_else(missing)?;
    let start = if call.params.flag("straight") == Some(true) {
        base.clone()
    } else {
        repository.line(&["merge-base", &base, &head]).await?
    };
    let mut found = repository.log(&format!("{base}..{head}"), None, 1000, 0).await?;
    let patch = repository
        .git(&[
            "-c",
            "core.quotePath=false",
            "diff",
            "-M",
            "--full-index",
            &start,
            &head,
        ])
        .await?;
    let newest = found.first().cloned();
    found.reverse();
    let show = |commit| entities::commit(&call.hub, &project, commit);
    let body = json!({
        "commit": newest.as_ref().map(show),
        "commits": found.iter().map(show).collect::<Vec<_>>(),
        "diffs": diffs(&String::from_utf8_lossy(&patch)),
        "compare_timeout": false,
        "compare_same_ref": base == head,
        "web_url": format!("{}/{}/-/compare/{from}...{to}", call.hub.url, project.path),
    });
    let response: Response = Json(body).into_response();
    Ok(response)
}
