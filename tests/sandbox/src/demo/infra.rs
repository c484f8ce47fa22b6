//! The infrastructure repository: a person reads the plan and approves it, and a scheduled pipeline finds what changed by
//! another hand.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::timeline::Timeline;
use crate::gitlab::{JobSnapshot, PipelineSnapshot, Status};
use crate::servers::http_client;
use crate::world::{INFRA, World};

/// As long as a scheduled pipeline may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
/// What the scheduled job ends with when it finds drift.
const DRIFT: i32 = 6;

/// Whether this job waits for the person who approves plans.
pub(super) fn waits_for_approval(pipeline: &PipelineSnapshot, job: &JobSnapshot) -> bool {
    pipeline.project == INFRA && job.name == "infra-apply" && job.status == Status::Manual
}

/// Reads the JSON of the plan, which has to be about the image that was deployed, and presses the button.
pub(super) async fn approve(
    world: &World,
    timeline: &mut Timeline,
    pipeline: &PipelineSnapshot,
    apply: &JobSnapshot,
) -> Result<()> {
    let started = std::time::Instant::now();
    let plan = pipeline
        .job("infra-plan")
        .context("the infra pipeline has no job infra-plan")?;
    let path = format!("jobs/{}/artifacts/infra.tfplan.json", plan.id);
    let plan: Value = ask(world, reqwest::Method::GET, &path, None).await?;
    let digest = plan["variables"]["image_digest"]["value"]
        .as_str()
        .context("the plan's JSON names no image_digest")?;
    let change = &plan["resource_changes"][0]["change"];
    let after = change["after"]["input"]["image"].as_str().unwrap_or_default();
    ensure!(
        after.ends_with(digest)
            && plan["resource_changes"]
                .as_array()
                .is_some_and(|all| all.len() == 1),
        "the plan should change one resource to {digest}: {}",
        plan["resource_changes"]
    );
    let action = change["actions"][0].as_str().unwrap_or_default();
    press(world, apply.id).await?;
    let name = format!("plan read ({action}), approved by Ada");
    timeline.step(&name, INFRA, started.elapsed(), Some(digest));
    Ok(())
}

/// A schedule looks for drift: first there is none; then somebody takes the resource out of the state by hand.
pub(super) async fn drift(world: &World, timeline: &mut Timeline) -> Result<()> {
    timeline.begin("scheduled run finds no drift", INFRA);
    let job = scheduled(world).await?;
    ensure!(
        job.status == Status::Success && job.trace.contains("no drift"),
        "there should be no drift yet:\n{}",
        job.trace
    );
    timeline.done(None);

    timeline.begin("resource taken out of the state by hand", INFRA);
    let path = "terraform/state/production";
    let mut state: Value = ask(world, reqwest::Method::GET, path, None).await?;
    state["resources"] = json!([]);
    state["serial"] = json!(state["serial"].as_u64().context("the state has no serial")? + 1);
    ask(world, reqwest::Method::POST, path, Some(state)).await?;
    timeline.done(None);

    timeline.begin("scheduled run finds the drift", INFRA);
    let job = scheduled(world).await?;
    ensure!(
        job.status == Status::Failed && job.exit_code == Some(DRIFT) && job.trace.contains("drift: "),
        "the drift should have been found:\n{}",
        job.trace
    );
    timeline.done(None);
    Ok(())
}

/// The drift job of a scheduled pipeline, once it has ended.
async fn scheduled(world: &World) -> Result<JobSnapshot> {
    let project = world
        .gitlab
        .project_id(INFRA)
        .context("there is no infra project")?;
    let owner = world.person.id();
    let id = world.gitlab.run_schedule(project, owner, "main").await?;
    let pipeline = world.gitlab.wait_until_finished(id, LIMIT).await?;
    ensure!(
        pipeline.jobs.len() == 1,
        "a scheduled pipeline has the drift job alone: {:?}",
        pipeline.jobs
    );
    pipeline.job("infra-drift").cloned().context("no job infra-drift")
}

/// Presses a manual job as the person would.
async fn press(world: &World, job: u64) -> Result<()> {
    ask(
        world,
        reqwest::Method::POST,
        &format!("jobs/{job}/play"),
        Some(json!({})),
    )
    .await
    .map(drop)
}

/// One request of the person's to GitLab about the infra project; null for an answer without a text.
async fn ask(world: &World, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<Value> {
    let project = world
        .gitlab
        .project_id(INFRA)
        .context("there is no infra project")?;
    let url = format!("{}/projects/{project}/{path}", world.gitlab.api_url());
    let mut request = http_client()?.request(method, url);
    // What keeps state is asked as the http backend of OpenTofu asks it.
    request = if path.starts_with("terraform/") {
        request.basic_auth("ada", Some(world.person.token()))
    } else {
        request.header("private-token", world.person.token())
    };
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await?.error_for_status()?;
    let text = answer.text().await?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("GitLab's answer to {path}"))
}
