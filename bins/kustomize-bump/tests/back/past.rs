//! Histories of many shapes: merged, moved, shallow, long.

use serde_json::Value;

use crate::world::{self, A, B, C, Way, World, both_ways, digest};
use crate::{PROD, ROLLBACK, prod, world_over, world_with};

both_ways!(
    what_a_merge_brought_in_keeps_its_pipeline,
    a_folder_that_was_moved_keeps_its_history_as_far_as_it_is_told,
    a_copy_of_another_environment_has_no_history_of_it,
    no_more_is_read_than_is_asked_for,
    a_commit_that_set_another_image_says_what_ran_then,
    the_entry_that_is_named_now_is_taken_back_whatever_it_was_named_then,
);

/// The steps of a history: action and digest, newest first.
fn steps(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let steps = report["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|step| (text(&step["action"]), text(&step["image"]["digest"])))
        .collect()
}

fn pair(action: &str, digest: &str) -> (String, String) {
    (action.to_owned(), digest.to_owned())
}

async fn what_a_merge_brought_in_keeps_its_pipeline(way: Way) {
    let world = world_over(way, &[A]).await;
    world.git(&["branch", "change", "main"]).await.unwrap();
    let pipeline = "https://gitlab.example.com/team/app/-/pipelines/7";
    world
        .bump_with(
            &[("CI_PIPELINE_URL", pipeline), ("TOWPATH_BRANCH", "change")],
            &["set", &format!("app@{B}")],
        )
        .await
        .report();
    world.push(&[("README.md", "meanwhile\n")]).await;
    world.merge("change").await;
    assert_eq!(world.file(PROD).await, prod(B));

    let report = world.bump(&["history", "--image", "app"]).await.report();
    assert_eq!(steps(&report)[..2], [pair("set", B), pair("set", A)]);
    assert_eq!(report["steps"][0]["pipeline"], pipeline);
    assert_eq!(
        report["steps"][0]["commit"],
        world.git(&["rev-parse", "main"]).await.unwrap()
    );
    assert_eq!(world.bump(&ROLLBACK).await.went_to(), A);
}

async fn a_folder_that_was_moved_keeps_its_history_as_far_as_it_is_told(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let moved = "apps/shop/prod/kustomization.yaml";
    world.rename(PROD, moved).await;
    world.push(&[("README.md", "hello\n")]).await;
    let path = ["--path", "apps/shop/prod"];
    world
        .bump(&[&["set", &format!("app@{C}")], &path[..]].concat())
        .await
        .report();
    let report = world
        .bump(&[&["history", "--image", "app"], &path[..]].concat())
        .await
        .report();
    assert_eq!(report["more"], false);
    let back = async |to| world.bump(&[&ROLLBACK[..], &["--to", to], &path].concat()).await;
    match way {
        Way::Git => {
            let all = [
                pair("set", C),
                pair("set", B),
                pair("set", A),
                pair("none", "none"),
            ];
            assert_eq!(steps(&report), all);
            assert_eq!(back("2").await.went_to(), A);
        }
        // GitLab's list of the commits that changed a file does not follow it to where it was before. What it held when it
        // was moved is known all the same.
        Way::Api => {
            assert_eq!(steps(&report), [pair("set", C), pair("none", B)]);
            back("2").await.refused(5, "there are no 2 deployments");
            assert_eq!(back("1").await.went_to(), B);
        }
    }
}

async fn a_copy_of_another_environment_has_no_history_of_it(way: Way) {
    let world = world_over(way, &[A, B]).await;
    world.push(&[("overlays/eu/kustomization.yaml", &prod(B))]).await;
    let path = ["--path", "overlays/eu"];
    let report = world
        .bump(&[&["history", "--image", "app"], &path[..]].concat())
        .await
        .report();
    assert_eq!(steps(&report), [pair("none", B)]);
    world
        .bump(&[&ROLLBACK[..], &path].concat())
        .await
        .refused(5, "there is nothing to roll image app back to");
}

async fn no_more_is_read_than_is_asked_for(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    for n in 0..70 {
        world.push(&[(PROD, &prod(&digest(n)))]).await;
    }
    let report = world
        .bump(&["history", "--image", "app", "--limit", "3"])
        .await
        .report();
    let expected: Vec<(String, String)> = (67..70).rev().map(|n| pair("none", &digest(n))).collect();
    assert_eq!(steps(&report), expected);
    assert_eq!(report["more"], true);
    let all = world
        .bump(&["history", "--image", "app", "--limit", "500"])
        .await
        .report();
    assert_eq!(steps(&all).len(), 71);
    assert_eq!(all["more"], false);
    // Beyond what is fetched first.
    let commit = world.git(&["rev-parse", "main~65"]).await.unwrap();
    let to = async |target: &str| {
        world
            .bump(&[&ROLLBACK[..], &["--dry-run", "--to", target]].concat())
            .await
    };
    assert_eq!(to(&commit).await.went_to(), digest(4));
    assert_eq!(to("66").await.went_to(), digest(3));
    assert_eq!(to(&digest(5)).await.report()["images"][0]["known_by"], "history");
}

async fn a_commit_that_set_another_image_says_what_ran_then(way: Way) {
    let world = world_over(way, &[A]).await;
    let between = world.push(&[("README.md", "then\n")]).await;
    world.bump(&["set", &format!("app@{B}")]).await.report();
    world.bump(&["set", &format!("app@{C}")]).await.report();
    let back = world
        .bump(&[&ROLLBACK[..], &["--to", &between[..12]]].concat())
        .await;
    assert_eq!(back.went_to(), A);
}

/// The API reads the repository of the server, which is whole.
#[tokio::test]
async fn a_shallow_clone_of_the_person_says_that_it_knows_too_little() {
    let world = world_with(&[A, B]).await;
    world.push(&[("README.md", "hello\n")]).await;
    let clone = world.folder.path().join("clone");
    let address = format!("file://{}", world.repository().display());
    world
        .git(&["clone", "--quiet", "--depth=1", &address, clone.to_str().unwrap()])
        .await
        .unwrap();
    let here = [
        ("TOWPATH_REPO", ""),
        ("TOWPATH_CHECKOUT", clone.to_str().unwrap()),
    ];
    let ended = world.bump_with(&here, &ROLLBACK).await;
    ended.refused(5, "the history that is here says too little about image app");
    let named = world
        .bump_with(&here, &[&ROLLBACK[..], &["--to", A]].concat())
        .await;
    assert_eq!(named.report()["images"][0]["known_by"], "argument");
}

async fn the_entry_that_is_named_now_is_taken_back_whatever_it_was_named_then(way: Way) {
    // The image of `web` was the same as that of `app` now, and another entry is named `web` today.
    let then = format!("images:\n- name: web\n  newName: app\n  digest: {A}\n");
    let world = World::over(way, &[(PROD, &then)]).await;
    let now = format!("images:\n- name: web\n  digest: {C}\n- name: app\n  digest: {B}\n");
    world.push(&[(PROD, &now)]).await;
    assert_eq!(world.bump(&ROLLBACK).await.went_to(), A);
    assert_eq!(world.file(PROD).await, now.replace(B, A));
}
