//! Argo CD's API (v3): applications, what became of their resources, and the stream of their changes.
//!
//! Source: Argo CD 3.2, `server/application/application.proto` (the OpenAPI document under `/swagger-ui`), "RBAC
//! Configuration" and "Sync Windows". A bearer token of an account or a project role. Whoever may not know that an
//! application exists is answered 403 `permission denied`, as whoever may not read it.
//!
//! [`application`] holds the resource itself, which a cluster's own API shows as well. Deliberately absent: when a state
//! means success. Callers decide that.

pub mod application;
mod client;
mod manifests;
mod refusal;
mod stream;
pub(crate) mod tree;
mod windows;

pub use client::{Client, Located};
pub use manifests::{Rendered, Runs};
pub use stream::{Changes, Event, EventKind};
pub use tree::{Info, Node, Tree};
pub use windows::{SyncWindow, SyncWindows};
