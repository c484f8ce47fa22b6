//! Every way in which the executor 1.28.3 was seen to end, and what image-build makes of it.

use std::collections::BTreeSet;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use towpath_sandbox::base_image;
use towpath_sandbox::servers::{Canned, Fault, Proxy, Rule};

use crate::workshop::{PASSWORD, Ran, USER, Workshop};

/// One way to end.
struct End {
    name: &'static str,
    /// The row of the table in `executor.rs` that tells of it; none where the executor does not keep its word.
    row: &'static str,
    /// What the script does.
    script: &'static str,
    /// What image-build's exit code is then.
    code: i32,
    /// What stands in the failure.
    says: &'static [&'static str],
    /// The Dockerfile that makes the real executor end so, and image-build's exit code then: we look at base images
    /// before. None where it takes more than a Dockerfile; those were seen by hand.
    real: Option<(&'static str, i32)>,
}

const LOG: &str = "time=\"2026-11-21T17:03:03Z\" level=info msg=\"Retrieving image manifest\"";

const ENDS: &[End] = &[
    End {
        name: "success",
        row: "the build succeeds",
        script: "echo \"$LOG\" >&2; echo hello; succeed",
        code: 0,
        says: &[],
        real: Some((
            "FROM REGISTRY/base/busybox:1 AS one\nRUN echo x > /x\nFROM REGISTRY/base/busybox:1\nCOPY --from=one /x /y\nRUN test -f /y\n",
            0,
        )),
    },
    End {
        name: "a step fails",
        row: "a `RUN` step ends with code n",
        script: "echo the-reason-why >&2; echo 'error building image: error building stage: failed to execute command: waiting for process to exit: exit status 3' >&2; exit 3",
        code: 8,
        says: &["kaniko ended with code 3", "the-reason-why", "exit status 3"],
        real: Some((
            "FROM REGISTRY/base/busybox:1\nRUN echo the-reason-why >&2; exit 3\n",
            8,
        )),
    },
    End {
        name: "a step is killed",
        row: "a `RUN` step is killed",
        script: "echo 'error building image: error building stage: failed to execute command: waiting for process to exit: signal: killed' >&2; exit 255",
        code: 8,
        says: &["kaniko ended with code 255", "signal: killed", "memory"],
        real: Some(("FROM REGISTRY/base/busybox:1\nRUN kill -9 $$\n", 8)),
    },
    End {
        name: "the executor is killed",
        row: "the executor is killed",
        script: "kill -KILL $$",
        code: 8,
        says: &["kaniko ended with code 137", "it printed nothing", "memory"],
        real: None,
    },
    End {
        name: "a base image is missing",
        row: "a base image, or its tag, is missing",
        script: "echo 'error building image: unable to complete operation after 3 attempts, last error: GET http://r/v2/base/none/manifests/1: MANIFEST_UNKNOWN: manifest unknown' >&2; exit 1",
        code: 8,
        says: &["kaniko ended with code 1", "MANIFEST_UNKNOWN"],
        real: Some(("FROM REGISTRY/base/none:1\nRUN true\n", 5)),
    },
    End {
        name: "the registry wants another login",
        row: "the registry wants another login",
        script: "echo 'error building image: GET http://r/v2/base/busybox/manifests/1: UNAUTHORIZED: authentication required' >&2; exit 1",
        code: 8,
        says: &["kaniko ended with code 1", "UNAUTHORIZED"],
        real: None,
    },
    End {
        name: "the Dockerfile is malformed",
        row: "the Dockerfile is malformed",
        script: "echo 'error building image: parsing dockerfile: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)' >&2; exit 1",
        code: 8,
        says: &["dockerfile parse error on line 2"],
        real: Some(("FROM REGISTRY/base/busybox:1\nRUNN true\n", 8)),
    },
    End {
        name: "a file to copy is missing",
        row: "a file to copy is missing",
        script: "echo 'error building image: error building stage: failed to get files used from context: failed to get fileinfo for /kaniko/context/nothere: lstat /kaniko/context/nothere: no such file or directory' >&2; exit 1",
        code: 8,
        says: &["nothere: no such file or directory"],
        real: Some(("FROM REGISTRY/base/busybox:1\nCOPY nothere /\n", 8)),
    },
    End {
        name: "the registry does not answer",
        row: "the registry does not answer",
        script: "echo 'error building image: Get \"http://r/v2/\": dial tcp 127.0.0.1:9: connect: connection refused' >&2; exit 1",
        code: 8,
        says: &["kaniko ended with code 1", "connection refused"],
        real: None,
    },
    End {
        name: "a push is refused",
        row: "a push is refused: of the cache, which is all that we have it push",
        script: "echo 'level=warning msg=\"make sure you entered the correct tag name, that you are authenticated correctly, and try again.\"' >&2; echo 'error checking push permissions: checking push permission for \"r/shop/cache\": POST http://r/v2/shop/cache/blobs/uploads/: UNAUTHORIZED: authentication required' >&2; exit 1",
        code: 8,
        says: &[
            "kaniko ended with code 1",
            "error checking push permissions",
            "UNAUTHORIZED",
        ],
        real: None,
    },
    End {
        name: "a push is refused later",
        row: "a push is refused that was not asked for before (not by us)",
        script: "printf 'sha256:%064d' 0 > \"$digest\"; echo 'error pushing image: failed to push to destination r/shop/web:1: HEAD http://r/v2/shop/web/manifests/1: unexpected status code 401 Unauthorized (HEAD responses have no body, use GET for details)' >&2; exit 1",
        code: 8,
        says: &["kaniko ended with code 1", "401 Unauthorized"],
        real: None,
    },
    End {
        name: "a flag is unknown",
        row: "a flag is unknown, or the Dockerfile is missing",
        script: "echo 'Usage:' >&2; echo '  executor [flags]' >&2; echo 'Error: unknown flag: --no-such-flag' >&2; exit 1",
        code: 8,
        says: &["kaniko ended with code 1", "unknown flag"],
        real: None,
    },
    End {
        name: "it is asked to stop",
        row: "TERM, as the first process of its namespace",
        script: "exit 2",
        code: 8,
        says: &["kaniko ended with code 2", "it printed nothing"],
        real: None,
    },
    End {
        name: "it sees no container",
        row: "no sign of a container, and no `--force`",
        script: "echo 'kaniko should only be run inside of a container, run with the --force flag if you are sure you want to continue' >&2; exit 1",
        code: 8,
        says: &["kaniko should only be run inside of a container"],
        real: None,
    },
    End {
        name: "the disk is full",
        row: "the disk is full while the layout is written",
        script: "mkdir -p \"$layout/blobs/sha256\"; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > \"$layout/oci-layout\"; echo 'error pushing image: appending image: error writing layer: write /kaniko/layout/blobs/sha256/a9: no space left on device' >&2; exit 1",
        code: 8,
        says: &["kaniko ended with code 1", "no space left on device"],
        real: None,
    },
    End {
        name: "it ends well and leaves nothing",
        row: "",
        script: "exit 0",
        code: 1,
        says: &["left no digest"],
        real: None,
    },
    End {
        name: "it leaves another image than it says",
        row: "",
        script: "succeed; printf 'sha256:%064d' 0 > \"$digest\"",
        code: 6,
        says: &["was expected"],
        real: None,
    },
];

/// The table is what was seen of the real executor: whatever it tells of has to be gone through here.
#[test]
fn every_row_of_the_table_is_gone_through() {
    let rows: BTreeSet<&str> = include_str!("../../../../lib/src/kaniko/executor.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next())
        .skip(1)
        .collect();
    let ends: BTreeSet<&str> = ENDS
        .iter()
        .map(|end| end.row)
        .filter(|row| !row.is_empty())
        .collect();
    assert_eq!(rows, ends);
}

#[tokio::test]
async fn every_end_of_the_executor_has_its_exit_code() {
    let workshop = Workshop::open().await;
    for end in ENDS {
        workshop.behave(&format!("LOG='{LOG}'\n{}\n", end.script));
        let ran = workshop.run(&["--tag", "test", "--rebuild", "--move-tag"]).await;
        check(end, &ran, end.code);
        assert_eq!(
            workshop.left_behind(),
            Vec::<std::path::PathBuf>::new(),
            "{}",
            end.name
        );
        assert!(workshop.tagged("test").is_some(), "success came first");
    }
    workshop.close().await;
}

#[tokio::test]
async fn the_real_executor_ends_in_these_ways() {
    let Some(executor) = std::env::var_os("TOWPATH_KANIKO") else {
        return;
    };
    let workshop = Workshop::open().await;
    for (end, (dockerfile, code)) in ENDS.iter().filter_map(|end| Some((end, end.real?))) {
        workshop.dockerfile(dockerfile);
        let mut command = workshop.command(&["--tag", "test", "--rebuild", "--move-tag"]);
        command
            .env("TOWPATH_KANIKO", &executor)
            .env("TOWPATH_ISOLATION", "chroot");
        let ran = Ran::of(command.output().await.unwrap());
        if code == end.code {
            check(end, &ran, code);
        } else {
            ran.failed(code);
        }
        assert_eq!(
            workshop.left_behind(),
            Vec::<std::path::PathBuf>::new(),
            "{}",
            end.name
        );
    }
    workshop.close().await;
}

fn check(end: &End, ran: &Ran, code: i32) {
    assert_eq!(ran.code, code, "{}: {}", end.name, ran.log);
    let last = ran.log.lines().last().unwrap();
    for word in end.says {
        assert!(last.contains(word), "{}: {word} is missing in {last}", end.name);
    }
}

#[tokio::test]
async fn a_registry_that_went_away_is_worth_another_try() {
    let workshop = Workshop::open().await;
    let proxy = Proxy::start(workshop.registry.host()).await.unwrap();
    workshop.dockerfile(&format!("FROM {}/base/busybox:1\n", proxy.host()));
    let logins = towpath_sandbox::servers::docker_config(&[
        (proxy.host(), USER, PASSWORD),
        (workshop.registry.host(), USER, PASSWORD),
    ]);
    std::fs::write(workshop.docker_config.join("config.json"), logins.to_string()).unwrap();
    workshop.behave("echo 'error building image: connection refused' >&2; exit 1");
    workshop.run(&["--tag", "test"]).await.failed(8);
    // By the time of the second look the registry is away.
    proxy.add(Rule::on("HEAD", "manifests", Fault::Answer(Canned::status(503))).after(1));
    let ran = workshop.run(&["--tag", "test"]).await;
    assert!(ran.failed(7).contains("503"), "{}", ran.log);
    workshop.close().await;
}

#[tokio::test]
async fn a_signal_ends_the_builder_and_takes_its_folder_along() {
    let workshop = Workshop::open().await;
    workshop.behave("echo started; exec sleep 1000");
    let mut child = workshop
        .command(&["--tag", "test"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("started") {
            assert_eq!(workshop.left_behind().len(), 1);
            let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(143));
    assert_eq!(workshop.tagged("test"), None);
    workshop.close().await;
}

#[tokio::test]
async fn a_builder_that_takes_too_long_is_stopped() {
    let workshop = Workshop::open().await;
    workshop.behave("sleep 1000");
    let ran = workshop.run(&["--tag", "test", "--timeout", "2s"]).await;
    ran.failed(9);
    workshop.close().await;
}

#[tokio::test]
async fn who_may_not_push_learns_it_before_the_build() {
    let workshop = Workshop::open().await;
    let proxy = Proxy::start(workshop.registry.host()).await.unwrap();
    base_image::push(
        &workshop.tools,
        &workshop.registry,
        Some((USER, PASSWORD)),
        "base/busybox",
        "1",
    )
    .await
    .unwrap();
    proxy.add(Rule::on(
        "POST",
        "blobs/uploads",
        Fault::Answer(Canned::error(403, "DENIED")),
    ));
    let logins = towpath_sandbox::servers::docker_config(&[
        (proxy.host(), USER, PASSWORD),
        (workshop.registry.host(), USER, PASSWORD),
    ]);
    std::fs::write(workshop.docker_config.join("config.json"), logins.to_string()).unwrap();
    let repository = format!("{}/shop/web", proxy.host());
    let ran = workshop
        .run(&["--repository", &repository, "--tag", "test"])
        .await;
    ran.failed(4);
    assert_eq!(workshop.seen("arguments"), "", "nothing was built");
    workshop.close().await;
}
