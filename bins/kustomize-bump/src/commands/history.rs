//! `history`.

use towpath::cli::{Outcome, Run};
use towpath::failure::Result;

use super::past::Past;
use super::{look, one, place_of};
use crate::args::{OneImageArgs, PlaceArgs};
use crate::message;
use crate::plan::Found;
use crate::report::{HistoryReport, HistoryStep};
use crate::rollback::{self, Step};
use crate::source::Source;

pub(crate) async fn history(
    place: &PlaceArgs,
    image: &OneImageArgs,
    limit: u16,
    run: &Run,
) -> Result<Outcome> {
    let path = place.path()?;
    let mut source = Source::open(place, run).await?;
    let path = source.path_from_root(&path);
    let place = place_of(&source);
    let mut tree = source.tree();
    let (found, _) = look(&tree, &[path]).await?;
    let Found {
        folder,
        file,
        kustomization,
    } = one(found)?;
    let name = kustomization
        .find(&image.image)?
        .map_or(&image.image, |entry| &entry.state.name);
    let mut past = Past::default();
    let (steps, complete) = loop {
        let history = past.history(&tree, &file).await?;
        let (steps, complete) = (rollback::steps(history, &file, name), history.complete);
        // Who made the oldest step is only known once the step before it is seen.
        if complete || steps.len() > usize::from(limit) || !past.deepen(&mut tree, u32::MAX).await? {
            break (steps, complete);
        }
    };
    let more = !complete || steps.len() > usize::from(limit);
    let steps = steps.into_iter().take(usize::from(limit)).map(shown).collect();
    Outcome::report(&HistoryReport {
        changed: false,
        place,
        path: folder,
        image: name.clone(),
        steps,
        more,
    })
}

fn shown(Step { state, revision }: Step) -> HistoryStep {
    let trailer = |key: &str| revision.trailer(key).map(str::to_owned);
    HistoryStep {
        by: format!("{} <{}>", revision.author, revision.email),
        image: state,
        action: trailer(message::ACTION),
        pipeline: trailer(message::PIPELINE),
        source_project: trailer(message::SOURCE_PROJECT),
        source_commit: trailer(message::SOURCE_COMMIT),
        commit: revision.commit,
        date: revision.date,
    }
}
