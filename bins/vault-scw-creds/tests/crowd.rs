//! Many jobs that begin at once, before a server that lets only some of them through at a time.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use world::{Ran, SECRET_KEY, World};

/// Starts so many at once and looks at what became of each.
async fn crowd(jobs: i32, per_second: u32, says_when: bool) {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let limit = json!({"rate": per_second, "interval": "1s"});
    world
        .server
        .write("sys/quotas/rate-limit/all", &limit)
        .await
        .unwrap();
    // Without it the server does not say when to come again.
    let configuration = json!({"enable_rate_limit_response_headers": says_when});
    world
        .server
        .write("sys/quotas/config", &configuration)
        .await
        .unwrap();
    let mut running = JoinSet::new();
    for job in 0..jobs {
        let code = job % 100;
        let mut command = world.tool();
        command.args(["exec", "--inline-auth", "never", "--log-level", "debug"]);
        command.args(["--", "sh", "-c", &format!("exit {code}")]);
        running.spawn(async move { (code, Ran::from(command.output().await.unwrap())) });
    }
    let mut turned_away = 0;
    while let Some(ended) = running.join_next().await {
        let (code, ran) = ended.unwrap();
        assert_eq!(ran.code, code, "{ran:?}");
        turned_away += i32::from(ran.stderr.contains("status=429"));
        ran.assert_discreet(&[SECRET_KEY, &world.jwt]);
    }
    assert!(turned_away > 0, "nobody had to wait");
    // What opens the gate has to come through it itself.
    let wide = json!({"rate": 10_000, "interval": "1s"});
    let mut tries = 0;
    while let Err(refused) = world.server.write("sys/quotas/rate-limit/all", &wide).await {
        tries += 1;
        assert!(tries < 600, "{refused}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn two_hundred_at_once_all_end_with_their_own_code() {
    crowd(200, 30, true).await;
}

#[tokio::test]
async fn they_do_so_too_when_the_server_does_not_say_how_long_to_wait() {
    crowd(20, 10, false).await;
}
