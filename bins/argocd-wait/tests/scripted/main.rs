//! `argocd-wait` against servers that answer by script: every refusal and fault that the real ones can produce.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test runs the binary as a process and may panic anywhere"
)]

mod argocd;
mod faults;
mod history;
mod kubernetes;
mod record;
mod repository;
mod sources;
mod support;
