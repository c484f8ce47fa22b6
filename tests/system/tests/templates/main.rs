//! The include templates at work: jobs of the GitLab stand-in run them with the real tools, OpenTofu or Terraform.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests; clippy sees tests in test functions alone"
)]

#[path = "../../../sandbox/tests/gitlab_world/mod.rs"]
mod gitlab_world;
mod infra;
mod inputs;
mod platform;
mod platforms;
mod rollback;
mod rules;
mod scripts;
mod way_back;
mod ways_in;
