//! Many images in one run: each target stands for itself, and a source is read once.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use towpath_sandbox::servers::{Exchange, Fault, Point, Proxy, Rule};

use crate::image::Image;
use crate::world::{PRODUCTION, STAGING, World, assert_holds, logged, tagged, written};

#[tokio::test]
async fn one_bad_edge_does_not_stop_the_others_and_the_first_failure_decides() {
    let world = World::open().await;
    let staging = world.registry("staging", &[STAGING]).await;
    let production = world.registry("production", &[PRODUCTION]).await;
    world.log_in(&[
        (staging.host(), STAGING.0, STAGING.1),
        (production.host(), PRODUCTION.0, PRODUCTION.1),
    ]);
    let (web, api) = (Image::of_three_platforms("web"), Image::of_one_layer(b"api"));
    let taken = Image::of_one_layer(b"taken");
    let (from, to) = (staging.host(), production.host());
    for (image, target) in [
        (&web, format!("{from}/dev/web:1")),
        (&api, format!("{from}/dev/api:1")),
        (&taken, format!("{to}/shop/web:stable")),
        (&taken, format!("{to}/shop/api:stable")),
    ] {
        world.promote(&[&world.layout(image), &target]).await.succeeded();
    }
    let taken_root = &taken.root;
    let batch = written(
        &world.path("release.batch"),
        &format!(
            "# the release\n\
             {from}/dev/web:1 {to}/shop/web {to}/mirror/web   # both\n\
             {from}/dev/web:1 {to}/shop/web:stable\n\
             {from}/dev/absent:1 {to}/shop/absent\n\
             \n\
             {from}/dev/api:1 {to}/shop/api {to}/shop/api:stable move-tag-from={taken_root}\n"
        ),
    );
    let by_digest = format!("GET /v2/dev/web/manifests/{} HTTP/1.1\" 200", web.root);
    let by_tag = "GET /v2/dev/web/manifests/1 HTTP/1.1\" 200";
    let reads = || logged(&staging, &by_digest) + logged(&staging, by_tag);
    let before = reads();
    let run = world
        .promote(&["--batch", &batch, "--journal", "journal.jsonl"])
        .await;
    // Line 3 comes before line 4, where the source is not there.
    let error = run.failed_with(6);
    assert!(error.contains("shop/web:stable"), "{error}");
    let targets = run.report["targets"].as_array().unwrap();
    let field = |name: &str| -> Vec<Value> { targets.iter().map(|target| target[name].clone()).collect() };
    assert_eq!(field("line"), [2, 2, 3, 4, 6, 6]);
    assert_eq!(field("changed"), [true, true, false, false, true, true]);
    assert_eq!(
        field("failure_kind"),
        [
            Value::Null,
            Value::Null,
            "conflict".into(),
            "not_found".into(),
            Value::Null,
            Value::Null
        ]
    );
    assert_eq!(targets[1]["mounted"], 13);
    assert_eq!(
        (&targets[5]["before"], &targets[5]["source"]),
        (&taken.root.clone().into(), &format!("{from}/dev/api:1").into())
    );
    assert_eq!(
        (&run.report["source"], &run.report["changed"]),
        (&Value::Null, &true.into())
    );
    // Three targets in two lines, and one reading.
    assert_eq!(reads() - before, 1);
    for (repository, image) in [("shop/web", &web), ("mirror/web", &web), ("shop/api", &api)] {
        assert_holds(to, Some(PRODUCTION), repository, image).await;
    }
    let named = async |repository, tag| tagged(to, Some(PRODUCTION), repository, tag).await;
    assert_eq!(named("shop/web", "stable").await.unwrap(), taken.root);
    assert_eq!(named("shop/api", "stable").await.unwrap(), api.root);
    assert_eq!(named("shop/api", "1").await.unwrap(), api.root);
    let journal = fs::read_to_string(world.path("journal.jsonl")).unwrap();
    assert_eq!(journal.lines().count(), 4);

    // Again: what failed fails, and nothing else has anything to do.
    let again = world.promote(&["--batch", &batch]).await;
    again.failed_with(6);
    assert_eq!(
        (&again.report["changed"], &again.report["bytes"]),
        (&false.into(), &0.into())
    );
    // All of it goes back by the one journal.
    let back = world.promote(&["rollback", "journal.jsonl"]).await.succeeded();
    assert_eq!(back["tags"].as_array().unwrap().len(), 4);
    assert_eq!(named("shop/api", "stable").await.unwrap(), taken.root);
}

#[tokio::test]
async fn a_batch_is_planned_and_read_from_standard_input() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let (one, two) = (Image::of_one_layer(b"1"), Image::of_one_layer(b"2"));
    let (host, folder) = (registry.host(), world.path("kept"));
    let batch = format!(
        "{} {host}/one:1\n{} {host}/two:1 oci:{}:two",
        world.layout(&one),
        world.layout(&two),
        folder.display()
    );
    let plan_file = written(&world.path("plan.batch"), &batch);
    let plan = world.promote(&["plan", "--batch", &plan_file]).await.succeeded();
    assert_eq!(
        (&plan["dry_run"], &plan["bytes"]),
        (&true.into(), &(one.bytes() + 2 * two.bytes()).into())
    );
    assert_eq!(tagged(host, None, "one", "1").await, None);
    assert!(!folder.exists());

    let mut command = world.command(&["--batch", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(batch.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_holds(host, None, "one", &one).await;
    assert_holds(host, None, "two", &two).await;
    let copied = world
        .promote(&[
            &format!("oci:{}:two", folder.display()),
            &format!("{host}/again:1"),
        ])
        .await
        .succeeded();
    assert_eq!(copied["digest"], two.root.as_str());
}

#[tokio::test]
async fn a_batch_with_a_mistake_is_refused_whole() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let host = registry.host();
    let good = format!("{} {host}/good:1\n", world.layout(&Image::of_one_layer(b"1")));
    for (text, named) in [
        (format!("{good}{host}/app:1\n"), "line 2: there is no TARGET"),
        (format!("{good}\n{host}/app {host}/other\n"), "line 3: "),
        (
            format!("{good}{host}/other:1 {host}/good:1\n"),
            "line 2 names the target",
        ),
        (
            format!("{good}{host}/other:1 {host}/other:2 move-tag-from=all\n"),
            "line 2: ",
        ),
        ("# nothing\n".to_owned(), "SOURCE"),
    ] {
        let batch = written(&world.path("wrong.batch"), &text);
        let error = world.promote(&["--batch", &batch]).await.failed_with(3);
        assert!(error.contains(named), "{error}");
        assert_eq!(tagged(host, None, "good", "1").await, None);
    }
    world.promote(&["--batch", "absent.batch"]).await.failed_with(5);
    let batch = written(&world.path("right.batch"), &good);
    for arguments in [
        &["--batch", &batch, "--handoff", "handoff.env"][..],
        &["--batch", &batch, "oci:x", "127.0.0.1:1/app"][..],
    ] {
        world.promote(arguments).await.failed_with(2);
    }
    assert_eq!(tagged(host, None, "good", "1").await, None);
}

#[tokio::test]
async fn what_cannot_even_be_opened_concerns_its_own_edge_alone() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let host = registry.host();
    let image = Image::of_one_layer(b"1");
    let layout = world.layout(&image);
    fs::create_dir(world.path("precious")).unwrap();
    fs::write(world.path("precious/file"), "kept").unwrap();
    let batch = written(
        &world.path("release.batch"),
        &format!("oci:absent {host}/absent:1\n{layout} oci:precious:1 {host}/app:1\n"),
    );
    let run = world.promote(&["--batch", &batch]).await;
    run.failed_with(5);
    let kinds: Vec<&Value> = (0..3)
        .map(|at| &run.report["targets"][at]["failure_kind"])
        .collect();
    assert_eq!(kinds, [&Value::from("not_found"), &"usage".into(), &Value::Null]);
    assert_holds(host, None, "app", &image).await;
    assert_eq!(fs::read_dir(world.path("precious")).unwrap().count(), 1);
}

#[tokio::test]
async fn one_token_serves_a_whole_batch() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let proxy = Proxy::start(registry.host()).await.unwrap();
    let host = proxy.host().to_owned();
    let mut batch = String::new();
    for name in ["web", "api", "db"] {
        let image = Image::of_one_layer(name.as_bytes());
        let source = format!("{}/dev/{name}:1", registry.host());
        world.promote(&[&world.layout(&image), &source]).await.succeeded();
        batch.push_str(&format!("{host}/dev/{name}:1 {host}/shop/{name}\n"));
    }
    let batch = written(&world.path("release.batch"), &batch);
    proxy.ask_for_tokens(u32::MAX);
    let report = world.promote(&["--batch", &batch]).await.succeeded();
    assert_eq!(report["targets"].as_array().unwrap().len(), 3);
    let asked: Vec<String> = proxy
        .exchanges()
        .into_iter()
        .map(|exchange| exchange.uri)
        .filter(|uri| uri.starts_with("/token"))
        .collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    for name in ["web", "api", "db"] {
        for scope in [
            format!("dev%2F{name}%3Apull"),
            format!("shop%2F{name}%3Apull%2Cpush"),
        ] {
            assert!(asked[0].contains(&scope), "{scope} is not in {}", asked[0]);
        }
    }
}

/// Sends SIGTERM and waits for the end.
async fn terminate(child: tokio::process::Child) -> std::process::Output {
    let id = child.id().unwrap().to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &id]).status();
    assert!(sent.unwrap().success());
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn a_signal_stops_what_is_under_way_and_the_next_run_finishes_it() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let proxy = Proxy::start(registry.host()).await.unwrap();
    let (held, other) = (Image::of_one_layer(b"held"), Image::of_three_platforms("other"));
    let to = proxy.host().to_owned();
    let batch = written(
        &world.path("release.batch"),
        &format!(
            "{} {to}/held:1\n{} {to}/other:1\n",
            world.layout(&held),
            world.layout(&other)
        ),
    );
    proxy.add(Rule::on(
        "PUT",
        "/v2/held/blobs/uploads/",
        Fault::Hold(Point::Arrival),
    ));
    let child = world
        .command(&["--batch", &batch, "--journal", "journal.jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let is_done = |seen: &Exchange| seen.is("HEAD", "/v2/other/manifests/1") && seen.status == Some(200);
    let reached = |seen: &[Exchange]| seen.iter().any(is_done) && seen.iter().any(|seen| seen.held);
    proxy.until(reached).await.unwrap();
    let output = terminate(child).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            &report["targets"][0]["failure_kind"],
            &report["targets"][1]["changed"]
        ),
        (&"deadline".into(), &true.into())
    );
    assert_eq!(tagged(registry.host(), None, "held", "1").await, None);
    assert_holds(registry.host(), None, "other", &other).await;
    let entries = || {
        let journal = fs::read_to_string(world.path("journal.jsonl")).unwrap();
        journal.lines().count()
    };
    assert_eq!(entries(), 1);

    proxy.clear();
    let report = world
        .promote(&["--batch", &batch, "--journal", "journal.jsonl"])
        .await
        .succeeded();
    assert_eq!(report["targets"][1]["changed"], false);
    assert_holds(registry.host(), None, "held", &held).await;
    assert_eq!(entries(), 2);
}

#[tokio::test]
async fn what_was_not_reached_when_a_batch_is_cut_short_is_in_its_report() {
    let world = World::open().await;
    let registry = world.registry("registry", &[]).await;
    let proxy = Proxy::start(registry.host()).await.unwrap();
    let layout = world.layout(&Image::of_one_layer(b"app"));
    let to = proxy.host().to_owned();
    let batch = written(
        &world.path("release.batch"),
        &format!("{layout} {to}/held:1\n{layout} {to}/app:1\noci:absent {to}/absent:1\n"),
    );
    for (subcommand, held) in [(None, "/v2/held/manifests/1"), (Some("plan"), "/v2/held/blobs/")] {
        proxy.clear();
        proxy.add(Rule::on("HEAD", held, Fault::Hold(Point::Arrival)));
        for ends_by_itself in [true, false] {
            let mut arguments = Vec::from_iter(subcommand);
            arguments.extend(["--batch", &batch]);
            if ends_by_itself {
                arguments.extend(["--timeout", "3s"]);
            }
            let before = proxy.exchanges().len();
            let child = world
                .command(&arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let output = if ends_by_itself {
                child.wait_with_output().await.unwrap()
            } else {
                let is_held = |seen: &[Exchange]| seen[before..].iter().any(|seen| seen.held);
                proxy.until(is_held).await.unwrap();
                terminate(child).await
            };
            let log = String::from_utf8_lossy(&output.stderr);
            let code = if ends_by_itself { 9 } else { 143 };
            assert_eq!(output.status.code(), Some(code), "{log}");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let targets = report["targets"].as_array().unwrap();
            let kinds: Vec<&Value> = targets.iter().map(|target| &target["failure_kind"]).collect();
            assert_eq!(
                (kinds.len(), kinds[0], kinds[2]),
                (3, &"deadline".into(), &"not_found".into()),
                "{log}"
            );
            assert_eq!(
                (&targets[0]["changed"], &report["changed"]),
                (&false.into(), &false.into())
            );
        }
    }
    for name in ["held", "app"] {
        assert_eq!(tagged(registry.host(), None, name, "1").await, None);
    }
}

#[tokio::test]
async fn a_signal_ends_the_wait_for_standard_input() {
    let world = World::open().await;
    let mut command = world.command(&["--batch", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Held open, and never written to its end: a pipe is read once what was written is gone from it.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'\n'; 2 * 64 * 1024]).await.unwrap();
    let output = terminate(child).await;
    assert_eq!(
        output.status.code(),
        Some(143),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    drop(stdin);
}
