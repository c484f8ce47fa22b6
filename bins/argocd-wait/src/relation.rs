//! How the commit that an application was compared to stands to ours. Argo CD does not say. The repository does, where it can
//! be asked; elsewhere it is concluded from the application's history, from what was seen, and from when both were written.

use towpath::argocd::application::Application;

/// How another commit stands to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It is older: Argo CD has not looked at ours yet.
    Before,
    /// It took the place of ours.
    After,
    /// Nothing tells.
    Unknown,
}

/// What is known of the two besides the application.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clues {
    /// The application was seen at our commit during this run.
    pub(crate) was_at_ours: bool,
    /// The other one was not there yet at the first look, and the application was compared since a refresh was asked for.
    pub(crate) appeared: bool,
    /// What the repository's history says, where it could be asked.
    pub(crate) lineage: Option<Relation>,
    /// When ours and the other were written, in seconds since 1970.
    pub(crate) written: Option<(i64, i64)>,
}

/// How `other` stands to `ours`.
pub(crate) fn relation(application: &Application, ours: &str, other: &str, clues: &Clues) -> Relation {
    if let Some(told) = clues.lineage {
        return told;
    }
    if clues.was_at_ours {
        return Relation::After;
    }
    let place = |commit| application.place_in_history(commit);
    match (place(ours), place(other)) {
        (Some(ours), Some(other)) if other < ours => return Relation::Before,
        // It is compared to the tip of its branch: what was deployed before that is older.
        (Some(_), _) => return Relation::After,
        (None, _) => {}
    }
    match clues.written {
        Some((ours, other)) if other > ours => Relation::After,
        Some((ours, other)) if other < ours => Relation::Before,
        // Dates count seconds, and two commits of one second look alike. A branch only goes forward.
        _ if clues.appeared => Relation::After,
        _ => Relation::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use towpath::argocd::application::Deployed;

    use super::*;

    fn deployed(commits: &[&str]) -> Application {
        let mut application = Application::default();
        application.status.history = commits
            .iter()
            .map(|commit| Deployed {
                revision: (*commit).to_owned(),
                ..Deployed::default()
            })
            .collect();
        application
    }

    #[test]
    fn every_clue_has_its_say() {
        let nothing = Clues::default();
        let dates = |ours, other| Clues {
            written: Some((ours, other)),
            ..nothing
        };
        let appeared = Clues {
            appeared: true,
            ..nothing
        };
        let was_at_ours = Clues {
            was_at_ours: true,
            ..nothing
        };
        let told = |relation| Clues {
            lineage: Some(relation),
            was_at_ours: true,
            ..nothing
        };
        for (history, clues, expected) in [
            (&[][..], nothing, Relation::Unknown),
            (&["other"], nothing, Relation::Unknown),
            (&["other", "ours"], nothing, Relation::Before),
            (&["ours", "other"], nothing, Relation::After),
            (&["ours"], nothing, Relation::After),
            (&["ours", "other", "ours"], nothing, Relation::Before),
            (&["other"], dates(1, 2), Relation::After),
            (&["other"], dates(2, 1), Relation::Before),
            (&["other"], dates(1, 1), Relation::Unknown),
            (&[], appeared, Relation::After),
            (&[], was_at_ours, Relation::After),
            (&[], told(Relation::Before), Relation::Before),
            (&["ours", "other"], told(Relation::Before), Relation::Before),
        ] {
            let found = relation(&deployed(history), "ours", "other", &clues);
            assert_eq!(found, expected, "{history:?} {clues:?}");
        }
        let older_and_new_here = Clues {
            appeared: true,
            written: Some((2, 1)),
            ..nothing
        };
        assert_eq!(
            relation(&deployed(&[]), "ours", "other", &older_and_new_here),
            Relation::Before
        );
    }
}
