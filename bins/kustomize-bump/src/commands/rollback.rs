//! `rollback`: look, choose where to go, ask the person, and act unless somebody changed the image meanwhile.

use std::time::Instant;

use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Result};
use towpath::git::{Change, Decision};
use towpath::kustomize::{Hold, HoldSchema, ImageState, hold_path};

use super::{look, look_back, one, place_of, unknown};
use crate::args::{PlaceArgs, RollbackArgs, WriteArgs};
use crate::diff;
use crate::message::Author;
use crate::plan::Found;
use crate::report::RollbackReport;
use crate::rollback::{self, Choice, Target};
use crate::source::{self, Source, Tree};

/// What a rollback comes down to on one tip.
#[derive(Debug)]
struct RollbackPlan {
    folder: String,
    file: String,
    from: ImageState,
    choice: Choice,
    hold: Hold,
    changes: Vec<Change>,
    diff: String,
}

pub(crate) async fn roll_back(
    place: &PlaceArgs,
    arguments: &RollbackArgs,
    write: &WriteArgs,
    run: &Run,
) -> Result<Outcome> {
    let started = Instant::now();
    let target: Target = arguments.to.parse()?;
    let path = place.path()?;
    let mut source = Source::open(place, run).await?;
    let path = source.path_from_root(&path);
    let author = Author {
        identity: source::identity(write, &source, run).await?,
        signing: write.signing()?,
        write,
        run,
    };
    let decide =
        async |mut tree: Tree<'_>| decide_rollback(&mut tree, &path, arguments, &target, &author).await;
    let report =
        |source: &Source, plan: RollbackPlan, dry_run: bool, commit: Option<String>| RollbackReport {
            changed: !plan.changes.is_empty(),
            dry_run,
            place: place_of(source),
            commit,
            path: plan.folder,
            file: plan.file,
            image: plan.from.name.clone(),
            from: plan.from,
            to: plan.choice.state,
            taken_from_commit: plan.choice.commit,
            hold: plan.hold,
            seconds: started.elapsed().as_secs_f64(),
            diff: plan.diff,
        };

    let preview = decide(source.tree()).await?;
    if write.dry_run || preview.changes.is_empty() {
        return Outcome::report(&report(&source, preview, write.dry_run, None));
    }
    if !arguments.yes && !arguments.ci && !approved(&preview, run).await? {
        let refused = Failure::deadline(format!(
            "the rollback of image {} is not confirmed",
            preview.from.name
        ))
        .hint("pass --yes to act without asking");
        return Ok(Outcome::report(&report(&source, preview, true, None))?.failing(refused));
    }
    let written = source
        .write(write.commit, async |tree| {
            let mut plan = decide(tree).await?;
            if plan.choice.state != preview.choice.state {
                return Err(Failure::conflict(format!(
                    "the way back changed from {} to {} meanwhile",
                    preview.choice.state, plan.choice.state
                ))
                .hint("somebody else changed the image; look again, then name the digest with --to"));
            }
            let changes = plan.changes.clone();
            let commit = (!changes.is_empty()).then(|| {
                author.rollback(
                    &plan.folder,
                    &plan.from,
                    &plan.choice.state,
                    &plan.hold.reason,
                    changes,
                )
            });
            plan.diff.clone_from(&preview.diff);
            Ok(Decision {
                commit,
                outcome: plan,
            })
        })
        .await?;
    Outcome::report(&report(&source, written.outcome, false, written.commit))
}

async fn approved(plan: &RollbackPlan, run: &Run) -> Result<bool> {
    let question = format!(
        "{}\n  from {}\n  to   {}\nRoll back, and hold it there?",
        plan.file, plan.from, plan.choice.state
    );
    run.confirm(&question).await
}

async fn decide_rollback(
    tree: &mut Tree<'_>,
    path: &str,
    arguments: &RollbackArgs,
    target: &Target,
    author: &Author<'_>,
) -> Result<RollbackPlan> {
    let (found, _) = look(tree, &[path.to_owned()]).await?;
    let Found {
        folder,
        file,
        kustomization,
    } = one(found)?;
    let asked = &arguments.image.image;
    let from = kustomization
        .find(asked)?
        .ok_or_else(|| unknown(&file, asked))?
        .state
        .clone();
    let hold_file = hold_path(&folder, &from.name);
    let holds = tree.read(std::slice::from_ref(&hold_file)).await?;
    let standing = holds
        .get(&hold_file)
        .map(|content| Hold::parse(content, &hold_file))
        .transpose()?;
    // A hold on something else is left over from a change by hand, and says nothing about this failure.
    let standing = standing.filter(|hold| hold.held_at == from.to_string());
    let failing = standing.as_ref().map(|hold| hold.taken_from.as_str());
    let choice = loop {
        let (steps, complete) = look_back(tree, &file, &from.name).await?;
        if let Some(choice) = rollback::choose(&steps, complete, &from, failing, target)? {
            break choice;
        }
        if !tree.deepen().await? {
            return Err(Failure::not_found(format!(
                "the history that is here says too little about image {}",
                from.name
            ))
            .hint("git fetch --unshallow, or name a digest with --to sha256:..."));
        }
    };
    let edit = kustomization.restore(&choice.state)?;
    let hold = match standing {
        Some(hold) if !edit.changed() => hold,
        _ => Hold {
            schema: HoldSchema::V1,
            path: folder.clone(),
            image: from.name.clone(),
            held_at: edit.new.to_string(),
            digest: edit.new.digest.clone(),
            taken_from: failing.map_or_else(|| from.to_string(), str::to_owned),
            by: author.identity.to_string(),
            since: Hold::moment(),
            reason: arguments.reason.clone(),
        },
    };
    let mut changes = Vec::new();
    if edit.changed() {
        changes.push(Change {
            path: file.clone(),
            content: Some(edit.text.clone().into_bytes()),
        });
    }
    if holds.get(&hold_file) != Some(hold.document()?.as_bytes()) {
        changes.push(Change {
            path: hold_file,
            content: Some(hold.document()?.into_bytes()),
        });
    }
    let diff = diff::unified(&file, kustomization.text(), &edit.text);
    Ok(RollbackPlan {
        folder,
        file,
        from,
        choice,
        hold,
        changes,
        diff,
    })
}
