//! Registries, the binary, and a look at registries that does not go through the code under test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use towpath::oci::Digest;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, docker_config, http_client};
use towpath_sandbox::tools::{Progress, Tools};

use crate::image::{CONFIG, INDEX, Image, MANIFEST};

pub(crate) const STAGING: (&str, &str) = ("ci", "canary-staging-password");
pub(crate) const PRODUCTION: (&str, &str) = ("nologin", "canary-production-password");

/// A world's folder with a binary to run in it.
pub(crate) struct World {
    pub(crate) guardian: Guardian,
    pub(crate) tools: Tools,
}

impl World {
    pub(crate) async fn open() -> Self {
        let tools = Tools::find_or_install(&Progress::lines()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        fs::create_dir(guardian.dir().join("docker")).unwrap();
        World { guardian, tools }
    }

    pub(crate) async fn registry(&self, name: &str, users: &[(&str, &str)]) -> Registry {
        Registry::start(&self.guardian, &self.tools, name, users)
            .await
            .unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.guardian.dir().join(name)
    }

    /// Writes the config.json that every run reads.
    pub(crate) fn log_in(&self, logins: &[(&str, &str, &str)]) {
        fs::write(self.path("docker/config.json"), docker_config(logins).to_string()).unwrap();
    }

    /// The layout of an image, as a source.
    pub(crate) fn layout(&self, image: &Image) -> String {
        let folder = self.path(&format!("layout-{}", &image.root[7..19]));
        image.write(&folder);
        format!("oci:{}", folder.display())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self
            .guardian
            .bare_command(env!("CARGO_BIN_EXE_image-promote-by-digest"));
        command
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("TOWPATH_LOG_FORMAT", "json")
            .current_dir(self.guardian.dir())
            .args(arguments);
        command
    }

    /// Runs the binary; looks for canaries in what it says and leaves.
    pub(crate) async fn promote(&self, arguments: &[&str]) -> Run {
        self.run(self.command(arguments)).await
    }

    pub(crate) async fn run(&self, mut command: tokio::process::Command) -> Run {
        let output = command.output().await.unwrap();
        self.search_for_canaries(&output);
        Run::of(&output)
    }

    fn search_for_canaries(&self, output: &Output) {
        for bytes in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains("canary"), "{text}");
        }
        for entry in fs::read_dir(self.guardian.dir()).unwrap() {
            let path = entry.unwrap().path();
            let written = matches!(path.extension().and_then(OsStr::to_str), Some("env" | "jsonl"));
            if written {
                assert!(
                    !fs::read_to_string(&path).unwrap().contains("canary"),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

/// How a run of the binary ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) report: Value,
    pub(crate) log: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        Run {
            code: output.status.code().unwrap_or(-1),
            report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Value {
        assert_eq!(self.code, 0, "{}\n{}", self.report, self.log);
        self.report
    }

    /// The error line of the log, after checking the exit code and that the hint is there.
    #[track_caller]
    pub(crate) fn failed_with(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.report, self.log);
        let mut lines = self
            .log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let error: Value = lines
            .rfind(|line: &Value| line["exit_code"] == code)
            .unwrap_or_else(|| panic!("no error in the log: {}", self.log));
        error.to_string()
    }
}

/// Asks a registry without the code under test.
pub(crate) async fn get(
    host: &str,
    login: Option<(&str, &str)>,
    path: &str,
) -> (u16, Option<String>, Vec<u8>) {
    let mut request = http_client()
        .unwrap()
        .get(format!("http://{host}/v2/{path}"))
        .header("accept", [INDEX, MANIFEST, CONFIG, "*/*"].join(", "));
    if let Some((user, password)) = login {
        request = request.basic_auth(user, Some(password));
    }
    let answer = request.send().await.unwrap();
    let digest = answer
        .headers()
        .get("docker-content-digest")
        .map(|value| value.to_str().unwrap().to_owned());
    (
        answer.status().as_u16(),
        digest,
        answer.bytes().await.unwrap().to_vec(),
    )
}

/// Writes a blob without the code under test.
pub(crate) async fn put_blob(host: &str, repository: &str, bytes: &[u8]) {
    let client = http_client().unwrap();
    let begun = client
        .post(format!("http://{host}/v2/{repository}/blobs/uploads/"))
        .header("content-length", "0")
        .send()
        .await
        .unwrap();
    assert_eq!(begun.status().as_u16(), 202, "{host}/{repository}");
    let location = begun.headers()["location"].to_str().unwrap();
    let base: towpath::http::Url = format!("http://{host}/").parse().unwrap();
    let mut location = base.join(location).unwrap();
    location
        .query_pairs_mut()
        .append_pair("digest", Digest::of(bytes).as_str());
    let put = client.put(location).body(bytes.to_vec()).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 201, "{host}/{repository}");
}

/// Writes a manifest under a tag or a digest without the code under test.
pub(crate) async fn put_manifest(host: &str, repository: &str, name: &str, media_type: &str, bytes: &[u8]) {
    let put = http_client()
        .unwrap()
        .put(format!("http://{host}/v2/{repository}/manifests/{name}"))
        .header("content-type", media_type)
        .body(bytes.to_vec())
        .send()
        .await
        .unwrap();
    let status = put.status().as_u16();
    assert_eq!(
        status,
        201,
        "{host}/{repository}:{name}: {}",
        put.text().await.unwrap()
    );
}

/// The digest that a tag names.
pub(crate) async fn tagged(
    host: &str,
    login: Option<(&str, &str)>,
    repository: &str,
    tag: &str,
) -> Option<String> {
    let (status, digest, _) = get(host, login, &format!("{repository}/manifests/{tag}")).await;
    match status {
        200 => digest,
        404 => None,
        other => panic!("status {other}"),
    }
}

/// Checks that a repository has every byte of an image, by digest.
pub(crate) async fn assert_holds(host: &str, login: Option<(&str, &str)>, repository: &str, image: &Image) {
    for (digest, (_, bytes)) in &image.manifests {
        let (status, _, held) = get(host, login, &format!("{repository}/manifests/{digest}")).await;
        assert_eq!((status, &held), (200, bytes), "manifest {digest}");
    }
    for (digest, bytes) in &image.blobs {
        let (status, _, held) = get(host, login, &format!("{repository}/blobs/{digest}")).await;
        assert_eq!((status, &held), (200, bytes), "blob {digest}");
    }
}

/// How many requests a registry has logged whose line in the access log has this in it.
pub(crate) fn logged(registry: &Registry, part: &str) -> u64 {
    let log = fs::read_to_string(registry.log()).unwrap();
    // The line of the access log, not those of the application log beside it.
    let is_request = |line: &&str| line.contains(" HTTP/1.1\" ") && line.contains(part);
    log.lines().filter(is_request).count() as u64
}

/// How many uploads a registry opened that were neither finished nor given back. What was given back after half a
/// blob went into it is among those: docker-registry does not let go of an upload at an offset that only it knows.
pub(crate) fn open_uploads(registry: &Registry, repository: &str) -> usize {
    let folder = registry
        .storage()
        .join("docker/registry/v2/repositories")
        .join(repository)
        .join("_uploads");
    // It leaves empty folders behind.
    let is_open = |entry: &fs::DirEntry| entry.path().join("startedat").exists();
    fs::read_dir(folder).map_or(0, |entries| {
        entries.filter(|entry| is_open(entry.as_ref().unwrap())).count()
    })
}

/// Writes a file and gives back its path as an argument.
pub(crate) fn written(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.display().to_string()
}
