//! A build, as far as images go: which entry of which kustomization decides about each image of an overlay.
//!
//! Source: kustomize's `internal/target` (5.5), seen with `kubectl kustomize`: a kustomization takes in its resources,
//! each built with its own entries first; then its components, which work on all that is there so far; then its patches;
//! then its own entries. So the outermost entry that still matches decides, and one further in that sets `newName`
//! changes what those further out have to be called.
//!
//! Deliberately absent: what a patch applies to, generators, transformers, charts and remote resources. They are named
//! in the notes, and an entry that matches nothing that was read is taken to match something there.

use std::collections::BTreeSet;

use serde_norway::Value;

use super::document::{Kustomization, file_candidates};
use super::entry::ImageEntry;
use super::reference::{NamePattern, Reference, is_plain};
use super::sources::{Known, Manifest, Sources};
use crate::failure::{Failure, Result};

/// How many kustomizations one build may take in, counting those that are taken in twice.
const STEPS: usize = 10_000;
/// How many images one build may hold.
const IMAGES: usize = 100_000;
/// What brings in images, or changes them, in ways that are not followed.
const NOT_FOLLOWED: [&str; 7] = [
    "helmCharts",
    "helmChartInflationGenerator",
    "generators",
    "transformers",
    "replacements",
    "configurations",
    "vars",
];

/// An entry, by its file and its position in the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPlace {
    /// The file.
    pub file: String,
    /// The position in `images`, from 0.
    pub index: usize,
}

/// An image of a build.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// The file that names it; none when no file that was read does.
    pub origin: Option<String>,
    /// What the manifest says.
    pub original: String,
    /// What the build makes of it.
    pub built: String,
    /// The repositories it was taken from on the way, the manifest's first.
    pub names: Vec<String>,
    /// The entry that decides on tag and digest.
    pub decided_by: Option<EntryPlace>,
    /// The outermost entry that applies to it, whatever it says.
    pub outermost: Option<EntryPlace>,
}

impl BuiltImage {
    fn new(origin: Option<String>, original: &str) -> Self {
        BuiltImage {
            origin,
            original: original.to_owned(),
            built: original.to_owned(),
            names: vec![Reference::parse(original).name],
            decided_by: None,
            outermost: None,
        }
    }

    /// Where it is to be set: the entry that decides, or else the outermost one that could.
    #[must_use]
    pub fn place(&self) -> Option<&EntryPlace> {
        self.decided_by.as_ref().or(self.outermost.as_ref())
    }

    fn apply(&mut self, entry: &ImageEntry, place: &EntryPlace) {
        let mut reference = Reference::parse(&self.built);
        if reference.apply(&entry.state, entry.tag_suffix.as_deref()) {
            self.decided_by = Some(place.clone());
        }
        self.outermost = Some(place.clone());
        if !self.names.contains(&reference.name) {
            self.names.push(reference.name.clone());
        }
        self.built = reference.to_string();
    }
}

/// What became of trying a build.
#[derive(Clone, Debug)]
pub enum Tried {
    /// These paths have to be read first; some of them may not be there.
    Needs(BTreeSet<String>),
    /// All that is needed was read.
    Built(Build),
}

/// The images of one overlay.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The file of the kustomization that is built.
    pub file: String,
    /// The images, in the order in which they are taken in.
    pub images: Vec<BuiltImage>,
    /// What was not followed, and what cannot be as it looks.
    pub notes: Vec<String>,
}

impl Build {
    /// Builds the kustomization in a folder, or in the file itself, from what was read.
    ///
    /// # Errors
    /// Not found (exit 5) for a kustomization or resource that is not there; input (exit 3) for several in one folder, a
    /// cycle, and more than 10,000 of them.
    pub fn of(path: &str, sources: &Sources) -> Result<Tried> {
        let mut walk = Walk {
            sources,
            needs: BTreeSet::new(),
            notes: Vec::new(),
            steps: 0,
        };
        let file = match walk.kustomization_at(path)? {
            Looked::Found(file) => file,
            Looked::Waiting => return Ok(Tried::Needs(walk.needs)),
            Looked::Nothing => {
                return Err(
                    Failure::not_found(format!("there is no kustomization in {path}")).hint(format!(
                        "looked for {}; check --path (TOWPATH_PATH) and --branch",
                        file_candidates(path).join(", ")
                    )),
                );
            }
        };
        let images = walk.accumulate(&file, Vec::new(), &mut Vec::new())?;
        if walk.needs.is_empty() {
            let mut seen = BTreeSet::new();
            walk.notes.retain(|note| seen.insert(note.clone()));
            return Ok(Tried::Built(Build {
                file,
                images,
                notes: walk.notes,
            }));
        }
        Ok(Tried::Needs(walk.needs))
    }

    /// The images that `name` means: those that are called so in a manifest, in the end, or on the way. Those that no
    /// file names count only where no other is meant.
    #[must_use]
    pub fn meant_by(&self, name: &str) -> Vec<&BuiltImage> {
        let called = |image: &&BuiltImage| image.names.iter().any(|one| one == name);
        let (read, assumed): (Vec<_>, Vec<_>) = self
            .images
            .iter()
            .filter(called)
            .partition(|image| image.origin.is_some());
        if read.is_empty() { assumed } else { read }
    }
}

/// What became of looking for a kustomization.
enum Looked {
    /// This file.
    Found(String),
    /// It was not read yet.
    Waiting,
    /// It is not there.
    Nothing,
}

/// One walk through everything that a build takes in.
struct Walk<'sources> {
    sources: &'sources Sources,
    needs: BTreeSet<String>,
    notes: Vec<String>,
    steps: usize,
}

impl<'sources> Walk<'sources> {
    fn kustomization_at(&mut self, path: &str) -> Result<Looked> {
        let unknown: Vec<String> = file_candidates(path)
            .into_iter()
            .filter(|file| self.sources.get(file).is_none())
            .collect();
        if !unknown.is_empty() {
            self.needs.extend(unknown);
            return Ok(Looked::Waiting);
        }
        Ok(match self.sources.in_folder(path)? {
            Some((file, _)) => Looked::Found(file),
            None => Looked::Nothing,
        })
    }

    /// What a kustomization makes of the images that are there so far and of its own.
    fn accumulate(
        &mut self,
        file: &str,
        mut images: Vec<BuiltImage>,
        above: &mut Vec<String>,
    ) -> Result<Vec<BuiltImage>> {
        if let Some(start) = above.iter().position(|one| one == file) {
            return Err(
                Failure::input(format!("{} leads back to {file}", above[start..].join(" -> ")))
                    .hint("kustomize refuses that too; take one of the resources out"),
            );
        }
        self.steps += 1;
        if self.steps > STEPS || images.len() > IMAGES {
            return Err(Failure::input(format!(
                "the build of {} takes in more than {STEPS} kustomizations or {IMAGES} images",
                above.first().map_or(file, String::as_str)
            ))
            .hint("set the image in the kustomization that decides about it, without --follow"));
        }
        let Some(kustomization) = self.sources.kustomization(file) else {
            return Err(Failure::internal(format!("{file} was not read")));
        };
        above.push(file.to_owned());
        let folder = file.rsplit_once('/').map_or(".", |(folder, _)| folder);
        for key in ["resources", "bases"] {
            for resource in texts(kustomization.value.get(key)) {
                let below = self.resource(file, folder, resource, above)?;
                images.extend(below);
            }
        }
        for component in texts(kustomization.value.get("components")) {
            if let Some(next) = self.folder_of(file, folder, component)? {
                images = self.accumulate(&next, images, above)?;
            }
        }
        self.patches(file, folder, kustomization, &mut images)?;
        self.name_what_is_not_followed(file, kustomization);
        self.entries(file, kustomization, &mut images);
        above.pop();
        Ok(images)
    }

    /// The images of one resource: a file, or a folder that is built by itself.
    fn resource(
        &mut self,
        file: &str,
        folder: &str,
        resource: &str,
        above: &mut Vec<String>,
    ) -> Result<Vec<BuiltImage>> {
        if let Some(manifest) = self.manifest_at(file, folder, resource) {
            let origin = joined(folder, resource);
            return Ok(manifest
                .images
                .iter()
                .map(|image| BuiltImage::new(origin.clone(), image))
                .collect());
        }
        match self.folder_of(file, folder, resource)? {
            Some(next) => self.accumulate(&next, Vec::new(), above),
            None => Ok(Vec::new()),
        }
    }

    /// The manifest that a kustomization names; none when that is no file, or not known yet.
    fn manifest_at(&mut self, file: &str, folder: &str, resource: &str) -> Option<&'sources Manifest> {
        if is_remote(resource) {
            return None;
        }
        let path = joined(folder, resource)?;
        match self.sources.get(&path) {
            Some(Known::Manifest(manifest)) => {
                if let Some(problem) = &manifest.problem {
                    self.notes.push(format!("{file}: {path} {problem}"));
                }
                Some(manifest)
            }
            Some(_) => None,
            None => {
                self.needs.insert(path);
                None
            }
        }
    }

    /// The kustomization in the folder that another one names; none when it is not known yet, or elsewhere.
    fn folder_of(&mut self, file: &str, folder: &str, resource: &str) -> Result<Option<String>> {
        let elsewhere = |walk: &mut Self| {
            walk.notes
                .push(format!("{file}: {resource} is elsewhere and was not followed"));
            Ok(None)
        };
        if is_remote(resource) {
            return elsewhere(self);
        }
        let Some(path) = joined(folder, resource) else {
            return elsewhere(self);
        };
        match self.kustomization_at(&path)? {
            Looked::Found(found) => return Ok(Some(found)),
            Looked::Waiting => return Ok(None),
            Looked::Nothing if self.needs.contains(&path) => return Ok(None),
            Looked::Nothing => {}
        }
        // `github.com/team/app` is an address as well as a path.
        if resource
            .split('/')
            .next()
            .is_some_and(|host| host.trim_matches('.').contains('.'))
        {
            return elsewhere(self);
        }
        Err(
            Failure::not_found(format!("{file}: the resource {resource} is not there"))
                .hint(format!("looked for {path} and a kustomization in it")),
        )
    }

    /// Images that patches bring in. What they replace is not known, and said each time: it may be the image that somebody
    /// is about to set.
    fn patches(
        &mut self,
        file: &str,
        folder: &str,
        kustomization: &Kustomization,
        images: &mut Vec<BuiltImage>,
    ) -> Result<()> {
        let mut unknown: Vec<String> = Vec::new();
        let mut add = |origin: String, manifest: &Manifest| {
            for image in &manifest.images {
                unknown.push(format!(
                    "{file}: a patch in {origin} names image {image}; which image it takes the place of was not worked \
                     out, so look at what `kubectl kustomize` builds"
                ));
                images.push(BuiltImage::new(Some(origin.clone()), image));
            }
        };
        for key in ["patches", "patchesJson6902"] {
            for patch in kustomization
                .value
                .get(key)
                .and_then(Value::as_sequence)
                .into_iter()
                .flatten()
            {
                if let Some(text) = patch.get("patch").and_then(Value::as_str) {
                    add(file.to_owned(), &Manifest::parse(text.as_bytes()));
                }
                if let Some(path) = patch.get("path").and_then(Value::as_str)
                    && let Some(manifest) = self.manifest_at(file, folder, path)
                {
                    add(joined(folder, path).unwrap_or_default(), manifest);
                }
            }
        }
        for patch in texts(kustomization.value.get("patchesStrategicMerge")) {
            if patch.contains('\n') {
                add(file.to_owned(), &Manifest::parse(patch.as_bytes()));
            } else if let Some(manifest) = self.manifest_at(file, folder, patch) {
                add(joined(folder, patch).unwrap_or_default(), manifest);
            }
        }
        self.notes.extend(unknown);
        Ok(())
    }

    fn name_what_is_not_followed(&mut self, file: &str, kustomization: &Kustomization) {
        for key in NOT_FOLLOWED {
            let value = kustomization.value.get(key);
            if value.is_some_and(|value| {
                !value.is_null() && value.as_sequence().is_none_or(|list| !list.is_empty())
            }) {
                self.notes.push(format!(
                    "{file}: {key} was not followed; what it says of images is not known here"
                ));
            }
        }
    }

    /// Applies the entries of a kustomization, one after the other.
    fn entries(&mut self, file: &str, kustomization: &Kustomization, images: &mut Vec<BuiltImage>) {
        for (index, entry) in kustomization.images().iter().enumerate() {
            let place = EntryPlace {
                file: file.to_owned(),
                index,
            };
            let name = &entry.state.name;
            let Some(pattern) = NamePattern::compile(name) else {
                self.notes.push(format!(
                    "{file}:{}: kustomize panics at the name {name}, which is no regular expression",
                    entry.line
                ));
                continue;
            };
            let mut matched = false;
            for image in images.iter_mut().filter(|image| pattern.matches(&image.built)) {
                image.apply(entry, &place);
                matched = true;
            }
            if !matched && !name.is_empty() && is_plain(name) {
                // Nothing that was read is called so; something that was not may be.
                let mut image = BuiltImage::new(None, name);
                image.apply(entry, &place);
                images.push(image);
            }
        }
    }
}

/// The texts of a list.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .and_then(Value::as_sequence)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether a resource can be no path.
fn is_remote(resource: &str) -> bool {
    resource.contains("://")
        || resource.contains("?ref=")
        || resource.contains('\n')
        || ["git@", "git::", "/"]
            .iter()
            .any(|start| resource.starts_with(start))
}

/// A path from a folder, normalised; none when it leads out of the repository.
fn joined(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    })
}
