//! The way of the API when things go wrong, and with files that are not plain text.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests make the world they look at"
)]

mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use towpath_sandbox::gitlab::{PlannedJob, Role, Scope, Status, Trouble};
use world::{A, B, C, Way, World};

const PROD: &str = "overlays/prod/kustomization.yaml";

fn prod(digest: &str) -> String {
    format!("images:\n- name: app\n  digest: {digest}\n")
}

async fn world_with(files: &[(&str, &str)]) -> World {
    World::over(Way::Api, files).await
}

/// Lets the first so many commits run into this.
fn trouble_commits(world: &World, times: usize, trouble: Trouble) {
    let seen = AtomicUsize::new(0);
    world.gitlab.trouble(move |method, path| {
        let commits = method == "POST" && path.ends_with("/repository/commits");
        (commits && seen.fetch_add(1, Ordering::SeqCst) < times).then_some(trouble)
    });
}

fn commits_asked(world: &World) -> usize {
    let asked = world.gitlab.requests();
    let commits = asked
        .iter()
        .filter(|asked| asked.method == "POST" && asked.path.ends_with("/repository/commits"));
    commits.count()
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_before_anything_is_sent_again() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    trouble_commits(&world, 1, Trouble::Lost);
    let report = world.bump(&["set", &format!("app@{B}")]).await.report();
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    assert_eq!((commits_asked(&world), world.commits().await), (1, 2));
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_sent_again() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    trouble_commits(&world, 3, Trouble::Status(502));
    let report = world.bump(&["set", &format!("app@{B}")]).await.report();
    assert_eq!((&report["attempts"], world.commits().await), (&4.into(), 2));
}

#[tokio::test]
async fn a_limit_of_requests_is_waited_out() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    trouble_commits(&world, 1, Trouble::Throttled(1));
    let report = world.bump(&["set", &format!("app@{B}")]).await.report();
    assert_eq!((&report["attempts"], world.commits().await), (&1.into(), 2));
}

#[tokio::test]
async fn a_gitlab_that_stays_broken_is_given_up() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    trouble_commits(&world, usize::MAX, Trouble::Status(500));
    let ended = world.bump(&["set", &format!("app@{B}")]).await;
    ended.refused(7, "failed 10 times in a row");
    assert_eq!(world.commits().await, 1);
}

/// A pre-receive rule is 400 with the rule's words, and no race.
#[tokio::test]
async fn a_rule_against_the_commit_is_told_from_a_race() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    trouble_commits(&world, usize::MAX, Trouble::Status(400));
    let ended = world.bump(&["set", &format!("app@{B}")]).await;
    ended.refused(4, "GitLab refuses a commit on main");
    assert!(commits_asked(&world) <= 5, "{}", commits_asked(&world));
}

/// Deciding may take long, where the source repository is asked: what came meanwhile is seen before anything is sent.
#[tokio::test]
async fn a_hold_that_comes_while_it_is_decided_needs_no_commit_to_be_found() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    let (repository, first) = (world.repository(), AtomicUsize::new(0));
    world.gitlab.trouble(move |_, path| {
        if path.contains("/repository/files/") && first.fetch_add(1, Ordering::SeqCst) == 0 {
            world::hold_unseen(&repository, A);
        }
        None
    });
    let ended = world.bump(&["set", &format!("app@{B}")]).await;
    ended.refused(4, "held");
    assert_eq!((commits_asked(&world), world.commits().await), (0, 2));
}

/// Lets this happen once, while GitLab is at work on a commit: it has compared the last commits of the files already.
fn while_it_commits(world: &World, once: impl Fn() + Send + Sync + 'static) {
    let first = AtomicUsize::new(0);
    world.gitlab.before_commit(move || {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            once();
        }
    });
}

async fn subjects(world: &World, count: usize) -> Vec<String> {
    let log = ["log", "--format=%s", &format!("-{count}"), "main"];
    let log = world.git(&log).await.unwrap();
    log.lines().map(str::to_owned).collect()
}

/// The hold is not written by the commit, so no lock covers it: the commit itself says that it must not be there.
#[tokio::test]
async fn a_hold_that_comes_in_the_same_moment_keeps_the_commit_out() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    let repository = world.repository();
    while_it_commits(&world, move || world::hold_unseen(&repository, A));
    let ended = world.bump(&["set", &format!("app@{B}")]).await;
    ended.refused(4, "held");
    assert_eq!((commits_asked(&world), world.commits().await), (1, 2));
    assert_eq!(subjects(&world, 1).await, ["Hold"]);
}

/// As where a rule says who may touch the folder of holds: the commit comes without its guard, and what it overtook is
/// found afterwards.
#[tokio::test]
async fn a_hold_stands_where_gitlab_refuses_the_guard_too() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    trouble_commits(&world, 1, Trouble::Status(400));
    let repository = world.repository();
    while_it_commits(&world, move || world::hold_unseen(&repository, A));
    let ended = world.bump(&["set", &format!("app@{B}")]).await;
    ended.refused(4, "held");
    assert_eq!(world.file(PROD).await, prod(A));
    let subjects = subjects(&world, 3).await;
    assert!(subjects[0].starts_with("Take back "), "{subjects:?}");
    assert!(subjects[1].starts_with("Set app "), "{subjects:?}");
    assert_eq!(subjects[2], "Hold");
}

/// GitLab compares the last commit of a file before it looks what to build on: what comes in between, no lock meets.
#[tokio::test]
async fn a_change_of_the_same_file_that_slips_past_its_lock_is_not_lost() {
    let both = |app: &str, web: &str| {
        format!("images:\n- name: app\n  digest: {app}\n- name: web\n  digest: {web}\n")
    };
    let world = world_with(&[(PROD, &both(A, A))]).await;
    let (repository, theirs) = (world.repository(), both(A, C));
    while_it_commits(&world, move || world::commit_unseen(&repository, PROD, &theirs));
    let report = world.bump(&["set", &format!("app@{B}")]).await.report();
    assert_eq!(report["attempts"], 2);
    assert_eq!(world.file(PROD).await, both(B, C));
    assert_eq!(report["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
}

/// A third change before the commit is taken back, or while it is.
#[tokio::test]
async fn what_cannot_be_taken_back_any_more_is_named() {
    for while_taken_back in [false, true] {
        let world = world_with(&[(PROD, &prod(A))]).await;
        let repositories = [world.repository(), world.repository()];
        let [first, second] = repositories;
        let (in_it, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        world
            .gitlab
            .before_commit(move || match in_it.fetch_add(1, Ordering::SeqCst) {
                0 => world::commit_unseen(&first, PROD, &prod(C)),
                1 if while_taken_back => world::commit_unseen(&first, PROD, &prod(&world::digest(3))),
                _ => {}
            });
        world.gitlab.trouble(move |method, path| {
            let commits = method == "POST" && path.ends_with("/repository/commits");
            if commits && asked.fetch_add(1, Ordering::SeqCst) == 1 && !while_taken_back {
                world::commit_unseen(&second, PROD, &prod(&world::digest(3)));
            }
            None
        });
        let ended = world.bump(&["set", &format!("app@{B}")]).await;
        ended.refused(6, "could not be taken back");
        assert_eq!(commits_asked(&world), 2);
    }
}

#[tokio::test]
async fn line_ends_that_gitlab_would_change_are_left_to_git() {
    let text = prod(A).replace('\n', "\r\n");
    let world = world_with(&[(PROD, &text)]).await;
    let image = format!("app@{B}");
    let ended = world.bump(&["set", &image]).await;
    ended.refused(3, "has the line ends of Windows");
    assert!(ended.stderr.contains("--via git"), "{}", ended.stderr);
    assert_eq!((commits_asked(&world), world.commits().await), (0, 1));
    world.bump(&["set", &image, "--via", "git"]).await.report();
    assert_eq!(world.file(PROD).await, text.replace(A, B));
}

#[tokio::test]
async fn odd_names_and_characters_come_back_as_they_were() {
    let path = "apps/ünter ordner/a+b/c%20d/overlays/prod";
    let file = format!("{path}/kustomization.yaml");
    let text = format!("# caf\u{e9} \u{1f6a2}\nimages:\n- name: app\n  digest: {A} # x");
    let world = world_with(&[(&file, &text)]).await;
    let arguments = ["set", &format!("app@{B}"), "--path", path];
    world.bump(&arguments).await.report();
    assert_eq!(world.file(&file).await, text.replace(A, B));
}

#[tokio::test]
async fn everything_else_reads_over_the_api_too() {
    let world = world_with(&[(PROD, &prod(A)), ("overlays/test/kustomization.yaml", &prod(A))]).await;
    for number in 1..30 {
        world.push(&[(PROD, &prod(&world::digest(number)))]).await;
    }
    world.bump(&["set", &format!("app@{B}")]).await.report();
    let get = world.bump(&["get", "--path", "overlays/*"]).await.report();
    assert_eq!(
        (&get["via"], &get["images"][0]["digest"]),
        (&"api".into(), &B.into())
    );
    assert_eq!(get["images"][1]["digest"], A);
    let diff = world.bump(&["diff", &format!("app@{C}")]).await.report();
    assert_eq!(diff["changed"], true);
    let history = world
        .bump(&["history", "--image", "app", "--limit", "29"])
        .await
        .report();
    let steps = history["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[0]["action"]), (29, &"set".into()));
    assert_eq!(steps[0]["image"]["digest"], B);

    let back = world
        .bump(&["rollback", "--image", "app", "--yes", "--reason", "it fails"])
        .await
        .report();
    assert_eq!(back["images"][0]["to"]["digest"], world::digest(29));
    assert_eq!(back["commit"], world.git(&["rev-parse", "main"]).await.unwrap());
    world
        .bump(&["set", &format!("app@{C}")])
        .await
        .refused(4, "it fails");
    let released = world.bump(&["release", "--image", "app"]).await.report();
    assert_eq!(released["changed"], true);
    world.bump(&["set", &format!("app@{C}")]).await.report();
    assert_eq!(world.file(PROD).await, prod(C));
}

#[tokio::test]
async fn a_token_without_the_api_goes_by_git() {
    let world = world_with(&[(PROD, &prod(A))]).await;
    let made = world
        .gitlab
        .project_access_token(world.project, Role::Maintainer, &[Scope::WriteRepository]);
    let token = [("TOWPATH_GIT_TOKEN", made.as_deref().unwrap())];
    let ended = world.bump_with(&token, &["set", &format!("app@{B}")]).await;
    assert_eq!(ended.report()["via"], "git");
    assert!(ended.stderr.contains("going by git"), "{}", ended.stderr);
    let by_api = [token[0], ("TOWPATH_VIA", "api")];
    let ended = world.bump_with(&by_api, &["set", &format!("app@{C}")]).await;
    ended.refused(4, "insufficient_scope");
}

#[tokio::test]
async fn a_job_token_goes_by_git_and_says_that_no_pipeline_starts() {
    let world = world_with(&[
        (PROD, &prod(A)),
        (".gitlab-ci.yml", "check: {script: [\"true\"]}\n"),
    ])
    .await;
    world
        .gitlab
        .configure(world.project, |settings| settings.job_token_may_push = true)
        .unwrap();
    world
        .gitlab
        .direct(world.project, vec![PlannedJob::new("check", "test")])
        .unwrap();
    let user = world.gitlab.add_user("ada");
    world
        .gitlab
        .add_member(world.project, user, Role::Maintainer)
        .unwrap();
    let pipeline = world
        .gitlab
        .run_pipeline(world.project, user, "main", Default::default())
        .await
        .unwrap();
    let job = world.gitlab.pipeline(pipeline).unwrap().jobs[0].id;
    world.gitlab.move_job(job, Status::Running).unwrap();
    let token = world.gitlab.job_token(job).unwrap();
    let (server, own) = (
        world.gitlab.url().to_owned(),
        format!("{}/env/shop", world.gitlab.url()),
    );
    let job = [
        ("TOWPATH_GIT_TOKEN", ""),
        ("CI_JOB_TOKEN", token.as_str()),
        ("CI_SERVER_URL", server.as_str()),
        ("CI_PROJECT_URL", own.as_str()),
    ];
    let ended = world.bump_with(&job, &["set", &format!("app@{B}")]).await;
    assert_eq!(ended.report()["via"], "git");
    assert!(
        ended.stderr.contains("GitLab starts no pipeline for this commit"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains(&token));
    assert_eq!(world.file(PROD).await, prod(B));
    let request = world
        .bump_with(&job, &["set", &format!("app@{C}"), "--merge-request"])
        .await;
    request.refused(4, "a job token may not open merge requests");
}
