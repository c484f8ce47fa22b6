//! The decision where a rollback goes, from the history of a file. Nothing here touches anything.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use towpath::failure::{Failure, Result};
use towpath::git::{History, Revision};
use towpath::kustomize::{ImageState, Kustomization};
use towpath::oci::Digest;

use crate::message::{ACTION, IMAGE, ROLLBACK, SET};

/// Where a rollback is asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// So many deployments before the one that fails.
    Back(u16),
    /// To a digest, whether it was here before or not.
    Digest(Digest),
    /// To what the file said after a commit.
    Commit(String),
}

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains(':') {
            return text.parse().map(Target::Digest);
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
        self.revision.trailer(ACTION) == Some(ROLLBACK) && names(&self.revision, image)
    }

    /// Whether `set` made it so, and said from which commit the image was built.
    pub(crate) fn is_set(&self, image: &str) -> bool {
        self.revision.trailer(ACTION) == Some(SET) && names(&self.revision, image)
    }
}

fn names(revision: &Revision, image: &str) -> bool {
    let mut images = revision
        .trailers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(IMAGE));
    images.any(|(_, name)| name == image)
}

/// What an image was, newest first, one step for each time it changed. Files that cannot be read count as without it.
pub(crate) fn steps(history: &History, file: &str, image: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for revision in &history.revisions {
        let state = revision
            .content
            .as_ref()
            .and_then(|content| state_in(content, file, image));
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

/// What a version of a file says about an image; none where it does not, or cannot be read. The entry may have been
/// named otherwise then, and had the image's name for its `newName`: it ran the same image, and is told by the name that
/// the entry has now, since another entry may have the other one.
pub(crate) fn state_in(content: &[u8], file: &str, image: &str) -> Option<ImageState> {
    let kustomization = Kustomization::parse(file, content).ok()?;
    let state = kustomization.find(image).ok()??.state.clone();
    if state.name == image {
        return Some(state);
    }
    Some(ImageState {
        name: image.to_owned(),
        new_name: None,
        ..state
    })
}

/// Whether two states run the same image: by digest where both have one.
pub(crate) fn same(one: &ImageState, other: &ImageState) -> bool {
    match (&one.digest, &other.digest) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// How it is known that a state was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KnownBy {
    /// A deployment of GitLab ended well with it.
    Deployment,
    /// The repository's history shows it.
    History,
    /// Nobody but who asked for it.
    Argument,
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KnownBy::Deployment => "as a deployment that ended well",
            KnownBy::History => "as the history shows",
            KnownBy::Argument => "as it was given; the history does not show it",
        })
    }
}

/// Where a rollback goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// What the image is to be.
    pub(crate) state: ImageState,
    /// The commit that made it so before.
    pub(crate) commit: Option<String>,
    /// When that was: RFC 3339.
    pub(crate) date: Option<String>,
    /// How that is known.
    pub(crate) known_by: KnownBy,
}

impl Choice {
    fn of(step: &Step, known_by: KnownBy) -> Option<Self> {
        step.state.clone().map(|state| Choice {
            state,
            commit: Some(step.revision.commit.clone()),
            date: Some(step.revision.date.clone()).filter(|date| !date.is_empty()),
            known_by,
        })
    }
}

/// What is known of one image when its way back is looked for.
///
/// What was rolled back from counts as bad until somebody sets it again, so that a second rollback does not bring the
/// first failure back. While the image is held, `failing` is what it was taken back from, as the hold shows it, and
/// steps are counted from there: running the same rollback twice goes back once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook<'look> {
    /// What the image was, newest first.
    pub(crate) steps: &'look [Step],
    /// Whether these are all steps there ever were.
    pub(crate) complete: bool,
    /// What the image is.
    pub(crate) current: &'look ImageState,
    /// What it was taken back from, as the hold shows it.
    pub(crate) failing: Option<&'look str>,
}

impl<'look> Outlook<'look> {
    /// The steps whose commits are known too: who made the oldest one is only known once the one before it is seen.
    fn known(&self) -> &'look [Step] {
        if self.complete {
            self.steps
        } else {
            &self.steps[..self.steps.len().saturating_sub(1)]
        }
    }

    /// So many changes of the repository back; none when there are not so many here.
    pub(crate) fn back(&self, back: u16) -> Option<Choice> {
        let known = self.known();
        self.count(known, back)
            .and_then(|step| Choice::of(step, KnownBy::History))
    }

    /// So many deployments back, out of those given, newest first. Deployments that a rollback made are not among them.
    pub(crate) fn deployed_back(&self, deployed: &[Step], back: u16) -> Option<Choice> {
        self.count(deployed, back)
            .and_then(|step| Choice::of(step, KnownBy::Deployment))
    }

    /// The newest step at a digest.
    pub(crate) fn at_digest(&self, digest: &Digest) -> Option<Choice> {
        let is_at = |state: &ImageState| state.digest.as_deref() == Some(digest.as_str());
        self.known()
            .iter()
            .find(|step| step.state.as_ref().is_some_and(is_at))
            .and_then(|step| Choice::of(step, KnownBy::History))
    }

    /// The digest itself, where no step is at it. The tag of another image would tell a lie.
    pub(crate) fn bare_digest(&self, digest: &Digest) -> Choice {
        Choice {
            state: ImageState {
                tag: None,
                digest: Some(digest.as_str().to_owned()),
                ..self.current.clone()
            },
            commit: None,
            date: None,
            known_by: KnownBy::Argument,
        }
    }

    /// The failure when there are not so many steps.
    pub(crate) fn nothing_back(&self, file: &str, back: u16) -> Failure {
        let there_is = if back == 1 {
            "there is nothing".to_owned()
        } else {
            format!("there are no {back} deployments")
        };
        let image = &self.current.name;
        Failure::not_found(format!("{file}: {there_is} to roll image {image} back to"))
            .hint("look at `kustomize-bump history`, or name a digest with --to sha256:...")
    }

    fn is_failing(&self, state: &ImageState) -> bool {
        self.failing.is_some_and(|failing| state.to_string() == failing)
    }

    /// What was rolled back from, and not set again since. While held, only what was so before the failure counts.
    fn bad(&self) -> Vec<&'look ImageState> {
        let steps = self.steps;
        let is_failing = |step: &Step| step.state.as_ref().is_some_and(|state| self.is_failing(state));
        let start = steps.iter().position(is_failing).unwrap_or(0);
        let mut set_anew: Vec<&ImageState> = Vec::new();
        let mut bad: Vec<&ImageState> = Vec::new();
        for (index, step) in steps.iter().enumerate().skip(start) {
            let Some(state) = &step.state else { continue };
            if step.is_rollback(&self.current.name) {
                let from = steps.get(index + 1).and_then(|step| step.state.as_ref());
                bad.extend(from.filter(|from| !set_anew.iter().any(|anew| same(anew, from))));
            }
            // Whoever goes back to something trusts it, whatever was thought of it before.
            set_anew.push(state);
        }
        bad
    }

    /// The step that is so many back, each image counted once. An entry with neither tag nor digest was no deployment:
    /// nobody can say what ran.
    fn count<'step>(&self, steps: &'step [Step], back: u16) -> Option<&'step Step> {
        let is_failing = |step: &Step| step.state.as_ref().is_some_and(|state| self.is_failing(state));
        let start = steps.iter().position(is_failing);
        let mut passed: Vec<&ImageState> = self.bad();
        match start.and_then(|start| steps[start].state.as_ref()) {
            Some(failing) => passed.push(failing),
            // While held, the image already is at what the first step leads to.
            None if self.failing.is_some() => {}
            None => passed.push(self.current),
        }
        let mut left = usize::from(back);
        for step in &steps[start.unwrap_or(0)..] {
            let Some(state) = &step.state else { continue };
            let says_what_ran = state.tag.is_some() || state.digest.is_some();
            if !says_what_ran || passed.iter().any(|passed| same(passed, state)) {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Some(step);
            }
            passed.push(state);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps from a line such as `A<B B A Z`, newest first, where `A<B` is a rollback from B to A.
    fn steps_of(line: &str) -> Vec<Step> {
        let step = |(index, word): (usize, &str)| {
            let (name, from) = word
                .split_once('<')
                .map_or((word, None), |(name, from)| (name, Some(from)));
            let mut revision = Revision::default();
            revision.commit = format!("{index:040x}");
            if from.is_some() {
                revision.trailers.push((ACTION.into(), ROLLBACK.into()));
                revision.trailers.push((IMAGE.into(), "other".into()));
                revision.trailers.push((IMAGE.into(), "app".into()));
            }
            Step {
                state: Some(ImageState {
                    name: "app".into(),
                    tag: Some(name.into()),
                    ..ImageState::default()
                }),
                revision,
            }
        };
        line.split(' ').enumerate().map(step).collect()
    }

    fn choose_from(
        line: &str,
        complete: bool,
        failing: Option<&str>,
        deployed: Option<&str>,
        back: u16,
    ) -> Option<String> {
        let steps = steps_of(line);
        let current = steps[0].state.clone().unwrap();
        let failing = failing.map(|tag| format!("app:{tag}"));
        let outlook = Outlook {
            steps: &steps,
            complete,
            current: &current,
            failing: failing.as_deref(),
        };
        let choice = match deployed {
            None => outlook.back(back),
            Some(line) => outlook.deployed_back(&steps_of(line), back),
        };
        choice.map(|choice| choice.state.tag.unwrap_or_default())
    }

    fn goes_to(line: &str, failing: Option<&str>, back: u16, expected: &str) {
        assert_eq!(
            choose_from(line, true, failing, None, back).as_deref(),
            Some(expected),
            "{line}"
        );
    }

    #[test]
    fn a_rollback_goes_to_the_deployment_before() {
        goes_to("C B A", None, 1, "B");
        goes_to("C B A", None, 2, "A");
        goes_to("C B C A", None, 2, "A");
    }

    #[test]
    fn what_was_rolled_back_from_is_not_gone_back_to() {
        goes_to("B<C C B A", None, 1, "A");
        goes_to("D B<C C B A", None, 1, "B");
        goes_to("D B<C C B A", None, 2, "A");
        // C was set again later, and stood until D came.
        goes_to("D C B<C C B A", None, 1, "C");
        // C was gone back to after all.
        goes_to("D C<B B<C C B A", None, 1, "C");
        goes_to("D C<B B<C C B A", None, 2, "A");
    }

    #[test]
    fn while_held_the_same_rollback_goes_back_once() {
        goes_to("B<C C B A", Some("C"), 1, "B");
        goes_to("B<C C B A", Some("C"), 2, "A");
        goes_to("A<B B<C C B A", Some("C"), 2, "A");
        // The rollback is in the files of a checkout, and not committed yet.
        goes_to("C B A", Some("C"), 1, "B");
    }

    #[test]
    fn older_history_is_asked_for_before_giving_up() {
        // The oldest step that is here may have been made by an older commit.
        assert_eq!(choose_from("C B", false, None, None, 1), None);
        assert_eq!(choose_from("C B A", false, None, None, 1).as_deref(), Some("B"));
        assert_eq!(choose_from("C", true, None, None, 1), None);
    }

    #[test]
    fn only_what_was_deployed_well_is_counted() {
        let goes = |line: &str, failing: Option<&str>, deployed: &str, back: u16| {
            choose_from(line, true, failing, Some(deployed), back)
        };
        // X was committed and never came to run; C failed and is not among the deployments either.
        assert_eq!(goes("C X B A", None, "B A", 1).as_deref(), Some("B"));
        assert_eq!(goes("C X B A", None, "C C B B A", 2).as_deref(), Some("A"));
        assert_eq!(goes("B<C C B A", Some("C"), "C B A", 1).as_deref(), Some("B"));
        assert_eq!(goes("B<C C B A", Some("C"), "B A", 1).as_deref(), Some("B"));
        assert_eq!(goes("B<C C B A", Some("C"), "B A", 2).as_deref(), Some("A"));
        // Released meanwhile: what was rolled back from is passed over.
        assert_eq!(goes("B<C C B A", None, "C B A", 1).as_deref(), Some("A"));
        assert_eq!(goes("C B A", None, "C", 1), None);
    }

    #[test]
    fn one_digest_under_two_tags_is_one_image() {
        let mut steps = steps_of("C B A");
        for step in &mut steps[..2] {
            step.state.as_mut().unwrap().digest = Some("sha256:1".into());
        }
        let current = steps[0].state.clone().unwrap();
        let outlook = Outlook {
            steps: &steps,
            complete: true,
            current: &current,
            failing: None,
        };
        assert_eq!(outlook.back(1).unwrap().state.tag.as_deref(), Some("A"));
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
