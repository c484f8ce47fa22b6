//! What a request does to which repository, as token servers are asked for it.
//!
//! Source: the distribution project's "Token Scope Documentation".

use std::collections::BTreeMap;

/// How many repositories one token is asked for: it travels in a header, and what it is asked for with in an address,
/// for which servers commonly take 8 KiB.
const MOST_SCOPES: usize = 24;

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

    /// These, and of the others as many as one token is asked for: those that no token in `held` covers.
    pub(super) fn widened<'a>(
        &self,
        others: &Scopes,
        held: impl Iterator<Item = &'a Scopes> + Clone,
    ) -> Self {
        let mut wide = self.clone();
        for (repository, access) in &others.0 {
            let one = Scopes::of(repository, *access);
            let is_held = held.clone().any(|held| held.covers(&one));
            let is_more_of_the_same = wide.0.contains_key(repository);
            if is_more_of_the_same || (!is_held && wide.0.len() < MOST_SCOPES) {
                wide = wide.and(&one);
            }
        }
        wide
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

    #[test]
    fn a_token_is_asked_for_with_what_is_to_come_but_not_endlessly_much() {
        let all = |numbers: std::ops::Range<usize>| {
            numbers.fold(Scopes::default(), |all, number| {
                all.and(&Scopes::of(&format!("app-{number:03}"), Access::Push))
            })
        };
        let needed = Scopes::of("app-099", Access::Pull);
        let few = needed.widened(&all(90..100), std::iter::empty());
        assert_eq!(few, all(90..100));
        let first = needed.widened(&all(0..100), std::iter::empty());
        assert_eq!(first.words().len(), MOST_SCOPES);
        assert!(first.covers(&Scopes::of("app-099", Access::Push)) && first.covers(&all(0..MOST_SCOPES - 1)));
        // The next one goes on where that ended.
        let next = Scopes::of("app-050", Access::Push).widened(&all(0..100), std::iter::once(&first));
        assert!(next.covers(&all(MOST_SCOPES - 1..MOST_SCOPES + 5)));
    }
}
