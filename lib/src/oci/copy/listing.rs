//! The referrers tag: where a registry without the referrers API keeps what refers to a manifest.
//!
//! Source: OCI Distribution Specification 1.1, "Pushing Manifests with Subject" and "Referrers Tag Schema". Nothing but
//! the writers keeps such a list whole: it is read, added to, written and read again until what was added stays.

use std::collections::BTreeSet;

use bytes::Bytes;
use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde_json::{Value, json};

use super::Journal;
use super::store::Store;
use crate::cli::effect;
use crate::failure::{Failure, Kind, Result};
use crate::oci::{Digest, Manifest, Pointer, Tag, entries};

/// How often the list is written again when others write it too.
const ATTEMPTS: usize = 5;

/// The referrers tag of a subject.
fn tag_of(subject: &Digest) -> Result<Tag> {
    format!("{}-{}", subject.algorithm().name(), subject.hex()).parse()
}

/// What a registry without the referrers API lists for a subject.
pub(super) async fn listed(store: &Store, subject: &Digest) -> Result<BTreeSet<Digest>> {
    let held = read(store, subject).await?;
    let listed = held.and_then(|held| entries(held.bytes())).unwrap_or_default();
    Ok(listed.into_iter().map(|one| one.descriptor.digest).collect())
}

async fn read(store: &Store, subject: &Digest) -> Result<Option<Manifest>> {
    match store.manifest(&Pointer::Tag(tag_of(subject)?)).await {
        // There are registries where such a tag names the image itself.
        Ok(held) => Ok(Some(held).filter(|held| held.digest() != subject)),
        Err(failure) if failure.kind() == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Adds manifests to the list of what refers to `subject`. Gives back whether there was something to add.
///
/// # Errors
/// Conflict (exit 6) when the tag names something that is no list, or others write it again and again; as
/// [`Store::put`] otherwise.
pub(super) async fn add(
    store: &Store,
    name: &str,
    subject: &Digest,
    referrers: &[&Manifest],
    journal: Option<&Journal>,
) -> Result<bool> {
    let tag = tag_of(subject)?;
    let pointer = Pointer::Tag(tag.clone());
    let mut wrote = false;
    for _ in 0..ATTEMPTS {
        let held = read(store, subject).await?;
        let Some(merged) = merged(held.as_ref(), referrers, &format!("{name}:{tag}"))? else {
            return Ok(wrote);
        };
        let digest = Digest::of(&merged);
        if let Some(journal) = journal {
            journal.record(name, &tag, held.as_ref().map(Manifest::digest), Some(&digest))?;
        }
        let effect = effect("list", format!("what refers to {subject} in {name}"));
        let list = Manifest::read(
            merged,
            digest,
            Some(OCI_IMAGE_INDEX_MEDIA_TYPE),
            &format!("{name}:{tag}"),
        )?;
        store
            .name(&pointer, &list, held.as_ref().map(Manifest::digest))
            .await?;
        effect.done("done");
        wrote = true;
    }
    Err(
        Failure::conflict(format!("others write {name}:{tag} again and again"))
            .hint("run it again when they are done"),
    )
}

/// The list with all of them in it; none when it has them already.
fn merged(held: Option<&Manifest>, referrers: &[&Manifest], shown: &str) -> Result<Option<Bytes>> {
    let no_list = || {
        Failure::conflict(format!("{shown} is no list of referrers")).hint(
            "that tag is reserved for one: move what it names to another tag, or promote with --referrers none",
        )
    };
    let mut document = match held {
        None => json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": []}),
        Some(held) if !held.is_index() => return Err(no_list()),
        Some(held) => serde_json::from_slice(held.bytes()).map_err(|_| no_list())?,
    };
    let list = document["manifests"].as_array_mut().ok_or_else(no_list)?;
    let known = list.len();
    for referrer in referrers {
        let is_known = |entry: &Value| entry["digest"] == referrer.digest().as_str();
        if list.iter().any(is_known) {
            continue;
        }
        let mut entry = json!({
            "mediaType": referrer.media_type(),
            "digest": referrer.digest().as_str(),
            "size": referrer.bytes().len(),
        });
        if let Some(artifact_type) = referrer.artifact_type() {
            entry["artifactType"] = json!(artifact_type);
        }
        if !referrer.annotations().is_empty() {
            entry["annotations"] = json!(referrer.annotations());
        }
        list.push(entry);
    }
    Ok((list.len() > known).then(|| Bytes::from(document.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::manifest::tests::{entry, read};

    fn signature(content: &str) -> Manifest {
        read(&json!({
            "schemaVersion": 2, "artifactType": "application/vnd.example.signature",
            "config": entry("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [entry("layer", content.as_bytes())],
            "subject": entry("m", b"subject"),
            "annotations": {"by": "me"},
        }))
        .unwrap()
    }

    fn list(bytes: Bytes) -> Manifest {
        let digest = Digest::of(&bytes);
        Manifest::read(bytes, digest, None, "list").unwrap()
    }

    #[test]
    fn a_list_grows_and_keeps_what_it_has() {
        let (one, two) = (signature("1"), signature("2"));
        let first = merged(None, &[&one], "x").unwrap().expect("news");
        let first = list(first);
        let value: Value = serde_json::from_slice(first.bytes()).unwrap();
        assert_eq!(
            value["manifests"][0]["artifactType"],
            "application/vnd.example.signature"
        );
        assert_eq!(value["manifests"][0]["annotations"]["by"], "me");
        assert!(merged(Some(&first), &[&one], "x").unwrap().is_none());
        let both = merged(Some(&first), &[&one, &two], "x").unwrap().expect("news");
        let digests: Vec<Digest> = entries(&both)
            .unwrap()
            .into_iter()
            .map(|e| e.descriptor.digest)
            .collect();
        assert_eq!(digests, [one.digest().clone(), two.digest().clone()]);
    }

    #[test]
    fn what_is_no_list_is_not_overwritten() {
        let image = signature("1");
        let failure = merged(Some(&image), &[&image], "example.com/app:sha256-0").expect_err("no list");
        assert_eq!(failure.kind(), Kind::Conflict);
        assert!(failure.message().contains("example.com/app:sha256-0"));
    }
}
