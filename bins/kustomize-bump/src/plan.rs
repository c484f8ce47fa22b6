//! The decisions: from the files that were read to the files that are to be written. Nothing here touches anything.

use std::collections::BTreeSet;

use towpath::failure::{Failure, Result};
use towpath::git::{Change, Files};
use towpath::kustomize::{
    Hold, ImageSpec, ImageState, Kustomization, Pattern, Pin, file_candidates, hold_path,
    kustomization_folder,
};
use towpath::oci::Digest;

use crate::report::FileChange;

/// A kustomization that was found at a path.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its folder, from the root of the repository; `.` for the root.
    pub(crate) folder: String,
    /// The file.
    pub(crate) file: String,
    /// What it holds.
    pub(crate) kustomization: Kustomization,
}

/// Finds the kustomization at `path` among files that were read.
///
/// # Errors
/// Not found (exit 5) when there is none; input (exit 3) for several, or one that is malformed.
pub(crate) fn find(files: &Files, path: &str) -> Result<Found> {
    let candidates = file_candidates(path);
    let mut found = candidates
        .iter()
        .filter_map(|file| Some((file, files.get(file)?)));
    let (file, content) = found.next().ok_or_else(|| {
        Failure::not_found(format!("there is no kustomization in {path}")).hint(format!(
            "looked for {}; check --path (TOWPATH_PATH) and --branch",
            candidates.join(", ")
        ))
    })?;
    if let Some((other, _)) = found.next() {
        return Err(Failure::input(format!("both {file} and {other} are there"))
            .hint("kustomize refuses that too; remove one"));
    }
    let kustomization = Kustomization::parse(file, content)?;
    let folder = file.rsplit_once('/').map_or(".", |(folder, _)| folder).to_owned();
    Ok(Found {
        folder,
        file: file.clone(),
        kustomization,
    })
}

/// How many folders a hint lists.
const SHOWN: usize = 10;

/// The refusal of a pattern that names nothing, with what it could have named out of the list of all files.
pub(crate) fn unmatched(pattern: &Pattern, listed: &[String]) -> Failure {
    let base = pattern.base();
    let mut all: Vec<&str> = listed
        .iter()
        .filter_map(|file| kustomization_folder(file))
        .collect();
    all.sort_unstable();
    all.dedup();
    let below: Vec<&str> = all
        .iter()
        .filter(|folder| **folder == base || folder.starts_with(&format!("{base}/")))
        .copied()
        .collect();
    let shown = if below.is_empty() { all } else { below };
    let hint = match shown.len() {
        0 => "there is no kustomization in the whole repository".to_owned(),
        count if count > SHOWN => format!(
            "kustomizations are in {} and {} more folders",
            shown[..SHOWN].join(", "),
            count - SHOWN
        ),
        _ => format!("kustomizations are in {}", shown.join(", ")),
    };
    Failure::not_found(format!("no kustomization matches {}", pattern.text())).hint(hint)
}

/// What `set` is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The images.
    pub(crate) specs: Vec<ImageSpec>,
    /// What they are pinned by.
    pub(crate) pin: Pin,
    /// Whether missing ones are added.
    pub(crate) add: bool,
    /// Whether kustomizations that lack an image are passed over.
    pub(crate) where_present: bool,
    /// Whether resources and components are followed.
    pub(crate) follow: bool,
    /// The digest that each has to be at.
    pub(crate) expect_current: Option<Digest>,
}

impl Wish {
    /// The files with the holds that could stand against this wish.
    pub(crate) fn hold_files(&self, found: &[Found]) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for Found {
            folder,
            kustomization,
            ..
        } in found
        {
            for spec in &self.specs {
                let name = kustomization
                    .find(&spec.name)?
                    .map_or(&spec.name, |entry| &entry.state.name);
                files.push(hold_path(folder, name));
            }
        }
        Ok(files)
    }
}

/// What `set` comes down to.
#[derive(Debug, Default)]
pub(crate) struct SetPlan {
    /// The files to write.
    pub(crate) changes: Vec<Change>,
    /// Each image in each file, changed or not.
    pub(crate) files: Vec<FileChange>,
    /// Each changed file before and after.
    pub(crate) texts: Vec<(String, String, String)>,
    /// What a person should know about it.
    pub(crate) notes: Vec<String>,
    /// The files in which a hold would have been against it.
    pub(crate) unheld: BTreeSet<String>,
}

/// Decides on `set`.
///
/// # Errors
/// Denied (exit 4) for a held image; conflict (exit 6) for one that is not at the expected digest; whatever the edit
/// refuses.
pub(crate) fn set(found: &[Found], files: &Files, holds: &Files, wish: &Wish) -> Result<SetPlan> {
    let mut plan = SetPlan::default();
    for Found {
        folder,
        file,
        kustomization,
    } in found
    {
        let before = String::from_utf8_lossy(files.get(file).unwrap_or_default()).into_owned();
        let mut text = before.clone();
        let mut edited: Option<Kustomization> = None;
        for spec in &wish.specs {
            if wish.where_present && kustomization.find(&spec.name)?.is_none() {
                continue;
            }
            if edited.is_none() && text != before {
                edited = Some(Kustomization::parse(file, text.as_bytes())?);
            }
            let edit = edited
                .as_ref()
                .unwrap_or(kustomization)
                .set(spec, wish.pin, wish.add)?;
            let twice = |one: &FileChange| one.file == *file && one.image == edit.new.name;
            if edit.changed() && plan.files.iter().any(twice) {
                return Err(Failure::usage(format!(
                    "two of the images that are given mean the entry {} in {file}",
                    edit.new.name
                ))
                .hint("name it once"));
            }
            if edit.changed() {
                refuse_held(holds, hold_path(folder, &edit.new.name), &mut plan.unheld)?;
                refuse_unexpected(file, edit.old.as_ref(), &edit.new, wish.expect_current.as_ref())?;
                text.clone_from(&edit.text);
                edited = None;
            } else {
                refuse_contradicted(holds, &hold_path(folder, &edit.new.name), &edit.new)?;
            }
            plan.files.push(FileChange {
                path: folder.clone(),
                file: file.clone(),
                image: edit.new.name.clone(),
                changed: edit.changed(),
                old: edit.old,
                new: edit.new,
                decides_for: Vec::new(),
            });
            plan.notes.extend(edit.notes);
        }
        if text != before {
            plan.changes.push(Change {
                path: file.clone(),
                content: Some(text.clone().into_bytes()),
            });
            plan.texts.push((file.clone(), before, text));
        }
    }
    refuse_absent(found, wish)?;
    Ok(plan)
}

/// Passing over is for some kustomizations, not for all.
fn refuse_absent(found: &[Found], wish: &Wish) -> Result<()> {
    for spec in wish.specs.iter().filter(|_| wish.where_present) {
        let mut present = false;
        for one in found {
            present |= one.kustomization.find(&spec.name)?.is_some();
        }
        if !present {
            return Err(Failure::not_found(format!(
                "none of the {} kustomizations has image {}",
                found.len(),
                spec.name
            ))
            .hint("`kustomize-bump get` lists the images that are there"));
        }
    }
    Ok(())
}

pub(crate) fn refuse_held(holds: &Files, file: String, unheld: &mut BTreeSet<String>) -> Result<()> {
    if let Some(content) = holds.get(&file) {
        return Err(Hold::parse(content, &file)?.refusal());
    }
    unheld.insert(file);
    Ok(())
}

/// Refuses to call a wish done that is against a hold: the image is where it was asked for, and is held elsewhere. By hand
/// somebody set it so, or a run that was killed before it could take back what the hold had overtaken.
pub(crate) fn refuse_contradicted(holds: &Files, file: &str, new: &ImageState) -> Result<()> {
    let Some(content) = holds.get(file) else {
        return Ok(());
    };
    let hold = Hold::parse(content, file)?;
    let agrees = match (&hold.digest, &new.digest) {
        (Some(held), Some(there)) => held == there,
        _ => hold.held_at == new.to_string(),
    };
    if agrees {
        return Ok(());
    }
    let Hold {
        path, image, digest, ..
    } = &hold;
    let back = match digest {
        Some(digest) => {
            format!("`kustomize-bump rollback --path {path} --image {image} --to {digest}` puts it back; ")
        }
        None => String::new(),
    };
    Err(
        Failure::denied(format!("{}, and is at {new} all the same", hold.refusal())).hint(format!(
            "{back}`kustomize-bump release --path {path} --image {image}` lets it stand"
        )),
    )
}

pub(crate) fn refuse_unexpected(
    file: &str,
    old: Option<&ImageState>,
    new: &ImageState,
    expected: Option<&Digest>,
) -> Result<()> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let actual = old.and_then(|old| old.digest.as_deref());
    if actual == Some(expected.as_str()) {
        return Ok(());
    }
    let actual = actual.unwrap_or("no digest");
    Err(Failure::conflict(format!(
        "{file}: image {} is at {actual}, not at {expected}",
        new.name
    ))
    .hint("somebody changed it; look at `kustomize-bump history` and decide anew"))
}
