//! Several sources: the recorded states, and those that differ from them by what matters.

use super::*;

/// The commits of the recorded story, by what they set; the first source's are of another repository.
const OF_D: &str = "1024608b475984dceceb47efc493cc032d3962de";
const OF_C: &str = "d1d29a1f934efe2e7a60a08f2317456fd908bd22";
const TEXT: &str = "871d43";
const REPEATED: &str = "cf3e87";

fn decided(value: Value, wanted: &Wanted, known: &Known) -> Step {
    decide(&application(value), wanted, known)
}

/// The commit of the recorded answer that begins like this.
fn commit_of(name: &str, begins: &str) -> String {
    let revisions = recorded(name)["status"]["sync"]["revisions"].clone();
    let mut revisions = revisions
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap());
    revisions
        .find(|commit| commit.starts_with(begins))
        .unwrap()
        .to_owned()
}

#[test]
fn each_recorded_state_of_several_sources_has_its_verdict() {
    let unwell = || Step::Wait(Waiting::Unwell("Progressing".to_owned()));
    let differing = ["Deployment web", "Deployment worker"].map(str::to_owned);
    for (name, expected) in [
        ("sources-1", Step::Wait(Waiting::Syncing)),
        ("sources-2", Step::Wait(Waiting::OutOfSync(differing.into()))),
        ("sources-3", unwell()),
        ("sources-4", unwell()),
        ("sources-5", Step::Ready(Proof::Pods)),
    ] {
        assert_eq!(
            decided(recorded(name), &wanted(OF_D, 'd'), &fresh()),
            expected,
            "{name}"
        );
    }
    let broken = decided(recorded("sources-broken-1"), &wanted(OF_D, 'd'), &fresh());
    assert!(
        matches!(&broken, Step::Fail(Trouble::Comparison { text, .. }) if text.contains("source 3 of 3")),
        "{broken:?}"
    );
    // Before our commit was looked at, that says nothing about it.
    let before = decided(
        recorded("sources-broken-1"),
        &wanted(OF_D, 'd'),
        &Known::default(),
    );
    assert_eq!(before, Step::Wait(Waiting::AtUnknown(String::new())));

    let repeated = commit_of("sources-repeated-1", REPEATED);
    let of = |digit| {
        decided(
            recorded("sources-repeated-1"),
            &wanted(&repeated, digit),
            &fresh(),
        )
    };
    assert_eq!(of('d'), Step::Ready(Proof::Pods));
    assert_eq!(of('e'), Step::Ask(Question::Manifests(repeated.clone())));
}

#[test]
fn sources_of_one_branch_at_several_commits_are_waited_for() {
    let name = "sources-divided-1";
    let divided = Step::Wait(Waiting::Divided(vec![commit_of(name, TEXT), OF_C.to_owned()]));
    assert_eq!(decided(recorded(name), &wanted(OF_C, 'c'), &fresh()), divided);
    // All is well with it, and yet the second source may set what is not ours.
    let well = changed(
        name,
        &[
            ("/status/health/status", json!("Healthy")),
            ("/status/summary/images", json!([image('c'), image('d')])),
        ],
    );
    let mut known = fresh();
    known.rendered = rendered(&[(&image('c'), Runs::Always), (&image('d'), Runs::Always)]);
    assert_eq!(decide(&well, &wanted(OF_C, 'c'), &known), divided);
    // Another branch of the repository goes its own way.
    let other_branch = changed(
        name,
        &[
            ("/status/health/status", json!("Healthy")),
            ("/status/summary/images", json!([image('c')])),
            ("/spec/sources/1/targetRevision", json!("stable")),
        ],
    );
    let step = decide(&other_branch, &wanted(OF_C, 'c'), &fresh());
    assert_eq!(step, Step::Ready(Proof::Pods));
}

#[test]
fn an_operation_of_another_sources_commit_fails_nothing_of_ours() {
    let failed = |first: &str| {
        let mut revisions = recorded("sources-2")["status"]["sync"]["revisions"].clone();
        if !first.is_empty() {
            revisions[0] = json!(first);
        }
        let state = "/status/operationState";
        changed(
            "sources-2",
            &[
                (&format!("{state}/phase"), json!("Failed")),
                (
                    &format!("{state}/message"),
                    json!("one or more objects failed to apply"),
                ),
                (&format!("{state}/operation/sync/revisions"), revisions.clone()),
                (&format!("{state}/syncResult/revisions"), revisions),
            ],
        )
    };
    let step = decide(&failed(""), &wanted(OF_D, 'd'), &fresh());
    assert!(matches!(step, Step::Fail(Trouble::SyncFailed { .. })), "{step:?}");
    // The other repository was mended, and the sync of that is to come.
    let step = decide(&failed(OLD), &wanted(OF_D, 'd'), &fresh());
    assert!(matches!(step, Step::Wait(Waiting::OutOfSync(_))), "{step:?}");
}

#[test]
fn the_source_that_counts_is_that_of_the_repository() {
    let state = application(recorded("sources-5"));
    let mut wanted = wanted(OURS, 'd');
    assert_eq!(place(&state, &wanted), 0, "nothing tells of it");
    wanted.repository = Some("git@gitlab.example.com:shop/env.git".to_owned());
    assert_eq!(place(&state, &wanted), 1);
    assert_eq!(at(&state, &wanted), OF_D);
    wanted.revision = OF_D.to_owned();
    wanted.repository = None;
    assert_eq!(place(&state, &wanted), 1, "it is at our commit");
}
