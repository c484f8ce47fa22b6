//! Many processes that change one repository at once, also over a server that breaks one change in three: each change
//! lands exactly once.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use towpath_sandbox::gitlab::Trouble;
use world::proxy::{Cut, proxy};
use world::{A, B, Ended, Way, World, both_ways, digest};

both_ways!(
    different_images_all_land_once,
    different_images_all_land_once_over_a_server_that_breaks_one_in_three,
    one_image_lands_once_over_a_server_that_breaks_one_in_three,
);

const PROD: &str = "overlays/prod/kustomization.yaml";
const JOBS: usize = 32;

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Sound,
    /// Of six changes one never arrives, and the answer to another is lost.
    Breaking,
}

async fn run_all(world: &World, server: Server, images: &[String]) -> Vec<Ended> {
    let mut variables: Vec<(&str, String)> = vec![("TOWPATH_TIMEOUT", "10m".into())];
    if server == Server::Breaking {
        match world.way {
            Way::Git => {
                let upstream = world.gitlab.url().trim_start_matches("http://").to_owned();
                let cut = |push: usize| match push % 6 {
                    1 => Some(Cut::Before),
                    4 => Some(Cut::After),
                    _ => None,
                };
                let address = proxy(upstream, cut).await;
                variables.push(("TOWPATH_REPO", format!("http://{address}/env/shop.git")));
            }
            Way::Api => {
                let commits = AtomicUsize::new(0);
                world.gitlab.trouble(move |method, path| {
                    if method != "POST" || !path.ends_with("/repository/commits") {
                        return None;
                    }
                    match commits.fetch_add(1, Ordering::SeqCst) % 6 {
                        1 => Some(Trouble::Status(502)),
                        4 => Some(Trouble::Lost),
                        _ => None,
                    }
                });
            }
        }
    }
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let arguments: Vec<[&str; 2]> = images.iter().map(|image| ["set", image.as_str()]).collect();
    let runs = arguments
        .iter()
        .map(|arguments| world.bump_with(&variables, arguments));
    futures_util::future::join_all(runs).await
}

async fn different_images(way: Way, server: Server) {
    let lines = |digest_of: &dyn Fn(usize) -> String| -> String {
        let lines = (0..JOBS).map(|n| format!("- name: app{n}\n  digest: {} # {n}\n", digest_of(n)));
        format!("images:\n{}", lines.collect::<String>())
    };
    let world = World::over(way, &[(PROD, &lines(&|_| A.to_owned()))]).await;
    let images: Vec<String> = (0..JOBS).map(|n| format!("app{n}@{}", digest(n))).collect();
    let mut made = Vec::new();
    for ended in run_all(&world, server, &images).await {
        let report = ended.report();
        assert_eq!(report["changed"], true);
        made.push(report["commit"].as_str().unwrap().to_owned());
    }
    assert_eq!(world.file(PROD).await, lines(&digest));
    // Each says its own commit, and there are no others.
    let mut there: Vec<String> = world
        .git(&["rev-list", "--max-count", &JOBS.to_string(), "main"])
        .await
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    there.sort();
    made.sort();
    assert_eq!(made, there);
    assert_eq!(world.commits().await, 1 + JOBS);
    world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();
}

async fn different_images_all_land_once(way: Way) {
    different_images(way, Server::Sound).await;
}

async fn different_images_all_land_once_over_a_server_that_breaks_one_in_three(way: Way) {
    different_images(way, Server::Breaking).await;
}

async fn one_image_lands_once_over_a_server_that_breaks_one_in_three(way: Way) {
    let before = format!("images:\n- name: app\n  digest: {A}\n");
    let world = World::over(way, &[(PROD, &before)]).await;
    let images = vec![format!("app@{B}"); JOBS];
    let ended = run_all(&world, Server::Breaking, &images).await;
    let reports: Vec<_> = ended.iter().map(Ended::report).collect();
    let made = reports
        .iter()
        .filter(|report| report["commit"].is_string())
        .count();
    assert_eq!(made, 1, "one did it, the others found it done");
    assert_eq!(world.commits().await, 2);
    assert_eq!(world.file(PROD).await, before.replace(A, B));
}
