//! What a Dockerfile writes into the folder that kaniko keeps to itself.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::real::command;
use crate::workshop::{Ran, Workshop};

#[tokio::test]
async fn what_is_copied_into_kanikos_own_folder_is_refused_before_anything_is_asked() {
    let workshop = Workshop::open().await;
    let own = workshop.kaniko.display().to_string();
    workshop.dockerfile(&format!(
        "FROM REGISTRY/base/none:1\nCOPY tool \\\n  {own}/tool\n"
    ));
    for more in [&[][..], &["--dry-run"]] {
        let ran = workshop.run(&[&["--tag", "test"], more].concat()).await;
        let last = ran.failed(3);
        for word in [
            &format!("Dockerfile, line 2: COPY writes to {own}/tool"),
            "--builder buildah",
        ] {
            assert!(last.contains(word), "{last}");
        }
    }
    assert_eq!(workshop.seen("arguments"), "", "nothing was built");
    // That folder is nothing to another builder, and another folder nothing to this one.
    let bin = workshop.guardian.dir().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("buildah"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(bin.join("buildah"), std::fs::Permissions::from_mode(0o755)).unwrap();
    workshop.dockerfile(&format!("FROM REGISTRY/base/busybox:1\nCOPY tool {own}/tool\n"));
    let mut with_buildah = workshop.command(&["--tag", "test", "--builder", "buildah", "--dry-run"]);
    with_buildah.env("PATH", bin);
    Ran::of(with_buildah.output().await.unwrap()).done();
    workshop.dockerfile("FROM REGISTRY/base/busybox:1\nCOPY tool /kaniko/tool\n");
    workshop.run(&["--tag", "test"]).await.done();
    workshop.close().await;
}

#[tokio::test]
async fn what_may_write_there_is_warned_of_and_built() {
    let workshop = Workshop::open().await;
    let own = workshop.kaniko.display().to_string();
    workshop.dockerfile(&format!(
        "FROM REGISTRY/base/busybox:1\nWORKDIR {own}/work\nRUN ls {own}\nRUN true\n"
    ));
    let ran = workshop.run(&["--tag", "test"]).await;
    ran.done();
    let warnings: Vec<serde_json::Value> = ran
        .log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["level"] == "warn")
        .collect();
    let said: Vec<&str> = warnings
        .iter()
        .filter_map(|line| line["message"].as_str())
        .collect();
    assert_eq!(
        said,
        [
            format!(
                "./Dockerfile, line 2: WORKDIR makes {own}/work in kaniko's own folder: what is there stays out of the image"
            ),
            format!(
                "./Dockerfile, line 3: RUN names {own}, kaniko's own folder: what a step writes there stays out of the image"
            ),
        ]
    );
    workshop.close().await;
}

/// The real executor says nothing of it, and ends well.
#[tokio::test]
async fn the_real_executor_leaves_out_what_a_step_writes_there() {
    let workshop = Workshop::open().await;
    workshop.dockerfile("FROM REGISTRY/base/busybox:1\nRUN echo x >/kaniko/left-out && echo x >/kept\n");
    let Some(mut command) = command(&workshop, &["--tag", "test", "--oci-layout", "out", "--no-push"]) else {
        return;
    };
    let ran = Ran::of(command.output().await.unwrap());
    ran.done();
    assert!(ran.log.contains("line 2: RUN names /kaniko"), "{}", ran.log);
    let mut files = String::new();
    let blobs = workshop.project.join("out/blobs/sha256");
    for blob in std::fs::read_dir(blobs).unwrap() {
        // The others are JSON.
        let listed = Command::new("tar")
            .arg("-tzf")
            .arg(blob.unwrap().path())
            .output()
            .unwrap();
        if listed.status.success() {
            files.push_str(&String::from_utf8(listed.stdout).unwrap());
        }
    }
    assert!(files.lines().any(|file| file == "kept"), "{files}");
    assert!(!files.contains("left-out"), "{files}");
    workshop.close().await;
}
