//! `infra.yml` with OpenTofu or Terraform on the example's configuration: checks, plan, approval, apply, smoke test, drift.

use std::path::Path;

use serde_json::{Value, json};
use towpath_sandbox::gitlab::{
    JobSnapshot, PipelineRequest, PipelineSnapshot, ProjectSettings, Role, Scope, Status,
};

use towpath_sandbox::tools::Tools;

use crate::gitlab_world::{LIMIT, World, logs};
use crate::platform::{TAG, TEMPLATES, checkout, ended, platform, press, program, tofu};

const PROJECT: &str = "shop/infra";
const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const OTHER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

struct Infra {
    world: World,
    project: u64,
    configuration: String,
}

impl Infra {
    /// The example with further inputs, in a project whose environment is protected.
    async fn start(inputs: &str) -> Infra {
        Infra::start_with(inputs, &tofu().await, &[]).await
    }

    async fn start_with(inputs: &str, tofu: &Path, programs: &[&Path]) -> Infra {
        let world = platform(&[programs, &[tofu]].concat(), |_| {}).await;
        let folder = checkout().join("ci-templates/examples/infra");
        let command = tofu.file_name().unwrap().to_str().unwrap();
        let pipeline = std::fs::read_to_string(folder.join(".gitlab-ci.yml")).unwrap();
        let pipeline = pipeline.replace(
            "      command: tofu\n",
            &format!("      command: {command}\n{inputs}"),
        );
        assert!(
            pipeline.contains(TEMPLATES) && pipeline.contains(TAG),
            "{pipeline}"
        );
        let configuration = std::fs::read_to_string(folder.join("main.tf")).unwrap();
        let settings = ProjectSettings {
            protected_environments: vec![("production".to_owned(), Role::Maintainer)],
            ..ProjectSettings::default()
        };
        let files = [
            (".gitlab-ci.yml", pipeline.as_str()),
            ("main.tf", configuration.as_str()),
            (
                "smoke.sh",
                "test -n \"$TF_VAR_image_digest\" && echo \"smoke: $TF_VAR_image_tag answers\"\n",
            ),
        ];
        let project = world.project_with(PROJECT, settings, &files).await;
        Infra {
            world,
            project,
            configuration,
        }
    }

    /// Starts a pipeline for an image, and waits until it waits for approval or has ended.
    async fn deliver(&self, digest: &str) -> PipelineSnapshot {
        let inputs = json!({
            "image_repository": "registry.example.com/shop/web", "image_tag": "1.10", "image_digest": digest,
            "source_project": "shop/web", "source_commit": "c".repeat(40),
        });
        let inputs = inputs.as_object().unwrap().clone().into_iter().collect();
        let request = PipelineRequest {
            inputs,
            ..PipelineRequest::default()
        };
        let user = self.world.maintainer;
        let id = self
            .world
            .gitlab
            .run_pipeline(self.project, user, "main", request)
            .await
            .unwrap();
        self.world.gitlab.wait_until_finished(id, LIMIT).await.unwrap()
    }

    async fn approved(&self, pipeline: &PipelineSnapshot) -> PipelineSnapshot {
        let apply = pipeline.job("infra-apply").unwrap();
        assert_eq!(apply.status, Status::Manual, "{}", logs(pipeline));
        assert_eq!(press(&self.world, self.project, apply, &[]).await, 200);
        ended(&self.world, pipeline.id).await
    }

    async fn drift(&self) -> JobSnapshot {
        let owner = self.world.maintainer;
        let id = self
            .world
            .gitlab
            .run_schedule(self.project, owner, "main")
            .await
            .unwrap();
        let pipeline = self.world.gitlab.wait_until_finished(id, LIMIT).await.unwrap();
        assert_eq!(pipeline.jobs.len(), 1, "{}", logs(&pipeline));
        pipeline.job("infra-drift").unwrap().clone()
    }

    fn state(&self) -> Value {
        let state = self
            .world
            .gitlab
            .terraform_state(self.project, "production")
            .unwrap();
        serde_json::from_slice(&state).unwrap()
    }

    async fn artifact(&self, job: &JobSnapshot, path: &str) -> Vec<u8> {
        let path = format!("/projects/{}/jobs/{}/artifacts/{path}", self.project, job.id);
        let answer = self
            .world
            .call(reqwest::Method::GET, &path, &self.world.token, Value::Null)
            .await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.bytes().await.unwrap().to_vec()
    }

    async fn change(&self, from: &str, to: &str) {
        let changed = self.configuration.replace(from, to);
        assert_ne!(changed, self.configuration);
        self.world
            .push(PROJECT, "main", &[("main.tf", &changed)], &["-o", "ci.skip"])
            .await;
    }
}

#[tokio::test]
async fn a_plan_is_shown_approved_applied_tried_and_watched() {
    watched(&tofu().await).await;
}

/// OpenTofu comes first where both are there, and Terraform is an option of the template.
#[tokio::test]
#[allow(
    clippy::print_stdout,
    reason = "whoever runs the tests is told what was not looked at"
)]
async fn terraform_does_the_same() {
    match Tools::terraform().await.unwrap() {
        Some(terraform) if terraform != tofu().await => watched(&terraform).await,
        _ => println!("skipped: no Terraform is there besides what the other tests run"),
    }
}

async fn watched(program: &Path) {
    let infra = Infra::start_with("      smoke_script: smoke.sh\n", program, &[]).await;
    let waiting = infra.deliver(DIGEST).await;
    let name = if program.ends_with("tofu") {
        "OpenTofu"
    } else {
        "Terraform"
    };
    let initialized = format!("{name} has been successfully initialized!");
    for job in ["infra-check", "infra-plan"] {
        let trace = &waiting.job(job).unwrap().trace;
        assert!(trace.contains(&initialized), "{trace}");
    }
    assert_eq!(waiting.status, Status::Manual, "{}", logs(&waiting));
    let plan = waiting.job("infra-plan").unwrap();
    assert!(
        plan.trace.contains(DIGEST),
        "the plan is there to read: {}",
        plan.trace
    );
    assert!(
        plan.trace.contains(r#"{"create":1,"update":0,"delete":0}"#),
        "{}",
        plan.trace
    );
    let json: Value = serde_json::from_slice(&infra.artifact(plan, "infra.tfplan.json").await).unwrap();
    assert_eq!(
        json["variables"]["image_tag"]["value"], "1.10",
        "a version stays text"
    );
    assert_eq!(
        json["resource_changes"][0]["change"]["actions"],
        json!(["create"])
    );
    for file in ["infra.tfplan", "infra.tfplan.json"] {
        no_token_in(&infra, &infra.artifact(plan, file).await, file);
    }

    // Who may not deploy to the environment cannot press the button.
    let developer = infra.world.gitlab.add_user("developer");
    infra
        .world
        .gitlab
        .add_member(infra.project, developer, Role::Developer)
        .unwrap();
    let token = infra
        .world
        .gitlab
        .personal_access_token(developer, &[Scope::Api])
        .unwrap();
    let apply = waiting.job("infra-apply").unwrap();
    let path = format!("/projects/{}/jobs/{}/play", infra.project, apply.id);
    let refused = infra
        .world
        .call(reqwest::Method::POST, &path, &token, json!({}))
        .await;
    assert_eq!(refused.status(), 403);

    let done = infra.approved(&waiting).await;
    assert_eq!(done.status, Status::Success, "{}", logs(&done));
    let image = format!("registry.example.com/shop/web:1.10@{DIGEST}");
    assert_eq!(
        infra.state()["resources"][0]["instances"][0]["attributes"]["output"]["value"]["image"],
        image
    );
    let smoke = done.job("infra-smoke").unwrap();
    assert!(smoke.trace.contains("smoke: 1.10 answers"), "{}", smoke.trace);

    // A schedule has no image: it knows the last one from the state.
    let watch = infra.drift().await;
    assert_eq!(watch.status, Status::Success, "{}", watch.trace);
    assert!(watch.trace.contains("no drift"), "{}", watch.trace);
    let before = infra.state();
    infra.change("output \"image_tag\"", "output \"tag\"").await;
    infra
        .change("input = {", "input = {\n    kind   = \"changed\"")
        .await;
    let watch = infra.drift().await;
    assert_eq!(watch.exit_code, Some(6), "{}", watch.trace);
    assert!(
        watch.trace.contains("drift: what is there differs"),
        "{}",
        watch.trace
    );
    assert_eq!(infra.state(), before, "a look changes nothing");
}

/// Whatever tokens there were: none is in a file that later jobs and people get.
fn no_token_in(infra: &Infra, bytes: &[u8], file: &str) {
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    for (what, token) in infra.world.gitlab.issued_tokens() {
        assert!(!holds(token.as_bytes()), "{what} is in {file}");
    }
}

#[tokio::test]
async fn a_plan_that_the_state_has_outrun_is_refused() {
    let infra = Infra::start("").await;
    let first = infra.deliver(DIGEST).await;
    let second = infra.deliver(OTHER).await;
    let done = infra.approved(&second).await;
    assert_eq!(done.status, Status::Success, "{}", logs(&done));
    let refused = infra.approved(&first).await;
    assert_eq!(refused.status, Status::Failed, "{}", logs(&refused));
    let apply = refused.job("infra-apply").unwrap();
    assert!(apply.trace.contains("Saved plan is stale"), "{}", apply.trace);
    let state = infra.state().to_string();
    assert!(state.contains(OTHER) && !state.contains(DIGEST), "{state}");
}

#[tokio::test]
async fn what_is_not_formatted_or_not_valid_is_not_planned() {
    let infra = Infra::start("").await;
    infra.change("  input = {", "      input = {").await;
    let failed = infra.deliver(DIGEST).await;
    let check = failed.job("infra-check").unwrap();
    assert_eq!(
        (check.status, check.exit_code),
        (Status::Failed, Some(3)),
        "{}",
        check.trace
    );
    assert!(
        check.trace.contains("the configuration is not formatted"),
        "{}",
        check.trace
    );
    assert!(
        check.trace.contains("+  input = {"),
        "it shows how it would be: {}",
        check.trace
    );
    assert_eq!(failed.job("infra-plan").unwrap().status, Status::Skipped);

    infra.change("var.image_tag }", "var.image_tga }").await;
    let failed = infra.deliver(DIGEST).await;
    let check = failed.job("infra-check").unwrap();
    assert_eq!(check.status, Status::Failed, "{}", check.trace);
    assert!(
        check.trace.contains("undeclared input variable"),
        "{}",
        check.trace
    );
    assert_eq!(failed.job("infra-plan").unwrap().status, Status::Skipped);
}

#[tokio::test]
async fn without_approval_it_applies_at_once_and_credentials_live_for_single_commands() {
    // In the place of vault-scw-creds, a recorder of what is run with credentials.
    let recorder = "#!/bin/sh\nshift 2\necho \"with credentials: $3\" >&2\nexec \"$@\"\n";
    let folder = tempfile::tempdir().unwrap();
    let recorder = program(folder.path(), "vault-scw-creds", recorder);
    let inputs = "      apply: on_success\n      vault_addr: https://vault.example.com\n      vault_secret: scaleway/infra\n      smoke_script: smoke.sh\n";
    let infra = Infra::start_with(inputs, &tofu().await, &[recorder.as_path()]).await;
    let done = infra.deliver(DIGEST).await;
    assert_eq!(done.status, Status::Success, "{}", logs(&done));
    let with_credentials = |job: &str| {
        let trace = &done.job(job).unwrap().trace;
        let lines = trace
            .lines()
            .filter_map(|line| line.strip_prefix("with credentials: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(with_credentials("infra-check").is_empty(), "{}", logs(&done));
    assert_eq!(
        with_credentials("infra-plan"),
        ["init", "plan"],
        "{}",
        logs(&done)
    );
    assert_eq!(
        with_credentials("infra-apply"),
        ["init", "apply"],
        "{}",
        logs(&done)
    );
    assert!(with_credentials("infra-smoke").is_empty(), "{}", logs(&done));
}
