//! Merge requests over the API.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use super::super::hub::Hub;
use super::super::merge_requests::{self, head_pipeline, merge_status};
use super::super::settings::Role;
use super::super::state::{MergeRequest, Pipeline, Project, now, timestamp};
use super::call::{Call, JobTokens, Refusal};
use super::{Answer, entities};

fn shown_basic(hub: &Hub, request: &MergeRequest, detailed: Option<&str>) -> Value {
    let (path, iid) = {
        let state = hub.state();
        (
            state
                .projects
                .get(&request.project)
                .map_or_else(String::new, |project| project.path.clone()),
            request.iid,
        )
    };
    let time = |at: Option<jiff::Timestamp>| at.map(timestamp).unwrap_or_default();
    let merged_by = request.merged_by.map(|user| entities::user(hub, user));
    let merge = match detailed {
        Some("conflict" | "broken_status") => "cannot_be_merged",
        Some("checking") => "checking",
        Some(_) => "can_be_merged",
        None => "unchecked",
    };
    json!({
        "id": request.id,
        "iid": iid,
        "project_id": request.project,
        "title": request.title,
        "description": request.description,
        "state": request.state,
        "created_at": timestamp(request.created_at),
        "updated_at": timestamp(request.updated_at),
        "merged_by": merged_by,
        "merge_user": merged_by,
        "merged_at": time(request.merged_at),
        "closed_at": time(request.closed_at),
        "target_branch": request.target_branch,
        "source_branch": request.source_branch,
        "author": entities::user(hub, request.author),
        "assignees": [],
        "labels": request.labels,
        "draft": request.title.to_lowercase().starts_with("draft:"),
        "source_project_id": request.project,
        "target_project_id": request.project,
        "merge_when_pipeline_succeeds": request.auto_merge_by.is_some(),
        "merge_status": merge,
        "detailed_merge_status": detailed.unwrap_or("unchecked"),
        "sha": request.sha,
        "merge_commit_sha": request.merge_commit_sha.as_ref().filter(|_| !request.squash),
        "squash_commit_sha": request.merge_commit_sha.as_ref().filter(|_| request.squash),
        "should_remove_source_branch": null,
        "force_remove_source_branch": request.remove_source_branch,
        "squash": request.squash,
        "has_conflicts": detailed == Some("conflict"),
        "references": { "short": format!("!{iid}"), "relative": format!("!{iid}"), "full": format!("{path}!{iid}") },
        "web_url": format!("{}/{path}/-/merge_requests/{iid}", hub.url),
    })
}

async fn shown(hub: &Hub, request: &MergeRequest) -> Value {
    let status = if merge_requests::was_checked(hub, request).await {
        merge_status(hub, request).await
    } else {
        "checking"
    };
    let mut shown = shown_basic(hub, request, Some(status));
    let pipeline = head_pipeline(hub, request).map(|pipeline| entities::pipeline(hub, &pipeline));
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("head_pipeline".into(), json!(pipeline));
        shown.insert("merge_error".into(), Value::Null);
        shown.insert("user".into(), json!({ "can_merge": true }));
    }
    shown
}

fn request_of(call: &Call, project: &Project, iid: &str) -> Result<MergeRequest, Refusal> {
    let iid: u64 = iid
        .parse()
        .map_err(|_| Refusal::parameter("merge_request_iid is invalid"))?;
    let state = call.hub.state();
    let mut all = state.merge_requests.values();
    let found = all.find(|request| request.project == project.id && request.iid == iid);
    found.cloned().ok_or_else(|| Refusal::not_found(""))
}

/// `GET /projects/:id/merge_requests`.
pub(super) async fn list(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Allowed)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let params = &call.params;
    let state_wanted = params.text("state").filter(|state| state != "all");
    let iids: Vec<u64> = params
        .list("iids")
        .iter()
        .filter_map(|iid| iid.parse().ok())
        .collect();
    let is = |key: &str, value: &str| params.text(key).is_none_or(|wanted| wanted == value);
    let mut found: Vec<MergeRequest> = {
        let state = call.hub.state();
        let all = state.merge_requests.values().rev().filter(|request| {
            request.project == project.id
                && state_wanted.as_ref().is_none_or(|wanted| wanted == request.state)
                && is("source_branch", &request.source_branch)
                && is("target_branch", &request.target_branch)
                && (iids.is_empty() || iids.contains(&request.iid))
                && params
                    .list("labels")
                    .iter()
                    .all(|label| request.labels.contains(label))
        });
        all.cloned().collect()
    };
    if params.text("sort").as_deref() == Some("asc") {
        found.reverse();
    }
    Ok(call.page(found, |hub, request| shown_basic(hub, request, None)))
}

/// `GET /projects/:id/merge_requests/:merge_request_iid`.
pub(super) async fn show(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Allowed)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let request = request_of(&call, &project, &iid)?;
    Ok(Json(shown(&call.hub, &request).await).into_response())
}

/// `GET /projects/:id/merge_requests/:merge_request_iid/pipelines`.
pub(super) async fn pipelines(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let request = request_of(&call, &project, &iid)?;
    let found: Vec<Pipeline> = {
        let state = call.hub.state();
        let all = state.pipelines.values().rev().filter(|pipeline| {
            pipeline.project == project.id && pipeline.ref_name == request.source_branch && !pipeline.tag
        });
        all.cloned().collect()
    };
    Ok(call.page(found, entities::pipeline_basic))
}

/// `POST /projects/:id/merge_requests`.
pub(super) async fn create(Path(id): Path<String>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let author = call.user(&caller)?;
    let (source_branch, target_branch) = (call.required("source_branch")?, call.required("target_branch")?);
    let title = call.required("title")?;
    if source_branch == target_branch {
        let message = json!(["You can't use same project/branch for source and target"]);
        return Err(Refusal::message(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let repository = call.hub.repository(&project);
    let sha = repository.branch(&source_branch).await;
    let missing = |field: &str, branch: &str| {
        Refusal::bad_request(json!({ field: [format!("\"{branch}\" does not exist")] }))
    };
    let sha = sha.ok_or_else(|| missing("source_branch", &source_branch))?;
    if repository.branch(&target_branch).await.is_none() {
        return Err(missing("target_branch", &target_branch));
    }
    let request = {
        let mut state = call.hub.state();
        let open = state.merge_requests.values().find(|request| {
            request.project == project.id
                && request.state == "opened"
                && request.source_branch == source_branch
                && request.target_branch == target_branch
        });
        if let Some(open) = open {
            let text = format!(
                "Another open merge request already exists for this source branch: !{}",
                open.iid
            );
            return Err(Refusal::message(StatusCode::CONFLICT, json!([text])));
        }
        let id = state.next_id("merge_request");
        let of = state
            .projects
            .get_mut(&project.id)
            .ok_or_else(|| Refusal::not_found("Project"))?;
        of.last_merge_request_iid += 1;
        let request = MergeRequest {
            id,
            iid: of.last_merge_request_iid,
            project: project.id,
            title,
            description: call.params.text("description"),
            source_branch,
            target_branch,
            author,
            labels: call.params.list("labels"),
            remove_source_branch: call.params.flag("remove_source_branch").unwrap_or(false),
            squash: call.params.flag("squash").unwrap_or(false),
            state: "opened",
            sha,
            auto_merge_by: None,
            checked: None,
            notes: Vec::new(),
            merge_commit_sha: None,
            merged_by: None,
            merged_at: None,
            closed_at: None,
            created_at: now(),
            updated_at: now(),
        };
        state.merge_requests.insert(id, request.clone());
        request
    };
    call.hub.changed();
    // A new request is looked at in the background; until then GitLab says so.
    Ok((
        StatusCode::CREATED,
        Json(shown_basic(&call.hub, &request, Some("checking"))),
    )
        .into_response())
}

/// `PUT /projects/:id/merge_requests/:merge_request_iid`: title, description, target, labels, `state_event`.
pub(super) async fn update(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let request = request_of(&call, &project, &iid)?;
    let request = {
        let mut state = call.hub.state();
        let found = state
            .merge_requests
            .get_mut(&request.id)
            .ok_or_else(|| Refusal::not_found(""))?;
        match call.params.text("state_event").as_deref() {
            Some("close") if found.state == "opened" => {
                found.state = "closed";
                found.closed_at = Some(now());
                found.auto_merge_by = None;
            }
            Some("reopen") if found.state == "closed" => {
                found.state = "opened";
                found.closed_at = None;
            }
            Some("close" | "reopen") | None => {}
            Some(_) => return Err(Refusal::parameter("state_event does not have a valid value")),
        }
        if let Some(title) = call.params.text("title") {
            found.title = title;
        }
        if let Some(description) = call.params.text("description") {
            found.description = Some(description);
        }
        if let Some(target) = call.params.text("target_branch") {
            found.target_branch = target;
        }
        if call.params.get("labels").is_some() {
            found.labels = call.params.list("labels");
        }
        found.updated_at = now();
        found.clone()
    };
    call.hub.changed();
    Ok(Json(shown(&call.hub, &request).await).into_response())
}

/// `PUT /projects/:id/merge_requests/:merge_request_iid/merge`, now or when the head pipeline succeeds.
pub(super) async fn merge(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let user = call.user(&caller)?;
    let request = request_of(&call, &project, &iid)?;
    if !call
        .hub
        .state()
        .may_change_ref(user, &project, &request.target_branch, false)
    {
        return Err(Refusal::unauthorized());
    }
    if let Some(sha) = call.params.text("sha")
        && sha != request.sha
    {
        let text = format!("SHA does not match HEAD of source branch: {}", request.sha);
        return Err(Refusal::message(StatusCode::CONFLICT, text));
    }
    let not_allowed = || Refusal::message(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed");
    if !merge_requests::was_checked(&call.hub, &request).await {
        return Err(not_allowed());
    }
    match merge_status(&call.hub, &request).await {
        "mergeable" => {}
        "conflict" | "broken_status" | "commits_status" => {
            return Err(Refusal::message(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Branch cannot be merged",
            ));
        }
        _ => return Err(not_allowed()),
    }
    {
        let mut state = call.hub.state();
        let found = state
            .merge_requests
            .get_mut(&request.id)
            .ok_or_else(|| Refusal::not_found(""))?;
        if let Some(squash) = call.params.flag("squash") {
            found.squash = squash;
        }
        if let Some(remove) = call.params.flag("should_remove_source_branch") {
            found.remove_source_branch = remove;
        }
    }
    let automatic = call
        .params
        .flag("auto_merge")
        .or_else(|| call.params.flag("merge_when_pipeline_succeeds"));
    let waits = head_pipeline(&call.hub, &request).is_some_and(|pipeline| !pipeline.status.is_finished());
    if automatic == Some(true) && waits {
        if let Some(found) = call.hub.state().merge_requests.get_mut(&request.id) {
            found.auto_merge_by = Some(user);
            found.updated_at = now();
        }
        call.hub.changed();
    } else {
        let message = call.params.text("merge_commit_message");
        let merged = merge_requests::merge(&call.hub, request.id, user, message.as_deref()).await;
        merged.map_err(|_| Refusal::message(StatusCode::UNPROCESSABLE_ENTITY, "Branch cannot be merged"))?;
    }
    let request = request_of(&call, &project, &iid)?;
    Ok(Json(shown(&call.hub, &request).await).into_response())
}

/// `GET /projects/:id/merge_requests/:merge_request_iid/notes`, newest first.
pub(super) async fn notes(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let mut notes = request_of(&call, &project, &iid)?.notes;
    notes.reverse();
    Ok(call.page(notes, |hub, (author, body)| {
        json!({ "body": body, "author": entities::user(hub, *author), "system": false })
    }))
}

/// `POST /projects/:id/merge_requests/:merge_request_iid/notes`.
pub(super) async fn add_note(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Reporter)?;
    let user = call.user(&caller)?;
    let body = call.required("body")?;
    let request = request_of(&call, &project, &iid)?;
    if let Some(found) = call.hub.state().merge_requests.get_mut(&request.id) {
        found.notes.push((user, body.clone()));
    }
    let shown = json!({ "body": body, "author": entities::user(&call.hub, user), "system": false });
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// `POST /projects/:id/merge_requests/:merge_request_iid/cancel_merge_when_pipeline_succeeds`.
pub(super) async fn cancel_auto_merge(Path((id, iid)): Path<(String, String)>, call: Call) -> Answer {
    let caller = call.caller(JobTokens::Ignored)?;
    let project = call.project(&id, &caller, Role::Developer)?;
    let request = request_of(&call, &project, &iid)?;
    if request.auto_merge_by.is_none() {
        return Err(Refusal::message(StatusCode::NOT_ACCEPTABLE, "406 Not Acceptable"));
    }
    if let Some(found) = call.hub.state().merge_requests.get_mut(&request.id) {
        found.auto_merge_by = None;
        found.updated_at = now();
    }
    call.hub.changed();
    Ok((StatusCode::CREATED, Json(json!({ "status": "success" }))).into_response())
}
