//! Towpath's own pipeline: valid for GitLab, and made of the jobs that check, build and release it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_norway::Value;
use towpath::kaniko::dockerfile;
use towpath_sandbox::tools::{Progress, Tools};
use towpath_tidy::{files, read, repository, schema};

/// gitlab-ci-local sets these itself, other than GitLab does for a tag.
const PREDEFINED: &str = "CI_COMMIT_TAG,CI_COMMIT_BRANCH,CI_COMMIT_REF_PROTECTED,CI_PIPELINE_SOURCE";

/// A clone of this repository's pipeline, as far as gitlab-ci-local reads it.
struct Clone {
    tools: Tools,
    folder: tempfile::TempDir,
}

impl Clone {
    async fn make() -> Self {
        let tools = Tools::find_or_install(&Progress::lines())
            .await
            .expect("the tools are there");
        let folder = tempfile::tempdir().expect("a folder");
        let clone = Clone { tools, folder };
        let root = clone.root();
        let wanted = files()
            .into_iter()
            .filter(|file| file == ".gitlab-ci.yml" || file.starts_with("ci-templates/"));
        for file in wanted {
            let target = root.join(&file);
            std::fs::create_dir_all(target.parent().expect("it is in a folder")).expect("made");
            std::fs::copy(repository().join(&file), target).expect("copied");
        }
        for arguments in [
            &["init", "--quiet", "--initial-branch=main"][..],
            &[
                "remote",
                "add",
                "origin",
                "https://gitlab.example.com/platform/towpath.git",
            ],
            &["add", "--all"],
            &[
                "-c",
                "user.name=test",
                "-c",
                "user.email=test@example.com",
                "commit",
                "--quiet",
                "--message=x",
            ],
        ] {
            let done = clone.isolated(&clone.tools.git).args(arguments).output();
            assert!(done.expect("git runs").status.success(), "git {arguments:?}");
        }
        clone
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("towpath")
    }

    /// A program that reads no settings of whoever runs this.
    fn isolated(&self, program: &Path) -> Command {
        std::fs::create_dir_all(self.root()).expect("made");
        let mut command = Command::new(program);
        command
            .current_dir(self.root())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", self.folder.path());
        command
    }

    fn gitlab_ci_local(&self, arguments: &[&str]) -> String {
        let state = self.folder.path().join("state");
        let node = self.tools.node.parent().expect("it is in a folder");
        let path = std::env::var_os("PATH").expect("a PATH");
        let folders = [node.to_owned(), self.tools.bin_dir().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let output = self
            .isolated(&self.tools.gitlab_ci_local)
            .env("PATH", std::env::join_paths(folders).expect("a PATH"))
            .arg("--state-dir")
            .arg(state)
            .args(arguments)
            .output()
            .expect("gitlab-ci-local runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// The jobs of a pipeline with these variables, and what each needs.
    fn jobs(&self, variables: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        let mut arguments = vec!["--list-json", "--ignore-predefined-vars", PREDEFINED];
        for variable in variables {
            arguments.extend(["--variable", variable]);
        }
        let text = self.gitlab_ci_local(&arguments);
        // Remarks come before the list.
        let starts = text.match_indices('[').map(|(at, _)| at);
        let listed: Vec<serde_json::Value> = starts
            .filter(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n')
            .find_map(|at| serde_json::from_str(&text[at..]).ok())
            .unwrap_or_else(|| panic!("no jobs are listed: {text}"));
        let needs = |job: &serde_json::Value| {
            let needs = job["needs"].as_array().into_iter().flatten();
            needs
                .map(|need| need["job"].as_str().expect("a name").to_owned())
                .collect()
        };
        listed
            .iter()
            .filter(|job| job["when"] != "never")
            .map(|job| (job["name"].as_str().expect("a name").to_owned(), needs(job)))
            .collect()
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_push_is_checked_and_a_tag_is_released() {
    let clone = Clone::make().await;
    let pushed = clone.jobs(&["CI_COMMIT_BRANCH=topic", "CI_PIPELINE_SOURCE=push"]);
    assert_eq!(pushed, BTreeMap::from([("check".to_owned(), set(&[]))]));

    let released = clone.jobs(&[
        "CI_COMMIT_TAG=v1.4.0",
        "CI_COMMIT_REF_PROTECTED=true",
        "CI_PIPELINE_SOURCE=push",
    ]);
    let built = ["check", "binaries"];
    let expected = [
        ("check", &[][..]),
        ("binaries", &[]),
        ("toolbox-amd64", &built),
        ("toolbox-arm64", &built),
        ("kaniko-amd64", &built),
        ("kaniko-arm64", &built),
        ("toolbox", &["toolbox-amd64", "toolbox-arm64"]),
        ("kaniko", &["kaniko-amd64", "kaniko-arm64"]),
        ("packages", &built),
        ("release", &["packages", "toolbox", "kaniko"]),
    ];
    let expected: BTreeMap<String, BTreeSet<String>> = expected
        .into_iter()
        .map(|(name, needs)| (name.to_owned(), set(needs)))
        .collect();
    assert_eq!(released, expected);

    // Who can push a tag that nobody protects gets no image and no release for it.
    let unprotected = clone.jobs(&["CI_COMMIT_TAG=v1.4.0", "CI_PIPELINE_SOURCE=push"]);
    let names: BTreeSet<String> = unprotected.into_keys().collect();
    assert_eq!(names, set(&built));
}

#[tokio::test]
async fn gitlabs_schema_accepts_it_and_what_it_becomes() {
    let clone = Clone::make().await;
    let expanded = clone.gitlab_ci_local(&["--preview"]);
    let start = expanded.find("---").expect("a document");
    let path = clone.folder.path().join("expanded.yml");
    std::fs::write(&path, &expanded[start..]).expect("written");
    let tools = &clone.tools;
    schema::check(
        &tools.node,
        &tools.gitlab_ci_local,
        &tools.gitlab_ci_schema,
        &[repository().join(".gitlab-ci.yml"), path],
    )
    .unwrap_or_else(|complaints| panic!("{complaints}"));

    let jobs: BTreeMap<String, Value> = serde_norway::from_str(&expanded[start..]).expect("YAML");
    for image in ["toolbox", "kaniko"] {
        let layouts = ["amd64", "arm64"].map(|architecture| format!("{image}-{architecture}"));
        for (layout, architecture) in layouts.iter().zip(["amd64", "arm64"]) {
            let job = &jobs[layout];
            assert_eq!(
                job["tags"][0].as_str(),
                Some(format!("towpath-build-{architecture}").as_str())
            );
            let variables = &job["variables"];
            assert_eq!(variables["IMAGE_BUILD_LAYOUT"].as_str(), Some(layout.as_str()));
            // kaniko puts nothing below /kaniko into a layer, which is where its image has the tools.
            let builder = variables["TOWPATH_BUILDER"].as_str();
            assert_eq!(builder, (image == "kaniko").then_some("buildah"), "{layout}");
            assert_eq!(variables["TOWPATH_TARGET_STAGE"].as_str(), Some(image));
            // What the Dockerfile makes of an argument that is empty, since nobody set the variable, is tried below.
            let arguments = variables["TOWPATH_BUILD_ARGS"].as_str();
            let override_of_kaniko = (image == "kaniko").then_some("KANIKO_DIGEST=$KANIKO_DIGEST");
            assert_eq!(arguments, override_of_kaniko, "{layout}");
            assert_eq!(
                job["artifacts"]["paths"][0].as_str(),
                Some(format!("{layout}/").as_str())
            );
        }
        let variables = &jobs[image]["variables"];
        assert_eq!(
            variables["IMAGE_PUSH_LAYOUTS"].as_str(),
            Some(layouts.join(",").as_str())
        );
        assert_eq!(
            variables["TOWPATH_REPOSITORY"].as_str(),
            Some(format!("registry.example.com/towpath/{image}").as_str())
        );
    }
}

/// Whatever the templates' jobs run is the templates' own.
#[test]
fn no_job_of_a_template_gets_another_script() {
    let pipeline: Value = serde_norway::from_str(&read(".gitlab-ci.yml")).expect("YAML");
    let included = pipeline["include"].as_sequence().expect("includes");
    let names: Vec<&str> = included
        .iter()
        .filter_map(|include| include["inputs"]["job"].as_str())
        .collect();
    assert_eq!(
        names.len(),
        6,
        "two images, each for two platforms and as one index"
    );
    for name in names {
        for key in ["before_script", "script", "after_script", "extends"] {
            assert!(pipeline[name].get(key).is_none(), "{name} has a {key} of its own");
        }
    }
}

#[test]
fn what_is_pinned_elsewhere_is_the_same_here() {
    let pipeline: Value = serde_norway::from_str(&read(".gitlab-ci.yml")).expect("YAML");
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .expect("a channel")
        .trim_matches('"');
    for job in [".rust", "packages"] {
        let image = pipeline[job]["image"].as_str().expect("an image");
        assert!(
            image.contains(&format!("rust:{channel}")),
            "{job} runs in {image}, where rust-toolchain.toml has {channel}"
        );
    }
    let check = serde_norway::to_string(&pipeline["check"]["script"]).expect("YAML");
    assert!(check.contains(".ci/run"), "{check}");
}

/// Nobody has to name a digest, an empty one is none, and another one is taken.
#[test]
fn kanikos_image_is_pinned_and_its_digest_can_be_another() {
    let image = |arguments: &[(&str, &str)]| {
        let arguments = arguments
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let file = dockerfile::read(&repository().join("docker/Dockerfile"), &arguments.collect())
            .expect("it is read");
        let stage = file.target(Some("kaniko")).expect("there is that stage");
        file.images()[file.base_of(stage).expect("an image")].name.clone()
    };
    let pinned = image(&[]);
    let (name, digest) = pinned.split_once('@').expect("a digest");
    let hex = digest.strip_prefix("sha256:").expect("a SHA-256");
    assert!(
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{pinned}"
    );
    assert_eq!(image(&[("KANIKO_DIGEST", "")]), pinned);
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(image(&[("KANIKO_DIGEST", &other)]), format!("{name}@{other}"));
    let page = read("docker/README.md");
    assert!(
        page.contains(&format!("crane digest {name} ")),
        "the page looks up another image than {name}"
    );
}

/// A tag that its publisher pushes again every day is no version, and digests that it had go away.
///
/// Source: containers/image_build, README, "Overview".
#[test]
fn buildahs_image_is_one_that_is_never_pushed_again() {
    let pipeline: Value = serde_norway::from_str(&read(".gitlab-ci.yml")).expect("YAML");
    let included = pipeline["include"].as_sequence().expect("includes");
    let images: Vec<&str> = included
        .iter()
        .filter_map(|include| include["inputs"]["builder_image"].as_str())
        .collect();
    assert_eq!(images.len(), 2, "kaniko's image for two platforms");
    for image in images {
        assert!(
            image.starts_with("quay.io/containers/buildah:v") && image.ends_with("-immutable"),
            "{image}"
        );
    }
}

/// Whatever a release links to has to be made, summed and uploaded before.
#[test]
fn what_a_release_links_to_is_made_before() {
    let pipeline: Value = serde_norway::from_str(&read(".gitlab-ci.yml")).expect("YAML");
    let links = pipeline["release"]["release"]["assets"]["links"]
        .as_sequence()
        .expect("links");
    let made = serde_norway::to_string(&pipeline["binaries"]["script"]).expect("YAML");
    let uploaded = serde_norway::to_string(&pipeline["packages"]["script"]).expect("YAML");
    let package = pipeline["packages"]["variables"]["PACKAGE"]
        .as_str()
        .expect("an address");
    assert!(links.len() >= 3);
    for link in links {
        let name = link["name"].as_str().expect("a name");
        assert_eq!(link["url"].as_str(), Some(format!("{package}/{name}").as_str()));
        assert_eq!(link["filepath"].as_str(), Some(format!("/{name}").as_str()));
        assert!(uploaded.contains(name), "{name} is not uploaded");
        let pattern = name
            .replace("amd64", "$architecture")
            .replace("arm64", "$architecture");
        assert!(made.contains(&pattern), "{name} is not made");
    }
}
