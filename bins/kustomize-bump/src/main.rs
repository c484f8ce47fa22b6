//! Sets images in kustomizations of an environment repository, takes them back, and holds them there.

mod args;
mod diff;
mod handover;
mod message;
mod plan;
mod report;
mod rollback;
mod source;

use std::process::ExitCode;
use std::time::Instant;

use args::{Args, Command, OneImageArgs, PlaceArgs, RollbackArgs, WishArgs, WriteArgs};
use message::Author;
use plan::{Found, SetPlan, Wish};
use report::{
    FoundImage, GetReport, HistoryReport, HistoryStep, Place, ReleaseReport, RollbackReport, SetReport,
};
use rollback::{Choice, Step, Target};
use source::{Source, Tree};
use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Result};
use towpath::git::{Change, Decision, Files};
use towpath::kustomize::{Hold, HoldSchema, ImageState, file_candidates, hold_folder, hold_path};

fn main() -> ExitCode {
    towpath::cli::run(work)
}

async fn work(args: Args, run: Run) -> anyhow::Result<Outcome> {
    let place = &args.place;
    let outcome = match &args.command {
        Command::Set { wish, write } => {
            run.interruptible("setting images", set(place, wish, write, &run))
                .await?
        }
        Command::Diff { wish } => {
            run.interruptible("comparing images", show(place, wish, &run))
                .await?
        }
        Command::Get { image } => {
            run.interruptible("reading images", get(place, image.as_deref(), &run))
                .await?
        }
        Command::Rollback { rollback, write } => {
            run.interruptible("rolling back", roll_back(place, rollback, write, &run))
                .await?
        }
        Command::Release { image, write } => {
            run.interruptible("releasing the hold", release(place, image, write, &run))
                .await?
        }
        Command::History { image, limit } => {
            run.interruptible("reading history", history(place, image, *limit, &run))
                .await?
        }
    };
    Ok(outcome)
}

fn wish(arguments: &WishArgs) -> Result<Wish> {
    Ok(Wish {
        specs: arguments.specs()?,
        pin: arguments.pin.into(),
        add: arguments.add,
        expect_current: arguments.expect_current.clone(),
    })
}

async fn set(place: &PlaceArgs, arguments: &WishArgs, write: &WriteArgs, run: &Run) -> Result<Outcome> {
    let wish = wish(arguments)?;
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = from_root(&source, &given);
    if write.dry_run {
        let plan = decide_set(&source.tree(), &paths, &wish).await?;
        return Outcome::report(&set_report(&source, plan, true, None, 1));
    }
    let author = Author {
        identity: source::identity(write, &source, run).await?,
        write,
        run,
    };
    let written = source
        .write(write.commit, async |tree| {
            let mut plan = decide_set(&tree, &paths, &wish).await?;
            let changes = std::mem::take(&mut plan.changes);
            let commit = (!changes.is_empty()).then(|| author.set(&plan.files, changes));
            Ok(Decision {
                commit,
                outcome: plan,
            })
        })
        .await?;
    if let Some(path) = &arguments.handoff {
        handover::handoff(arguments, write, &run.trace)?.write(path)?;
    }
    Outcome::report(&set_report(
        &source,
        written.outcome,
        false,
        written.commit,
        written.attempts,
    ))
}

async fn show(place: &PlaceArgs, arguments: &WishArgs, run: &Run) -> Result<Outcome> {
    let wish = wish(arguments)?;
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = from_root(&source, &given);
    let plan = decide_set(&source.tree(), &paths, &wish).await?;
    Outcome::report(&set_report(&source, plan, true, None, 1))
}

async fn decide_set(tree: &Tree<'_>, paths: &[String], wish: &Wish) -> Result<SetPlan> {
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
    SetReport {
        changed: plan.files.iter().any(|file| file.changed),
        dry_run,
        place: place_of(source),
        commit,
        attempts,
        files: plan.files,
        diff,
    }
}

async fn get(place: &PlaceArgs, image: Option<&str>, run: &Run) -> Result<Outcome> {
    let given = place.paths()?;
    let mut source = Source::open(place, run).await?;
    let paths = from_root(&source, &given);
    let place = place_of(&source);
    let tree = source.tree();
    let (found, _) = look(&tree, &paths).await?;
    let mut images = Vec::new();
    for Found {
        folder,
        file,
        kustomization,
    } in &found
    {
        let entries = match image {
            None => kustomization.images().iter().collect(),
            Some(name) => vec![kustomization.find(name)?.ok_or_else(|| unknown(file, name))?],
        };
        let held: Vec<String> = entries
            .iter()
            .map(|entry| hold_path(folder, &entry.state.name))
            .collect();
        let holds = tree.read(&held).await?;
        for (entry, hold) in entries.into_iter().zip(held) {
            images.push(FoundImage {
                path: folder.clone(),
                file: file.clone(),
                line: entry.line,
                state: entry.state.clone(),
                hold: holds
                    .get(&hold)
                    .map(|content| Hold::parse(content, &hold))
                    .transpose()?,
            });
        }
    }
    Outcome::report(&GetReport {
        changed: false,
        place,
        images,
    })
}

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

async fn roll_back(
    place: &PlaceArgs,
    arguments: &RollbackArgs,
    write: &WriteArgs,
    run: &Run,
) -> Result<Outcome> {
    let started = Instant::now();
    let target: Target = arguments.to.parse()?;
    let path = place.path()?;
    let mut source = Source::open(place, run).await?;
    let path = source.from_root(&path);
    let author = Author {
        identity: source::identity(write, &source, run).await?,
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
    towpath::cli::note(&format!("{}: {} -> {}", plan.file, plan.from, plan.choice.state));
    run.confirm(&format!("Roll back, and hold image {} there?", plan.from.name))
        .await
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

async fn release(place: &PlaceArgs, image: &OneImageArgs, write: &WriteArgs, run: &Run) -> Result<Outcome> {
    let path = place.path()?;
    let mut source = Source::open(place, run).await?;
    let path = source.from_root(&path);
    let author = Author {
        identity: source::identity(write, &source, run).await?,
        write,
        run,
    };
    let decide = async |tree: Tree<'_>| -> Result<Decision<(String, String, Option<Hold>)>> {
        let (folder, name) = held_entry(&tree, &path, &image.image).await?;
        let file = hold_path(&folder, &name);
        let holds = tree.read(std::slice::from_ref(&file)).await?;
        let hold = holds
            .get(&file)
            .map(|content| Hold::parse(content, &file))
            .transpose()?;
        let commit = hold.is_some().then(|| {
            author.release(
                &folder,
                &name,
                vec![Change {
                    path: file,
                    content: None,
                }],
            )
        });
        Ok(Decision {
            commit,
            outcome: (folder, name, hold),
        })
    };
    let (commit, (folder, name, hold)) = if write.dry_run {
        (None, decide(source.tree()).await?.outcome)
    } else {
        let written = source.write(write.commit, decide).await?;
        (written.commit, written.outcome)
    };
    Outcome::report(&ReleaseReport {
        changed: hold.is_some(),
        dry_run: write.dry_run,
        place: place_of(&source),
        commit,
        path: folder,
        image: name,
        hold,
    })
}

/// The folder and the name that a hold is filed under. The kustomization may be gone; its hold can be released all
/// the same, by the name that the hold shows.
async fn held_entry(tree: &Tree<'_>, path: &str, image: &str) -> Result<(String, String)> {
    if !tree
        .list(&hold_folder(path))
        .await?
        .contains(&hold_path(path, image))
    {
        let (found, _) = look(tree, &[path.to_owned()]).await?;
        let Found {
            folder,
            file,
            kustomization,
        } = one(found)?;
        let entry = kustomization.find(image)?.ok_or_else(|| unknown(&file, image))?;
        return Ok((folder, entry.state.name.clone()));
    }
    Ok((path.to_owned(), image.to_owned()))
}

async fn history(place: &PlaceArgs, image: &OneImageArgs, limit: u16, run: &Run) -> Result<Outcome> {
    let path = place.path()?;
    let mut source = Source::open(place, run).await?;
    let path = source.from_root(&path);
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
    let steps = loop {
        let (steps, complete) = look_back(&tree, &file, name).await?;
        // Who made the oldest step is only known once the step before it is seen.
        if complete || steps.len() > usize::from(limit) || !tree.deepen().await? {
            break steps;
        }
    };
    let steps = steps.into_iter().take(usize::from(limit)).map(shown).collect();
    Outcome::report(&HistoryReport {
        changed: false,
        place,
        path: folder,
        image: name.clone(),
        steps,
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

async fn look_back(tree: &Tree<'_>, file: &str, image: &str) -> Result<(Vec<Step>, bool)> {
    let history = tree.history(file).await?;
    Ok((rollback::steps(&history, file, image), history.complete))
}

/// Reads the kustomizations at the paths.
async fn look(tree: &Tree<'_>, paths: &[String]) -> Result<(Vec<Found>, Files)> {
    let candidates: Vec<String> = paths.iter().flat_map(|path| file_candidates(path)).collect();
    let files = tree.read(&candidates).await?;
    let found = paths
        .iter()
        .map(|path| plan::find(&files, path))
        .collect::<Result<_>>()?;
    Ok((found, files))
}

fn one(mut found: Vec<Found>) -> Result<Found> {
    found
        .pop()
        .ok_or_else(|| Failure::internal("no kustomization was looked for"))
}

fn unknown(file: &str, image: &str) -> Failure {
    Failure::not_found(format!("{file}: no image {image}"))
        .hint("`kustomize-bump get` lists those that are there")
}

fn from_root(source: &Source, paths: &[String]) -> Vec<String> {
    paths.iter().map(|path| source.from_root(path)).collect()
}

fn place_of(source: &Source) -> Place {
    Place {
        repository: source.repository(),
        branch: source.branch(),
    }
}
