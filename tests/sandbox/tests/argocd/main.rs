//! The stand-in for Argo CD, with a real repository behind git's own HTTP server and a real kustomize.

#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod api;
mod recorded;
mod rollout;
mod sources;
mod wait;
mod world;
