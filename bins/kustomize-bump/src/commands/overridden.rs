//! The open merge requests that would set what has just been held: they would land after the hold, and past it.

use std::time::Duration;

use towpath::cli::Run;
use towpath::failure::{Failure, Kind, Result};
use towpath::gitlab::Client;

use super::gitlab;
use super::propose::close;
use crate::args::PlaceArgs;
use crate::merge_request::{self, HeldHere};
use crate::source::Source;

/// How long GitLab may take: the hold is on the branch already, and somebody waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// Closes them where GitLab can be asked, and says which are left otherwise. Gives the numbers of those that it closed.
pub(super) async fn close_overridden(
    place: &PlaceArgs,
    source: &Source,
    held: &[HeldHere],
    why: &str,
    run: &Run,
) -> Vec<u64> {
    let mut closed = Vec::new();
    let looked = tokio::time::timeout(PATIENCE, close_all(place, source, held, why, run, &mut closed)).await;
    let looked = looked.unwrap_or_else(|_| Err(Failure::unavailable("GitLab took too long")));
    if let Err(failure) = looked {
        towpath::cli::note(&format!(
            "whether open merge requests would set a held image is not known: {failure}"
        ));
    }
    closed
}

async fn close_all(
    place: &PlaceArgs,
    source: &Source,
    held: &[HeldHere],
    why: &str,
    run: &Run,
    closed: &mut Vec<u64>,
) -> Result<()> {
    let (client, project, target) = match source {
        Source::Api(branch) => (branch.client().clone(), branch.project().clone(), branch.branch()),
        Source::Remote { snapshot, .. } => {
            let Some((api, project)) = gitlab::address(place)? else {
                return Ok(());
            };
            let Some(token) = gitlab::token(place, &api)? else {
                return Ok(());
            };
            let deadline = run.deadline.within(PATIENCE);
            let client = Client::new(gitlab::settings(place), api, token, deadline)?;
            (client, project, snapshot.branch())
        }
        Source::Checkout(_) => return Ok(()),
    };
    let open = match client.open_merge_requests(&project, target, None).await {
        // A token for git alone says nothing about merge requests, and git is all that was asked for.
        Err(failure)
            if matches!(source, Source::Remote { .. })
                && matches!(failure.kind(), Kind::Denied | Kind::NotFound) =>
        {
            return Ok(());
        }
        open => open?,
    };
    for request in merge_request::overridden(&open, held) {
        match close(&client, &project, request, why).await {
            Ok(()) => closed.push(request.iid),
            Err(failure) => {
                let page = request.web_url.clone();
                let page = page.unwrap_or_else(|| format!("{project}!{}", request.iid));
                towpath::cli::note(&format!(
                    "{page} would set an image that is held now, and could not be closed ({failure}): close it"
                ));
            }
        }
    }
    Ok(())
}
