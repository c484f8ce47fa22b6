//! Several images, several folders, several people.

use crate::world::{self, A, B, C, Way, World, both_ways};
use crate::{PROD, ROLLBACK, prod, world_over, world_with};

both_ways!(
    several_images_of_several_folders_go_back_in_one_commit,
    two_people_who_roll_back_at_once_both_end_right,
    a_rollback_can_be_rolled_back,
    mistakes_of_a_bad_night_are_named,
);

const EU: &str = "overlays/eu/kustomization.yaml";

fn two(app: &str, api: &str) -> String {
    format!("images:\n- name: app\n  digest: {app}\n- name: api # ours\n  digest: {api}\n")
}

async fn several_images_of_several_folders_go_back_in_one_commit(way: Way) {
    let world = World::over(way, &[(PROD, &two(A, A)), (EU, &two(A, A))]).await;
    let paths = ["--path", "overlays/prod,overlays/eu"];
    let set = ["set", &format!("app@{B}"), &format!("api@{C}")];
    world.bump(&[&set[..], &paths].concat()).await.report();
    let rollback = ["rollback", "--image", "app,api", "--reason", "it fails"];
    let shown = world
        .bump(&[&rollback[..], &paths, &["--dry-run"]].concat())
        .await
        .report();
    assert_eq!(shown["images"].as_array().unwrap().len(), 4);
    assert_eq!(world.commits().await, 2);

    let report = world
        .bump(&[&rollback[..], &paths, &["--yes"]].concat())
        .await
        .report();
    assert_eq!(world.commits().await, 3, "one commit for all four");
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    for file in [PROD, EU] {
        assert_eq!(world.file(file).await, two(A, A), "{file}");
    }
    let changed = world
        .git(&["show", "--name-only", "--format=", "main"])
        .await
        .unwrap();
    let expected = ".towpath/holds/overlays/eu/api.json\n.towpath/holds/overlays/eu/app.json\n\
                    .towpath/holds/overlays/prod/api.json\n.towpath/holds/overlays/prod/app.json\n\
                    overlays/eu/kustomization.yaml\noverlays/prod/kustomization.yaml";
    assert_eq!(changed, expected);
    for image in [format!("app@{B}"), format!("api@{C}")] {
        world.bump(&["set", &image]).await.refused(4, "is held at");
    }
    // Each image's own history knows that commit as its rollback, whichever of them is named first.
    world
        .bump(&["release", "--image", "app,api", paths[0], paths[1]])
        .await
        .report();
    assert_eq!(world.commits().await, 4);
    world
        .bump(&["rollback", "--image", "api", "--yes"])
        .await
        .refused(5, "there is nothing to roll image api back to");

    let digest = ["rollback", "--image", "app,api", "--yes", "--to", A];
    world
        .bump(&digest)
        .await
        .refused(2, "one digest is given for the images app, api");
    world
        .bump(&["rollback", "--image", "app,aip", "--yes"])
        .await
        .refused(5, "no image aip");
    world
        .bump(&["rollback", "--image", "app,", "--yes"])
        .await
        .refused(2, "--image is empty");
}

async fn two_people_who_roll_back_at_once_both_end_right(way: Way) {
    let world = world_over(way, &[A, B, C]).await;
    let ada = [
        ("GITLAB_USER_NAME", "Ada"),
        ("GITLAB_USER_EMAIL", "ada@example.com"),
    ];
    let bob = [
        ("GITLAB_USER_NAME", "Bob"),
        ("GITLAB_USER_EMAIL", "bob@example.com"),
    ];
    let (one, other) = tokio::join!(world.bump_with(&ada, &ROLLBACK), world.bump_with(&bob, &ROLLBACK));
    assert_eq!((one.went_to(), other.went_to()), (B.into(), B.into()));
    assert_eq!(world.file(PROD).await, prod(B));
    assert_eq!(world.commits().await, 5, "one rollback is in the history");
    let changed = [&one, &other].map(|ended| ended.report()["changed"] == true);
    assert!(
        changed[0] != changed[1],
        "one did it, the other found it done: {changed:?}"
    );
    assert_eq!(
        one.report()["images"][0]["hold"],
        other.report()["images"][0]["hold"],
        "both are told of the one hold"
    );
}

async fn a_rollback_can_be_rolled_back(way: Way) {
    let world = world_over(way, &[A, B]).await;
    world.bump(&ROLLBACK).await.report();
    // It was not the image after all: back to what seemed to fail, and held there.
    let report = world.bump(&[&ROLLBACK[..], &["--to", B]].concat()).await.report();
    assert_eq!(world.file(PROD).await, prod(B));
    let hold = &report["images"][0]["hold"];
    assert_eq!(hold["digest"], B);
    assert!(hold["taken_from"].as_str().unwrap().ends_with(A), "{hold}");
    world
        .bump(&["set", &format!("app@{C}")])
        .await
        .refused(4, "is held at");
    // And again from there.
    assert_eq!(
        world.bump(&ROLLBACK).await.code,
        5,
        "A was rolled back from, and there is no other"
    );
    world.bump(&["release", "--image", "app"]).await.report();
    world.bump(&["set", &format!("app@{C}")]).await.report();
    assert_eq!(world.bump(&ROLLBACK).await.went_to(), B);
}

/// Over the API it is the token that has a name.
#[tokio::test]
async fn whoever_only_looks_needs_no_name() {
    let world = world_with(&[A, B]).await;
    let nobody = [("GITLAB_USER_NAME", ""), ("GITLAB_USER_EMAIL", "")];
    let run = async |arguments: &[&str]| world.bump_with(&nobody, arguments).await;
    assert_eq!(
        run(&["rollback", "--image", "app", "--dry-run"]).await.went_to(),
        A
    );
    run(&["hold", "--image", "app", "--dry-run"]).await.report();
    run(&["release", "--image", "app", "--dry-run"]).await.report();
    run(&ROLLBACK).await.refused(2, "nobody is named as the author");
    run(&["hold", "--image", "app"])
        .await
        .refused(2, "nobody is named as the author");
    assert_eq!(world.commits().await, 3);
}

async fn mistakes_of_a_bad_night_are_named(way: Way) {
    let world = world_over(way, &[A]).await;
    let run = async |arguments: &[&str]| world.bump(&[&ROLLBACK[..], arguments].concat()).await;
    // The first deployment ever: what was before had no version.
    run(&[])
        .await
        .refused(5, "there is nothing to roll image app back to");
    run(&["--path", "overlays/production"])
        .await
        .refused(5, "there is no kustomization in overlays/production");
    world
        .bump(&["rollback", "--image", "ap", "--yes"])
        .await
        .refused(5, "no image ap");
    world.bump(&["rollback", "--yes"]).await.refused(2, "--image");
    run(&["--branch", "master"])
        .await
        .refused(5, "has no branch master");
    world
        .bump_with(&[("TOWPATH_GIT_TOKEN", "glpat-expired-1234567")], &ROLLBACK)
        .await
        .refused(4, "refuses the token");
    use towpath_sandbox::gitlab::{Role, Scope};
    let developer = world
        .gitlab
        .project_access_token(world.project, Role::Developer, &[Scope::WriteRepository])
        .unwrap();
    world
        .bump_with(
            &[("TOWPATH_GIT_TOKEN", &developer)],
            &[&ROLLBACK[..], &["--to", B]].concat(),
        )
        .await
        .refused(4, "is the branch protected");
    assert_eq!(world.file(PROD).await, prod(A));
}
