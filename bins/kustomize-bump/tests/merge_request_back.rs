//! Rollbacks, holds and releases that go through merge requests, and the open ones that a hold puts an end to.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use serde_json::Value;
use towpath_sandbox::gitlab::{PlannedJob, Role, Scope, Status};
use world::{A, B, C, Way, World};

const PROD: &str = "overlays/prod/kustomization.yaml";
const HOLD: &str = ".towpath/holds/overlays/prod/app.json";
const CI: (&str, &str) = (".gitlab-ci.yml", "check: {script: [\"true\"]}\n");
const BACK: [&str; 5] = ["rollback", "--image", "app", "--yes", "--merge-request"];

fn prod(digest: &str) -> String {
    format!("images:\n- name: app\n  digest: {digest}\n")
}

/// `main` went from A to B.
async fn world() -> World {
    let world = World::over(Way::Api, &[(PROD, &prod(A))]).await;
    world.push(&[(PROD, &prod(B))]).await;
    world
}

async fn request(world: &World, path: &str) -> Value {
    let url = format!(
        "{}/projects/{}/merge_requests/{path}",
        world.gitlab.api_url(),
        world.project
    );
    let request = reqwest::Client::new().get(url);
    let answer = request.header("PRIVATE-TOKEN", &world.token).send().await;
    answer.unwrap().json().await.unwrap()
}

async fn there(world: &World, commit: &str, path: &str) -> Option<String> {
    world.git(&["show", &format!("{commit}:{path}")]).await.ok()
}

/// Opens one that sets `app` in this path, and gives its number.
async fn open(world: &World, path: &str) -> u64 {
    let arguments = ["set", &format!("app@{C}"), "--merge-request", "--path", path];
    let report = world.bump(&arguments).await.report();
    report["merge_request"]["iid"].as_u64().unwrap()
}

#[tokio::test]
async fn a_rollback_waits_in_a_merge_request_and_takes_the_place_of_what_would_set_it() {
    let world = world().await;
    let set = open(&world, "overlays/prod").await;
    let tip = world.git(&["rev-parse", "main"]).await.unwrap();
    let first = world.bump(&BACK).await.report();
    assert_eq!(
        (&first["changed"], &first["commit"]),
        (&true.into(), &Value::Null)
    );
    let opened = &first["merge_request"];
    assert_eq!(
        (&opened["state"], &opened["superseded"][0]),
        (&"opened".into(), &set.into())
    );
    assert_eq!(request(&world, &set.to_string()).await["state"], "closed");
    let notes = request(&world, &format!("{set}/notes")).await;
    assert_eq!(notes[0]["body"], "Overridden by !2.");
    let branch = opened["branch"].as_str().unwrap();
    assert!(
        branch.starts_with("towpath/overlays-prod/rollback-app-"),
        "{branch}"
    );
    assert_eq!(world.git(&["rev-parse", "main"]).await.unwrap(), tip);
    assert_eq!(there(&world, branch, PROD).await.unwrap() + "\n", prod(A));
    assert!(there(&world, branch, HOLD).await.is_some());

    // The same again finds it done, though a hold says when it was made.
    let again = world.bump(&BACK).await.report();
    assert_eq!(again["merge_request"]["head"], opened["head"]);

    // What sets the image meanwhile has a request of its own, and leaves this one alone.
    let other = open(&world, "overlays/prod").await;
    assert_ne!(other, 2);
    assert_eq!(request(&world, "2").await["state"], "opened");
}

#[tokio::test]
async fn it_holds_once_it_is_merged() {
    let world = World::over(Way::Api, &[(PROD, &prod(A)), CI]).await;
    world.push(&[(PROD, &prod(B))]).await;
    let check = vec![PlannedJob::new("check", "test")];
    world.gitlab.direct(world.project, check).unwrap();
    let waiting = ["--auto-merge", "--wait", "--timeout", "50s"];
    let back = [&BACK[..], &waiting[..]].concat();
    let mover = async {
        loop {
            for pipeline in world.gitlab.snapshot() {
                for job in pipeline.jobs.iter().filter(|job| !job.status.is_finished()) {
                    world.gitlab.move_job(job.id, Status::Running).unwrap();
                    world.gitlab.move_job(job.id, Status::Success).unwrap();
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let ended = async {
        tokio::select! {
            ended = world.bump(&back) => ended,
            () = mover => unreachable!(),
        }
    };
    let report = ended.await.report();
    assert_eq!(report["merge_request"]["state"], "merged");
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!(world.file(PROD).await, prod(A));
    let image = format!("app@{C}");
    world.bump(&["set", &image]).await.refused(4, "is held at");

    // And its way out is the same.
    let release = ["release", "--image", "app", "--merge-request"];
    let released = world.bump(&release).await.report();
    assert_eq!(
        (&released["changed"], &released["commit"]),
        (&true.into(), &Value::Null)
    );
    let branch = released["merge_request"]["branch"].as_str().unwrap();
    assert!(branch.contains("/release-app-"), "{branch}");
    assert!(there(&world, branch, HOLD).await.is_none());
    world.bump(&["set", &image]).await.refused(4, "is held at");
}

#[tokio::test]
async fn a_hold_closes_what_would_set_the_image_and_nothing_else() {
    let test = ("overlays/test/kustomization.yaml", prod(A));
    let world = World::over(Way::Api, &[(PROD, &prod(A)), (test.0, &test.1)]).await;
    let (own, pattern) = (
        open(&world, "overlays/prod").await,
        open(&world, "overlays/{prod,dev}").await,
    );
    // The second is for the same by another name, and the third for another folder.
    let other = open(&world, "overlays/test").await;
    let held = world.bump(&["hold", "--image", "app"]).await.report();
    let mut closed: Vec<u64> = serde_json::from_value(held["closed_merge_requests"].clone()).unwrap();
    closed.sort_unstable();
    assert_eq!(closed, [own, pattern]);
    for (iid, state) in [(own, "closed"), (pattern, "closed"), (other, "opened")] {
        assert_eq!(request(&world, &iid.to_string()).await["state"], state, "!{iid}");
    }
    let notes = request(&world, &format!("{own}/notes")).await;
    assert_eq!(
        notes[0]["body"],
        "Closed: what it sets is held by Ada <ada@example.com>."
    );
    // By a merge request the hold closes them as well.
    let held = world
        .bump(&[
            "hold",
            "--image",
            "app",
            "--path",
            "overlays/test",
            "--merge-request",
        ])
        .await
        .report();
    assert_eq!(held["merge_request"]["superseded"][0], other);
}

#[tokio::test]
async fn by_git_it_closes_them_with_a_token_that_may_and_goes_back_with_one_that_may_not() {
    let world = world().await;
    let git = [Scope::WriteRepository];
    let git = world
        .gitlab
        .project_access_token(world.project, Role::Maintainer, &git);
    let (git, url) = (git.unwrap(), world.url());
    let by_git = [
        ("TOWPATH_PROJECT", ""),
        ("TOWPATH_REPO", url.as_str()),
        ("TOWPATH_GIT_TOKEN", &git),
    ];
    let back = ["rollback", "--image", "app", "--yes"];

    let set = open(&world, "overlays/prod").await;
    let report = world.bump_with(&by_git, &back).await.report();
    assert_eq!(report["closed_merge_requests"], serde_json::json!([]));
    assert_eq!(world.file(PROD).await, prod(A));
    assert_eq!(request(&world, &set.to_string()).await["state"], "opened");

    let with_api = [&by_git[..], &[("TOWPATH_GITLAB_TOKEN", world.token.as_str())]].concat();
    let offline = [&back[..], &["--offline"]].concat();
    world.bump_with(&with_api, &offline).await.report();
    assert_eq!(request(&world, &set.to_string()).await["state"], "opened");
    let again = world.bump_with(&with_api, &back).await.report();
    assert_eq!(
        (&again["changed"], &again["closed_merge_requests"][0]),
        (&false.into(), &set.into())
    );
    assert_eq!(request(&world, &set.to_string()).await["state"], "closed");

    let by_request = world.bump_with(&by_git, &BACK).await;
    by_request.refused(4, "this goes by git");
}
