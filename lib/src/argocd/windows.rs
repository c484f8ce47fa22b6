//! Sync windows: when a project lets its applications be synced.
//!
//! Source: Argo CD documentation, "Sync Windows". A deny window that is active wins over any allow window; where allow
//! windows are assigned, one of them has to be active.

use serde::Deserialize;

use super::application::or_default;

/// The windows of one application.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncWindows {
    /// Those that count now.
    #[serde(deserialize_with = "or_default")]
    pub active_windows: Vec<SyncWindow>,
    /// All that are about it.
    #[serde(deserialize_with = "or_default")]
    pub assigned_windows: Vec<SyncWindow>,
    /// Whether a sync may be asked for now. Absent means no (a false that was left out).
    #[serde(deserialize_with = "or_default")]
    pub can_sync: bool,
}

/// One window.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncWindow {
    /// `allow` or `deny`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// When it begins, as cron writes it.
    #[serde(deserialize_with = "or_default")]
    pub schedule: String,
    /// How long it lasts.
    #[serde(deserialize_with = "or_default")]
    pub duration: String,
}

impl SyncWindows {
    /// The window that stops an operation of this kind, also one that has begun; none when it may go on.
    #[must_use]
    pub fn stops(&self, automated: bool) -> Option<&SyncWindow> {
        if !automated && self.can_sync {
            return None;
        }
        self.in_the_way()
    }

    /// The window that keeps Argo CD from syncing by itself now, if one does: an active one that denies, else one that
    /// would allow and is not active.
    #[must_use]
    pub fn in_the_way(&self) -> Option<&SyncWindow> {
        let active = |kind: &str| self.active_windows.iter().find(|window| window.kind == kind);
        if let Some(denying) = active("deny") {
            return Some(denying);
        }
        if active("allow").is_some() {
            return None;
        }
        self.assigned_windows.iter().find(|window| window.kind == "allow")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kind: &str) -> SyncWindow {
        SyncWindow {
            kind: kind.to_owned(),
            schedule: "0 22 * * *".to_owned(),
            duration: "1h".to_owned(),
        }
    }

    #[test]
    fn deny_wins_and_allow_has_to_be_open() {
        let (allow, deny) = (window("allow"), window("deny"));
        for (active, assigned, stopped_by) in [
            (vec![], vec![], None),
            (vec![], vec![&deny], None),
            (vec![&deny], vec![&deny], Some(&deny)),
            (vec![&allow], vec![&allow], None),
            (vec![], vec![&allow, &deny], Some(&allow)),
            (vec![&allow, &deny], vec![&allow, &deny], Some(&deny)),
        ] {
            let windows = SyncWindows {
                active_windows: active.into_iter().cloned().collect(),
                assigned_windows: assigned.into_iter().cloned().collect(),
                can_sync: false,
            };
            assert_eq!(windows.in_the_way(), stopped_by, "{windows:?}");
        }
    }
}
