//! `env-trigger` against a GitLab that answers by script: every refusal and fault that the real one can produce.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test runs the binary as a process and may panic anywhere"
)]

mod follow;
mod manual;
mod result;
mod start;
mod support;
mod twin;
