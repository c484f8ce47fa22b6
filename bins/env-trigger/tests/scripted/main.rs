//! `env-trigger` against a GitLab that answers by script: every refusal and fault that the real one can produce.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test runs the binary as a process and may panic anywhere"
)]

mod below;
mod follow;
mod logs;
mod manual;
mod result;
mod start;
mod strange;
mod support;
mod twin;
