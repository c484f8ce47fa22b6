//! Runs that `kill -9` ends in the middle: no tag has moved, and the next run sends what is missing and no more.

use std::process::Stdio;

use towpath_sandbox::servers::{Exchange, Fault, Point, Rule};

use crate::behind::{Behind, each_kind};
use crate::image::Image;
use crate::world::{World, assert_holds, tagged};

const UPLOADS: &str = "/blobs/uploads/";
const BLOBS: usize = 13;
/// Three platforms and the index, whose tag is the last thing written.
const MANIFESTS: usize = 4;

/// What the next run has to write.
struct Rest {
    uploads: usize,
    manifests: usize,
}

/// Starts a promotion of an image over an old one, kills it once the proxy holds a request and the others are as
/// wanted, and lets another run finish.
async fn kill(hold: impl Fn(&Behind) -> Rule, wanted: fn(&[Exchange]) -> bool, moved: bool, rest: Rest) {
    let world = World::open().await;
    let (old, new) = (
        Image::of_one_layer(b"the old layer"),
        Image::of_three_platforms("new"),
    );
    let (old_layout, layout) = (world.layout(&old), world.layout(&new));
    for target in each_kind(&world, "target").await {
        target.hold(&world, "app:1", &old_layout).await;
        target.proxy.add(hold(&target));
        let to = target.reference("app:1");
        let arguments = ["--move-tag-from", "any", &layout, &to];
        let mut run = world
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = &target.proxy;
        let reached = |seen: &[Exchange]| seen.iter().any(|seen| seen.held) && wanted(seen);
        proxy.until(reached).await.unwrap();
        // This is SIGKILL: nothing is cleaned up.
        run.kill().await.unwrap();
        proxy
            .until(|seen| seen.iter().any(|seen| seen.broken))
            .await
            .unwrap();
        let expected = if moved { &new.root } else { &old.root };
        assert_eq!(
            tagged(target.direct(), None, "app", "1").await.as_ref(),
            Some(expected)
        );

        proxy.clear();
        let report = world.promote(&arguments).await.succeeded();
        assert_eq!(report["changed"], !moved, "{report}");
        // Where nothing is mounted, small blobs are sent without asking: that costs no more.
        let uploads = if target.is_docker() || moved {
            rest.uploads
        } else {
            BLOBS
        };
        assert_eq!(
            (target.uploads(), target.manifests()),
            (uploads, rest.manifests),
            "{:#?}",
            proxy.exchanges()
        );
        assert_holds(target.direct(), None, "app", &new).await;
        assert_eq!(
            tagged(target.direct(), None, "app", "1").await.as_ref(),
            Some(&new.root)
        );
    }
}

#[tokio::test]
async fn with_a_large_blob_there_already() {
    let world = World::open().await;
    let image = Image::of_one_layer(&vec![7; 1024 * 1024]);
    let layout = world.layout(&image);
    for target in each_kind(&world, "target").await {
        let proxy = &target.proxy;
        proxy.add(Rule::on("PUT", "/manifests/1", Fault::Hold(Point::Arrival)));
        let to = target.reference("app:1");
        let mut run = world
            .command(&[&layout, &to])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        proxy
            .until(|seen| seen.iter().any(|seen| seen.held))
            .await
            .unwrap();
        run.kill().await.unwrap();
        proxy.clear();
        world.promote(&[&layout, &to]).await.succeeded();
        let is_large = |seen: &&Exchange| seen.is("PUT", UPLOADS) && seen.sent > 1000;
        assert_eq!(proxy.exchanges().iter().filter(is_large).count(), 0);
        assert_holds(target.direct(), None, "app", &image).await;
    }
}

fn uploaded(seen: &[Exchange]) -> usize {
    let is_there = |seen: &&Exchange| seen.is("PUT", UPLOADS) && seen.status == Some(201);
    seen.iter().filter(is_there).count()
}

fn written(seen: &[Exchange]) -> usize {
    let is_there = |seen: &&Exchange| seen.is("PUT", "/manifests/") && seen.status == Some(201);
    seen.iter().filter(is_there).count()
}

#[tokio::test]
async fn while_blobs_go() {
    let hold = |target: &Behind| {
        // The other kind takes one upload at a time, so a half one would keep all others out.
        let point = if target.is_docker() {
            Point::Sending(8)
        } else {
            Point::Arrival
        };
        Rule::on("PUT", UPLOADS, Fault::Hold(point)).times(1)
    };
    let rest = Rest {
        uploads: 1,
        manifests: MANIFESTS,
    };
    kill(hold, |seen| uploaded(seen) == BLOBS - 1, false, rest).await;
}

#[tokio::test]
async fn before_the_first_blob_is_there() {
    let hold = |_: &Behind| Rule::on("POST", UPLOADS, Fault::Hold(Point::Answered));
    let rest = Rest {
        uploads: BLOBS,
        manifests: MANIFESTS,
    };
    kill(hold, |_| true, false, rest).await;
}

#[tokio::test]
async fn between_manifests() {
    let hold = |_: &Behind| Rule::on("PUT", "/manifests/", Fault::Hold(Point::Arrival)).times(1);
    // Which of the platforms' manifests are there is not asked: writing one again costs the same request.
    let rest = Rest {
        uploads: 0,
        manifests: MANIFESTS,
    };
    kill(hold, |seen| written(seen) == 2, false, rest).await;
}

#[tokio::test]
async fn just_before_the_tag() {
    let hold = |_: &Behind| Rule::on("PUT", "/manifests/1", Fault::Hold(Point::Arrival));
    let rest = Rest {
        uploads: 0,
        manifests: MANIFESTS,
    };
    kill(hold, |_| true, false, rest).await;
}

#[tokio::test]
async fn just_after_the_tag() {
    let hold = |_: &Behind| Rule::on("PUT", "/manifests/1", Fault::Hold(Point::Answered));
    let rest = Rest {
        uploads: 0,
        manifests: 0,
    };
    kill(hold, |_| true, true, rest).await;
}
