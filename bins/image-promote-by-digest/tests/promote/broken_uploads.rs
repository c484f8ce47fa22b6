//! Uploads that break: they go on where the registry knows how far they got, and else begin anew.

use axum::http::Method;
use futures_util::future::join_all;

use crate::image::Image;
use crate::scripted::{LOGIN, Ranges, Script, Scripted, UploadFault};
use crate::world::{Run, World};

const MEBIBYTE: usize = 1024 * 1024;

fn image() -> Image {
    let layer: Vec<u8> = (0..3 * MEBIBYTE).map(|n| (n % 251) as u8).collect();
    Image::of_one_layer(&layer)
}

fn target(fault: UploadFault, times: u32) -> Script {
    Script {
        uploads: Some((fault, times)),
        ..Script::default()
    }
}

/// Promotes an image from a registry that knows of ranges.
async fn send(world: &World, image: &Image, target: &Scripted) -> (Run, Scripted) {
    let source = Scripted::start(Script {
        ranges: Ranges::Known,
        ..Script::default()
    })
    .await;
    source.hold("app", "1", image);
    let reference = format!("{}/app:1", source.host);
    let run = world
        .promote(&[&reference, &format!("{}/app:1", target.host)])
        .await;
    (run, source)
}

#[track_caller]
fn assert_arrived(run: Run, target: &Scripted, image: &Image) {
    run.succeeded();
    assert!(target.has_all("app", image));
    assert_eq!(target.tagged("app", "1").as_ref(), Some(&image.root));
    assert_eq!(target.open_uploads(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_where_the_registry_says_that_it_is() {
    let world = World::open().await;
    let image = image();
    let half = MEBIBYTE * 3 / 2;
    let promote = async |(fault, rest): (UploadFault, &str)| {
        let target = Scripted::start(Script {
            resumes: true,
            ..target(fault, 1)
        })
        .await;
        let (run, source) = send(&world, &image, &target).await;
        assert_arrived(run, &target, &image);
        let sent_on = target.lines("/uploads/", &Method::PATCH);
        assert_eq!(sent_on.len(), 1);
        assert_eq!(sent_on[0].range.as_deref(), Some(rest));
        // One upload for each blob, and of the source only what lacks, from the last full mebibyte on.
        assert_eq!(target.uploads(&Method::POST), 2);
        assert_eq!(target.uploads(&Method::DELETE), 0);
        let reads = source.lines("/blobs/", &Method::GET);
        let again: Vec<u64> = reads
            .iter()
            .filter_map(|line| line.range.as_ref()?.strip_prefix("bytes="))
            .map(|range| range.strip_suffix("-3145727").unwrap().parse().unwrap())
            .collect();
        let from: u64 = rest.split_once('-').unwrap().0.parse().unwrap();
        let [again] = again[..] else { panic!("{again:?}") };
        assert!(again <= from && from - again < 2 * MEBIBYTE as u64, "{again}");
    };
    let cases = [
        (UploadFault::BreaksOff(half), "1572864-3145727"),
        (UploadFault::Status(500, half), "1572864-3145727"),
        (UploadFault::Status(502, 2 * MEBIBYTE), "2097152-3145727"),
        (UploadFault::BreaksOff(3 * MEBIBYTE - 1), "3145727-3145727"),
    ];
    join_all(cases.map(promote)).await;
}

#[tokio::test]
async fn an_upload_that_gets_further_each_time_arrives_from_a_folder_too() {
    let world = World::open().await;
    let image = image();
    let target = Scripted::start(Script {
        resumes: true,
        ..target(UploadFault::BreaksOff(300_000), u32::MAX)
    })
    .await;
    let run = world
        .promote(&[&world.layout(&image), &format!("{}/app:1", target.host)])
        .await;
    assert_arrived(run, &target, &image);
    assert_eq!(target.uploads(&Method::PATCH), 10);
    assert_eq!(target.uploads(&Method::POST), 2);
}

#[tokio::test]
async fn an_upload_begins_anew_where_the_registry_does_not_know_how_far_it_was() {
    let world = World::open().await;
    let image = image();
    let promote = async |fault: UploadFault| {
        let target = Scripted::start(target(fault, 2)).await;
        let (run, _) = send(&world, &image, &target).await;
        assert_arrived(run, &target, &image);
        assert_eq!(target.uploads(&Method::PATCH), 0);
        assert_eq!(target.uploads(&Method::POST), 2 + 2);
        assert_eq!(target.uploads(&Method::DELETE), 2);
    };
    let cases = [
        UploadFault::BreaksOff(MEBIBYTE),
        UploadFault::Status(500, MEBIBYTE),
        UploadFault::Status(408, MEBIBYTE),
        UploadFault::Status(416, MEBIBYTE),
    ];
    join_all(cases.map(promote)).await;
}

#[tokio::test]
async fn an_upload_begins_anew_where_the_registry_takes_no_parts() {
    let world = World::open().await;
    let image = image();
    let target = Scripted::start(Script {
        resumes: true,
        refuses_parts: true,
        ..target(UploadFault::BreaksOff(MEBIBYTE), 1)
    })
    .await;
    let (run, _) = send(&world, &image, &target).await;
    assert_arrived(run, &target, &image);
    assert_eq!(target.uploads(&Method::PATCH), 1);
    assert_eq!(target.uploads(&Method::POST), 2 + 1);
}

#[tokio::test]
async fn a_blob_that_arrived_is_not_sent_again_when_only_the_answer_got_lost() {
    let world = World::open().await;
    let image = image();
    let target = Scripted::start(target(UploadFault::LosesAnswer, 2)).await;
    let (run, _) = send(&world, &image, &target).await;
    assert_arrived(run, &target, &image);
    assert_eq!(target.uploads(&Method::PUT), 2);
}

#[tokio::test]
async fn a_registry_that_turns_an_upload_away_gets_it_again_as_it_asked() {
    let world = World::open().await;
    let image = image();
    let promote = async |(status, wait): (u16, &'static str)| {
        let target = Scripted::start(target(UploadFault::TurnsAway(status, wait), 3)).await;
        let (run, _) = send(&world, &image, &target).await;
        assert_arrived(run, &target, &image);
        // The same uploads served.
        assert_eq!(target.uploads(&Method::POST), 2, "{status} {wait}");
        assert_eq!(target.uploads(&Method::PUT), 2 + 3, "{status} {wait}");
    };
    let cases = [(429, "1"), (503, "0"), (429, "Wed, 21 Oct 2015 07:28:00 GMT")];
    join_all(cases.map(promote)).await;
}

#[tokio::test]
async fn an_upload_that_never_gets_there_leaves_the_tag_alone() {
    let world = World::open().await;
    let (image, old) = (image(), Image::of_one_layer(b"old"));
    let layout = world.layout(&image);
    let promote = async |(fault, resumes): (UploadFault, bool)| {
        let target = Scripted::start(Script {
            resumes,
            ..target(fault.clone(), u32::MAX)
        })
        .await;
        target.hold("app", "1", &old);
        // Whoever turns everything away for long is not bothered with what was begun there.
        let left = usize::from(matches!(fault, UploadFault::TurnsAway(..)));
        let reference = format!("{}/app:1", target.host);
        let run = world
            .promote(&["--move-tag-from", "any", &layout, &reference])
            .await;
        run.failed_with(7);
        assert_eq!(target.tagged("app", "1").as_ref(), Some(&old.root));
        assert!(target.open_uploads() <= left, "{fault:?}");
    };
    let faults = [
        (UploadFault::BreaksOff(MEBIBYTE), false),
        (UploadFault::BreaksOff(0), true),
        (UploadFault::Status(503, MEBIBYTE), false),
        (UploadFault::TurnsAway(429, "100000"), false),
    ];
    join_all(faults.map(promote)).await;
}

#[tokio::test]
async fn a_token_that_runs_out_within_an_upload_is_asked_for_again() {
    let world = World::open().await;
    let image = image();
    for resumes in [true, false] {
        let target = Scripted::start(Script {
            bearer: true,
            resumes,
            ..target(UploadFault::Status(401, 2 * MEBIBYTE), 1)
        })
        .await;
        world.log_in(&[(&target.host, LOGIN.0, LOGIN.1)]);
        let (run, _) = send(&world, &image, &target).await;
        assert_arrived(run, &target, &image);
        assert_eq!(target.lines("/token", &Method::GET).len(), 2);
        assert_eq!(target.uploads(&Method::PATCH), usize::from(resumes));
    }
}

#[tokio::test]
async fn another_host_that_takes_the_uploads_gets_no_credentials() {
    let world = World::open().await;
    let image = image();
    for (fault, resumes) in [
        (UploadFault::BreaksOff(2 * MEBIBYTE), true),
        (UploadFault::BreaksOff(2 * MEBIBYTE), false),
    ] {
        let storage = Scripted::start(Script {
            resumes,
            ..target(fault, 1)
        })
        .await;
        let target = Scripted::start(Script {
            bearer: true,
            uploads_at: Some(storage.host.clone()),
            ..Script::default()
        })
        .await;
        world.log_in(&[(&target.host, LOGIN.0, LOGIN.1)]);
        let (run, _) = send(&world, &image, &target).await;
        run.succeeded();
        assert_eq!(target.tagged("app", "1").as_ref(), Some(&image.root));
        assert_eq!(target.uploads(&Method::PUT) + target.uploads(&Method::PATCH), 0);
        // Sent, broken off, asked after or given back, sent on or again: all there, and never with our token.
        assert!(storage.log().len() >= 5, "{:?}", storage.log());
        assert!(
            storage.log().iter().all(|line| !line.authorized),
            "{:?}",
            storage.log()
        );
    }
}
