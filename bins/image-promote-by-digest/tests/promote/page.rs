//! The samples on the tool's page have the fields that the tool writes.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::image::Image;
use crate::world::World;

const PAGE: &str = include_str!("../../README.md");

/// The JSON sample on the page with this in it.
fn sample(mark: &str) -> Value {
    let samples = PAGE.split("```json\n").skip(1);
    let text = samples
        .filter_map(|rest| rest.split("```").next())
        .find(|text| text.contains(mark))
        .unwrap_or_else(|| panic!("no sample has {mark}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn fields(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_samples_have_the_fields_of_the_real_ones() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let (one, two) = (Image::of_one_layer(b"1"), Image::of_one_layer(b"2"));
    let target = format!("{}/app:stable", registry.host());
    world.promote(&[&world.layout(&one), &target]).await.succeeded();
    let arguments = [
        "--move-tag-from",
        "any",
        "--journal",
        "journal.jsonl",
        &world.layout(&two),
        &target,
    ];
    let report = world.promote(&arguments).await.succeeded();
    let shown = sample("\"targets\"");
    assert_eq!(fields(&shown), fields(&report));
    assert_eq!(fields(&shown["targets"][0]), fields(&report["targets"][0]));

    let entry: Value =
        serde_json::from_str(&fs::read_to_string(world.path("journal.jsonl")).unwrap()).unwrap();
    assert_eq!(fields(&sample("towpath.promotion-journal/1")), fields(&entry));

    let report = world.promote(&["rollback", "journal.jsonl"]).await.succeeded();
    let shown = sample("\"torn_line\"");
    assert_eq!(fields(&shown), fields(&report));
    assert_eq!(fields(&shown["tags"][0]), fields(&report["tags"][0]));
}
