//! What goes wrong while the source is read.

use towpath_sandbox::servers::{Canned, Fault, Point, Rule, Way};

use crate::behind::{Case, End, busy, busy_for, each_case, each_kind, once, status};
use crate::image::Image;
use crate::world::{World, assert_holds};

const BLOBS: &str = "/blobs/sha256:";
const MANIFESTS: &str = "/manifests/";
const LAYER: usize = 700_000;

fn old() -> Image {
    Image::of_one_layer(b"the old layer")
}

/// An image with one layer that comes in many pieces.
fn new() -> Image {
    let layer: Vec<u8> = (0..LAYER as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    Image::of_one_layer(&layer)
}

/// Promotes an image from each kind of registry with these faults, each case into a repository of its own.
async fn promote(cases: Vec<Case>) {
    let world = World::open().await;
    let targets = each_kind(&world, "target").await;
    let (old, new) = (old(), new());
    let (old_layout, new_layout) = (world.layout(&old), world.layout(&new));
    for (source, target) in each_kind(&world, "source").await.iter().zip(&targets) {
        source.hold(&world, "app:1", &new_layout).await;
        each_case(&cases, async |number, (case, rules, end)| {
            let repository = format!("case-{number}");
            target.hold(&world, &format!("{repository}:1"), &old_layout).await;
            let source = source.again().await;
            source.break_by(rules);
            let reference = source.reference("app:1");
            let to = format!("{}/{repository}", target.direct());
            let run = world.promote(&["--move-tag-from", "any", &reference, &to]).await;
            source.assert_broke(case, rules);
            target.check(run, *end, &repository, &old, &new, case).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_blob_that_comes_late_short_or_wrong_once_is_there_in_the_end() {
    let half = Point::Receiving(LAYER as u64 / 2);
    let faults = [
        ("busy", busy()),
        ("busy for a second", busy_for("1")),
        (
            "busy until a date that is over",
            busy_for("Wed, 21 Oct 2015 07:28:00 GMT"),
        ),
        ("internal error", status(500)),
        ("unavailable", status(503)),
        ("a gateway's timeout", status(504)),
        (
            "reset before the answer",
            Fault::Break(Point::Answered, Way::Reset),
        ),
        (
            "closed before the answer",
            Fault::Break(Point::Answered, Way::Close),
        ),
        (
            "reset before the first byte",
            Fault::Break(Point::Receiving(0), Way::Reset),
        ),
        ("reset in the middle", Fault::Break(half, Way::Reset)),
        ("a short body", Fault::Break(half, Way::Close)),
        ("wrong bytes", Fault::WrongBytes),
        ("more announced than comes", Fault::Length(7)),
        ("less announced than comes", Fault::Length(-1)),
    ];
    let cases = faults.map(|(case, fault)| (case, vec![once("GET", BLOBS, fault)], End::Complete));
    promote(cases.to_vec()).await;
}

#[tokio::test]
async fn a_blob_that_breaks_off_twice_at_other_places_or_drips_is_there_in_the_end() {
    let at = |bytes| Fault::Break(Point::Receiving(bytes), Way::Reset);
    promote(vec![
        (
            "broken off twice",
            vec![once("GET", BLOBS, at(100_000)), once("GET", BLOBS, at(200_000))],
            End::Complete,
        ),
        (
            "dripping",
            vec![once("GET", BLOBS, Fault::Drip(400_000))],
            End::Complete,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_blob_that_never_comes_right_leaves_the_tag_alone() {
    let always = |fault| vec![Rule::on("GET", BLOBS, fault)];
    promote(vec![
        (
            "reset",
            always(Fault::Break(Point::Receiving(0), Way::Reset)),
            End::Untouched(&[7]),
        ),
        ("busy for an hour", always(busy_for("3600")), End::Untouched(&[7])),
        ("unavailable", always(status(500)), End::Untouched(&[7])),
        // A registry whose bytes stay wrong may be broken, or it may be the way to it.
        ("wrong bytes", always(Fault::WrongBytes), End::Untouched(&[6, 7])),
        (
            "less announced than comes",
            always(Fault::Length(-1)),
            End::Untouched(&[6, 7]),
        ),
        (
            "absent",
            always(Fault::Answer(Canned::error(404, "BLOB_UNKNOWN"))),
            End::Untouched(&[5]),
        ),
        (
            "denied",
            always(Fault::Answer(Canned::error(403, "DENIED"))),
            End::Untouched(&[4]),
        ),
        (
            "no login that would do",
            always(Fault::Answer(
                Canned::error(401, "UNAUTHORIZED").with("www-authenticate", "Basic realm=\"x\""),
            )),
            End::Untouched(&[4]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_manifest_that_breaks_is_asked_for_again_and_a_wrong_one_refused() {
    promote(vec![
        ("busy", vec![once("GET", MANIFESTS, busy())], End::Complete),
        (
            "busy for a second",
            vec![once("GET", MANIFESTS, busy_for("1"))],
            End::Complete,
        ),
        (
            "unavailable",
            vec![once("GET", MANIFESTS, status(503))],
            End::Complete,
        ),
        (
            "reset before the answer",
            vec![once("GET", MANIFESTS, Fault::Break(Point::Answered, Way::Reset))],
            End::Complete,
        ),
        (
            "busy for an hour",
            vec![Rule::on("GET", MANIFESTS, busy_for("3600"))],
            End::Untouched(&[7]),
        ),
        (
            "wrong bytes",
            vec![Rule::on("GET", MANIFESTS, Fault::WrongBytes)],
            // Without a digest to hold it against, what came may only be malformed.
            End::Untouched(&[3, 6]),
        ),
        (
            "a short body",
            vec![Rule::on(
                "GET",
                MANIFESTS,
                Fault::Break(Point::Receiving(20), Way::Close),
            )],
            End::Untouched(&[7]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_blob_that_broke_off_goes_on_where_it_ended_if_its_registry_serves_parts() {
    let world = World::open().await;
    let target = world.registry("target", &[]).await;
    let layout = world.layout(&new());
    for source in each_kind(&world, "source").await {
        source.hold(&world, "app:1", &layout).await;
        let half = Point::Receiving(LAYER as u64 / 2);
        // In order, for a reset takes back what is under way.
        source.break_by(&[once("GET", BLOBS, Fault::Break(half, Way::Close))]);
        let repository = if source.is_docker() { "a" } else { "b" };
        let to = format!("{}/{repository}:1", target.host());
        world
            .promote(&[&source.reference("app:1"), &to])
            .await
            .succeeded();
        assert_holds(target.host(), None, repository, &new()).await;
        let exchanges = source.proxy.exchanges();
        let blobs = exchanges.iter().filter(|exchange| exchange.is("GET", BLOBS));
        let received: u64 = blobs.map(|exchange| exchange.received).sum();
        // Nothing comes twice.
        let (expected, config) = (LAYER as u64, 1000);
        assert!(
            (expected..expected + config).contains(&received),
            "{received} bytes: {exchanges:#?}"
        );
    }
}
