//! A registry, a project, and a script that stands for the executor.
//!
//! The script takes the flags that kaniko 1.28.3 takes of those we give it, and no other; it wants a context and a
//! Dockerfile, and `--force` where nothing says that it is in a container. On success it leaves a layout and a digest
//! without a line's end; on failure its words on standard error and no digest. What else it does is each test's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use towpath::oci::Digest;
use towpath_sandbox::base_image;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, docker_config};
use towpath_sandbox::tools::{Progress, Tools};

pub(crate) const USER: &str = "nologin";
pub(crate) const PASSWORD: &str = "canary-registry-password-of-the-script";
pub(crate) const COMMIT: &str = "0123456789012345678901234567890123456789";
pub(crate) const OTHER_COMMIT: &str = "9876543210987654321098765432109876543210";

const EXECUTOR: &str = r#"#!/bin/sh
here=$(dirname "$0")
for argument in "$@"; do
    case $argument in
    --force) force=1 ;;
    --context=dir://*) context=${argument#--context=dir://} ;;
    --dockerfile=*) dockerfile=${argument#*=} ;;
    --oci-layout-path=*) layout=${argument#*=} ;;
    --digest-file=*) digest=${argument#*=} ;;
    --no-push | --reproducible | --cache=true | --log-format=text | --log-timestamp=false) ;;
    --push-retry=* | --image-download-retry=* | --image-fs-extract-retry=* | --insecure-registry=*) ;;
    --target=* | --cache-repo=* | --cache-ttl=*s | --custom-platform=*/*) ;;
    --label=*=* | --annotation=*=* | --build-arg=*=* | --registry-certificate=*=*) ;;
    *) echo "Error: unknown flag: $argument" >&2; exit 1 ;;
    esac
done
[ -n "$force" ] || { echo "kaniko should only be run inside of a container, run with the --force flag if you are sure you want to continue" >&2; exit 1; }
[ -d "$context" ] && [ -f "$dockerfile" ] || { echo "Error: error resolving dockerfile path" >&2; exit 1; }
printf '%s\n' "$@" > "$here/arguments"
env > "$here/environment"
cp "$dockerfile" "$here/seen-dockerfile"
stat -c %a "$DOCKER_CONFIG/config.json" > "$here/seen-mode"
cp "$DOCKER_CONFIG/config.json" "$here/seen-logins"
succeed() {
    cp -R "$here/image" "$layout"
    printf %s "$(cat "$here/image-digest")" > "$digest"
}
. "$here/behaviour"
"#;

pub(crate) struct Workshop {
    pub(crate) guardian: Guardian,
    pub(crate) registry: Registry,
    pub(crate) tools: Tools,
    pub(crate) base_digest: String,
    pub(crate) project: PathBuf,
    /// Where the script is, and what it saw.
    pub(crate) kaniko: PathBuf,
    pub(crate) docker_config: PathBuf,
}

impl Workshop {
    pub(crate) async fn open() -> Self {
        let guardian = Guardian::start().unwrap();
        let tools = Tools::find_or_install(&Progress::lines()).await.unwrap();
        let registry = Registry::start(&guardian, &tools, "registry", &[(USER, PASSWORD)])
            .await
            .unwrap();
        let base_digest = base_image::push(&tools, &registry, Some((USER, PASSWORD)), "base/busybox", "1")
            .await
            .unwrap();
        let at = |name: &str| {
            let path = guardian.dir().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (project, kaniko, docker_config_folder) = (at("project"), at("kaniko"), at("docker"));
        let logins = docker_config(&[
            (registry.host(), USER, PASSWORD),
            ("other.example.com", "someone", "canary-login-of-another-host"),
        ]);
        fs::write(docker_config_folder.join("config.json"), logins.to_string()).unwrap();
        fs::write(kaniko.join("executor"), EXECUTOR).unwrap();
        fs::set_permissions(kaniko.join("executor"), fs::Permissions::from_mode(0o755)).unwrap();
        let workshop = Workshop {
            project,
            kaniko,
            docker_config: docker_config_folder,
            guardian,
            registry,
            tools,
            base_digest,
        };
        workshop.dockerfile("FROM REGISTRY/base/busybox:1\nRUN true\n");
        workshop.behave("succeed");
        workshop.image(COMMIT, "one");
        workshop
    }

    pub(crate) fn repository(&self) -> String {
        format!("{}/shop/web", self.registry.host())
    }

    pub(crate) fn base(&self) -> String {
        format!("{}/base/busybox:1", self.registry.host())
    }

    /// Writes the project's Dockerfile, in which REGISTRY stands for the registry's host.
    pub(crate) fn dockerfile(&self, text: &str) {
        let text = text.replace("REGISTRY", self.registry.host());
        fs::write(self.project.join("Dockerfile"), text).unwrap();
    }

    pub(crate) fn behave(&self, script: &str) {
        fs::write(self.kaniko.join("behaviour"), script).unwrap();
    }

    /// The image that the script leaves: one layer that holds `content`, built from a commit. Gives its digest.
    pub(crate) fn image(&self, commit: &str, content: &str) -> String {
        self.image_for("amd64", commit, content)
    }

    /// The same for another processor.
    pub(crate) fn image_for(&self, architecture: &str, commit: &str, content: &str) -> String {
        let folder = self.kaniko.join("image");
        let _ = fs::remove_dir_all(&folder);
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8], media_type: &str| {
            let digest = Digest::of(bytes);
            fs::write(
                blobs.join(digest.as_str().strip_prefix("sha256:").unwrap()),
                bytes,
            )
            .unwrap();
            json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()})
        };
        let layer = put(content.as_bytes(), "application/vnd.oci.image.layer.v1.tar");
        let config = put(
            json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}})
                .to_string()
                .as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": [layer],
            "annotations": {"org.opencontainers.image.revision": commit},
        });
        let manifest = put(manifest.to_string().as_bytes(), media_type);
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        fs::write(folder.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        let digest = manifest["digest"].as_str().unwrap().to_owned();
        fs::write(self.kaniko.join("image-digest"), &digest).unwrap();
        digest
    }

    /// image-build in the project, with a job's environment, the script as executor, and nothing else.
    pub(crate) fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.guardian.command(env!("CARGO_BIN_EXE_image-build"));
        command
            .env_clear()
            .env("TOWPATH_WORLD", self.guardian.id())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TMPDIR", self.guardian.dir().join("tmp"))
            .env("DOCKER_CONFIG", &self.docker_config)
            .env("KANIKO_DIR", &self.kaniko)
            .env("TOWPATH_OUTSIDE_CONTAINER", "true")
            .env("TOWPATH_REPOSITORY", self.repository())
            .env("TOWPATH_TIMEOUT", "2m")
            .env("TOWPATH_LOG_FORMAT", "json")
            .env("CI_COMMIT_SHA", COMMIT)
            .env("CI_COMMIT_TIMESTAMP", "2026-01-02T03:04:05Z")
            .current_dir(&self.project)
            .args(arguments);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().await.unwrap())
    }

    /// What the script saw, by the name that it wrote it under.
    pub(crate) fn seen(&self, name: &str) -> String {
        fs::read_to_string(self.kaniko.join(name)).unwrap_or_default()
    }

    /// What a tag names at the registry: the digest of the last manifest written under it, as docker-registry keeps it.
    pub(crate) fn tagged(&self, tag: &str) -> Option<String> {
        let link = self.registry.storage().join(format!(
            "docker/registry/v2/repositories/shop/web/_manifests/tags/{tag}/current/link"
        ));
        fs::read_to_string(link).ok()
    }

    /// Folders of builds that are still there.
    pub(crate) fn left_behind(&self) -> Vec<PathBuf> {
        [self.kaniko.clone(), self.guardian.dir().join("tmp")]
            .iter()
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten())
            .map(|entry| entry.unwrap().path())
            .filter(|path| has_prefix(path, "towpath-"))
            .collect()
    }

    pub(crate) async fn close(self) {
        assert_eq!(
            self.left_behind(),
            Vec::<PathBuf>::new(),
            "nothing is left behind"
        );
        self.guardian.stop().await.unwrap();
    }
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with(prefix)
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) report: Value,
    pub(crate) log: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let log = String::from_utf8(output.stderr).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for canary in ["canary", PASSWORD] {
            assert!(
                !log.contains(canary) && !text.contains(canary),
                "a secret is told: {log}{text}"
            );
        }
        Ran {
            code: output.status.code().or_else(|| output.status.signal()).unwrap(),
            report: serde_json::from_str(&text).unwrap_or_default(),
            log,
        }
    }

    /// Asserts the exit code, and gives the failure's line.
    pub(crate) fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{}", self.log);
        assert_eq!(self.report, Value::Null, "no report of what did not happen");
        self.log.lines().last().unwrap()
    }

    /// Asserts success, and gives the report.
    pub(crate) fn done(&self) -> &Value {
        assert_eq!(self.code, 0, "{}", self.log);
        &self.report
    }
}
