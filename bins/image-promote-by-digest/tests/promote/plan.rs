//! `plan` says what would happen, as `--dry-run` does, and does nothing.

use crate::image::Image;
use crate::world::{World, logged, open_uploads, tagged};

#[tokio::test]
async fn a_plan_tells_bytes_and_tags_and_what_comes_after_does_just_that() {
    let world = World::open().await;
    let staging = world.registry("staging", &[]).await;
    let production = world.registry("production", &[]).await;
    let (old, new) = (Image::of_three_platforms("1"), Image::of_three_platforms("2"));
    let source = format!("{}/dev/app:2", staging.host());
    let stable = format!("{}/shop/app:stable", production.host());
    let within = format!("{}/shop/app:2", staging.host());
    world.promote(&[&world.layout(&new), &source]).await.succeeded();
    world.promote(&[&world.layout(&old), &stable]).await.succeeded();
    let arguments = ["--move-tag-from", &old.root, &source, &stable, &within];

    let writes = || {
        let methods = ["\"PUT ", "\"POST ", "\"PATCH ", "\"DELETE "];
        methods.map(|method| logged(&staging, method) + logged(&production, method))
    };
    let before = writes();
    let plan = world
        .promote(&[&["plan"][..], &arguments].concat())
        .await
        .succeeded();
    let dry_run = world
        .promote(&[&["--dry-run"][..], &arguments].concat())
        .await
        .succeeded();
    assert_eq!(plan["targets"], dry_run["targets"]);
    assert_eq!(
        (&plan["dry_run"], &plan["changed"], &plan["bytes_per_second"]),
        (&true.into(), &false.into(), &0.into())
    );
    let (across, mounted) = (&plan["targets"][0], &plan["targets"][1]);
    assert_eq!(
        (&across["copied"], &across["skipped"], &across["before"]),
        (&12.into(), &1.into(), &old.root.clone().into())
    );
    assert_eq!(
        across["bytes"].as_u64().unwrap() + across["skipped_bytes"].as_u64().unwrap(),
        new.bytes()
    );
    assert_eq!(
        (&mounted["mounted"], &mounted["mounted_bytes"]),
        (&13.into(), &new.bytes().into())
    );
    // Nothing was written anywhere.
    assert_eq!(writes(), before);
    assert_eq!(
        tagged(production.host(), None, "shop/app", "stable").await,
        Some(old.root.clone())
    );
    assert_eq!(open_uploads(&production, "shop/app"), 0);

    // For people.
    let mut command = world.command(&[&["plan", "--output", "text"][..], &arguments].concat());
    let text = String::from_utf8(command.output().await.unwrap().stdout).unwrap();
    for part in [
        format!("{source} is {}", new.root),
        format!("tag would be moved from {}", old.root),
        "12 copied".to_owned(),
        "to send".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }

    let report = world.promote(&arguments).await.succeeded();
    for target in 0..2 {
        for field in [
            "copied",
            "mounted",
            "skipped",
            "bytes",
            "mounted_bytes",
            "before",
            "changed",
        ] {
            assert_eq!(
                report["targets"][target][field], plan["targets"][target][field],
                "{target} {field}"
            );
        }
    }
    let again = world
        .promote(&[&["plan"][..], &arguments].concat())
        .await
        .succeeded();
    assert_eq!(
        (&again["targets"][0]["changed"], &again["targets"][0]["bytes"]),
        (&false.into(), &0.into())
    );
}

#[tokio::test]
async fn a_guard_refuses_the_plan_already() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let target = format!("{}/app:1", registry.host());
    let (one, two) = (Image::of_one_layer(b"1"), Image::of_one_layer(b"2"));
    world.promote(&[&world.layout(&one), &target]).await.succeeded();
    let error = world
        .promote(&["plan", &world.layout(&two), &target])
        .await
        .failed_with(6);
    assert!(error.contains(&one.root), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_variable() {
    let world = World::open().await;
    for arguments in [&["plan"][..], &[]] {
        let output = world.command(arguments).output().await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        for part in ["TOWPATH_SOURCE", "TOWPATH_TARGET"] {
            assert!(complaint.contains(part), "{complaint}");
        }
    }
}
