//! What is to be done with the keys of a secret. Nothing here touches anything.
//!
//! The state is in Vault and IAM alone: the key in the latest version is the one in use, and each key that `rotate` made
//! says in its description after which version it was made. Check-and-set lets a key into the next version or never, so
//! once there is a later version, a key that is not in that one is nobody's, and no run that is still under way can put
//! it there. That makes deleting it safe, however many runs there are.

use std::time::Duration;

use jiff::Timestamp;
use towpath::scaleway::ApiKey;

/// An end that is later by less than this is not brought nearer: clocks do not run alike.
const CLOSE: Duration = Duration::from_secs(60);

/// The keys of a secret.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The key in the latest version.
    pub(crate) current: ApiKey,
    /// Whether the secret's metadata names it, or need not: `rotate` did not make it.
    pub(crate) noted: bool,
    /// Other keys of the same bearer that were or may have been made for this secret.
    pub(crate) others: Vec<Other>,
}

/// A key beside the one in use.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    /// The key.
    pub(crate) key: ApiKey,
    /// What it was.
    pub(crate) past: Past,
}

/// What a key beside the one in use was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// It was in a version, so somebody may still work with it.
    Used,
    /// The key that the one in use was made to replace.
    Predecessor,
    /// It never was in a version and never will be: its run was cut short, or lost to another.
    NeverUsed,
    /// It may be in the next version: another run may be under way, or was cut short.
    Pending,
}

/// When keys come and go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    /// The age at which a key is replaced.
    pub(crate) every: Duration,
    /// Replace it whatever its age.
    pub(crate) now: bool,
    /// How long a replaced key goes on working.
    pub(crate) grace: Duration,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Note in the secret's metadata which key is in use and which it replaced.
    Note,
    /// Delete a key.
    Delete(String, Gone),
    /// Give a replaced key an end.
    Retire(String, Timestamp),
    /// Make a new key, prove it, and put it in place of the one in use.
    Rotate(Why),
}

/// Why a key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It has ended.
    Ended,
    /// It never was in use.
    NeverUsed,
}

/// Why a key is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is old enough.
    Age,
    /// It would end before the next one had its time.
    Ending,
    /// Somebody said so.
    Asked,
}

/// The steps, in order. None when all is well.
pub(crate) fn decide(state: &State, rhythm: &Rhythm, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    if !state.noted {
        steps.push(Step::Note);
    }
    let last = later(now, rhythm.grace);
    for Other { key, past } in &state.others {
        let ended = key.expires_at.is_some_and(|end| end <= now);
        match past {
            Past::Pending => {}
            Past::NeverUsed => steps.push(Step::Delete(key.access_key.clone(), Gone::NeverUsed)),
            Past::Used | Past::Predecessor if ended => {
                steps.push(Step::Delete(key.access_key.clone(), Gone::Ended));
            }
            Past::Used | Past::Predecessor => {
                if key.expires_at.is_none_or(|end| end > later(last, CLOSE)) {
                    steps.push(Step::Retire(key.access_key.clone(), last));
                }
            }
        }
    }
    // A run that was cut short after the new key was in place has done what was asked, but for the rest of its steps.
    let resumed = steps.iter().any(|step| match step {
        Step::Note => true,
        Step::Retire(name, _) => state
            .others
            .iter()
            .any(|other| other.past == Past::Predecessor && other.key.access_key == *name),
        _ => false,
    });
    if let Some(why) = due(&state.current, rhythm, now, resumed) {
        steps.push(Step::Rotate(why));
    }
    steps
}

fn due(current: &ApiKey, rhythm: &Rhythm, now: Timestamp, resumed: bool) -> Option<Why> {
    if age(current, now) >= rhythm.every {
        return Some(Why::Age);
    }
    // A key that lives no longer than the grace by itself was meant to be that short.
    let meant = current
        .expires_at
        .is_some_and(|end| end <= later(current.created_at, rhythm.grace));
    if !meant
        && current
            .expires_at
            .is_some_and(|end| end <= later(now, rhythm.grace))
    {
        return Some(Why::Ending);
    }
    (rhythm.now && !resumed).then_some(Why::Asked)
}

/// How old a key is; nothing for one from the future.
pub(crate) fn age(key: &ApiKey, now: Timestamp) -> Duration {
    now.duration_since(key.created_at).try_into().unwrap_or_default()
}

/// A moment after another, or the last there is.
pub(crate) fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use towpath::scaleway::Bearer;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a moment")
    }

    fn day(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 86_400).expect("a moment")
    }

    /// A key that was made and ends so many days from now.
    fn key(name: &str, made: i64, ends: Option<i64>) -> ApiKey {
        ApiKey {
            access_key: name.to_owned(),
            bearer: Bearer::Application("app".to_owned()),
            description: String::new(),
            created_at: day(made),
            expires_at: ends.map(day),
            default_project_id: None,
        }
    }

    fn state(current: ApiKey, others: &[(ApiKey, Past)]) -> State {
        State {
            current,
            noted: true,
            others: others
                .iter()
                .map(|(key, past)| Other {
                    key: key.clone(),
                    past: *past,
                })
                .collect(),
        }
    }

    #[test]
    fn each_state_has_its_steps() {
        let young = || key("C", -1, None);
        let old = || key("C", -31, None);
        let rotate = |why| vec![Step::Rotate(why)];
        let retire = |name: &str| Step::Retire(name.to_owned(), day(1));
        let delete = |name: &str, gone| Step::Delete(name.to_owned(), gone);
        use Past::{NeverUsed, Pending, Predecessor, Used};
        let table: Vec<(&str, State, bool, Vec<Step>)> = vec![
            ("all is well", state(young(), &[]), false, vec![]),
            ("it is old", state(old(), &[]), false, rotate(Why::Age)),
            ("it is asked for", state(young(), &[]), true, rotate(Why::Asked)),
            (
                "it ends soon",
                state(key("C", -20, Some(1)), &[]),
                false,
                rotate(Why::Ending),
            ),
            (
                "it was meant to be short",
                state(key("C", 0, Some(1)), &[]),
                false,
                vec![],
            ),
            (
                "the one before has no end yet",
                state(young(), &[(key("P", -40, None), Predecessor)]),
                false,
                vec![retire("P")],
            ),
            (
                "a rotation that was cut short is what was asked for",
                state(young(), &[(key("P", -40, None), Predecessor)]),
                true,
                vec![retire("P")],
            ),
            (
                "an end that is too far is brought nearer",
                state(young(), &[(key("P", -40, Some(9)), Predecessor)]),
                false,
                vec![retire("P")],
            ),
            (
                "the one before still has its grace",
                state(young(), &[(key("P", -40, Some(1)), Predecessor)]),
                false,
                vec![],
            ),
            (
                "the one before has ended",
                state(young(), &[(key("P", -40, Some(0)), Predecessor)]),
                false,
                vec![delete("P", Gone::Ended)],
            ),
            (
                "one that was never used goes, one that may be stays",
                state(
                    young(),
                    &[(key("A", -1, None), NeverUsed), (key("B", 0, None), Pending)],
                ),
                false,
                vec![delete("A", Gone::NeverUsed)],
            ),
            (
                "old ones are settled before the next is made",
                state(
                    old(),
                    &[
                        (key("P", -62, Some(-30)), Predecessor),
                        (key("U", -99, None), Used),
                    ],
                ),
                false,
                vec![delete("P", Gone::Ended), retire("U"), Step::Rotate(Why::Age)],
            ),
        ];
        for (what, state, asked, steps) in table {
            let rhythm = Rhythm {
                every: 30 * DAY,
                now: asked,
                grace: DAY,
            };
            assert_eq!(decide(&state, &rhythm, now()), steps, "{what}");
        }
    }

    #[test]
    fn what_was_not_noted_is_noted_first() {
        let rhythm = Rhythm {
            every: 30 * DAY,
            now: true,
            grace: DAY,
        };
        let state = State {
            noted: false,
            ..state(key("C", 0, None), &[])
        };
        assert_eq!(decide(&state, &rhythm, now()), [Step::Note]);
    }

    #[test]
    fn a_key_from_the_future_is_young() {
        assert_eq!(age(&key("C", 2, None), now()), Duration::ZERO);
    }
}
