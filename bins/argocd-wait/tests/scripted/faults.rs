//! What goes wrong on the way.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_sandbox::tool_run::Signal;

use crate::support::{Ends as _, LOOK, REFRESH, STREAM, Scripted, ok, recorded, status, stream, text};

fn said(text: &str) -> Value {
    json!({"error": text, "message": text, "code": 7})
}

#[tokio::test]
async fn refusals_keep_their_kinds() {
    for (code, exit, words) in [
        (
            401,
            4,
            &["does not know the token", "argocd account generate-token"][..],
        ),
        (
            403,
            4,
            &[
                "there is none of that name, or the token may not",
                "applications, get",
            ],
        ),
        (404, 5, &["there is no application web-prod"]),
        (500, 7, &["cannot answer"]),
        (302, 3, &["another address"]),
    ] {
        let server = Scripted::start().await;
        server.on(LOOK, [status(code, said("said so"))]);
        let ran = server.tool(&["--via", "argocd"]).run().await;
        assert_eq!(ran.code, exit, "{code}: {ran}");
        for word in words {
            assert!(ran.stderr.contains(word), "{code}: {word:?} is not said: {ran}");
        }
    }
}

#[tokio::test]
async fn what_is_no_application_is_told_at_once() {
    for body in [
        "{}",
        "null",
        "[]",
        "[[]]",
        "{\"metadata\": {\"name\": \"\"}}",
        "7",
    ] {
        let server = Scripted::start().await;
        server.on(LOOK, [text(200, body)]);
        let ran = server.tool(&["--via", "argocd"]).run().await;
        assert_eq!(ran.code, 3, "{body}: {ran}");
        assert!(
            ran.stderr.contains("is ARGOCD_SERVER Argo CD's own address"),
            "{ran}"
        );
    }
}

#[tokio::test]
async fn what_is_refused_under_the_wait_ends_it() {
    for (code, exit, verdict, words) in [
        (401, 4, "denied", "does not know the token"),
        (
            403,
            4,
            "denied",
            "there is none of that name, or the token may not",
        ),
        (404, 5, "deleted", "there is no application web-prod"),
    ] {
        let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
        server
            .on(STREAM, [status(503, said("no")), status(code, said("said so"))])
            .on(LOOK, [ok(recorded("deploy-3")), status(code, said("said so"))]);
        let ran = server.tool(&[]).run().await;
        ran.ends(exit, verdict, &[words]);
    }
}

#[tokio::test]
async fn what_passes_is_borne() {
    let ready = recorded("deploy-5");
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    let later = status(429, said("slow down")).header("retry-after", "0");
    // The stream is not to be had at first, and looks fail for a while.
    server
        .on(
            STREAM,
            [
                status(503, said("no")).header("retry-after", "0"),
                status(500, said("no")),
            ],
        )
        .on(
            LOOK,
            [
                ok(recorded("deploy-3")),
                later,
                status(500, said("no")),
                ok(recorded("deploy-4")),
                ok(&ready),
            ],
        );
    let ran = server.tool(&[]).run().await;
    ran.ends(0, "ready", &["trying again"]);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_taken_up_again() {
    let ready = recorded("deploy-5");
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    let cut = stream(&[recorded("deploy-4")]).cut_off();
    server
        .on(STREAM, [cut, stream(std::slice::from_ref(&ready))])
        .on(LOOK, [ok(recorded("deploy-4"))]);
    let ran = server.tool(&[]).run().await;
    ran.ends(0, "ready", &[]);
    assert!(server.asked_for(STREAM).len() >= 2);
}

#[tokio::test]
async fn a_slow_stream_is_put_together() {
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    server.on(STREAM, [stream(&[recorded("deploy-5")]).in_pieces(100)]);
    server.tool(&[]).run().await.ends(0, "ready", &[]);
}

#[tokio::test]
async fn hostile_streams_are_given_up() {
    let ready = recorded("deploy-5");
    for body in [
        "x".repeat(5 * 1024 * 1024),
        "<html>login</html>\n".to_owned(),
        "[".repeat(100_000) + "\n",
    ] {
        let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
        server
            .on(STREAM, [text(200, &body)])
            .on(LOOK, [ok(recorded("deploy-3")), ok(&ready)]);
        let ran = server.tool(&[]).run().await;
        ran.ends(0, "ready", &["by asking"]);
    }
    // The same as the answer to a look is no Argo CD.
    let server = Scripted::start().await;
    server.on(LOOK, [text(200, &"x".repeat(5 * 1024 * 1024))]);
    assert_eq!(server.tool(&[]).run().await.code, 3);
}

#[tokio::test]
async fn without_an_answer_the_deadline_says_so() {
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    server
        .on(STREAM, [status(500, said("no"))])
        .on(LOOK, [ok(recorded("deploy-3")), status(500, said("down"))]);
    let ran = server.tool(&["--timeout", "3s"]).run().await;
    ran.ends(7, "unavailable", &["could not be looked at"]);
    // One that answers and is slow is told by what it is waited on for.
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    let ran = server.tool(&["--timeout", "2s"]).run().await;
    ran.ends(9, "deadline", &["it is synced and Progressing"]);
}

#[tokio::test]
async fn a_refresh_that_is_refused_leaves_the_waiting() {
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    server.on(REFRESH, [status(403, said("no"))]).on(
        STREAM,
        [stream(&[recorded("deploy-5")]).after(Duration::from_secs(1))],
    );
    server.tool(&[]).run().await.ends(0, "ready", &["not asked for"]);
}

#[tokio::test]
async fn a_signal_ends_the_wait() {
    let handoff = tempfile::tempdir().unwrap();
    let path = handoff.path().join("handoff.env");
    std::fs::write(&path, "IMAGE_TAG=1.2.3\n").unwrap();
    let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
    let child = server.tool(&["--handoff", path.to_str().unwrap()]).spawn();
    while server.asked_for(STREAM).is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.signal(Signal::TERM).unwrap();
    let ran = child.ended().await.unwrap();
    ran.ends(
        143,
        "interrupted",
        &["interrupted while waiting for application web-prod"],
    );
    let left = std::fs::read_to_string(&path).unwrap();
    assert!(left.contains("ENV_VERDICT=interrupted\n"), "{left}");
    assert!(
        left.contains("IMAGE_TAG=1.2.3\n"),
        "what was handed over goes on: {left}"
    );
}

#[tokio::test]
async fn plain_http_stays_on_this_machine() {
    let ran = crate::support::Wait::bare(&[])
        .env("ARGOCD_SERVER", "http://argocd.example.com")
        .env("ARGOCD_AUTH_TOKEN", crate::support::ARGOCD)
        .run()
        .await;
    assert_eq!(ran.code, 4, "{ran}");
    let ran = crate::support::Wait::bare(&[]).run().await;
    assert_eq!(ran.code, 2, "{ran}");
}

#[tokio::test]
async fn a_stream_that_is_open_and_silent_is_asked_beside() {
    // It drops what happens after its first word: only the next stream shows the end.
    let stalled = async {
        let server = Scripted::showing(&recorded("deploy-3"), &[]).await;
        server
            .on(
                STREAM,
                [stream(&[recorded("deploy-3")]), stream(&[recorded("deploy-5")])],
            )
            .on(LOOK, [ok(recorded("deploy-3")), ok(recorded("deploy-4"))]);
        let ran = server.tool(&[]).run().await;
        ran.ends(
            0,
            "ready",
            &[
                "its stream is stalled",
                "it told of version \"340\"",
                "asking of 362",
            ],
        );
        assert_eq!(server.asked_for(STREAM).len(), 2);
        assert!(!ran.stderr.contains("not to be had"), "{ran}");
    };
    // Nothing happens, and it says so by saying nothing; the end of the run's time is no word about the stream.
    let quiet = async {
        let state = recorded("deploy-3");
        let server = Scripted::showing(&state, std::slice::from_ref(&state)).await;
        let ran = server.tool(&["--timeout", "16s"]).run().await;
        ran.ends(9, "deadline", &["it is synced and Progressing"]);
        assert!(!ran.stderr.contains("by asking"), "{ran}");
        assert_eq!(server.asked_for(STREAM).len(), 1);
        assert_eq!(
            server.asked_for(LOOK).len(),
            2,
            "one look to begin with, one beside the stream"
        );
    };
    tokio::join!(stalled, quiet);
}
