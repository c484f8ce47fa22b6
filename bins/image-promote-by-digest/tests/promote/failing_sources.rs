//! Sources that break: the image arrives whole all the same, or the target's tag is not touched.

use std::process::Stdio;

use axum::http::Method;
use futures_util::future::join_all;
use tokio::io::AsyncReadExt as _;
use towpath::oci::Digest;

use crate::image::Image;
use crate::scripted::{Fault, Ranges, Script, Scripted};
use crate::world::{World, assert_holds, logged, open_uploads, tagged};

const GIVEN_BACK: &str = "\"DELETE /v2/";

fn script(fault: Fault, times: u32) -> Script {
    Script {
        blobs: Some((fault, times)),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_gone_on_with_in_the_same_upload() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_three_platforms("1");
    let promote = async |(repository, fault, times, ranges): (&str, Fault, u32, Ranges)| {
        let source = Scripted::start(Script {
            ranges,
            ..script(fault, times)
        })
        .await;
        source.hold("app", "1", &image);
        let target = format!("{}/{repository}", production.host());
        let report = world
            .promote(&[&format!("{}/app:1", source.host), &target])
            .await
            .succeeded();
        assert_eq!(report["targets"][0]["copied"], 13);
        assert_holds(production.host(), None, repository, &image).await;
        assert_eq!(logged(&production, &format!("{GIVEN_BACK}{repository}/")), 0);
        let opened = format!("\"POST /v2/{repository}/blobs/uploads/");
        assert_eq!(logged(&production, &opened), 13, "{repository}");
        let asked = source.lines("/blobs/", &Method::GET);
        if ranges == Ranges::Known {
            // Each blob from its start once, and then only for what lacks.
            assert_eq!(asked.iter().filter(|line| line.range.is_none()).count(), 13);
            assert!(asked.len() >= 13 * 3, "{repository}");
        }
    };
    let faults = [
        ("broken", Fault::BreaksOff, 2, Ranges::Ignored),
        ("resumed", Fault::BreaksOff, 2, Ranges::Known),
        ("refused", Fault::BreaksOff, 1, Ranges::Refused),
        ("confused", Fault::BreaksOff, 1, Ranges::Wrong),
        ("short", Fault::IsShort, 2, Ranges::Known),
        // What gets further each time gets there.
        ("halved", Fault::BreaksOff, u32::MAX, Ranges::Known),
        ("drips", Fault::Drips, u32::MAX, Ranges::Ignored),
        ("failing", Fault::Status(500), 2, Ranges::Ignored),
        ("busy", Fault::Status(503), 2, Ranges::Ignored),
    ];
    join_all(faults.map(promote)).await;
}

#[tokio::test]
async fn a_blob_that_comes_wrong_is_begun_again() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_three_platforms("1");
    for (repository, fault) in [("wrong", Fault::WrongBytes), ("long", Fault::IsLong)] {
        let source = Scripted::start(script(fault, 1)).await;
        source.hold("app", "1", &image);
        let target = format!("{}/{repository}", production.host());
        let report = world
            .promote(&[&format!("{}/app:1", source.host), &target])
            .await
            .succeeded();
        assert_eq!(report["targets"][0]["copied"], 13);
        assert_holds(production.host(), None, repository, &image).await;
        assert_eq!(logged(&production, &format!("{GIVEN_BACK}{repository}/")), 13);
    }
}

#[tokio::test]
async fn a_blob_that_never_comes_right_leaves_the_tag_alone() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let (old, new) = (
        Image::of_one_layer(b"the old layer"),
        Image::of_one_layer(b"the new layer"),
    );
    let layout = world.layout(&old);
    let promote = async |repository: &str, fault: Fault| {
        let target = format!("{}/{repository}:1", production.host());
        world.promote(&[&layout, &target]).await.succeeded();
        let source = Scripted::start(script(fault.clone(), u32::MAX)).await;
        source.hold("app", "1", &new);
        let reference = format!("{}/app:1", source.host);
        let run = world
            .promote(&["--move-tag-from", "any", &reference, &target])
            .await;
        let code = if matches!(fault, Fault::Status(404)) { 5 } else { 7 };
        let error = run.failed_with(code);
        assert!(error.contains("sha256:"), "{error}");
        assert_eq!(run.report["targets"][0]["changed"], false);
        assert!(run.report["targets"][0]["failure"].is_string());
        assert_eq!(
            tagged(production.host(), None, repository, "1").await,
            Some(old.root.clone())
        );
        let given_back = logged(&production, &format!("{GIVEN_BACK}{repository}/"));
        assert!(given_back >= 1, "{repository}: an upload was not given back");
    };
    let faults = [
        ("broken", Fault::BreaksOff),
        ("wrong", Fault::WrongBytes),
        ("short", Fault::IsShort),
        ("long", Fault::IsLong),
        ("failing", Fault::Status(500)),
        ("gone", Fault::Status(404)),
    ];
    join_all(faults.map(|(repository, fault)| promote(repository, fault))).await;
}

#[tokio::test]
async fn manifests_that_are_not_what_their_digest_names_are_refused() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let source = Scripted::start(Script {
        wrong_manifests: true,
        ..Script::default()
    })
    .await;
    let image = Image::of_one_layer(b"layer");
    source.hold("app", "1", &image);
    for pointer in [":1".to_owned(), format!("@{}", image.root)] {
        let reference = format!("{}/app{pointer}", source.host);
        let target = format!("{}/app:1", production.host());
        let error = world.promote(&[&reference, &target]).await.failed_with(6);
        assert!(error.contains(&image.root), "{error}");
    }
    assert_eq!(tagged(production.host(), None, "app", "1").await, None);
}

#[tokio::test]
async fn another_host_that_has_the_blobs_gets_no_credentials() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let storage = Scripted::start(Script {
        ranges: Ranges::Known,
        ..script(Fault::BreaksOff, 1)
    })
    .await;
    let source = Scripted::start(Script {
        bearer: true,
        ..script(Fault::IsElsewhere(storage.host.clone()), u32::MAX)
    })
    .await;
    let (user, password) = crate::scripted::LOGIN;
    world.log_in(&[(&source.host, user, password)]);
    let image = Image::of_three_platforms("1");
    source.hold("app", "1", &image);
    storage.hold("app", "1", &image);
    let target = format!("{}/app", production.host());
    world
        .promote(&[&format!("{}/app:1", source.host), &target])
        .await
        .succeeded();
    assert_holds(production.host(), None, "app", &image).await;
    // What broke off there is asked for by way of the registry again, and the range goes along.
    assert_eq!(storage.log().len(), 26);
    let ranges = storage.log().iter().filter(|line| line.range.is_some()).count();
    assert_eq!(ranges, 13);
    assert!(
        storage.log().iter().all(|line| !line.authorized),
        "{:?}",
        storage.log()
    );
}

#[tokio::test]
async fn a_registry_that_asks_to_wait_is_waited_for() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let image = Image::of_one_layer(b"layer");
    let promote = async |(repository, busy, wait): (&str, u32, Option<&'static str>)| {
        let source = Scripted::start(Script {
            busy,
            wait,
            ..Script::default()
        })
        .await;
        source.hold("app", "1", &image);
        let report = world
            .promote(&[
                &format!("{}/app:1", source.host),
                &format!("{}/{repository}", production.host()),
            ])
            .await
            .succeeded();
        if wait == Some("1") {
            assert!(report["seconds"].as_f64().unwrap() >= 2.0, "{report}");
        }
    };
    let cases = [
        ("seconds", 2, Some("1")),
        ("a-date", 4, Some("Wed, 21 Oct 2015 07:28:00 GMT")),
        ("without", 3, None),
        ("nonsense", 2, Some("soon")),
    ];
    join_all(cases.map(promote)).await;
}

#[tokio::test]
async fn a_registry_that_is_busy_for_longer_than_we_have_is_unavailable() {
    let world = World::open().await;
    let image = Image::of_one_layer(b"layer");
    let layout = world.layout(&image);
    let promote = async |wait: Option<&'static str>| {
        let registry = Scripted::start(Script {
            busy: u32::MAX,
            wait,
            ..Script::default()
        })
        .await;
        let target = format!("{}/app:1", registry.host);
        let mut command = world.command(&[&layout, &target]);
        command.env("TOWPATH_TIMEOUT", "5s");
        let error = world.run(command).await.failed_with(7);
        assert!(error.contains(&registry.host), "{error}");
        assert_eq!(registry.tagged("app", "1"), None);
        if wait.is_some() {
            assert_eq!(registry.log().len(), 1);
        }
    };
    let cases = [Some("100000"), None];
    join_all(cases.map(promote)).await;
}

#[tokio::test]
async fn registries_that_take_few_requests_at_once_get_no_more() {
    let world = World::open().await;
    let few = || Script {
        takes_at_once: Some(2),
        ..Script::default()
    };
    let (source, target) = (Scripted::start(few()).await, Scripted::start(few()).await);
    let image = Image::of_three_platforms("1");
    source.hold("app", "1", &image);
    let arguments = [format!("{}/app:1", source.host), format!("{}/app:1", target.host)];
    world.promote(&[&arguments[0], &arguments[1]]).await.succeeded();
    assert!(target.has_all("app", &image));
    assert_eq!(target.tagged("app", "1"), Some(image.root));
    assert!(source.turned_away() + target.turned_away() > 0);
}

#[tokio::test]
async fn uploads_that_wait_for_their_source_do_not_keep_it_from_being_read_on() {
    let world = World::open().await;
    // It turns away enough for few requests to run at once, and source and target are both there.
    let registry = Scripted::start(Script {
        busy: 2,
        wait: Some("0"),
        ignores_mounts: true,
        ranges: Ranges::Known,
        ..script(Fault::BreaksOff, 2)
    })
    .await;
    let image = Image::of_three_platforms("1");
    registry.hold("dev/app", "1", &image);
    let source = format!("{}/dev/app:1", registry.host);
    let target = format!("{}/prod/app:1", registry.host);
    let mut command = world.command(&[&source, &target]);
    command.env("TOWPATH_TIMEOUT", "60s");
    world.run(command).await.succeeded();
    assert!(registry.has_all("prod/app", &image));
}

#[tokio::test]
async fn an_interrupted_run_gives_its_uploads_back_and_the_next_one_finishes() {
    let world = World::open().await;
    let production = world.registry("production", &[]).await;
    let source = Scripted::start(script(Fault::Stalls, 1)).await;
    let image = Image::of_three_platforms("1");
    source.hold("app", "1", &image);
    let arguments = [
        format!("{}/app:1", source.host),
        format!("{}/app", production.host()),
    ];
    let arguments = [arguments[0].as_str(), arguments[1].as_str()];
    let mut run = world
        .command(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Wait until every blob is on its way and stuck.
    let stuck = async {
        while source
            .log()
            .iter()
            .filter(|line| line.uri.contains("/blobs/"))
            .count()
            < 13
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), stuck)
        .await
        .unwrap();
    let id = run.id().unwrap().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &id])
        .status()
        .unwrap();
    assert!(killed.success());
    let mut log = String::new();
    run.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    assert_eq!(run.wait().await.unwrap().code(), Some(143), "{log}");
    assert!(log.contains("interrupted while copying"), "{log}");
    assert_eq!(logged(&production, GIVEN_BACK), 13);
    assert_eq!(tagged(production.host(), None, "app", "1").await, None);

    world.promote(&arguments).await.succeeded();
    assert_holds(production.host(), None, "app", &image).await;
    assert_eq!(
        tagged(production.host(), None, "app", "1").await,
        Some(image.root)
    );
}

#[tokio::test]
async fn an_incomplete_layout_is_not_pushed_in_part() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let image = Image::of_one_layer(b"layer");
    let source = world.layout(&image);
    let folder = source.strip_prefix("oci:").unwrap();
    let layer = Digest::of(b"layer");
    let file = std::path::Path::new(folder)
        .join("blobs/sha256")
        .join(layer.hex());
    let target = format!("{}/app:1", registry.host());
    std::fs::write(&file, b"laYer").unwrap();
    world.promote(&[&source, &target]).await.failed_with(7);
    std::fs::remove_file(&file).unwrap();
    let error = world.promote(&[&source, &target]).await.failed_with(5);
    assert!(error.contains(layer.hex()), "{error}");
    assert_eq!(tagged(registry.host(), None, "app", "1").await, None);
    assert_eq!(open_uploads(&registry, "app"), 0);
}
