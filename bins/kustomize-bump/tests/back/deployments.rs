//! Going by GitLab's deployments.

use serde_json::json;
use towpath_sandbox::gitlab::{Role, Scope};
use towpath_sandbox::servers::{Canned, Fault, Proxy, Rule};

use crate::world::{self, A, B, C, Way, World, both_ways, digest};
use crate::{PROD, ROLLBACK, prod, world_over};

both_ways!(
    only_what_ran_well_is_gone_back_to,
    deployments_whose_commit_is_gone_are_passed_over,
    deployments_are_read_over_several_pages,
    a_deployment_is_known_by_the_job_that_made_the_commit,
    a_gitlab_that_is_down_stops_nobody_who_says_so,
    an_environment_without_deployments_leaves_the_history,
);

impl World {
    /// Records deployments of these commits over the API, the oldest first.
    async fn deploy(&self, environment: &str, status: &str, commits: &[&str]) {
        let token = self
            .gitlab
            .project_access_token(self.project, Role::Developer, &[Scope::Api])
            .unwrap();
        for commit in commits {
            let sha = self.git(&["rev-parse", commit]).await.unwrap();
            let url = format!(
                "{}/api/v4/projects/{}/deployments",
                self.gitlab.url(),
                self.project
            );
            let body = json!({"environment": environment, "sha": sha, "ref": "main", "tag": false, "status": status});
            let response = reqwest::Client::new()
                .post(url)
                .header("PRIVATE-TOKEN", &token)
                .json(&body)
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
        }
    }

    /// The variable, and its value, that leads to the repository by another server in front of it.
    fn behind(&self, host: &str) -> (&'static str, String) {
        match self.way {
            Way::Git => ("TOWPATH_REPO", format!("http://{host}/env/shop.git")),
            Way::Api => ("CI_API_V4_URL", format!("http://{host}/api/v4")),
        }
    }

    /// A token that may read the API.
    fn reader(&self) -> String {
        self.gitlab
            .project_access_token(self.project, Role::Reporter, &[Scope::ReadApi])
            .unwrap()
    }
}

async fn only_what_ran_well_is_gone_back_to(way: Way) {
    let world = world_over(way, &[A, B, C]).await;
    // B came and failed; another environment is another matter.
    world.deploy("production", "success", &["main~2"]).await;
    world.deploy("production", "failed", &["main~1"]).await;
    world.deploy("staging", "success", &["main~1"]).await;
    world.deploy("production", "success", &["main", "main"]).await;
    let token = world.reader();
    let variables = [
        ("TOWPATH_GITLAB_TOKEN", token.as_str()),
        ("CI_ENVIRONMENT_NAME", "production"),
    ];
    let shown = world
        .bump_with(&variables, &[&ROLLBACK[..], &["--dry-run"]].concat())
        .await;
    assert_eq!(shown.went_to(), A);
    assert_eq!(shown.report()["images"][0]["known_by"], "deployment");
    assert_eq!(
        shown.report()["images"][0]["taken_from_commit"],
        world.git(&["rev-parse", "main~2"]).await.unwrap()
    );
    let by_history = world
        .bump_with(&variables, &[&ROLLBACK[..], &["--dry-run", "--offline"]].concat())
        .await;
    assert_eq!(by_history.went_to(), B);

    let report = world.bump_with(&variables, &ROLLBACK).await.report();
    assert_eq!(report["images"][0]["to"]["digest"], A);
    assert_eq!(world.file(PROD).await, prod(A));
    // What the rollback deployed is the newest deployment, and no reason to go anywhere else.
    world.deploy("production", "success", &["main"]).await;
    let again = world.bump_with(&variables, &ROLLBACK).await.report();
    assert_eq!(
        (&again["changed"], &again["images"][0]["to"]["digest"]),
        (&false.into(), &A.into())
    );
}

async fn deployments_whose_commit_is_gone_are_passed_over(way: Way) {
    let world = world_over(way, &[A, B, C]).await;
    // The commits of a branch that was rewritten since.
    let lost = {
        world.git(&["branch", "lost", "main"]).await.unwrap();
        let on_it = [("TOWPATH_BRANCH", "lost")];
        world
            .bump_with(&on_it, &["set", &format!("app@{}", digest(9))])
            .await
            .report();
        world.git(&["rev-parse", "lost"]).await.unwrap()
    };
    world
        .deploy("production", "success", &["main~2", "main~1", &lost, "main"])
        .await;
    world.git(&["branch", "-D", "lost"]).await.unwrap();
    world
        .git(&["reflog", "expire", "--expire=now", "--all"])
        .await
        .unwrap();
    world.git(&["gc", "--quiet", "--prune=now"]).await.unwrap();
    let token = world.reader();
    let variables = [("TOWPATH_GITLAB_TOKEN", token.as_str())];
    let run = async |more: &[&str]| {
        let arguments = [&ROLLBACK[..], &["--dry-run", "--environment", "production"], more].concat();
        world.bump_with(&variables, &arguments).await
    };
    assert_eq!(run(&[]).await.went_to(), B);
    assert_eq!(run(&["--to", "2"]).await.went_to(), A);
    // Fewer deployments than asked for: the repository's history knows no more either.
    run(&["--to", "3"]).await.refused(5, "no 3 deployments");
}

async fn deployments_are_read_over_several_pages(way: Way) {
    let world = world_over(way, &[A, B]).await;
    world.deploy("production", "success", &["main~1"]).await;
    let newest = ["main"; 120];
    world.deploy("production", "success", &newest).await;
    let token = world.reader();
    let variables = [
        ("TOWPATH_GITLAB_TOKEN", token.as_str()),
        ("CI_ENVIRONMENT_NAME", "production"),
    ];
    let ended = world
        .bump_with(&variables, &[&ROLLBACK[..], &["--dry-run"]].concat())
        .await;
    assert_eq!(ended.report()["images"][0]["known_by"], "deployment");
    assert_eq!(ended.went_to(), A);
    assert_eq!(
        ended.stderr.matches("deployments to production").count(),
        2,
        "{}",
        ended.stderr
    );
}

/// A job that commits what it deploys runs on the commit before: GitLab shows that one.
async fn a_deployment_is_known_by_the_job_that_made_the_commit(way: Way) {
    let world = World::over(way, &[(PROD, &prod(&digest(0)))]).await;
    let before = |n: u64| format!("https://gitlab.example.com/env/shop/-/pipelines/{n}");
    let mut deployments = Vec::new();
    for (n, image) in [(1, A), (2, B), (3, C)] {
        let sha = world.git(&["rev-parse", "main"]).await.unwrap();
        let job = format!("https://gitlab.example.com/env/shop/-/jobs/10{n}");
        let variables = [("CI_PIPELINE_URL", before(n)), ("CI_JOB_URL", job)];
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        // The second is of a time when commits did not name their job.
        let variables = if n == 2 { &variables[..1] } else { &variables };
        world
            .bump_with(variables, &["set", &format!("app@{image}")])
            .await
            .report();
        deployments.insert(
            0,
            json!({"iid": n, "sha": sha, "deployable": {"id": 100 + n, "pipeline": {"id": n}}}),
        );
    }
    let proxy = Proxy::start(world.gitlab.url().trim_start_matches("http://"))
        .await
        .unwrap();
    proxy.add(Rule::on(
        "GET",
        "/deployments",
        Fault::Answer(Canned {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: json!(deployments).to_string(),
        }),
    ));
    let (place, address) = world.behind(proxy.host());
    let token = world.reader();
    let variables = [
        ("TOWPATH_GITLAB_TOKEN", token.as_str()),
        (place, &address),
        ("CI_ENVIRONMENT_NAME", "production"),
    ];
    let run = async |to: &str| {
        let arguments = [&ROLLBACK[..], &["--dry-run", "--to", to]].concat();
        world.bump_with(&variables, &arguments).await.report()["images"][0].clone()
    };
    let first = run("1").await;
    assert_eq!(
        (&first["to"]["digest"], &first["known_by"]),
        (&B.into(), &"deployment".into())
    );
    let second = run("2").await;
    assert_eq!(
        (&second["to"]["digest"], &second["known_by"]),
        (&A.into(), &"deployment".into())
    );
    // What was there before the first of them was never deployed by a job that GitLab knows.
    assert_eq!(run("3").await["known_by"], "history");
}

async fn a_gitlab_that_is_down_stops_nobody_who_says_so(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let proxy = Proxy::start(world.gitlab.url().trim_start_matches("http://"))
        .await
        .unwrap();
    proxy.add(Rule::on(
        "GET",
        "/deployments",
        Fault::Answer(Canned {
            status: 503,
            ..Canned::default()
        }),
    ));
    let (place, address) = world.behind(proxy.host());
    let variables = [(place, address.as_str()), ("CI_ENVIRONMENT_NAME", "production")];
    let short = ["--timeout", "10s"];
    let ended = world
        .bump_with(&variables, &[&ROLLBACK[..], &short].concat())
        .await;
    ended.refused(7, "cannot read the deployments to production");
    assert!(ended.stderr.contains("--offline"), "{}", ended.stderr);
    if way == Way::Git {
        // The repository's token is no token of the API: said as well, and the same way out.
        let denied = [("CI_ENVIRONMENT_NAME", "production")];
        world.bump_with(&denied, &ROLLBACK).await.refused(4, "--offline");
    }
    assert_eq!(world.file(PROD).await, prod(B));
    let asked = || {
        let exchanges = proxy.exchanges();
        exchanges.iter().filter(|one| one.uri.contains("/api/")).count()
    };
    let before = asked();
    assert!(before > 0);
    // Whatever way it goes otherwise, it is git's now: the project's address is known.
    let ended = world
        .bump_with(&variables, &[&ROLLBACK[..], &["--offline"]].concat())
        .await;
    assert_eq!(ended.went_to(), A);
    assert_eq!(ended.report()["via"], "git");
    assert_eq!(asked(), before, "nothing more was asked of the API");
}

async fn an_environment_without_deployments_leaves_the_history(way: Way) {
    let world = world_over(way, &[A, B]).await;
    let token = world.reader();
    let variables = [
        ("TOWPATH_GITLAB_TOKEN", token.as_str()),
        ("CI_ENVIRONMENT_NAME", "prodution"),
    ];
    let ended = world.bump_with(&variables, &ROLLBACK).await;
    assert_eq!(ended.went_to(), A);
    assert!(
        ended
            .stderr
            .contains("no 1 earlier successful deployments of image app to prodution"),
        "{}",
        ended.stderr
    );
}
