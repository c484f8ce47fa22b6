//! The incident: back to what ran before, held there against pipelines, until somebody releases it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use serde_json::Value;
use world::{A, B, C, Way, World, both_ways};

both_ways!(
    a_rollback_holds_until_it_is_released,
    the_same_rollback_twice_goes_back_once,
    a_rollback_goes_where_it_is_told,
    without_a_yes_nothing_happens_unless_a_job_asks,
    history_older_than_the_first_fetch_is_found,
    a_pipeline_that_comes_in_between_does_not_slip_past,
    what_acts_on_a_failure_takes_back_that_one_alone,
);

const PROD: &str = "overlays/prod/kustomization.yaml";
const HOLD: &str = ".towpath/holds/overlays/prod/app.json";

async fn world_with(way: Way, digests: &[&str]) -> World {
    let world = World::over(way, &[(PROD, "images:\n- name: app # ours\n")]).await;
    for digest in digests {
        world.bump(&["set", &format!("app@{digest}")]).await.report();
    }
    world
}

fn prod(digest: &str) -> String {
    format!("images:\n- name: app # ours\n  digest: {digest}\n")
}

async fn a_rollback_holds_until_it_is_released(way: Way) {
    let world = world_with(way, &[A, B]).await;
    let good = world.git(&["rev-parse", "main~1"]).await.unwrap();
    let report = world
        .bump(&[
            "rollback",
            "--image",
            "app",
            "--yes",
            "--reason",
            "checkout fails",
        ])
        .await
        .report();
    assert_eq!(report["changed"], true);
    assert_eq!(
        (
            &report["images"][0]["from"]["digest"],
            &report["images"][0]["to"]["digest"]
        ),
        (&B.into(), &A.into())
    );
    assert_eq!(report["images"][0]["taken_from_commit"], good);
    assert_eq!(report["images"][0]["known_by"], "history");
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(world.file(PROD).await, prod(A));
    let hold: Value = serde_json::from_str(&world.file(HOLD).await).unwrap();
    assert_eq!(hold["schema"], "towpath.hold/1");
    assert_eq!(
        (&hold["digest"], &hold["path"], &hold["image"]),
        (&A.into(), &"overlays/prod".into(), &"app".into())
    );
    assert_eq!(
        (&hold["by"], &hold["reason"]),
        (&"Ada <ada@example.com>".into(), &"checkout fails".into())
    );

    // The pipeline that comes next is refused, and told by whom and why.
    let next = format!("app@{C}");
    let refused = world.bump(&["set", &next]).await;
    refused.refused(4, "is held at app@sha256:aaaa");
    for words in [
        "by Ada <ada@example.com>",
        "since 20",
        "checkout fails",
        "release --path overlays/prod --image app",
    ] {
        assert!(
            refused.stderr.contains(words),
            "{words:?} is not in {}",
            refused.stderr
        );
    }
    assert_eq!(
        world.bump(&["set", &format!("app@{A}")]).await.report()["changed"],
        false
    );
    let get = world.bump(&["get"]).await.report();
    assert_eq!(get["images"][0]["hold"]["reason"], "checkout fails");

    let released = world.bump(&["release", "--image", "app"]).await.report();
    assert_eq!(
        (&released["changed"], &released["images"][0]["hold"]["digest"]),
        (&true.into(), &A.into())
    );
    assert_eq!(
        world
            .git(&["ls-tree", "-r", "--name-only", "main"])
            .await
            .unwrap(),
        PROD
    );
    assert_eq!(
        world.bump(&["release", "--image", "app"]).await.report()["changed"],
        false
    );
    world.bump(&["set", &next]).await.report();
    assert_eq!(world.file(PROD).await, prod(C));
}

async fn the_same_rollback_twice_goes_back_once(way: Way) {
    let world = world_with(way, &[A, B, C]).await;
    let rollback = ["rollback", "--image", "app", "--yes"];
    assert_eq!(
        world.bump(&rollback).await.report()["images"][0]["to"]["digest"],
        B
    );
    let commits = world.commits().await;
    let again = world.bump(&rollback).await.report();
    assert_eq!(
        (&again["changed"], &again["images"][0]["to"]["digest"]),
        (&false.into(), &B.into())
    );
    assert_eq!(world.commits().await, commits);
    // Further back, counted from the deployment that failed.
    let further = world
        .bump(&["rollback", "--image", "app", "--yes", "--to", "2"])
        .await
        .report();
    assert_eq!(
        (
            &further["images"][0]["from"]["digest"],
            &further["images"][0]["to"]["digest"]
        ),
        (&B.into(), &A.into())
    );
    assert!(
        further["images"][0]["hold"]["taken_from"]
            .as_str()
            .unwrap()
            .ends_with(C)
    );
    // After the release, what was rolled back from is still not gone back to.
    world.bump(&["release", "--image", "app"]).await.report();
    world
        .bump(&rollback)
        .await
        .refused(5, "there is nothing to roll image app back to");
}

async fn a_rollback_goes_where_it_is_told(way: Way) {
    let world = world_with(way, &[A, B, C]).await;
    let first = world.git(&["rev-parse", "main~2"]).await.unwrap();
    let to = async |target: &str| {
        world
            .bump(&["rollback", "--image", "app", "--dry-run", "--to", target])
            .await
    };
    assert_eq!(to("2").await.report()["images"][0]["to"]["digest"], A);
    assert_eq!(to(&first[..10]).await.report()["images"][0]["to"]["digest"], A);
    assert_eq!(to(A).await.report()["images"][0]["taken_from_commit"], first);
    let unknown = format!("sha256:{}", "9".repeat(64));
    assert_eq!(
        to(&unknown).await.report()["images"][0]["taken_from_commit"],
        Value::Null
    );
    to("3").await.refused(5, "no 3 deployments");
    to("0123456789")
        .await
        .refused(5, "no commit 0123456789 in the history");
    to("yesterday").await.refused(2, "malformed --to");
    assert_eq!(world.commits().await, 4, "nothing was changed");
}

async fn without_a_yes_nothing_happens_unless_a_job_asks(way: Way) {
    let world = world_with(way, &[A, B]).await;
    let ended = world.bump(&["rollback", "--image", "app"]).await;
    ended.refused(9, "is not confirmed");
    assert_eq!(
        ended.document()["images"][0]["to"]["digest"],
        A,
        "the preview is shown all the same"
    );
    assert_eq!(world.file(PROD).await, prod(B));
    world
        .bump_with(&[("CI", "true")], &["rollback", "--image", "app"])
        .await
        .report();
    assert_eq!(world.file(PROD).await, prod(A));
}

async fn history_older_than_the_first_fetch_is_found(way: Way) {
    let world = world_with(way, &[A, B]).await;
    for n in 0..60 {
        world.push(&[("README.md", &format!("{n}\n"))]).await;
    }
    let report = world
        .bump(&["rollback", "--image", "app", "--yes"])
        .await
        .report();
    assert_eq!(report["images"][0]["to"]["digest"], A);
    let history = world.bump(&["history", "--image", "app"]).await.report();
    let steps = history["steps"].as_array().unwrap();
    let shown: Vec<(&str, &str)> = steps
        .iter()
        .map(|step| {
            (
                step["action"].as_str().unwrap_or("none"),
                step["image"]["digest"].as_str().unwrap_or("none"),
            )
        })
        .collect();
    assert_eq!(shown, [("rollback", A), ("set", B), ("set", A), ("none", "none")]);
    assert_eq!(steps[0]["by"], "Ada <ada@example.com>");
}

async fn a_pipeline_that_comes_in_between_does_not_slip_past(way: Way) {
    let world = world_with(way, &[A, B]).await;
    // Both at once: whichever is first, the image ends at a known state and the later one is told.
    let next = format!("app@{C}");
    let set = ["set", next.as_str()];
    let (rollback, set) = tokio::join!(
        world.bump(&["rollback", "--image", "app", "--yes", "--to", A]),
        world.bump(&set)
    );
    assert_eq!(rollback.code, 0, "{}", rollback.stderr);
    assert!(matches!(set.code, 0 | 4), "{}", set.stderr);
    assert_eq!(world.file(PROD).await, prod(A), "the rollback stands");
}

async fn what_acts_on_a_failure_takes_back_that_one_alone(way: Way) {
    let world = world_with(way, &[A, B, C]).await;
    let back = ["rollback", "--image", "app", "--yes", "--expect-current"];
    // Somebody set C since B was seen to fail.
    let refused = world.bump(&[&back[..], &[B]].concat()).await;
    refused.refused(6, "which is to be taken back");
    assert_eq!(world.file(PROD).await, prod(C));
    let report = world.bump(&[&back[..], &[C]].concat()).await.report();
    assert_eq!(report["images"][0]["to"]["digest"], B);
    // The same failure again: it was taken back already.
    let again = world.bump(&[&back[..], &[C]].concat()).await.report();
    assert_eq!(again["changed"], false);
    assert_eq!(world.file(PROD).await, prod(B));
}
