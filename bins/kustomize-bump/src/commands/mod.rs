//! One file a command: the order of its effects. What they share of looking is here.

mod deployed;
mod get;
mod gitlab;
mod history;
mod hold;
mod moved;
mod order;
mod overridden;
mod past;
mod propose;
mod registry;
mod rollback;
mod set;

pub(crate) use get::{get, get_followed};
pub(crate) use history::history;
pub(crate) use hold::{hold, release};
pub(crate) use rollback::roll_back;
pub(crate) use set::{set, show};

use std::collections::BTreeSet;

use towpath::failure::{Failure, Result};
use towpath::git::Files;
use towpath::kustomize::{Hold, Pattern, Sources, file_candidates, hold_path};

use crate::follow::Followed;
use crate::plan::{self, Found};
use crate::report::Place;
use crate::source::{Source, Tree};

/// The file of the hold on an image, and the hold where there is one.
async fn standing_hold(tree: &Tree<'_>, folder: &str, image: &str) -> Result<(String, Option<Hold>)> {
    let file = hold_path(folder, image);
    let files = tree.read(std::slice::from_ref(&file)).await?;
    let hold = files
        .get(&file)
        .map(|content| Hold::parse(content, &file))
        .transpose()?;
    Ok((file, hold))
}

/// The folders that paths and patterns name, each once, and the files that may hold their kustomizations.
async fn folders(tree: &Tree<'_>, paths: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let mut folders: Vec<String> = Vec::new();
    let mut candidates: BTreeSet<String> = BTreeSet::new();
    for path in paths {
        if Pattern::is_one(path) {
            let pattern = Pattern::parse(path)?;
            let listed = tree.list(&pattern.base()).await?;
            let named = pattern.folders(listed.iter().map(String::as_str));
            if named.is_empty() {
                let listed = tree.list(".").await?;
                return Err(plan::unmatched(&pattern, &listed));
            }
            // What the list does not have need not be asked for.
            let listed: BTreeSet<String> = listed.into_iter().collect();
            candidates.extend(
                named
                    .iter()
                    .flat_map(|folder| file_candidates(folder))
                    .filter(|file| listed.contains(file)),
            );
            folders.extend(named);
        } else {
            candidates.extend(file_candidates(path));
            folders.push(path.clone());
        }
    }
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    Ok((folders, candidates.into_iter().collect()))
}

/// Reads the kustomizations at the paths, and those that patterns name.
async fn look(tree: &Tree<'_>, paths: &[String]) -> Result<(Vec<Found>, Files)> {
    let (folders, candidates) = folders(tree, paths).await?;
    let files = tree.read(&candidates).await?;
    let found = folders
        .iter()
        .map(|path| plan::find(&files, path))
        .collect::<Result<_>>()?;
    Ok((found, files))
}

/// Reads everything that the builds of the paths take in, as far as it is in the repository.
async fn follow(tree: &Tree<'_>, paths: &[String]) -> Result<Followed> {
    let (folders, _) = folders(tree, paths).await?;
    let mut sources = Sources::default();
    loop {
        let (followed, needs) = Followed::of(&folders, sources)?;
        if needs.is_empty() {
            return Ok(followed);
        }
        sources = followed.sources;
        let files = tree.read(&needs).await?;
        for path in &needs {
            sources.learn(path, files.get(path))?;
        }
    }
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

fn paths_from_root(source: &Source, paths: &[String]) -> Vec<String> {
    let here = Pattern::escape(&source.path_from_root("."));
    paths
        .iter()
        .map(|path| match here.as_str() {
            // The folder one is in is meant as it stands, whatever characters it holds.
            here if here != "." && Pattern::is_one(path) => format!("{here}/{path}"),
            _ => source.path_from_root(path),
        })
        .collect()
}

fn place_of(source: &Source) -> Place {
    Place {
        repository: source.repository(),
        branch: source.branch(),
        via: source.via(),
    }
}
