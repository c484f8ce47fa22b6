//! A sync that fails and is tried again.

use super::*;

/// The resource that failed again, and in how many attempts.
type Again = Option<(&'static str, usize)>;
/// What was seen one after the other; the attempt that failed last, with what failed again; whether that is an end after
/// `healthy_within`.
type Case<'a> = (&'a [Application], Option<(u64, Again)>, bool);

/// A sync of a commit that fails and is tried again: after its attempt of this number, or in the one after it.
fn retrying(commit: &str, attempt: u64, resource: Option<&str>) -> Application {
    let result = resource.map(|name| {
        let resource = |name: &str, status: &str, message: &str| json!({"kind": "Deployment", "name": name, "status": status, "message": message});
        json!({"revision": commit, "resources": [
            resource("well", "Synced", "configured"), resource(name, "SyncFailed", "field is immutable")]})
    });
    let message = match resource {
        Some(_) => format!("objects failed to apply. Retrying attempt #{attempt} at 10:03AM."),
        None => format!("Retrying operation. Attempt #{attempt}"),
    };
    let state = json!({
        "operation": {"sync": {"revision": commit}, "retry": {"limit": 5}},
        "phase": "Running", "startedAt": "2026-11-21T10:03:29Z", "retryCount": attempt, "message": message,
        "finishedAt": resource.map(|_| "2026-11-21T10:03:30Z"), "syncResult": result,
    });
    changed("deploy-1", &[("/status/operationState", state)])
}

#[test]
fn what_was_recorded_of_a_sync_that_is_tried_again_counts_each_attempt_once() {
    let ours = "9177c694cf67d09f1ff3b9dd54679f007a83cc8b";
    let mut known = Known {
        failing: wanted(ours, 'd').healthy_within,
        ..fresh()
    };
    // In the second state the next attempt runs, and the result is still that of the first one.
    for (name, attempt, ends) in [
        ("failed-1", 1, false),
        ("failed-2", 1, false),
        ("failed-3", 2, true),
    ] {
        let state = application(recorded(name));
        known.attempts.note(&state);
        let retrying = known.attempts.retrying(ours).unwrap();
        assert_eq!((retrying.attempt, retrying.most), (attempt, Some(6)), "{name}");
        let step = decide(&state, &wanted(ours, 'd'), &known);
        match step {
            Step::Fail(Trouble::SyncFailed { text, resources }) => {
                assert!(ends, "{name}");
                assert!(text.contains("field is immutable"), "{text}");
                assert_eq!(resources.len(), 1);
            }
            other => assert!(!ends, "{name}: {other:?}"),
        }
    }
}

#[test]
fn a_sync_that_is_tried_again_says_what_failed() {
    let web = Some("web");
    let cases: [Case; 8] = [
        (&[application(recorded("deploy-1"))], None, false),
        (&[retrying(OURS, 1, web)], Some((1, None)), false),
        // While the next attempt runs the state says nothing of the one before.
        (
            &[retrying(OURS, 1, web), retrying(OURS, 1, None)],
            Some((1, None)),
            false,
        ),
        (
            &[
                retrying(OURS, 1, web),
                retrying(OURS, 1, None),
                retrying(OURS, 2, web),
            ],
            Some((2, Some(("Deployment web", 2)))),
            true,
        ),
        // One answer is one attempt, however often it is given.
        (
            &[retrying(OURS, 2, web), retrying(OURS, 2, web)],
            Some((2, None)),
            false,
        ),
        // Another resource each time: it may get further with each attempt.
        (
            &[retrying(OURS, 1, web), retrying(OURS, 2, Some("other"))],
            Some((2, None)),
            false,
        ),
        // A sync of the commit before ours: ours has had no attempt.
        (
            &[retrying(OLD, 1, web), retrying(OLD, 2, web)],
            Some((2, Some(("Deployment web", 2)))),
            false,
        ),
        (
            &[
                retrying(OLD, 1, web),
                retrying(OLD, 2, web),
                retrying(OURS, 3, web),
            ],
            Some((3, None)),
            false,
        ),
    ];
    for (states, expected, ends) in cases {
        let mut known = fresh();
        states.iter().for_each(|state| known.attempts.note(state));
        let last = states.last().unwrap();
        let found = match decide(last, &wanted(OURS, 'd'), &known) {
            Step::Wait(Waiting::Syncing) => None,
            Step::Wait(Waiting::Retrying(retrying)) => {
                assert_eq!((retrying.most, retrying.resources.len()), (Some(6), 1));
                let is_old = last
                    .status
                    .operation_state
                    .as_ref()
                    .unwrap()
                    .commits()
                    .contains(&OLD);
                assert_eq!(retrying.other.is_some(), is_old);
                let said = Waiting::Retrying(retrying.clone()).sentence();
                assert!(said.contains("field is immutable"), "{said}");
                Some((retrying.attempt, retrying.repeated))
            }
            other => panic!("{other:?}"),
        };
        let expected = expected.map(|(attempt, again)| {
            let again = again.map(|(name, times)| (name.to_owned(), times));
            (attempt, again)
        });
        assert_eq!(found, expected);
        known.failing = wanted(OURS, 'd').healthy_within;
        let step = decide(last, &wanted(OURS, 'd'), &known);
        assert_eq!(
            matches!(step, Step::Fail(Trouble::SyncFailed { .. })),
            ends,
            "{step:?}"
        );
    }
    // An attempt that succeeds ends it, and so does the last that fails.
    let mut known = fresh();
    known.attempts.note(&retrying(OURS, 1, web));
    known.attempts.note(&application(recorded("deploy-2")));
    assert!(!known.attempts.has_failed());
    let mut last = retrying(OURS, 5, web);
    last.operation = None;
    let state = last.status.operation_state.as_mut().unwrap();
    state.phase = "Failed".to_owned();
    let step = decide(&last, &wanted(OURS, 'd'), &fresh());
    assert!(matches!(step, Step::Fail(Trouble::SyncFailed { .. })), "{step:?}");
}
