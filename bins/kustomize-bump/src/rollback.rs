//! The decision where a rollback goes, from the history of a file. Nothing here touches anything.

use std::str::FromStr;

use towpath::failure::{Failure, Result};
use towpath::git::{History, Revision};
use towpath::kustomize::{ImageState, Kustomization, check_digest};

use crate::message::{ACTION, IMAGE, ROLLBACK};

/// Where a rollback is asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// So many deployments before the one that fails.
    Back(u16),
    /// To a digest, whether it was here before or not.
    Digest(String),
    /// To what the file said after a commit.
    Commit(String),
}

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains(':') {
            check_digest(text)?;
            return Ok(Target::Digest(text.to_owned()));
        }
        match text.parse() {
            Ok(0) => {}
            Ok(back) if text.len() <= 3 => return Ok(Target::Back(back)),
            _ => {
                let is_commit = (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                if is_commit {
                    return Ok(Target::Commit(text.to_ascii_lowercase()));
                }
            }
        }
        Err(Failure::usage(format!("malformed --to {text:?}"))
            .hint("give a digest (sha256:...), 7 or more digits of a commit, or a number from 1 on"))
    }
}

/// What an image was, from the commit that made it so.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// What it was; none where the image or the file was not there.
    pub(crate) state: Option<ImageState>,
    /// The commit that made it so.
    pub(crate) revision: Revision,
}

impl Step {
    /// Whether a rollback of this image made it so.
    pub(crate) fn is_rollback(&self, image: &str) -> bool {
        self.revision.trailer(ACTION) == Some(ROLLBACK) && self.revision.trailer(IMAGE) == Some(image)
    }
}

/// What an image was, newest first, one step for each time it changed. Files that cannot be read count as without it.
pub(crate) fn steps(history: &History, file: &str, image: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for revision in &history.revisions {
        let state = revision
            .content
            .as_ref()
            .and_then(|content| Kustomization::parse(file, content).ok())
            .and_then(|kustomization| {
                kustomization
                    .find(image)
                    .ok()
                    .flatten()
                    .map(|entry| entry.state.clone())
            });
        match steps.last_mut() {
            // The same as after the next commit: this older one made it so, if no older one did.
            Some(last) if last.state == state => last.revision = revision.clone(),
            _ => steps.push(Step {
                state,
                revision: revision.clone(),
            }),
        }
    }
    steps
}

/// Where a rollback goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What the image is to be.
    pub(crate) state: ImageState,
    /// The commit that made it so before.
    pub(crate) commit: Option<String>,
}

/// Chooses where to go; none when older history has to be looked at first.
///
/// What was rolled back from counts as bad until somebody sets it again, so that a second rollback does not bring the
/// first failure back. While the image is held, `failing` is what it was taken back from, as the hold shows it, and
/// steps are counted from there: running the same rollback twice goes back once.
///
/// # Errors
/// Not found (exit 5) when history holds no such step.
pub(crate) fn choose(
    steps: &[Step],
    complete: bool,
    current: &ImageState,
    failing: Option<&str>,
    target: &Target,
) -> Result<Option<Choice>> {
    // Who made the oldest step is only known once the step before it is seen.
    let known = if complete {
        steps
    } else {
        &steps[..steps.len().saturating_sub(1)]
    };
    let choice = |step: &Step| {
        step.state.clone().map(|state| Choice {
            state,
            commit: Some(step.revision.commit.clone()),
        })
    };
    let found = match target {
        Target::Back(back) => good_steps(known, current, failing)
            .nth(usize::from(*back) - 1)
            .and_then(choice),
        Target::Commit(prefix) => known
            .iter()
            .find(|step| step.revision.commit.starts_with(prefix.as_str()))
            .and_then(choice),
        Target::Digest(digest) => known
            .iter()
            .find(|step| {
                step.state
                    .as_ref()
                    .is_some_and(|state| state.digest.as_ref() == Some(digest))
            })
            .and_then(choice),
    };
    match (found, target) {
        (Some(found), _) => Ok(Some(found)),
        (None, _) if !complete => Ok(None),
        (None, Target::Digest(digest)) => Ok(Some(Choice {
            state: ImageState {
                tag: None,
                digest: Some(digest.clone()),
                ..current.clone()
            },
            commit: None,
        })),
        (None, Target::Commit(commit)) => Err(Failure::not_found(format!(
            "no commit {commit} set image {}",
            current.name
        ))
        .hint("`kustomize-bump history` lists those that did")),
        (None, Target::Back(back)) => {
            let what = if *back == 1 {
                "nothing".to_owned()
            } else {
                format!("no {back} deployments")
            };
            Err(
                Failure::not_found(format!("there is {what} to roll image {} back to", current.name))
                    .hint("look at `kustomize-bump history`, or name a digest with --to sha256:..."),
            )
        }
    }
}

/// The steps one can go back to, newest first, each state once.
fn good_steps<'steps>(
    steps: &'steps [Step],
    current: &'steps ImageState,
    failing: Option<&str>,
) -> impl Iterator<Item = &'steps Step> {
    let is_failing = |step: &Step| step.state.as_ref().map(ToString::to_string).as_deref() == failing;
    let start = failing.and_then(|_| steps.iter().position(is_failing));
    let mut passed = vec![
        start
            .and_then(|start| steps[start].state.as_ref())
            .unwrap_or(current),
    ];
    let mut set_anew: Vec<&ImageState> = Vec::new();
    let mut bad: Vec<&ImageState> = Vec::new();
    let mut good = Vec::new();
    for (index, step) in steps.iter().enumerate().skip(start.unwrap_or(0)) {
        let Some(state) = &step.state else { continue };
        if step.is_rollback(&current.name) {
            let from = steps.get(index + 1).and_then(|step| step.state.as_ref());
            bad.extend(from.filter(|from| !set_anew.contains(from)));
        } else {
            set_anew.push(state);
        }
        if !passed.contains(&state) && !bad.contains(&state) {
            passed.push(state);
            good.push(step);
        }
    }
    good.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps from a line such as `A<B B A Z`, newest first, where `A<B` is a rollback from B to A.
    fn choose_from(
        line: &str,
        complete: bool,
        failing: Option<&str>,
        target: &str,
    ) -> Result<Option<String>> {
        let state = |name: &str| ImageState {
            name: "app".into(),
            tag: Some(name.into()),
            ..ImageState::default()
        };
        let steps: Vec<Step> = line
            .split(' ')
            .enumerate()
            .map(|(index, word)| {
                let (name, from) = word
                    .split_once('<')
                    .map_or((word, None), |(name, from)| (name, Some(from)));
                let mut revision = Revision::default();
                revision.commit = format!("{index:040x}");
                if from.is_some() {
                    revision.trailers.push((ACTION.into(), ROLLBACK.into()));
                    revision.trailers.push((IMAGE.into(), "app".into()));
                }
                Step {
                    state: Some(state(name)),
                    revision,
                }
            })
            .collect();
        let current = steps[0].state.clone().unwrap();
        let failing = failing.map(|tag| format!("app:{tag}"));
        let choice = choose(&steps, complete, &current, failing.as_deref(), &target.parse()?)?;
        Ok(choice.map(|choice| choice.state.tag.unwrap_or_default()))
    }

    fn goes_to(line: &str, failing: Option<&str>, target: &str, expected: &str) {
        assert_eq!(
            choose_from(line, true, failing, target).unwrap().as_deref(),
            Some(expected),
            "{line}"
        );
    }

    #[test]
    fn a_rollback_goes_to_the_deployment_before() {
        goes_to("C B A", None, "1", "B");
        goes_to("C B A", None, "2", "A");
        goes_to("C B C A", None, "2", "A");
    }

    #[test]
    fn what_was_rolled_back_from_is_not_gone_back_to() {
        goes_to("B<C C B A", None, "1", "A");
        goes_to("D B<C C B A", None, "1", "B");
        goes_to("D B<C C B A", None, "2", "A");
        // C was set again later, and stood until D came.
        goes_to("D C B<C C B A", None, "1", "C");
    }

    #[test]
    fn while_held_the_same_rollback_goes_back_once() {
        goes_to("B<C C B A", Some("C"), "1", "B");
        goes_to("B<C C B A", Some("C"), "2", "A");
        goes_to("A<B B<C C B A", Some("C"), "2", "A");
        // The rollback is in the files of a checkout, and not committed yet.
        goes_to("C B A", Some("C"), "1", "B");
    }

    #[test]
    fn older_history_is_asked_for_before_giving_up() {
        // The oldest step that is here may have been made by an older commit.
        assert_eq!(choose_from("C B", false, None, "1").unwrap(), None);
        assert_eq!(
            choose_from("C B A", false, None, "1").unwrap().as_deref(),
            Some("B")
        );
        assert!(choose_from("C", true, None, "1").is_err());
    }

    #[test]
    fn targets_are_told_apart() {
        assert_eq!("12".parse::<Target>().unwrap(), Target::Back(12));
        assert_eq!(
            "1234567".parse::<Target>().unwrap(),
            Target::Commit("1234567".into())
        );
        assert_eq!(
            "ABCDEF0".parse::<Target>().unwrap(),
            Target::Commit("abcdef0".into())
        );
        for text in ["0", "", "-1", "abc", "main", "sha256:abc", "99999"] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was accepted");
        }
    }
}
