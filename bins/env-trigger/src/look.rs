//! Looking at a pipeline and at those it started, with as few requests as will do.

use std::collections::VecDeque;
use std::sync::Arc;

use towpath::failure::{Kind, Result};
use towpath::gitlab::{Bridge, Client, Downstream, Project, Status};

use crate::compose::latest;
use crate::tree::{Below, DEPTH, PIPELINES, Seen, Tree};

/// What is listed of a pipeline with more than a page of jobs: what goes on, waits or went wrong. The rest has not
/// begun, went well or was skipped, and would cost a request for every hundred of them.
const OF_INTEREST: [Status; 10] = [
    Status::Running,
    Status::Pending,
    Status::Preparing,
    Status::WaitingForResource,
    Status::WaitingForCallback,
    Status::Scheduled,
    Status::Manual,
    Status::Canceling,
    Status::Canceled,
    Status::Failed,
];
/// How many pages of these are read.
const PAGES: usize = 3;

/// Looks at the whole tree. Where the pipeline itself has ended, those below need not answer unless `all` of them count.
///
/// # Errors
/// Denied, not found, input or unavailable, as GitLab answers for the pipeline itself. What it does not tell of those
/// below is noted there.
pub(crate) async fn look(client: &Client, before: &Tree, all: bool) -> Result<Tree> {
    let first = !before.root.is_known();
    let root = look_at(client, &before.project, before.id, first, &before.root).await?;
    let mut tree = Tree {
        root: Arc::new(root),
        below: before.below.clone(),
        ..Tree::new(&before.project, before.id)
    };
    tree.cut = before.cut;
    if client.token().is_access() {
        match look_below(client, &mut tree).await {
            Err(failure) if !all && tree.root.effective_status().has_ended() => {
                let object = format!("what pipeline {} started", tree.id);
                tracing::warn!(action = "look", object, outcome = "failed", "{failure}");
            }
            looked => looked?,
        }
    }
    Ok(tree)
}

/// Looks at the pipelines that trigger jobs started, breadth first.
async fn look_below(client: &Client, tree: &mut Tree) -> Result<()> {
    let mut next: VecDeque<(Project, String, usize, Downstream)> =
        started(&tree.project, "", 0, &tree.root.bridges).collect();
    let mut visited = vec![tree.id];
    while let Some((project, path, depth, downstream)) = next.pop_front() {
        let id = downstream.id;
        if visited.contains(&id) {
            continue;
        }
        if depth > DEPTH || visited.len() >= PIPELINES {
            if !tree.cut {
                tracing::warn!(
                    action = "look",
                    object = format!("pipeline {id} of {project}"),
                    outcome = "not followed",
                    "more than {PIPELINES} pipelines, or more than {DEPTH} levels of them"
                );
            }
            tree.cut = true;
            continue;
        }
        visited.push(id);
        let earlier = tree.below.get(&id);
        let settled = earlier.is_some_and(|below| {
            below.unreadable.is_some()
                || (below.seen.is_known()
                    && downstream.status.has_ended()
                    && below.seen.status.as_ref() == Some(&downstream.status))
        });
        let mut below = match earlier {
            Some(earlier) => earlier.clone(),
            None => Below {
                project: project.clone(),
                path: path.clone(),
                seen: Arc::default(),
                unreadable: None,
            },
        };
        if settled {
            below.note_status(&downstream);
        } else {
            let first = !below.seen.is_known();
            match look_at(client, &project, id, first, &below.seen).await {
                Ok(seen) => below.seen = Arc::new(seen),
                Err(failure) if matches!(failure.kind(), Kind::Denied | Kind::NotFound) => {
                    tracing::warn!(
                        action = "look",
                        object = format!("pipeline {id} of {project}"),
                        outcome = "not readable",
                        "{failure}"
                    );
                    below.unreadable = Some(failure.to_string());
                    below.note_status(&downstream);
                }
                Err(failure) => return Err(failure),
            }
        }
        next.extend(started(&project, &path, depth, &below.seen.bridges));
        tree.below.insert(id, below);
    }
    Ok(())
}

impl Below {
    /// Takes over what the trigger job says of a pipeline that is not looked at.
    fn note_status(&mut self, downstream: &Downstream) {
        if self.seen.status.as_ref() != Some(&downstream.status) {
            let seen = Seen {
                status: Some(downstream.status.clone()),
                url: downstream.web_url.clone(),
                ..(*self.seen).clone()
            };
            self.seen = Arc::new(seen);
        }
    }
}

/// The pipelines that trigger jobs started: project, way, depth and what the trigger job says.
fn started(
    project: &Project,
    path: &str,
    depth: usize,
    bridges: &[Bridge],
) -> impl Iterator<Item = (Project, String, usize, Downstream)> {
    bridges.iter().filter_map(move |bridge| {
        let downstream = bridge.downstream_pipeline.clone()?;
        // A child pipeline runs in the same project.
        let target = downstream.project_id.map_or_else(|| project.clone(), Project::Id);
        let name = &bridge.job.name;
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path} > {name}")
        };
        Some((target, path, depth + 1, downstream))
    })
}

/// Looks at one pipeline.
async fn look_at(client: &Client, project: &Project, id: u64, first: bool, before: &Seen) -> Result<Seen> {
    let mut partial = before.partial;
    let mut listed = if partial {
        client.jobs_in(project, id, &OF_INTEREST, PAGES).await?
    } else {
        client.jobs_in(project, id, &[], 1).await?
    };
    if listed.more && !partial {
        partial = true;
        let own = listed.pipeline.take();
        listed = client.jobs_in(project, id, &OF_INTEREST, PAGES).await?;
        listed.pipeline = listed.pipeline.or(own);
    }
    let own = listed.pipeline;
    let mut seen = Seen {
        status: own.as_ref().map(|pipeline| pipeline.status.clone()),
        url: own
            .and_then(|pipeline| pipeline.web_url)
            .or_else(|| before.url.clone()),
        jobs: latest(listed.jobs, |job| job),
        bridges: Vec::new(),
        partial,
    };
    if partial && seen.status.is_none() {
        // Nothing of interest is left, and any job tells of its pipeline.
        seen.status = client.status_by_job(project, id).await?;
    }
    let is_unsaid = seen.status.as_ref().is_none_or(|status| !status.is_known());
    if !client.token().is_access() {
        if partial && is_unsaid {
            // Then all of them have to be read for it.
            let all = client.jobs(project, id).await?;
            seen.jobs = latest(all.jobs, |job| job);
        }
        return Ok(seen);
    }
    if is_unsaid {
        let pipeline = client.pipeline(project, id).await?;
        seen.status = Some(pipeline.status);
        seen.url = pipeline.web_url;
    }
    // All trigger jobs of a pipeline are there from the start, so none at first means none ever. They are worth a
    // request a look only where there are some.
    if first || !before.bridges.is_empty() {
        let bridges = client.bridges(project, id).await?;
        seen.bridges = latest(bridges, |bridge| &bridge.job);
    }
    Ok(seen)
}
