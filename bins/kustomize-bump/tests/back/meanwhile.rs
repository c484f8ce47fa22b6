//! Others who are faster: what they did is looked at again before anything is written on top of it.

use std::os::unix::fs::PermissionsExt;

use crate::order::Place;
use crate::world::{A, B, C, Ended, Way, World};
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

/// A program in the place of git whose first push breaks off, and arrives when the second one begins. A second passes,
/// so that the two commits differ.
const LATER: &str = "#!/bin/sh
case \"$*\" in *\"push --porcelain\"*)
  left=$#
  for argument in \"$@\"; do
    shift
    left=$((left - 1))
    if [ $left -gt 0 ]; then set -- \"$@\" \"$argument\"; else refs=$argument; fi
  done
  if mkdir \"$ONCE\" 2>/dev/null; then printf '%s' \"$refs\" >\"$ONCE/refs\"; sleep 1.1; exit 1; fi
  if mkdir \"$ONCE/arrived\" 2>/dev/null; then \"$REAL_GIT\" \"$@\" \"$(cat \"$ONCE/refs\")\" >/dev/null || exit 1; fi
  set -- \"$@\" \"$refs\";;
esac
exec \"$REAL_GIT\" \"$@\"
";

/// A program in the place of git whose first push arrives, but is told to be refused, since it was sent twice. Meanwhile
/// Bob builds on it.
const TWICE: &str = "#!/bin/sh
case \"$*\" in *\"push --porcelain\"*)
  if mkdir \"$ONCE\" 2>/dev/null; then
    \"$REAL_GIT\" \"$@\" >/dev/null || exit 1
    PATH=\"$OWN_PATH\" \"$BUMP\" $MEANWHILE >\"$ONCE/log\" 2>&1 || exit 1
    printf 'To x\\n!\\tx:refs/heads/main\\t[remote rejected] (failed to update ref)\\nDone\\n'
    exit 1
  fi;;
esac
exec \"$REAL_GIT\" \"$@\"
";

/// Runs the binary; when it pushes, Bob runs it with other arguments first.
async fn run(world: &World, variables: &[(&str, &str)], arguments: &[&str], meanwhile: &str) -> Ended {
    let bump = env!("CARGO_BIN_EXE_kustomize-bump");
    run_while(world, FASTER, variables, arguments, bump, meanwhile).await
}

/// The same with another program in the place of git, or another than the binary for what happens meanwhile.
async fn run_while(
    world: &World,
    git: &str,
    variables: &[(&str, &str)],
    arguments: &[&str],
    program: &str,
    meanwhile: &str,
) -> Ended {
    let bin = world.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("git"), git).unwrap();
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
        ("BUMP", program),
        ("MEANWHILE", meanwhile),
    ];
    let ended = world.bump_with(&[variables, &more].concat(), arguments).await;
    assert!(once.exists(), "nothing happened meanwhile: {ended:?}");
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
    let place = Place::start(Way::Git).await;
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

#[tokio::test]
async fn what_somebody_takes_away_from_the_branch_does_not_come_back() {
    let world = world_with(&[A, B]).await;
    let kept = world.git(&["rev-parse", "main~1"]).await.unwrap();
    let repository = world.repository();
    let set_back = format!("-C {} update-ref refs/heads/main {kept}", repository.display());
    let set = ["set", &format!("app@{C}")];
    let ended = run_while(&world, FASTER, &[], &set, "git", &set_back).await;
    assert_eq!(ended.report()["attempts"], 2);
    assert_eq!(world.file(PROD).await, prod(C));
    assert_eq!(world.git(&["rev-parse", "main~1"]).await.unwrap(), kept);
}

#[tokio::test]
async fn a_push_that_arrives_late_is_told_as_what_it_did() {
    let world = world_with(&[A]).await;
    let set = ["set", &format!("app@{B}")];
    let report = run_while(&world, LATER, &[], &set, "", "").await.report();
    assert_eq!(
        (&report["changed"], &report["attempts"]),
        (&true.into(), &3.into())
    );
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!(report["files"][0]["old"]["digest"], A);
    assert_eq!(world.commits().await, 3);
}

/// Bob builds on it before anybody looks. What he did came later, and stands.
#[tokio::test]
async fn a_push_that_arrives_late_is_not_made_again_on_top_of_what_came_after_it() {
    let world = world_with(&[A]).await;
    let set = ["set", &format!("app@{B}")];
    let arrived = ">/dev/null || exit 1; fi";
    let and_bob = ">/dev/null && PATH=\"$OWN_PATH\" \"$BUMP\" $MEANWHILE >\"$ONCE/log\" 2>&1 || exit 1; fi";
    assert!(LATER.contains(arrived));
    let git = LATER.replace(arrived, and_bob);
    let (bump, bob) = (env!("CARGO_BIN_EXE_kustomize-bump"), format!("set app@{C}"));
    let report = run_while(&world, &git, &[], &set, bump, &bob).await.report();
    assert_eq!(report["changed"], true);
    let landed = world.git(&["rev-parse", "main~1"]).await.unwrap();
    assert_eq!(report["commit"], landed);
    assert_eq!((world.commits().await, world.file(PROD).await), (4, prod(C)));
}

#[tokio::test]
async fn a_push_that_was_sent_twice_is_told_as_what_it_did() {
    let world = world_with(&[A]).await;
    world
        .push(&[("overlays/test/kustomization.yaml", &prod(A))])
        .await;
    let set = ["set", &format!("app@{B}")];
    let bump = env!("CARGO_BIN_EXE_kustomize-bump");
    let bob = format!("set app@{C} --path overlays/test");
    let report = run_while(&world, TWICE, &[], &set, bump, &bob).await.report();
    assert_eq!(
        (&report["changed"], &report["attempts"]),
        (&true.into(), &2.into())
    );
    assert_eq!(
        report["commit"],
        world.git(&["rev-parse", "main~1"]).await.unwrap()
    );
}
