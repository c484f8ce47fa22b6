//! The REST API: what each kind of token may do, and what changes through it.

mod gitlab_world;

use std::time::Duration;

use base64::Engine as _;
use gitlab_world::{LIMIT, World, answer, logs};
use reqwest::Method;
use serde_json::{Value, json};
use towpath_sandbox::gitlab::{ProjectSettings, Role, Scope, Source, Status};

const ENV: &str = "job: {script: ['echo \"got $WORD and $(cat $TRIGGER_PAYLOAD)\"']}\n";

/// What a job can do with its token: it reports the statuses of many requests.
const ASKING: &str = r#"
ask:
  script:
    - |
      ask() { curl --silent --output body --write-out '%{http_code}' "$@"; }
      api="$CI_API_V4_URL/projects/group%2Fenv"
      token="JOB-TOKEN: $CI_JOB_TOKEN"
      echo "trigger $(ask --form "token=$CI_JOB_TOKEN" --form ref=main --form 'variables[WORD]=hi' "$api/trigger/pipeline")"
      first_id() { sed -n 's/^[^0-9]*"id":\([0-9]*\).*/\1/p' body; }
      id=$(first_id)
      echo "jobs $(ask --header "$token" "$api/pipelines/$id/jobs")"
      job=$(first_id)
      echo "pipeline $(ask --header "$token" "$api/pipelines/$id")"
      echo "bridges $(ask --header "$token" "$api/pipelines/$id/bridges")"
      echo "trace $(ask --header "$token" "$api/jobs/$job/trace")"
      echo "cancel $(ask --request POST --header "$token" "$api/pipelines/$id/cancel")"
      echo "own $(ask --header "$token" "$CI_API_V4_URL/job")"
      echo "commit $(ask --request POST --header "$token" --header 'Content-Type: application/json' --data '{"branch":"main","commit_message":"x","actions":[]}' "$api/repository/commits")"
      echo "file $(ask --header "$token" "$api/repository/files/.gitlab-ci.yml?ref=main")"
      echo "deployments $(ask --header "$token" "$api/deployments")"
"#;

#[tokio::test]
async fn a_job_token_can_trigger_and_see_jobs_and_little_else() {
    let world = World::start().await;
    let env = world
        .project_with(
            "group/env",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", ENV)],
        )
        .await;
    let app = world.project("group/app", ProjectSettings::default()).await;
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", ASKING)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    let log = pipeline.job("ask").unwrap().trace.clone();
    assert!(log.contains("trigger 404"), "not on the allowlist: {log}");
    assert!(log.contains("file 403"), "{log}");

    world.gitlab.allow_job_tokens(env, app).unwrap();
    let sha = world.push("group/app", "main", &[("again", "1")], &[]).await;
    let pipeline = world.finished("group/app", &sha).await;
    let asking = pipeline.job("ask").unwrap();
    let log = &asking.trace;
    for expected in [
        "trigger 201",
        "jobs 200",
        "pipeline 200",
        "bridges 200",
        "trace 404",
        "cancel 401",
        "own 200",
        "commit 401",
        "file 200",
        "deployments 200",
    ] {
        assert!(
            log.lines().any(|line| line == expected),
            "no {expected} in\n{log}"
        );
    }
    let linked = |found: &towpath_sandbox::gitlab::PipelineSnapshot| found.source_job == Some(asking.id);
    let triggered = world
        .gitlab
        .wait_for_pipeline("group/env", linked, LIMIT)
        .await
        .unwrap();
    assert_eq!(triggered.source, Source::Pipeline);
    let triggered = world
        .gitlab
        .wait_until_finished(triggered.id, LIMIT)
        .await
        .unwrap();
    assert!(logs(&triggered).contains("got hi and {"), "{}", logs(&triggered));
    assert!(!logs(&triggered).contains("glcbt"), "{}", logs(&triggered));
}

#[tokio::test]
async fn trigger_tokens_and_their_refusals() {
    let world = World::start().await;
    let env = world
        .project_with(
            "group/env",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", ENV)],
        )
        .await;
    let other = world.project("group/other", ProjectSettings::default()).await;
    let token = world.gitlab.trigger_token(env, world.maintainer).unwrap();
    let trigger = async |project: u64, body: Value| {
        let path = format!("/projects/{project}/trigger/pipeline");
        answer(world.call(Method::POST, &path, "", body).await).await
    };
    let (status, body) = trigger(
        env,
        json!({ "ref": "main", "token": token, "variables": { "WORD": "yes" } }),
    )
    .await;
    assert_eq!(status, 201, "{body}");
    assert!(body["id"].is_u64() && body["coverage"].is_null() && body["finished_at"].is_null());
    assert_eq!(body["source"], "trigger");
    for (project, body, status, expected) in [
        (
            env,
            json!({ "ref": "main" }),
            400,
            json!({ "error": "token is missing" }),
        ),
        (
            env,
            json!({ "token": token }),
            400,
            json!({ "error": "ref is missing" }),
        ),
        (
            other,
            json!({ "ref": "main", "token": token }),
            404,
            json!({ "message": "404 Not Found" }),
        ),
        (
            env,
            json!({ "ref": "main", "token": "wrong" }),
            404,
            json!({ "message": "404 Not Found" }),
        ),
        (
            env,
            json!({ "ref": "none", "token": token }),
            400,
            json!({ "message": { "base": ["Reference not found"] } }),
        ),
        (
            env,
            json!({ "ref": "main", "token": token, "variables": { "A": 1 } }),
            400,
            json!({ "message": "variables needs to be a map of key-valued strings" }),
        ),
    ] {
        let (got, body) = trigger(project, body).await;
        assert_eq!((got.as_u16(), body), (status, expected));
    }
    let clone = world.clone_of("group/env", "main").await;
    world.git(&clone, &["tag", "main"]).await.unwrap();
    world
        .git(&clone, &["push", "-o", "ci.skip", "origin", "refs/tags/main"])
        .await
        .unwrap();
    let (status, body) = trigger(env, json!({ "ref": "main", "token": token })).await;
    assert_eq!(
        (status.as_u16(), body),
        (400, json!({ "message": { "base": ["Ref is ambiguous"] } }))
    );
    world
        .gitlab
        .configure(env, |settings| settings.pipeline_variables_role = None)
        .unwrap();
    let given = json!({ "ref": "refs/heads/main", "token": token, "variables": { "A": "1" } });
    let (status, body) = trigger(env, given).await;
    let refused = json!({ "message": { "base": ["Insufficient permissions to set pipeline variables"] } });
    assert_eq!((status.as_u16(), body), (400, refused));
}

#[tokio::test]
async fn access_tokens_see_and_do_what_scope_and_role_allow() {
    let world = World::start().await;
    let id = world
        .project_with(
            "group/app",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", ENV)],
        )
        .await;
    let reads = world
        .gitlab
        .project_access_token(id, Role::Developer, &[Scope::ReadApi])
        .unwrap();
    let reporter = world
        .gitlab
        .project_access_token(id, Role::Reporter, &[Scope::Api])
        .unwrap();
    let developer = world
        .gitlab
        .project_access_token(id, Role::Developer, &[Scope::Api])
        .unwrap();
    let stranger = world.gitlab.add_user("stranger");
    let stranger = world
        .gitlab
        .personal_access_token(stranger, &[Scope::Api])
        .unwrap();
    let ask = async |method: Method, path: &str, token: &str| {
        let body = if method == Method::POST {
            json!({ "ref": "main" })
        } else {
            Value::Null
        };
        answer(world.call(method, path, token, body).await).await
    };
    let show = format!("/projects/{id}");
    assert_eq!(ask(Method::GET, &show, &reads).await.0, 200);
    let not_found = (404, json!({ "message": "404 Project Not Found" }));
    let (status, body) = ask(Method::GET, &show, &stranger).await;
    assert_eq!((status.as_u16(), body), not_found);
    let (status, body) = ask(Method::GET, &show, "").await;
    assert_eq!((status.as_u16(), body), not_found);
    let (status, body) = ask(Method::GET, &show, "glpat-none").await;
    assert_eq!(
        (status.as_u16(), body),
        (401, json!({ "message": "401 Unauthorized" }))
    );
    let create = format!("/projects/{id}/pipeline");
    let (status, body) = ask(Method::POST, &create, &reads).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (403, &json!("insufficient_scope"))
    );
    let (status, body) = ask(Method::POST, &create, &reporter).await;
    assert_eq!(
        (status.as_u16(), body),
        (403, json!({ "message": "403 Forbidden" }))
    );
    let (status, body) = ask(Method::POST, &create, "").await;
    assert_eq!(
        (status.as_u16(), body),
        (401, json!({ "message": "401 Unauthorized" }))
    );
    // A developer may not run pipelines on a protected branch here.
    let (status, body) = ask(Method::POST, &create, &developer).await;
    assert_eq!(status, 400);
    assert!(
        body["message"]["base"][0]
            .as_str()
            .unwrap()
            .starts_with("You do not have sufficient permission")
    );
    let (status, body) = ask(Method::GET, "/nothing", &world.token).await;
    assert_eq!(
        (status.as_u16(), body),
        (404, json!({ "message": "404 Not Found" }))
    );
    let (_, user) = ask(Method::GET, "/user", &developer).await;
    assert!(
        user["bot"] == true
            && user["username"]
                .as_str()
                .unwrap()
                .starts_with(&format!("project_{id}_bot_"))
    );
}

#[tokio::test]
async fn pipelines_are_filtered_and_paged_and_logs_read_in_parts() {
    let world = World::start().await;
    let id = world
        .project_with(
            "group/app",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", ENV)],
        )
        .await;
    let mut last = 0;
    for _ in 0..3 {
        let (status, body) = world
            .post(&format!("/projects/{id}/pipeline?ref=main"), json!(null))
            .await;
        assert_eq!(status, 201, "{body}");
        last = body["id"].as_u64().unwrap();
    }
    let page = world
        .call(
            Method::GET,
            &format!("/projects/{id}/pipelines?source=api&per_page=2"),
            &world.token,
            Value::Null,
        )
        .await;
    assert_eq!(page.headers()["x-next-page"], "2");
    assert_eq!(page.headers()["x-total"], "3");
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    let next = link.split_once('>').unwrap().0.trim_start_matches('<').to_owned();
    assert!(
        link.contains("rel=\"next\"") && next.contains("source=api") && next.contains("page=2"),
        "{link}"
    );
    let (_, first) = answer(page).await;
    assert_eq!(first[0]["id"], last);
    let second = world
        .http
        .get(next)
        .header("PRIVATE-TOKEN", &world.token)
        .send()
        .await
        .unwrap();
    assert_eq!(second.headers()["x-next-page"], "");
    assert_eq!(answer(second).await.1.as_array().unwrap().len(), 1);
    assert_eq!(
        world
            .get(&format!("/projects/{id}/pipelines?source=push"))
            .await
            .1,
        json!([])
    );

    let pipeline = world.gitlab.wait_until_finished(last, LIMIT).await.unwrap();
    let job = &pipeline.jobs[0];
    let trace = format!("/projects/{id}/jobs/{}/trace", job.id);
    let whole = world
        .call(Method::GET, &trace, &world.token, Value::Null)
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(whole, job.trace);
    let part = format!("{trace}?byte_offset=3&byte_limit=5");
    let part = world
        .call(Method::GET, &part, &world.token, Value::Null)
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(part, &whole[3..8]);
    let url = format!("{}{trace}", world.gitlab.api_url());
    let ranged = world
        .http
        .get(url)
        .bearer_auth(&world.token)
        .header("Range", "bytes=10-")
        .send()
        .await
        .unwrap();
    assert_eq!(ranged.status(), 200, "GitLab does not look at it");
    assert_eq!(ranged.text().await.unwrap(), whole);
    let (_, jobs) = world
        .get(&format!("/projects/{id}/pipelines/{last}/jobs?scope[]=failed"))
        .await;
    let expected = usize::from(job.status == Status::Failed);
    assert_eq!(jobs.as_array().unwrap().len(), expected);
    let (status, body) = world
        .get(&format!("/projects/{id}/pipelines/{last}/jobs?scope[]=nonsense"))
        .await;
    assert_eq!(
        (status.as_u16(), body),
        (400, json!({ "error": "scope does not have a valid value" }))
    );
}

#[tokio::test]
async fn commits_hold_to_the_last_commit_of_each_file() {
    let world = World::start().await;
    let files = [("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")];
    let id = world
        .project_with("group/env", ProjectSettings::default(), &files)
        .await;
    let (_, file) = world
        .get(&format!("/projects/{id}/repository/files/a.yaml?ref=main"))
        .await;
    let content = base64::engine::general_purpose::STANDARD
        .decode(file["content"].as_str().unwrap())
        .unwrap();
    assert_eq!(content, b"a: 1\n");
    let last = file["last_commit_id"].as_str().unwrap().to_owned();
    // Another file moves the branch, which is no conflict for this one.
    world
        .push("group/env", "main", &[("b.yaml", "b: 2\n")], &[])
        .await;
    let commit = async |actions: Value| {
        let body = json!({ "branch": "main", "commit_message": "Bump\n\nBody", "actions": actions });
        world
            .post(&format!("/projects/{id}/repository/commits"), body)
            .await
    };
    let update = |content: &str| json!([{ "action": "update", "file_path": "a.yaml", "content": content, "last_commit_id": last }]);
    let (status, made) = commit(update("a: 2\n")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["title"], "Bump");
    let (status, refused) = commit(update("a: 3\n")).await;
    let text = "The file has changed since you started editing it: a.yaml";
    assert_eq!((status.as_u16(), refused), (400, json!({ "message": text })));
    let (status, refused) =
        commit(json!([{ "action": "create", "file_path": "a.yaml", "content": "" }])).await;
    assert_eq!(
        (status.as_u16(), &refused["message"]),
        (400, &json!("A file with this name already exists"))
    );
    let (status, refused) = commit(json!([{ "action": "delete", "file_path": "none" }])).await;
    assert_eq!(
        (status.as_u16(), &refused["message"]),
        (400, &json!("A file with this name doesn't exist"))
    );
    let both = json!([
        { "action": "create", "file_path": "d/new.yaml", "content": "bmV3", "encoding": "base64" },
        { "action": "move", "file_path": "c.yaml", "previous_path": "b.yaml" },
    ]);
    let (status, made) = commit(both).await;
    assert_eq!(status, 201, "{made}");
    let sha = made["id"].as_str().unwrap();
    let (_, diff) = world
        .get(&format!("/projects/{id}/repository/commits/{sha}/diff"))
        .await;
    let diff = diff.as_array().unwrap();
    assert!(
        diff.iter()
            .any(|file| file["new_path"] == "d/new.yaml" && file["new_file"] == true),
        "{diff:?}"
    );
    assert!(
        diff.iter()
            .any(|file| file["old_path"] == "b.yaml" && file["renamed_file"] == true),
        "{diff:?}"
    );
    let (_, compared) = world
        .get(&format!("/projects/{id}/repository/compare?from={last}&to=main"))
        .await;
    assert_eq!(compared["commits"].as_array().unwrap().len(), 3);
    let (status, body) = world
        .get(&format!("/projects/{id}/repository/branches/none"))
        .await;
    assert_eq!(
        (status.as_u16(), body),
        (404, json!({ "message": "404 Branch Not Found" }))
    );
}

#[tokio::test]
async fn limits_answer_as_documented() {
    /// A minute, except where the machine may take as long itself.
    const LONG: Duration = Duration::from_secs(3600);
    let world = World::with(|settings| {
        settings.limits.pipelines_per_minute = 1;
        settings.limits.minute = LONG;
    })
    .await;
    let id = world
        .project_with(
            "group/app",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", ENV)],
        )
        .await;
    let create = format!("/projects/{id}/pipeline");
    assert_eq!(world.post(&create, json!({ "ref": "main" })).await.0, 201);
    let limited = world
        .call(Method::POST, &create, &world.token, json!({ "ref": "main" }))
        .await;
    assert_eq!(limited.status(), 400);
    assert!(limited.headers().get("retry-after").is_none());
    let (_, body) = answer(limited).await;
    let told = "Too many pipelines created in the last minute. Try again later.";
    assert_eq!(body, json!({ "message": { "base": [told] } }));

    let world = World::with(|settings| {
        settings.limits.job_lists_per_minute = 1;
        settings.limits.minute = LONG;
    })
    .await;
    let id = world.project("group/app", ProjectSettings::default()).await;
    let jobs = format!("/projects/{id}/jobs");
    assert_eq!(world.get(&jobs).await.0, 200);
    let limited = world.call(Method::GET, &jobs, &world.token, Value::Null).await;
    assert_eq!(limited.status(), 429);
    assert!(limited.headers().get("retry-after").is_none());
    let (_, body) = answer(limited).await;
    let told = "This endpoint has been requested too many times. Try again later.";
    assert_eq!(body, json!({ "message": { "error": told } }));

    let world = World::with(|settings| {
        settings.limits.requests_per_minute = Some(2);
        settings.limits.minute = LONG;
    })
    .await;
    assert_eq!(world.get("/user").await.0, 200);
    assert_eq!(world.get("/user").await.0, 200);
    let limited = world.call(Method::GET, "/user", &world.token, Value::Null).await;
    assert_eq!(limited.status(), 429);
    let wait: u64 = limited.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=LONG.as_secs() + 1).contains(&wait));
    assert_eq!(limited.headers()["ratelimit-remaining"], "0");
    assert_eq!(limited.text().await.unwrap(), "Retry later\n");
}

#[tokio::test]
async fn a_trigger_job_takes_the_result_of_the_other_project() {
    let world = World::start().await;
    world
        .project_with(
            "group/env",
            ProjectSettings::default(),
            &[(".gitlab-ci.yml", "job: {script: [exit 3]}\n")],
        )
        .await;
    world.project("group/app", ProjectSettings::default()).await;
    let config = "deploy:\n  trigger: {project: group/env, branch: main, strategy: depend}\n";
    let sha = world
        .push("group/app", "main", &[(".gitlab-ci.yml", config)], &[])
        .await;
    let pipeline = world.finished("group/app", &sha).await;
    assert_eq!(pipeline.status, Status::Failed, "{}", logs(&pipeline));
    let (_, jobs) = world
        .get(&format!("/projects/group%2Fapp/pipelines/{}/jobs", pipeline.id))
        .await;
    assert_eq!(jobs, json!([]));
    let (_, bridges) = world
        .get(&format!(
            "/projects/group%2Fapp/pipelines/{}/trigger_jobs",
            pipeline.id
        ))
        .await;
    assert_eq!(bridges[0]["name"], "deploy");
    assert_eq!(bridges[0]["downstream_pipeline"]["status"], "failed");
}
