//! Pipelines: starting, finding, reading and cancelling them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Token, document};
use super::job::optional_text;
use super::project::Project;
use super::refusal::refusal;
use super::status::Status;
use crate::failure::{Failure, Kind, Result};
use crate::http::{Method, Repeat, StatusCode, Unanswered};

/// GitLab reads a configuration with all its includes before it answers.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// What GitLab says when a project's user has started too many pipelines for one commit within a minute. It is a 400 like
/// any other error of a pipeline, and nothing else in the answer tells it apart from a mistake of ours (`RateLimit` of its
/// chain that makes pipelines; the sentence is not translated).
const TOO_MANY: &str = "Too many pipelines created in the last minute";

/// A pipeline, as far as it is said in both lists and single answers.
#[derive(Clone, Debug, Deserialize)]
pub struct Pipeline {
    /// Its number in the whole instance.
    pub id: u64,
    /// How it stands.
    #[serde(default)]
    pub status: Status,
    /// The branch or tag it runs on.
    #[serde(default, rename = "ref", deserialize_with = "optional_text")]
    pub reference: Option<String>,
    /// What started it: `push`, `api`, `trigger`, `pipeline`...
    #[serde(default, deserialize_with = "optional_text")]
    pub source: Option<String>,
    /// What `workflow:name` made of it.
    #[serde(default, deserialize_with = "optional_text")]
    pub name: Option<String>,
    /// Its page.
    #[serde(default, deserialize_with = "optional_text")]
    pub web_url: Option<String>,
}

/// A variable that a pipeline was started with.
#[derive(Clone, Debug, Deserialize)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// Its value; null when it is hidden.
    #[serde(default)]
    pub value: Option<String>,
}

/// A pipeline to start.
#[derive(Clone, Debug, Default)]
pub struct NewPipeline {
    /// The branch or tag to run on.
    pub reference: String,
    /// Typed inputs (`spec:inputs`): strings, numbers, booleans and arrays. GitLab refuses one it does not know.
    pub inputs: BTreeMap<String, Value>,
    /// Variables. Newer namespaces of GitLab.com refuse any.
    pub variables: BTreeMap<String, String>,
}

/// Why there is no pipeline to follow after a start was asked for.
#[derive(Debug)]
pub enum NotStarted {
    /// GitLab refused it: there is none.
    Refused(Failure),
    /// GitLab refused the request itself as malformed or impossible (400): ref, inputs, variables or configuration.
    Impossible(Failure),
    /// A rate limit turned it away: there is none, and a later attempt may succeed.
    Limited(Failure),
    /// The answer was lost: there may be one. Never ask again without looking.
    Unknown(Failure),
}

impl Client {
    /// Starts a pipeline, exactly once: through `POST /projects/:id/pipeline` with an access token, else through
    /// `POST /projects/:id/trigger/pipeline`.
    ///
    /// # Errors
    /// See [`NotStarted`], which separates what surely did not happen from what may have.
    pub async fn start_pipeline(&self, project: &Project, new: &NewPipeline) -> Result<Pipeline, NotStarted> {
        let mut body = json!({ "ref": new.reference });
        if !new.inputs.is_empty() {
            body["inputs"] = json!(new.inputs);
        }
        let path = match &self.token {
            Token::Access(_) => {
                if !new.variables.is_empty() {
                    let listed = new.variables.iter();
                    body["variables"] = listed
                        .map(|(key, value)| json!({ "key": key, "value": value }))
                        .collect();
                }
                "pipeline"
            }
            Token::Job(token) | Token::Trigger(token) => {
                body["token"] = token.expose().into();
                if !new.variables.is_empty() {
                    body["variables"] = json!(new.variables);
                }
                "trigger/pipeline"
            }
        };
        let url = self.url(project, path).map_err(NotStarted::Refused)?;
        // The token in the body is enough, and a second one in the header could be looked at first.
        let request = match &self.token {
            Token::Access(_) => self.request(Method::POST, url),
            Token::Job(_) | Token::Trigger(_) => self.http.post(url),
        };
        let request = request.json(&body).timeout(START_TIMEOUT).repeat(Repeat::Unsafe);
        let response = request.send().await.map_err(not_answered)?;
        let status = response.status();
        if status.is_success() {
            // GitLab answers 201. Anything else comes from somebody who stands before it, such as a proxy's login page.
            let unheard = status != StatusCode::CREATED;
            return document(response).await.map_err(|failure| match failure.kind() {
                Kind::Input if unheard => NotStarted::Refused(failure),
                // Whatever is wrong with the answer, a pipeline is there.
                _ => NotStarted::Unknown(failure),
            });
        }
        let object = format!("a pipeline on {} of {project}", new.reference);
        let failure = refusal(response, &object, project, &self.token).await;
        Err(match status {
            StatusCode::BAD_REQUEST if failure.message().contains(TOO_MANY) => NotStarted::Limited(
                Failure::unavailable(format!("GitLab's rate limit turned {object} away"))
                    .because(failure)
                    .hint("wait a minute, or ask the administrator to raise the limit of pipelines a minute"),
            ),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => NotStarted::Impossible(failure),
            StatusCode::TOO_MANY_REQUESTS => NotStarted::Limited(failure),
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                NotStarted::Unknown(failure)
            }
            _ => NotStarted::Refused(failure),
        })
    }

    /// Reads one pipeline. Not for job tokens.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn pipeline(&self, project: &Project, id: u64) -> Result<Pipeline> {
        let object = format!("pipeline {id} of {project}");
        self.read(project, &format!("pipelines/{id}"), &object).await
    }

    /// The newest pipelines on a branch or tag, newest first, at most `count` (up to 100). Not for job tokens.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn newest_pipelines(
        &self,
        project: &Project,
        reference: &str,
        count: u8,
    ) -> Result<Vec<Pipeline>> {
        // A pipeline's own ref never has the prefix that tells a branch from a tag of the same name.
        let plain = ["refs/heads/", "refs/tags/"]
            .iter()
            .find_map(|prefix| reference.strip_prefix(prefix))
            .unwrap_or(reference);
        let url = self.url(project, "pipelines")?;
        let request = self
            .request(Method::GET, url)
            .query("ref", plain)
            .query("order_by", "id")
            .query("sort", "desc")
            .query("per_page", &count.min(100).to_string());
        let object = format!("the pipelines of {project}");
        let response = self.expect_success(request, project, &object).await?;
        document(response).await
    }

    /// The variables a pipeline was started with. For whoever started it, and maintainers.
    ///
    /// # Errors
    /// Denied (exit 4) to others; not found or unavailable, as GitLab answers.
    pub async fn pipeline_variables(&self, project: &Project, id: u64) -> Result<Vec<Variable>> {
        let object = format!("the variables of pipeline {id} of {project}");
        self.read(project, &format!("pipelines/{id}/variables"), &object)
            .await
    }

    /// Asks for a pipeline to be cancelled. GitLab says yes whatever its state: read it again to know. Not for job
    /// tokens.
    ///
    /// # Errors
    /// Not found, denied or unavailable, as GitLab answers.
    pub async fn cancel_pipeline(&self, project: &Project, id: u64) -> Result<()> {
        let object = format!("the cancelling of pipeline {id} of {project}");
        let url = self.url(project, &format!("pipelines/{id}/cancel"))?;
        let request = self.request(Method::POST, url).repeat(Repeat::Safe);
        self.expect_success(request, project, &object).await?;
        Ok(())
    }
}

/// Sorts a failure to get any answer by whether the request can have arrived.
fn not_answered(failure: Failure) -> NotStarted {
    let unanswered = failure
        .source()
        .and_then(|source| source.downcast_ref::<Unanswered>())
        .map(Unanswered::never_arrived);
    match unanswered {
        Some(true) => NotStarted::Refused(failure),
        Some(false) => NotStarted::Unknown(failure),
        // It was answered: by a limit that asks for more patience than one request has.
        None if failure.kind() == Kind::Unavailable => NotStarted::Limited(failure),
        None => NotStarted::Refused(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_is_asserted() {
        let bare: Pipeline =
            serde_json::from_str(r#"{"id":7,"status":null,"ref":null,"web_url":null,"name":null}"#).unwrap();
        assert_eq!((bare.id, bare.status), (7, Status::default()));
        assert!(serde_json::from_str::<Pipeline>(r#"{"id":null,"status":"success"}"#).is_err());
    }
}
