//! Whether a registry still has what a rollback leads to.

use std::time::Duration;

use towpath::cli::Run;
use towpath::failure::{Failure, Result};
use towpath::kustomize::ImageState;
use towpath::oci::{Pointer, Reference, Registries};

use crate::args::CheckArgs;

/// How long a registry may take: somebody waits for this.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the registry says, for each state: true, or none where it cannot be asked or does not tell. Only a registry
/// that says that the image is gone stops a rollback: one that is down, or knows no login of ours, must not.
///
/// # Errors
/// Not found (exit 5) when it has not the image.
pub(super) async fn check(
    states: &[&ImageState],
    arguments: &CheckArgs,
    run: &Run,
) -> Result<Vec<Option<bool>>> {
    let arguments = arguments.registry();
    let deadline = run.deadline.within(PATIENCE);
    let registries = arguments
        .credentials()
        .and_then(|credentials| Registries::new(arguments.settings(), credentials, deadline));
    let registries = match registries {
        Ok(registries) => registries,
        Err(failure) => {
            cannot_tell("the registry", &failure);
            return Ok(vec![None; states.len()]);
        }
    };
    let mut answers = Vec::new();
    for state in states {
        let effect = towpath::cli::effect("look up", state.to_string());
        let look = deadline.bound("asking the registry", look(&registries, state));
        answers.push(match look.await {
            Ok(true) => {
                effect.done("there");
                Some(true)
            }
            Ok(false) => {
                effect.done("gone");
                return Err(Failure::not_found(format!("the registry has no {state} any more")).hint(
                    "go further back with --to 2, or name another digest; --offline goes there without asking",
                ));
            }
            Err(failure) => {
                effect.forget();
                cannot_tell(&state.to_string(), &failure);
                None
            }
        });
    }
    Ok(answers)
}

async fn look(registries: &Registries, state: &ImageState) -> Result<bool> {
    let reference: Reference = state.to_string().parse()?;
    let pointer = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Pointer::Digest(digest.clone()),
        (None, Some(tag)) => Pointer::Tag(tag.clone()),
        (None, None) => return Err(Failure::usage(format!("{state} names no version"))),
    };
    let repository = registries.repository(&reference).await?;
    Ok(repository.resolve(&pointer).await?.is_some())
}

fn cannot_tell(what: &str, failure: &Failure) {
    towpath::cli::note(&format!(
        "whether {what} can still be pulled is not known: {failure}; --offline does not ask"
    ));
}
