//! The order of effects of a promotion: look at everything, decide, then act, and the handoff last.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt as _};
use towpath::cli::{Outcome, Run};
use towpath::failure::{Failure, Result};
use towpath::handoff::{self, Handoff};
use towpath::oci::copy::{
    BlobCheck, Copier, CopySettings, ImageReference, Journal, Look, Traffic, read_batch,
};
use towpath::oci::{Digest, Registries};

use crate::args::{PromotionArgs, Proof};
use crate::plan::{self, Group, Wanted};
use crate::report::PromotionReport;

/// How many images of a batch are under way at once.
const AT_ONCE: usize = 4;

/// Promotes an image or a batch, or with `dry_run` says what that would do.
///
/// # Errors
/// As [`plan::decide`] and [`Copier::look`]; what befell a target is in the report.
pub(crate) async fn promote(args: &PromotionArgs, dry_run: bool, run: &Run) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let lines = match &args.batch {
        Some(path) => Some(run.interruptible("reading the batch", read_batch(path)).await?),
        None => None,
    };
    let wanted = plan::decide(args, lines)?;
    if let Some(path) = &args.handoff {
        Handoff::check_place(path)?;
        check_handed_over(&wanted)?;
    }
    let registries = registries(args, &wanted, run)?;
    let mut report = PromotionReport::new(&wanted, dry_run);
    let cut_short = match &wanted {
        Wanted::One(group) => {
            one(args, group, &registries, &mut report, dry_run, run).await?;
            None
        }
        Wanted::Many(groups) => many(args, groups, &registries, &mut report, dry_run, run).await?,
    };
    let first = report.finish(registries.requests_sent(), started.elapsed());
    let failure = cut_short.or(first);
    let outcome = Outcome::report(&report)?;
    Ok(match failure {
        Some(failure) => outcome.failing(failure),
        None => outcome,
    })
}

async fn one(
    args: &PromotionArgs,
    group: &Group,
    registries: &Registries,
    report: &mut PromotionReport,
    dry_run: bool,
    run: &Run,
) -> Result<()> {
    let (targets, traffic) = (group.targets(), Traffic::new(args.concurrency.get()));
    let opening = Copier::new(&group.source, &targets, registries, &traffic, settings(args));
    let copier = run.interruptible("looking for logins", opening).await?;
    let looking = format!("looking at {} and its targets", group.source);
    let look = async { copier.look().await?.all_or_none() };
    let look = run.interruptible(&looking, look).await?;
    let rows: Vec<usize> = (0..group.edges.len()).collect();
    report.looked(&rows, &look);
    if dry_run {
        let foresee = async { copier.foresee(look).await.into_iter().collect::<Result<Vec<_>>>() };
        let foreseen = run.interruptible(&looking, foresee).await?;
        for (row, foreseen) in foreseen.into_iter().enumerate() {
            report.foresee(row, Ok(foreseen));
        }
        return Ok(());
    }

    // Whatever is wrong with it has to be known before a tag is written.
    let handoff = match &args.handoff {
        Some(path) => {
            let mut handoff = Handoff::read_or_new(path)?;
            hand_over(&mut handoff, args, &group.edges[0].target, look.digest(), run)?;
            Some((path, handoff))
        }
        None => None,
    };
    let journal = journal(args, run)?;
    let outcomes = copier.act(look, journal.as_ref(), run.interrupted()).await?;
    let first_is_there = matches!(outcomes.first(), Some(Ok(done)) if done.unproven.is_none());
    for (row, outcome) in outcomes.into_iter().enumerate() {
        report.conclude(row, outcome);
    }
    match handoff.filter(|_| first_is_there) {
        Some((path, handoff)) => handoff.write(path),
        None => Ok(()),
    }
}

/// An image of a batch on its way.
struct Opened {
    copier: Copier,
    /// The places of its targets in the report.
    rows: Vec<usize>,
}

/// Promotes each image of a batch, or foresees it. Gives back what cut that short before anything was written: every
/// target that it left out says so in the report.
async fn many(
    args: &PromotionArgs,
    groups: &[Group],
    registries: &Registries,
    report: &mut PromotionReport,
    dry_run: bool,
    run: &Run,
) -> Result<Option<Failure>> {
    let (settings, traffic) = (settings(args), Traffic::new(args.concurrency.get()));
    // All of them first, so that one token is asked for at each registry.
    let opening = async {
        let mut opened = Vec::with_capacity(groups.len());
        let mut first = 0;
        for group in groups {
            let rows: Vec<usize> = (first..first + group.edges.len()).collect();
            first += rows.len();
            opened.extend(open(group, rows, registries, &traffic, &settings, report).await);
        }
        Ok::<_, Failure>(opened)
    };
    let opened = match run.interruptible("looking for logins", opening).await {
        Ok(opened) => opened,
        Err(failure) => return Ok(Some(report.cut_short(failure, &BTreeSet::new()))),
    };
    let looking = async {
        let look = async |opened: Opened| (opened.copier.look().await, opened);
        let looked = stream::iter(opened).map(look).buffered(AT_ONCE);
        Ok::<_, Failure>(looked.collect::<Vec<_>>().await)
    };
    let what = "looking at the images of the batch and their targets";
    let looked = match run.interruptible(what, looking).await {
        Ok(looked) => looked,
        Err(failure) => return Ok(Some(report.cut_short(failure, &BTreeSet::new()))),
    };
    let mut ready: Vec<(Opened, Look)> = Vec::with_capacity(looked.len());
    for (look, opened) in looked {
        match look {
            Ok(look) => {
                report.looked(&opened.rows, &look);
                ready.push((opened, look));
            }
            Err(failure) => report.fail_all(&opened.rows, failure),
        }
    }
    if dry_run {
        let foresee = async |(opened, look): (Opened, Look)| (opened.copier.foresee(look).await, opened.rows);
        let mut foreseen_rows = BTreeSet::new();
        let foreseeing = async {
            let mut foreseeing = stream::iter(ready).map(foresee).buffered(AT_ONCE);
            while let Some((foreseen, rows)) = foreseeing.next().await {
                for (row, foreseen) in rows.into_iter().zip(foreseen) {
                    report.foresee(row, foreseen);
                    foreseen_rows.insert(row);
                }
            }
            Ok::<_, Failure>(())
        };
        let what = "looking at what the batch's targets have";
        return Ok(match run.interruptible(what, foreseeing).await {
            Ok(()) => None,
            Err(failure) => Some(report.cut_short(failure, &foreseen_rows)),
        });
    }
    let journal = journal(args, run)?;
    let act = async |(opened, look): (Opened, Look)| {
        let acting = opened.copier.act(look, journal.as_ref(), run.interrupted());
        (acting.await, opened.rows)
    };
    let mut acting = stream::iter(ready).map(act).buffer_unordered(AT_ONCE);
    while let Some((outcomes, rows)) = acting.next().await {
        match outcomes {
            Ok(outcomes) => {
                for (row, outcome) in rows.into_iter().zip(outcomes) {
                    report.conclude(row, outcome);
                }
            }
            Err(failure) => report.fail_all(&rows, failure),
        }
    }
    Ok(None)
}

/// Opens an image with those of its targets that can be opened; the others are in the report.
async fn open(
    group: &Group,
    rows: Vec<usize>,
    registries: &Registries,
    traffic: &Arc<Traffic>,
    settings: &CopySettings,
    report: &mut PromotionReport,
) -> Option<Opened> {
    let open = async |targets: &[ImageReference]| {
        Copier::new(&group.source, targets, registries, traffic, settings.clone()).await
    };
    let all = open(&group.targets()).await;
    if let Ok(copier) = all {
        let move_tags = group.edges.iter().map(|edge| edge.move_tag.clone());
        let copier = copier.with_move_tags(move_tags);
        return Some(Opened { copier, rows });
    }
    // Something is wrong. When the source alone cannot be opened either, none of its targets is at fault.
    if let Err(failure) = open(&[]).await {
        report.fail_all(&rows, failure);
        return None;
    }
    let (mut targets, mut move_tags, mut good) = (Vec::new(), Vec::new(), Vec::new());
    for (edge, row) in group.edges.iter().zip(rows) {
        match open(std::slice::from_ref(&edge.target)).await {
            Ok(_) => {
                targets.push(edge.target.clone());
                move_tags.push(edge.move_tag.clone());
                good.push(row);
            }
            Err(failure) => report.fail(row, failure),
        }
    }
    if good.is_empty() {
        return None;
    }
    match open(&targets).await {
        Ok(copier) => Some(Opened {
            copier: copier.with_move_tags(move_tags),
            rows: good,
        }),
        Err(failure) => {
            report.fail_all(&good, failure);
            None
        }
    }
}

fn settings(args: &PromotionArgs) -> CopySettings {
    CopySettings {
        move_tag: args.move_tag_from.clone(),
        referrers: args.referrers.clone(),
        platforms: args.platforms.clone(),
        allow_partial_index: args.allow_partial_index,
        verify: (args.verify == Proof::Deep).then_some(BlobCheck::Present),
    }
}

fn journal(args: &PromotionArgs, run: &Run) -> Result<Option<Journal>> {
    let open = |path: &PathBuf| Journal::open(path, run.trace.trace_id());
    args.journal.as_ref().map(open).transpose()
}

fn registries(args: &PromotionArgs, wanted: &Wanted, run: &Run) -> Result<Registries> {
    let mut credentials = args.registry.credentials()?;
    if let Some(credential) = args.source_login.login()? {
        for group in wanted.groups() {
            match (&group.source, wanted) {
                (ImageReference::Registry(source), _) => credentials.add(source, credential.clone())?,
                (ImageReference::Layout(layout), Wanted::One(_)) => {
                    return Err(Failure::usage(format!("the folder {layout} takes no login"))
                        .hint("leave --source-user (TOWPATH_SOURCE_USER) out"));
                }
                (ImageReference::Layout(_), Wanted::Many(_)) => {}
            }
        }
    }
    if let Some(credential) = args.target_login.login()? {
        for edge in wanted.groups().iter().flat_map(|group| &group.edges) {
            if let ImageReference::Registry(target) = &edge.target {
                credentials.add(target, credential.clone())?;
            }
        }
    }
    Registries::new(args.registry.settings(), credentials, run.deadline)
}

/// The next job may run anywhere, and finds no folder of this one.
fn check_handed_over(wanted: &Wanted) -> Result<()> {
    match wanted {
        Wanted::One(group) if matches!(group.edges[0].target, ImageReference::Layout(_)) => {
            Err(Failure::usage(format!(
                "the first target, {}, is a folder, which cannot be handed over",
                group.edges[0].target
            ))
            .hint("name the registry that the next job works with first, or leave --handoff (TOWPATH_HANDOFF) out"))
        }
        _ => Ok(()),
    }
}

/// The first target is the one that the next job works with.
fn hand_over(
    handoff: &mut Handoff,
    args: &PromotionArgs,
    first: &ImageReference,
    digest: &Digest,
    run: &Run,
) -> Result<()> {
    let name = first.name();
    handoff.set(handoff::IMAGE_REPOSITORY, &name)?;
    match first.tag() {
        Some(tag) => handoff.set(handoff::IMAGE_TAG, tag.as_str())?,
        // The job before may have left one, which is not this image's.
        None => handoff.remove(handoff::IMAGE_TAG),
    }
    handoff.set(handoff::IMAGE_DIGEST, digest.as_str())?;
    handoff.set(handoff::IMAGE_REF, &format!("{name}@{digest}"))?;
    for (name, value) in [
        (handoff::SOURCE_PROJECT, &args.source_project),
        (handoff::SOURCE_COMMIT, &args.source_commit),
    ] {
        if let Some(value) = value {
            handoff.set(name, value)?;
        }
    }
    handoff.set(handoff::TRACEPARENT, &run.trace.to_string())
}
