//! Changes that go through a merge request: one branch for one purpose, updated, superseded, merged, followed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::time::Duration;

use serde_json::Value;
use towpath_sandbox::gitlab::{PlannedJob, Status};
use world::{A, B, C, Ended, Way, World};

const PROD: &str = "overlays/prod/kustomization.yaml";
const CI: (&str, &str) = (".gitlab-ci.yml", "check: {script: [\"true\"]}\n");
const LIMIT: Duration = Duration::from_secs(60);

fn prod(app: &str, api: &str) -> String {
    format!("images:\n- name: app\n  digest: {app}\n# front\n\n# back\n- name: api\n  digest: {api}\n")
}

async fn world_with(files: &[(&str, &str)]) -> World {
    World::over(Way::Api, files).await
}

/// A world whose pipelines have one job that the test moves.
async fn directed() -> World {
    let world = world_with(&[(PROD, &prod(A, A)), CI]).await;
    world
        .gitlab
        .direct(world.project, vec![PlannedJob::new("check", "test")])
        .unwrap();
    world
}

/// Gives every job a status as it comes, until the run has ended.
async fn ending_jobs_with(world: &World, status: Status, run: impl Future<Output = Ended>) -> Ended {
    let mover = async {
        loop {
            for pipeline in world.gitlab.snapshot() {
                for job in pipeline.jobs.iter().filter(|job| !job.status.is_finished()) {
                    world.gitlab.move_job(job.id, Status::Running).unwrap();
                    // Long enough for the merge to be asked for while it runs.
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    world.gitlab.move_job(job.id, status).unwrap();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = async {
        tokio::select! {
            ended = run => ended,
            () = mover => unreachable!(),
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap()
}

async fn api(world: &World, path: &str) -> Value {
    let url = format!("{}/projects/{}/{path}", world.gitlab.api_url(), world.project);
    let answer = reqwest::Client::new()
        .get(url)
        .header("PRIVATE-TOKEN", &world.token)
        .send()
        .await
        .unwrap();
    answer.json().await.unwrap()
}

#[tokio::test]
async fn one_is_opened_and_the_next_run_brings_it_up_to_date() {
    let world = world_with(&[(PROD, &prod(A, A))]).await;
    let first = world
        .bump(&["set", &format!("app@{B}"), "--merge-request"])
        .await
        .report();
    assert_eq!(
        (&first["changed"], &first["commit"]),
        (&true.into(), &Value::Null)
    );
    let request = &first["merge_request"];
    assert_eq!(
        (&request["iid"], &request["state"]),
        (&1.into(), &"opened".into())
    );
    assert_eq!(world.commits().await, 1, "the branch itself stands still");
    let branch = request["branch"].as_str().unwrap();
    assert!(branch.starts_with("towpath/overlays-prod/app-"), "{branch}");
    assert_eq!(
        world.git(&["show", &format!("{branch}:{PROD}")]).await.unwrap() + "\n",
        prod(B, A)
    );

    // The same again, though the target moved elsewhere: nothing to push, and no pipeline to restart.
    world.push(&[("README.md", "hello\n")]).await;
    let again = world
        .bump(&["set", &format!("app@{B}"), "--merge-request"])
        .await
        .report();
    assert_eq!(again["merge_request"]["head"], request["head"]);

    // Another digest, and somebody else's change of the same file: the same request, on the new tip.
    let tip = world.push(&[(PROD, &prod(A, C))]).await;
    let next = world
        .bump(&["set", &format!("app@{C}"), "--merge-request"])
        .await
        .report();
    assert_eq!(next["merge_request"]["iid"], 1);
    assert_eq!(
        world.git(&["show", &format!("{branch}:{PROD}")]).await.unwrap() + "\n",
        prod(C, C)
    );
    let parent = world.git(&["rev-parse", &format!("{branch}^")]).await.unwrap();
    assert_eq!(parent, tip, "one commit on the tip of the target");
    let shown = api(&world, "merge_requests/1").await;
    let description = shown["description"].as_str().unwrap();
    assert!(
        description.contains(&format!("Towpath-Digest: {C}")),
        "{description}"
    );

    // What the branch says already leaves nothing to merge.
    world.push(&[(PROD, &prod(C, C))]).await;
    let done = world
        .bump(&["set", &format!("app@{C}"), "--merge-request"])
        .await
        .report();
    assert_eq!(
        (&done["changed"], &done["merge_request"]),
        (&false.into(), &Value::Null)
    );
    assert_eq!(api(&world, "merge_requests/1").await["state"], "closed");
    assert!(world.git(&["rev-parse", "--verify", branch]).await.is_err());
}

#[tokio::test]
async fn a_wider_one_supersedes_those_for_parts_of_it() {
    let world = world_with(&[(PROD, &prod(A, A))]).await;
    let (app, api_image) = (format!("app@{B}"), format!("api@{B}"));
    world.bump(&["set", &app, "--merge-request"]).await.report();
    world.bump(&["set", &api_image, "--merge-request"]).await.report();
    let both = world
        .bump(&["set", &app, &api_image, "--merge-request"])
        .await
        .report();
    let mut superseded: Vec<u64> = both["merge_request"]["superseded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|iid| iid.as_u64().unwrap())
        .collect();
    superseded.sort_unstable();
    assert_eq!(superseded, [1, 2]);
    for iid in superseded {
        assert_eq!(
            api(&world, &format!("merge_requests/{iid}")).await["state"],
            "closed"
        );
        let notes = api(&world, &format!("merge_requests/{iid}/notes")).await;
        assert_eq!(notes[0]["body"], "Superseded by !3.");
    }
    let branches = world.git(&["branch", "--format=%(refname:short)"]).await.unwrap();
    assert_eq!(branches.lines().count(), 2, "{branches}");
}

#[tokio::test]
async fn it_is_merged_when_its_pipeline_succeeds_and_waited_for() {
    let world = directed().await;
    let image = format!("app@{B}");
    let arguments = [
        "set",
        &image,
        "--merge-request",
        "--auto-merge",
        "--wait",
        "--timeout",
        "50s",
    ];
    let report = ending_jobs_with(&world, Status::Success, world.bump(&arguments))
        .await
        .report();
    assert_eq!(report["merge_request"]["state"], "merged");
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!(world.file(PROD).await, prod(B, A));
    let asked = world.gitlab.requests();
    let merges: Vec<_> = asked
        .iter()
        .filter(|asked| asked.path.ends_with("/merge"))
        .collect();
    assert!(!merges.is_empty());
    let pipelines = world.gitlab.snapshot();
    assert!(
        !pipelines.is_empty(),
        "it was not merged before its pipeline came"
    );
}

#[tokio::test]
async fn a_failed_pipeline_and_a_closed_request_end_the_wait() {
    let world = directed().await;
    let image = format!("app@{B}");
    let arguments = [
        "set",
        &image,
        "--merge-request",
        "--auto-merge",
        "--wait",
        "--timeout",
        "50s",
    ];
    let failed = ending_jobs_with(&world, Status::Failed, world.bump(&arguments)).await;
    failed.refused(8, "did not succeed");
    let url = failed.document()["merge_request"]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(failed.stderr.contains(&url), "{}", failed.stderr);
    assert_eq!(world.commits().await, 1);

    let image = format!("api@{B}");
    let waiting = ["set", &image, "--merge-request", "--wait", "--timeout", "50s"];
    let close = async {
        loop {
            if api(&world, "merge_requests/2").await["state"] == "opened" {
                let url = format!(
                    "{}/projects/{}/merge_requests/2",
                    world.gitlab.api_url(),
                    world.project
                );
                let closed = reqwest::Client::new()
                    .put(url)
                    .header("PRIVATE-TOKEN", &world.token)
                    .json(&serde_json::json!({ "state_event": "close" }))
                    .send()
                    .await
                    .unwrap();
                assert!(closed.status().is_success());
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (closed, ()) = futures_util::future::join(world.bump(&waiting), close).await;
    closed.refused(8, "was closed without a merge");
}

#[tokio::test]
async fn a_person_who_does_not_come_ends_the_wait_at_the_deadline() {
    let world = world_with(&[(PROD, &prod(A, A))]).await;
    let arguments = [
        "set",
        &format!("app@{B}"),
        "--merge-request",
        "--wait",
        "--timeout",
        "5s",
    ];
    let ended = world.bump(&arguments).await;
    ended.refused(9, "is not merged yet");
    assert_eq!(ended.document()["merge_request"]["state"], "opened");
}

#[tokio::test]
async fn it_needs_a_token_for_the_api() {
    let world = world_with(&[(PROD, &prod(A, A)), CI]).await;
    world
        .gitlab
        .direct(world.project, vec![PlannedJob::new("check", "test")])
        .unwrap();
    let image = format!("app@{B}");
    let arguments = ["set", &image, "--merge-request"];
    let own = format!("{}/env/shop", world.gitlab.url());
    let job = [
        ("TOWPATH_GIT_TOKEN", ""),
        ("CI_JOB_TOKEN", "glcbt-none"),
        ("CI_PROJECT_URL", &own),
        ("TOWPATH_VIA", "api"),
    ];
    world
        .bump_with(&job, &arguments)
        .await
        .refused(4, "a job token may not commit over GitLab's API");
    let checkout = ["set", &image, "--merge-request", "--checkout", "."];
    world
        .bump_with(&[("TOWPATH_PROJECT", "")], &checkout)
        .await
        .refused(2, "this is a checkout");
    world
        .bump_with(&[("TOWPATH_VIA", "git")], &arguments)
        .await
        .refused(4, "this goes by git");
    world
        .bump(&["set", &image, "--auto-merge"])
        .await
        .refused(2, "--merge-request");
}
