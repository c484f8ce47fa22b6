//! What a decision knows of a branch's past, fetched no further than it is asked for.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::git::History;

use crate::source::Tree;

/// The past as far as it is here. Made anew for each tip.
#[derive(Debug, Default)]
pub(super) struct Past {
    histories: BTreeMap<String, History>,
    commits: Option<Vec<String>>,
    deepened: u32,
}

impl Past {
    /// The commits that changed a file.
    pub(super) async fn history(&mut self, tree: &Tree<'_>, file: &str) -> Result<&History> {
        if !self.histories.contains_key(file) {
            let history = tree.history(file).await?;
            self.histories.insert(file.to_owned(), history);
        }
        self.histories
            .get(file)
            .ok_or_else(|| Failure::internal(format!("the history of {file} was not read")))
    }

    /// The commit of the branch whose name begins like this; none when it is not here.
    pub(super) async fn commit(&mut self, tree: &Tree<'_>, prefix: &str) -> Result<Option<String>> {
        if self.commits.is_none() {
            self.commits = Some(tree.commits().await?);
        }
        let commits = self.commits.iter().flatten();
        let mut found = commits.filter(|commit| commit.starts_with(prefix));
        let one = found.next().cloned();
        if found.next().is_some() {
            return Err(Failure::usage(format!("several commits begin with {prefix}"))
                .hint("give more digits of the one that is meant"));
        }
        Ok(one)
    }

    /// Fetches more of it. False when there is no more to be had, or `times` were enough.
    pub(super) async fn deepen(&mut self, tree: &mut Tree<'_>, times: u32) -> Result<bool> {
        if self.deepened >= times || !tree.deepen().await? {
            return Ok(false);
        }
        self.deepened += 1;
        self.histories.clear();
        self.commits = None;
        Ok(true)
    }
}
