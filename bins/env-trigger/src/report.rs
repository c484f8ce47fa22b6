//! The report: `towpath.env-trigger/1`.

use std::fmt::Write as _;

use serde::Serialize;
use towpath::cli::Report;
use towpath::gitlab::{Job, Pipeline, Project};

use crate::args::OnManual;
use crate::plan::{self, Decision, Seen};
use crate::request::Request;
use crate::start::{Looked, Once, Started};
use crate::stop::Stopped;

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
    downstream: Option<PipelineReport>,
}

impl Triggered {
    pub(crate) fn new(project: &Project) -> Self {
        Triggered {
            project: match project {
                Project::Id(id) => id.to_string(),
                Project::Path(path) => path.clone(),
            },
            reference: None,
            pipeline: None,
            created: false,
            once: None,
            key: None,
            verdict: None,
            jobs: Vec::new(),
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

    /// Takes over the last look.
    pub(crate) fn seen(&mut self, seen: &Seen, on_manual: OnManual) {
        if seen.status.is_none() && seen.jobs.is_empty() {
            return;
        }
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.status = Some(seen.effective_status().to_string());
            if seen.url.is_some() {
                pipeline.url.clone_from(&seen.url);
            }
        }
        self.verdict = match plan::decide(seen, on_manual) {
            Decision::Ended(verdict) => Some(verdict.as_str()),
            Decision::Wait(_) => None,
        };
        let plain = seen.jobs.iter().map(|job| JobReport::new(job, seen));
        let bridges = seen.bridges.iter().map(|bridge| JobReport {
            downstream: bridge
                .downstream_pipeline
                .as_ref()
                .map(|downstream| PipelineReport {
                    id: downstream.id,
                    url: downstream.web_url.clone(),
                    status: Some(downstream.status.to_string()),
                }),
            ..JobReport::new(&bridge.job, seen)
        });
        self.jobs = plain.chain(bridges).collect();
    }

    /// Takes over how the stopping went.
    pub(crate) fn stopped(&mut self, stopped: &Stopped) {
        if let Stopped::Left(left) = stopped {
            self.left_running.clone_from(left);
        }
    }
}

impl JobReport {
    fn new(job: &Job, seen: &Seen) -> Self {
        JobReport {
            name: job.name.clone(),
            stage: job.stage.clone(),
            status: job.status.to_string(),
            seconds: job.duration.map(rounded),
            url: job.web_url.clone(),
            allow_failure: job.allow_failure,
            failure_reason: job.failure_reason.clone(),
            tail: seen.tails.get(&job.id).cloned().unwrap_or_default(),
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
                    Some(_) => ", found by its key",
                    None => "",
                };
                text.push_str(&format!("{subject}: pipeline {}{how}: {status}", pipeline.id));
                if let Some(url) = &pipeline.url {
                    text.push_str(&format!("\n  {url}"));
                }
            }
        }
        for job in &self.jobs {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {:10} {} ({})", job.status, job.name, job.stage);
            if let Some(seconds) = job.seconds {
                let _ = write!(text, " {seconds} s");
            }
        }
        for left in &self.left_running {
            text.push_str(&format!("\n  still running: {left}"));
        }
        text
    }
}

/// Seconds to a tenth.
pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
