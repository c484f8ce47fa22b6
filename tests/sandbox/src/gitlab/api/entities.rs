//! The shapes of what the API shows.

use serde_json::{Value, json};

use super::super::hub::Hub;
use super::super::repository::Commit;
use super::super::state::{
    Deployment, Environment, Job, Pipeline, Project, Status, seconds_between, timestamp,
};

fn time(at: Option<jiff::Timestamp>) -> Value {
    at.map(timestamp).unwrap_or_default()
}

pub(super) fn project(hub: &Hub, project: &Project) -> Value {
    let url = format!("{}/{}", hub.url, project.path);
    let settings = &project.settings;
    json!({
        "id": project.id,
        "description": null,
        "name": project.name(),
        "name_with_namespace": project.path.replace('/', " / "),
        "path": project.name(),
        "path_with_namespace": project.path,
        "created_at": timestamp(project.created_at),
        "default_branch": settings.default_branch,
        "http_url_to_repo": format!("{url}.git"),
        "web_url": url,
        "visibility": settings.visibility.name(),
        "namespace": { "full_path": project.namespace(), "kind": "group" },
        "archived": false,
        "merge_method": "merge",
        "ci_config_path": settings.ci_config_path,
        "ci_job_token_scope_enabled": true,
        "ci_push_repository_for_job_token_allowed": settings.job_token_may_push,
        "ci_pipeline_variables_minimum_override_role":
            settings.pipeline_variables_role.map_or("no_one_allowed", |role| role.name()),
    })
}

pub(super) fn user(hub: &Hub, id: u64) -> Value {
    let state = hub.state();
    state.users.get(&id).map_or(Value::Null, |user| {
        json!({
            "id": user.id,
            "username": user.username,
            "name": user.name,
            "state": "active",
            "locked": false,
            "avatar_url": null,
            "web_url": format!("{}/{}", hub.url, user.username),
        })
    })
}

fn project_path(hub: &Hub, id: u64) -> String {
    hub.state()
        .projects
        .get(&id)
        .map_or_else(String::new, |project| project.path.clone())
}

/// A pipeline as in lists.
pub(super) fn pipeline_basic(hub: &Hub, pipeline: &Pipeline) -> Value {
    let path = project_path(hub, pipeline.project);
    json!({
        "id": pipeline.id,
        "iid": pipeline.iid,
        "project_id": pipeline.project,
        "sha": pipeline.sha,
        "ref": pipeline.ref_name,
        "status": pipeline.status.as_str(),
        "source": pipeline.source.as_str(),
        "created_at": timestamp(pipeline.created_at),
        "updated_at": timestamp(pipeline.updated_at),
        "web_url": format!("{}/{path}/-/pipelines/{}", hub.url, pipeline.id),
        "name": pipeline.name,
    })
}

/// A pipeline by itself.
pub(super) fn pipeline(hub: &Hub, pipeline: &Pipeline) -> Value {
    let mut shown = pipeline_basic(hub, pipeline);
    let duration = pipeline.started_at.zip(pipeline.finished_at);
    let queued = pipeline
        .started_at
        .map(|started| seconds_between(pipeline.created_at, started));
    let status = pipeline.status.as_str();
    let more = json!({
        "before_sha": pipeline.before_sha.clone().unwrap_or_else(|| "0".repeat(40)),
        "tag": pipeline.tag,
        "yaml_errors": pipeline.yaml_errors,
        "user": user(hub, pipeline.user),
        "started_at": time(pipeline.started_at),
        "finished_at": time(pipeline.finished_at),
        "committed_at": null,
        "duration": duration.map(|(from, to)| seconds_between(from, to) as u64),
        "queued_duration": queued.map(|queued| queued as u64),
        "coverage": null,
        "detailed_status": {
            "icon": format!("status_{status}"),
            "text": status,
            "label": status,
            "group": status,
            "tooltip": status,
            "has_details": true,
            "details_path": shown["web_url"].as_str().and_then(|url| url.strip_prefix(&hub.url)),
            "illustration": null,
            "favicon": null,
        },
        "archived": false,
    });
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

/// A job, or a bridge with its downstream pipeline.
pub(super) fn job(hub: &Hub, job: &Job) -> Value {
    let (path, pipeline, downstream) = {
        let state = hub.state();
        let path = state
            .projects
            .get(&job.project)
            .map_or_else(String::new, |project| project.path.clone());
        let pipeline = state.pipelines.get(&job.pipeline).cloned();
        let downstream = job.downstream.and_then(|id| state.pipelines.get(&id)).cloned();
        (path, pipeline, downstream)
    };
    let pipeline = pipeline.as_ref();
    let duration = job
        .started_at
        .map(|from| seconds_between(from, job.finished_at.unwrap_or_else(jiff::Timestamp::now)));
    let queued = job
        .queued_at
        .map(|from| seconds_between(from, job.started_at.unwrap_or_else(jiff::Timestamp::now)));
    let mut artifacts = Vec::new();
    if job.artifacts.is_some() {
        artifacts.push(
            json!({ "file_type": "archive", "size": 0, "filename": "artifacts.zip", "file_format": "zip" }),
        );
    }
    if !job.dotenv.is_empty() {
        artifacts
            .push(json!({ "file_type": "dotenv", "size": 0, "filename": ".env.gz", "file_format": "gzip" }));
    }
    if !job.trace.is_empty() {
        artifacts.push(json!({ "file_type": "trace", "size": job.trace.len(), "filename": "job.log", "file_format": null }));
    }
    let mut shown = json!({
        "id": job.id,
        "status": job.status.as_str(),
        "stage": job.spec.stage,
        "name": job.spec.name,
        "ref": pipeline.map(|pipeline| pipeline.ref_name.as_str()),
        "tag": pipeline.is_some_and(|pipeline| pipeline.tag),
        "coverage": null,
        "allow_failure": job.failure_is_allowed() || job.spec.allow_failure.covers(None),
        "created_at": timestamp(job.created_at),
        "started_at": time(job.started_at),
        "finished_at": time(job.finished_at),
        "erased_at": null,
        "duration": duration,
        "queued_duration": queued,
        "user": user(hub, job.user),
        "commit": null,
        "pipeline": pipeline.map(|pipeline| pipeline_basic(hub, pipeline)),
        "web_url": format!("{}/{path}/-/jobs/{}", hub.url, job.id),
        "project": { "ci_job_token_scope_enabled": true },
    });
    if job.status == Status::Failed
        && let Some(shown) = shown.as_object_mut()
    {
        shown.insert("failure_reason".into(), json!(job.failure_reason));
    }
    let more = if job.is_bridge() {
        json!({ "downstream_pipeline": downstream.map(|pipeline| pipeline_basic(hub, &pipeline)) })
    } else {
        json!({
            "artifacts": artifacts,
            "artifacts_expire_at": null,
            "archived": false,
            "source": pipeline.map(|pipeline| pipeline.source.as_str()),
            "runner": job.started_at.map(|_| json!({ "id": 1, "description": "sandbox", "active": true })),
            "runner_manager": null,
            "tag_list": job.spec.tags,
        })
    };
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

pub(super) fn commit(hub: &Hub, project: &Project, commit: &Commit) -> Value {
    json!({
        "id": commit.id,
        "short_id": commit.short_id(),
        "created_at": commit.committed_date,
        "parent_ids": commit.parents,
        "title": commit.title(),
        "message": commit.message,
        "author_name": commit.author_name,
        "author_email": commit.author_email,
        "authored_date": commit.authored_date,
        "committer_name": commit.committer_name,
        "committer_email": commit.committer_email,
        "committed_date": commit.committed_date,
        "trailers": {},
        "extended_trailers": {},
        "web_url": format!("{}/{}/-/commit/{}", hub.url, project.path, commit.id),
    })
}

pub(super) fn environment(hub: &Hub, environment: &Environment) -> Value {
    let latest = {
        let state = hub.state();
        let of = state.deployments.values().rev();
        let mut of = of.filter(|deployment| deployment.environment == environment.id);
        of.find(|deployment| deployment.status == "success").cloned()
    };
    json!({
        "id": environment.id,
        "name": environment.name,
        "slug": super::super::variables::slug(&environment.name),
        "external_url": environment.external_url,
        "state": if environment.available { "available" } else { "stopped" },
        "tier": environment.tier,
        "created_at": timestamp(environment.created_at),
        "updated_at": timestamp(environment.updated_at),
        "last_deployment": latest.map(|latest| deployment_basic(hub, &latest)),
    })
}

fn deployment_basic(hub: &Hub, deployment: &Deployment) -> Value {
    let job = deployment.job.and_then(|id| hub.state().jobs.get(&id).cloned());
    json!({
        "id": deployment.id,
        "iid": deployment.iid,
        "ref": deployment.ref_name,
        "sha": deployment.sha,
        "tag": deployment.tag,
        "status": deployment.status,
        "created_at": timestamp(deployment.created_at),
        "updated_at": timestamp(deployment.updated_at),
        "finished_at": time(deployment.finished_at),
        "user": user(hub, deployment.user),
        "deployable": job.map(|found| self::job(hub, &found)),
    })
}

pub(super) fn deployment(hub: &Hub, deployment: &Deployment) -> Value {
    let mut shown = deployment_basic(hub, deployment);
    let environment = hub.state().environments.get(&deployment.environment).cloned();
    let environment = environment.map(|environment| {
        json!({
            "id": environment.id,
            "name": environment.name,
            "slug": super::super::variables::slug(&environment.name),
            "external_url": environment.external_url,
        })
    });
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("environment".into(), json!(environment));
    }
    shown
}
