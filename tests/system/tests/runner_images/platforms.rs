//! buildah makes both targets for both platforms, of static binaries and Debian packages, as an index each.
//!
//! One test, since the binaries and bases take a while to make: they are made once, then everything is looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use towpath_sandbox::bill_of_materials;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::Registry;
use towpath_sandbox::static_binaries::{self, PLATFORMS, PROGRAM};
use towpath_sandbox::tools::{BuilderKind, Progress, Tools};
use towpath_sandbox::towpath_binaries::NAMES;

use crate::checkout;
use crate::layout::{Image, Layout};

/// The time of the commit that is built, in seconds since 1970: that of all files and of the image.
const COMMITTED: u64 = 1_760_000_000;
const CREATED: &str = "2025-10-09T08:53:20Z";
const LABELS: [(&str, &str); 4] = [
    ("source", "https://gitlab.example.com/platform/towpath"),
    ("revision", "0123456789abcdef0123456789abcdef01234567"),
    ("version", "0.1.0"),
    ("created", CREATED),
];
const DEADLINE: Duration = Duration::from_secs(600);

struct World {
    guardian: Guardian,
    buildah: PathBuf,
    registry: Registry,
}

impl World {
    fn at(&self, name: &str) -> PathBuf {
        self.guardian.dir().join(name)
    }

    /// buildah as root in plain folders: it needs no rights of a container's and no kernel module.
    ///
    /// Each index is made in a storage of its own, as on a fresh runner: what buildah notes of a base depends on whether
    /// it was there already.
    async fn buildah(&self, storage: &str, arguments: &[&str]) -> String {
        let mut command = self.guardian.command(&self.buildah);
        command
            .args(["--storage-driver", "vfs"])
            .arg("--root")
            .arg(self.at("storages").join(storage))
            .arg("--runroot")
            .arg(self.at("runs").join(storage))
            .args(arguments);
        said(command).await
    }

    /// Builds a target for both platforms, and gives back its index.
    async fn build(&self, target: &str, name: &str, base: &str, digest: &str) -> Layout {
        let (context, dockerfile) = (self.at("context"), checkout().join("docker/Dockerfile"));
        // One after the other: built at once, they get into the index in the order in which they are ready.
        for platform in PLATFORMS {
            let mut arguments = vec![
                "build".to_owned(),
                "--isolation=chroot".to_owned(),
                "--format=oci".to_owned(),
                "--no-cache".to_owned(),
                "--tls-verify=false".to_owned(),
                format!("--platform={platform}"),
                format!("--manifest={name}"),
                format!("--target={target}"),
                format!("--timestamp={COMMITTED}"),
                format!("--build-arg=TOOLBOX_BASE={base}@{digest}"),
                format!("--build-arg=KANIKO={base}"),
                format!("--build-arg=KANIKO_DIGEST={digest}"),
                format!("--file={}", dockerfile.display()),
            ];
            for (label, value) in LABELS {
                arguments.push(format!("--label=org.opencontainers.image.{label}={value}"));
            }
            arguments.push(context.display().to_string());
            self.buildah(name, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
                .await;
        }
        let folder = self.at(name);
        self.buildah(
            name,
            &[
                "manifest",
                "push",
                "--all",
                name,
                &format!("oci:{}", folder.display()),
            ],
        )
        .await;
        Layout::open(&folder)
    }

    /// Pushes an index of two bases, and gives back its name and digest.
    async fn base(&self) -> (String, String) {
        let context = self.at("base");
        fs::create_dir(&context).unwrap();
        for platform in PLATFORMS {
            let root = Tools::debian_root(&Progress::lines(), platform.architecture)
                .await
                .expect("Debian packages");
            let mut tar = self.guardian.command("tar");
            tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--file"])
                .arg(context.join(format!("{}.tar", platform.architecture)))
                .arg("--directory")
                .arg(root)
                .arg(".");
            said(tar).await;
        }
        fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nARG TARGETARCH\nADD ${TARGETARCH}.tar /\n",
        )
        .unwrap();
        self.buildah(
            "base",
            &[
                "build",
                "--isolation=chroot",
                "--format=oci",
                "--platform=linux/amd64,linux/arm64",
                "--manifest=base",
                &format!("--timestamp={COMMITTED}"),
                context.to_str().unwrap(),
            ],
        )
        .await;
        let name = format!("{}/base", self.registry.host());
        let digest = self.at("base-digest");
        self.buildah(
            "base",
            &[
                "manifest",
                "push",
                "--all",
                "--tls-verify=false",
                "--digestfile",
                digest.to_str().unwrap(),
                "base",
                &format!("docker://{name}:1"),
            ],
        )
        .await;
        let digest = fs::read_to_string(digest).unwrap();
        (name, digest.trim().to_owned())
    }
}

/// What a command writes to standard output; it has to succeed.
async fn said(mut command: tokio::process::Command) -> String {
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .expect("in time")
        .expect("it starts");
    assert!(
        output.status.success(),
        "{:?}: {}",
        command.as_std(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn each_image_is_an_index_of_static_binaries_that_run() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "what needs root is left out: images are unpacked with their owners, and entered by chroot"
        );
        return;
    }
    let guardian = Guardian::start().expect("a world");
    let tools = Tools::find_or_install(&Progress::lines()).await.expect("tools");
    if tools.builder.kind != BuilderKind::Buildah {
        eprintln!("what needs buildah is left out: {}", tools.builder.why);
        return guardian.stop().await.expect("the world ends");
    }
    let registry = Registry::start(&guardian, &tools, "registry", &[])
        .await
        .expect("a registry");
    let binaries = guardian.dir().join("context/binaries");
    static_binaries::build(&Progress::lines(), &PLATFORMS, "image-test", &binaries)
        .await
        .expect("static binaries");
    let world = World {
        buildah: tools.builder.program.clone(),
        registry,
        guardian,
    };
    let (base, digest) = world.base().await;

    let toolbox = world.build("toolbox", "toolbox", &base, &digest).await;
    let kaniko = world.build("kaniko", "kaniko", &base, &digest).await;
    for (layout, folder) in [(&toolbox, "usr/local/bin"), (&kaniko, "kaniko")] {
        assert_eq!(layout.platforms(), ["linux/amd64", "linux/arm64"]);
        for platform in PLATFORMS {
            let image = layout.image(platform.architecture);
            holds_every_tool(&image, folder);
            says_what_it_is(&image);
        }
    }
    for (target, first) in [("toolbox", &toolbox), ("kaniko", &kaniko)] {
        let again = world
            .build(target, &format!("{target}-again"), &base, &digest)
            .await;
        assert_eq!(again.digest(), first.digest(), "{target}: two builds, one digest");
    }

    let own = PLATFORMS
        .iter()
        .find(|platform| platform.target.starts_with(std::env::consts::ARCH))
        .expect("this machine's platform");
    let other = PLATFORMS
        .iter()
        .find(|platform| *platform != own)
        .expect("another");
    runs_jobs(&world, &toolbox.image(own.architecture)).await;
    runs_elsewhere(&world, &binaries.join(other.architecture), other.target).await;
    for platform in PLATFORMS {
        is_listed(
            &world,
            &toolbox.image(platform.architecture),
            platform.architecture,
        )
        .await;
        let folder = binaries.join(platform.architecture);
        a_program_is_listed(&world, &folder, platform.architecture).await;
    }
    world.guardian.stop().await.expect("the world ends");
}

/// One file, and a link to it for each tool.
fn holds_every_tool(image: &Image<'_>, folder: &str) {
    let entries = image.last_layer();
    let mut expected: Vec<String> = NAMES
        .into_iter()
        .chain([PROGRAM])
        .map(|name| format!("{folder}/{name}"))
        .collect();
    expected.sort();
    assert_eq!(
        entries.keys().cloned().collect::<Vec<_>>(),
        expected,
        "our layer holds the tools and nothing else"
    );
    for (path, entry) in entries {
        assert_eq!(entry.time, COMMITTED, "{path} carries the commit's time");
        if path.ends_with(&format!("/{PROGRAM}")) {
            assert!(entry.is_file, "{path} is the program");
            assert_eq!(entry.mode, 0o755, "{path} can be run by everyone");
            assert!(entry.size > 0, "{path} is empty");
        } else {
            assert_eq!(
                entry.link.as_deref(),
                Some(PROGRAM),
                "{path} leads to the program"
            );
            assert_eq!(entry.size, 0, "{path} is no second copy");
        }
    }
}

fn says_what_it_is(image: &Image<'_>) {
    let (config, labels) = (&image.config["config"], &image.config["config"]["Labels"]);
    for (label, value) in LABELS {
        assert_eq!(labels[format!("org.opencontainers.image.{label}")], value);
    }
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
    let title = labels["org.opencontainers.image.title"].as_str().unwrap();
    assert!(
        config["Entrypoint"].as_array().is_none_or(Vec::is_empty),
        "an entrypoint would hang jobs on Kubernetes"
    );
    let user = config["User"].as_str().unwrap_or_default();
    match title {
        "Towpath toolbox" => assert_eq!(user, "65532:65532", "jobs need no root"),
        "Towpath kaniko" => assert_eq!(user, "", "kaniko works as root"),
        other => panic!("an image titled {other}"),
    }
    assert_eq!(
        image.config["architecture"],
        image.descriptor["platform"]["architecture"]
    );
    assert!(
        image.config["created"]
            .as_str()
            .unwrap()
            .starts_with(&CREATED[..19])
    );
}

/// How GitLab's runner starts a job's shell: it looks for one, and passes the script on standard input.
///
/// Source: GitLab Runner, `shells/bash.go` (`BashDetectShellScript`, and the head of a generated script).
const FIND_SHELL: &str = "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; then\n\texec /usr/bin/bash \n\
    elif [ -x /bin/bash ]; then\n\texec /bin/bash \nelif [ -x /usr/local/bin/sh ]; then\n\texec /usr/local/bin/sh \nelif [ -x /usr/bin/sh ]; then\n\texec /usr/bin/sh \n\
    elif [ -x /bin/sh ]; then\n\texec /bin/sh \nelif [ -x /busybox/sh ]; then\n\texec /busybox/sh \nelse\n\techo shell not found\n\texit 1\nfi\n";

/// A job that works as a user whom no file names, with the variables that the image sets.
async fn runs_jobs(world: &World, image: &Image<'_>) {
    let root = world.at("container");
    image.unpack(&root);
    // What a container's engine provides.
    for (device, number) in [("null", "3"), ("zero", "5"), ("random", "8"), ("urandom", "9")] {
        let mut mknod = world.guardian.command("mknod");
        mknod
            .arg("--mode=666")
            .arg(root.join("dev").join(device))
            .args(["c", "1", number]);
        said(mknod).await;
    }
    let mut script = "set -eo pipefail\nset +o noclobber\n: | eval $'export CI=true\\ncd /tmp\\n".to_owned();
    for name in NAMES {
        script.push_str(&format!("{name} --version | grep -q \"^{name} 0\\\\.\"\\n"));
    }
    script.push_str(
        "id -u\\ngit init --quiet job\\ngit -C job config user.name job\\ngit -C job config user.email job@example.com\\n\
         echo text >job/file\\ngit -C job add file\\ngit -C job commit --quiet --message=\"a commit\"\\n\
         git -C job log --format=%s | grep \"a commit\"\\ngrep -c \"BEGIN CERTIFICATE\" /etc/ssl/certs/ca-certificates.crt >certificates\\n\
         test \"$(cat certificates)\" -gt 100\\necho $HOME $PWD\\n'\nexit 0\n",
    );
    let output = job(world, image, &root, &script).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "65532\na commit\n/tmp /tmp\n"
    );
    let failing =
        "set -eo pipefail\nset +o noclobber\n: | eval $'false | cat\\necho \"went on\"\\n'\nexit 0\n";
    let output = job(world, image, &root, failing).await;
    assert!(!output.status.success(), "a script ends where a command fails");
    assert_eq!(output.stdout, b"");
}

async fn job(world: &World, image: &Image<'_>, root: &Path, script: &str) -> std::process::Output {
    let mut command = world.guardian.command("chroot");
    let user = image.config["config"]["User"].as_str().unwrap();
    command
        .arg(format!("--userspec={user}"))
        .arg("--groups=")
        .arg(root)
        .args(["sh", "-c", FIND_SHELL])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for variable in image.config["config"]["Env"].as_array().unwrap() {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        command.env(name, value);
    }
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).await.unwrap();
    drop(stdin);
    tokio::time::timeout(DEADLINE, child.wait_with_output())
        .await
        .expect("in time")
        .unwrap()
}

/// The other platform's binaries, by a processor that qemu makes up.
async fn runs_elsewhere(world: &World, binaries: &Path, target: &str) {
    let processor = target.split('-').next().unwrap();
    let qemu = Tools::qemu(&Progress::lines(), processor)
        .await
        .expect("Debian's qemu-user-static");
    for name in NAMES {
        let mut command = world.guardian.command(&qemu);
        command.arg(binaries.join(name)).arg("--version");
        let said = said(command).await;
        assert!(said.starts_with(&format!("{name} 0.")), "{said}");
    }
}

/// syft lists what the image is made of, and says which image that is.
async fn is_listed(world: &World, image: &Image<'_>, architecture: &str) {
    let syft = Tools::syft(&Progress::lines()).await.expect("syft");
    let (alone, list) = (
        world.at(&format!("{architecture}-alone")),
        world.at(&format!("{architecture}.spdx.json")),
    );
    image.alone(&alone);
    let mut command = world.guardian.command(syft);
    command
        .args(["scan", "--quiet", "--output"])
        .arg(format!("spdx-json={}", list.display()))
        .arg(format!("oci-dir:{}", alone.display()))
        .env("SYFT_CHECK_FOR_APP_UPDATE", "false");
    said(command).await;
    let list: Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
    let packages = list["packages"].as_array().unwrap();
    for wanted in ["git", "ca-certificates"] {
        assert!(
            packages.iter().any(|package| package["name"] == wanted
                && !package["versionInfo"].as_str().unwrap_or_default().is_empty()),
            "{wanted} is not listed"
        );
    }
    our_crates_are_in(packages);
    let about = packages
        .iter()
        .find(|package| package["primaryPackagePurpose"] == "CONTAINER")
        .expect("the list says what it is about");
    assert_eq!(about["versionInfo"], image.digest(), "the list is of this image");
}

/// What our program is made of is listed, in the versions that it was built with.
fn our_crates_are_in(packages: &[Value]) {
    for name in CRATES {
        let version = locked_version(name);
        let address = format!("pkg:cargo/{name}@{version}");
        assert!(
            packages.iter().any(|package| package["name"] == name
                && package["versionInfo"] == version
                && package["externalRefs"]
                    .as_array()
                    .is_some_and(|references| references
                        .iter()
                        .any(|reference| reference["referenceLocator"] == address))),
            "{address} is not listed"
        );
    }
    assert!(
        packages.iter().all(|package| package["name"] != "axum"),
        "what only the sandbox is made of is listed"
    );
}

/// A release's program has a list of its own, which says which program that is.
async fn a_program_is_listed(world: &World, binaries: &Path, architecture: &str) {
    let (program, name) = (binaries.join(PROGRAM), format!("towpath-linux-{architecture}"));
    let list = world.at(&format!("{name}.spdx.json"));
    bill_of_materials::write(&Progress::lines(), &program, &name, &list)
        .await
        .expect("syft");
    let list: Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
    assert_eq!(list["spdxVersion"], "SPDX-2.3");
    let packages = list["packages"].as_array().unwrap();
    our_crates_are_in(packages);
    let about = packages.iter().find(|package| package["name"] == name.as_str());
    let about = about.expect("the list says what it is about");
    assert_eq!(about["versionInfo"], locked_version("towpath"));
    let sum = Sha256::digest(fs::read(&program).unwrap());
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(about["checksums"][0]["algorithm"], "SHA256");
    assert_eq!(about["checksums"][0]["checksumValue"], sum);
}

/// Some of the crates that the program is made of: the TLS, its cryptography, the runtime, and one tool.
const CRATES: [&str; 5] = ["rustls", "ring", "tokio", "towpath", "kustomize-bump"];

/// The version of a crate that the lock file has.
fn locked_version(name: &str) -> String {
    let locked = fs::read_to_string(checkout().join("Cargo.lock")).unwrap();
    let entry = locked
        .split("[[package]]")
        .find(|entry| entry.starts_with(&format!("\nname = \"{name}\"\n")))
        .expect("it is in the lock file");
    let version = entry.lines().find_map(|line| line.strip_prefix("version = "));
    version.expect("it has a version").trim_matches('"').to_owned()
}
