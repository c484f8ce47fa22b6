//! Bringing an image to where it belongs, and writing its tags.

use std::sync::Arc;
use std::time::Instant;

use towpath::cli::{Outcome, Run, effect};
use towpath::failure::{Failure, Kind, Result};
use towpath::handoff::{self, Handoff};
use towpath::kaniko;
use towpath::oci::copy::{
    Copier, CopySettings, DEFAULT_CONCURRENCY, ImageReference, MoveTag, Referrers, Traffic,
};
use towpath::oci::{
    self, Digest, Joined, LayoutReference, PlatformImage, Reference, Registries, RegistryArgs, Tag,
};

use crate::args::{PushArgs, TargetArgs};
use crate::look;
use crate::plan::{Found, Member, REVISION, belong_together};
use crate::report::BuildReport;
use crate::tags;

/// Pushes the image of a layout, or the index of several.
///
/// # Errors
/// As [`bundle`] and [`Errand::run`], and as [`tags::wanted`].
pub(crate) async fn push(args: &PushArgs, run: &Run) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let repository = args.target.repository()?;
    let wanted = tags::wanted(&args.target)?;
    let first = wanted[0].tag.clone();
    let handoff = args.target.handoff.as_deref().map(kaniko::standing).transpose()?;
    if let Some(path) = &handoff {
        Handoff::check_place(path)?;
    }
    let layouts = args.layouts()?;
    let joining = bundle(&layouts, args.digest.as_ref());
    let bundle = run.interruptible("reading the layouts", joining).await?;
    let registries = open(&args.registry, run)?;
    let looking = look::at_tags(&registries, &repository, &args.target, wanted);
    let (found, left) = run.interruptible("looking at the tags", looking).await?;
    let errand = Errand {
        source: ImageReference::Layout(bundle.source.clone()),
        targets: targets(&repository, &found, args.target.move_tag),
        expected: bundle.expected,
        referrers: Referrers::All,
    };
    let (digest, changed) = errand.run(&registries, args.dry_run, run).await?;
    if let Some(path) = handoff.filter(|_| !args.dry_run) {
        hand_over(&args.target, &repository, &first, &digest, true, run)?.write(&path)?;
    }
    let mut report = BuildReport::pushed(
        &repository,
        &found,
        left,
        &digest,
        changed,
        args.dry_run,
        started.elapsed(),
    );
    report.platforms(&bundle.members);
    Ok(Outcome::report(&report)?)
}

/// What is pushed: the image of one layout as it is, or an index of several.
struct Bundle {
    source: LayoutReference,
    expected: Option<Digest>,
    members: Vec<Member>,
    /// The index, where there is one, is in a folder that goes with this.
    _joined: Option<Joined>,
}

/// Makes several layouts one.
///
/// # Errors
/// Conflict (exit 6) when they do not belong together, or none of them is what was expected; else as
/// [`PlatformImage::open`].
async fn bundle(layouts: &[LayoutReference], expected: Option<&Digest>) -> Result<Bundle> {
    if let [only] = layouts {
        return Ok(Bundle {
            source: only.clone(),
            expected: expected.cloned(),
            members: Vec::new(),
            _joined: None,
        });
    }
    let mut images = Vec::with_capacity(layouts.len());
    let mut members = Vec::with_capacity(layouts.len());
    for layout in layouts {
        let image = PlatformImage::open(layout).await?;
        members.push(Member {
            name: layout.to_string(),
            platform: image.platform().clone(),
            digest: image.digest().clone(),
            revision: image.says(REVISION).map(str::to_owned),
        });
        images.push(image);
    }
    belong_together(&members)?;
    let joined = oci::join(&images).await?;
    if let Some(expected) = expected
        && expected != joined.digest()
        && !members.iter().any(|member| member.digest == *expected)
    {
        return Err(Failure::conflict(format!(
            "none of the layouts holds {expected}, nor is that their index, {}",
            joined.digest()
        ))
        .hint("--digest (IMAGE_DIGEST) names what a build handed over: was another layout meant?"));
    }
    Ok(Bundle {
        source: joined.reference(),
        expected: Some(joined.digest().clone()),
        members,
        _joined: Some(joined),
    })
}

/// Opens the registries of a run.
///
/// # Errors
/// Usage (exit 2) or input (exit 3) when logins or certificates are of no use.
pub(crate) fn open(args: &RegistryArgs, run: &Run) -> Result<Registries> {
    Registries::new(args.settings(), args.credentials()?, run.deadline)
}

/// The tags at the registry, and from what each may be moved.
pub(crate) fn targets(
    repository: &Reference,
    found: &[Found],
    move_tag: bool,
) -> Vec<(ImageReference, MoveTag)> {
    let target = |one: &Found| {
        let reference = repository.clone().with_tag(Some(one.wanted.tag.clone()));
        (reference.into(), one.may_move(move_tag))
    };
    found.iter().map(target).collect()
}

/// An image, and where it goes.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) source: ImageReference,
    pub(crate) targets: Vec<(ImageReference, MoveTag)>,
    /// What the image has to be.
    pub(crate) expected: Option<Digest>,
    pub(crate) referrers: Referrers,
}

impl Errand {
    /// Brings the image to each target in turn; each tag is read back. Gives the image's digest, and whether something was
    /// written, or with `dry_run` would be.
    ///
    /// # Errors
    /// Conflict (exit 6) when a tag names another image, or the image is not what was expected; else as
    /// [`Copier::look`] and [`Copier::act`].
    pub(crate) async fn run(
        self,
        registries: &Registries,
        dry_run: bool,
        run: &Run,
    ) -> Result<(Digest, bool)> {
        let (targets, allowed): (Vec<_>, Vec<_>) = self.targets.into_iter().unzip();
        let traffic: Arc<Traffic> = Traffic::new(DEFAULT_CONCURRENCY);
        let settings = CopySettings {
            referrers: self.referrers,
            ..CopySettings::default()
        };
        let looking = async {
            let copier = Copier::new(&self.source, &targets, registries, &traffic, settings)
                .await?
                .with_move_tags(allowed);
            let look = copier.look().await?.all_or_none()?;
            Ok((copier, look))
        };
        let (copier, look) = run
            .interruptible("looking at the image and its targets", looking)
            .await
            .map_err(explain)?;
        let digest = look.digest().clone();
        if self.expected.as_ref().is_some_and(|expected| *expected != digest) {
            let expected = self.expected.map(|digest| digest.to_string()).unwrap_or_default();
            return Err(Failure::conflict(format!(
                "{} holds {digest}, where {expected} was expected",
                self.source
            ))
            .hint("something else wrote there: build again into a folder of its own"));
        }
        let writes = look.writes();
        if dry_run {
            return Ok((digest, writes.contains(&true)));
        }
        let names: Vec<String> = targets.iter().map(ImageReference::to_string).collect();
        let pushing = effect("push", names.join(" "));
        let mut changed = false;
        for outcome in copier.act(look, None, run.interrupted()).await? {
            changed |= outcome.map_err(explain)?.changed;
        }
        pushing.done(digest.as_str());
        Ok((digest, changed))
    }
}

/// The engine knows of tags that move, not of our flag for it.
fn explain(failure: Failure) -> Failure {
    if failure.kind() != Kind::Conflict {
        return failure;
    }
    failure.hint("another build of this tag may run at the same time: give tags to one pipeline each; to replace what is there knowingly, use --move-tag (TOWPATH_MOVE_TAG)")
}

/// What the next job is told. An image that was not pushed has no reference yet.
///
/// # Errors
/// Input (exit 3) when a value does not fit into a handoff.
pub(crate) fn hand_over(
    args: &TargetArgs,
    repository: &Reference,
    tag: &Tag,
    digest: &Digest,
    is_pushed: bool,
    run: &Run,
) -> Result<Handoff> {
    let mut handoff = Handoff::new();
    handoff.set(handoff::IMAGE_REPOSITORY, &repository.name())?;
    handoff.set(handoff::IMAGE_TAG, tag.as_str())?;
    if let Some(project) = &args.source_project {
        handoff.set(handoff::SOURCE_PROJECT, project)?;
    }
    if let Some(commit) = &args.revision {
        handoff.set(handoff::SOURCE_COMMIT, commit)?;
    }
    handoff.set(handoff::TRACEPARENT, &run.trace.to_string())?;
    handoff.set(handoff::IMAGE_DIGEST, digest.as_str())?;
    if is_pushed {
        let reference = repository.clone().with_digest(Some(digest.clone()));
        handoff.set(handoff::IMAGE_REF, &reference.to_string())?;
    }
    Ok(handoff)
}
