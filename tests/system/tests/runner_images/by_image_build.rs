//! image-build makes both targets for this machine, from a base image made on the spot.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use towpath_sandbox::base_image;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Registry, http_client};
use towpath_sandbox::static_binaries::{self, PLATFORMS, PROGRAM};
use towpath_sandbox::tools::{BuilderKind, Progress, Tools};
use towpath_sandbox::towpath_binaries;

use crate::checkout;

const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// What is at a path in an image.
enum Entry {
    File { mode: u32, size: u64 },
    Link(String),
}

type Files = BTreeMap<String, Entry>;

struct Image {
    config: Value,
    files: Files,
}

async fn get(registry: &Registry, repository: &str, path: &str) -> Vec<u8> {
    let url = format!("http://{}/v2/{repository}/{path}", registry.host());
    let answer = http_client()
        .unwrap()
        .get(&url)
        .header("accept", ACCEPT)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
    answer.bytes().await.unwrap().to_vec()
}

async fn pull(registry: &Registry, repository: &str) -> Image {
    let manifest: Value = serde_json::from_slice(&get(registry, repository, "manifests/test").await).unwrap();
    let blob = |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap());
    let config =
        serde_json::from_slice(&get(registry, repository, &blob(&manifest["config"])).await).unwrap();
    let mut files = Files::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let bytes = get(registry, repository, &blob(layer)).await;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry
                .path()
                .unwrap()
                .to_string_lossy()
                .trim_start_matches("./")
                .to_owned();
            let found = match entry.link_name().unwrap() {
                Some(target) => Entry::Link(target.to_string_lossy().into_owned()),
                None => Entry::File {
                    mode: entry.header().mode().unwrap() & 0o7777,
                    size: entry.size(),
                },
            };
            files.insert(name, found);
        }
    }
    Image { config, files }
}

/// Runs image-build for one target.
#[allow(clippy::too_many_arguments, reason = "each is one of image-build's")]
async fn build(
    guardian: &Guardian,
    tools: &Tools,
    bin: &Path,
    context: &Path,
    repository: &str,
    target: &str,
    base: &str,
    digest: &str,
) -> Output {
    let path = std::env::var_os("PATH").expect("a PATH");
    let folders = [tools.bin_dir().to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let mut command = guardian.command(bin.join("image-build"));
    if tools.builder.kind == BuilderKind::Kaniko {
        command.env("TOWPATH_KANIKO", &tools.builder.program);
    }
    command
        .env("PATH", std::env::join_paths(folders).unwrap())
        .args(["--builder", tools.builder.kind.name()])
        .arg("--context")
        .arg(context)
        .arg("--dockerfile")
        .arg(checkout().join("docker/Dockerfile"))
        .args(["--repository", repository, "--tag", "test", "--target", target])
        .args([
            "--build-arg",
            &format!("TOOLBOX_BASE={base}"),
            "--build-arg",
            &format!("KANIKO={base}"),
            "--build-arg",
            &format!("KANIKO_DIGEST={digest}"),
        ])
        .output()
        .await
        .expect("image-build runs")
}

#[tokio::test]
async fn both_targets_carry_every_tool_where_it_survives() {
    let guardian = Guardian::start().expect("a world");
    let tools = Tools::find_or_install(&Progress::lines()).await.expect("tools");
    let registry = Registry::start(&guardian, &tools, "registry", &[])
        .await
        .expect("a registry");
    let digest = base_image::push(&tools, &registry, None, "base", "1")
        .await
        .expect("a base image");
    let base = format!("{}/base:1", registry.host());
    let bin = towpath_binaries::build().expect("the binaries build");
    let context = guardian.dir().join("context");
    for platform in PLATFORMS {
        let folder = context.join("binaries").join(platform.architecture);
        fs::create_dir_all(&folder).unwrap();
        // It is not its content that is looked at.
        fs::write(folder.join(PROGRAM), "#!/bin/sh\necho $0\n").unwrap();
        static_binaries::link(&folder).unwrap();
    }

    for (target, folder) in [("toolbox", "usr/local/bin"), ("kaniko", "kaniko")] {
        let repository = format!("{}/{target}", registry.host());
        let output = build(
            &guardian,
            &tools,
            &bin,
            &context,
            &repository,
            target,
            &base,
            &digest,
        )
        .await;
        let log = String::from_utf8_lossy(&output.stderr);
        if target == "kaniko" && tools.builder.kind == BuilderKind::Kaniko {
            // kaniko puts nothing below /kaniko into a layer, so that its image is not for it to build.
            assert_eq!(output.status.code(), Some(3), "{log}");
            assert!(
                log.contains("COPY writes to /kaniko, and kaniko leaves its own folder"),
                "{log}"
            );
            continue;
        }
        assert!(output.status.success(), "{target}: {log}");
        let image = pull(&registry, target).await;
        let program = image.files.get(&format!("{folder}/{PROGRAM}"));
        let Some(&Entry::File { mode, size }) = program else {
            panic!("{target}: there is no file {folder}/{PROGRAM}");
        };
        assert_eq!(mode & 0o555, 0o555, "{target}: {PROGRAM} can be run by everyone");
        assert!(size > 0);
        for name in towpath_binaries::NAMES {
            let Some(Entry::Link(leads_to)) = image.files.get(&format!("{folder}/{name}")) else {
                panic!("{target}: {folder}/{name} is no link");
            };
            assert_eq!(leads_to, PROGRAM, "{target}: where {name} leads");
        }
        let config = &image.config["config"];
        let entrypoint = config["Entrypoint"].as_array().map_or(0, Vec::len);
        assert_eq!(
            entrypoint, 0,
            "{target}: an entrypoint would hang jobs on Kubernetes"
        );
        for (label, value) in config["Labels"].as_object().expect("labels") {
            let value = value.as_str().unwrap();
            assert!(
                !value.contains('\''),
                "{target}: kaniko cannot read {label}={value}"
            );
        }
        let user = config["User"].as_str().unwrap_or_default();
        match target {
            "toolbox" => assert_eq!(user, "65532:65532", "jobs need no root"),
            _ => assert!(
                matches!(user, "" | "0" | "root"),
                "kaniko works as root, not as {user:?}"
            ),
        }
    }
    guardian.stop().await.expect("the world ends");
}
