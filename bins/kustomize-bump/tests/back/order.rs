//! Slow old pipelines: the order of source commits, asked of a repository over HTTP and of a clone.

use std::path::PathBuf;

use towpath_sandbox::gitlab::{ProjectSettings, Role, Scope};

use crate::world::{self, A, B, C, Ended, Way, World, both_ways, digest};
use crate::{PROD, prod};

both_ways!(
    a_slow_old_pipeline_does_not_undo_a_newer_one,
    a_rollback_is_known_by_what_was_set_then,
    a_clone_is_asked_as_well_and_has_to_be_deep_enough,
    what_cannot_be_known_is_said_and_refused_where_it_has_to_be_known,
    the_order_is_looked_at_again_on_each_new_tip,
);

/// An environment repository, and the repository of the image with a line of commits and one beside it.
pub(crate) struct Place {
    pub(crate) world: World,
    source: PathBuf,
    pub(crate) token: String,
    /// The line, oldest first.
    pub(crate) line: Vec<String>,
    /// A commit on the first of the line, and not in the rest of it.
    aside: String,
}

impl Place {
    pub(crate) async fn start(way: Way) -> Place {
        let world = World::over(way, &[(PROD, &prod(A))]).await;
        let project = world
            .gitlab
            .create_project("team/app", ProjectSettings::default())
            .await
            .unwrap();
        let source = world.gitlab.repository(project).unwrap();
        let token = world
            .gitlab
            .project_access_token(project, Role::Reporter, &[Scope::ReadRepository])
            .unwrap();
        let mut line: Vec<String> = Vec::new();
        for _ in 0..3 {
            line.push(commit(&world, &source, "refs/heads/main", line.last()).await);
        }
        let aside = commit(&world, &source, "refs/heads/hotfix", line.first()).await;
        Place {
            world,
            source,
            token,
            line,
            aside,
        }
    }

    /// Deploys a digest that was built from a commit.
    pub(crate) async fn set(&self, digest: &str, commit: &str, more: &[&str]) -> Ended {
        let variables = [
            ("SOURCE_PROJECT", "team/app"),
            ("SOURCE_COMMIT", commit),
            ("TOWPATH_SOURCE_TOKEN", &self.token),
        ];
        let image = format!("app@{digest}");
        self.world
            .bump_with(&variables, &[&["set", image.as_str()], more].concat())
            .await
    }
}

async fn commit(world: &World, source: &std::path::Path, name: &str, parent: Option<&String>) -> String {
    let folder = source.to_str().unwrap();
    let author = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
    let tree = world
        .git(&["-C", folder, "hash-object", "-wt", "tree", "/dev/null"])
        .await
        .unwrap();
    let mut arguments = [&["-C", folder], &author[..], &["commit-tree", &tree, "-m", name]].concat();
    if let Some(parent) = parent {
        arguments.extend(["-p", parent]);
    }
    let id = world.git(&arguments).await.unwrap();
    world.git(&["-C", folder, "update-ref", name, &id]).await.unwrap();
    id
}

async fn a_slow_old_pipeline_does_not_undo_a_newer_one(way: Way) {
    let place = Place::start(way).await;
    let [first, second, third] = &place.line[..] else {
        panic!("three commits")
    };
    // The first image was set by hand: nobody knows its source, and it is said.
    let ended = place.set(B, second, &[]).await;
    assert_eq!(ended.report()["changed"], true);
    assert!(ended.stderr.contains("is not known"), "{}", ended.stderr);

    let ended = place.set(C, first, &[]).await;
    ended.refused(
        6,
        &format!("is from commit {second}, which is newer than {first}"),
    );
    assert_eq!(place.world.file(PROD).await, prod(B));
    place
        .set(C, first, &["--dry-run"])
        .await
        .refused(6, "which is newer than");
    // Built again from the same commit, and from a newer one.
    place.set(C, second, &["--order", "require"]).await.report();
    place.set(B, third, &["--order", "require"]).await.report();
    // Beside the line: it goes, and what it loses is said.
    place
        .set(C, &place.aside, &["--order", "require"])
        .await
        .refused(6, "neither that nor");
    let ended = place.set(C, &place.aside, &[]).await;
    ended.report();
    assert!(
        ended.stderr.contains("does not contain: what it changed goes"),
        "{}",
        ended.stderr
    );
    // On purpose.
    place.set(B, first, &["--order", "off"]).await.report();
    assert_eq!(place.world.file(PROD).await, prod(B));
    // What is there already is no change, whatever it was built from.
    assert_eq!(
        place.set(B, first, &["--order", "require"]).await.report()["changed"],
        false
    );
}

async fn a_rollback_is_known_by_what_was_set_then(way: Way) {
    let place = Place::start(way).await;
    let [first, second, third] = &place.line[..] else {
        panic!("three commits")
    };
    place.set(B, second, &[]).await.report();
    place.set(C, third, &[]).await.report();
    // The job that rolls back has the source of its own pipeline, which is not that of the image.
    let variables = [("SOURCE_COMMIT", third.as_str()), ("SOURCE_PROJECT", "team/app")];
    place.world.bump_with(&variables, &crate::ROLLBACK).await.report();
    assert_eq!(place.world.file(PROD).await, prod(B));
    place.set(C, third, &[]).await.refused(4, "is held at");
    place.world.bump(&["release", "--image", "app"]).await.report();
    place
        .set(&digest(1), first, &[])
        .await
        .refused(6, "which is newer than");
    place.set(C, third, &["--order", "require"]).await.report();
}

async fn a_clone_is_asked_as_well_and_has_to_be_deep_enough(way: Way) {
    let place = Place::start(way).await;
    let [first, second, third] = &place.line[..] else {
        panic!("three commits")
    };
    place.set(B, third, &[]).await.report();
    let folder = place.world.folder.path();
    let (deep, shallow) = (folder.join("deep"), folder.join("shallow"));
    let address = format!("file://{}", place.source.display());
    for (clone, depth) in [(&deep, "--depth=100"), (&shallow, "--depth=1")] {
        let clone = [
            "clone",
            "--quiet",
            "--bare",
            depth,
            &address,
            clone.to_str().unwrap(),
        ];
        place.world.git(&clone).await.unwrap();
    }
    let from = async |clone: &PathBuf, commit: &str, order: &str| {
        let clone = clone.to_str().unwrap();
        place
            .set(C, commit, &["--source-checkout", clone, "--order", order])
            .await
    };
    from(&deep, second, "check")
        .await
        .refused(6, "which is newer than");
    from(&shallow, second, "require").await.refused(4, "is not known");
    from(&folder.join("none"), first, "require")
        .await
        .refused(4, "is not known");
    place
        .set(C, first, &["--source-repo", &address, "--order", "require"])
        .await
        .refused(6, "which is newer than");
    assert_eq!(place.world.file(PROD).await, prod(B));
}

async fn what_cannot_be_known_is_said_and_refused_where_it_has_to_be_known(way: Way) {
    let place = Place::start(way).await;
    let [first, second, _] = &place.line[..] else {
        panic!("three commits")
    };
    place.set(B, second, &[]).await.report();
    let lost = "0123456789abcdef0123456789abcdef01234567";
    let required = async |commit: &str, more: &[&str]| {
        place
            .set(C, commit, &[&["--order", "require"], more].concat())
            .await
    };
    required(lost, &[]).await.refused(4, "has not both");
    required("0123456", &[])
        .await
        .refused(4, "is not the full name of a commit");
    required(first, &["--source-project", "team/other"])
        .await
        .refused(4, "another project");
    let nobody = "http://127.0.0.1:9/team/app.git";
    required(first, &["--source-repo", nobody])
        .await
        .refused(7, "is not known");
    // The environment repository's own token may not see the other one.
    place
        .world
        .bump_with(
            &[("SOURCE_PROJECT", "team/app"), ("SOURCE_COMMIT", first)],
            &["set", &format!("app@{C}"), "--order", "require"],
        )
        .await
        .refused(4, "there is no repository at");
    place
        .world
        .bump(&["set", &format!("app@{C}"), "--order", "require"])
        .await
        .refused(2, "needs the commit");
    assert_eq!(place.world.file(PROD).await, prod(B));
    // Unless it has to be known, a deployment does not wait for it.
    let ended = place.set(C, lost, &[]).await;
    ended.report();
    assert!(ended.stderr.contains("has not both"), "{}", ended.stderr);
}

async fn the_order_is_looked_at_again_on_each_new_tip(way: Way) {
    let place = Place::start(way).await;
    let mut line = place.line.clone();
    for _ in 0..5 {
        let next = commit(&place.world, &place.source, "refs/heads/main", line.last()).await;
        line.push(next);
    }
    place.set(&digest(100), &line[0], &[]).await.report();
    // All pipelines at once, in any order: whoever comes late with an older commit is turned away.
    let digests: Vec<String> = (0..line.len()).map(digest).collect();
    let runs = line
        .iter()
        .zip(&digests)
        .map(|(commit, digest)| place.set(digest, commit, &[]));
    let ended = futures_util::future::join_all(runs).await;
    for ended in &ended {
        assert!(matches!(ended.code, 0 | 6), "{ended:?}");
    }
    assert_eq!(ended.last().unwrap().code, 0, "the newest always gets in");
    assert_eq!(place.world.file(PROD).await, prod(digests.last().unwrap()));
}
