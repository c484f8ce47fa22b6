//! Jobs of a pipeline, its trigger jobs, and starting the manual ones.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Deserializer};

use super::client::{Client, PAGE_LIMIT, document};
use super::project::Project;
use super::refusal::refusal;
use super::status::Status;
use crate::cli::turns_direction;
use crate::failure::{Failure, Kind, Result};
use crate::http::{Method, Repeat, StatusCode};

/// How many characters of a name, reason or address are kept. GitLab's own names have at most 255.
const TEXT_LIMIT: usize = 300;

/// A job of a pipeline.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Job {
    /// Its number in the whole instance. A retry makes a new job with a greater one.
    pub id: u64,
    /// Its name.
    #[serde(default, deserialize_with = "text")]
    pub name: String,
    /// Its stage.
    #[serde(default, deserialize_with = "text")]
    pub stage: String,
    /// How it stands.
    #[serde(default)]
    pub status: Status,
    /// Whether the pipeline goes on when it fails; for a manual job, whether it goes on without it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub allow_failure: bool,
    /// How long it ran, or has been running, in seconds.
    #[serde(default)]
    pub duration: Option<f64>,
    /// GitLab's word for why it failed, such as `script_failure`.
    #[serde(default, deserialize_with = "optional_text")]
    pub failure_reason: Option<String>,
    /// Its page.
    #[serde(default, deserialize_with = "optional_text")]
    pub web_url: Option<String>,
    /// The length of its log in bytes, once GitLab has put the log away.
    #[serde(default, rename = "artifacts", deserialize_with = "length_of_log")]
    pub log_bytes: Option<u64>,
    /// What it says of its pipeline. Taken out into [`Jobs::pipeline`] where a whole list is read.
    #[serde(default)]
    pub pipeline: Option<Box<JobPipeline>>,
}

/// The jobs of a pipeline, and what they say of it.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    /// The pipeline as its jobs tell of it; none when there are no jobs, or they do not say.
    pub pipeline: Option<JobPipeline>,
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// Whether there are more on further pages.
    pub more: bool,
}

/// The pipeline as a job tells of it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobPipeline {
    /// How the pipeline stands.
    #[serde(default)]
    pub status: Status,
    /// Its page.
    #[serde(default, deserialize_with = "optional_text")]
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
    #[serde(default, deserialize_with = "optional_text")]
    pub web_url: Option<String>,
}

impl Client {
    /// The jobs of a pipeline, over all pages, without trigger jobs. Of a job that was retried the latest attempt.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn jobs(&self, project: &Project, pipeline: u64) -> Result<Jobs> {
        self.jobs_in(project, pipeline, &[], PAGE_LIMIT).await
    }

    /// As [`Client::jobs`], those in one of these statuses (all, when there are none), out of so many pages of a hundred.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn jobs_in(
        &self,
        project: &Project,
        pipeline: u64,
        statuses: &[Status],
        pages: usize,
    ) -> Result<Jobs> {
        let object = format!("the jobs of pipeline {pipeline} of {project}");
        let path = format!("pipelines/{pipeline}/jobs");
        let query: Vec<(&str, &str)> = statuses
            .iter()
            .map(|status| ("scope[]", status.as_str()))
            .collect();
        let mut read = Jobs::default();
        let take = |page: Vec<Job>| {
            for mut job in page {
                // It says the same of every job; two thousand copies of it are not worth their memory.
                let pipeline = job.pipeline.take();
                read.pipeline = read.pipeline.take().or(pipeline.map(|pipeline| *pipeline));
                read.jobs.push(job);
            }
        };
        read.more = self
            .each_page(project, &path, &query, &object, pages, take)
            .await?;
        Ok(read)
    }

    /// How a pipeline stands, in one small request that a job token may make: by what its newest job says of it. None
    /// when it has no jobs, or they do not say.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn status_by_job(&self, project: &Project, pipeline: u64) -> Result<Option<Status>> {
        let object = format!("the jobs of pipeline {pipeline} of {project}");
        let url = self.url(project, &format!("pipelines/{pipeline}/jobs"))?;
        let request = self.request(Method::GET, url).query("per_page", "1");
        let response = self.expect_success(request, project, &object).await?;
        let jobs: Vec<Job> = document(response).await?;
        let pipeline = jobs.into_iter().find_map(|job| job.pipeline);
        Ok(pipeline.map(|pipeline| pipeline.status))
    }

    /// How long jobs of these names took when they last succeeded in this project, in seconds, out of the newest
    /// hundred that did.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn durations(&self, project: &Project) -> Result<BTreeMap<String, f64>> {
        let url = self.url(project, "jobs")?;
        let request = self
            .request(Method::GET, url)
            .query("scope[]", "success")
            .query("per_page", "100");
        let object = format!("the jobs of {project}");
        let response = self.expect_success(request, project, &object).await?;
        let jobs: Vec<Job> = document(response).await?;
        let mut durations = BTreeMap::new();
        for job in jobs {
            if let Some(seconds) = job.duration {
                durations.entry(job.name).or_insert(seconds);
            }
        }
        Ok(durations)
    }

    /// Starts a manual job, or a delayed one before its time. Not for job tokens. One that somebody else started in the
    /// meantime counts as started.
    ///
    /// # Errors
    /// Denied (exit 4) when the user may not, for instance because the environment is protected; unavailable when the
    /// answer was lost: whether it is still to be started shows at the next look.
    pub async fn play(&self, project: &Project, job: u64) -> Result<()> {
        let object = format!("the start of job {job} of {project}");
        let url = self.url(project, &format!("jobs/{job}/play"))?;
        let request = self.request(Method::POST, url).repeat(Repeat::Unsafe);
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // "Unplayable Job": it is not manual any more.
            StatusCode::BAD_REQUEST => Ok(()),
            StatusCode::FORBIDDEN => {
                let failure = refusal(response, &object, project, self.token()).await;
                Err(
                    Failure::denied(format!("the token may not start job {job} of {project}"))
                        .because(failure)
                        .hint(format!(
                            "give its user a role that may (Settings > CI/CD > Protected environments, or Repository > \
                             Protected branches of {project}), or let a person start it"
                        )),
                )
            }
            _ => Err(refusal(response, &object, project, self.token()).await),
        }
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
}

/// Text that ends up in logs, where a hostile server must not write what it likes.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(optional_text(from)?.unwrap_or_default())
}

/// See [`text`].
pub(super) fn optional_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.map(|mut text| {
        if let Some((end, _)) = text.char_indices().nth(TEXT_LIMIT) {
            text.truncate(end);
        }
        text.retain(|c| !c.is_control() && !turns_direction(c));
        text
    }))
}

/// The archived log stands in the list of a job's artifacts.
fn length_of_log<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Artifact {
        #[serde(default)]
        file_type: Option<String>,
        #[serde(default)]
        size: Option<u64>,
    }
    let artifacts = Option::<Vec<Artifact>>::deserialize(from)?.unwrap_or_default();
    let log = artifacts
        .into_iter()
        .find(|artifact| artifact.file_type.as_deref() == Some("trace"));
    Ok(log.and_then(|log| log.size))
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_read_as_nothing_said() {
        let job: Job = serde_json::from_str(
            r#"{"id":1,"name":null,"stage":null,"status":null,"allow_failure":null,"duration":null,
                "failure_reason":null,"web_url":null,"artifacts":null,"pipeline":null}"#,
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
    fn names_are_plain_and_the_length_of_the_log_is_found() {
        let job: Job = serde_json::from_str(
            r#"{"id":1,"name":"a\nb\u001b[31m","artifacts":[
                {"file_type":"archive","size":5},{"file_type":"trace","size":1500,"filename":"job.log"}]}"#,
        )
        .unwrap();
        assert_eq!((job.name.as_str(), job.log_bytes), ("ab[31m", Some(1500)));
    }
}
