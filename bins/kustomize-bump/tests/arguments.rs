//! Switches that a template sets by variables, for each of its inputs, whether they are wanted or not.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use world::{A, B, World};

const PROD: &str = "overlays/prod/kustomization.yaml";

fn prod(digest: &str) -> String {
    format!("images:\n- name: app\n  digest: {digest}\n")
}

const SWITCHES: [&str; 9] = [
    "TOWPATH_ADD",
    "TOWPATH_WHERE_PRESENT",
    "TOWPATH_FOLLOW",
    "TOWPATH_DRY_RUN",
    "TOWPATH_COMMIT",
    "TOWPATH_MERGE_REQUEST",
    "TOWPATH_AUTO_MERGE",
    "TOWPATH_WITHOUT_PIPELINE",
    "TOWPATH_WAIT",
];

#[tokio::test]
async fn a_switch_that_its_variable_turns_off_is_not_given() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let image = format!("app@{B}");
    let off: Vec<(&str, &str)> = SWITCHES.iter().map(|name| (*name, "false")).collect();
    let report = world.bump_with(&off, &["set", &image]).await.report();
    assert_eq!(
        (&report["changed"], &report["dry_run"]),
        (&true.into(), &false.into())
    );
    assert_eq!(world.file(PROD).await, prod(B));

    // One is off, and the other, that it would exclude, is on: by variable or by flag.
    let one = [("TOWPATH_ADD", "1"), ("TOWPATH_WHERE_PRESENT", "no")];
    let added = world
        .bump_with(&one, &["set", &format!("api@{B}")])
        .await
        .report();
    assert_eq!(added["files"][0]["old"], serde_json::Value::Null);
    let by_flag = [("TOWPATH_ADD", "false")];
    let passed = ["set", &format!("api@{A}"), "--where-present"];
    world.bump_with(&by_flag, &passed).await.report();

    // What is wanted is held to what it needs and excludes.
    let both = [("TOWPATH_ADD", "true"), ("TOWPATH_WHERE_PRESENT", "yes")];
    world
        .bump_with(&both, &["set", &image])
        .await
        .refused(2, "--where-present");
    let alone = [("TOWPATH_MERGE_REQUEST", "false"), ("TOWPATH_AUTO_MERGE", "true")];
    world
        .bump_with(&alone, &["set", &image])
        .await
        .refused(2, "--merge-request");
    world
        .bump_with(&[("TOWPATH_ADD", "maybe")], &["set", &image])
        .await
        .refused(2, "TOWPATH_ADD");

    let help = world.bump_with(&off, &["set", "--help"]).await;
    for name in SWITCHES {
        assert!(
            help.stdout.contains(&format!("[env: {name}]")),
            "{name}: {}",
            help.stdout
        );
    }
}
