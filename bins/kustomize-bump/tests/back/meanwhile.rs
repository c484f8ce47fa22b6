//! Others who are faster: what they did is looked at again before anything is written on top of it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use towpath_sandbox::gitlab::Trouble;

use crate::order::Place;
use crate::world::{self, A, B, C, Ended, Way, World, both_ways};
use crate::{PROD, ROLLBACK, prod, world_over, world_with};

both_ways!(
    another_persons_rollback_to_elsewhere_is_not_undone_unseen,
    a_deployment_that_comes_first_makes_one_look_again,
    a_newer_pipeline_that_comes_first_turns_the_older_one_away,
    a_rollback_that_comes_first_holds_against_a_pipeline_under_way,
    what_somebody_takes_away_from_the_branch_does_not_come_back,
    a_push_that_arrives_late_is_told_as_what_it_did,
    a_push_that_arrives_late_is_not_made_again_on_top_of_what_came_after_it,
);

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

/// Runs the binary. When it pushes, or GitLab is at work on its commit, Bob runs it with other arguments first.
async fn run(world: &World, variables: &[(&str, &str)], arguments: &[&str], meanwhile: &str) -> Ended {
    let bump = env!("CARGO_BIN_EXE_kustomize-bump");
    match world.way {
        Way::Git => run_while(world, FASTER, variables, arguments, bump, meanwhile).await,
        Way::Api => {
            let (bob, done) = (Bob::of(world, meanwhile), Arc::new(AtomicBool::new(false)));
            let first = done.clone();
            world.gitlab.before_commit(move || {
                if !first.swap(true, Ordering::SeqCst) {
                    bob.run();
                }
            });
            let ended = world.bump_with(variables, arguments).await;
            assert!(
                done.load(Ordering::SeqCst),
                "nothing happened meanwhile: {ended:?}"
            );
            ended
        }
    }
}

/// Bob on the server itself, which waits for him and could not answer him.
struct Bob {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    repository: PathBuf,
}

impl Bob {
    fn of(world: &World, arguments: &str) -> Bob {
        let mut environment = world.environment();
        for name in ["TOWPATH_PROJECT", "TOWPATH_GIT_TOKEN"] {
            environment.remove(name);
        }
        let repository = world.repository();
        environment.insert("TOWPATH_REPO".into(), repository.display().to_string());
        environment.insert("GITLAB_USER_NAME".into(), "Bob".into());
        Bob {
            arguments: arguments.split(' ').map(str::to_owned).collect(),
            environment,
            repository,
        }
    }

    fn run(&self) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_kustomize-bump"))
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// Moves the branch, and gives where it was.
    fn move_to(&self, commit: &str) -> String {
        let git = |arguments: &[&str]| {
            let output = std::process::Command::new("git")
                .args(arguments)
                .current_dir(&self.repository)
                .output()
                .unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let was = git(&["rev-parse", "main"]);
        git(&["update-ref", "refs/heads/main", commit]);
        was
    }
}

/// Runs the binary over an API that loses the answer to the first commit, and takes that commit only when the second one
/// comes in, between its lock and itself. Then Bob runs, if he is to.
async fn run_late(world: &World, arguments: &[&str], meanwhile: &str) -> Ended {
    let start = world.git(&["rev-parse", "main"]).await.unwrap();
    let bob = Arc::new(Bob::of(world, meanwhile));
    // The commits that came in, and the first of them, for as long as it is not there.
    let (commits, late) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(None::<String>)),
    );
    let (seen, kept, mover) = (commits.clone(), late.clone(), bob.clone());
    world.gitlab.trouble(move |method, path| {
        if method == "POST" && path.ends_with("/repository/commits") {
            return (seen.fetch_add(1, Ordering::SeqCst) == 0).then_some(Trouble::Lost);
        }
        if seen.load(Ordering::SeqCst) == 1 {
            let mut kept = kept.lock().unwrap();
            kept.get_or_insert_with(|| mover.move_to(&start));
        }
        None
    });
    let (alone, arrives) = (meanwhile.is_empty(), late.clone());
    world.gitlab.before_commit(move || {
        if commits.load(Ordering::SeqCst) == 2 {
            bob.move_to(arrives.lock().unwrap().as_deref().unwrap());
            if !alone {
                bob.run();
            }
        }
    });
    let ended = world.bump(arguments).await;
    assert!(late.lock().unwrap().is_some(), "nothing was lost: {ended:?}");
    ended
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

async fn another_persons_rollback_to_elsewhere_is_not_undone_unseen(way: Way) {
    let world = world_over(way, &[A, B, C]).await;
    let bob = "rollback --image app --yes --offline --to 2 --reason both-are-bad";
    let ended = run(&world, &[], &ROLLBACK, bob).await;
    ended.refused(
        6,
        &format!("was held at app@{A} by Bob <ada@example.com> meanwhile: both-are-bad"),
    );
    assert_eq!(world.file(PROD).await, prod(A));
}

async fn a_deployment_that_comes_first_makes_one_look_again(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let digest = world::digest(7);
    let ended = run(&world, &[], &ROLLBACK, &format!("set app@{digest}")).await;
    // One back is B now, which nobody agreed to.
    ended.refused(6, "the way back of image app changed from");
    assert_eq!(world.file(PROD).await, prod(&digest));
}

async fn a_newer_pipeline_that_comes_first_turns_the_older_one_away(way: Way) {
    let place = Place::start(way).await;
    let [first, second, third] = &place.line[..] else {
        panic!("three commits")
    };
    place.set(A, first, &["--order", "off"]).await.report();
    place.set(B, first, &[]).await.report();
    let variables = [
        ("SOURCE_PROJECT", "team/app"),
        ("TOWPATH_SOURCE_TOKEN", place.token.as_str()),
    ];
    let newest = world::digest(9);
    let older = ["set", &format!("app@{C}"), "--source-commit", second];
    // What Bob knows of the order is not looked at here.
    let bob = format!("set app@{newest} --order off --source-project team/app --source-commit {third}");
    let ended = run(&place.world, &variables, &older, &bob).await;
    ended.refused(
        6,
        &format!("is from commit {third}, which is newer than {second}"),
    );
    assert_eq!(place.world.file(PROD).await, prod(&newest));
}

async fn a_rollback_that_comes_first_holds_against_a_pipeline_under_way(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let set = ["set", &format!("app@{C}")];
    let ended = run(
        &world,
        &[],
        &set,
        "rollback --image app --yes --offline --reason it-fails",
    )
    .await;
    ended.refused(4, "it-fails");
    assert_eq!(world.file(PROD).await, prod(A));
}

async fn what_somebody_takes_away_from_the_branch_does_not_come_back(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let taken = world.git(&["rev-parse", "main"]).await.unwrap();
    let kept = world.git(&["rev-parse", "main~1"]).await.unwrap();
    let set = ["set", &format!("app@{C}")];
    let ended = match way {
        Way::Git => {
            let repository = world.repository();
            let set_back = format!("-C {} update-ref refs/heads/main {kept}", repository.display());
            run_while(&world, FASTER, &[], &set, "git", &set_back).await
        }
        Way::Api => {
            let (bob, first) = (Bob::of(&world, ""), AtomicBool::new(false));
            let kept = kept.clone();
            world.gitlab.before_commit(move || {
                if !first.swap(true, Ordering::SeqCst) {
                    bob.move_to(&kept);
                }
            });
            world.bump(&set).await
        }
    };
    let report = ended.report();
    assert_eq!(report["attempts"], 2);
    assert_eq!(report["files"][0]["old"]["digest"], A);
    assert_eq!(world.file(PROD).await, prod(C));
    let there = world.git(&["rev-list", "main"]).await.unwrap();
    assert!(there.contains(&kept) && !there.contains(&taken), "{there}");
}

/// The commit below this one.
async fn below(world: &World, commit: &serde_json::Value) -> String {
    let parent = format!("{}^", commit.as_str().unwrap());
    world.git(&["rev-parse", &parent]).await.unwrap()
}

async fn a_push_that_arrives_late_is_told_as_what_it_did(way: Way) {
    let world = world_over(way, &[A]).await;
    let start = world.git(&["rev-parse", "main"]).await.unwrap();
    let set = ["set", &format!("app@{B}")];
    let ended = match way {
        Way::Git => run_while(&world, LATER, &[], &set, "", "").await,
        Way::Api => run_late(&world, &set, "").await,
    };
    let report = ended.report();
    assert_eq!(
        (&report["changed"], &report["attempts"]),
        (&true.into(), &3.into())
    );
    assert_eq!(below(&world, &report["commit"]).await, start);
    assert_eq!(report["files"][0]["old"]["digest"], A);
    assert_eq!(world.file(PROD).await, prod(B));
    let changes = ["rev-list", "--count", "main", "--", PROD];
    assert_eq!(world.git(&changes).await.unwrap(), "3");
}

/// Bob builds on it before anybody looks. What he did came later, and stands.
async fn a_push_that_arrives_late_is_not_made_again_on_top_of_what_came_after_it(way: Way) {
    let world = world_over(way, &[A]).await;
    let start = world.git(&["rev-parse", "main"]).await.unwrap();
    let set = ["set", &format!("app@{B}")];
    let bob = format!("set app@{C}");
    let ended = match way {
        Way::Git => {
            let arrived = ">/dev/null || exit 1; fi";
            let and_bob =
                ">/dev/null && PATH=\"$OWN_PATH\" \"$BUMP\" $MEANWHILE >\"$ONCE/log\" 2>&1 || exit 1; fi";
            assert!(LATER.contains(arrived));
            let git = LATER.replace(arrived, and_bob);
            let bump = env!("CARGO_BIN_EXE_kustomize-bump");
            run_while(&world, &git, &[], &set, bump, &bob).await
        }
        Way::Api => run_late(&world, &set, &bob).await,
    };
    let report = ended.report();
    assert_eq!(report["changed"], true);
    assert_eq!(below(&world, &report["commit"]).await, start);
    assert_eq!(world.file(PROD).await, prod(C));
}

/// git's HTTP library sends a request again whose connection broke off. The client for the API never does with one that
/// changes anything.
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
