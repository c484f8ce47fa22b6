//! `set` and `diff`.

use towpath::cli::{Outcome, Run};
use towpath::failure::Result;
use towpath::git::Decision;
use towpath::handoff::{ENV_COMMIT, Handoff};

use super::moved::refuse_held_before_a_move;
use super::order::Guard;
use super::propose::propose;
use super::{follow, look, paths_from_root, place_of};
use crate::args::{MergeRequestArgs, OrderArgs, PlaceArgs, WishArgs, WriteArgs};
use crate::merge_request::{Action, Purpose};
use crate::message::Author;
use crate::plan::{self, SetPlan, Wish};
use crate::report::SetReport;
use crate::source::{self, Source, Tree};
use crate::{diff, handover};

pub(crate) async fn set(
    place: &PlaceArgs,
    arguments: &WishArgs,
    order: &OrderArgs,
    write: &WriteArgs,
    merge_request: &MergeRequestArgs,
    run: &Run,
) -> Result<Outcome> {
    let wish = wish(arguments)?;
    let given = place.paths()?;
    let mut guard = Guard::new(place, order, write, run)?;
    // Whatever is wrong with the handoff has to be known before anything is committed.
    let handoff = match &arguments.handoff {
        Some(path) => {
            Handoff::check_place(path)?;
            Some((path, handover::handoff(arguments, write, &run.trace)?))
        }
        None => None,
    };
    let mut source = Source::open(place, run).await?;
    let paths = paths_from_root(&source, &given);
    if write.dry_run {
        let plan = decide_guarded(source.tree(), &paths, &wish, &mut guard).await?;
        return Outcome::report(&set_report(&source, plan, true, None, 1));
    }
    let author = Author {
        identity: source::committer(write, &source, run).await?,
        signing: write.signing()?,
        write,
        run,
    };
    let decide = async |tree: Tree<'_>| {
        let mut plan = decide_guarded(tree, &paths, &wish, &mut guard).await?;
        let changes = std::mem::take(&mut plan.changes);
        let commit = (!changes.is_empty()).then(|| author.set(&plan, changes));
        Ok(Decision {
            commit,
            outcome: plan,
        })
    };
    let done = if merge_request.merge_request {
        let purpose = Purpose::new(
            Action::Set,
            &paths,
            wish.specs.iter().map(|spec| spec.name.clone()),
        );
        propose(&mut source, merge_request, &purpose, run, |_| Vec::new(), decide).await?
    } else {
        source.write(write.commit, decide).await?.into()
    };
    // What is not on the branch yet is nothing that a later job may count on.
    let is_there = done.merge_request.is_none() || done.commit.is_some();
    if let Some((path, mut handoff)) = handoff.filter(|_| is_there) {
        // Where nothing had to change, the tip that says so is as good as a commit of ours.
        if let Some(commit) = done.commit.clone().or_else(|| source.tip()) {
            handoff.set(ENV_COMMIT, &commit)?;
        }
        handoff.write(path)?;
    }
    let mut report = set_report(&source, done.outcome, false, done.commit, done.attempts);
    report.merge_request = done.merge_request;
    let outcome = Outcome::report(&report)?;
    Ok(match done.failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

pub(crate) async fn show(place: &PlaceArgs, arguments: &WishArgs, run: &Run) -> Result<Outcome> {
    let wish = wish(arguments)?;
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = paths_from_root(&source, &given);
    let plan = decide_set(&source.tree(), &paths, &wish).await?;
    Outcome::report(&set_report(&source, plan, true, None, 1))
}

/// Decides on one tip, and asks whether what is there is newer. A lost race asks again, on the new tip.
async fn decide_guarded(
    mut tree: Tree<'_>,
    paths: &[String],
    wish: &Wish,
    guard: &mut Option<Guard<'_>>,
) -> Result<SetPlan> {
    let plan = decide_set(&tree, paths, wish).await?;
    refuse_held_before_a_move(&tree, &plan).await?;
    if let Some(guard) = guard {
        guard.check(&mut tree, &plan).await?;
    }
    Ok(plan)
}

async fn decide_set(tree: &Tree<'_>, paths: &[String], wish: &Wish) -> Result<SetPlan> {
    if wish.follow {
        let followed = follow(tree, paths).await?;
        let holds = tree.read(&followed.hold_files(wish)).await?;
        return crate::follow::set(&followed, &holds, wish);
    }
    let (found, files) = look(tree, paths).await?;
    let holds = tree.read(&wish.hold_files(&found)?).await?;
    plan::set(&found, &files, &holds, wish)
}

fn set_report(
    source: &Source,
    plan: SetPlan,
    dry_run: bool,
    commit: Option<String>,
    attempts: u32,
) -> SetReport {
    let diff = plan
        .texts
        .iter()
        .map(|(file, before, after)| diff::unified(file, before, after))
        .collect();
    for note in &plan.notes {
        towpath::cli::note(note);
    }
    SetReport {
        changed: plan.files.iter().any(|file| file.changed),
        dry_run,
        place: place_of(source),
        commit,
        merge_request: None,
        attempts,
        files: plan.files,
        notes: plan.notes,
        diff,
    }
}

fn wish(arguments: &WishArgs) -> Result<Wish> {
    Ok(Wish {
        specs: arguments.specs()?,
        pin: arguments.pin.into(),
        add: arguments.add,
        where_present: arguments.where_present,
        follow: arguments.follow,
        expect_current: arguments.expect_current.clone(),
    })
}
