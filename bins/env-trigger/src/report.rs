//! The report: `towpath.env-trigger/1`.

use std::fmt::Write as _;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use towpath::cli::Report;
use towpath::gitlab::{Job, Pipeline, Project, Status};

use crate::plan::Verdict;
use crate::request::Request;
use crate::start::{Looked, Once, Started};
use crate::stop::Stopped;
use crate::tree::{DEPTH, Seen, Tree};

/// How many jobs of a pipeline are listed. Those that failed or go on come first.
const JOBS: usize = 100;

/// What was started or followed, and how it ended.
#[derive(Debug, Serialize)]
pub(crate) struct Triggered {
    project: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    pipeline: Option<PipelineReport>,
    /// Whether this run started the pipeline.
    pub(crate) created: bool,
    once: Option<Once>,
    key: Option<String>,
    /// `success`, `failed`, `canceled`, `skipped`, `blocked`; none while it runs or was only looked at.
    verdict: Option<&'static str>,
    jobs: Vec<JobReport>,
    /// Whether the pipeline has more jobs than are listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more_jobs: bool,
    /// The manual jobs that this run started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    played: Vec<String>,
    /// What the pipeline says came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<BTreeMap<String, String>>,
    /// Our own pipeline, which was cancelled for one that another run started at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    twin: Option<PipelineReport>,
    /// What a dry run would do: `start` or `follow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'static str>,
    /// What was left running although it should have been cancelled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_running: Vec<String>,
    pub(crate) seconds: f64,
    pub(crate) changed: bool,
}

#[derive(Debug, Serialize)]
struct PipelineReport {
    id: u64,
    url: Option<String>,
    status: Option<String>,
}

/// The pipeline that a trigger job started.
#[derive(Debug, Serialize)]
struct DownstreamReport {
    id: u64,
    /// Its project's path or number; a child pipeline runs in the same project.
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    url: Option<String>,
    status: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<JobReport>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more_jobs: bool,
    /// Why its jobs could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

#[derive(Debug, Serialize)]
struct JobReport {
    name: String,
    stage: String,
    status: String,
    seconds: Option<f64>,
    url: Option<String>,
    allow_failure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<String>,
    /// The last lines of its log, when it failed and the token may read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tail: Vec<String>,
    /// The pipeline that this trigger job started.
    #[serde(skip_serializing_if = "Option::is_none")]
    downstream: Option<DownstreamReport>,
}

impl Triggered {
    pub(crate) fn new(project: &Project) -> Self {
        Triggered {
            project: plain(project),
            reference: None,
            pipeline: None,
            created: false,
            once: None,
            key: None,
            verdict: None,
            jobs: Vec::new(),
            more_jobs: false,
            played: Vec::new(),
            result: None,
            twin: None,
            plan: None,
            left_running: Vec::new(),
            seconds: 0.0,
            changed: false,
        }
    }

    /// Takes over what is asked for.
    pub(crate) fn request(&mut self, request: &Request) {
        self.reference = Some(request.new.reference.clone());
        self.key.clone_from(&request.key);
    }

    /// Takes over the number of a pipeline that was given.
    pub(crate) fn pipeline(&mut self, id: u64) {
        self.pipeline = Some(PipelineReport {
            id,
            url: None,
            status: None,
        });
    }

    /// The number of the pipeline; zero, which GitLab never gives, before there is one.
    pub(crate) fn pipeline_id(&self) -> u64 {
        self.pipeline.as_ref().map_or(0, |pipeline| pipeline.id)
    }

    /// Takes over the pipeline that was started or found.
    pub(crate) fn started(&mut self, started: &Started) {
        self.status_of(&started.pipeline);
        self.once = Some(started.once);
        self.created = started.created;
        self.changed = started.created;
    }

    /// Takes over what a dry run found.
    pub(crate) fn planned(&mut self, looked: &Looked) {
        self.once = Some(looked.once());
        if let Some(pipeline) = &looked.found {
            self.status_of(pipeline);
        }
        self.plan = Some(if looked.found.is_some() { "follow" } else { "start" });
    }

    /// Takes over how a pipeline stands.
    pub(crate) fn status_of(&mut self, pipeline: &Pipeline) {
        self.pipeline = Some(PipelineReport {
            id: pipeline.id,
            url: pipeline.web_url.clone(),
            status: Some(pipeline.status.to_string()),
        });
    }

    /// Takes over that our pipeline gave way to one that another run started at the same time.
    pub(crate) fn gave_way(&mut self, twin: &Pipeline) {
        self.twin = self.pipeline.take();
        self.status_of(twin);
        self.once = Some(Once::Twin);
        self.created = false;
    }

    /// Takes over the last look.
    pub(crate) fn seen(&mut self, tree: &Tree) {
        if !tree.root.is_known() {
            return;
        }
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.status = Some(tree.root.effective_status().to_string());
            if tree.root.url.is_some() {
                pipeline.url.clone_from(&tree.root.url);
            }
        }
        let mut visited = BTreeSet::from([tree.id]);
        (self.jobs, self.more_jobs) = listed(tree, &tree.root, 0, &mut visited);
    }

    /// Takes over how it ended.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict.as_str());
    }

    /// Takes over which manual jobs were started.
    pub(crate) fn played<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        self.played = names.cloned().collect();
        self.changed |= !self.played.is_empty();
    }

    /// Takes over how the stopping went.
    pub(crate) fn stopped(&mut self, stopped: &Stopped) {
        match stopped {
            Stopped::Left(left) => {
                self.left_running.clone_from(left);
                self.changed = true;
            }
            Stopped::All { cancelled } => self.changed |= cancelled,
        }
    }
}

fn plain(project: &Project) -> String {
    match project {
        Project::Id(id) => id.to_string(),
        Project::Path(path) => path.clone(),
    }
}

/// The jobs of a pipeline and of those it started, and whether there are more of its own.
fn listed(tree: &Tree, seen: &Seen, depth: usize, visited: &mut BTreeSet<u64>) -> (Vec<JobReport>, bool) {
    let settled = |job: &&Job| matches!(job.status, Status::Success | Status::Skipped | Status::Created);
    let count = seen.jobs.len();
    let jobs: Vec<&Job> = if count <= JOBS {
        seen.jobs.iter().collect()
    } else {
        let (settled, others): (Vec<&Job>, Vec<&Job>) = seen.jobs.iter().partition(settled);
        others.into_iter().chain(settled).take(JOBS).collect()
    };
    let mut reports: Vec<JobReport> = jobs.into_iter().map(|job| JobReport::new(job, tree)).collect();
    for bridge in seen.bridges.iter().take(JOBS) {
        let mut report = JobReport::new(&bridge.job, tree);
        report.downstream = bridge.downstream_pipeline.as_ref().map(|downstream| {
            let below = tree.started_by(bridge);
            let (jobs, more_jobs) = match below.filter(|_| depth < DEPTH && visited.insert(downstream.id)) {
                Some(below) => listed(tree, &below.seen, depth + 1, visited),
                None => (Vec::new(), false),
            };
            let status = below.filter(|below| below.seen.is_known()).map_or_else(
                || downstream.status.clone(),
                |below| below.seen.effective_status(),
            );
            DownstreamReport {
                id: downstream.id,
                project: below.map(|below| plain(&below.project)),
                url: downstream.web_url.clone(),
                status: Some(status.to_string()),
                jobs,
                more_jobs,
                unreadable: below.and_then(|below| below.unreadable.clone()),
            }
        });
        reports.push(report);
    }
    (reports, seen.partial || count > JOBS)
}

impl JobReport {
    fn new(job: &Job, tree: &Tree) -> Self {
        JobReport {
            name: job.name.clone(),
            stage: job.stage.clone(),
            status: job.status.to_string(),
            seconds: job.duration.map(rounded),
            url: job.web_url.clone(),
            allow_failure: job.allow_failure,
            failure_reason: job.failure_reason.clone(),
            tail: tree.tails.get(&job.id).cloned().unwrap_or_default(),
            downstream: None,
        }
    }
}

impl Report for Triggered {
    const SCHEMA: &'static str = "towpath.env-trigger/1";

    fn text(&self) -> String {
        let mut text = String::new();
        let reference = self.reference.as_ref().map(|name| format!(" on {name}"));
        let subject = format!("{}{}", self.project, reference.unwrap_or_default());
        match (&self.pipeline, self.plan) {
            (None, _) => text.push_str(&format!("{subject}: would start a pipeline")),
            (Some(pipeline), Some(plan)) => {
                text.push_str(&format!("{subject}: would {plan} pipeline {}", pipeline.id));
            }
            (Some(pipeline), None) => {
                let status = self.verdict.or(pipeline.status.as_deref()).unwrap_or("unknown");
                let how = match self.once {
                    Some(_) if self.created => ", started by this run",
                    Some(Once::Twin) => ", started by another run at the same time",
                    Some(_) => ", found by its key",
                    None => "",
                };
                text.push_str(&format!("{subject}: pipeline {}{how}: {status}", pipeline.id));
                if let Some(url) = &pipeline.url {
                    text.push_str(&format!("\n  {url}"));
                }
            }
        }
        write_jobs(&mut text, &self.jobs, self.more_jobs, 1);
        if let Some(twin) = &self.twin {
            text.push_str(&format!("\n  cancelled for it: pipeline {}", twin.id));
        }
        for (name, value) in self.result.iter().flatten() {
            text.push_str(&format!("\n  {name}={value}"));
        }
        for left in &self.left_running {
            text.push_str(&format!("\n  still running: {left}"));
        }
        text
    }
}

fn write_jobs(text: &mut String, jobs: &[JobReport], more: bool, level: usize) {
    let indent = "  ".repeat(level);
    for job in jobs {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{indent}{:10} {} ({})", job.status, job.name, job.stage);
        if let Some(seconds) = job.seconds {
            let _ = write!(text, " {seconds} s");
        }
        if let Some(downstream) = &job.downstream {
            let _ = write!(text, " -> pipeline {}", downstream.id);
            if let Some(project) = &downstream.project {
                let _ = write!(text, " of {project}");
            }
            write_jobs(text, &downstream.jobs, downstream.more_jobs, level + 1);
        }
    }
    if more {
        let _ = write!(text, "\n{indent}and more, that went well or did not begin");
    }
}

/// Seconds to a tenth.
pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
