//! Promotes for real: the binary as a process, between Debian's docker-registry servers, and from scripted ones that
//! break in the ways that registries do.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod gate;
mod image;
mod scripted;
mod world;

mod batch;
mod broken_uploads;
mod failing_sources;
mod guarded_tags;
mod layouts;
mod lists;
mod logins;
mod moving;
mod odd_images;
mod page;
mod partial_index;
mod peculiar_targets;
mod plan;
mod referrers;
mod request_counts;
mod rollback;
mod tls;
mod tokens;
mod verify;
