//! Pushes whose connection breaks: each change lands exactly once, whether the commit had arrived or not.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use world::{A, B, World};

const PROD: &str = "overlays/prod/kustomization.yaml";

/// When a push is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The server never sees it.
    Before,
    /// The server acts on it, and its answer is lost.
    After,
}

/// A server in front of another one that cuts off the first pushes. Gives its address.
async fn proxy(upstream: String, cut: Cut, times: usize) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(times));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&upstream).await.unwrap();
            tokio::spawn(pass(client, server, cut, left.clone()));
        }
    });
    address.to_string()
}

async fn pass(mut client: TcpStream, mut server: TcpStream, cut: Cut, left: Arc<AtomicUsize>) {
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    let mut lose_the_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(1..) = read else { return };
                let bytes = &from_client[..read.unwrap()];
                let is_push = String::from_utf8_lossy(bytes).contains("git-receive-pack HTTP/1.1\r\n")
                    && bytes.starts_with(b"POST ");
                let one_less = |left: usize| left.checked_sub(1);
                if is_push && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                    if cut == Cut::Before {
                        return;
                    }
                    lose_the_answer = true;
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(1..) = read else { return };
                if lose_the_answer || client.write_all(&from_server[..read.unwrap()]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn lands_once(cut: Cut, times: usize) -> u64 {
    let world = World::with(&[(PROD, &format!("images:\n- name: app\n  digest: {A}\n"))]).await;
    let upstream = world.gitlab.url().trim_start_matches("http://").to_owned();
    let address = proxy(upstream, cut, times).await;
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
    let address = proxy(upstream, Cut::Before, usize::MAX).await;
    let url = format!("http://{address}/env/shop.git");
    let ended = world.bump(&["set", &format!("app@{B}"), "--repo", &url]).await;
    ended.refused(7, "failed 10 times in a row");
    assert_eq!(world.commits().await, 1);
}
