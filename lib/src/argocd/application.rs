//! The Application resource, as far as a deployment can be judged by it. Pure: the same document comes from Argo CD's API
//! and from the cluster's.
//!
//! Source: Argo CD 3.2, `pkg/apis/application/v1alpha1/types.go`. Any field may be absent or null.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The annotation that asks the controller for a comparison, and that it takes away once it has made one.
pub const REFRESH_ANNOTATION: &str = "argocd.argoproj.io/refresh";

/// One application.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", remote = "Self")]
pub struct Application {
    /// Who it is.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
    /// What was seen.
    #[serde(deserialize_with = "or_default")]
    pub status: Status,
    /// The operation that was asked for and has not ended.
    pub operation: Option<Operation>,
}

impl<'de> Deserialize<'de> for Application {
    /// From an object alone: what is derived would take an empty list for an application of which nothing is known.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Application;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an application object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Application, A::Error> {
                Application::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Who it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The namespace that it lives in: Argo CD's own, unless applications in any namespace are allowed.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Changes with every write.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// Since when it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Its annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The one source.
    pub source: Option<Source>,
    /// Several sources, which take the place of the one.
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<Source>,
    /// The namespace that manifests go to which name none.
    #[serde(deserialize_with = "or_default")]
    pub destination: Destination,
    /// Argo CD's project.
    #[serde(deserialize_with = "or_default")]
    pub project: String,
    /// How it is synced.
    pub sync_policy: Option<SyncPolicy>,
}

/// Where manifests come from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    /// The repository's address.
    #[serde(rename = "repoURL", deserialize_with = "or_default")]
    pub repo_url: String,
    /// The branch, tag or commit.
    #[serde(deserialize_with = "or_default")]
    pub target_revision: String,
}

/// Where manifests go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Destination {
    /// The namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
}

/// How it is synced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncPolicy {
    /// Set when commits are synced without being asked.
    pub automated: Option<Automated>,
}

/// Syncing without being asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Automated {
    /// False switches it off although it is set (Argo CD 3).
    pub enabled: Option<bool>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// How it compares to its repository.
    #[serde(deserialize_with = "or_default")]
    pub sync: Sync,
    /// How well it is: the worst of its resources.
    #[serde(deserialize_with = "or_default")]
    pub health: Health,
    /// What was synced, oldest first.
    #[serde(deserialize_with = "or_default")]
    pub history: Vec<Deployed>,
    /// What is wrong with it.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
    /// Its resources.
    #[serde(deserialize_with = "or_default")]
    pub resources: Vec<Resource>,
    /// When it was compared last (RFC 3339, UTC, seconds).
    pub reconciled_at: Option<String>,
    /// The latest operation, which stays when it has ended.
    pub operation_state: Option<OperationState>,
    /// What exists.
    #[serde(deserialize_with = "or_default")]
    pub summary: Summary,
}

/// How it compares to its repository.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sync {
    /// `Synced`, `OutOfSync` or `Unknown`; empty before the first comparison.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// The commit it was compared to; the name of the branch where there was no comparison.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// The same for several sources, in their order.
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
}

/// How well something is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Health {
    /// `Healthy`, `Suspended`, `Progressing`, `Missing`, `Degraded` or `Unknown`; empty where nobody knows.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// Why.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// When it became so.
    pub last_transition_time: Option<String>,
}

/// A sync that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Deployed {
    /// The commit.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// The commits of several sources.
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
    /// When it ended.
    pub deployed_at: Option<String>,
}

/// What is wrong with an application.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// `ComparisonError`, `SyncError`, `InvalidSpecError`, and warnings.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// In words.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// One resource of an application.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resource {
    /// Its kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Its namespace; empty where its kind has none.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// How it compares to the repository.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// How well it is. Absent in lists of newer versions.
    pub health: Option<Health>,
}

/// The latest operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OperationState {
    /// What was asked for.
    #[serde(deserialize_with = "or_default")]
    pub operation: Operation,
    /// `Running`, `Terminating`, `Succeeded`, `Failed` or `Error`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    /// In words.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// What became of it.
    pub sync_result: Option<SyncResult>,
    /// When it began. Trying it again does not change that.
    pub started_at: Option<String>,
    /// When it ended. Of one that is `Running`, when its latest attempt failed: it is tried again.
    pub finished_at: Option<String>,
    /// How often it was tried again, the next time included.
    #[serde(deserialize_with = "or_default")]
    pub retry_count: i64,
}

/// An operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// The sync that it is.
    pub sync: Option<SyncOperation>,
    /// Who began it.
    #[serde(deserialize_with = "or_default")]
    pub initiated_by: Initiator,
    /// How often it is tried again.
    pub retry: Option<Retry>,
}

/// Who began an operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Initiator {
    /// Argo CD itself, and nobody who asked for it.
    #[serde(deserialize_with = "or_default")]
    pub automated: bool,
}

/// How often an operation is tried again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Retry {
    /// At most so often; below zero without end.
    #[serde(deserialize_with = "or_default")]
    pub limit: i64,
}

/// A sync that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncOperation {
    /// The commit.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// The commits of several sources.
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
}

/// What became of a sync.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncResult {
    /// The commit.
    #[serde(deserialize_with = "or_default")]
    pub revision: String,
    /// The commits of several sources.
    #[serde(deserialize_with = "or_default")]
    pub revisions: Vec<String>,
    /// What became of each resource.
    #[serde(deserialize_with = "or_default")]
    pub resources: Vec<ResourceResult>,
}

/// What became of one resource in a sync.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceResult {
    /// Its kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Its namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `Synced`, `SyncFailed`, `Pruned` or `PruneSkipped`; empty for hooks.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// In words.
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// The phase of a hook, and of what waves wait for: `Running`, `Succeeded`, `Failed`, `Error`.
    #[serde(deserialize_with = "or_default")]
    pub hook_phase: String,
    /// The images that it names.
    #[serde(deserialize_with = "or_default")]
    pub images: Vec<String>,
}

/// What exists.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Summary {
    /// The images of the pods that exist, whether they run or not.
    #[serde(deserialize_with = "or_default")]
    pub images: Vec<String>,
}

impl Application {
    /// Whether commits are synced without being asked.
    #[must_use]
    pub fn is_automated(&self) -> bool {
        let automated = self.spec.sync_policy.as_ref().and_then(|p| p.automated.as_ref());
        automated.is_some_and(|automated| automated.enabled != Some(false))
    }

    /// Where its manifests come from, in the order of the revisions.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let several = !self.spec.sources.is_empty();
        let one = self.spec.source.as_ref().filter(|_| !several);
        self.spec.sources.iter().chain(one)
    }

    /// The commits it was compared to, one a source.
    #[must_use]
    pub fn compared_to(&self) -> Vec<&str> {
        commits(&self.status.sync.revision, &self.status.sync.revisions)
    }

    /// A condition of this type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|found| found.kind == kind)
    }

    /// When this commit was deployed last, as the history says.
    #[must_use]
    pub fn deployed_at(&self, commit: &str) -> Option<&str> {
        let found = self.status.history.iter().rev();
        let mut found = found.filter(|entry| entry.names(commit));
        found.find_map(|entry| entry.deployed_at.as_deref())
    }

    /// The place of a commit in the history; a greater one is later.
    #[must_use]
    pub fn place_in_history(&self, commit: &str) -> Option<usize> {
        self.status.history.iter().rposition(|entry| entry.names(commit))
    }

    /// Whether a comparison that was asked for is still to be made.
    #[must_use]
    pub fn awaits_refresh(&self) -> bool {
        self.metadata.annotations.contains_key(REFRESH_ANNOTATION)
    }
}

impl Deployed {
    fn names(&self, commit: &str) -> bool {
        commits(&self.revision, &self.revisions).contains(&commit)
    }
}

impl OperationState {
    /// Whether it is about what was compared: what it was begun for, or what came of it. Of several sources all count, since
    /// another one may have been mended meanwhile.
    #[must_use]
    pub fn is_of(&self, compared: &Sync) -> bool {
        let compared = commits(&compared.revision, &compared.revisions);
        let asked = self.operation.sync.as_ref();
        let asked = asked.map(|sync| commits(&sync.revision, &sync.revisions));
        let result = self.sync_result.as_ref();
        let result = result.map(|result| commits(&result.revision, &result.revisions));
        let is_known = compared.iter().any(|commit| !commit.is_empty());
        is_known && (asked.as_ref() == Some(&compared) || result.as_ref() == Some(&compared))
    }

    /// The commits that it was begun for, and those that came of it.
    #[must_use]
    pub fn commits(&self) -> Vec<&str> {
        let asked = self.operation.sync.as_ref();
        let asked = asked.map(|sync| commits(&sync.revision, &sync.revisions));
        let result = self.sync_result.as_ref();
        let result = result.map(|result| commits(&result.revision, &result.revisions));
        let mut all = Vec::new();
        for commit in asked.into_iter().chain(result).flatten() {
            if !commit.is_empty() && !all.contains(&commit) {
                all.push(commit);
            }
        }
        all
    }
}

fn commits<'a>(one: &'a str, several: &'a [String]) -> Vec<&'a str> {
    if several.is_empty() {
        vec![one]
    } else {
        several.iter().map(String::as_str).collect()
    }
}

/// A time of Argo CD (RFC 3339) in seconds since 1970.
#[must_use]
pub fn moment(text: &str) -> Option<i64> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    Some(moment.as_second())
}

/// Takes null for nothing said.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_mean_nothing_said() {
        let nothing: Application = serde_json::from_str(
            r#"{"metadata":null,"spec":{"sources":null,"syncPolicy":{"automated":null}},"operation":null,
                "status":{"history":null,"summary":null,"conditions":[{"type":null}]}}"#,
        )
        .unwrap();
        assert!(!nothing.is_automated());
        assert_eq!(nothing.compared_to(), [""]);
        assert!(serde_json::from_str::<Application>("{}").is_ok());
        for other in ["[]", "[1]", "null", "\"web\"", "7"] {
            assert!(serde_json::from_str::<Application>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn several_sources_have_several_revisions() {
        let application: Application = serde_json::from_str(
            r#"{"spec":{"source":{"repoURL":"ignored"},"sources":[{"repoURL":"a"},{"repoURL":"b"}]},
                "status":{"sync":{"revision":"","revisions":["1","2"]},
                "history":[{"revisions":["1","2"],"deployedAt":"then"},{"revision":"3"}]}}"#,
        )
        .unwrap();
        let repositories = application.sources().map(|source| source.repo_url.as_str());
        assert_eq!(repositories.collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(application.compared_to(), ["1", "2"]);
        assert_eq!(application.deployed_at("2"), Some("then"));
        assert_eq!(application.place_in_history("3"), Some(1));
        assert_eq!(application.place_in_history("4"), None);
    }

    #[test]
    fn an_operation_is_about_the_commits_of_all_sources() {
        let compared = |revision: &str, revisions: &[&str]| Sync {
            revision: revision.to_owned(),
            revisions: revisions.iter().map(|revision| (*revision).to_owned()).collect(),
            ..Sync::default()
        };
        let several: OperationState =
            serde_json::from_str(r#"{"operation":{"sync":{"revisions":["1","2"]}}}"#).unwrap();
        assert!(several.is_of(&compared("", &["1", "2"])));
        assert!(!several.is_of(&compared("", &["3", "2"])));
        assert!(!several.is_of(&compared("2", &[])));
        let one: OperationState = serde_json::from_str(
            r#"{"operation":{"sync":{"revision":"main"}},"syncResult":{"revision":"1"}}"#,
        )
        .unwrap();
        assert!(one.is_of(&compared("1", &[])) && one.is_of(&compared("main", &[])));
        assert!(!one.is_of(&compared("2", &[])));
        assert!(!OperationState::default().is_of(&compared("", &[])));
    }

    #[test]
    fn a_moment_is_read_wherever_it_was() {
        assert_eq!(moment("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(moment("1970-01-01T01:01:00+01:00"), Some(60));
        assert_eq!(moment("yesterday"), None);
    }

    #[test]
    fn auto_sync_can_be_switched_off_where_it_stands() {
        let automated = |policy: &str| {
            let text = format!(r#"{{"spec":{{"syncPolicy":{policy}}}}}"#);
            serde_json::from_str::<Application>(&text).unwrap().is_automated()
        };
        assert!(automated(r#"{"automated":{}}"#));
        assert!(automated(r#"{"automated":{"enabled":true}}"#));
        assert!(!automated(r#"{"automated":{"enabled":false}}"#));
        assert!(!automated("{}"));
        assert!(!automated("null"));
    }
}
