//! Builds for real, with whichever builder this machine has, against a registry that asks for a password.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test plays the job and the registry, and a helper that fails here fails its test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use towpath_sandbox::base_image;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, docker_config, http_client};
use towpath_sandbox::tools::{BuilderKind, Progress, Tools};

const USER: &str = "nologin";
const PASSWORD: &str = "canary-registry-password-of-image-build";

/// A registry with a base image in it, and a project to build.
struct Workshop {
    guardian: Guardian,
    tools: Tools,
    registry: Registry,
    project: PathBuf,
    docker_config: PathBuf,
}

impl Workshop {
    async fn open(dockerfile: &str) -> Self {
        let guardian = Guardian::start().expect("a world");
        let tools = Tools::find_or_install(&Progress::lines()).await.expect("tools");
        let registry = Registry::start(&guardian, &tools, "registry", &[(USER, PASSWORD)])
            .await
            .expect("a registry");
        base_image::push(&tools, &registry, Some((USER, PASSWORD)), "base/busybox", "1")
            .await
            .expect("a base image");
        let project = guardian.dir().join("project");
        let docker_config = guardian.dir().join("docker");
        fs::create_dir(&project).unwrap();
        fs::create_dir(&docker_config).unwrap();
        let logins = docker_config_of(registry.host());
        fs::write(docker_config.join("config.json"), logins).unwrap();
        fs::write(
            project.join("Dockerfile"),
            dockerfile.replace("REGISTRY", registry.host()),
        )
        .unwrap();
        fs::write(project.join("page.html"), "hello\n").unwrap();
        Workshop {
            guardian,
            tools,
            registry,
            project,
            docker_config,
        }
    }

    fn repository(&self) -> String {
        format!("{}/shop/web", self.registry.host())
    }

    /// Runs image-build in the project with a job's environment and nothing else.
    async fn build(&self, arguments: &[&str]) -> Output {
        let path = std::env::var_os("PATH").expect("a PATH");
        let folders = [self.tools.bin_dir().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let mut command = self.guardian.command(env!("CARGO_BIN_EXE_image-build"));
        command.env_clear().env("TOWPATH_WORLD", self.guardian.id());
        if self.tools.builder.kind == BuilderKind::Kaniko {
            command.env("TOWPATH_KANIKO", &self.tools.builder.program);
        }
        command
            .env(
                "PATH",
                std::env::join_paths(folders).expect("folders without colons"),
            )
            .env("TMPDIR", self.guardian.dir().join("tmp"))
            .env("DOCKER_CONFIG", &self.docker_config)
            .env("TOWPATH_BUILDER", self.tools.builder.kind.name())
            .env("TOWPATH_LOG_FORMAT", "json")
            .env("CI_COMMIT_SHA", "0123456789012345678901234567890123456789")
            .env("CI_COMMIT_TIMESTAMP", "2026-01-02T03:04:05Z")
            .env("CI_PROJECT_URL", "https://gitlab.example.com/shop/web")
            .env("CI_PROJECT_PATH", "shop/web")
            .current_dir(&self.project)
            .args(arguments);
        let output = command.output().await.expect("image-build runs");
        for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains(PASSWORD), "the password is on {stream}");
        }
        output
    }

    async fn get(&self, path: &str, accept: &str) -> reqwest_answer::Answer {
        let client = http_client().expect("a client");
        let answer = client
            .get(format!("http://{}/v2/shop/web/{path}", self.registry.host()))
            .basic_auth(USER, Some(PASSWORD))
            .header("accept", accept)
            .send()
            .await
            .expect("the registry answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let digest = answer
            .headers()
            .get("docker-content-digest")
            .map(|value| value.to_str().unwrap().to_owned());
        reqwest_answer::Answer {
            digest,
            body: answer.bytes().await.expect("a body").to_vec(),
        }
    }

    fn left_in_tmp(&self) -> Vec<PathBuf> {
        fs::read_dir(self.guardian.dir().join("tmp"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with("towpath-")
            })
            .collect()
    }
}

mod reqwest_answer {
    pub(super) struct Answer {
        pub(super) digest: Option<String>,
        pub(super) body: Vec<u8>,
    }
}

fn docker_config_of(host: &str) -> String {
    docker_config(&[(host, USER, PASSWORD)]).to_string()
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}{}",
        text,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).expect("the report is JSON")
}

const TWO_STAGES: &str = "\
ARG BASE=REGISTRY/base/busybox:1
FROM ${BASE} AS build
COPY page.html /src/page.html
RUN tr a-z A-Z < /src/page.html > /page.html
FROM ${BASE}
COPY --from=build /page.html /page.html
RUN test \"$(cat /page.html)\" = HELLO
";

#[tokio::test]
async fn a_tag_becomes_a_digest_that_the_registry_confirms() {
    let workshop = Workshop::open(TWO_STAGES).await;
    let handoff = workshop.project.join("handoff.env");
    let repository = workshop.repository();
    let arguments = [
        "--repository",
        &repository,
        "--git-tag",
        "v1.4.0",
        "--handoff",
        "handoff.env",
    ];
    let first = report(&workshop.build(&arguments).await);
    let digest = first["digest"].as_str().expect("a digest").to_owned();

    let manifest = workshop.get("manifests/1.4.0", "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json").await;
    assert_eq!(
        manifest.digest.as_deref(),
        Some(digest.as_str()),
        "the report says what the registry has"
    );
    let manifest: Value = serde_json::from_slice(&manifest.body).unwrap();
    let config = workshop
        .get(
            &format!("blobs/{}", manifest["config"]["digest"].as_str().unwrap()),
            "*/*",
        )
        .await;
    let config: Value = serde_json::from_slice(&config.body).unwrap();
    let labels = &config["config"]["Labels"];
    let created = "2026-01-02T03:04:05Z";
    for (name, value) in [
        ("version", "1.4.0"),
        ("revision", "0123456789012345678901234567890123456789"),
        ("source", "https://gitlab.example.com/shop/web"),
        ("created", created),
    ] {
        let name = format!("org.opencontainers.image.{name}");
        assert_eq!(labels[&name], value, "{name}");
        assert_eq!(manifest["annotations"][&name], value, "{name}");
    }

    let handed_over = fs::read_to_string(&handoff).unwrap();
    for line in [
        format!("IMAGE_DIGEST={digest}"),
        format!("IMAGE_REF={repository}@{digest}"),
        format!("IMAGE_REPOSITORY={repository}"),
        "IMAGE_TAG=1.4.0".to_owned(),
        "SOURCE_PROJECT=shop/web".to_owned(),
    ] {
        assert!(
            handed_over.lines().any(|found| found == line),
            "{line} is missing in {handed_over}"
        );
    }

    let again = report(&workshop.build(&arguments).await);
    assert_eq!(
        (&again["changed"], &again["digest"]),
        (&Value::Bool(false), &first["digest"])
    );
    let rebuilt = report(&workshop.build(&[&arguments[..], &["--rebuild"]].concat()).await);
    assert_eq!(
        (&rebuilt["changed"], &rebuilt["digest"]),
        (&Value::Bool(false), &first["digest"]),
        "the same commit gives the same digest"
    );
    assert_eq!(
        workshop.left_in_tmp(),
        Vec::<PathBuf>::new(),
        "nothing is left behind"
    );
    workshop.guardian.stop().await.expect("the world ends");
}

#[tokio::test]
async fn a_failing_step_is_told_with_its_last_words() {
    let workshop =
        Workshop::open("FROM REGISTRY/base/busybox:1\nRUN echo the-reason-why >&2; exit 3\n").await;
    let repository = workshop.repository();
    let output = workshop.build(&["--repository", &repository, "--tag", "1"]).await;
    assert_eq!(output.status.code(), Some(8));
    let log = String::from_utf8_lossy(&output.stderr);
    let last = log.lines().last().expect("a log line");
    assert!(
        last.contains("the-reason-why"),
        "the failure carries the builder's last lines: {last}"
    );
    assert!(output.stdout.is_empty(), "no report of what did not happen");
    assert_eq!(workshop.left_in_tmp(), Vec::<PathBuf>::new());
    workshop.guardian.stop().await.expect("the world ends");
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_pushes_nothing() {
    let workshop = Workshop::open(TWO_STAGES).await;
    let repository = workshop.repository();
    let planned = report(
        &workshop
            .build(&["--repository", &repository, "--tag", "1", "--dry-run"])
            .await,
    );
    assert_eq!(planned["digest"], Value::Null);
    assert_eq!(
        planned["bases"][0],
        format!("{}/base/busybox:1", workshop.registry.host())
    );
    assert!(
        !Path::new(
            &workshop
                .registry
                .storage()
                .join("docker/registry/v2/repositories/shop")
        )
        .exists()
    );
    workshop.guardian.stop().await.expect("the world ends");
}

#[tokio::test]
async fn two_platforms_become_one_index() {
    let workshop = Workshop::open("FROM scratch\nCOPY page.html /page.html\n").await;
    let repository = workshop.repository();
    let mut digests = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let layout = platform.replace('/', "-");
        let arguments = [
            "--repository",
            &repository,
            "--tag",
            "1",
            "--no-push",
            "--oci-layout",
            &layout,
            "--platform",
            platform,
        ];
        let built = report(&workshop.build(&arguments).await);
        assert_eq!(built["platform"], platform);
        digests.push(built["digest"].clone());
    }
    assert_ne!(digests[0], digests[1]);
    let arguments = [
        "push",
        "linux-amd64",
        "linux-arm64",
        "--repository",
        &repository,
        "--tag",
        "1",
    ];
    let pushed = report(&workshop.build(&arguments).await);
    let index = workshop
        .get("manifests/1", "application/vnd.oci.image.index.v1+json")
        .await;
    assert_eq!(index.digest.as_deref(), pushed["digest"].as_str());
    let index: Value = serde_json::from_slice(&index.body).unwrap();
    for (place, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let child = &index["manifests"][place];
        assert_eq!(child["platform"]["architecture"], architecture);
        assert_eq!(child["digest"], digests[place]);
    }
    assert_eq!(workshop.left_in_tmp(), Vec::<PathBuf>::new());
    workshop.guardian.stop().await.expect("the world ends");
}
