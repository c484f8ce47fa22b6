//! Files that a job left behind.

use bytes::Bytes;

use super::client::{Client, Token};
use super::project::{Project, encode_segment};
use super::refusal::refusal;
use crate::failure::{Failure, Kind, Result};
use crate::http::{Method, StatusCode};

impl Client {
    /// One file out of a job's artifacts, at most `limit` bytes. It has to be named under `artifacts:paths`: what is a
    /// report only (`artifacts:reports:dotenv`) cannot be had. For job tokens on the tiers Premium and Ultimate (GitLab
    /// documentation, "Job artifacts API").
    ///
    /// # Errors
    /// Not found (exit 5) when the job has no such file, or the tier or the allowlist do not let a job token have it;
    /// denied, unavailable, or input when it is too long, as GitLab answers.
    pub async fn artifact(&self, project: &Project, job: u64, path: &str, limit: usize) -> Result<Bytes> {
        let object = format!("{path} of job {job} of {project}");
        let segments: Vec<String> = path.split('/').map(encode_segment).collect();
        let url = self.url(project, &format!("jobs/{job}/artifacts/{}", segments.join("/")))?;
        // Artifacts are often kept in object storage.
        let request = self.request(Method::GET, url).answered_elsewhere();
        let response = request.send().await?;
        if response.status().is_success() {
            return response.bytes(limit).await;
        }
        let is_missing = response.status() == StatusCode::NOT_FOUND;
        let failure = refusal(response, &object, project, self.token()).await;
        if !is_missing {
            return Err(failure);
        }
        let hint = match self.token() {
            Token::Access(_) => format!(
                "name {path} under `artifacts:paths` of the job in {project}: a file that is only a report cannot be had"
            ),
            Token::Job(_) | Token::Trigger(_) => format!(
                "name {path} under `artifacts:paths` of the job in {project}; job tokens read artifacts on the tiers \
                 Premium and Ultimate only, elsewhere set TOWPATH_GITLAB_TOKEN"
            ),
        };
        Err(Failure::new(Kind::NotFound, format!("there is no {object}"))
            .because(failure)
            .hint(hint))
    }
}
