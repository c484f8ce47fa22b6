//! Signed commits, as git itself verifies them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests make the world they look at"
)]

mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::process::Command;
use world::{A, B, Way, World};

const PROD: &str = "overlays/prod/kustomization.yaml";

fn prod(digest: &str) -> String {
    format!("images:\n- name: app\n  digest: {digest}\n")
}

/// An SSH key without a passphrase, and who is allowed to sign with it.
async fn ssh_key(world: &World) -> PathBuf {
    let key = world.folder.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&key)
        .status()
        .await
        .unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    std::fs::write(
        world.folder.path().join("allowed"),
        format!("ada@example.com {public}"),
    )
    .unwrap();
    key
}

async fn verify(world: &World) -> Result<String, String> {
    let allowed = world.folder.path().join("allowed");
    let setting = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
    world.git(&["-c", &setting, "verify-commit", "main"]).await
}

#[tokio::test]
async fn an_ssh_key_signs_what_is_pushed() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let key = ssh_key(&world).await;
    assert!(verify(&world).await.is_err(), "the first commit is not signed");
    let signing = [("TOWPATH_SIGNING_KEY", key.to_str().unwrap())];
    let report = world
        .bump_with(&signing, &["set", &format!("app@{B}")])
        .await
        .report();
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    verify(&world).await.unwrap();
    let said = world
        .git(&["log", "-1", "--format=%an <%ae>%n%B", "main"])
        .await
        .unwrap();
    assert!(said.starts_with("Ada <ada@example.com>\nSet app to"), "{said}");
    assert!(said.contains("\n\nTowpath-Action: set\n"), "{said}");
    assert_eq!(world.file(PROD).await, prod(B));
    world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();
}

#[tokio::test]
async fn a_gpg_key_signs_what_is_committed_in_a_checkout() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let home = world.folder.path().join("gnupg");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
    let found = Command::new("gpg")
        .args(["--batch", "--quiet", "--passphrase", "", "--quick-gen-key"])
        .args(["Ada <ada@example.com>", "ed25519", "sign", "never"])
        .env("GNUPGHOME", &home)
        .status()
        .await;
    let Ok(made) = found else {
        eprintln!("skipped: there is no gpg here");
        return;
    };
    assert!(made.success());
    let clone = world.folder.path().join("clone");
    let cloned = Command::new("git")
        .args(["clone", "--quiet"])
        .arg(world.repository())
        .arg(&clone)
        .status()
        .await
        .unwrap();
    assert!(cloned.success());
    let variables = [
        ("TOWPATH_REPO", ""),
        ("TOWPATH_VIA", ""),
        ("TOWPATH_CHECKOUT", clone.to_str().unwrap()),
        ("GNUPGHOME", home.to_str().unwrap()),
        ("TOWPATH_SIGNING_KEY", "ada@example.com"),
        ("TOWPATH_SIGNING_FORMAT", "openpgp"),
    ];
    let arguments = ["set", &format!("app@{B}"), "--commit"];
    let report = world.bump_with(&variables, &arguments).await.report();
    assert!(report["commit"].is_string());
    let verified = Command::new("git")
        .args(["verify-commit", "HEAD"])
        .current_dir(&clone)
        .env("GNUPGHOME", &home)
        .output()
        .await
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let stopped = Command::new("gpgconf")
        .args(["--kill", "all"])
        .env("GNUPGHOME", &home)
        .status()
        .await;
    assert!(stopped.unwrap().success());
}

#[tokio::test]
async fn what_cannot_sign_is_refused_before_anything_is_written() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let key = ssh_key(&world).await;
    let image = format!("app@{B}");
    let with = async |key: &str| {
        let key = ["set", &image, "--signing-key", key];
        world.bump(&key).await
    };
    with("/nowhere/key")
        .await
        .refused(2, "cannot read the signing key");
    let wrong = world.folder.path().join("wrong");
    std::fs::write(&wrong, "no key\n").unwrap();
    std::fs::set_permissions(&wrong, PermissionsExt::from_mode(0o600)).unwrap();
    with(wrong.to_str().unwrap()).await.refused(2, "cannot sign with");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    with(key.to_str().unwrap()).await.refused(2, "others may read");
    assert_eq!(world.commits().await, 1);

    let world = World::over(Way::Api, &[(PROD, &prod(A))]).await;
    let key = ssh_key(&world).await;
    let signing = ["set", &image, "--signing-key", key.to_str().unwrap()];
    world.bump(&signing).await.refused(2, "takes no signature");
}
