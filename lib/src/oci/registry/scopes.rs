//! What a request does to which repository, as token servers are asked for it.
//!
//! Source: the distribution project's "Token Scope Documentation".

use std::collections::BTreeMap;

/// What a request does to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reads.
    Pull,
    /// Reads and writes.
    Push,
    /// Reads, writes and deletes.
    Delete,
}

/// Access to repositories, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeMap<String, Access>);

impl Scopes {
    pub(super) fn of(repository: &str, access: Access) -> Self {
        Scopes(BTreeMap::from([(repository.to_owned(), access)]))
    }

    pub(super) fn and(mut self, other: &Scopes) -> Self {
        for (repository, access) in &other.0 {
            let held = self.0.entry(repository.clone()).or_insert(*access);
            *held = (*held).max(*access);
        }
        self
    }

    pub(super) fn covers(&self, other: &Scopes) -> bool {
        other
            .0
            .iter()
            .all(|(repository, access)| self.0.get(repository).is_some_and(|held| held >= access))
    }

    /// As the token server reads them, and as messages show them.
    pub(super) fn words(&self) -> Vec<String> {
        let word = |(repository, access): (&String, &Access)| match access {
            Access::Pull => format!("repository:{repository}:pull"),
            Access::Push => format!("repository:{repository}:pull,push"),
            Access::Delete => format!("repository:{repository}:pull,push,delete"),
        };
        self.0.iter().map(word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_add_up_and_cover() {
        let pull = Scopes::of("team/app", Access::Pull);
        let push = Scopes::of("team/app", Access::Push);
        let both = pull.clone().and(&push).and(&Scopes::of("base", Access::Pull));
        assert!(push.covers(&pull) && !pull.covers(&push) && both.covers(&push));
        assert!(both.covers(&Scopes::default()) && !push.covers(&both));
        assert_eq!(
            both.words(),
            ["repository:base:pull", "repository:team/app:pull,push"]
        );
    }
}
