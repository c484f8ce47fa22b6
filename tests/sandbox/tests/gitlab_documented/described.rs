//! The fields of pipelines, jobs and trigger jobs, with their types, as GitLab's published OpenAPI document describes them
//! (doc/api/openapi/openapi_v3.yaml of GitLab 19.2; where a field is missing there, the documentation of the API). The
//! document says nothing of nulls; those are from the examples in the documentation, and from what a field means before
//! something has happened.
//!
//! Answers hold every field that is described, and none that is not.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use towpath_sandbox::gitlab::{PlannedJob, Status};

use crate::{directed, start};

/// APIEntitiesCiPipelineBasic, and what lists add to it.
const PIPELINE_IN_LIST: &str = "
    id integer; iid integer; project_id integer; sha string; ref string; status status; source source;
    created_at time; updated_at time; web_url url; name string?";

/// APIEntitiesCiPipelineWithMetadata, less what it has in common with the above.
const PIPELINE: &str = "
    before_sha string?; tag boolean; yaml_errors string?; user user?; started_at time?; finished_at time?;
    committed_at time?; duration integer?; queued_duration integer?; coverage number?; detailed_status object;
    archived boolean";

/// APIEntitiesCiBridge, less its downstream pipeline: what it has in common with APIEntitiesCiJob.
const JOB_BASIC: &str = "
    id integer; status status; stage string; name string; ref string; tag boolean; coverage number?;
    allow_failure boolean; created_at time; started_at time?; finished_at time?; erased_at time?; duration number?;
    queued_duration number?; user user?; commit object?; pipeline pipeline; failure_reason string~; web_url url;
    project object";

/// What APIEntitiesCiJob adds; `source` and `archived` are in the documentation of the jobs API.
const JOB: &str = "
    artifacts array; artifacts_expire_at time?; runner object?; runner_manager object?; tag_list array;
    archived boolean; source source";

const SOURCES: [&str; 5] = ["push", "api", "trigger", "pipeline", "parent_pipeline"];

/// Says what is wrong with an answer, if anything is.
fn problems(answer: &Value, described: &[&str]) -> Vec<String> {
    let Some(fields) = answer.as_object() else {
        return vec![format!("no object: {answer}")];
    };
    let described: Vec<(&str, &str)> = described
        .iter()
        .flat_map(|text| text.split(';'))
        .map(|line| line.trim().split_once(' ').unwrap())
        .collect();
    let mut problems = Vec::new();
    for (name, kind) in &described {
        match fields.get(*name) {
            None if kind.ends_with('~') => {}
            None => problems.push(format!("{name} is missing")),
            Some(value) if fits(value, kind) => {}
            Some(value) => problems.push(format!("{name} is no {kind}: {value}")),
        }
    }
    let undescribed = fields
        .keys()
        .filter(|name| !described.iter().any(|(described, _)| described == name));
    problems.extend(undescribed.map(|name| format!("{name} is not described")));
    problems
}

fn fits(value: &Value, kind: &str) -> bool {
    let nullable = kind.ends_with(['?', '~']);
    if value.is_null() {
        return nullable;
    }
    let text = value.as_str();
    match kind.trim_end_matches(['?', '~']) {
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "string" => text.is_some(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "time" => text.is_some_and(|text| text.ends_with('Z') && text.parse::<Timestamp>().is_ok()),
        "url" => text.is_some_and(|text| text.starts_with("http://127.0.0.1:") && text.contains("/-/")),
        "status" => Status::ALL.iter().any(|status| text == Some(status.as_str())),
        "source" => text.is_some_and(|text| SOURCES.contains(&text)),
        "user" => value["id"].is_u64() && value["username"].is_string(),
        "pipeline" => problems(value, &[PIPELINE_IN_LIST]).is_empty(),
        _ => false,
    }
}

#[tokio::test]
async fn answers_hold_the_fields_that_are_described_and_no_others() {
    let jobs = vec![
        PlannedJob::new("plan", "plan"),
        PlannedJob::new("lint", "plan").allowed_to_fail(),
        PlannedJob::new("infra", "apply").triggering("group/env"),
    ];
    let (world, project) = directed(jobs, |_| {}).await;
    let id = start(&world, project).await;
    let job = |name: &str| world.gitlab.pipeline(id).unwrap().job(name).unwrap().id;
    let check = async |state: &str| {
        let base = format!("/projects/{project}/pipelines/{id}");
        let read = async |path: &str| world.get(&format!("{base}{path}")).await.1;
        let mut found = problems(&read("").await, &[PIPELINE_IN_LIST, PIPELINE]);
        let (_, list) = world.get(&format!("/projects/{project}/pipelines")).await;
        for pipeline in list.as_array().unwrap() {
            found.extend(problems(pipeline, &[PIPELINE_IN_LIST]));
        }
        for listed in read("/jobs").await.as_array().unwrap() {
            found.extend(problems(listed, &[JOB_BASIC, JOB]));
        }
        for path in ["/bridges", "/trigger_jobs"] {
            for listed in read(path).await.as_array().unwrap() {
                found.extend(problems(listed, &[JOB_BASIC, "downstream_pipeline object?"]));
                let downstream = &listed["downstream_pipeline"];
                if !downstream.is_null() {
                    found.extend(problems(downstream, &[PIPELINE_IN_LIST]));
                }
            }
        }
        let (_, single) = world
            .get(&format!("/projects/{project}/jobs/{}", job("plan")))
            .await;
        found.extend(problems(&single, &[JOB_BASIC, JOB]));
        assert!(found.is_empty(), "{state}: {found:#?}");
    };
    check("nothing has happened").await;
    world.gitlab.move_job(job("plan"), Status::Running).unwrap();
    world.gitlab.write_log(job("plan"), "planning\n");
    world.gitlab.start_downstream(job("infra")).await.unwrap();
    check("it runs").await;
    world.gitlab.move_job(job("plan"), Status::Failed).unwrap();
    world.gitlab.move_job(job("infra"), Status::Canceled).unwrap();
    check("it has ended").await;
    for status in Status::ALL {
        world.gitlab.move_job(job("lint"), status).unwrap();
        check(status.as_str()).await;
    }
}

#[tokio::test]
async fn a_started_pipeline_is_answered_whole_and_its_variables_are_listed() {
    let (world, project) = directed(vec![PlannedJob::new("plan", "plan")], |_| {}).await;
    let body = json!({ "ref": "main", "variables": [{ "key": "WORD", "value": "yes" }] });
    let (status, started) = world.post(&format!("/projects/{project}/pipeline"), body).await;
    assert_eq!(status, 201, "{started}");
    assert_eq!(
        problems(&started, &[PIPELINE_IN_LIST, PIPELINE]),
        Vec::<String>::new()
    );
    let (_, variables) = world
        .get(&format!(
            "/projects/{project}/pipelines/{}/variables",
            started["id"]
        ))
        .await;
    let described = "key string; value string; variable_type string; raw boolean";
    assert_eq!(problems(&variables[0], &[described]), Vec::<String>::new());
    let token = world.gitlab.trigger_token(project, world.maintainer).unwrap();
    let body = json!({ "ref": "main", "token": token });
    let path = format!("/projects/{project}/trigger/pipeline");
    let (status, started) =
        crate::gitlab_world::answer(world.call(Method::POST, &path, "", body).await).await;
    assert_eq!(status, 201, "{started}");
    assert_eq!(
        problems(&started, &[PIPELINE_IN_LIST, PIPELINE]),
        Vec::<String>::new()
    );
}

#[test]
fn the_check_sees_what_is_wrong() {
    let good = json!({ "id": 1, "at": "2026-01-01T00:00:00.000Z", "gone": null });
    let described = ["id integer; at time", "gone string?; absent string~"];
    assert_eq!(problems(&good, &described), Vec::<String>::new());
    for bad in [
        json!({ "id": "1", "at": "2026-01-01T00:00:00.000Z", "gone": null }),
        json!({ "id": 1, "at": "yesterday", "gone": null }),
        json!({ "id": 1, "at": null, "gone": null }),
        json!({ "id": 1, "at": "2026-01-01T00:00:00.000Z" }),
        json!({ "id": 1, "at": "2026-01-01T00:00:00.000Z", "gone": null, "invented": 1 }),
    ] {
        assert_eq!(problems(&bad, &described).len(), 1, "{bad}");
    }
}
