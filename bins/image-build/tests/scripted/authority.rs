//! A registry whose certificate a private authority signed: `--ca-file` has to reach our own engine and the builder.

use std::fs;
use std::path::PathBuf;

use towpath_sandbox::base_image::BaseImage;
use towpath_sandbox::servers::{Authority, GuardedRegistry, Registry, Validity, docker_config};
use towpath_sandbox::tools::BuilderKind;

use crate::workshop::{PASSWORD, Ran, USER, Workshop};

/// A workshop, and beside it a registry behind TLS with a base image in it.
struct Guarded {
    workshop: Workshop,
    registry: Registry,
    ca_file: PathBuf,
    ca_text: String,
}

impl Guarded {
    async fn open() -> Self {
        let workshop = Workshop::open().await;
        let users = [(USER, PASSWORD)];
        let GuardedRegistry {
            registry,
            authority,
            ca_file,
        } = GuardedRegistry::start(&workshop.guardian, &workshop.tools, &users, Validity::Now, false)
            .await
            .unwrap();
        let logins = docker_config(&[(registry.host(), USER, PASSWORD)]);
        fs::write(workshop.docker_config.join("config.json"), logins.to_string()).unwrap();
        let guarded = Guarded {
            ca_text: authority.certificate().to_owned(),
            workshop,
            registry,
            ca_file,
        };
        let base = guarded.workshop.guardian.dir().join("base");
        let image = BaseImage::make(&guarded.workshop.tools).await.unwrap();
        image.write_oci_layout(&base, "1").unwrap();
        let repository = format!("{}/base/busybox", guarded.registry.host());
        let mut push = guarded.command(&["push", base.to_str().unwrap(), "--tag", "1"]);
        push.env("TOWPATH_REPOSITORY", repository)
            .env("TOWPATH_REGISTRY_CA_FILE", &guarded.ca_file);
        Ran::of(push.output().await.unwrap()).done();
        let dockerfile = format!(
            "FROM {0}/base/busybox:1 AS build\nRUN echo x > /x\nFROM {0}/base/busybox:1\nCOPY --from=build /x /x\n",
            guarded.registry.host()
        );
        guarded.workshop.dockerfile(&dockerfile);
        guarded
    }

    /// image-build for a repository of that registry.
    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.workshop.command(arguments);
        command
            .env("TOWPATH_REPOSITORY", format!("{}/shop/web", self.registry.host()))
            .env("TOWPATH_TLS_HOSTS", self.registry.host());
        command
    }

    fn tagged(&self, tag: &str) -> Option<String> {
        let link = format!("docker/registry/v2/repositories/shop/web/_manifests/tags/{tag}/current/link");
        fs::read_to_string(self.registry.storage().join(link)).ok()
    }
}

#[tokio::test]
async fn the_builder_is_told_whom_to_trust() {
    let guarded = Guarded::open().await;
    guarded.workshop.behave(
        r#"for argument in "$@"; do
    case $argument in --registry-certificate=*) cp "${argument##*=}" "$here/seen-authority" ;; esac
done
succeed
"#,
    );
    let stranger = Authority::new("stranger").unwrap();
    let wrong = guarded.workshop.guardian.dir().join("stranger.pem");
    fs::write(&wrong, stranger.certificate()).unwrap();
    for ca in [&[][..], &["--ca-file", wrong.to_str().unwrap()]] {
        let arguments = [&["--tag", "test"], ca].concat();
        let ran = Ran::of(guarded.command(&arguments).output().await.unwrap());
        let last = ran.failed(4);
        assert!(last.contains("no authority that is trusted here"), "{last}");
    }
    assert_eq!(guarded.workshop.seen("arguments"), "", "nothing was built");
    let arguments = ["--tag", "test", "--ca-file", guarded.ca_file.to_str().unwrap()];
    let ran = Ran::of(guarded.command(&arguments).output().await.unwrap());
    let digest = ran.done()["digest"].as_str().unwrap().to_owned();
    assert_eq!(guarded.tagged("test"), Some(digest));
    let trusted = format!("--registry-certificate={}=", guarded.registry.host());
    let arguments = guarded.workshop.seen("arguments");
    assert!(arguments.contains(&trusted), "{arguments}");
    assert!(!arguments.contains("--insecure-registry"), "{arguments}");
    assert_eq!(guarded.workshop.seen("seen-authority"), guarded.ca_text);
    guarded.workshop.close().await;
}

/// With whichever builder this machine has: it pulls the base image from there itself.
#[tokio::test]
async fn a_real_builder_trusts_it_too() {
    let guarded = Guarded::open().await;
    let builder = &guarded.workshop.tools.builder;
    let path = std::env::var_os("PATH").unwrap();
    let folders =
        std::iter::once(guarded.workshop.tools.bin_dir().to_owned()).chain(std::env::split_paths(&path));
    let ca_file = guarded.ca_file.to_str().unwrap();
    let mut command = guarded.command(&["--tag", "test", "--ca-file", ca_file]);
    command
        .env_remove("KANIKO_DIR")
        .env("PATH", std::env::join_paths(folders).unwrap())
        .env("TOWPATH_BUILDER", builder.kind.name());
    if builder.kind == BuilderKind::Kaniko {
        command
            .env("TOWPATH_KANIKO", &builder.program)
            .env("TOWPATH_ISOLATION", "chroot");
    }
    let ran = Ran::of(command.output().await.unwrap());
    let report = ran.done();
    assert_eq!(report["builder"], builder.kind.name());
    assert_eq!(guarded.tagged("test").as_deref(), report["digest"].as_str());
    guarded.workshop.close().await;
}
