//! What each state means: the recorded ones, and those that differ from them by what matters.

use std::time::Duration;

use serde_json::{Value, json};
use towpath::argocd::application::Application;
use towpath::argocd::{Rendered, Runs, SyncWindow, SyncWindows};

use super::*;

mod retries;
mod sources;

const OLD: &str = "a2c7c195a305f2b35f7b4b6e87bb85efe5cfd9d6";
const OURS: &str = "267e85da53a9edf6a2d5c03079f020a21e7eea61";
const LATER: &str = "f016fa7b4f92db6e21f3eefd6d1a08bae1295c51";

fn image(digit: char) -> String {
    format!(
        "registry.example.com/web@sha256:{}",
        String::from(digit).repeat(64)
    )
}

fn wanted(revision: &str, digit: char) -> Wanted {
    Wanted {
        revision: revision.to_owned(),
        images: vec![image(digit).parse().unwrap()],
        repository: None,
        may_sync: false,
        degraded_for: Duration::from_secs(10),
        healthy_within: Duration::from_secs(600),
    }
}

fn recorded(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded");
    #[expect(clippy::disallowed_methods, reason = "a test reads its own data")]
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn application(value: Value) -> Application {
    serde_json::from_value(value).unwrap()
}

fn fresh() -> Known {
    Known {
        is_fresh: true,
        ..Known::default()
    }
}

fn rendered(images: &[(&str, Runs)]) -> Option<Option<Rendered>> {
    let images = images.iter().map(|(image, runs)| ((*image).to_owned(), *runs));
    Some(Some(Rendered {
        images: images.collect(),
    }))
}

/// A recorded answer with some of its fields set otherwise; null takes one out.
fn changed(name: &str, changes: &[(&str, Value)]) -> Application {
    let mut value = recorded(name);
    for (pointer, new) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
        if new.is_null() {
            parent.as_object_mut().unwrap().remove(field);
        } else {
            parent[field] = new.clone();
        }
    }
    application(value)
}

/// Whether a step is the one that is expected.
type Fits = Box<dyn Fn(&Step) -> bool>;

#[test]
fn every_recorded_answer_has_its_verdict() {
    let both = Waiting::Unwell("Progressing".to_owned());
    let comparison = |step: &Step| {
        matches!(step, Step::Fail(Trouble::Comparison { kind, text })
            if kind == "ComparisonError" && text.contains("no such file or directory"))
    };
    let is = |expected: Step| move |step: &Step| *step == expected;
    let out_of_sync = Waiting::OutOfSync(vec!["Deployment web".to_owned()]);
    let cases: [(&str, &str, char, Fits); 10] = [
        ("deploy-1", OURS, 'd', Box::new(is(Step::Wait(Waiting::Syncing)))),
        // Succeeded and Healthy at our commit, and nothing of it runs.
        ("deploy-2", OURS, 'd', Box::new(is(Step::Wait(out_of_sync)))),
        ("deploy-3", OURS, 'd', Box::new(is(Step::Wait(both.clone())))),
        ("deploy-4", OURS, 'd', Box::new(is(Step::Wait(both)))),
        ("deploy-5", OURS, 'd', Box::new(is(Step::Ready(Proof::Pods)))),
        // What the last operation was for does not matter where the commit changes no manifest.
        ("mended-1", LATER, 'd', Box::new(is(Step::Ready(Proof::Pods)))),
        ("broken-1", LATER, 'd', Box::new(comparison)),
        // Another image was wanted than the one that the commit sets.
        (
            "deploy-5",
            OURS,
            'e',
            Box::new(is(Step::Ask(Question::Manifests(OURS.to_owned())))),
        ),
        // Ours is not the commit that Argo CD sees.
        (
            "deploy-5",
            LATER,
            'd',
            Box::new(is(Step::Ask(Question::Relation(OURS.to_owned())))),
        ),
        (
            "mended-1",
            OURS,
            'd',
            Box::new(is(Step::Ask(Question::Relation(LATER.to_owned())))),
        ),
    ];
    for (name, revision, digit, fits) in cases {
        let step = decide(&application(recorded(name)), &wanted(revision, digit), &fresh());
        assert!(fits(&step), "{name} for {revision} and {digit}: {step:?}");
    }
}

#[test]
fn what_was_broken_before_our_commit_says_nothing_about_it() {
    let broken = application(recorded("broken-1"));
    let step = decide(&broken, &wanted(LATER, 'd'), &Known::default());
    assert_eq!(step, Step::Wait(Waiting::AtUnknown("main".to_owned())));
    let before = application(recorded("deploy-5"));
    let step = decide(&before, &wanted(LATER, 'd'), &Known::default());
    assert_eq!(step, Step::Wait(Waiting::NotCompared));
}

#[test]
fn another_commit_is_older_newer_or_nobody_knows() {
    let at_later = application(recorded("mended-1"));
    let with = |relation, rendered| Known {
        relation: Some(relation),
        rendered,
        ..fresh()
    };
    let decide = |known| decide(&at_later, &wanted(OURS, 'd'), &known);
    assert_eq!(
        decide(with(Relation::Before, None)),
        Step::Wait(Waiting::AtOlder(LATER.to_owned()))
    );
    assert_eq!(
        decide(with(Relation::Unknown, None)),
        Step::Wait(Waiting::AtUnknown(LATER.to_owned()))
    );
    assert_eq!(
        decide(with(Relation::After, None)),
        Step::Ask(Question::Manifests(LATER.to_owned()))
    );
    // One that carries our image is as good as ours.
    assert_eq!(
        decide(with(Relation::After, rendered(&[(&image('d'), Runs::Always)]))),
        Step::Ready(Proof::Pods)
    );
    assert_eq!(
        decide(with(Relation::After, rendered(&[(&image('e'), Runs::Always)]))),
        Step::Fail(Trouble::Superseded {
            by: LATER.to_owned(),
            image: Some(image('e'))
        })
    );
    assert_eq!(
        decide(with(Relation::After, rendered(&[]))),
        Step::Fail(Trouble::Superseded {
            by: LATER.to_owned(),
            image: None
        })
    );
    // Nobody can render it, but it is synced and what exists has our image.
    assert_eq!(
        decide(with(Relation::After, Some(None))),
        Step::Ready(Proof::Pods)
    );
}

#[test]
fn a_newer_commit_that_nobody_renders_is_told_by_what_it_applied() {
    let applied = |digit| {
        changed(
            "deploy-2",
            &[(
                "/status/operationState/syncResult/resources/0/images",
                json!([image(digit)]),
            )],
        )
    };
    let known = Known {
        relation: Some(Relation::After),
        rendered: Some(None),
        ..fresh()
    };
    let superseded = decide(&applied('e'), &wanted(OLD, 'd'), &known);
    assert!(
        matches!(&superseded, Step::Fail(Trouble::Superseded { image: Some(found), .. }) if *found == image('e')),
        "{superseded:?}"
    );
    let carried = decide(&applied('d'), &wanted(OLD, 'd'), &known);
    assert!(
        matches!(carried, Step::Wait(Waiting::OutOfSync(_))),
        "{carried:?}"
    );
    let nothing_yet = changed("deploy-1", &[("/status/operationState/syncResult", Value::Null)]);
    assert_eq!(
        decide(&nothing_yet, &wanted(OLD, 'd'), &known),
        Step::Wait(Waiting::Syncing)
    );
}

#[test]
fn a_sync_that_ends_badly_names_its_resources() {
    for phase in ["Failed", "Error"] {
        let failed = changed(
            "deploy-2",
            &[
                ("/status/operationState/phase", json!(phase)),
                (
                    "/status/operationState/message",
                    json!("one or more objects failed to apply"),
                ),
                (
                    "/status/operationState/syncResult/resources/0/status",
                    json!("SyncFailed"),
                ),
                (
                    "/status/operationState/syncResult/resources/0/message",
                    json!("spec is immutable"),
                ),
            ],
        );
        match decide(&failed, &wanted(OURS, 'd'), &fresh()) {
            Step::Fail(Trouble::SyncFailed { text, resources }) => {
                assert_eq!(text, "one or more objects failed to apply");
                assert_eq!(resources[0].message, "spec is immutable");
            }
            other => panic!("{other:?}"),
        }
        // The failure of an earlier commit is none of ours.
        let earlier = changed("mended-1", &[("/status/operationState/phase", json!(phase))]);
        assert_eq!(
            decide(&earlier, &wanted(LATER, 'd'), &fresh()),
            Step::Ready(Proof::Pods)
        );
    }
}

/// Compared to our commit, different from it, and nothing has begun.
fn idle(changes: &[(&str, Value)]) -> Application {
    let mut all = vec![
        ("/status/operationState/operation/sync/revision", json!(OLD)),
        ("/status/operationState/syncResult/revision", json!(OLD)),
    ];
    all.extend_from_slice(changes);
    changed("deploy-2", &all)
}

#[test]
fn what_does_not_sync_by_itself_needs_somebody() {
    let off: [&[(&str, Value)]; 3] = [
        &[("/spec/syncPolicy", Value::Null)],
        &[("/spec/syncPolicy/automated", Value::Null)],
        &[("/spec/syncPolicy/automated/enabled", json!(false))],
    ];
    for changes in off {
        let application = idle(changes);
        assert_eq!(
            decide(&application, &wanted(OURS, 'd'), &fresh()),
            Step::Fail(Trouble::AutoSyncOff)
        );
        let may_sync = Wanted {
            may_sync: true,
            ..wanted(OURS, 'd')
        };
        assert_eq!(decide(&application, &may_sync, &fresh()), Step::Sync);
        let started = Known {
            sync_started: true,
            ..fresh()
        };
        assert_eq!(
            decide(&application, &may_sync, &started),
            Step::Wait(Waiting::Syncing)
        );
    }
    // Somebody synced it by hand meanwhile.
    let by_hand = changed("deploy-1", &[("/spec/syncPolicy", Value::Null)]);
    assert_eq!(
        decide(&by_hand, &wanted(OURS, 'd'), &fresh()),
        Step::Wait(Waiting::Syncing)
    );
}

#[test]
fn a_window_that_begins_stops_what_has_begun() {
    const BLOCKED: &str = "c055fff43d8b31a71d5da8915cf59c69e402f9d8";
    let automated = recorded("blocked-1");
    let mut by_hand = automated.clone();
    by_hand["status"]["operationState"]["operation"]["initiatedBy"] = json!({"username": "ada"});
    let mut applied = automated.clone();
    applied["status"]["operationState"]["syncResult"]["resources"] =
        json!([{"kind": "Deployment", "name": "other"}]);
    let deny = SyncWindow {
        kind: "deny".to_owned(),
        ..SyncWindow::default()
    };
    let windows = |can_sync| SyncWindows {
        active_windows: vec![deny.clone()],
        can_sync,
        ..SyncWindows::default()
    };
    let stopped = Step::Fail(Trouble::Window(deny.clone()));
    let syncing = Step::Wait(Waiting::Syncing);
    for (state, windows, expected) in [
        (&automated, None, &Step::Ask(Question::Windows)),
        (&automated, Some(None), &syncing),
        (&automated, Some(Some(SyncWindows::default())), &syncing),
        (&automated, Some(Some(windows(true))), &stopped),
        // Where a sync by hand is let through, one that was begun by hand goes on.
        (&by_hand, Some(Some(windows(true))), &syncing),
        (&by_hand, Some(Some(windows(false))), &stopped),
        // What has applied something is at work.
        (&applied, None, &syncing),
    ] {
        let known = Known {
            idle: BEFORE_WINDOWS,
            windows,
            ..fresh()
        };
        let found = decide(&application(state.clone()), &wanted(BLOCKED, 'c'), &known);
        assert_eq!(found, *expected);
    }
}

#[test]
fn windows_are_looked_at_when_nothing_happens() {
    let application = idle(&[]);
    let out_of_sync = Step::Wait(Waiting::OutOfSync(vec!["Deployment web".to_owned()]));
    let decide = |known: &Known| decide(&application, &wanted(OURS, 'd'), known);
    assert_eq!(decide(&fresh()), out_of_sync);
    let quiet = Known {
        idle: BEFORE_WINDOWS,
        ..fresh()
    };
    assert_eq!(decide(&quiet), Step::Ask(Question::Windows));
    let with = |windows| Known {
        windows: Some(windows),
        ..quiet.clone()
    };
    assert_eq!(decide(&with(None)), out_of_sync);
    assert_eq!(decide(&with(Some(SyncWindows::default()))), out_of_sync);
    let deny = SyncWindow {
        kind: "deny".to_owned(),
        schedule: "* * * * *".to_owned(),
        duration: "1h".to_owned(),
    };
    let windows = SyncWindows {
        active_windows: vec![deny.clone()],
        ..SyncWindows::default()
    };
    assert_eq!(decide(&with(Some(windows))), Step::Fail(Trouble::Window(deny)));
    let refused = idle(&[(
        "/status/conditions",
        json!([{"type": "SyncError", "message": "auto-sync will wipe out"}]),
    )]);
    let step = super::decide(&refused, &wanted(OURS, 'd'), &fresh());
    assert!(
        matches!(step, Step::Fail(Trouble::SyncRefused { .. })),
        "{step:?}"
    );
}

#[test]
fn what_is_unwell_has_its_time() {
    let well = |status: &str| changed("deploy-5", &[("/status/health/status", json!(status))]);
    let lasting = |degraded, synced| Known {
        degraded: Duration::from_secs(degraded),
        synced: Duration::from_secs(synced),
        ..fresh()
    };
    let decide = |status: &str, known: &Known| decide(&well(status), &wanted(OURS, 'd'), known);
    let unwell = |status: &str| Step::Wait(Waiting::Unwell(status.to_owned()));
    assert_eq!(decide("Degraded", &lasting(9, 9)), unwell("Degraded"));
    assert_eq!(
        decide("Degraded", &lasting(10, 10)),
        Step::Fail(Trouble::Degraded)
    );
    for status in ["Progressing", "Missing", "Unknown"] {
        assert_eq!(decide(status, &lasting(0, 599)), unwell(status));
        let expected = Trouble::NotHealthy {
            status: status.to_owned(),
        };
        assert_eq!(decide(status, &lasting(0, 600)), Step::Fail(expected));
    }
    // A person paused it.
    assert_eq!(decide("Suspended", &lasting(0, 6000)), unwell("Suspended"));
    let running = changed("deploy-5", &[("/operation", json!({"sync": {}}))]);
    assert_eq!(
        super::decide(&running, &wanted(OURS, 'd'), &fresh()),
        Step::Wait(Waiting::Syncing)
    );
}

#[test]
fn the_images_of_the_pods_have_to_be_those() {
    let seen = |images: &[String]| changed("deploy-5", &[("/status/summary/images", json!(images))]);
    let with = |rendered| Known { rendered, ..fresh() };
    let decide = |images: &[String], known: &Known| decide(&seen(images), &wanted(OURS, 'd'), known);
    let (old, new, other) = (image('c'), image('d'), "registry.example.com/other:1".to_owned());
    let tagged = new.replace("web@", "web:1.5.0@");
    let always = |image: &str| rendered(&[(image, Runs::Always)]);
    let ask = Step::Ask(Question::Manifests(OURS.to_owned()));
    assert_eq!(
        decide(&[tagged, other.clone()], &fresh()),
        Step::Ready(Proof::Pods)
    );
    // Synced and Healthy with the pods of before: seen on a real one.
    let both = [old.clone(), new.clone()];
    assert_eq!(decide(&both, &fresh()), ask);
    assert_eq!(
        decide(&both, &with(always(&new))),
        Step::Wait(Waiting::OldRuns(old.clone()))
    );
    let late = Known {
        synced: Duration::from_secs(600),
        ..with(always(&new))
    };
    assert!(matches!(
        decide(&both, &late),
        Step::Fail(Trouble::NotHealthy { .. })
    ));
    // A second workload stays at another version on purpose.
    let two = rendered(&[(&new, Runs::Always), (&old, Runs::Always)]);
    assert_eq!(decide(&both, &with(two)), Step::Ready(Proof::Pods));
    let only_old = std::slice::from_ref(&old);
    assert_eq!(decide(only_old, &fresh()), ask);
    assert_eq!(
        decide(only_old, &with(always(&new))),
        Step::Wait(Waiting::NotSeen(new.clone()))
    );
    assert_eq!(
        decide(only_old, &with(always(&old))),
        Step::Fail(Trouble::NotInManifests {
            image: new.clone(),
            instead: Some(old.clone())
        })
    );
    // Jobs and what is scaled to nothing have no pods, or those of before.
    for images in [&[][..], only_old, std::slice::from_ref(&other)] {
        let now_and_then = rendered(&[(&new, Runs::NowAndThen)]);
        assert_eq!(decide(images, &with(now_and_then)), Step::Ready(Proof::Manifests));
    }
}

#[test]
fn where_nobody_renders_what_was_applied_tells() {
    let with = |kind: &str, digit: char| {
        changed(
            "deploy-5",
            &[
                ("/status/summary/images", json!([])),
                ("/status/operationState/syncResult/resources/0/kind", json!(kind)),
                (
                    "/status/operationState/syncResult/resources/0/images",
                    json!([image(digit)]),
                ),
            ],
        )
    };
    let known = Known {
        rendered: Some(None),
        ..fresh()
    };
    let decide = |application: &Application| decide(application, &wanted(OURS, 'd'), &known);
    assert_eq!(decide(&with("CronJob", 'd')), Step::Ready(Proof::Manifests));
    assert_eq!(
        decide(&with("Deployment", 'd')),
        Step::Wait(Waiting::NotSeen(image('d')))
    );
    let step = decide(&with("Deployment", 'c'));
    assert!(
        matches!(step, Step::Fail(Trouble::NotInManifests { .. })),
        "{step:?}"
    );
}

#[test]
fn an_application_that_is_going_is_gone() {
    let going = changed(
        "deploy-5",
        &[("/metadata/deletionTimestamp", json!("2026-11-21T10:03:29Z"))],
    );
    assert_eq!(
        decide(&going, &wanted(OURS, 'd'), &fresh()),
        Step::Fail(Trouble::Deleted)
    );
}

#[test]
fn among_several_sources_ours_is_found() {
    let several = |revisions: [&str; 2]| {
        changed(
            "deploy-5",
            &[
                (
                    "/spec/sources",
                    json!([{"repoURL": "https://charts.example.com"}, {"repoURL": "git@gitlab.example.com:shop/env.git"}]),
                ),
                ("/status/sync/revisions", json!(revisions)),
            ],
        )
    };
    let mut wanted = wanted(OURS, 'd');
    let ours = several(["1.2.3", OURS]);
    assert_eq!(decide(&ours, &wanted, &fresh()), Step::Ready(Proof::Pods));
    let other = several(["1.2.3", OLD]);
    assert_eq!(
        decide(&other, &wanted, &fresh()),
        Step::Wait(Waiting::AtUnknown("1.2.3".to_owned()))
    );
    wanted.repository = Some("https://job@gitlab.example.com:8443/Shop/env".to_owned());
    assert_eq!(
        decide(&other, &wanted, &fresh()),
        Step::Ask(Question::Relation(OLD.to_owned()))
    );
}

#[test]
fn addresses_of_one_repository_are_known_as_such() {
    let ours = "https://gitlab.example.com/shop/env.git";
    for same in [
        "https://gitlab.example.com/shop/env",
        "http://user@GitLab.example.com:8080/shop/env.git/",
        "git@gitlab.example.com:shop/env.git",
        "ssh://git@gitlab.example.com:2222/shop/env.git",
    ] {
        assert!(is_same_repository(ours, same), "{same}");
    }
    for other in [
        "https://gitlab.example.com/shop/environment",
        "https://example.com/shop/env",
        "",
    ] {
        assert!(!is_same_repository(ours, other), "{other}");
    }
}
