//! `POST /projects/:id/repository/commits`: several file actions as one commit.
//!
//! Kept from GitLab: a `last_commit_id` that saw another last change of that file than the branch has refuses the whole
//! commit (for `update`, `move` and `delete`, as documented). Only then does Gitaly look what the branch is at, and builds
//! on that: its actions come one after the other, so that a file can be created and deleted in one commit, and each finds
//! the files as they are there (its tests of `UserCommitFiles`: "delete created file", "create duplicate file"). What
//! comes between the two looks is met by no `last_commit_id`; they are milliseconds apart there, and here one look, unless
//! a test puts something in between (`GitLab::before_commit`). A branch that moves while Gitaly is at work refuses the
//! commit too, with another text. A file is written as Gitaly writes one, with `core.autocrlf=input`: CRLF becomes LF, in
//! base64 as well ("create file normalizes line endings"). Whoever may not push to the branch gets 403; a new branch needs
//! `start_branch` or `start_sha`, and `force` starts an old one anew; job tokens are not looked at. Not modelled:
//! `author_*` of other users' forks, submodules, LFS.

use std::collections::BTreeMap;

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
enum Action {
    Create {
        path: String,
        content: Vec<u8>,
        executable: bool,
    },
    Update {
        path: String,
        content: Vec<u8>,
    },
    Delete {
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

/// The files of a commit that is being made: mode and blob by path.
type Entries = BTreeMap<String, (String, String)>;

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
    let mut read = Vec::new();
    for action in &actions {
        look_whether_changed(&repository, start.as_deref(), action).await?;
        read.push(read_action(action)?);
    }
    let between = call.hub.state().before_commit.clone();
    let (start, head) = match between {
        None => (start, head),
        Some(between) => {
            between();
            let head = repository.branch(&branch).await;
            let from_elsewhere =
                call.params.text("start_branch").is_some() || call.params.text("start_sha").is_some();
            (if from_elsewhere { start } else { head.clone() }, head)
        }
    };
    let tree = write_tree(&repository, start.as_deref(), read).await?;
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

/// Refuses an action on a file that was changed since the commit that its sender has seen.
async fn look_whether_changed(
    repository: &Repository<'_>,
    start: Option<&str>,
    action: &Value,
) -> Result<(), Refusal> {
    let text = |key: &str| action.get(key).and_then(Value::as_str);
    let looks = matches!(text("action"), Some("update" | "move" | "delete"));
    let path = text("previous_path").or_else(|| text("file_path"));
    let (true, Some(path), Some(expected), Some(start)) = (looks, path, text("last_commit_id"), start) else {
        return Ok(());
    };
    // Any commit will do that sees the same last change of the file; one that knows no such file is let through.
    let last = repository.log(start, Some(path), 1, 0).await?;
    let seen = match repository.commit_id(expected).await {
        Some(expected) => repository.log(&expected, Some(path), 1, 0).await?,
        None => Vec::new(),
    };
    match last.first().zip(seen.first()) {
        Some((last, seen)) if last.id != seen.id => Err(Refusal::bad_request(format!(
            "The file has changed since you started editing it: {path}"
        ))),
        _ => Ok(()),
    }
}

fn read_action(action: &Value) -> Result<Action, Refusal> {
    let text = |key: &str| action.get(key).and_then(Value::as_str).map(str::to_owned);
    let missing = |key: &str| Refusal::parameter(&format!("actions[0][{key}] is missing"));
    let path = text("file_path").ok_or_else(|| missing("file_path"))?;
    if path
        .split('/')
        .any(|part| part.is_empty() || part == ".." || part == ".git")
    {
        return Err(Refusal::bad_request(format!("invalid path: {path}")));
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
    let executable = action
        .get("execute_filemode")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let kind = text("action").ok_or_else(|| missing("action"))?;
    Ok(match kind.as_str() {
        "create" => Action::Create {
            path,
            content: content()?.ok_or_else(|| missing("content"))?,
            executable,
        },
        "update" => Action::Update {
            path,
            content: content()?.ok_or_else(|| missing("content"))?,
        },
        "delete" => Action::Delete { path },
        "move" => Action::Move {
            from: text("previous_path").ok_or_else(|| missing("previous_path"))?,
            to: path,
            content: content()?,
        },
        "chmod" => Action::Mode { path, executable },
        _ => {
            return Err(Refusal::parameter(
                "actions[0][action] does not have a valid value",
            ));
        }
    })
}

/// Writes the tree after the actions, one after the other, through an index of its own.
async fn write_tree(
    repository: &Repository<'_>,
    start: Option<&str>,
    actions: Vec<Action>,
) -> Result<String, Refusal> {
    let before = match start {
        Some(start) => entries(repository, start).await?,
        None => Entries::new(),
    };
    let mut after = before.clone();
    for action in actions {
        apply(repository, action, &mut after).await?;
    }
    let removed = before.keys().filter(|path| !after.contains_key(*path));
    // Mode 0 removes an entry; removals go first, so that a file can take the place of a folder.
    let mut lines: String = removed
        .map(|path| format!("0 {}\t{path}\0", "0".repeat(40)))
        .collect();
    for (path, (mode, blob)) in &after {
        if before.get(path) != Some(&(mode.clone(), blob.clone())) {
            lines.push_str(&format!("{mode} {blob}\t{path}\0"));
        }
    }
    let index = repository.path.join(format!("index-{}", random_token("")?));
    let index_text = index.to_string_lossy().into_owned();
    let environment = [("GIT_INDEX_FILE", index_text.as_str())];
    let made = async {
        if let Some(start) = start {
            repository.run(&["read-tree", start], None, &environment).await?;
        }
        let update = ["update-index", "-z", "--index-info"];
        repository
            .run(&update, Some(lines.as_bytes()), &environment)
            .await?;
        let tree = repository.run(&["write-tree"], None, &environment).await?;
        anyhow::Ok(String::from_utf8_lossy(&tree).trim().to_owned())
    };
    let made = made.await;
    // The index was this request's alone.
    let _ = tokio::fs::remove_file(&index).await;
    Ok(made?)
}

/// The files of a commit.
async fn entries(repository: &Repository<'_>, commit: &str) -> anyhow::Result<Entries> {
    let listed = repository.git(&["ls-tree", "-r", "-z", commit]).await?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let entries = listed.split_terminator('\0').filter_map(|line| {
        let (about, path) = line.split_once('\t')?;
        let mut about = about.split(' ');
        let (mode, blob) = (about.next()?, about.nth(1)?);
        Some((path.to_owned(), (mode.to_owned(), blob.to_owned())))
    });
    Ok(entries.collect())
}

async fn apply(repository: &Repository<'_>, action: Action, entries: &mut Entries) -> Result<(), Refusal> {
    let store = async |path: &str, content: &[u8]| -> anyhow::Result<String> {
        let input = "core.autocrlf=input";
        let write = ["-c", input, "hash-object", "-w", "--stdin", "--path", path];
        let blob = repository.run(&write, Some(content), &[]).await?;
        Ok(String::from_utf8_lossy(&blob).trim().to_owned())
    };
    let missing = || Refusal::bad_request("A file with this name doesn't exist");
    let there = || Refusal::bad_request("A file with this name already exists");
    let mode_of = |executable: bool| if executable { "100755" } else { "100644" }.to_owned();
    match action {
        Action::Create {
            path,
            content,
            executable,
        } => {
            if entries.contains_key(&path) {
                return Err(there());
            }
            let blob = store(&path, &content).await?;
            entries.insert(path, (mode_of(executable), blob));
        }
        Action::Update { path, content } => {
            let entry = entries.get_mut(&path).ok_or_else(missing)?;
            entry.1 = store(&path, &content).await?;
        }
        Action::Delete { path } => {
            entries.remove(&path).ok_or_else(missing)?;
        }
        Action::Move { from, to, content } => {
            let (mode, mut blob) = entries.remove(&from).ok_or_else(missing)?;
            if entries.contains_key(&to) {
                return Err(there());
            }
            if let Some(content) = content {
                blob = store(&to, &content).await?;
            }
            entries.insert(to, (mode, blob));
        }
        Action::Mode { path, executable } => {
            entries.get_mut(&path).ok_or_else(missing)?.0 = mode_of(executable);
        }
    }
    Ok(())
}
