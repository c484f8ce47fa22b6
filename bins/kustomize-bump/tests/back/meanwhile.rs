//! Others who are faster: what they did is looked at again before anything is written on top of it.

use std::os::unix::fs::PermissionsExt;

use crate::order::Place;
use crate::world::{A, B, C, Ended, World};
use crate::{PROD, ROLLBACK, prod, world_with};

/// A program in the place of git that lets Bob run first when a push begins.
const FASTER: &str = "#!/bin/sh
case \"$*\" in *\"push --porcelain\"*)
  if mkdir \"$ONCE\" 2>/dev/null; then
    PATH=\"$OWN_PATH\" GITLAB_USER_NAME=Bob \"$BUMP\" $MEANWHILE >\"$ONCE/log\" 2>&1 || exit 1
  fi;;
esac
exec \"$REAL_GIT\" \"$@\"
";

/// Runs the binary; when it pushes, Bob runs it with other arguments first.
async fn run(world: &World, variables: &[(&str, &str)], arguments: &[&str], meanwhile: &str) -> Ended {
    let bin = world.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("git"), FASTER).unwrap();
    std::fs::set_permissions(bin.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    let own = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&own)
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    let once = world.folder.path().join("once");
    let path = format!("{}:{own}", bin.display());
    let more = [
        ("PATH", path.as_str()),
        ("OWN_PATH", &own),
        ("REAL_GIT", real.to_str().unwrap()),
        ("ONCE", once.to_str().unwrap()),
        ("BUMP", env!("CARGO_BIN_EXE_kustomize-bump")),
        ("MEANWHILE", meanwhile),
    ];
    let ended = world.bump_with(&[variables, &more].concat(), arguments).await;
    assert!(once.exists(), "Bob never came to it: {ended:?}");
    ended
}

#[tokio::test]
async fn another_persons_rollback_to_elsewhere_is_not_undone_unseen() {
    let world = world_with(&[A, B, C]).await;
    let bob = "rollback --image app --yes --to 2 --reason both-are-bad";
    let ended = run(&world, &[], &ROLLBACK, bob).await;
    ended.refused(
        6,
        &format!("was held at app@{A} by Bob <ada@example.com> meanwhile: both-are-bad"),
    );
    assert_eq!(world.file(PROD).await, prod(A));
}

#[tokio::test]
async fn a_deployment_that_comes_first_makes_one_look_again() {
    let world = world_with(&[A, B]).await;
    let digest = crate::world::digest(7);
    let ended = run(&world, &[], &ROLLBACK, &format!("set app@{digest}")).await;
    // One back is B now, which nobody agreed to.
    ended.refused(6, "the way back of image app changed from");
    assert_eq!(world.file(PROD).await, prod(&digest));
}

#[tokio::test]
async fn a_newer_pipeline_that_comes_first_turns_the_older_one_away() {
    let place = Place::start().await;
    let [first, second, third] = &place.line[..] else {
        panic!("three commits")
    };
    place.set(A, first, &["--order", "off"]).await.report();
    place.set(B, first, &[]).await.report();
    let variables = [
        ("SOURCE_PROJECT", "team/app"),
        ("TOWPATH_SOURCE_TOKEN", place.token.as_str()),
    ];
    let newest = crate::world::digest(9);
    let older = ["set", &format!("app@{C}"), "--source-commit", second];
    let bob = format!("set app@{newest} --source-commit {third}");
    let ended = run(&place.world, &variables, &older, &bob).await;
    ended.refused(
        6,
        &format!("is from commit {third}, which is newer than {second}"),
    );
    assert_eq!(place.world.file(PROD).await, prod(&newest));
}

#[tokio::test]
async fn a_rollback_that_comes_first_holds_against_a_pipeline_under_way() {
    let world = world_with(&[A, B]).await;
    let set = ["set", &format!("app@{C}")];
    let ended = run(&world, &[], &set, "rollback --image app --yes --reason it-fails").await;
    ended.refused(4, "it-fails");
    assert_eq!(world.file(PROD).await, prod(A));
}
