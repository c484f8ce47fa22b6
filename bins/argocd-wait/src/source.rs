//! Where an application is looked at: Argo CD's API, or the cluster's.

use towpath::argocd::application::{Application, Sync};
use towpath::argocd::{self, EventKind, Located, Rendered, SyncWindows};
use towpath::deadline::Deadline;
use towpath::failure::{Kind, Result};
use towpath::kubernetes;

use crate::evidence::Evidence;

/// The system that is asked. Cloning shares its connections.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    ArgoCd(argocd::Client),
    Kubernetes(kubernetes::Client),
}

/// The changes of one application.
pub(crate) enum Changes {
    ArgoCd(argocd::Changes),
    Kubernetes(Box<kubernetes::Changes>),
}

/// What happened to it.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Seen(Box<Application>),
    Deleted,
}

impl Source {
    /// What it is called in the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Source::ArgoCd(_) => "argocd",
            Source::Kubernetes(_) => "kubernetes",
        }
    }

    /// The same with another deadline, for what is asked once the run's own time is over.
    pub(crate) fn until(&self, deadline: Deadline) -> Self {
        match self {
            Source::ArgoCd(client) => Source::ArgoCd(client.until(deadline)),
            Source::Kubernetes(client) => Source::Kubernetes(client.until(deadline)),
        }
    }

    /// How many requests went out so far.
    pub(crate) fn requests_sent(&self) -> u64 {
        match self {
            Source::ArgoCd(client) => client.requests_sent(),
            Source::Kubernetes(client) => client.requests_sent(),
        }
    }

    pub(crate) async fn look(&self, located: &Located) -> Result<Application> {
        match self {
            Source::ArgoCd(client) => client.application(located).await,
            Source::Kubernetes(client) => {
                client
                    .application(&located.name, located.namespace.as_deref())
                    .await
            }
        }
    }

    pub(crate) async fn refresh(&self, located: &Located) -> Result<Application> {
        match self {
            Source::ArgoCd(client) => client.refresh(located).await,
            Source::Kubernetes(client) => client.refresh(&located.name, located.namespace.as_deref()).await,
        }
    }

    pub(crate) async fn changes(&self, located: &Located) -> Result<Changes> {
        Ok(match self {
            Source::ArgoCd(client) => Changes::ArgoCd(client.changes(located).await?),
            Source::Kubernetes(client) => {
                let changes = client
                    .changes(&located.name, located.namespace.as_deref())
                    .await?;
                Changes::Kubernetes(Box::new(changes))
            }
        })
    }

    /// What it is compared to renders to; none where nobody can tell.
    pub(crate) async fn rendered(&self, located: &Located, compared: &Sync) -> Result<Option<Rendered>> {
        match self {
            Source::ArgoCd(client) => {
                tolerated(client.rendered(located, compared).await, "manifests", located)
            }
            Source::Kubernetes(_) => Ok(None),
        }
    }

    /// Its sync windows; none where nobody can tell.
    pub(crate) async fn windows(&self, located: &Located) -> Result<Option<SyncWindows>> {
        match self {
            Source::ArgoCd(client) => tolerated(client.sync_windows(located).await, "sync windows", located),
            Source::Kubernetes(_) => Ok(None),
        }
    }

    /// When a commit of the source at this place was written; none where nobody can tell.
    pub(crate) async fn commit_date(&self, located: &Located, commit: &str, place: usize) -> Option<String> {
        match self {
            Source::ArgoCd(client) => client.commit_date(located, commit, place).await.ok().flatten(),
            Source::Kubernetes(_) => None,
        }
    }

    pub(crate) async fn sync(&self, located: &Located, commit: &str) -> Result<()> {
        match self {
            Source::ArgoCd(client) => client.sync(located, commit).await,
            Source::Kubernetes(client) => {
                client
                    .sync(&located.name, located.namespace.as_deref(), commit)
                    .await
            }
        }
    }

    /// Which of its resources are not well.
    pub(crate) async fn evidence(&self, located: &Located, application: &Application) -> Evidence {
        let looked = match self {
            Source::ArgoCd(client) => client.tree(located).await,
            Source::Kubernetes(client) => client.tree(application).await,
        };
        match looked {
            Ok(tree) => Evidence::of(&tree),
            Err(failure) => Evidence::missing(failure.to_string()),
        }
    }
}

/// What only helps to decide may be refused or fail to be made: then nobody can tell.
fn tolerated<T>(answer: Result<T>, what: &str, located: &Located) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.kind() == Kind::Deadline => Err(failure),
        Err(failure) => {
            tracing::warn!(
                action = "look",
                object = format!("{what} of application {located}"),
                outcome = "not to be had",
                "{failure}"
            );
            Ok(None)
        }
    }
}

impl Changes {
    /// The next change; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        Ok(match self {
            Changes::ArgoCd(changes) => changes.next().await?.map(|event| match event.kind {
                EventKind::Seen => Event::Seen(Box::new(event.application)),
                EventKind::Deleted => Event::Deleted,
            }),
            Changes::Kubernetes(changes) => changes.next().await?.map(|change| match change {
                kubernetes::Change::Seen(application) => Event::Seen(application),
                kubernetes::Change::Deleted => Event::Deleted,
            }),
        })
    }
}
