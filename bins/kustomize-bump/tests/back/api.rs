//! The same over GitLab's API, without git on this side.

use serde_json::Value;
use towpath_sandbox::gitlab::{Role, Scope};

use crate::world::{A, B, C, Ended, World};
use crate::{PROD, ROLLBACK, prod, world_with};

impl World {
    /// Runs the binary against the project by the API.
    async fn by_api(&self, arguments: &[&str]) -> Ended {
        let token = self
            .gitlab
            .project_access_token(self.project, Role::Maintainer, &[Scope::Api])
            .unwrap();
        let api = format!("{}/api/v4", self.gitlab.url());
        let variables = [
            ("TOWPATH_REPO", ""),
            ("TOWPATH_PROJECT", "env/shop"),
            ("TOWPATH_VIA", "api"),
            ("TOWPATH_GIT_TOKEN", &token),
            ("CI_API_V4_URL", &api),
            ("PATH", "/nowhere"),
        ];
        self.bump_with(&variables, arguments).await
    }
}

#[tokio::test]
async fn a_rollback_holds_and_is_released_over_the_api() {
    let world = world_with(&[A, B]).await;
    let shown = world.by_api(&[&ROLLBACK[..], &["--dry-run"]].concat()).await;
    assert_eq!(shown.went_to(), A);
    let report = world
        .by_api(&[&ROLLBACK[..], &["--reason", "it fails"]].concat())
        .await
        .report();
    assert_eq!(report["via"], "api");
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!(world.file(PROD).await, prod(A));
    let set = format!("app@{C}");
    world.by_api(&["set", &set]).await.refused(4, "is held at");
    world.bump(&["set", &set]).await.refused(4, "it fails");
    let again = world.by_api(&ROLLBACK).await.report();
    assert_eq!(
        (&again["changed"], &again["images"][0]["to"]["digest"]),
        (&false.into(), &A.into())
    );
    let released = world.by_api(&["release", "--image", "app"]).await.report();
    assert_eq!(released["changed"], true);
    assert_eq!(
        world
            .git(&["ls-tree", "-r", "--name-only", "main"])
            .await
            .unwrap(),
        PROD
    );
    assert_eq!(
        world.by_api(&["hold", "--image", "app"]).await.report()["changed"],
        true
    );
    world.by_api(&["set", &set]).await.refused(4, "is held at");
}

#[tokio::test]
async fn the_history_over_the_api_is_the_one_of_git() {
    let world = world_with(&[A]).await;
    world.git(&["branch", "change", "main"]).await.unwrap();
    let pipeline = "https://gitlab.example.com/team/app/-/pipelines/7";
    world
        .bump_with(
            &[("CI_PIPELINE_URL", pipeline), ("TOWPATH_BRANCH", "change")],
            &["set", &format!("app@{B}")],
        )
        .await
        .report();
    world.push(&[("README.md", "meanwhile\n")]).await;
    world.merge("change").await;
    world.bump(&["set", &format!("app@{C}")]).await.report();

    let history = ["history", "--image", "app"];
    let (by_api, by_git) = (
        world.by_api(&history).await.report(),
        world.bump(&history).await.report(),
    );
    let shown = |report: &Value| -> Vec<Value> {
        let steps = report["steps"].as_array().unwrap();
        let part = |step: &Value| {
            let parts = ["commit", "by", "image", "action", "pipeline"];
            parts.map(|name| step[name].clone()).into_iter().collect()
        };
        steps.iter().map(part).collect()
    };
    assert_eq!(shown(&by_api), shown(&by_git));
    assert_eq!(by_api["steps"][1]["pipeline"], pipeline);

    let to = async |target: &str| {
        world
            .by_api(&[&ROLLBACK[..], &["--dry-run", "--to", target]].concat())
            .await
    };
    let first = world.git(&["rev-parse", "main~3"]).await.unwrap();
    assert_eq!(to(&first[..10]).await.went_to(), A);
    assert_eq!(to("2").await.went_to(), A);
    assert_eq!(to(B).await.report()["images"][0]["known_by"], "history");
    // A commit that is no part of the branch.
    world.git(&["branch", "aside", "main"]).await.unwrap();
    world
        .bump_with(&[("TOWPATH_BRANCH", "aside")], &["set", &format!("app@{A}")])
        .await
        .report();
    let aside = world.git(&["rev-parse", "aside"]).await.unwrap();
    to(&aside).await.refused(5, "in the history of the branch");
    to("0123456789").await.refused(5, "in the history of the branch");
}
