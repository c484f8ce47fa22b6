//! Which tags are written, moved and left alone.

use serde_json::json;

use crate::workshop::{OTHER_COMMIT, Ran, Workshop};

#[tokio::test]
async fn a_release_moves_what_floats_and_an_older_one_does_not() {
    let workshop = Workshop::open().await;
    let first = workshop.image(crate::workshop::COMMIT, "1.4.0");
    let floating = ["--floating-tags", "--latest", "--sha-tag", "--branch-tag"];
    let run = async |git_tag: &str, more: &[&str]| {
        workshop
            .run(&[&["--git-tag", git_tag], &floating[..], more].concat())
            .await
    };
    let report = run("v1.4.0", &[]).await.done().clone();
    let commit = crate::workshop::COMMIT;
    assert_eq!(report["tags"], json!(["1.4.0", commit, "1.4", "1", "latest"]));
    for tag in ["1.4.0", commit, "1.4", "1", "latest"] {
        assert_eq!(workshop.tagged(tag).as_ref(), Some(&first), "{tag}");
    }

    let second = workshop.image(OTHER_COMMIT, "1.3.9");
    let other = ["--revision", OTHER_COMMIT];
    let report = run("v1.3.9", &other).await.done().clone();
    assert_eq!(
        report["left_alone"],
        json!({"1": "1.4.0 is newer", "latest": "1.4.0 is newer"})
    );
    assert_eq!(workshop.tagged("1.3").as_ref(), Some(&second));
    assert_eq!(workshop.tagged("1").as_ref(), Some(&first));

    let report = run("v2.0.0-rc.1", &[&other[..], &["--move-tag"]].concat())
        .await
        .done()
        .clone();
    assert_eq!(report["tags"], json!(["2.0.0-rc.1", OTHER_COMMIT]));
    assert_eq!(workshop.tagged("latest").as_ref(), Some(&first));
    workshop.close().await;
}

#[tokio::test]
async fn a_commit_is_built_once_and_its_tag_stays() {
    let workshop = Workshop::open().await;
    let first = workshop.image(crate::workshop::COMMIT, "one");
    workshop.run(&["--git-tag", "v1.0.0"]).await.done();
    workshop.behave("echo built again; succeed");
    let again = workshop
        .run(&["--git-tag", "v1.0.0", "--tag", "also", "--handoff", "handoff.env"])
        .await;
    assert!(!again.log.contains("built again"));
    assert_eq!(
        (&again.done()["changed"], &again.done()["digest"]),
        (&json!(true), &json!(first))
    );
    assert_eq!(
        workshop.tagged("also").as_ref(),
        Some(&first),
        "what was missing is made good"
    );
    let handoff = std::fs::read_to_string(workshop.project.join("handoff.env")).unwrap();
    assert!(handoff.contains(&format!("IMAGE_DIGEST={first}\n")), "{handoff}");
    let again = workshop.run(&["--git-tag", "v1.0.0"]).await;
    assert_eq!(again.done()["changed"], json!(false));

    // Another image of the same commit, and one of another commit.
    let second = workshop.image(crate::workshop::COMMIT, "two");
    let ran = workshop.run(&["--git-tag", "v1.0.0", "--rebuild"]).await;
    assert!(ran.failed(6).contains("--move-tag"), "{}", ran.log);
    let ran = workshop
        .run(&["--git-tag", "v1.0.0", "--revision", OTHER_COMMIT])
        .await;
    assert!(ran.failed(6).contains(crate::workshop::COMMIT), "{}", ran.log);
    assert!(!ran.log.contains("built again"), "it is known before the build");
    assert_eq!(workshop.tagged("1.0.0").as_ref(), Some(&first));
    workshop
        .run(&["--git-tag", "v1.0.0", "--revision", OTHER_COMMIT, "--move-tag"])
        .await
        .done();
    assert_eq!(workshop.tagged("1.0.0").as_ref(), Some(&second));
    workshop.close().await;
}

#[tokio::test]
async fn a_layout_is_pushed_as_it_was_built() {
    let workshop = Workshop::open().await;
    let digest = workshop.image(crate::workshop::COMMIT, "one");
    let built = workshop
        .run(&[
            "--git-tag",
            "v1.0.0",
            "--oci-layout",
            "out",
            "--no-push",
            "--handoff",
            "handoff.env",
        ])
        .await;
    assert_eq!(
        (&built.done()["pushed"], &built.done()["reference"]),
        (&json!(false), &json!(null))
    );
    let handoff = std::fs::read_to_string(workshop.project.join("handoff.env")).unwrap();
    assert!(
        handoff.contains(&digest) && !handoff.contains("IMAGE_REF="),
        "{handoff}"
    );
    assert_eq!(workshop.tagged("1.0.0"), None);

    let wrong = format!("sha256:{}", "0".repeat(64));
    let ran = workshop
        .run(&["push", "out", "--git-tag", "v1.0.0", "--digest", &wrong])
        .await;
    ran.failed(6);
    let dry = workshop
        .run(&["push", "out", "--git-tag", "v1.0.0", "--dry-run"])
        .await;
    assert_eq!(
        (&dry.done()["changed"], &dry.done()["dry_run"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(workshop.tagged("1.0.0"), None);
    let push = [
        "push",
        "out",
        "--git-tag",
        "v1.0.0",
        "--digest",
        &digest,
        "--handoff",
        "handoff.env",
    ];
    let pushed = workshop.run(&push).await;
    assert_eq!(
        (&pushed.done()["changed"], &pushed.done()["digest"]),
        (&json!(true), &json!(digest))
    );
    assert_eq!(workshop.tagged("1.0.0").as_ref(), Some(&digest));
    let handoff = std::fs::read_to_string(workshop.project.join("handoff.env")).unwrap();
    assert!(
        handoff.contains(&format!("IMAGE_REF={}@{digest}\n", workshop.repository())),
        "{handoff}"
    );
    assert_eq!(workshop.run(&push).await.done()["changed"], json!(false));

    // A second image in the same folder does not get in the first one's way.
    workshop.image(OTHER_COMMIT, "two");
    workshop
        .run(&[
            "--tag",
            "two",
            "--oci-layout",
            "out",
            "--no-push",
            "--revision",
            OTHER_COMMIT,
        ])
        .await
        .done();
    workshop
        .run(&["push", "out:two", "--tag", "1.0.0", "--revision", OTHER_COMMIT])
        .await
        .failed(6);
    workshop
        .run(&["push", "out:two", "--tag", "two", "--revision", OTHER_COMMIT])
        .await
        .done();
    workshop.close().await;
}

#[tokio::test]
async fn lists_in_variables_may_end_with_a_line() {
    let workshop = Workshop::open().await;
    let mut command = workshop.command(&["--rebuild"]);
    command
        .env("TOWPATH_TAGS", "one\ntwo\n")
        .env("TOWPATH_BUILD_ARGS", "A=1\nB=x y=z\n")
        .env("TOWPATH_LABELS", "l=\n");
    let ran = Ran::of(command.output().await.unwrap());
    assert_eq!(ran.done()["tags"], json!(["one", "two"]));
    let arguments = workshop.seen("arguments");
    for argument in ["--build-arg=A=1", "--build-arg=B=x y=z", "--label=l="] {
        assert!(arguments.lines().any(|line| line == argument), "{arguments}");
    }
    for (name, value) in [
        ("TOWPATH_TAGS", ""),
        ("TOWPATH_TAGS", "\n"),
        ("TOWPATH_TAGS", "a\n\nb"),
        ("TOWPATH_BUILD_ARGS", "A\n"),
        ("TOWPATH_BUILD_ARGS", "=1"),
    ] {
        let mut command = workshop.command(&["--tag", "x"]);
        let ran = Ran::of(command.env(name, value).output().await.unwrap());
        // A flag comes before its variable.
        let expected = if name == "TOWPATH_TAGS" { 0 } else { 2 };
        assert_eq!(ran.code, expected, "{name}={value:?}: {}", ran.log);
        let mut command = workshop.command(&["--git-tag", "v1.0.0"]);
        let ran = Ran::of(command.env(name, value).output().await.unwrap());
        assert_eq!(ran.code, 2, "{name}={value:?}: {}", ran.log);
    }
    workshop.close().await;
}

#[tokio::test]
async fn what_is_kept_is_written_to_the_layout_too() {
    let workshop = Workshop::open().await;
    let digest = workshop.image(crate::workshop::COMMIT, "one");
    workshop.run(&["--git-tag", "v1.0.0"]).await.done();
    workshop.behave("exit 1");
    let kept = workshop
        .run(&["--git-tag", "v1.0.0", "--oci-layout", "out"])
        .await;
    assert_eq!(kept.done()["digest"], json!(digest));
    let index = std::fs::read_to_string(workshop.project.join("out/index.json")).unwrap();
    assert!(index.contains(&digest), "{index}");
    workshop.close().await;
}

#[tokio::test]
async fn what_makes_no_tag_is_refused() {
    let workshop = Workshop::open().await;
    for arguments in [
        &["--git-tag", "release-1"][..],
        &["--git-tag", "v1.0.0+build"],
        &["--branch-tag"],
        &["--branch-tag", "--branch", "latest"],
        &["--tag", "a b"],
        &["--tag", ""],
        &["--sha-tag", "--revision", "main"],
        &["--no-push", "--tag", "1"],
        &["--target", "none", "--tag", "1"],
        &["--repository", "r.example.com/a:1", "--tag", "1"],
        &["--cache-repo", "r.example.com/a:1", "--tag", "1"],
    ] {
        let ran = workshop.run(arguments).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.log);
    }
    workshop.close().await;
}
