//! The report: `towpath.argocd-wait/1`.

use std::fmt::Write as _;

use serde::Serialize;
use towpath::cli::Report;

use crate::evidence::{Evidence, Unwell};
use crate::follow::Standing;
use crate::plan::{Proof, Wanted};
use crate::record::Deployment;

/// How many images of an application are listed.
const IMAGES: usize = 50;

/// What was waited for, and how it ended.
#[derive(Debug, Serialize)]
pub(crate) struct Waited {
    revision: String,
    images: Vec<String>,
    /// `argocd` or `kubernetes`: where it was looked at.
    via: &'static str,
    /// `ready`, or the verdict of the application that failed; none after a dry run.
    pub(crate) verdict: Option<&'static str>,
    pub(crate) applications: Vec<ApplicationReport>,
    /// What was recorded in GitLab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment: Option<Deployment>,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    /// Whether this run changed anything: started a sync, or recorded a deployment.
    pub(crate) changed: bool,
}

/// One application.
#[derive(Debug, Serialize)]
pub(crate) struct ApplicationReport {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// `ready`, `waiting`, or why it does not run.
    pub(crate) verdict: &'static str,
    /// `pods`, or `manifests` where nothing runs at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'static str>,
    /// The commit that it was compared to last.
    revision: Option<String>,
    sync: Option<String>,
    health: Option<String>,
    operation: Option<String>,
    /// The images of the pods that exist.
    running: Vec<String>,
    /// What it was waited on for, or why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Resources that are not well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Unwell>,
    /// Seconds from the commit until it was synced.
    pub(crate) synced_seconds: Option<f64>,
    /// Seconds from then until it was healthy.
    pub(crate) healthy_seconds: Option<f64>,
}

impl Waited {
    pub(crate) fn new(wanted: &Wanted, via: &'static str) -> Self {
        Waited {
            revision: wanted.revision.clone(),
            images: wanted.images.iter().map(ToString::to_string).collect(),
            via,
            verdict: None,
            applications: Vec::new(),
            deployment: None,
            seconds: 0.0,
            requests: 0,
            changed: false,
        }
    }
}

impl ApplicationReport {
    pub(crate) fn new(located: &towpath::argocd::Located, standing: &Standing, at: &str) -> Self {
        let status = &standing.application.status;
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let between = |from: Option<f64>, to: Option<f64>| {
            let (from, to) = (from?, to?);
            Some(rounded((to - from).max(0.0)))
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit for ages")]
        let written = standing.written.map(|written| written as f64);
        ApplicationReport {
            name: located.name.clone(),
            namespace: located.namespace.clone(),
            verdict: "waiting",
            proof: None,
            revision: said(at),
            sync: said(&status.sync.status),
            health: said(&status.health.status),
            operation: status
                .operation_state
                .as_ref()
                .and_then(|state| said(&state.phase)),
            running: status.summary.images.iter().take(IMAGES).cloned().collect(),
            message: standing.waiting.as_ref().map(crate::plan::Waiting::sentence),
            resources: Vec::new(),
            synced_seconds: between(written, standing.synced),
            healthy_seconds: between(standing.synced, standing.healthy),
        }
    }

    pub(crate) fn ready(mut self, proof: Proof) -> Self {
        self.verdict = "ready";
        self.proof = Some(match proof {
            Proof::Pods => "pods",
            Proof::Manifests => "manifests",
        });
        self
    }

    pub(crate) fn failed(mut self, verdict: &'static str, message: &str, evidence: Evidence) -> Self {
        self.verdict = verdict;
        self.message = Some(message.to_owned());
        self.resources = evidence.resources;
        self
    }
}

impl Report for Waited {
    const SCHEMA: &'static str = "towpath.argocd-wait/1";

    fn text(&self) -> String {
        let mut text = format!(
            "{} at {}",
            self.images.join(", "),
            crate::trouble::short(&self.revision)
        );
        for application in &self.applications {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{:10} {}", application.verdict, application.name);
            let states = [&application.sync, &application.operation, &application.health];
            let states: Vec<&str> = states.into_iter().flatten().map(String::as_str).collect();
            let _ = write!(text, " ({})", states.join(", "));
            match (application.synced_seconds, application.healthy_seconds) {
                (Some(synced), Some(healthy)) => {
                    let _ = write!(text, " synced after {synced} s, healthy {healthy} s later");
                }
                (None, Some(healthy)) => {
                    let _ = write!(text, " healthy {healthy} s after it was synced");
                }
                _ => {}
            }
            if let Some(message) = &application.message {
                let _ = write!(text, "\n  {message}");
            }
            for resource in &application.resources {
                let reason = resource.reason.as_deref().unwrap_or(&resource.health);
                let _ = write!(
                    text,
                    "\n  {} {}: {reason} {}",
                    resource.kind, resource.name, resource.message
                );
            }
        }
        if let Some(deployment) = &self.deployment {
            let _ = write!(
                text,
                "\ndeployment {} to {}: {}",
                deployment.iid, deployment.environment, deployment.status
            );
        }
        text
    }
}

/// Seconds to a tenth.
pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
