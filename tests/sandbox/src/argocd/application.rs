//! The Application resource as Argo CD's API prints it: the same fields in the same order, present and absent alike.
//!
//! Names and the rules for what is left out when empty follow the type definitions of Argo CD 3.2
//! (`pkg/apis/application/v1alpha1`), which the recorded answers in this crate's tests confirm.

use serde::Serialize;

use super::settings::Source;

/// One application with all that is known about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Application {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    pub(super) status: Status,
    /// What runs now; absent as soon as it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<Operation>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    /// A decimal number that grows with every write to the cluster.
    pub(super) resource_version: String,
    /// Grows with every write to this application.
    pub(super) generation: u64,
    pub(super) creation_timestamp: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    /// The one source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
    pub(super) destination: Destination,
    pub(super) project: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sync_policy: Option<SyncPolicy>,
    /// Several, which take the place of the one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Destination {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) server: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SyncPolicy {
    pub(super) automated: Automated,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Automated {
    pub(super) prune: bool,
    pub(super) self_heal: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resources: Vec<Resource>,
    pub(super) sync: Sync,
    pub(super) health: AppHealth,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) history: Vec<Deployed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reconciled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operation_state: Option<OperationState>,
    /// Absent while the manifests cannot be generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_type: Option<&'static str>,
    /// The same of several sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) source_types: Vec<&'static str>,
    pub(super) summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource_health_source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) controller_namespace: Option<String>,
    pub(super) source_hydrator: NeverHydrated,
}

/// Printed as `{}`: the hydrator is not in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct NeverHydrated {}

/// Whether something is as the repository says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) enum SyncCode {
    /// What an application has that was never compared.
    #[default]
    #[serde(rename = "")]
    NeverCompared,
    Synced,
    OutOfSync,
    Unknown,
}

/// How something does, from best to worst: an application is as well as the worst of its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum HealthCode {
    Healthy,
    Progressing,
    Missing,
    Degraded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    pub(super) status: HealthCode,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppHealth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<HealthCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_transition_time: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) status: SyncCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<Health>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) requires_pruning: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sync {
    pub(super) status: SyncCode,
    pub(super) compared_to: ComparedTo,
    /// The commit; the name of the branch while the manifests cannot be generated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) revision: String,
    /// The commits of several sources; none while the manifests of one cannot be generated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) revisions: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ComparedTo {
    /// Printed empty where there are several.
    pub(super) source: Source,
    pub(super) destination: Destination,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
}

/// One entry of the history: a sync that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Deployed {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) revision: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) revisions: Vec<String>,
    pub(super) deployed_at: String,
    pub(super) id: u64,
    pub(super) source: Source,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
    pub(super) deploy_started_at: String,
    pub(super) initiated_by: Initiator,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) last_transition_time: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    pub(super) sync: SyncOperation,
    pub(super) initiated_by: Initiator,
    pub(super) retry: Retry,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncOperation {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) revision: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) revisions: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) prune: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
}

/// Who began an operation: a user, or the controller itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Initiator {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) username: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) automated: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Retry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Phase {
    Running,
    Succeeded,
    Failed,
    Error,
}

/// The latest operation, which stays here when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OperationState {
    pub(super) operation: Operation,
    pub(super) phase: Phase,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sync_result: Option<SyncResult>,
    pub(super) started_at: String,
    /// Of one that is tried again, when its latest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<String>,
    /// How often it was tried again.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) retry_count: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SyncResult {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resources: Vec<ResourceResult>,
    pub(super) revision: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) revisions: Vec<String>,
    pub(super) source: Source,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceResult {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) message: String,
    pub(super) hook_phase: Phase,
    pub(super) sync_phase: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) images: Vec<String>,
}

/// What exists in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The images of the pods that exist, sorted, whether they run or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) images: Vec<String>,
}

impl Spec {
    /// Where its manifests come from, in the order of their commits.
    pub(super) fn all_sources(&self) -> &[Source] {
        self.source
            .as_ref()
            .map_or(self.sources.as_slice(), std::slice::from_ref)
    }

    /// Which commits that means where each source is at its target.
    pub(super) fn targets(&self) -> Vec<String> {
        let targets = self.all_sources().iter();
        targets.map(|source| source.target_revision.clone()).collect()
    }

    /// The commits as the fields for one and for several take them.
    pub(super) fn told(&self, commits: &[String]) -> (String, Vec<String>) {
        match commits {
            [commit] if self.source.is_some() => (commit.clone(), Vec::new()),
            commits => (String::new(), commits.to_vec()),
        }
    }
}

impl Sync {
    /// What it was compared to, for people.
    pub(super) fn commits(&self) -> String {
        if self.revisions.is_empty() {
            self.revision.clone()
        } else {
            self.revisions.join(" ")
        }
    }
}

impl SyncOperation {
    /// The commit of each source.
    pub(super) fn commits(&self) -> Vec<String> {
        if self.revisions.is_empty() {
            vec![self.revision.clone()]
        } else {
            self.revisions.clone()
        }
    }
}

/// The present as Kubernetes prints times: RFC 3339 in UTC, whole seconds.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to the field"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to the field"
)]
fn is_zero(count: &u8) -> bool {
    *count == 0
}
