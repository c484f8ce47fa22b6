//! One file a command: the order of its effects. What they share of looking is here.

mod get;
mod history;
mod release;
mod rollback;
mod set;

pub(crate) use get::get;
pub(crate) use history::history;
pub(crate) use release::release;
pub(crate) use rollback::roll_back;
pub(crate) use set::{set, show};

use towpath::failure::{Failure, Result};
use towpath::git::Files;
use towpath::kustomize::file_candidates;

use crate::plan::{self, Found};
use crate::report::Place;
use crate::rollback::{self as way_back, Step};
use crate::source::{Source, Tree};

async fn look_back(tree: &Tree<'_>, file: &str, image: &str) -> Result<(Vec<Step>, bool)> {
    let history = tree.history(file).await?;
    Ok((way_back::steps(&history, file, image), history.complete))
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
        via: source.via(),
    }
}
