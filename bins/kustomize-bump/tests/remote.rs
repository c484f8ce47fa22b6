//! Changes that are committed and pushed to a repository over HTTP, by `set` and seen by `get` and `diff`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::os::unix::fs::PermissionsExt;

use world::{A, B, C, Way, World, both_ways};

both_ways!(
    an_image_is_set_committed_and_pushed_once,
    a_handoff_alone_is_enough,
    several_images_and_paths_make_one_commit,
    guards_have_their_exit_codes,
    a_token_that_may_not_push_is_denied,
    the_token_is_in_no_argument_stream_or_file,
);

const PROD: &str = "overlays/prod/kustomization.yaml";

fn prod(digest: &str) -> String {
    format!("# shop\nimages:\n- name: app  # front\n  newTag: v1\n  digest: {digest}\n- name: api\n")
}

async fn an_image_is_set_committed_and_pushed_once(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A)), ("README.md", "hello\n")]).await;
    let source = [
        ("SOURCE_PROJECT", "team/app"),
        ("SOURCE_COMMIT", "0123456789abcdef0123456789abcdef01234567"),
        (
            "CI_PIPELINE_URL",
            "https://gitlab.example.com/team/app/-/pipelines/7",
        ),
        (
            "TRACEPARENT",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    let image = format!("app:v2@{B}");
    let ended = world.bump_with(&source, &["set", &image]).await;
    let report = ended.report();
    assert_eq!(report["schema"], "towpath.kustomize-bump/1");
    assert_eq!(report["changed"], true);
    assert_eq!(report["branch"], "main");
    assert_eq!(report["via"], if way == Way::Git { "git" } else { "api" });
    assert_eq!(report["files"][0]["old"]["digest"], A);
    assert_eq!(report["files"][0]["new"]["tag"], "v2");
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!(world.file(PROD).await, prod(B).replace("v1", "v2"));
    assert_eq!(world.file("README.md").await, "hello\n");
    assert_eq!(
        world
            .git(&["log", "-1", "--format=%an <%ae>%n%B", "main"])
            .await
            .unwrap()
            .trim(),
        format!(
            "Ada <ada@example.com>\nSet app to v2 in overlays/prod\n\n{PROD}: app:v1@{A} -> app:v2@{B}\n\n\
             Towpath-Action: set\nTowpath-Image: app\nTowpath-Digest: {B}\nTowpath-Source-Project: team/app\n\
             Towpath-Source-Commit: 0123456789abcdef0123456789abcdef01234567\n\
             Towpath-Pipeline: https://gitlab.example.com/team/app/-/pipelines/7\n\
             Towpath-Trace: 4bf92f3577b34da6a3ce929d0e0e4736"
        )
    );
    world.git(&["fsck", "--strict", "--no-dangling"]).await.unwrap();

    let again = world.bump(&["set", &image]).await.report();
    assert_eq!(
        (&again["changed"], &again["commit"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert_eq!(world.commits().await, 2);
}

async fn a_handoff_alone_is_enough(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    let handoff = [
        ("TOWPATH_IMAGE", "app"),
        ("IMAGE_REPOSITORY", "registry.example.com:5000/team/app"),
        ("IMAGE_TAG", "1.10"),
        ("IMAGE_DIGEST", B),
    ];
    world.bump_with(&handoff, &["set"]).await.report();
    assert_eq!(
        world.file(PROD).await,
        format!(
            "# shop\nimages:\n- name: app  # front\n  newName: registry.example.com:5000/team/app\n  newTag: \"1.10\"\n  digest: {B}\n- name: api\n"
        )
    );
    // Found by its new name as well from now on.
    let get = world
        .bump(&["get", "--image", "registry.example.com:5000/team/app"])
        .await
        .report();
    assert_eq!(get["images"][0]["name"], "app");
    assert_eq!(get["images"][0]["digest"], B);
    let ended = world
        .bump_with(&[("IMAGE_DIGEST", "")], &["set", "--image", "app"])
        .await;
    ended.refused(2, "no digest for image app");
    let mut environment = world.environment();
    environment.insert("IMAGE_DIGEST".into(), String::new());
    let ended = world::run(&["set", "--image", "app"], &environment, world.folder.path()).await;
    ended.refused(2, "the variable IMAGE_DIGEST is set but empty");
}

async fn several_images_and_paths_make_one_commit(way: Way) {
    let world = World::over(
        way,
        &[
            (PROD, &prod(A)),
            ("overlays/test/kustomization.yml", &prod(A)),
            ("Kustomization", &prod(A)),
        ],
    )
    .await;
    let (app, api) = (format!("app:v1@{B}"), format!("api@{C}"));
    let paths = "overlays/prod,overlays/test/,.";
    let diff = world.bump(&["diff", &app, &api, "--path", paths]).await.report();
    assert_eq!((&diff["changed"], &diff["dry_run"]), (&true.into(), &true.into()));
    assert!(
        diff["diff"]
            .as_str()
            .unwrap()
            .contains(&format!("-  digest: {A}\n+  digest: {B}\n")),
        "{diff}"
    );
    assert_eq!(world.commits().await, 1, "diff changes nothing");

    let report = world.bump(&["set", &app, &api, "--path", paths]).await.report();
    assert_eq!(report["files"].as_array().unwrap().len(), 6);
    assert_eq!(world.commits().await, 2);
    for file in [PROD, "overlays/test/kustomization.yml", "Kustomization"] {
        assert_eq!(
            world.file(file).await,
            format!("{}  digest: {C}\n", prod(B)),
            "{file}"
        );
    }
}

async fn guards_have_their_exit_codes(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    let image = format!("app:v1@{B}");
    let with = async |arguments: &[&str]| world.bump(&[&["set", &image], arguments].concat()).await;
    with(&["--expect-current", C])
        .await
        .refused(6, &format!("is at {A}, not at {C}"));
    with(&["--path", "overlays/none"])
        .await
        .refused(5, "there is no kustomization in overlays/none");
    with(&["--path", "../x"])
        .await
        .refused(2, "leads out of the repository");
    with(&["--branch", "none"]).await.refused(5, "has no branch none");
    world
        .bump(&["set", "other@sha256:12"])
        .await
        .refused(2, "malformed digest");
    world
        .bump(&["set", &format!("other@{B}")])
        .await
        .refused(5, "no image other");
    world.bump(&["set"]).await.refused(2, "no image is given");
    let words = if way == Way::Git {
        "refuses the token"
    } else {
        "GitLab refuses env/shop (401)"
    };
    let by_api = [
        ("TOWPATH_GIT_TOKEN", "wrong-token-1234"),
        ("TOWPATH_VIA", if way == Way::Api { "api" } else { "git" }),
    ];
    world.bump_with(&by_api, &["set", &image]).await.refused(4, words);
    assert_eq!(world.commits().await, 1);
    with(&["--expect-current", A]).await.report();
    // Already so, whatever was expected: a rerun is no conflict.
    assert_eq!(with(&["--expect-current", A]).await.report()["changed"], false);
}

/// Addresses are for git alone.
#[tokio::test]
async fn mistakes_about_the_place_have_their_exit_codes() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let image = format!("app:v1@{B}");
    let with = async |arguments: &[&str]| world.bump(&[&["set", &image], arguments].concat()).await;
    with(&["--branch", "--upload-pack=x"]).await.refused(2, "");
    with(&["--checkout", "."]).await.refused(2, "cannot be used with");
    with(&["--project", "env/shop"])
        .await
        .refused(2, "cannot be used with");
    with(&["--via", "api"])
        .await
        .refused(2, "--via api goes to a project");
    let elsewhere = world.gitlab.clone_url("env/none");
    with(&["--repo", &elsewhere])
        .await
        .refused(5, "there is no repository");
    world
        .bump_with(&[("TOWPATH_GIT_TOKEN", "")], &["set", &image])
        .await
        .refused(4, "refuses access without a token");
    with(&["--repo", "http://127.0.0.1:1/env/shop.git"])
        .await
        .refused(7, "");
    with(&["--repo", "http://192.0.2.1/env/shop.git"])
        .await
        .refused(4, "plain http");
    with(&["--repo", "https://u:canary-in-the-url@h/x.git"])
        .await
        .refused(2, "carries credentials");
    assert_eq!(world.commits().await, 1);
}

/// What is said of a project instead of an address.
#[tokio::test]
async fn mistakes_about_the_project_have_their_exit_codes() {
    let world = World::over(Way::Api, &[(PROD, &prod(A))]).await;
    let image = format!("app:v1@{B}");
    let with = async |arguments: &[&str]| world.bump(&[&["set", &image], arguments].concat()).await;
    with(&["--branch", "mian"]).await.refused(5, "has no branch mian");
    with(&["--project", "env/none"]).await.refused(5, "env/none");
    with(&["--project", "shop"]).await.refused(2, "--project");
    with(&["--checkout", "."]).await.refused(2, "cannot be used with");
    with(&["--path", "overlays/pord"])
        .await
        .refused(5, "there is no kustomization in overlays/pord");
    with(&["--gitlab-url", "http://127.0.0.1:1/api/v4", "--timeout", "10s"])
        .await
        .refused(7, "");
    with(&["--gitlab-url", "http://192.0.2.1/api/v4"])
        .await
        .refused(4, "plain http");
    with(&["--gitlab-url", "https://u:canary-in-the-url@h/api/v4"])
        .await
        .refused(2, "credentials");
    let by_api = |token: &'static str| {
        [
            ("TOWPATH_GIT_TOKEN", ""),
            ("TOWPATH_VIA", "api"),
            ("CI_JOB_TOKEN", token),
        ]
    };
    let ended = world.bump_with(&by_api(""), &["set", &image]).await;
    ended.refused(2, "GitLab's API wants a token");
    let ended = world.bump_with(&by_api("glcbt-canary"), &["set", &image]).await;
    ended.refused(4, "a job token may not commit over GitLab's API");
    let expired = [
        ("TOWPATH_GIT_TOKEN", "glpat-expired-1234567"),
        ("TOWPATH_VIA", "api"),
    ];
    let ended = world.bump_with(&expired, &["set", &image]).await;
    ended.refused(4, "wrong, revoked or expired");
    let offline = ["rollback", "--image", "app", "--yes", "--offline"];
    let via_api = [&offline[..], &["--via", "api"]].concat();
    world
        .bump(&via_api)
        .await
        .refused(2, "--offline does without GitLab's API");
    let proposed = [&offline[..], &["--merge-request"]].concat();
    world
        .bump(&proposed)
        .await
        .refused(2, "a merge request goes by it");
    assert_eq!(world.commits().await, 1);
}

async fn a_token_that_may_not_push_is_denied(way: Way) {
    use towpath_sandbox::gitlab::{Role, Scope};
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    let image = format!("app:v1@{B}");
    let (reads, writes, words) = match way {
        Way::Git => (Scope::ReadRepository, Scope::WriteRepository, "refuses the token"),
        Way::Api => (Scope::ReadApi, Scope::Api, "insufficient_scope"),
    };
    let token = |role, scope| {
        let made = world.gitlab.project_access_token(world.project, role, &[scope]);
        made.unwrap()
    };
    let reader = token(Role::Developer, reads);
    world
        .bump_with(&[("TOWPATH_GIT_TOKEN", &reader)], &["set", &image])
        .await
        .refused(4, words);
    // `main` is protected: a developer's push is turned down by the server's own rule.
    let developer = token(Role::Developer, writes);
    let words = match way {
        Way::Git => "does not take a commit on main",
        Way::Api => "You are not allowed to push into this branch",
    };
    let ended = world
        .bump_with(&[("TOWPATH_GIT_TOKEN", &developer)], &["set", &image])
        .await;
    ended.refused(4, words);
    assert_eq!(world.commits().await, 1);
}

/// The Commits API is read-only for it.
#[tokio::test]
async fn the_token_of_a_job_goes_to_its_own_gitlab_alone() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let image = format!("app:v1@{B}");
    let own = format!("{}/env/shop", world.gitlab.url());
    let job = [
        ("TOWPATH_GIT_TOKEN", ""),
        ("CI_JOB_TOKEN", "canary-of-a-job-token"),
        ("CI_PROJECT_URL", &own),
        ("CI_DEFAULT_BRANCH", "main"),
    ];
    // The job's own project is where it works when nothing else is said.
    let at_home = [&job[..], &[("TOWPATH_REPO", "")]].concat();
    let ended = world.bump_with(&at_home, &["set", &image]).await;
    ended.refused(4, "refuses the token of gitlab-ci-token");
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    let away = [
        &job[..],
        &[("CI_PROJECT_URL", "https://gitlab.example.com/env/shop")],
    ]
    .concat();
    let ended = world.bump_with(&away, &["set", &image]).await;
    ended.refused(4, "refuses access without a token");
}

/// A project has one name.
#[tokio::test]
async fn the_address_may_lack_its_ending() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let url = world.url();
    let image = format!("app:v1@{B}");
    world
        .bump(&["set", &image, "--repo", url.trim_end_matches(".git")])
        .await
        .report();
    assert_eq!(world.file(PROD).await, prod(B));
}

/// git's own variables; by the API there is no git.
#[tokio::test]
async fn paths_are_no_patterns_whatever_the_environment_says() {
    let world = World::with(&[(PROD, &prod(A))]).await;
    let image = format!("app:v1@{B}");
    for variable in [
        "GIT_GLOB_PATHSPECS",
        "GIT_ICASE_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS",
    ] {
        world
            .bump_with(&[(variable, "1")], &["set", &image])
            .await
            .report();
    }
    assert_eq!(world.file(PROD).await, prod(B));
}

/// A program in the place of git that writes down its arguments and runs the real one.
const RECORDER: &str = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$RECORD\"\ntr '\\0' '\\n' </proc/$$/cmdline >>\"$RECORD\"\nexec \"$REAL_GIT\" \"$@\"\n";

async fn the_token_is_in_no_argument_stream_or_file(way: Way) {
    let world = World::over(way, &[(PROD, &prod(A))]).await;
    let bin = world.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("git"), RECORDER).unwrap();
    std::fs::set_permissions(bin.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path)
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    let record = world.folder.path().join("record");
    // The folder of the clone would be removed at the end: it is kept by a link to each of its files.
    let variables = [
        ("PATH", format!("{}:{path}", bin.display())),
        ("REAL_GIT", real.display().to_string()),
        ("RECORD", record.display().to_string()),
        ("TOWPATH_LOG_LEVEL", "trace".to_owned()),
    ];
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let image = format!("app:v1@{B}");
    let mut seen = Vec::new();
    for arguments in [
        &["set", &image][..],
        &["get"],
        &["history", "--image", "app"],
        &["rollback", "--image", "app", "--yes"],
    ] {
        let ended = world.bump_with(&variables, arguments).await;
        ended.report();
        seen.push((
            arguments[0].to_owned(),
            format!("{}{}", ended.stdout, ended.stderr),
        ));
    }
    match way {
        Way::Git => {
            let recorded = std::fs::read_to_string(&record).unwrap();
            assert!(
                recorded.contains("push --porcelain") && recorded.contains("clone"),
                "{recorded}"
            );
            seen.push(("arguments".into(), recorded));
        }
        Way::Api => assert!(!record.exists(), "git was started"),
    }
    seen.push(("commits".into(), world.git(&["log", "-p", "main"]).await.unwrap()));
    let config = std::fs::read_to_string(world.repository().join("config")).unwrap();
    seen.push(("configuration".into(), config));
    for (what, text) in seen {
        assert!(!text.contains(&world.token), "the token is in {what}");
    }
    let left: Vec<String> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("towpath-"))
        .collect();
    assert!(left.is_empty(), "{left:?} were left behind");
}
