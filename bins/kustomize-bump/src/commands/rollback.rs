//! `rollback`: look, choose where to go, ask the person, and act unless somebody changed the images meanwhile.

use std::time::Instant;

use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Result};
use towpath::git::{Change, Decision, Identity};
use towpath::kustomize::{Edit, Hold, HoldSchema, ImageState, Kustomization};
use towpath::oci::Digest;

use super::deployed::{Deployed, Looked};
use super::overridden::close_overridden;
use super::past::Past;
use super::propose::{by_api, propose};
use super::{look, paths_from_root, place_of, registry, standing_hold, unknown};
use crate::args::{MergeRequestArgs, PlaceArgs, RollbackArgs, WriteArgs};
use crate::diff;
use crate::merge_request::{Action, Purpose};
use crate::message::Author;
use crate::plan::Found;
use crate::report::{RollbackReport, RolledBack};
use crate::rollback::{self, Choice, KnownBy, Outlook, Target, state_in};
use crate::source::{self, Source, Tree};

/// How many times history is fetched further for the tag that goes with a digest: to some 500 commits.
const FAR_ENOUGH: u32 = 2;

/// What is asked for.
struct Wanted<'run> {
    images: Vec<&'run str>,
    target: Target,
    reason: &'run str,
    /// The digest that failed, where that is known.
    expect_current: Option<&'run Digest>,
}

/// What a rollback comes down to on one tip.
#[derive(Debug)]
struct RollbackPlan {
    images: Vec<Planned>,
    changes: Vec<Change>,
    diff: String,
}

/// One image of one file.
#[derive(Debug)]
struct Planned {
    report: RolledBack,
    /// The hold that stood before.
    standing: Option<Hold>,
}

pub(crate) async fn roll_back(
    place: &PlaceArgs,
    arguments: &RollbackArgs,
    write: &WriteArgs,
    merge_request: &MergeRequestArgs,
    run: &Run,
) -> Result<Outcome> {
    let started = Instant::now();
    let wanted = Wanted {
        images: arguments.hold.images.images(),
        target: arguments.to.parse()?,
        reason: &arguments.hold.reason,
        expect_current: arguments.expect_current.as_ref(),
    };
    let given = place.paths()?;
    if arguments.offline && merge_request.merge_request {
        return Err(
            Failure::usage("--offline does without GitLab's API, and a merge request goes by it")
                .hint("leave --offline (TOWPATH_OFFLINE) or --merge-request (TOWPATH_MERGE_REQUEST) away"),
        );
    }
    let mut source = match arguments.offline {
        true => Source::open_offline(place, run).await?,
        false => Source::open(place, run).await?,
    };
    if merge_request.merge_request {
        by_api(&mut source)?;
    }
    let mut deployed = Deployed::open(place, arguments, run)?;
    let paths = paths_from_root(&source, &given);
    let author = Author {
        identity: match source::identity(write, &source, run).await {
            Err(_) if write.dry_run => source::nobody()?,
            found => found?,
        },
        signing: write.signing()?,
        write,
        run,
    };
    let report =
        |source: &Source, plan: RollbackPlan, dry_run: bool, commit: Option<String>, attempts: u32| {
            RollbackReport {
                changed: plan.images.iter().any(|image| image.report.changed),
                dry_run,
                place: place_of(source),
                commit,
                merge_request: None,
                closed_merge_requests: Vec::new(),
                attempts,
                images: plan.images.into_iter().map(|image| image.report).collect(),
                seconds: started.elapsed().as_secs_f64(),
                diff: plan.diff,
            }
        };

    let by = &author.identity;
    let mut preview = decide(source.tree(), &paths, &wanted, &mut deployed, by).await?;
    if !arguments.offline {
        let states: Vec<&ImageState> = preview.images.iter().map(|image| &image.report.to).collect();
        let answers = registry::check(&states, &arguments.registry, run).await?;
        for (image, answer) in preview.images.iter_mut().zip(answers) {
            image.report.in_registry = answer;
        }
    }
    let held = |plan: &RollbackPlan| {
        let images = plan.images.iter();
        images
            .map(|image| image.report.here(&wanted.images))
            .collect::<Vec<_>>()
    };
    if write.dry_run {
        return Outcome::report(&report(&source, preview, true, None, 1));
    }
    if preview.changes.is_empty() {
        let held = held(&preview);
        let mut report = report(&source, preview, false, None, 1);
        if !arguments.offline {
            report.closed_merge_requests = close_overridden(place, &source, &held, &author.held(), run).await;
        }
        return Outcome::report(&report);
    }
    if !arguments.yes && !arguments.ci && !approved(&preview, run).await? {
        let names: Vec<&str> = preview
            .images
            .iter()
            .map(|image| image.report.image.as_str())
            .collect();
        let refused = Failure::deadline(format!(
            "the rollback of image {} is not confirmed",
            names.join(", ")
        ))
        .hint("pass --yes to act without asking");
        return Ok(Outcome::report(&report(&source, preview, true, None, 1))?.failing(refused));
    }
    let decide = async |tree: Tree<'_>| {
        let mut plan = decide(tree, &paths, &wanted, &mut deployed, by).await?;
        agree(&preview, &mut plan)?;
        let changes = std::mem::take(&mut plan.changes);
        let commit = (!changes.is_empty()).then(|| {
            let changed: Vec<RolledBack> = plan
                .images
                .iter()
                .filter(|image| image.report.changed)
                .map(|image| image.report.clone())
                .collect();
            author.rollback(&changed, wanted.reason, changes)
        });
        Ok(Decision {
            commit,
            outcome: plan,
        })
    };
    let done = if merge_request.merge_request {
        let images = wanted.images.iter().map(|image| (*image).to_owned());
        let purpose = Purpose::new(Action::Rollback, &paths, images);
        propose(&mut source, merge_request, &purpose, run, held, decide).await?
    } else {
        source.write(write.commit, decide).await?.into()
    };
    let held = held(&done.outcome);
    let mut report = report(&source, done.outcome, false, done.commit, done.attempts);
    if done.merge_request.is_none() && !arguments.offline {
        report.closed_merge_requests = close_overridden(place, &source, &held, &author.held(), run).await;
    }
    report.merge_request = done.merge_request;
    let outcome = Outcome::report(&report)?;
    Ok(match done.failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

/// Whether what is decided now is what was shown and agreed to, whatever happened to the branch meanwhile.
fn agree(preview: &RollbackPlan, plan: &mut RollbackPlan) -> Result<()> {
    if plan.images.len() != preview.images.len() {
        return Err(Failure::conflict(format!(
            "the paths name {} images now, and named {} when they were shown",
            plan.images.len(),
            preview.images.len()
        ))
        .hint("somebody else added or removed a kustomization; look again"));
    }
    for (shown, image) in preview.images.iter().zip(&mut plan.images) {
        image.report.in_registry = shown.report.in_registry;
        let (shown, now) = (&shown.report, &image.report);
        if now.to != shown.to || now.file != shown.file || now.image != shown.image {
            return Err(Failure::conflict(format!(
                "the way back of image {} changed from {} to {} meanwhile",
                now.image, shown.to, now.to
            ))
            .hint("somebody else changed the image; look again, then name the digest with --to"));
        }
        // Another person's rollback, to somewhere else, is not undone unseen.
        if let Some(hold) = image.standing.as_ref()
            && Some(hold) != preview_hold(preview, now)
            && now.to != now.from
        {
            return Err(Failure::conflict(format!(
                "image {} in {} was held at {} by {} meanwhile: {}",
                now.image, now.path, hold.held_at, hold.by, hold.reason
            ))
            .hint("agree on where to go, then run it again"));
        }
    }
    Ok(())
}

fn preview_hold<'plan>(preview: &'plan RollbackPlan, image: &RolledBack) -> Option<&'plan Hold> {
    let mut images = preview.images.iter();
    images
        .find(|shown| shown.report.file == image.file && shown.report.image == image.image)
        .and_then(|shown| shown.standing.as_ref())
}

async fn approved(plan: &RollbackPlan, run: &Run) -> Result<bool> {
    let mut question = String::new();
    for Planned { report, .. } in &plan.images {
        let pulled = match report.in_registry {
            Some(_) => "the registry has it",
            None => "the registry was not asked, or cannot tell",
        };
        question.push_str(&format!(
            "{}\n  from {}\n  to   {}\n       {}; {pulled}\n",
            report.file,
            report.from,
            report.to,
            report.origin()
        ));
    }
    question.push_str("Roll back, and hold it there?");
    run.confirm(&question).await
}

async fn decide(
    mut tree: Tree<'_>,
    paths: &[String],
    wanted: &Wanted<'_>,
    deployed: &mut Option<Deployed>,
    by: &Identity,
) -> Result<RollbackPlan> {
    let (found, _) = look(&tree, paths).await?;
    // A name that is wrong is told before anything is fetched for one that is right.
    for found in &found {
        for asked in &wanted.images {
            if found.kustomization.find(asked)?.is_none() {
                return Err(unknown(&found.file, asked));
            }
        }
    }
    let mut past = Past::default();
    let mut plan = RollbackPlan {
        images: Vec::new(),
        changes: Vec::new(),
        diff: String::new(),
    };
    for found in found {
        let mut current = found.kustomization.clone();
        let mut done: Vec<String> = Vec::new();
        for asked in &wanted.images {
            let entry = current.find(asked)?.ok_or_else(|| unknown(&found.file, asked))?;
            let from = entry.state.clone();
            // Two of its names are one image.
            if done.contains(&from.name) {
                continue;
            }
            done.push(from.name.clone());
            let (hold_file, stands) = standing_hold(&tree, &found.folder, &from.name).await?;
            // A hold on something else is left over from a change by hand, and says nothing about this failure.
            let standing = stands.clone().filter(|hold| hold.held_at == from.to_string());
            let failing = standing.as_ref().and_then(|hold| hold.taken_from.as_deref());
            if let Some(expected) = wanted.expect_current {
                refuse_another(&found.file, &from, failing, expected)?;
            }
            let choice = choose(
                &mut tree,
                &mut past,
                deployed,
                wanted,
                &found.file,
                &from,
                failing,
            )
            .await?;
            let edit = current.restore(&choice.state)?;
            if edit.changed() {
                current = Kustomization::parse(&found.file, edit.text.as_bytes())?;
            }
            let hold = next_hold(&found, &edit, &from, standing.as_ref(), wanted, by);
            let holds_anew = stands.as_ref() != Some(&hold);
            if holds_anew {
                plan.changes.push(Change {
                    path: hold_file,
                    content: Some(hold.document()?.into_bytes()),
                });
            }
            plan.images.push(Planned {
                report: RolledBack {
                    path: found.folder.clone(),
                    file: found.file.clone(),
                    image: from.name.clone(),
                    changed: edit.changed() || holds_anew,
                    from,
                    to: edit.new,
                    known_by: choice.known_by,
                    taken_from_commit: choice.commit,
                    taken_from_date: choice.date,
                    in_registry: None,
                    hold,
                },
                standing,
            });
        }
        let (before, after) = (found.kustomization.text(), current.text());
        if before != after {
            plan.changes.push(Change {
                path: found.file.clone(),
                content: Some(after.as_bytes().to_vec()),
            });
            plan.diff.push_str(&diff::unified(&found.file, before, after));
        }
    }
    refuse_one_digest_for_several(&plan, &wanted.target)?;
    Ok(plan)
}

/// Whoever acts on a failure that it saw must not take back what somebody else put there since.
fn refuse_another(file: &str, from: &ImageState, failing: Option<&str>, expected: &Digest) -> Result<()> {
    let is_there = from.digest.as_deref() == Some(expected.as_str());
    let was_taken_back = failing.is_some_and(|failing| failing.ends_with(expected.as_str()));
    if is_there || was_taken_back {
        return Ok(());
    }
    Err(Failure::conflict(format!(
        "{file} has image {from}, and not {expected}, which is to be taken back"
    ))
    .hint("somebody else changed it meanwhile; nothing was rolled back"))
}

/// The hold after the rollback: the one that stands already, where nothing moves.
fn next_hold(
    found: &Found,
    edit: &Edit,
    from: &ImageState,
    standing: Option<&Hold>,
    wanted: &Wanted<'_>,
    by: &Identity,
) -> Hold {
    if let (Some(hold), false) = (standing, edit.changed()) {
        return hold.clone();
    }
    let (from, held_at) = (from.to_string(), edit.new.to_string());
    let failing = standing.and_then(|hold| hold.taken_from.clone());
    Hold {
        schema: HoldSchema::V1,
        path: found.folder.clone(),
        image: edit.new.name.clone(),
        digest: edit.new.digest.clone(),
        // Whoever goes on to what failed before takes it back from where it is.
        taken_from: failing
            .filter(|failing| *failing != held_at)
            .or(Some(from))
            .filter(|from| *from != held_at),
        held_at,
        by: by.to_string(),
        since: Hold::moment(),
        reason: wanted.reason.to_owned(),
    }
}

fn refuse_one_digest_for_several(plan: &RollbackPlan, target: &Target) -> Result<()> {
    let mut names: Vec<&str> = plan
        .images
        .iter()
        .map(|image| image.report.image.as_str())
        .collect();
    names.dedup();
    if matches!(target, Target::Digest(_)) && names.len() > 1 {
        return Err(
            Failure::usage(format!("one digest is given for the images {}", names.join(", ")))
                .hint("roll them back one by one, or give a number or a commit with --to"),
        );
    }
    Ok(())
}

/// Chooses where one image goes, looking back as far as it takes.
async fn choose(
    tree: &mut Tree<'_>,
    past: &mut Past,
    deployed: &mut Option<Deployed>,
    wanted: &Wanted<'_>,
    file: &str,
    current: &ImageState,
    failing: Option<&str>,
) -> Result<Choice> {
    let mut by_deployments = deployed.as_mut();
    loop {
        if let Target::Commit(prefix) = &wanted.target {
            if let Some(commit) = past.commit(tree, prefix).await? {
                return at_commit(tree, &commit, file, &current.name).await;
            }
            if past.deepen(tree, u32::MAX).await? {
                continue;
            }
            return Err(
                Failure::not_found(format!("no commit {prefix} in the history of the branch"))
                    .hint("`kustomize-bump history` lists those that set the image"),
            );
        }
        let history = past.history(tree, file).await?.clone();
        let steps = rollback::steps(&history, file, &current.name);
        let outlook = Outlook {
            steps: &steps,
            complete: history.complete,
            current,
            failing,
        };
        let (choice, times) = match &wanted.target {
            Target::Digest(digest) => (outlook.at_digest(digest), FAR_ENOUGH),
            Target::Commit(_) => (None, u32::MAX),
            Target::Back(back) => {
                if let Some(deployments) = &mut by_deployments {
                    let looked = deployments
                        .back(tree, past, &history, file, &outlook, *back)
                        .await?;
                    let missing = match looked {
                        Looked::Found(choice) => return Ok(choice),
                        Looked::Short(missing) => missing,
                    };
                    if deployments.more().await? || (missing > 0 && past.deepen(tree, u32::MAX).await?) {
                        continue;
                    }
                    towpath::cli::note(&format!(
                        "GitLab knows no {back} earlier successful deployments of image {} to {}; going by the \
                         repository's history",
                        current.name,
                        deployments.environment()
                    ));
                    by_deployments = None;
                }
                (outlook.back(*back), u32::MAX)
            }
        };
        if let Some(choice) = choice {
            return Ok(choice);
        }
        if past.deepen(tree, times).await? {
            continue;
        }
        return match &wanted.target {
            Target::Digest(digest) => Ok(outlook.bare_digest(digest)),
            Target::Back(_) if !history.complete => Err(Failure::not_found(format!(
                "{file}: the history that is here says too little about image {}",
                current.name
            ))
            .hint("git fetch --unshallow, or name a digest with --to sha256:...")),
            Target::Back(back) => Err(outlook.nothing_back(file, *back)),
            Target::Commit(_) => Err(Failure::internal("a commit was looked for in two ways")),
        };
    }
}

async fn at_commit(tree: &Tree<'_>, commit: &str, file: &str, image: &str) -> Result<Choice> {
    let content = tree.content_at(commit, file).await?;
    let state = content.and_then(|content| state_in(&content, file, image));
    let state = state.ok_or_else(|| {
        Failure::not_found(format!("{file} says nothing of image {image} at {commit}"))
            .hint("`kustomize-bump history` lists the commits that set it")
    })?;
    Ok(Choice {
        state,
        commit: Some(commit.to_owned()),
        date: None,
        known_by: KnownBy::History,
    })
}
