//! The page's example of one image for two platforms: two builds, one push of one index, and its promotion.

use reqwest::header::{ACCEPT, HeaderMap};
use serde_json::Value;
use towpath_sandbox::gitlab::{CiVariable, PipelineRequest, PipelineSnapshot, ProjectSettings, Status};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, http_client};
use towpath_sandbox::tools::{BuilderKind, Progress, Tools};

use crate::gitlab_world::{LIMIT, logs};
use crate::platform::{checkout, platform, program, variable};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The example as it stands on the page, with the promotion that is told of there.
fn example(host: &str) -> String {
    let page = std::fs::read_to_string(checkout().join("ci-templates/README.md")).unwrap();
    let (_, after) = page.split_once("#### Two platforms, one image").unwrap();
    let (_, block) = after.split_once("```yaml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut text = format!(
        "{block}  - project: platform/towpath\n    ref: v0.1.0\n    file: /ci-templates/image-promote-by-digest.yml\n    inputs:\n      build_job: image-push\n      target_repository: registry.example.com/shop/promoted\n"
    );
    for architecture in ["amd64", "arm64"] {
        // Here, one machine is the runner of both.
        let layout = format!("      layout: {architecture}\n");
        assert!(
            text.contains(&layout) && text.contains(&format!("runner_tag: towpath-build-{architecture}"))
        );
        text = text.replace(
            &layout,
            &format!("{layout}      platform: linux/{architecture}\n"),
        );
    }
    text.replace("registry.example.com", host)
}

async fn get(host: &str, path: &str, accept: &str) -> (HeaderMap, Value) {
    let url = format!("http://{host}/v2/shop/{path}");
    let answer = http_client()
        .unwrap()
        .get(&url)
        .header(ACCEPT, accept)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    (answer.headers().clone(), answer.json().await.unwrap())
}

/// The digest that a job handed over.
fn handed_over(pipeline: &PipelineSnapshot, job: &str) -> String {
    let dotenv = &pipeline.job(job).unwrap().dotenv;
    let (_, digest) = dotenv.iter().find(|(name, _)| name == "IMAGE_DIGEST").unwrap();
    digest.clone()
}

#[tokio::test]
async fn two_builds_become_one_index() {
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let registry = Registry::start(&guardian, &tools, "registry", &[]).await.unwrap();
    let host = registry.host();
    let folder = tempfile::tempdir().unwrap();
    // This registry asks for no login.
    let exec = program(
        folder.path(),
        "vault-scw-creds",
        "#!/bin/sh\nshift 2\nexec \"$@\"\n",
    );
    let world = platform(&[&exec], |settings| {
        settings
            .variables
            .push(variable("TOWPATH_BUILDER", tools.builder.kind.name()));
        if tools.builder.kind == BuilderKind::Kaniko {
            let executor = tools.builder.program.display().to_string();
            settings
                .variables
                .push(CiVariable::new("TOWPATH_KANIKO", executor));
        }
    })
    .await;
    let pipeline = example(host);
    let files = [
        (".gitlab-ci.yml", pipeline.as_str()),
        ("Dockerfile", "FROM scratch\nCOPY page.html /page.html\n"),
        ("page.html", "hello\n"),
    ];
    let project = world
        .project_with("shop/web", ProjectSettings::default(), &files)
        .await;
    let clone = world.clone_of("shop/web", "main").await;
    world.git(&clone, &["tag", "v1.4.0"]).await.unwrap();
    world
        .git(&clone, &["push", "--quiet", "-o", "ci.skip", "origin", "v1.4.0"])
        .await
        .unwrap();
    let run = |reference: &'static str| {
        world
            .gitlab
            .run_pipeline(project, world.maintainer, reference, PipelineRequest::default())
    };
    let id = run("v1.4.0").await.unwrap();
    let done = world.gitlab.wait_until_finished(id, LIMIT).await.unwrap();
    assert_eq!(done.status, Status::Success, "{}", logs(&done));

    let (headers, index) = get(host, "web/manifests/1.4.0", INDEX).await;
    let digest = headers["docker-content-digest"].to_str().unwrap();
    for (place, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let of_index = &index["manifests"][place];
        assert_eq!(of_index["platform"]["architecture"], architecture);
        let built = handed_over(&done, &format!("image-{architecture}"));
        assert_eq!(of_index["digest"].as_str(), Some(built.as_str()), "{index}");
        let manifest = format!("web/manifests/{}", of_index["digest"].as_str().unwrap());
        let (_, manifest) = get(host, &manifest, MANIFEST).await;
        let config = format!("web/blobs/{}", manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(get(host, &config, "*/*").await.1["architecture"], architecture);
    }
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(handed_over(&done, "image-push"), digest);
    let (headers, _) = get(host, "promoted/manifests/1.4.0", INDEX).await;
    assert_eq!(
        headers["docker-content-digest"], digest,
        "what is promoted is the index"
    );

    let without_arm = pipeline.replace(
        "needs: [image-amd64, image-arm64]",
        "needs: [image-amd64, image-riscv64]",
    );
    world
        .push(
            "shop/web",
            "main",
            &[(".gitlab-ci.yml", &without_arm)],
            &["-o", "ci.skip"],
        )
        .await;
    let clone = world.clone_of("shop/web", "main").await;
    world.git(&clone, &["tag", "v1.5.0"]).await.unwrap();
    world
        .git(&clone, &["push", "--quiet", "-o", "ci.skip", "origin", "v1.5.0"])
        .await
        .unwrap();
    let refused = run("v1.5.0")
        .await
        .expect_err("a build that is not there")
        .to_string();
    assert!(refused.contains("image-riscv64"), "{refused}");
    guardian.stop().await.unwrap();
}
