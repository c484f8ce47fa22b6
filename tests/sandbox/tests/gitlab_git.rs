//! Git over HTTP: who may fetch and push, protected branches, what follows a push.

mod gitlab_world;

use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use gitlab_world::{LIMIT, World, logs};
use serde_json::Value;
use towpath_sandbox::gitlab::{ProjectSettings, Role, Scope, Status, Visibility};

const ECHO: (&str, &str) = (".gitlab-ci.yml", "job: {script: [echo hello]}\n");

#[tokio::test]
async fn tokens_open_what_their_scope_and_role_allow() {
    let world = World::start().await;
    let id = world
        .project_with("group/sub/app", ProjectSettings::default(), &[ECHO])
        .await;
    let folder = world.folder().join("t");
    std::fs::create_dir(&folder).unwrap();
    let url = world.gitlab.clone_url("group/sub/app");
    let fetch = async |token: &str| world.git_as(token, &folder, &["ls-remote", &url]).await;
    let push = async |token: &str, to: &str| {
        let clone = world.clone_of("group/sub/app", "main").await;
        world
            .git_as(
                token,
                &clone,
                &[
                    "push",
                    "-o",
                    "ci.skip",
                    "origin",
                    &format!("HEAD:refs/heads/{to}"),
                ],
            )
            .await
    };
    let project_token = |role, scopes: &[Scope]| world.gitlab.project_access_token(id, role, scopes).unwrap();

    let reads = project_token(Role::Developer, &[Scope::ReadRepository]);
    fetch(&reads).await.unwrap();
    assert!(push(&reads, "x").await.unwrap_err().contains("403"));
    let writes = project_token(Role::Developer, &[Scope::WriteRepository]);
    push(&writes, "feature").await.unwrap();
    let api_alone = project_token(Role::Developer, &[Scope::ReadApi]);
    assert!(fetch(&api_alone).await.unwrap_err().contains("403"));
    let reporter = project_token(Role::Reporter, &[Scope::WriteRepository]);
    fetch(&reporter).await.unwrap();
    assert!(push(&reporter, "x").await.unwrap_err().contains("403"));

    let stranger = world.gitlab.add_user("stranger");
    let stranger = world
        .gitlab
        .personal_access_token(stranger, &[Scope::Api])
        .unwrap();
    assert!(fetch(&stranger).await.unwrap_err().contains("not found"));
    let unknown = fetch("glpat-unknown").await.unwrap_err();
    assert!(
        unknown.contains("Authentication failed") || unknown.contains("could not read"),
        "{unknown}"
    );

    let plain = world
        .http
        .get(format!("{url}/info/refs?service=git-upload-pack"))
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 401);
    assert_eq!(plain.headers()["www-authenticate"], "Basic realm=\"GitLab\"");
    world
        .gitlab
        .configure(id, |settings| settings.visibility = Visibility::Public)
        .unwrap();
    let plain = world
        .http
        .get(format!("{url}/info/refs?service=git-upload-pack"))
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 200);
}

#[tokio::test]
async fn protected_branches_refuse_force_and_those_without_the_role() {
    let world = World::start().await;
    let id = world
        .project_with("group/app", ProjectSettings::default(), &[("a.txt", "1")])
        .await;
    let developer = world
        .gitlab
        .project_access_token(id, Role::Developer, &[Scope::WriteRepository])
        .unwrap();
    let clone = world.clone_of("group/app", "main").await;
    world
        .git(&clone, &["commit", "--quiet", "--amend", "--message", "Other"])
        .await
        .unwrap();
    let forced = world
        .git(&clone, &["push", "--force", "origin", "HEAD:main"])
        .await
        .unwrap_err();
    assert!(
        forced.contains("You are not allowed to force push code to a protected branch"),
        "{forced}"
    );
    world
        .git(&clone, &["push", "--force", "origin", "HEAD:other"])
        .await
        .unwrap();
    world
        .git(&clone, &["commit", "--quiet", "--amend", "--message", "Third"])
        .await
        .unwrap();
    world
        .git(&clone, &["push", "--force", "origin", "HEAD:other"])
        .await
        .unwrap();
    let gone = world.git(&clone, &["push", "origin", ":main"]).await.unwrap_err();
    assert!(gone.contains("only delete protected branches"), "{gone}");
    let clone = world.clone_of("group/app", "main").await;
    world
        .git(
            &clone,
            &["commit", "--quiet", "--allow-empty", "--message", "More"],
        )
        .await
        .unwrap();
    let refused = world
        .git_as(&developer, &clone, &["push", "origin", "HEAD:main"])
        .await
        .unwrap_err();
    assert!(
        refused.contains("not allowed to push code to protected branches"),
        "{refused}"
    );
}

#[tokio::test]
async fn both_protocols_partial_and_shallow_clones_work() {
    let world = World::start().await;
    world
        .project_with(
            "group/app",
            ProjectSettings::default(),
            &[("a.txt", "1"), ("d/b.txt", "2")],
        )
        .await;
    world
        .push("group/app", "main", &[("a.txt", "3")], &["-o", "ci.skip"])
        .await;
    let url = world.gitlab.clone_url("group/app");
    for (n, arguments) in [
        vec!["-c", "protocol.version=0", "clone", "--quiet"],
        vec!["-c", "protocol.version=2", "clone", "--quiet", "--depth=1"],
        vec!["clone", "--quiet", "--filter=tree:0", "--sparse"],
        vec!["clone", "--quiet", "--filter=blob:none"],
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("clone-{n}");
        let mut arguments = arguments;
        arguments.extend([url.as_str(), target.as_str()]);
        world.git(world.folder(), &arguments).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(world.folder().join(&target).join("a.txt")).unwrap(),
            "3"
        );
    }
    assert_eq!(
        world
            .git(&world.folder().join("clone-1"), &["rev-list", "--count", "HEAD"])
            .await
            .unwrap(),
        "1"
    );
    // A large request is sent in pieces and compressed.
    let noise: String = (0..300_000_u32)
        .map(|n| format!("{:x} ", n.wrapping_mul(2_654_435_761)))
        .collect();
    world
        .push("group/app", "main", &[("large.txt", &noise)], &["-o", "ci.skip"])
        .await;
}

#[tokio::test]
async fn skipped_pushes_start_no_pipeline() {
    let world = World::start().await;
    world
        .project_with("group/app", ProjectSettings::default(), &[ECHO])
        .await;
    let clone = world.clone_of("group/app", "main").await;
    world
        .git(
            &clone,
            &[
                "commit",
                "--quiet",
                "--allow-empty",
                "--message",
                "Quiet [skip ci]",
            ],
        )
        .await
        .unwrap();
    world
        .git(&clone, &["push", "--quiet", "origin", "HEAD:main"])
        .await
        .unwrap();
    let sha = world.push("group/app", "main", &[("b", "1")], &[]).await;
    world.finished("group/app", &sha).await;
    assert_eq!(
        world.gitlab.snapshot().len(),
        1,
        "neither ci.skip nor [skip ci] starts a pipeline"
    );
}

#[tokio::test]
async fn a_job_token_pushes_where_the_setting_allows_and_starts_no_pipeline() {
    let world = World::start().await;
    let config = r#"
job:
  script:
    - git config user.name job && git config user.email job@example.test
    - git commit --quiet --allow-empty --message 'From a job'
    - git push --quiet origin HEAD:refs/heads/from-job
fetch:
  script:
    - git ls-remote "$CI_SERVER_URL/group/other.git"
"#;
    let app = world.project("group/app", ProjectSettings::default()).await;
    let other = world
        .project_with("group/other", ProjectSettings::default(), &[ECHO])
        .await;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    let log = |pipeline: &towpath_sandbox::gitlab::PipelineSnapshot, job: &str| {
        pipeline.job(job).unwrap().trace.clone()
    };
    assert!(
        log(&pipeline, "job").contains("You are not allowed to push code"),
        "{}",
        logs(&pipeline)
    );
    let refused = log(&pipeline, "fetch");
    assert!(
        refused.contains("Authentication by CI/CD job token not allowed from app to other."),
        "{refused}"
    );

    world
        .gitlab
        .configure(app, |settings| settings.job_token_may_push = true)
        .unwrap();
    world.gitlab.allow_job_tokens(other, app).unwrap();
    let sha = world.push("group/app", "main", &[("again", "1")], &[]).await;
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Success, "{}", logs(&pipeline));
    // A later push of a person has a pipeline; the job's push before it has none.
    let sha = world.push("group/app", "last", &[("last", "1")], &[]).await;
    world
        .gitlab
        .wait_for_pipeline("group/app", |found| found.sha == sha, LIMIT)
        .await
        .unwrap();
    let all = world.gitlab.snapshot();
    assert!(
        all.iter().all(|pipeline| pipeline.ref_name != "from-job"),
        "{all:?}"
    );
}

#[tokio::test]
async fn push_events_reach_the_hook() {
    let world = World::start().await;
    let events: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&events);
    let router = Router::new().route(
        "/hook",
        post(async move |Json(event): Json<Value>| {
            seen.lock().unwrap().push(event);
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    world.gitlab.add_push_hook(&url);
    world
        .project_with("group/env", ProjectSettings::default(), &[ECHO])
        .await;
    let sha = world
        .push(
            "group/env",
            "main",
            &[("overlay/kustomization.yaml", "x: 1")],
            &[],
        )
        .await;
    // Hooks are called before the pipeline is made.
    world.finished("group/env", &sha).await;
    server.abort();
    let events = events.lock().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["ref"], "refs/heads/main");
    assert_eq!(events[1]["after"], sha);
    assert_eq!(events[1]["commits"][0]["added"][0], "overlay/kustomization.yaml");
    assert_eq!(events[1]["project"]["path_with_namespace"], "group/env");
}
