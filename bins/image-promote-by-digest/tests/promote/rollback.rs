//! Tags go back to where they were, by the journal, and nothing that somebody else moved is touched.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};
use towpath::oci::Digest;
use towpath_sandbox::servers::{Fault, Point, Proxy, ReferrersRegistry, Registry, Rule};

use crate::image::Image;
use crate::world::{STAGING, World, assert_holds, tagged};

/// A repository with `stable` at the first of two images, both promoted under their own tags before.
struct Shop {
    world: World,
    registry: Registry,
    one: Image,
    two: Image,
}

impl Shop {
    async fn open() -> Self {
        let world = World::open().await;
        let registry = world.registry("registry", &[]).await;
        let (one, two) = (Image::of_three_platforms("1"), Image::of_one_layer(b"2"));
        let shop = Shop {
            world,
            registry,
            one,
            two,
        };
        for (image, tag) in [(&shop.one, "1"), (&shop.two, "2"), (&shop.one, "stable")] {
            let layout = shop.world.layout(image);
            shop.world.promote(&[&layout, &shop.named(tag)]).await.succeeded();
        }
        shop
    }

    fn named(&self, tag: &str) -> String {
        format!("{}/shop/app:{tag}", self.registry.host())
    }

    async fn tagged(&self, tag: &str) -> Option<String> {
        tagged(self.registry.host(), None, "shop/app", tag).await
    }

    /// Moves `stable` from the first image to the second, and makes the tag `new`, in one delivery.
    async fn release(&self) {
        let (two, stable, new) = (self.named("2"), self.named("stable"), self.named("new"));
        let arguments = [
            "--journal",
            "journal.jsonl",
            "--move-tag-from",
            &self.one.root,
            "--traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            &two,
            &stable,
            &new,
        ];
        self.world.promote(&arguments).await.succeeded();
        assert_eq!(self.tagged("stable").await.unwrap(), self.two.root);
    }

    fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.world.path("journal.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// The step that a report tells of a tag.
fn step<'r>(report: &'r Value, tag: &str) -> &'r Value {
    let tags = report["tags"].as_array().unwrap();
    tags.iter()
        .find(|one| one["reference"].as_str().unwrap().ends_with(&format!(":{tag}")))
        .unwrap_or_else(|| panic!("{tag} is not in {report}"))
}

#[tokio::test]
async fn a_moved_tag_goes_back_once_and_the_way_back_can_be_undone() {
    let shop = Shop::open().await;
    shop.release().await;

    let plan = shop
        .world
        .promote(&["rollback", "journal.jsonl", "--dry-run"])
        .await
        .succeeded();
    assert_eq!(
        (&plan["dry_run"], &plan["changed"], &step(&plan, "stable")["step"]),
        (&true.into(), &false.into(), &"put_back".into())
    );
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.two.root);

    // Into the same journal, as a job would that has TOWPATH_JOURNAL set.
    let roll_back = ["rollback", "journal.jsonl", "--journal", "journal.jsonl"];
    let report = shop.world.promote(&roll_back).await.succeeded();
    assert_eq!(report["schema"], "towpath.image-promote-by-digest/1");
    assert_eq!(report["changed"], true);
    let stable = step(&report, "stable");
    assert_eq!(
        (&stable["from"], &stable["to"], &stable["step"]),
        (
            &shop.two.root.clone().into(),
            &shop.one.root.clone().into(),
            &"put_back".into()
        )
    );
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.one.root);
    assert_holds(shop.registry.host(), None, "shop/app", &shop.one).await;
    // What was new stays, and the report says so.
    assert_eq!(step(&report, "new")["step"], "left");
    assert_eq!(shop.tagged("new").await.unwrap(), shop.two.root);

    // Again: the last delivery is still the promotion, which is undone already.
    let again = shop.world.promote(&roll_back).await.succeeded();
    assert_eq!(
        (&again["changed"], &step(&again, "stable")["step"]),
        (&false.into(), &"unchanged".into())
    );
    assert_eq!(shop.journal().len(), 3);

    // The rollback has an entry of its own, by which it is undone.
    let entry = &shop.journal()[2];
    assert_eq!(entry["undoes"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(
        (&entry["before"], &entry["after"]),
        (&shop.two.root.clone().into(), &shop.one.root.clone().into())
    );
    let trace_id = entry["trace_id"].as_str().unwrap();
    let undone = shop
        .world
        .promote(&["rollback", "journal.jsonl", "--trace-id", trace_id])
        .await
        .succeeded();
    assert_eq!(undone["tags"].as_array().unwrap().len(), 1);
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.two.root);
}

#[tokio::test]
async fn a_tag_that_somebody_else_moved_is_left_alone_and_the_others_go_back() {
    let shop = Shop::open().await;
    let other = Image::of_one_layer(b"other");
    shop.release().await;
    let also = shop.named("also");
    let layout = shop.world.layout(&shop.one);
    shop.world.promote(&[&layout, &also]).await.succeeded();
    let two = shop.named("2");
    let arguments = [
        "--journal",
        "journal.jsonl",
        "--move-tag-from",
        "any",
        "--traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        &two,
        &also,
    ];
    shop.world.promote(&arguments).await.succeeded();
    let stable = shop.named("stable");
    let layout = shop.world.layout(&other);
    shop.world
        .promote(&["--move-tag-from", "any", &layout, &stable])
        .await
        .succeeded();

    for arguments in [
        &["rollback", "journal.jsonl", "--dry-run"][..],
        &["rollback", "journal.jsonl"][..],
    ] {
        let run = shop.world.promote(arguments).await;
        let error = run.failed_with(6);
        for part in [stable.as_str(), &other.root, &shop.two.root] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(step(&run.report, "stable")["failure_kind"], "conflict");
        assert_eq!(step(&run.report, "also")["step"], "put_back");
        assert_eq!(shop.tagged("stable").await.unwrap(), other.root);
    }
    assert_eq!(shop.tagged("also").await.unwrap(), shop.one.root);
}

#[tokio::test]
async fn a_registry_that_cannot_delete_a_tag_alone_is_named_and_the_tag_stays() {
    let shop = Shop::open().await;
    shop.release().await;
    let run = shop
        .world
        .promote(&["rollback", "journal.jsonl", "--delete-new"])
        .await;
    let error = run.failed_with(4);
    assert!(error.contains("does not support deleting"), "{error}");
    assert!(error.contains(&shop.named("new")), "{error}");
    for (tag, image) in [("stable", &shop.one), ("new", &shop.two), ("2", &shop.two)] {
        assert_eq!(shop.tagged(tag).await.unwrap(), image.root, "{tag}");
    }
}

#[tokio::test]
async fn new_tags_are_deleted_where_that_is_asked_for_and_come_back_when_that_is_undone() {
    let world = World::open().await;
    let Some(registry) = ReferrersRegistry::start(&world.guardian, "registry")
        .await
        .unwrap()
    else {
        return;
    };
    let host = registry.host();
    let image = Image::of_one_layer(b"1");
    let (layout, new, kept) = (
        world.layout(&image),
        format!("{host}/app:new"),
        format!("{host}/app:kept"),
    );
    world.promote(&[&layout, &kept]).await.succeeded();
    world
        .promote(&["--journal", "journal.jsonl", &layout, &new])
        .await
        .succeeded();
    let named = async |tag| tagged(host, None, "app", tag).await;
    let delete = [
        "rollback",
        "journal.jsonl",
        "--delete-new",
        "--journal",
        "back.jsonl",
    ];
    let report = world.promote(&delete).await.succeeded();
    assert_eq!(step(&report, "new")["step"], "deleted");
    assert_eq!(named("new").await, None);
    // What else names that image is not touched.
    assert_eq!(named("kept").await.unwrap(), image.root);
    let again = world.promote(&delete).await.succeeded();
    assert_eq!(step(&again, "new")["step"], "unchanged");

    world
        .promote(&["rollback", "back.jsonl", "--all"])
        .await
        .succeeded();
    assert_eq!(named("new").await.unwrap(), image.root);
}

#[tokio::test]
async fn lines_of_killed_runs_are_no_hindrance() {
    let shop = Shop::open().await;
    let entry = |tag: &str, before: &str, after: &str| {
        let entry = json!({
            "schema": "towpath.promotion-journal/1", "at": "2026-03-01T09:30:00Z", "trace_id": "killed",
            "repository": format!("{}/shop/app", shop.registry.host()), "tag": tag, "before": before, "after": after,
        });
        format!("{entry}\n")
    };
    // The move never came about: stable still names the first image. The next line was never written to its end.
    let whole = entry("stable", &shop.one.root, &shop.two.root);
    let torn = &entry("1", &shop.one.root, &shop.two.root)[..150];
    fs::write(shop.world.path("journal.jsonl"), format!("{whole}{torn}")).unwrap();
    let run = shop.world.promote(&["rollback", "journal.jsonl"]).await;
    assert!(
        run.log.contains("line 2 of journal.jsonl breaks off"),
        "{}",
        run.log
    );
    let report = run.succeeded();
    assert_eq!(
        (&report["changed"], &report["torn_line"]),
        (&false.into(), &2.into())
    );
    assert_eq!(step(&report, "stable")["step"], "unchanged");
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.one.root);

    // Finished by the next run, which goes on with the same journal.
    shop.release().await;
    assert_eq!(shop.journal().len(), 3);
    let report = shop
        .world
        .promote(&["rollback", "journal.jsonl", "--all"])
        .await
        .succeeded();
    assert_eq!(step(&report, "stable")["step"], "put_back");
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.one.root);
}

#[tokio::test]
async fn a_killed_rollback_is_finished_by_the_next() {
    let shop = Shop::open().await;
    shop.release().await;
    // The journal names the registry; the same lines name a proxy before it here.
    let proxy = Proxy::start(shop.registry.host()).await.unwrap();
    let journal = fs::read_to_string(shop.world.path("journal.jsonl")).unwrap();
    let journal = journal.replace(shop.registry.host(), proxy.host());
    fs::write(shop.world.path("journal.jsonl"), journal).unwrap();
    proxy.add(Rule::on("PUT", "/manifests/stable", Fault::Hold(Point::Arrival)));
    let arguments = ["rollback", "journal.jsonl", "--journal", "journal.jsonl"];
    let mut run = shop
        .world
        .command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    proxy
        .until(|seen| seen.iter().any(|seen| seen.held))
        .await
        .unwrap();
    // This is SIGKILL.
    run.kill().await.unwrap();
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.two.root);
    proxy.clear();
    let report = shop.world.promote(&arguments).await.succeeded();
    assert_eq!(step(&report, "stable")["step"], "put_back");
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.one.root);
    assert_eq!(shop.world.promote(&arguments).await.succeeded()["changed"], false);
}

#[tokio::test]
async fn what_was_cleared_away_is_named_and_the_tag_stays() {
    let shop = Shop::open().await;
    let gone = Digest::of(b"gone").to_string();
    let entry = json!({
        "schema": "towpath.promotion-journal/1", "at": "2026-03-01T09:30:00Z", "trace_id": "one",
        "repository": format!("{}/shop/app", shop.registry.host()), "tag": "stable",
        "before": gone, "after": shop.one.root,
    });
    fs::write(shop.world.path("journal.jsonl"), format!("{entry}\n")).unwrap();
    let error = shop
        .world
        .promote(&["rollback", "journal.jsonl"])
        .await
        .failed_with(5);
    assert!(error.contains(&gone), "{error}");
    assert_eq!(shop.tagged("stable").await.unwrap(), shop.one.root);
}

#[tokio::test]
async fn journals_that_are_none_or_not_there_are_named() {
    let world = World::open().await;
    let path = world.path("journal.jsonl");
    for (text, arguments, code, named) in [
        (None, &["rollback", "journal.jsonl"][..], 5, "journal.jsonl"),
        (Some(""), &["rollback", "journal.jsonl"], 5, "no entry"),
        (Some("precious\n"), &["rollback", "journal.jsonl"], 3, "line 1"),
        (
            Some("precious\n"),
            &["--journal", "journal.jsonl", "oci:absent", "127.0.0.1:1/app:1"],
            5,
            "absent",
        ),
    ] {
        let _ = fs::remove_file(&path);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let error = world.promote(arguments).await.failed_with(code);
        assert!(error.contains(named), "{error}");
        if let Some(text) = text {
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_not_added_to_and_nothing_is_promoted() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let layout = world.layout(&Image::of_one_layer(b"1"));
    let target = format!("{}/app:1", registry.host());
    fs::write(world.path("notes.txt"), "precious\n").unwrap();
    let error = world
        .promote(&["--journal", "notes.txt", &layout, &target])
        .await
        .failed_with(2);
    assert!(error.contains("notes.txt is no journal"), "{error}");
    assert_eq!(fs::read_to_string(world.path("notes.txt")).unwrap(), "precious\n");
    assert_eq!(tagged(registry.host(), None, "app", "1").await, None);
}

#[tokio::test]
async fn variables_for_a_promotion_do_not_get_in_the_way_of_a_rollback() {
    let world = World::open().await;
    let registry = world.registry("registry", &[STAGING]).await;
    world.log_in(&[(registry.host(), STAGING.0, STAGING.1)]);
    let (one, two) = (Image::of_one_layer(b"1"), Image::of_one_layer(b"2"));
    let target = format!("{}/app:stable", registry.host());
    world.promote(&[&world.layout(&one), &target]).await.succeeded();
    let job = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command
            .env("TOWPATH_SOURCE", world.layout(&two))
            .env("TOWPATH_TARGET", &target)
            .env("TOWPATH_MOVE_TAG_FROM", &one.root)
            .env("TOWPATH_JOURNAL", "journal.jsonl")
            .env("TOWPATH_HANDOFF", "handoff.env");
        command
    };
    world.run(job(&[])).await.succeeded();
    let named = async || {
        tagged(registry.host(), Some(STAGING), "app", "stable")
            .await
            .unwrap()
    };
    assert_eq!(named().await, two.root);
    world.run(job(&["rollback", "journal.jsonl"])).await.succeeded();
    assert_eq!(named().await, one.root);
    // Not even when they are no references at all, as a pipeline's may be.
    let mut command = job(&["rollback", "journal.jsonl"]);
    command
        .env("TOWPATH_SOURCE", "$IMAGE_REF")
        .env("TOWPATH_TARGET", "");
    world.run(command).await.succeeded();
    // The other way round, what a rollback does not take is not passed over.
    let output = job(&["--move-tag-from", "any", "rollback", "journal.jsonl"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(
        complaint.contains("--move-tag-from stands before rollback"),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_journal_that_is_a_pipe_is_refused_instead_of_waited_for() {
    let world = World::open().await;
    let pipe = world.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let layout = world.layout(&Image::of_one_layer(b"app"));
    for arguments in [
        &["--journal", "pipe", &layout, "oci:kept"][..],
        &["rollback", "pipe"],
    ] {
        let error = world.promote(arguments).await.failed_with(2);
        assert!(
            error.contains("journal pipe") && error.contains("regular file"),
            "{error}"
        );
    }
    assert!(!world.path("kept").exists());
}
