//! Pushes whose connection breaks: each change lands exactly once, whether the commit had arrived or not. The same of the
//! API is in `api_faults`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use world::proxy::{Cut, proxy};
use world::{A, B, World};

const PROD: &str = "overlays/prod/kustomization.yaml";

async fn lands_once(cut: Cut, times: usize) -> u64 {
    let world = World::with(&[(PROD, &format!("images:\n- name: app\n  digest: {A}\n"))]).await;
    let upstream = world.gitlab.url().trim_start_matches("http://").to_owned();
    let address = proxy(upstream, move |push| (push < times).then_some(cut)).await;
    let url = format!("http://{address}/env/shop.git");
    let report = world
        .bump(&["set", &format!("app@{B}"), "--repo", &url])
        .await
        .report();
    assert_eq!(report["changed"], true);
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!(world.commits().await, 2);
    report["attempts"].as_u64().unwrap()
}

#[tokio::test]
async fn a_push_whose_answer_is_lost_counts_as_done() {
    assert_eq!(lands_once(Cut::After, 1).await, 1);
}

#[tokio::test]
async fn a_push_that_never_arrived_is_sent_again() {
    // git's HTTP library sends once more by itself, so that two breaks may count as one attempt.
    assert!(lands_once(Cut::Before, 3).await > 1);
}

#[tokio::test]
async fn a_server_that_stays_broken_is_given_up() {
    let world = World::with(&[(PROD, &format!("images:\n- name: app\n  digest: {A}\n"))]).await;
    let upstream = world.gitlab.url().trim_start_matches("http://").to_owned();
    let address = proxy(upstream, |_| Some(Cut::Before)).await;
    let url = format!("http://{address}/env/shop.git");
    let ended = world.bump(&["set", &format!("app@{B}"), "--repo", &url]).await;
    ended.refused(7, "failed 10 times in a row");
    assert_eq!(world.commits().await, 1);
}
