//! Many processes that change one repository at once, also over a server that breaks or refuses one change in three: each
//! change lands exactly once.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use towpath_sandbox::gitlab::Trouble;
use world::proxy::{Cut, proxy};
use world::{A, B, Ended, Way, World, both_ways, digest};

both_ways!(
    different_images_all_land_once,
    different_images_all_land_once_over_a_server_that_breaks_one_in_three,
    different_images_all_land_once_past_a_server_that_refuses_one_in_three,
    one_image_set_to_many_digests_goes_through_each_once,
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
    /// A hook turns down one change in three, for no reason of the change.
    Refusing,
}

/// Counts the pushes, and turns down each third.
const HOOK: &str = "#!/bin/sh\necho >>pushes\ntest $(($(wc -l <pushes) % 3)) -ne 0\n";

async fn run_all(world: &World, server: Server, images: &[String]) -> Vec<Ended> {
    let mut variables: Vec<(&str, String)> = vec![("TOWPATH_TIMEOUT", "1h".into())];
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
    if server == Server::Refusing {
        match world.way {
            Way::Git => {
                let hook = world.folder.path().join("gitlab/hooks/update");
                std::fs::write(&hook, HOOK).unwrap();
                std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
            }
            Way::Api => {
                let commits = AtomicUsize::new(0);
                world.gitlab.trouble(move |method, path| {
                    let commit = method == "POST" && path.ends_with("/repository/commits");
                    let third = commit && commits.fetch_add(1, Ordering::SeqCst) % 3 == 2;
                    third.then_some(Trouble::Status(400))
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

async fn different_images_all_land_once_past_a_server_that_refuses_one_in_three(way: Way) {
    different_images(way, Server::Refusing).await;
}

async fn one_image_set_to_many_digests_goes_through_each_once(way: Way) {
    let text = |digest: &str| format!("images:\n- name: app # front\n  digest: {digest}\n");
    let world = World::over(way, &[(PROD, &text(A))]).await;
    let images: Vec<String> = (0..JOBS).map(|n| format!("app@{}", digest(n))).collect();
    let mut made = Vec::new();
    for ended in run_all(&world, Server::Breaking, &images).await {
        let report = ended.report();
        assert_eq!(report["changed"], true);
        made.push(report["commit"].as_str().unwrap().to_owned());
    }
    let there = world.git(&["rev-list", "main"]).await.unwrap();
    let there: Vec<&str> = there.lines().collect();
    assert_eq!(there.len(), 1 + JOBS);
    // Each commit is one run's, and holds what that run was asked for; the last one stands.
    for (number, commit) in made.iter().enumerate() {
        assert!(there.contains(&commit.as_str()), "{commit}");
        let held = world.git(&["show", &format!("{commit}:{PROD}")]).await.unwrap() + "\n";
        assert_eq!(held, text(&digest(number)));
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), JOBS);
    assert!(made.iter().any(|commit| commit == there[0]));
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
