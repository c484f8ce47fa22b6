//! What one application has in its cluster: the objects that were applied and the pods that came of them.
//!
//! One pod stands for all replicas of a template. A rollout keeps the old pod until the new one is ready, as a rolling
//! update does; a newer template takes the place of one that is still rolling out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::application::{Health, HealthCode, Phase, Resource, ResourceResult, SyncCode, now};
use super::manifest::{Key, Manifest, Workload};
use crate::kubernetes::new_uid;

/// All objects of one application.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    live: BTreeMap<Key, Live>,
}

/// One object that exists.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) manifest: Manifest,
    pub(super) uid: String,
    pub(super) created_at: String,
    /// The pod that is ready, if any.
    pub(super) ready: Option<Pod>,
    /// The pod on its way to take its place.
    pub(super) coming: Option<Coming>,
}

/// A pod, or all the replicas of one template.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) created_at: String,
    pub(super) images: Vec<String>,
}

/// A pod whose images are still to be pulled.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) pod: Pod,
    since: Instant,
    deadline: Option<Duration>,
    /// Why the latest pull failed.
    pub(super) trouble: Option<String>,
}

impl Cluster {
    /// Everything that exists.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Live> {
        self.live.values()
    }

    /// Compares what exists with `target`, object by object.
    pub(super) fn compare(&self, target: &[Manifest]) -> Vec<Resource> {
        let mut resources: Vec<Resource> = target
            .iter()
            .map(|manifest| match self.live.get(&manifest.key) {
                Some(live) if live.manifest.object == manifest.object => {
                    self.resource(manifest, SyncCode::Synced)
                }
                _ => self.resource(manifest, SyncCode::OutOfSync),
            })
            .collect();
        let wanted: BTreeSet<&Key> = target.iter().map(|manifest| &manifest.key).collect();
        resources.extend(
            self.live
                .values()
                .filter(|live| !wanted.contains(&live.manifest.key))
                .map(|live| Resource {
                    requires_pruning: true,
                    ..self.resource(&live.manifest, SyncCode::OutOfSync)
                }),
        );
        resources
    }

    /// What is reported when there is nothing to compare with: every object may be superfluous.
    pub(super) fn compare_with_nothing(&self) -> Vec<Resource> {
        let unknown = |live: &Live| Resource {
            requires_pruning: true,
            ..self.resource(&live.manifest, SyncCode::Unknown)
        };
        self.live.values().map(unknown).collect()
    }

    /// Applies `target` and says what became of each object. What is no longer wanted is deleted if `prune`, and if nothing
    /// was refused.
    pub(super) fn apply(
        &mut self,
        target: &[Manifest],
        prune: bool,
        default_deadline: Duration,
    ) -> Vec<ResourceResult> {
        let mut results = Vec::new();
        for manifest in target {
            if let Some(message) = self
                .live
                .get(&manifest.key)
                .and_then(|live| manifest.refused_over(&live.manifest))
            {
                results.push(result(manifest, "SyncFailed", message, manifest.images()));
                continue;
            }
            let outcome = match self.live.get_mut(&manifest.key) {
                None => {
                    self.live
                        .insert(manifest.key.clone(), Live::new(manifest, default_deadline));
                    "created"
                }
                Some(live) if live.manifest.object == manifest.object => "unchanged",
                Some(live) => {
                    live.update(manifest, default_deadline);
                    "configured"
                }
            };
            let message = format!("{} {outcome}", short_name(&manifest.key));
            results.push(result(manifest, "Synced", message, manifest.images()));
        }
        if results.iter().any(|result| result.status == "SyncFailed") {
            return results;
        }
        let wanted: BTreeSet<&Key> = target.iter().map(|manifest| &manifest.key).collect();
        let superfluous: Vec<Key> = self
            .live
            .keys()
            .filter(|key| !wanted.contains(key))
            .cloned()
            .collect();
        for key in superfluous {
            let manifest = self.live[&key].manifest.clone();
            results.push(if prune {
                self.live.remove(&key);
                result(&manifest, "Pruned", "pruned".to_owned(), Vec::new())
            } else {
                result(
                    &manifest,
                    "PruneSkipped",
                    "ignored (requires pruning)".to_owned(),
                    Vec::new(),
                )
            });
        }
        results
    }

    /// The pods whose images are still to be pulled.
    pub(super) fn coming(&self) -> Vec<(Key, Vec<String>)> {
        let coming =
            |(key, live): (&Key, &Live)| Some((key.clone(), live.coming.as_ref()?.pod.images.clone()));
        self.live.iter().filter_map(coming).collect()
    }

    /// The images are there: the coming pod becomes ready and the old one goes.
    pub(super) fn pulled(&mut self, key: &Key) {
        if let Some(live) = self.live.get_mut(key)
            && let Some(coming) = live.coming.take()
        {
            live.ready = Some(coming.pod);
        }
    }

    /// The images are not there, for this reason.
    pub(super) fn pull_failed(&mut self, key: &Key, reason: String) {
        if let Some(coming) = self.live.get_mut(key).and_then(|live| live.coming.as_mut()) {
            coming.trouble = Some(reason);
        }
    }

    /// The images of the pods that exist, ready or not.
    pub(super) fn images(&self) -> Vec<String> {
        let pods = self
            .live
            .values()
            .flat_map(|live| live.ready.iter().chain(live.coming.iter().map(|c| &c.pod)));
        let images: BTreeSet<&String> = pods.flat_map(|pod| &pod.images).collect();
        images.into_iter().cloned().collect()
    }

    /// The images of the pods that are ready.
    pub(super) fn ready_images(&self) -> Vec<String> {
        let images: BTreeSet<&String> = self
            .live
            .values()
            .filter_map(|live| live.ready.as_ref())
            .flat_map(|pod| &pod.images)
            .collect();
        images.into_iter().cloned().collect()
    }

    /// Puts the present health of the objects into a list of them: `Missing` where one does not exist, nothing where
    /// its kind has no health.
    pub(super) fn update_health(&self, resources: &mut [Resource]) {
        for resource in resources {
            let Resource {
                group,
                kind,
                namespace,
                name,
                ..
            } = resource.clone();
            resource.health = self.health(&Key {
                group,
                kind,
                namespace,
                name,
            });
        }
    }

    fn health(&self, key: &Key) -> Option<Health> {
        match self.live.get(key) {
            Some(live) => live.health(),
            None => Some(Health {
                status: HealthCode::Missing,
                message: "Resource has not been created".to_owned(),
            }),
        }
    }

    fn resource(&self, manifest: &Manifest, status: SyncCode) -> Resource {
        let Key {
            group,
            kind,
            namespace,
            name,
        } = manifest.key.clone();
        let health = self.health(&manifest.key);
        Resource {
            group,
            version: manifest.version.clone(),
            kind,
            namespace,
            name,
            status,
            health,
            requires_pruning: false,
        }
    }
}

impl Live {
    fn new(manifest: &Manifest, default_deadline: Duration) -> Live {
        let mut live = Live {
            manifest: manifest.clone(),
            uid: new_uid(),
            created_at: now(),
            ready: None,
            coming: None,
        };
        live.roll_out(default_deadline);
        live
    }

    fn update(&mut self, manifest: &Manifest, default_deadline: Duration) {
        let same_pods = self.manifest.pod_template() == manifest.pod_template()
            && self.manifest.wants_pods() == manifest.wants_pods();
        self.manifest = manifest.clone();
        if !same_pods {
            self.roll_out(default_deadline);
        }
    }

    fn roll_out(&mut self, default_deadline: Duration) {
        if !matches!(self.manifest.workload(), Some(Workload::Running { .. })) {
            return;
        }
        self.coming = None;
        if !self.manifest.wants_pods() {
            self.ready = None;
            return;
        }
        self.coming = Some(Coming {
            pod: Pod {
                uid: new_uid(),
                created_at: now(),
                images: self.manifest.images(),
            },
            since: Instant::now(),
            deadline: self.manifest.progress_deadline(default_deadline),
            trouble: None,
        });
    }

    /// How the object does, if its kind can tell.
    pub(super) fn health(&self) -> Option<Health> {
        let health = |status, message: &str| {
            Some(Health {
                status,
                message: message.to_owned(),
            })
        };
        match (self.manifest.workload(), &self.coming) {
            (Some(Workload::Running { .. }), Some(coming)) => Some(self.rollout_health(coming)),
            (Some(Workload::Running { .. }), None) => health(HealthCode::Healthy, ""),
            (Some(Workload::Scheduled), _) => {
                health(HealthCode::Healthy, "CronJob has not been scheduled yet")
            }
            (None, _) => match self.manifest.key.kind.as_str() {
                "Ingress" | "PersistentVolumeClaim" | "Service" => health(HealthCode::Healthy, ""),
                _ => None,
            },
        }
    }

    fn rollout_health(&self, coming: &Coming) -> Health {
        let Key { kind, name, .. } = &self.manifest.key;
        let Some(trouble) = &coming.trouble else {
            let message = match kind.as_str() {
                "Deployment" => {
                    "Waiting for rollout to finish: observed deployment generation less than desired generation"
                }
                "DaemonSet" => {
                    "Waiting for rollout to finish: observed daemon set generation less than desired generation"
                }
                "StatefulSet" => "Waiting for statefulset spec update to be observed...",
                _ => "",
            };
            return Health {
                status: HealthCode::Progressing,
                message: message.to_owned(),
            };
        };
        if coming
            .deadline
            .is_some_and(|deadline| coming.since.elapsed() >= deadline)
        {
            let message =
                format!("{kind} {name:?} exceeded its progress deadline (ImagePullBackOff: {trouble})");
            return Health {
                status: HealthCode::Degraded,
                message,
            };
        }
        let status = if kind == "Pod" {
            HealthCode::Degraded
        } else {
            HealthCode::Progressing
        };
        let message = match (kind.as_str(), self.ready.is_some()) {
            ("Deployment", true) => {
                "Waiting for rollout to finish: 1 old replicas are pending termination..."
            }
            ("Deployment", false) => {
                "Waiting for rollout to finish: 0 of 1 updated replicas are available..."
            }
            _ => "Waiting for 1 pods to be ready...",
        };
        Health {
            status,
            message: format!("{message} (ImagePullBackOff: {trouble})"),
        }
    }
}

fn result(manifest: &Manifest, status: &'static str, message: String, images: Vec<String>) -> ResourceResult {
    let Key {
        group,
        kind,
        namespace,
        name,
    } = manifest.key.clone();
    ResourceResult {
        group,
        version: manifest.version.clone(),
        kind,
        namespace,
        name,
        status,
        message,
        // The real one leaves what it applied at this phase: it is the health that tells of its end.
        hook_phase: match status {
            "Synced" => Phase::Running,
            "SyncFailed" => Phase::Failed,
            _ => Phase::Succeeded,
        },
        sync_phase: "Sync",
        images,
    }
}

/// An object as kubectl names it: `deployment.apps/web`.
fn short_name(key: &Key) -> String {
    let kind = key.kind.to_lowercase();
    if key.group.is_empty() {
        format!("{kind}/{}", key.name)
    } else {
        format!("{kind}.{}/{}", key.group, key.name)
    }
}
