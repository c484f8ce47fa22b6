//! What is at the registries before anything is done.

use std::collections::BTreeMap;

use towpath::deadline::Deadline;
use towpath::failure::{Failure, Kind, Result};
use towpath::oci::{
    Access, Begun, Credential, Credentials, Digest, Pointer, Reference, Registries, Repository,
};

use crate::args::TargetArgs;
use crate::plan::{Base, Found, REVISION};
use crate::tags::{self, LeftAlone, Wanted};

/// What the wanted tags name now, without those that would go back.
///
/// # Errors
/// Denied (exit 4) or unavailable (exit 7), as the registry says.
pub(crate) async fn at_tags(
    registries: &Registries,
    repository: &Reference,
    args: &TargetArgs,
    wanted: Vec<Wanted>,
) -> Result<(Vec<Found>, Vec<LeftAlone>)> {
    let repository = registries.repository(repository).await?;
    let mut there = Vec::new();
    if wanted
        .iter()
        .any(|one| matches!(one.kind, tags::Kind::Release(_)))
    {
        there = match repository.tags().await {
            Err(failure) if failure.kind() == Kind::NotFound => Vec::new(),
            there => there?,
        };
    }
    let (wanted, left) = tags::hold_back(wanted, args.git_tag.as_deref(), &there);
    let mut found = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let digest = repository.resolve(&Pointer::Tag(wanted.tag.clone())).await?;
        let revision = match (&digest, wanted.kind) {
            (Some(digest), tags::Kind::Fixed) => revision_of(&repository, digest).await?,
            _ => None,
        };
        found.push(Found {
            wanted,
            digest,
            revision,
        });
    }
    Ok((found, left))
}

/// Sees to it that we may push, before anything is built: an upload is opened and given back.
///
/// # Errors
/// Denied (exit 4) or unavailable (exit 7), as the registry says.
pub(crate) async fn may_push(registries: &Registries, repository: &Reference) -> Result<()> {
    let repository = registries.repository(repository).await?;
    repository.expect(Access::Push);
    match repository.begin_upload(&Digest::of(b""), None).await? {
        Begun::Upload(upload) => upload.abandon().await,
        Begun::Mounted => {}
    }
    Ok(())
}

/// The commit that an image says it was built from.
async fn revision_of(repository: &Repository, digest: &Digest) -> Result<Option<String>> {
    let manifest = repository
        .manifest(&Pointer::Digest(digest.clone()), None)
        .await?;
    Ok(manifest.annotations().get(REVISION).cloned())
}

/// The digests of the base images that the build needs, by their full names.
///
/// # Errors
/// Not found (exit 5), naming image and line; denied (exit 4) or unavailable (exit 7), as the registry says.
pub(crate) async fn at_bases(
    registries: &Registries,
    bases: &[Base],
    shown: &str,
) -> Result<BTreeMap<Reference, Digest>> {
    let mut digests = BTreeMap::new();
    for base in bases.iter().filter(|base| base.is_needed) {
        let reference = &base.reference;
        if digests.contains_key(reference) {
            continue;
        }
        let digest = match reference.pointer() {
            Some(pointer) => registries.repository(reference).await?.resolve(&pointer).await?,
            None => None,
        };
        let digest = digest.ok_or_else(|| {
            Failure::not_found(format!(
                "{shown}, line {}: the image {reference} is not there",
                base.line
            ))
            .hint("check its name and tag; some registries say so, too, of what a login may not see")
        })?;
        digests.insert(reference.clone(), digest);
    }
    Ok(digests)
}

/// The logins for these repositories, as the builder takes them.
///
/// # Errors
/// As [`Credentials::find`].
pub(crate) async fn logins(
    credentials: &Credentials,
    repositories: &[Reference],
    deadline: Deadline,
) -> Result<Vec<(Reference, Credential)>> {
    let mut logins = Vec::new();
    for repository in repositories {
        if let Some(login) = credentials.find(repository, deadline).await? {
            logins.push((repository.clone(), login.credential));
        }
    }
    Ok(logins)
}
