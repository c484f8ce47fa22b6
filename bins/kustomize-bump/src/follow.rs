//! `--follow`: an image is set in the kustomization that decides about it. Afterwards every build has to name what was
//! asked for, and apart from that what it named before.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::git::{Change, Files};
use towpath::kustomize::{
    Build, BuiltImage, EntryPlace, ImageSpec, ImageState, Kustomization, Reference, Sources, Tried, hold_path,
};

use crate::plan::{SetPlan, Wish, refuse_contradicted, refuse_held, refuse_unexpected};
use crate::report::{FileChange, FollowedImage};

/// The builds of all paths, and what they were made from.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// What was read.
    pub(crate) sources: Sources,
    /// One for each path.
    pub(crate) builds: Vec<Build>,
}

/// Where a wish has to be written to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// An entry that is there.
    Entry(EntryPlace),
    /// A new entry of this name, in this file.
    Added { file: String, name: String },
}

impl Target {
    fn file(&self) -> &str {
        match self {
            Target::Entry(place) => &place.file,
            Target::Added { file, .. } => file,
        }
    }
}

impl Followed {
    /// The builds of the paths, as far as what was read goes, and what has to be read for the others.
    pub(crate) fn of(paths: &[String], sources: Sources) -> Result<(Self, Vec<String>)> {
        let mut needs = std::collections::BTreeSet::new();
        let mut builds = Vec::new();
        for path in paths {
            match Build::of(path, &sources)? {
                Tried::Needs(more) => needs.extend(more),
                Tried::Built(build) => builds.push(build),
            }
        }
        Ok((Followed { sources, builds }, needs.into_iter().collect()))
    }

    /// The files with the holds that could stand against a wish: on the overlay, and where the image is decided.
    pub(crate) fn hold_files(&self, wish: &Wish) -> Vec<String> {
        let mut files = Vec::new();
        for (build, spec) in self.wishes(wish) {
            for image in build.meant_by(&spec.name) {
                files.extend(self.holds_on(build, spec, image));
            }
            files.push(hold_path(folder_of(&build.file), &spec.name));
        }
        files.sort();
        files.dedup();
        files
    }

    /// The images of all builds, or those that `name` means, and what was not followed.
    ///
    /// # Errors
    /// Not found (exit 5) when a build has no such image.
    pub(crate) fn images(&self, name: Option<&str>) -> Result<(Vec<FollowedImage>, Vec<String>)> {
        let mut shown: Vec<FollowedImage> = Vec::new();
        let mut notes = Vec::new();
        for build in &self.builds {
            let path = folder_of(&build.file);
            let images = match name {
                None => build.images.iter().collect(),
                Some(name) => build.meant_by(name),
            };
            if let (Some(name), true) = (name, images.is_empty()) {
                return Err(absent(build, name));
            }
            for image in images {
                let place = image.place();
                let entry = place.and_then(|place| {
                    let kustomization = self.sources.kustomization(&place.file)?;
                    kustomization.images().get(place.index)
                });
                let file = place.map(|place| place.file.clone());
                let line = entry.map(|entry| entry.line);
                let same = shown.iter_mut().find(|one| {
                    one.path == path && one.built == image.built && one.file == file && one.line == line
                });
                let manifests = image.origin.clone();
                match same {
                    Some(one) => {
                        one.manifests.extend(manifests);
                        one.manifests.dedup();
                    }
                    None => shown.push(FollowedImage {
                        path: path.to_owned(),
                        built: image.built.clone(),
                        manifests: manifests.into_iter().collect(),
                        file,
                        line,
                        entry: entry.map(|entry| entry.state.clone()),
                    }),
                }
            }
            notes.extend(build.notes.iter().cloned());
        }
        notes.sort();
        notes.dedup();
        Ok((shown, notes))
    }

    fn wishes<'all>(&'all self, wish: &'all Wish) -> impl Iterator<Item = (&'all Build, &'all ImageSpec)> {
        wish.specs
            .iter()
            .flat_map(|spec| self.builds.iter().map(move |build| (build, spec)))
    }

    fn holds_on(&self, build: &Build, spec: &ImageSpec, image: &BuiltImage) -> Vec<String> {
        let overlay = folder_of(&build.file);
        let mut files = vec![hold_path(overlay, &spec.name)];
        files.extend(image.names.iter().map(|name| hold_path(overlay, name)));
        if let Some(place) = image.place()
            && let Some(entry) = entry_at(&self.sources, place)
        {
            files.push(hold_path(folder_of(&place.file), &entry.name));
        }
        files
    }
}

/// Decides on `set --follow`.
///
/// # Errors
/// As [`crate::plan::set`]; not found (exit 5) for an image that no entry decides about; input (exit 3) when a build
/// would not come out as asked for.
pub(crate) fn set(followed: &Followed, holds: &Files, wish: &Wish) -> Result<SetPlan> {
    let mut sources = followed.sources.clone();
    let mut plan = SetPlan::default();
    let mut written: BTreeMap<(Target, usize), usize> = BTreeMap::new();
    let mut wanted: Vec<Vec<Option<Wanted>>> = followed
        .builds
        .iter()
        .map(|build| vec![None; build.images.len()])
        .collect();
    for (number, spec) in wish.specs.iter().enumerate() {
        let mut present = false;
        for (build, wanted) in followed.builds.iter().zip(&mut wanted) {
            let meant = build.meant_by(&spec.name);
            if meant.is_empty() && wish.where_present {
                continue;
            }
            present = true;
            for (target, images) in targets(build, spec, &meant, wish.add)? {
                let key = (target, number);
                let at = match written.get(&key) {
                    Some(at) => *at,
                    None => {
                        let at = plan.files.len();
                        plan.files
                            .push(write(&mut sources, &key.0, spec, &images, wish, &mut plan.notes)?);
                        written.insert(key.clone(), at);
                        at
                    }
                };
                let change = &mut plan.files[at];
                if change.changed {
                    // What is added under a name that nothing was read of may be held all the same.
                    let own = hold_path(folder_of(&build.file), &spec.name);
                    refuse_held(holds, own, &mut plan.unheld)?;
                    for hold in images
                        .iter()
                        .flat_map(|image| followed.holds_on(build, spec, image))
                    {
                        refuse_held(holds, hold, &mut plan.unheld)?;
                    }
                } else if let Target::Entry(place) = &key.0 {
                    let own = hold_path(folder_of(&place.file), &change.image);
                    refuse_contradicted(holds, &own, &change.new)?;
                }
                change.decides_for.push(folder_of(&build.file).to_owned());
                for image in images {
                    let index = build.images.iter().position(|one| std::ptr::eq(one, image));
                    if let Some(slot) = index.and_then(|index| wanted.get_mut(index)) {
                        if slot.is_some() {
                            return Err(Failure::usage(format!(
                                "two of the images that are given mean {} in {}",
                                image.built, build.file
                            ))
                            .hint("name it once"));
                        }
                        *slot = Some(Wanted::new(spec, image, &change.new));
                    }
                }
            }
        }
        if !present {
            return Err(Failure::not_found(format!(
                "none of the {} kustomizations has image {}",
                followed.builds.len(),
                spec.name
            ))
            .hint("`kustomize-bump get --follow` lists the images that are there"));
        }
    }
    for (build, wanted) in followed.builds.iter().zip(&wanted) {
        verify(build, &sources, wanted)?;
        plan.notes.extend(build.notes.iter().cloned());
    }
    for change in &plan.files {
        let (file, before) = (&change.file, followed.sources.kustomization(&change.file));
        let texts = (
            before.map(Kustomization::text),
            sources.kustomization(file).map(Kustomization::text),
        );
        if let (Some(before), Some(after)) = texts
            && before != after
            && !plan.changes.iter().any(|written| written.path == *file)
        {
            plan.changes.push(Change {
                path: file.clone(),
                content: Some(after.as_bytes().to_vec()),
            });
            plan.texts
                .push((file.clone(), before.to_owned(), after.to_owned()));
        }
        if change.changed && change.decides_for.iter().any(|folder| *folder != change.path) {
            plan.notes.push(format!(
                "{file} decides on image {}: whatever else builds on it changes too",
                change.image
            ));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    plan.notes.retain(|note| seen.insert(note.clone()));
    Ok(plan)
}

/// Where the images that a wish means have to be written, with the images that each place decides.
fn targets<'build>(
    build: &'build Build,
    spec: &ImageSpec,
    meant: &[&'build BuiltImage],
    add: bool,
) -> Result<BTreeMap<Target, Vec<&'build BuiltImage>>> {
    let mut targets: BTreeMap<Target, Vec<&BuiltImage>> = BTreeMap::new();
    let mut undecided: Vec<&BuiltImage> = Vec::new();
    for image in meant {
        match image.place() {
            Some(place) => targets
                .entry(Target::Entry(place.clone()))
                .or_default()
                .push(image),
            None => undecided.push(image),
        }
    }
    let added = |name: &str| Target::Added {
        file: build.file.clone(),
        name: name.to_owned(),
    };
    let Some(first) = undecided.first() else {
        if targets.is_empty() {
            if !add {
                return Err(absent(build, &spec.name));
            }
            targets.insert(added(&spec.name), Vec::new());
        }
        return Ok(targets);
    };
    let origin = first.origin.as_deref().unwrap_or(&build.file);
    if !targets.is_empty() {
        let place = targets.keys().next().map_or(build.file.as_str(), Target::file);
        return Err(Failure::input(format!(
            "{}: image {} is decided in {place}, and in {origin} by no entry of images",
            build.file, spec.name
        ))
        .hint(format!(
            "without --follow, --add puts an entry that both match into {}, and the entry that is there is set in its \
             own folder",
            build.file
        )));
    }
    if !add {
        return Err(Failure::not_found(format!(
            "{}: image {} stands in {origin}, and no entry of images decides about it",
            build.file, spec.name
        ))
        .hint(format!("--add appends an entry to {}", build.file)));
    }
    for image in undecided {
        let name = Reference::parse(&image.built).name;
        targets.entry(added(&name)).or_default().push(image);
    }
    Ok(targets)
}

fn absent(build: &Build, name: &str) -> Failure {
    let mut names: Vec<String> = build
        .images
        .iter()
        .map(|image| Reference::parse(&image.built).name)
        .collect();
    names.sort();
    names.dedup();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    Failure::not_found(format!(
        "{}: no image {name} in what is built from it",
        build.file
    ))
    .hint(format!("images there: {names}; --add appends an entry"))
}

/// Writes a wish to one place.
fn write(
    sources: &mut Sources,
    target: &Target,
    spec: &ImageSpec,
    images: &[&BuiltImage],
    wish: &Wish,
    notes: &mut Vec<String>,
) -> Result<FileChange> {
    let file = target.file();
    let kustomization = sources
        .kustomization(file)
        .ok_or_else(|| Failure::internal(format!("{file} was not read")))?;
    let mut spec = spec.clone();
    // What they are called in the end already need not be said again, perhaps in another place.
    let called_so = |image: &&BuiltImage| Some(Reference::parse(&image.built).name) == spec.new_name;
    if !images.is_empty() && images.iter().all(called_so) {
        spec.new_name = None;
    }
    let edit = match target {
        Target::Entry(place) => kustomization.set_entry(place.index, &spec, wish.pin)?,
        Target::Added { name, .. } => {
            spec.name.clone_from(name);
            kustomization.set(&spec, wish.pin, true)?
        }
    };
    notes.extend(edit.notes.iter().cloned());
    if edit.changed() {
        refuse_unexpected(file, edit.old.as_ref(), &edit.new, wish.expect_current.as_ref())?;
        sources.learn(file, Some(edit.text.as_bytes()))?;
    }
    Ok(FileChange {
        path: folder_of(file).to_owned(),
        file: file.to_owned(),
        image: edit.new.name.clone(),
        changed: edit.changed(),
        old: edit.old,
        new: edit.new,
        decides_for: Vec::new(),
    })
}

/// What the build has to name in the end.
#[derive(Clone, Debug)]
struct Wanted(Reference);

impl Wanted {
    fn new(spec: &ImageSpec, image: &BuiltImage, entry: &ImageState) -> Self {
        let before = Reference::parse(&image.built);
        Wanted(Reference {
            name: spec.new_name.clone().unwrap_or(before.name),
            tag: entry.tag.clone().unwrap_or_default(),
            digest: entry.digest.clone().unwrap_or_default(),
        })
    }
}

/// Builds again, and compares.
fn verify(before: &Build, sources: &Sources, wanted: &[Option<Wanted>]) -> Result<()> {
    let Tried::Built(after) = Build::of(&before.file, sources)? else {
        return Err(Failure::internal(format!(
            "{} cannot be built again",
            before.file
        )));
    };
    let read = |image: &&BuiltImage| image.origin.is_some();
    let pairs = before
        .images
        .iter()
        .zip(wanted)
        .filter(|(image, _)| read(image))
        .zip(after.images.iter().filter(read));
    for ((image, wanted), after) in pairs {
        let expected = wanted
            .as_ref()
            .map_or_else(|| image.built.clone(), |wanted| wanted.0.to_string());
        if after.built == expected {
            continue;
        }
        let place = after
            .outermost
            .as_ref()
            .map(|place| match sources.kustomization(&place.file) {
                Some(kustomization) => format!(
                    "{}:{}",
                    place.file,
                    kustomization
                        .images()
                        .get(place.index)
                        .map_or(0, |entry| entry.line)
                ),
                None => place.file.clone(),
            });
        return Err(Failure::input(format!(
            "{}: {} would become {} where {expected} is meant{}",
            before.file,
            image.built,
            after.built,
            place.map_or(String::new(), |place| format!(", by the entry at {place}"))
        ))
        .hint("mend that entry, or set the images one by one without --follow"));
    }
    Ok(())
}

fn entry_at<'all>(sources: &'all Sources, place: &EntryPlace) -> Option<&'all ImageState> {
    let entry = sources.kustomization(&place.file)?.images().get(place.index)?;
    Some(&entry.state)
}

/// The folder of a file.
pub(crate) fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or(".", |(folder, _)| folder)
}
