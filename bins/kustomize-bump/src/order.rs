//! The decision whether an image may take the place of another, by the order of the commits they were built from.
//! Nothing here touches anything.

use towpath::failure::{Failure, Kind, Result};
use towpath::git::Ancestry;
use towpath::kustomize::ImageState;

use crate::args::OrderChoice;
use crate::message::{SOURCE_COMMIT, SOURCE_PROJECT};
use crate::rollback::{Step, same};

/// Where an image was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The project, where it was said.
    pub(crate) project: Option<String>,
    /// The commit.
    pub(crate) commit: String,
}

/// Where the image that is there was built from: as the newest `set` of it said. A rollback brings an older one back,
/// whose own `set` counts. None when it was set by hand, or by nobody who said so.
pub(crate) fn deployed_origin(steps: &[Step], current: &ImageState) -> Option<Origin> {
    let set = steps
        .iter()
        .filter(|step| step.state.as_ref().is_some_and(|state| same(state, current)))
        .find(|step| step.is_set(&current.name))?;
    Some(Origin {
        project: set.revision.trailer(SOURCE_PROJECT).map(str::to_owned),
        commit: set.revision.trailer(SOURCE_COMMIT)?.to_owned(),
    })
}

/// Judges one image: lets it pass, with something to say or without, or refuses it.
///
/// # Errors
/// Conflict (exit 6) for an older one, and with `require` for one that diverged; with `require` also what kept the
/// order from being known, as denied (exit 4) unless trying again may help.
pub(crate) fn judge(
    choice: OrderChoice,
    place: &str,
    current: &ImageState,
    wanted: &str,
    found: Result<(Origin, Ancestry)>,
) -> Result<Option<String>> {
    let image = &current.name;
    let required = choice == OrderChoice::Require;
    match found {
        Ok((_, Ancestry::Same | Ancestry::Descendant)) => Ok(None),
        Ok((origin, Ancestry::Ancestor)) => Err(Failure::conflict(format!(
            "image {image} in {place} is from commit {}, which is newer than {wanted}",
            origin.commit
        ))
        .hint("a newer pipeline was faster; to go back, use `kustomize-bump rollback`, or pass --order off")),
        Ok((origin, Ancestry::Diverged)) if required => Err(Failure::conflict(format!(
            "image {image} in {place} is from commit {}, and neither that nor {wanted} contains the other",
            origin.commit
        ))
        .hint("deploy from one branch, or pass --order check")),
        Ok((origin, Ancestry::Diverged)) => Ok(Some(format!(
            "image {image} in {place} is from commit {}, which {wanted} does not contain: what it changed goes",
            origin.commit
        ))),
        Err(failure) if !required => Ok(Some(format!(
            "whether {wanted} is newer than what image {image} in {place} is from is not known: {failure}"
        ))),
        Err(failure) => {
            let kind = match failure.kind() {
                Kind::Unavailable => Kind::Unavailable,
                _ => Kind::Denied,
            };
            Err(Failure::new(
                kind,
                format!("whether {wanted} is newer than what image {image} in {place} is from is not known"),
            )
            .because(failure)
            .hint("look at what is there, then pass --order check"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(choice: OrderChoice, found: Result<Ancestry>) -> std::result::Result<bool, Kind> {
        let current = ImageState {
            name: "app".into(),
            ..ImageState::default()
        };
        let origin = Origin {
            project: None,
            commit: "b".repeat(40),
        };
        let found = found.map(|ancestry| (origin, ancestry));
        judge(choice, "overlays/prod", &current, "a", found)
            .map(|said| said.is_some())
            .map_err(|failure| failure.kind())
    }

    #[test]
    fn an_older_commit_is_refused_and_what_is_not_known_is_said() {
        use OrderChoice::{Check, Require};
        for choice in [Check, Require] {
            assert_eq!(judged(choice, Ok(Ancestry::Same)), Ok(false));
            assert_eq!(judged(choice, Ok(Ancestry::Descendant)), Ok(false));
            assert_eq!(judged(choice, Ok(Ancestry::Ancestor)), Err(Kind::Conflict));
        }
        assert_eq!(judged(Check, Ok(Ancestry::Diverged)), Ok(true));
        assert_eq!(judged(Require, Ok(Ancestry::Diverged)), Err(Kind::Conflict));
        assert_eq!(judged(Check, Err(Failure::not_found("x"))), Ok(true));
        assert_eq!(judged(Require, Err(Failure::not_found("x"))), Err(Kind::Denied));
        assert_eq!(
            judged(Require, Err(Failure::unavailable("x"))),
            Err(Kind::Unavailable)
        );
    }
}
