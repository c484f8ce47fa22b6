//! Jobs of a pipeline, its trigger jobs, and their logs.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use serde::{Deserialize, Deserializer};

use super::client::Client;
use super::project::Project;
use super::refusal::refusal;
use super::status::Status;
use crate::failure::{Kind, Result};
use crate::http::{Method, StatusCode, header};

/// A job of a pipeline.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Job {
    /// Its number in the whole instance. A retry makes a new job with a greater one.
    pub id: u64,
    /// Its name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// Its stage.
    #[serde(default, deserialize_with = "null_is_default")]
    pub stage: String,
    /// How it stands.
    #[serde(default)]
    pub status: Status,
    /// Whether the pipeline goes on when it fails; for a manual job, whether it goes on without it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub allow_failure: bool,
    /// How long it ran, in seconds.
    #[serde(default)]
    pub duration: Option<f64>,
    /// GitLab's word for why it failed, such as `script_failure`.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// Its page.
    #[serde(default)]
    pub web_url: Option<String>,
    /// Its pipeline, and so the only place where a job token sees the pipeline's own status.
    #[serde(default)]
    pub pipeline: Option<JobPipeline>,
}

/// The pipeline as a job tells of it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobPipeline {
    /// How the pipeline stands.
    #[serde(default)]
    pub status: Status,
    /// Its page.
    #[serde(default)]
    pub web_url: Option<String>,
}

/// A job that starts another pipeline: `trigger:`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Bridge {
    /// What it has in common with other jobs.
    #[serde(flatten)]
    pub job: Job,
    /// The pipeline it started; none yet, or none that this token may see.
    #[serde(default)]
    pub downstream_pipeline: Option<Downstream>,
}

/// A pipeline that a trigger job started.
#[derive(Clone, Debug, Deserialize)]
pub struct Downstream {
    /// Its number.
    pub id: u64,
    /// The project it runs in; null with GitLab versions that do not say it.
    #[serde(default)]
    pub project_id: Option<u64>,
    /// How it stands.
    #[serde(default)]
    pub status: Status,
    /// Its page.
    #[serde(default)]
    pub web_url: Option<String>,
}

impl Client {
    /// The jobs of a pipeline, over all pages, without trigger jobs. Of a job that was retried, all attempts with
    /// `include_retried`, else the latest.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn jobs(&self, project: &Project, pipeline: u64, include_retried: bool) -> Result<Vec<Job>> {
        let object = format!("the jobs of pipeline {pipeline} of {project}");
        let query: &[(&str, &str)] = if include_retried {
            &[("include_retried", "true")]
        } else {
            &[]
        };
        self.read_pages(project, &format!("pipelines/{pipeline}/jobs"), query, &object)
            .await
    }

    /// The trigger jobs of a pipeline: `trigger_jobs` where GitLab has it (19.2), else `bridges`. Not for job tokens.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn bridges(&self, project: &Project, pipeline: u64) -> Result<Vec<Bridge>> {
        let object = format!("the trigger jobs of pipeline {pipeline} of {project}");
        if !self.lacks_trigger_jobs.load(Ordering::Relaxed) {
            let path = format!("pipelines/{pipeline}/trigger_jobs");
            match self.read_pages(project, &path, &[], &object).await {
                Err(failure) if failure.kind() == Kind::NotFound => self.note_missing_trigger_jobs(),
                answered => return answered,
            }
        }
        self.read_pages(project, &format!("pipelines/{pipeline}/bridges"), &[], &object)
            .await
    }

    /// The last lines of a job's log, at most `lines` of them out of the last `bytes`, without colours, section marks
    /// and what a carriage return overwrote. Only the end is transferred where GitLab offers byte ranges. Not for job
    /// tokens.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn trace_tail(
        &self,
        project: &Project,
        job: u64,
        lines: usize,
        bytes: usize,
    ) -> Result<Vec<String>> {
        let object = format!("the log of job {job} of {project}");
        let url = self.url(project, &format!("jobs/{job}/trace"))?;
        let request = self
            .request(Method::GET, url)
            .header(header::RANGE, &format!("bytes=-{bytes}"))
            // Logs of ended jobs are often kept in object storage.
            .answered_elsewhere();
        let response = request.send().await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Vec::new());
        }
        if !response.status().is_success() {
            return Err(refusal(response, &object, project, &self.token).await);
        }
        let mut tail: VecDeque<u8> = VecDeque::new();
        let mut stream = std::pin::pin!(response.stream());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            tail.extend(&chunk[chunk.len().saturating_sub(bytes)..]);
            tail.drain(..tail.len().saturating_sub(bytes));
        }
        Ok(last_lines(
            &String::from_utf8_lossy(tail.make_contiguous()),
            lines,
        ))
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// The last lines that are not empty once terminal codes and section marks are gone.
fn last_lines(log: &str, count: usize) -> Vec<String> {
    let mut lines: VecDeque<String> = VecDeque::with_capacity(count);
    for line in log.split('\n') {
        let line = plain_line(line);
        if line.trim().is_empty() {
            continue;
        }
        if lines.len() == count {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    lines.into()
}

fn plain_line(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // A control sequence (ECMA-48, section 5.4) ends with a character from @ to ~.
            '\u{1b}' if characters.peek() == Some(&'[') => {
                characters.next();
                while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\r' => plain.clear(),
            '\t' => plain.push(' '),
            other if other.is_control() => {}
            other => plain.push(other),
        }
    }
    // What is left of a section mark when its line holds nothing else.
    if plain.starts_with("section_start:") || plain.starts_with("section_end:") {
        plain.clear();
    }
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_read_as_nothing_said() {
        let job: Job = serde_json::from_str(
            r#"{"id":1,"name":null,"stage":null,"status":null,"allow_failure":null,"duration":null,
                "failure_reason":null,"web_url":null,"pipeline":null}"#,
        )
        .unwrap();
        assert_eq!(
            (job.id, job.allow_failure, job.status),
            (1, false, Status::default())
        );
        let bridge: Bridge = serde_json::from_str(
            r#"{"id":2,"name":"infra","status":"running","downstream_pipeline":{"id":9,"project_id":null,"status":"pending"}}"#,
        )
        .unwrap();
        assert_eq!(bridge.job.name, "infra");
        assert_eq!(bridge.downstream_pipeline.unwrap().status, Status::Pending);
        assert!(serde_json::from_str::<Job>(r#"{"id":null}"#).is_err());
    }

    #[test]
    fn a_tail_is_text_without_terminal_codes() {
        let log = "first\nsection_start:1700000000:step_script\r\u{1b}[0K\u{1b}[0K\u{1b}[36;1mExecuting\u{1b}[0;m\n\
                   10%\r50%\r100%\r\n\nsection_end:1700000001:step_script\r\u{1b}[0K\n\u{1b}[31;1mERROR: Job failed\u{1b}[0;m\n";
        assert_eq!(last_lines(log, 3), ["Executing", "100%", "ERROR: Job failed"]);
        assert_eq!(last_lines(log, 1), ["ERROR: Job failed"]);
        assert!(last_lines("", 3).is_empty());
    }
}
