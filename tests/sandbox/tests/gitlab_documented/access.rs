//! Who may do what: every kind of token at every route of pipelines and jobs, in each release.

use reqwest::Method;
use serde_json::{Value, json};
use towpath_sandbox::gitlab::{PlannedJob, Role, Scope, Status, Version};

use crate::gitlab_world::World;
use crate::{directed, start};

/// The routes, in the order of the columns below.
const ROUTES: [(&str, &str); 14] = [
    ("list", "GET pipelines"),
    ("show", "GET pipelines/P"),
    ("jobs", "GET pipelines/P/jobs"),
    ("bridges", "GET pipelines/P/bridges"),
    ("variables", "GET pipelines/P/variables"),
    ("all jobs", "GET jobs"),
    ("job", "GET jobs/J"),
    ("trace", "GET jobs/J/trace"),
    ("artifact", "GET jobs/J/artifacts/none.txt"),
    ("start", "POST pipeline?ref=main"),
    ("play", "POST jobs/M/play"),
    ("retry job", "POST jobs/F/retry"),
    ("retry", "POST pipelines/P/retry"),
    ("cancel", "POST pipelines/P/cancel"),
];

/// What the columns of [`ROUTES`] answer. A private project is not there for whoever may not see it. The artifact is not
/// there either, which is 404 to whoever may read artifacts.
const BEFORE_19_2: [(&str, [u16; 14]); 9] = [
    (
        "nobody",
        [
            404, 404, 404, 404, 404, 404, 404, 404, 404, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "trigger token",
        [
            401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "job token",
        [
            404, 404, 200, 404, 404, 200, 404, 404, 404, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "job token, not on the list",
        [
            404, 404, 403, 404, 404, 403, 404, 404, 403, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "job token of an ended job",
        [
            404, 404, 401, 404, 404, 401, 404, 404, 401, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "read_api",
        [
            200, 200, 200, 200, 200, 200, 200, 200, 404, 403, 403, 403, 403, 403,
        ],
    ),
    (
        "reporter",
        [
            200, 200, 200, 200, 403, 200, 200, 200, 404, 403, 403, 403, 403, 403,
        ],
    ),
    (
        "developer",
        [
            200, 200, 200, 200, 200, 200, 200, 200, 404, 201, 200, 201, 201, 200,
        ],
    ),
    (
        "read_repository",
        [
            403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403,
        ],
    ),
];

/// A job token reads pipelines and their trigger jobs too.
const SINCE_19_2: [(&str, [u16; 14]); 3] = [
    (
        "job token",
        [
            200, 200, 200, 200, 404, 200, 404, 404, 404, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "job token, not on the list",
        [
            403, 403, 403, 403, 404, 403, 404, 404, 403, 401, 401, 401, 401, 401,
        ],
    ),
    (
        "job token of an ended job",
        [
            401, 401, 401, 401, 404, 401, 404, 404, 401, 401, 401, 401, 401, 401,
        ],
    ),
];

/// The token of a job in a project of its own.
async fn job_token(world: &World, path: &str, status: Status) -> (u64, String) {
    let project = world
        .project_with(path, Default::default(), &[(".gitlab-ci.yml", crate::CONFIG)])
        .await;
    world
        .gitlab
        .direct(project, vec![PlannedJob::new("promote", "deploy")])
        .unwrap();
    let id = start(world, project).await;
    let job = world.gitlab.pipeline(id).unwrap().jobs[0].id;
    world.gitlab.move_job(job, status).unwrap();
    (project, world.gitlab.job_token(job).unwrap())
}

#[tokio::test]
async fn each_kind_of_token_may_do_what_is_documented() {
    for version in Version::ALL {
        let jobs = ["ok", "failed", "by hand"].map(|name| PlannedJob::new(name, "deploy"));
        let (world, project) = directed(jobs.to_vec(), |settings| {
            settings.version = version;
            settings.limits.pipelines_per_minute = 1000;
        })
        .await;
        let gitlab = &world.gitlab;
        let (listed, job) = job_token(&world, "group/listed", Status::Running).await;
        let (_, stranger) = job_token(&world, "group/stranger", Status::Running).await;
        let (ended, late) = job_token(&world, "group/ended", Status::Success).await;
        gitlab.allow_job_tokens(project, listed).unwrap();
        gitlab.allow_job_tokens(project, ended).unwrap();
        let access = |role, scope| gitlab.project_access_token(project, role, &[scope]).unwrap();
        let tokens = [
            ("nobody", String::new()),
            (
                "trigger token",
                gitlab.trigger_token(project, world.maintainer).unwrap(),
            ),
            ("job token", job),
            ("job token, not on the list", stranger),
            ("job token of an ended job", late),
            ("read_api", access(Role::Maintainer, Scope::ReadApi)),
            ("reporter", access(Role::Reporter, Scope::Api)),
            ("developer", access(Role::Developer, Scope::Api)),
            ("read_repository", access(Role::Maintainer, Scope::ReadRepository)),
        ];
        for (kind, token) in tokens {
            let newer = SINCE_19_2
                .iter()
                .find(|(of, _)| *of == kind && version >= Version::V19_2);
            let (_, expected) = newer
                .or_else(|| BEFORE_19_2.iter().find(|(of, _)| *of == kind))
                .unwrap();
            for ((name, route), expected) in ROUTES.iter().zip(expected) {
                let got = ask(&world, project, route, &token).await;
                assert_eq!(got, *expected, "{version}: {kind}, {name}");
            }
        }
    }
}

/// Asks one route of a pipeline whose jobs have succeeded, failed, and wait for a person.
async fn ask(world: &World, project: u64, route: &str, token: &str) -> u16 {
    let id = start(world, project).await;
    let made = world.gitlab.pipeline(id).unwrap();
    let job = |name: &str| made.job(name).unwrap().id;
    for (name, status) in [
        ("ok", Status::Success),
        ("failed", Status::Failed),
        ("by hand", Status::Manual),
    ] {
        world.gitlab.move_job(job(name), status).unwrap();
    }
    let (method, path) = route.split_once(' ').unwrap();
    let path = path
        .replace("/P", &format!("/{id}"))
        .replace("/J", &format!("/{}", job("ok")))
        .replace("/M", &format!("/{}", job("by hand")))
        .replace("/F", &format!("/{}", job("failed")));
    let method: Method = method.parse().unwrap();
    let url = format!("/projects/{project}/{path}");
    world
        .call(method, &url, token, Value::Null)
        .await
        .status()
        .as_u16()
}

#[tokio::test]
async fn a_start_by_trigger_or_job_token_is_refused_as_documented() {
    let (world, project) = directed(vec![PlannedJob::new("plan", "plan")], |_| {}).await;
    let (listed, job) = job_token(&world, "group/listed", Status::Running).await;
    let (_, stranger) = job_token(&world, "group/stranger", Status::Running).await;
    let (_, late) = job_token(&world, "group/ended", Status::Success).await;
    world.gitlab.allow_job_tokens(project, listed).unwrap();
    let (other, _) = job_token(&world, "group/other", Status::Running).await;
    let own = world.gitlab.trigger_token(project, world.maintainer).unwrap();
    let foreign = world.gitlab.trigger_token(other, world.maintainer).unwrap();
    let path = format!("/projects/{project}/trigger/pipeline");
    for (token, status) in [
        (own.as_str(), 201),
        (job.as_str(), 201),
        (foreign.as_str(), 404),
        (stranger.as_str(), 404),
        (late.as_str(), 401),
        ("nonsense", 404),
    ] {
        let body = json!({ "ref": "main", "token": token });
        let answered = world.call(Method::POST, &path, "", body).await;
        assert_eq!(answered.status(), status, "{token}");
    }
    world
        .gitlab
        .configure(project, |settings| settings.pipeline_variables_role = None)
        .unwrap();
    let body = json!({ "ref": "main", "token": job, "variables": { "A": "b" } });
    let answered = world.call(Method::POST, &path, "", body).await;
    let (status, body) = crate::gitlab_world::answer(answered).await;
    assert_eq!(status, 400);
    let told = "Insufficient permissions to set pipeline variables";
    assert_eq!(body, json!({ "message": { "base": [told] } }));
}

#[tokio::test]
async fn releases_differ_in_trigger_jobs_and_parts_of_logs() {
    for version in Version::ALL {
        let (world, project) = directed(vec![PlannedJob::new("plan", "plan")], |settings| {
            settings.version = version;
        })
        .await;
        let id = start(&world, project).await;
        let job = world.gitlab.pipeline(id).unwrap().jobs[0].id;
        world.gitlab.write_log(job, "0123456789");
        let newest = version == Version::V19_2;
        let base = format!("/projects/{project}");
        let (status, _) = world.get(&format!("{base}/pipelines/{id}/trigger_jobs")).await;
        assert_eq!(status, if newest { 200 } else { 404 }, "{version}");
        let (status, _) = world.get(&format!("{base}/pipelines/{id}/bridges")).await;
        assert_eq!(status, 200, "{version}");
        let part = format!("{base}/jobs/{job}/trace?byte_offset=2&byte_limit=3");
        let part = world.call(Method::GET, &part, &world.token, Value::Null).await;
        let expected = if newest { "234" } else { "0123456789" };
        assert_eq!(part.text().await.unwrap(), expected, "{version}");
        let (_, told) = world.get("/version").await;
        assert_eq!(told["version"], version.to_string());
    }
}
