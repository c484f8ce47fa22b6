//! `env-trigger` against the GitLab stand-in whose pipelines a test moves: every status, random pipelines with trouble on the
//! way, and many runs at once. Never a second pipeline, never a wrong verdict, never more requests than its pace allows.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod chance;
mod crowd;
mod machine;
mod oracle;
mod statuses;
mod world;
