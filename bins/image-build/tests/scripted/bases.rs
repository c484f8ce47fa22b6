//! Which images may be built on, and by which digests they are.

use serde_json::json;

use crate::workshop::Workshop;

#[tokio::test]
async fn bases_are_told_by_digest_and_pinned_when_asked() {
    let workshop = Workshop::open().await;
    let text = "ARG B=REGISTRY/base/busybox\nFROM ${B}:1 AS one\nRUN true\nFROM scratch\nCOPY --from=one / /\nCOPY --from=REGISTRY/base/busybox:1 \\\n  / /\n";
    workshop.dockerfile(text);
    let before = workshop.project.join("Dockerfile");
    let original = std::fs::read_to_string(&before).unwrap();
    let report = workshop.run(&["--tag", "1", "--dry-run"]).await.done().clone();
    assert_eq!(workshop.seen("arguments"), "", "nothing was built");
    let base = |line: u32, pinned: bool| {
        let digest = &workshop.base_digest;
        json!({"line": line, "image": workshop.base(), "reference": workshop.base(), "digest": digest, "pinned": pinned})
    };
    assert_eq!(report["base_images"], json!([base(2, false), base(6, false)]));

    workshop.run(&["--tag", "1"]).await.done();
    assert_eq!(workshop.seen("seen-dockerfile"), original);

    let report = workshop
        .run(&["--tag", "1", "--pin-bases", "--rebuild"])
        .await
        .done()
        .clone();
    assert_eq!(report["base_images"], json!([base(2, true), base(6, true)]));
    let pinned = format!(
        "{}/base/busybox@{}",
        workshop.registry.host(),
        workshop.base_digest
    );
    let expected = format!(
        "ARG B={0}/base/busybox\nFROM {pinned} AS one\nRUN true\nFROM scratch\nCOPY --from=one / /\n\nCOPY --from={pinned}   / /\n",
        workshop.registry.host()
    );
    assert_eq!(workshop.seen("seen-dockerfile"), expected);
    assert_eq!(
        std::fs::read_to_string(&before).unwrap(),
        original,
        "the project is as it was"
    );
    workshop.close().await;
}

#[tokio::test]
async fn an_image_that_is_not_allowed_is_refused_before_anything_is_asked() {
    let workshop = Workshop::open().await;
    let host = workshop.registry.host().to_owned();
    let near = format!("{host}.evil,{host}/bas,docker.io/library/debian:12*");
    let ran = workshop.run(&["--tag", "1", "--allow-base", &near]).await;
    let last = ran.failed(4);
    assert!(
        last.contains("line 1") && last.contains("base/busybox:1"),
        "{last}"
    );
    assert!(!ran.log.contains("login"), "no registry was asked: {}", ran.log);
    workshop
        .run(&["--tag", "1", "--allow-base", &format!("{host}/base")])
        .await
        .done();

    workshop.dockerfile("FROM REGISTRY/base/busybox:1\nRUN cat <<EOF\nFROM evil.example.com/x\nEOF\n");
    let ran = workshop
        .run(&["--tag", "2", "--allow-base", &format!("{host}/base")])
        .await;
    assert!(ran.failed(4).contains("line 3"), "{}", ran.log);
    for pattern in ["*", "busybox", ""] {
        workshop
            .run(&["--tag", "2", "--allow-base", pattern])
            .await
            .failed(2);
    }
    workshop.close().await;
}

#[tokio::test]
async fn a_base_that_is_not_there_is_named_with_its_line() {
    let workshop = Workshop::open().await;
    workshop.dockerfile("FROM REGISTRY/base/busybox:1\nCOPY --from=REGISTRY/base/none:1 / /\n");
    let ran = workshop.run(&["--tag", "1"]).await;
    let last = ran.failed(5);
    assert!(last.contains("line 2") && last.contains("base/none:1"), "{last}");
    assert_eq!(workshop.seen("arguments"), "", "nothing was built");
    let absent = format!("REGISTRY/base/busybox:1@sha256:{}", "0".repeat(64));
    workshop.dockerfile(&format!("FROM {absent}\n"));
    workshop.run(&["--tag", "1"]).await.failed(5);
    workshop.close().await;
}
