//! The recipes of the tool's page, as they stand there, in jobs of the GitLab stand-in.
//!
//! Replaced in them are hosts, `/tmp` and TLS alone. Real are OpenBao, the registry, Terraform or OpenTofu with its S3
//! backend, and, where they are on this machine, kubectl with a Kubernetes and docker's login; the other programs are
//! stood in for by `stand_in.py`, which checks and notes what it is given.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

#[path = "../../../../tests/sandbox/tests/gitlab_world/mod.rs"]
mod gitlab_world;
mod object_storage;
mod page;
mod platform;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use towpath_sandbox::gitlab::{CiVariable, Status};
use towpath_sandbox::scaleway::{Iam, Settings};

use crate::gitlab_world::logs;
use crate::page::Page;
use crate::platform::{ACCESS_KEY, Platform, SCW_PROJECT, SECRET_KEY};

const PROJECT: &str = "team/app";
const CLUSTER_ID: &str = "0badcafe-2222-4222-8222-222222222222";
const CONFIG_MAP: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app, namespace: app}\ndata: {of: the-recipe}\n";

#[tokio::test]
async fn the_recipes_for_a_job_do_what_the_page_says() {
    let mut page = Page::read();
    let policy = page.take("Logging in", "");
    let apply = page.take("In a job", "yaml");
    let more_of_its_script = page.take("In a job", "yaml");
    let backend = page.take("In a job", "hcl");
    let services = page.take("In a job", "yaml");
    let pull_secret = page.take("In a job", "yaml");
    // What is left of them is the other test's.
    page.take("Rotation", "yaml");
    page.assert_has_no_more_recipes();

    let platform = Platform::start_with_cluster().await;
    platform.let_in(PROJECT, "ci", &policy).await;
    let login = STANDARD.encode(format!("nologin:{SECRET_KEY}"));
    let registry = platform.registry.host();
    let (kubeconfig, docker, pull) = (
        platform.path("of-the-job"),
        platform.path("docker"),
        platform.path("pull.yaml"),
    );
    let variables = vec![CiVariable::new("CLUSTER_ID", CLUSTER_ID)];
    // What `docker login` leaves behind is there for later commands, as the page warns.
    let pipeline = format!(
        "{apply}{more_of_its_script}    - docker push rg.fr-par.scw.cloud/team/later:1\n\
         compose:\n  extends: apply\n{services}\
         pull-secret:\n  extends: apply\n{pull_secret}  variables:\n    KUBECONFIG: /tmp/of-a-person\n\
         variables:\n  KUBECONFIG: /tmp/of-the-job\n"
    );
    let configuration = format!(
        "{backend}variable \"scw_project\" {{}}\noutput \"project\" {{\n  value = var.scw_project\n}}\n"
    );
    let files = [
        (".gitlab-ci.yml", platform.fit(&pipeline)),
        ("main.tf", platform.fit(&configuration)),
        ("app.yaml", CONFIG_MAP.to_owned()),
        (
            "compose.yaml",
            format!("services:\n  app:\n    image: {registry}/team/app:1.2.3\n"),
        ),
    ];
    let tokens = platform.tokens().await;
    let done = platform.run(PROJECT, variables, &files, false).await;
    assert_eq!(done.status, Status::Success, "{}", logs(&done));
    for job in &done.jobs {
        for secret in [SECRET_KEY, &login] {
            assert!(!job.trace.contains(secret), "{}", logs(&done));
        }
    }

    // Terraform: the state lies where the backend says, and has what the variable brought.
    let state = platform.storage.object("app.tfstate").expect("no state");
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["outputs"]["project"]["value"], SCW_PROJECT, "{state}");

    // scw: the key, and nothing of the login.
    let calls = platform.calls();
    let scw = called(&calls, "scw", "k8s");
    let told: Vec<&Value> = scw.iter().map(|call| &call["arguments"]).collect();
    assert_eq!(
        told,
        [
            &json!(["k8s", "cluster", "list"]),
            &json!(["k8s", "kubeconfig", "get", CLUSTER_ID])
        ]
    );
    for call in &scw {
        assert_eq!(
            call["environment"],
            json!({
                "SCW_ACCESS_KEY": ACCESS_KEY, "SCW_SECRET_KEY": SECRET_KEY, "SCW_DEFAULT_PROJECT_ID": SCW_PROJECT,
                "SCW_DEFAULT_REGION": "fr-par", "VAULT_ADDR": platform.vault.address(),
            }),
            "{call}"
        );
    }

    // docker: by a private login first, then by its own, and for a service.
    let pushes = called(&calls, "docker", "push");
    assert_eq!(pushes.len(), 2, "{calls:?}");
    for push in pushes.into_iter().chain(called(&calls, "docker", "compose")) {
        assert_eq!(push["status"], 200, "{push}");
        assert_eq!(push["registries"], json!([registry]), "{push}");
    }
    assert_eq!(called(&calls, "docker", "login").len(), 1, "{calls:?}");
    let services = &called(&calls, "docker", "compose")[0]["environment"];
    assert_eq!(services["DOCKER_CONFIG"], docker.to_str().unwrap());
    assert_eq!(services["SCW_SECRET_KEY"], Value::Null, "it was written for it");

    // kubectl: with a kubeconfig of its own, and the pull secret.
    platform.check_cluster(&calls, &login).await;

    for file in [kubeconfig, docker, pull] {
        assert!(!file.exists(), "{} is left", file.display());
    }
    assert_eq!(platform.tokens().await, tokens, "a token is left");
    platform.stop().await;
}

fn called<'a>(calls: &'a [Value], program: &str, subcommand: &str) -> Vec<&'a Value> {
    let fits = |call: &&Value| call["program"] == program && call["arguments"][0] == subcommand;
    calls.iter().filter(fits).collect()
}

#[tokio::test]
async fn the_pipeline_for_rotation_does_what_the_page_says() {
    let mut page = Page::read();
    let policy = page.take("Rotation", "");
    let rotate = page.take("Rotation", "yaml");
    let platform = Platform::start().await;
    platform.let_in(PROJECT, "rotate", &policy).await;
    let iam = Iam::start(Settings::default()).await.unwrap();
    let managing = iam.create_application(true, true);
    let manager = iam.create_key(&managing, "manages keys");
    let worn = iam.create_key(&iam.create_application(false, true), "made by hand");
    iam.age(&worn.access_key, 40 * 86_400);
    for (path, key) in [("ci/scaleway", &worn), ("rotate/iam", &manager)] {
        let data = json!({"access_key": key.access_key, "secret_key": key.secret_key});
        platform.vault.write_secret("secret", path, &data).await.unwrap();
    }
    let variables = vec![
        CiVariable::new("SCW_API_URL", iam.url()),
        // IAM is quick here.
        CiVariable::new("TOWPATH_PROOF_PAUSE", "5ms"),
    ];
    let files = [(".gitlab-ci.yml", platform.fit(&rotate))];
    let done = platform.run(PROJECT, variables, &files, true).await;
    assert_eq!(done.status, Status::Success, "{}", logs(&done));
    let kept = platform.vault.read("secret/data/ci/scaleway").await.unwrap();
    let kept = &kept["data"]["data"];
    assert_ne!(kept["access_key"], worn.access_key);
    assert!(iam.is_good(kept["secret_key"].as_str().unwrap()));
    let trace = &done.job("rotate").unwrap().trace;
    assert!(trace.contains(r#""step":"rotated""#), "{trace}");
    for secret in [
        kept["secret_key"].as_str().unwrap(),
        &worn.secret_key,
        &manager.secret_key,
    ] {
        assert!(!trace.contains(secret), "{trace}");
    }
    platform.stop().await;
}
