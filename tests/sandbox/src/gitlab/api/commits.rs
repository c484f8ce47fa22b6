//! `POST /projects/:id/repository/commits`: several file actions as one commit.
//!
//! Kept from GitLab: a `last_commit_id` that saw another last change of that file than the branch has refuses the whole
//! commit; a branch that moved while the commit was made refuses it too, with another text; whoever may not push to the
//! branch gets 403; a new branch needs `start_branch` or `start_sha`, and `force` starts an old one anew; job tokens are
//! not looked at. Not modelled: `author_*` of other users' forks,
//! submodules, LFS.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use serde_json::Value;

use super::super::pushes::{self, Update};
use super::super::repository::Repository;
use super::super::settings::Role;
use super::super::state::Project;
use super::super::tokens::random_token;
use super::call::{Call, JobTokens, Refusal};
use super::{Answer, entities};

/// What one action does to its file.
enum Change {
    Write {
        path: String,
        content: Vec<u8>,
        executable: Option<bool>,
    },
    Remove {
        path: String,
    },
    Move {
        from: String,
        to: String,
        content: Option<Vec<u8>>,
    },
    Mode {
        path: String,
        executable: bool,
    },
}

/// Makes a commit.
pub(super) async fn create(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let (branch, message) = (call.required("branch")?, call.required("commit_message")?);
    let user = call.user(&caller)?;
    let actions = call
        .params
        .get("actions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if !call.hub.state().may_change_ref(user, &project, &branch, false) {
        return Err(Refusal::forbidden(Some(
            "You are not allowed to push into this branch",
        )));
    }
    let repository = call.hub.repository(&project);
    let head = repository.branch(&branch).await;
    let start = start(&call, &repository, &project, head.as_deref()).await?;
    let mut changes = Vec::new();
    for action in &actions {
        changes.push(read_action(&repository, start.as_deref(), action).await?);
    }
    let tree = write_tree(&repository, start.as_deref(), &changes).await?;
    let committer = {
        let state = call.hub.state();
        state
            .users
            .get(&user)
            .map(|user| (user.name.clone(), user.email.clone()))
            .unwrap_or_default()
    };
    let name = call
        .params
        .text("author_name")
        .unwrap_or_else(|| committer.0.clone());
    let email = call
        .params
        .text("author_email")
        .unwrap_or_else(|| committer.1.clone());
    let parents: Vec<&str> = start.as_deref().into_iter().collect();
    let commit = repository
        .commit_tree(
            &tree,
            &parents,
            &message,
            (&name, &email),
            (&committer.0, &committer.1),
        )
        .await?;
    repository
        .update_branch(&branch, &commit, head.as_deref())
        .await
        .map_err(|_| Refusal::bad_request("reference update: reference does not point to expected object"))?;
    let old = head.unwrap_or_else(|| "0".repeat(40));
    let update = Update {
        old,
        new: commit.clone(),
        name: format!("refs/heads/{branch}"),
    };
    pushes::moved_by_api(&call.hub, project.id, user, update, false);
    let made = repository
        .commit(&commit)
        .await
        .ok_or_else(|| Refusal::not_found("Commit"))?;
    Ok((
        StatusCode::CREATED,
        Json(entities::commit(&call.hub, &project, &made)),
    )
        .into_response())
}

/// The commit to build on.
async fn start(
    call: &Call,
    repository: &Repository<'_>,
    project: &Project,
    head: Option<&str>,
) -> Result<Option<String>, Refusal> {
    let force = call.params.flag("force").unwrap_or(false);
    let from = call
        .params
        .text("start_branch")
        .map(|name| format!("refs/heads/{name}"));
    let from = from.or_else(|| call.params.text("start_sha"));
    match (head, from) {
        (Some(head), None) => Ok(Some(head.to_owned())),
        (Some(_), Some(_)) if !force => Err(Refusal::bad_request(
            "A branch called 'BRANCH' already exists. Switch to that branch in order to make changes"
                .replace("BRANCH", &call.required("branch")?),
        )),
        (_, Some(from)) => match repository.commit_id(&from).await {
            Some(start) => Ok(Some(start)),
            None => Err(Refusal::bad_request("Cannot find start_branch or start_sha")),
        },
        (None, None) => {
            let empty = repository
                .branch(&project.settings.default_branch)
                .await
                .is_none();
            if empty {
                Ok(None)
            } else {
                Err(Refusal::bad_request(
                    "You can only create or edit files when you are on a branch",
                ))
            }
        }
    }
}

async fn read_action(
    repository: &Repository<'_>,
    start: Option<&str>,
    action: &Value,
) -> Result<Change, Refusal> {
    let text = |key: &str| action.get(key).and_then(Value::as_str).map(str::to_owned);
    let missing = |key: &str| Refusal::parameter(&format!("actions[0][{key}] is missing"));
    let path = text("file_path").ok_or_else(|| missing("file_path"))?;
    if path
        .split('/')
        .any(|part| part.is_empty() || part == ".." || part == ".git")
    {
        return Err(Refusal::bad_request(format!("invalid path: {path}")));
    }
    let kind = text("action").ok_or_else(|| missing("action"))?;
    let previous = text("previous_path");
    let old = previous.as_ref().unwrap_or(&path);
    let exists = match start {
        Some(start) => repository.file(start, old).await.is_some(),
        None => false,
    };
    if kind != "create" {
        if let (Some(expected), Some(start)) = (text("last_commit_id"), start) {
            // Any commit will do that sees the same last change of the file; one that knows no such file is let through.
            let last = repository.log(start, Some(old), 1, 0).await?;
            let seen = match repository.commit_id(&expected).await {
                Some(expected) => repository.log(&expected, Some(old), 1, 0).await?,
                None => Vec::new(),
            };
            let ids = last.first().zip(seen.first());
            if ids.is_some_and(|(last, seen)| last.id != seen.id) {
                return Err(Refusal::bad_request(format!(
                    "The file has changed since you started editing it: {old}"
                )));
            }
        }
        if !exists {
            return Err(Refusal::bad_request("A file with this name doesn't exist"));
        }
    }
    let content = || -> Result<Option<Vec<u8>>, Refusal> {
        let Some(content) = text("content") else {
            return Ok(None);
        };
        if text("encoding").as_deref() != Some("base64") {
            return Ok(Some(content.into_bytes()));
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(content.trim());
        decoded
            .map(Some)
            .map_err(|_| Refusal::bad_request("invalid base64"))
    };
    let executable = action.get("execute_filemode").and_then(Value::as_bool);
    match kind.as_str() {
        "create" if exists => Err(Refusal::bad_request("A file with this name already exists")),
        "create" | "update" => {
            let content = content()?.ok_or_else(|| missing("content"))?;
            Ok(Change::Write {
                path,
                content,
                executable,
            })
        }
        "delete" => Ok(Change::Remove { path }),
        "move" => {
            let from = previous.ok_or_else(|| missing("previous_path"))?;
            Ok(Change::Move {
                from,
                to: path,
                content: content()?,
            })
        }
        "chmod" => Ok(Change::Mode {
            path,
            executable: executable.unwrap_or(false),
        }),
        _ => Err(Refusal::parameter(
            "actions[0][action] does not have a valid value",
        )),
    }
}

/// Writes the tree after the changes, through an index of its own.
async fn write_tree(
    repository: &Repository<'_>,
    start: Option<&str>,
    changes: &[Change],
) -> Result<String, Refusal> {
    let index = repository.path.join(format!("index-{}", random_token("")?));
    let index_text = index.to_string_lossy().into_owned();
    let environment = [("GIT_INDEX_FILE", index_text.as_str())];
    let made = async {
        if let Some(start) = start {
            repository.run(&["read-tree", start], None, &environment).await?;
        }
        for change in changes {
            apply(repository, change, &environment).await?;
        }
        let tree = repository.run(&["write-tree"], None, &environment).await?;
        anyhow::Ok(String::from_utf8_lossy(&tree).trim().to_owned())
    };
    let made = made.await;
    // The index was this request's alone.
    let _ = tokio::fs::remove_file(&index).await;
    Ok(made?)
}

async fn apply(
    repository: &Repository<'_>,
    change: &Change,
    environment: &[(&str, &str)],
) -> anyhow::Result<()> {
    let entry = async |path: &str| -> anyhow::Result<(String, String)> {
        let listed = repository
            .run(&["ls-files", "--stage", "--", path], None, environment)
            .await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let mut fields = listed.split_whitespace().map(str::to_owned);
        Ok((
            fields.next().unwrap_or_else(|| "100644".into()),
            fields.next().unwrap_or_default(),
        ))
    };
    let write = async |mode: &str, blob: &str, path: &str| -> anyhow::Result<()> {
        let info = format!("{mode},{blob},{path}");
        repository
            .run(
                &["update-index", "--add", "--cacheinfo", &info],
                None,
                environment,
            )
            .await
            .map(drop)
    };
    let store = async |content: &[u8]| -> anyhow::Result<String> {
        let blob = repository
            .run(&["hash-object", "-w", "--stdin"], Some(content), environment)
            .await?;
        Ok(String::from_utf8_lossy(&blob).trim().to_owned())
    };
    let remove = async |path: &str| -> anyhow::Result<()> {
        // Mode 0 removes an entry; the plainer options ask for a work tree.
        let line = format!("0 {}\t{path}\n", "0".repeat(40));
        repository
            .run(
                &["update-index", "--index-info"],
                Some(line.as_bytes()),
                environment,
            )
            .await
            .map(drop)
    };
    let mode_of = |executable: bool| if executable { "100755" } else { "100644" };
    match change {
        Change::Write {
            path,
            content,
            executable,
        } => {
            let (old_mode, _) = entry(path).await?;
            let mode = executable.map_or(old_mode.as_str(), mode_of);
            write(mode, &store(content).await?, path).await
        }
        Change::Remove { path } => remove(path).await,
        Change::Move { from, to, content } => {
            let (mode, mut blob) = entry(from).await?;
            if let Some(content) = content {
                blob = store(content).await?;
            }
            remove(from).await?;
            write(&mode, &blob, to).await
        }
        Change::Mode { path, executable } => {
            let (_, blob) = entry(path).await?;
            write(mode_of(*executable), &blob, path).await
        }
    }
}
