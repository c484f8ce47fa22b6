//! The referrers tag: where a registry without the referrers API keeps what refers to a manifest.
//!
//! Source: OCI Distribution Specification 1.1, "Pushing Manifests with Subject" and "Referrers Tag Schema". Nothing but
//! the writers keeps such a list whole: no registry can be told to write it only if it is what was read. Within a run
//! one writes it at a time ([`Traffic::list`](super::traffic::Traffic::list)). Against other processes it is read, added
//! to, written, read again, and once more after a pause, until what was added stays.
//!
//! What remains possible: another writer that read the list before ours was written, and writes its own only after
//! that last look, takes ours out of it. The referrer itself is still there by its digest then, and the next promotion
//! lists it again.

use std::collections::BTreeSet;

use oci_distribution::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde_json::{Value, json};

use super::Journal;
use super::reading::pauses;
use super::store::Store;
use crate::cli::effect;
use crate::failure::{Failure, Result};
use crate::oci::{Digest, DigestTag, HeldList, Manifest, Pointer, Tag};

/// How often the list is written again when others write it too.
const ATTEMPTS: usize = 5;

/// The referrers tag of a subject.
fn tag_of(subject: &Digest) -> Result<Tag> {
    format!("{}-{}", subject.algorithm().name(), subject.hex()).parse()
}

/// What a registry without the referrers API lists for a subject.
pub(super) async fn listed(store: &Store, subject: &Digest) -> Result<BTreeSet<Digest>> {
    let Some(repository) = store.repository() else {
        return Ok(BTreeSet::new());
    };
    let list = DigestTag {
        subject: subject.clone(),
        tag: tag_of(subject)?,
        ending: "",
    };
    let listed = repository.listed_by_tag(&list).await?;
    Ok(listed.into_iter().map(|one| one.descriptor.digest).collect())
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
    let Some(repository) = store.repository() else {
        return Ok(false);
    };
    let tag = tag_of(subject)?;
    let pointer = Pointer::Tag(tag.clone());
    let mut written = 0;
    // What was just written is looked at twice, the second time after a pause: who read the list before that has most
    // likely written it by then.
    let mut looks_again = false;
    loop {
        let held = repository.held_list(&tag, subject).await?;
        let Some(list) = merged(held.as_ref(), referrers, &format!("{name}:{tag}"))? else {
            if looks_again && let Some(pause) = pauses().next() {
                looks_again = false;
                tokio::time::sleep(pause).await;
                continue;
            }
            return Ok(written > 0);
        };
        if written == ATTEMPTS {
            return Err(
                Failure::conflict(format!("others write {name}:{tag} again and again"))
                    .hint("run it again when they are done"),
            );
        }
        let before = held.as_ref().map(|held| &held.digest);
        if let Some(journal) = journal {
            journal.record(name, &tag, before, Some(list.digest()))?;
        }
        let effect = effect("list", format!("what refers to {subject} in {name}"));
        store.name(&pointer, &list, before).await?;
        effect.done("done");
        written += 1;
        looks_again = true;
    }
}

/// The list with all of them in it; none when it has them already. Whatever else is in it stays as it is.
fn merged(held: Option<&HeldList>, referrers: &[&Manifest], shown: &str) -> Result<Option<Manifest>> {
    let no_list = || {
        Failure::conflict(format!("{shown} is no list of referrers")).hint(
            "that tag is reserved for one: move what it names to another tag, or promote with --referrers none",
        )
    };
    let mut document = match held {
        None => json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": []}),
        Some(held) => serde_json::from_slice(&held.bytes).map_err(|_| no_list())?,
    };
    let list = document.get_mut("manifests").and_then(Value::as_array_mut);
    let list = list.ok_or_else(no_list)?;
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
    Ok((list.len() > known).then(|| Manifest::list(&document)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;
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

    fn held(list: &Manifest) -> HeldList {
        HeldList {
            bytes: list.bytes().clone(),
            digest: list.digest().clone(),
        }
    }

    #[test]
    fn a_list_grows_and_keeps_what_it_has() {
        let (one, two) = (signature("1"), signature("2"));
        let first = merged(None, &[&one], "x").unwrap().expect("news");
        let mut value: Value = serde_json::from_slice(first.bytes()).unwrap();
        assert_eq!(
            value["manifests"][0]["artifactType"],
            "application/vnd.example.signature"
        );
        assert_eq!(value["manifests"][0]["annotations"]["by"], "me");
        assert!(merged(Some(&held(&first)), &[&one], "x").unwrap().is_none());
        // What others put into it stays, whatever that is.
        value["manifests"]
            .as_array_mut()
            .unwrap()
            .push(json!({"odd": true}));
        let odd = held(&Manifest::list(&value));
        let both = merged(Some(&odd), &[&one, &two], "x").unwrap().expect("news");
        let both: Value = serde_json::from_slice(both.bytes()).unwrap();
        assert_eq!(both["manifests"][1], json!({"odd": true}));
        assert_eq!(both["manifests"][2]["digest"], two.digest().as_str());
        assert_eq!(both["manifests"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_list_is_not_overwritten() {
        let image = signature("1");
        let number = HeldList {
            bytes: "7".into(),
            digest: Digest::of(b"7"),
        };
        for other in [held(&image), number] {
            let failure = merged(Some(&other), &[&image], "example.com/app:sha256-0").expect_err("no list");
            assert_eq!(failure.kind(), Kind::Conflict);
            assert!(failure.message().contains("example.com/app:sha256-0"));
        }
    }
}
