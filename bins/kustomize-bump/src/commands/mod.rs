//! One file a command: the order of its effects. What they share of looking is here.

mod deployed;
mod get;
mod history;
mod hold;
mod order;
mod past;
mod registry;
mod rollback;
mod set;

pub(crate) use get::get;
pub(crate) use history::history;
pub(crate) use hold::{hold, release};
pub(crate) use rollback::roll_back;
pub(crate) use set::{set, show};

use towpath::failure::{Failure, Result};
use towpath::git::Files;
use towpath::kustomize::{Hold, file_candidates, hold_path};

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

/// Reads the kustomizations at the paths.
async fn look(tree: &Tree<'_>, paths: &[String]) -> Result<(Vec<Found>, Files)> {
    let candidates: Vec<String> = paths.iter().flat_map(|path| file_candidates(path)).collect();
    let files = tree.read(&candidates).await?;
    let found = paths
        .iter()
        .map(|path| plan::find(&files, path))
        .collect::<Result<_>>()?;
    Ok((found, files))
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
    paths.iter().map(|path| source.path_from_root(path)).collect()
}

fn place_of(source: &Source) -> Place {
    Place {
        repository: source.repository(),
        branch: source.branch(),
    }
}
