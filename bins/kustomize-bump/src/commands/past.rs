//! What a decision knows of a branch's past, fetched no further than it is asked for.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::git::History;

use crate::source::Tree;

/// The past as far as it is here. Made anew for each tip.
#[derive(Debug, Default)]
pub(super) struct Past {
    histories: BTreeMap<String, History>,
    commits: BTreeMap<String, Option<String>>,
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
        if let Some(known) = self.commits.get(prefix) {
            return Ok(known.clone());
        }
        let mut found = tree.commits(prefix).await?;
        if found.len() > 1 {
            return Err(Failure::usage(format!("several commits begin with {prefix}"))
                .hint("give more digits of the one that is meant"));
        }
        let one = found.pop();
        self.commits.insert(prefix.to_owned(), one.clone());
        Ok(one)
    }

    /// Fetches more of it. False when there is no more to be had, or `times` were enough.
    pub(super) async fn deepen(&mut self, tree: &mut Tree<'_>, times: u32) -> Result<bool> {
        if self.deepened >= times || !tree.deepen().await? {
            return Ok(false);
        }
        self.deepened += 1;
        self.histories.clear();
        self.commits.clear();
        Ok(true)
    }
}
