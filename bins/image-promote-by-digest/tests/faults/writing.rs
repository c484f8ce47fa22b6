//! What goes wrong while the target is written.

use towpath_sandbox::servers::{Canned, Fault, Point, Rule, Way};

use crate::behind::{Case, End, busy, busy_for, each_case, each_kind, once, status};
use crate::image::Image;
use crate::world::World;

const UPLOADS: &str = "/blobs/uploads/";
const MANIFESTS: &str = "/manifests/";
const TAG: &str = "/manifests/1";
const LAYER: usize = 700_000;

fn new() -> Image {
    let mut image = Image::of_three_platforms("new");
    let layer: Vec<u8> = (0..LAYER as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let index = image.manifests[&image.root].clone();
    let mut index: serde_json::Value = serde_json::from_slice(&index.1).unwrap();
    image.manifests.remove(&image.root.clone());
    let config = image.blob(crate::image::CONFIG, br#"{"architecture":"s390x","os":"linux"}"#);
    let layer = image.blob(crate::image::LAYER, &layer);
    let child = serde_json::json!({"config": config, "layers": [layer]});
    let child = image.manifest(crate::image::MANIFEST, &child);
    index["manifests"].as_array_mut().unwrap().push(child);
    image.manifest(
        crate::image::INDEX,
        &serde_json::json!({"manifests": index["manifests"]}),
    );
    image
}

/// Promotes an image to each kind of registry with these faults, each case into a repository of its own.
async fn promote(cases: Vec<Case>) {
    let world = World::open().await;
    let (old, new) = (Image::of_one_layer(b"the old layer"), new());
    let old_layout = world.layout(&old);
    let source = world.registry("staging", &[]).await;
    let reference = format!("{}/app:1", source.host());
    world
        .promote(&[&world.layout(&new), &reference])
        .await
        .succeeded();
    for target in &each_kind(&world, "target").await {
        each_case(&cases, async |number, (case, rules, end)| {
            let repository = format!("case-{number}");
            target.hold(&world, &format!("{repository}:1"), &old_layout).await;
            let target = target.again().await;
            target.break_by(rules);
            let to = target.reference(&repository);
            let run = world.promote(&["--move-tag-from", "any", &reference, &to]).await;
            target.assert_broke(case, rules);
            target.check(run, *end, &repository, &old, &new, case).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_upload_that_is_refused_or_breaks_once_is_made_again() {
    let half = Point::Sending(LAYER as u64 / 2);
    let put = |fault| vec![once("PUT", UPLOADS, fault)];
    let post = |fault| vec![once("POST", UPLOADS, fault)];
    // Only the large blob gets that far.
    let large = |point, way| vec![once("PUT", UPLOADS, Fault::Break(point, way))];
    promote(vec![
        ("busy when asked for an upload", post(busy()), End::Complete),
        (
            "unavailable when asked for an upload",
            post(status(503)),
            End::Complete,
        ),
        (
            "an upload whose place gets lost",
            post(Fault::Break(Point::Answered, Way::Reset)),
            End::Complete,
        ),
        ("busy", put(busy()), End::Complete),
        ("busy for a second", put(busy_for("1")), End::Complete),
        ("internal error", put(status(500)), End::Complete),
        ("unavailable", put(status(503)), End::Complete),
        (
            "reset before it begins",
            put(Fault::Break(Point::Sending(0), Way::Reset)),
            End::Complete,
        ),
        (
            "reset after some bytes",
            put(Fault::Break(Point::Sending(8), Way::Reset)),
            End::Complete,
        ),
        (
            "closed after some bytes",
            put(Fault::Break(Point::Sending(8), Way::Close)),
            End::Complete,
        ),
        ("reset in the middle", large(half, Way::Reset), End::Complete),
        ("closed in the middle", large(half, Way::Close), End::Complete),
        (
            "an answer that gets lost",
            put(Fault::Break(Point::Answered, Way::Reset)),
            End::Complete,
        ),
    ])
    .await;
}

#[tokio::test]
async fn manifests_and_tags_that_are_refused_once_are_written_again() {
    promote(vec![
        ("busy", vec![once("PUT", MANIFESTS, busy())], End::Complete),
        (
            "busy for a second",
            vec![once("PUT", MANIFESTS, busy_for("1"))],
            End::Complete,
        ),
        (
            "unavailable",
            vec![once("PUT", MANIFESTS, status(503))],
            End::Complete,
        ),
        (
            "reset before they are there",
            vec![once(
                "PUT",
                MANIFESTS,
                Fault::Break(Point::Sending(20), Way::Reset),
            )],
            End::Complete,
        ),
        (
            "an answer that gets lost, the tag's too",
            vec![once("PUT", MANIFESTS, Fault::Break(Point::Answered, Way::Reset))],
            End::Complete,
        ),
        (
            "a tag that cannot be looked at",
            vec![
                Rule::on("HEAD", TAG, status(503)).times(1),
                Rule::on("GET", TAG, status(503)).times(1),
            ],
            End::Complete,
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_refused_for_good_leaves_the_tag_alone() {
    let always = |method: &str, part: &str, fault| vec![Rule::on(method, part, fault)];
    let refusal = |status, code| Fault::Answer(Canned::error(status, code));
    promote(vec![
        (
            "busy for an hour",
            always("PUT", UPLOADS, busy_for("3600")),
            End::Untouched(&[7]),
        ),
        (
            "no upload at all",
            always("POST", UPLOADS, status(500)),
            End::Untouched(&[7]),
        ),
        (
            "reset",
            always("PUT", UPLOADS, Fault::Break(Point::Sending(0), Way::Reset)),
            End::Untouched(&[7]),
        ),
        (
            "denied",
            always("POST", UPLOADS, refusal(403, "DENIED")),
            End::Untouched(&[4]),
        ),
        (
            "manifests are denied",
            always("PUT", MANIFESTS, refusal(403, "DENIED")),
            End::Untouched(&[4]),
        ),
        (
            "manifests are broken",
            always("PUT", MANIFESTS, status(500)),
            End::Untouched(&[7]),
        ),
        (
            "the tag is immutable",
            always("PUT", TAG, refusal(400, "TAG_INVALID")),
            End::Untouched(&[6]),
        ),
        (
            "the tag cannot be written",
            always("PUT", TAG, status(503)),
            End::Untouched(&[7]),
        ),
    ])
    .await;
}
