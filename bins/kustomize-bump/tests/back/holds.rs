//! Holds: made without moving anything, written by other hands, and tampered with.

use serde_json::json;

use crate::world::{self, A, B, C, Way, World, both_ways};
use crate::{PROD, ROLLBACK, prod, world_over};

both_ways!(
    an_image_is_held_where_it_is,
    a_hold_that_cannot_be_read_is_not_taken_for_none,
    a_hold_that_another_program_wrote_holds,
    two_who_hold_at_once_make_one_hold,
    a_hold_on_what_was_changed_by_hand_since_is_replaced,
    holds_are_made_and_released_by_patterns,
    a_hold_goes_with_a_folder_that_is_moved,
    the_hold_on_a_folder_that_is_gone_can_be_released,
);

const HOLD: &str = ".towpath/holds/overlays/prod/app.json";

async fn an_image_is_held_where_it_is(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let hold = ["hold", "--image", "app", "--reason", "sale until Monday"];
    let report = world.bump(&hold).await.report();
    assert_eq!(report["changed"], true);
    assert_eq!(report["images"][0]["hold"]["digest"], B);
    assert_eq!(world.file(PROD).await, prod(B));
    let refused = world.bump(&["set", &format!("app@{C}")]).await;
    refused.refused(4, "sale until Monday");
    let again = world
        .bump(&["hold", "--image", "app", "--reason", "another"])
        .await
        .report();
    assert_eq!(
        (&again["changed"], &again["images"][0]["hold"]["reason"]),
        (&false.into(), &"sale until Monday".into())
    );
    // It says nothing about a failure: a rollback counts from what is there.
    assert_eq!(world.bump(&ROLLBACK).await.went_to(), A);
    world.bump(&["release", "--image", "app"]).await.report();
    world
        .bump(&["hold", "--image", "app", "--path", "overlays/none"])
        .await
        .refused(5, "there is no kustomization");
}

async fn a_hold_that_cannot_be_read_is_not_taken_for_none(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let other = json!({
        "schema": "towpath.hold/1", "path": "overlays/eu", "image": "app", "held_at": "app", "by": "x",
        "since": "x", "reason": "x"
    });
    for text in [
        "",
        "no json",
        "{\"schema\": \"towpath.hold/2\"}",
        &other.to_string(),
    ] {
        world.push(&[(HOLD, text)]).await;
        let commits = world.commits().await;
        for arguments in [
            &["set", &format!("app@{C}")][..],
            &ROLLBACK,
            &["release", "--image", "app"],
            &["hold", "--image", "app"],
            &["get"],
        ] {
            let ended = world.bump(arguments).await;
            ended.refused(3, HOLD);
            assert!(
                ended.stderr.contains("or remove it to release"),
                "{}",
                ended.stderr
            );
        }
        assert_eq!(world.commits().await, commits);
    }
}

async fn a_hold_that_another_program_wrote_holds(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let written = format!(
        "\u{feff}{{\r\n\t\"image\": \"app\", \"path\": \"overlays/prod\",\r\n\t\"schema\": \"towpath.hold/1\",\r\n\t\
         \"ticket\": \"OPS-7\", \"held_at\": \"app@{B}\", \"by\": \"Bob\", \"since\": \"yesterday\", \
         \"reason\": \"audit\"\r\n}}\r\n"
    );
    world.push(&[(HOLD, &written)]).await;
    world
        .bump(&["set", &format!("app@{C}")])
        .await
        .refused(4, "by Bob since yesterday: audit");
    let again = world.bump(&["hold", "--image", "app"]).await.report();
    assert_eq!(
        again["changed"], false,
        "it is not written anew for its line ends"
    );
    assert_eq!(
        world.bump(&["release", "--image", "app"]).await.report()["changed"],
        true
    );
    world.bump(&["set", &format!("app@{C}")]).await.report();
}

async fn two_who_hold_at_once_make_one_hold(way: Way) {
    let world = world_over(way, &[A]).await;
    let (one, other) = tokio::join!(
        world.bump(&["hold", "--image", "app", "--reason", "one"]),
        world.bump(&["hold", "--image", "app", "--reason", "other"])
    );
    let (one, other) = (one.report(), other.report());
    assert_eq!(one["images"][0]["hold"], other["images"][0]["hold"]);
    assert_eq!(world.commits().await, 3);
}

async fn a_hold_on_what_was_changed_by_hand_since_is_replaced(way: Way) {
    let world = world_over(way, &[A, B]).await;
    world.bump(&ROLLBACK).await.report();
    world.push(&[(PROD, &prod(C))]).await;
    // Still held against pipelines, by name, until somebody decides.
    world
        .bump(&["set", &format!("app@{B}")])
        .await
        .refused(4, "is held at");
    assert_eq!(world.bump(&ROLLBACK).await.went_to(), A);
    assert!(
        world
            .file(HOLD)
            .await
            .contains(&format!("\"taken_from\": \"app@{C}\""))
    );
}

async fn holds_are_made_and_released_by_patterns(way: Way) {
    let eu = "overlays/eu/kustomization.yaml";
    let world = World::over(way, &[(PROD, &prod(A)), (eu, &prod(A))]).await;
    let all = ["--image", "app", "--path", "overlays/*"];
    let report = world.bump(&[&["hold"], &all[..]].concat()).await.report();
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    world
        .bump(&["set", &format!("app@{B}"), "--path", "overlays/*"])
        .await
        .refused(4, "is held at");
    let report = world.bump(&[&["release"], &all[..]].concat()).await.report();
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    world
        .bump(&["set", &format!("app@{B}"), "--path", "overlays/*"])
        .await
        .report();
    let report = world
        .bump(&[&["rollback", "--yes"], &all[..]].concat())
        .await
        .report();
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    assert_eq!((world.file(PROD).await, world.file(eu).await), (prod(A), prod(A)));
    assert_eq!(world.commits().await, 5);
}

async fn a_hold_goes_with_a_folder_that_is_moved(way: Way) {
    let world = World::over(
        way,
        &[(PROD, &prod(A)), ("overlays/eu/kustomization.yaml", &prod(A))],
    )
    .await;
    world
        .bump(&["hold", "--image", "app", "--reason", "audit"])
        .await
        .report();
    world.rename(PROD, "apps/prod/kustomization.yaml").await;
    let set = ["set", &format!("app@{B}"), "--path", "apps/prod"];
    let refused = world.bump(&set).await;
    refused.refused(4, "is held at");
    assert!(
        refused
            .stderr
            .contains("release --path overlays/prod --image app"),
        "{}",
        refused.stderr
    );
    world.bump(&["release", "--image", "app"]).await.report();
    world.bump(&set).await.report();
    // The hold on a folder that is there says nothing about another one.
    world
        .bump(&["hold", "--image", "app", "--path", "overlays/eu"])
        .await
        .report();
    world
        .bump(&["set", &format!("app@{A}"), "--path", "apps/prod"])
        .await
        .report();
    world
        .bump(&["set", &format!("app@{B}"), "--path", "apps/prod"])
        .await
        .report();
}

async fn the_hold_on_a_folder_that_is_gone_can_be_released(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    world.bump(&["hold", "--image", "app"]).await.report();
    world.rename(PROD, "elsewhere/kustomization.yaml").await;
    assert_eq!(
        world.bump(&["release", "--image", "app"]).await.report()["changed"],
        true
    );
}
