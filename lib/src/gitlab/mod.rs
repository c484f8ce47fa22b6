//! GitLab's REST API (v4): starting pipelines, reading them, their jobs, logs and artifacts, stopping them; reading and
//! changing the files of a repository.
//!
//! Source: GitLab documentation, "Pipelines API", "Pipeline trigger tokens API", "Jobs API", "Job artifacts API", "REST API"
//! (pagination) and "CI/CD job token". A [`Client`] holds one token, since what GitLab allows, and what its refusals mean, depends on
//! the kind of token. Any field of an answer may be null; what a caller cannot do without is asserted here.
//!
//! Deliberately absent: when to ask again, and what a status means for a deployment. Callers decide that.

mod artifact;
mod branch;
mod client;
mod deployments;
mod job;
mod log;
mod merge_request;
mod pipeline;
mod project;
mod reference;
mod refusal;
mod status;

pub use branch::Branch;
pub use client::{Client, Token};
pub use deployments::{
    Deployable, DeployingPipeline, Deployment, DeploymentStatus, Deployments, NewDeployment, Recorded,
};
pub use job::{Bridge, Downstream, Job, JobPipeline, Jobs};
pub use merge_request::{Accepted, HeadPipeline, MergeRequest, MergeState, NewMergeRequest};
pub use pipeline::{NewPipeline, NotStarted, Pipeline, Variable};
pub use project::Project;
pub use reference::NamedRefs;
pub use status::Status;
