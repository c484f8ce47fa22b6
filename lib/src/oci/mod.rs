//! Container registries and OCI layouts.
//!
//! | file | holds |
//! |---|---|
//! | `arguments` | the flags of a binary that speaks to registries |
//! | `reference`, `digest` | names, parsed strictly |
//! | `manifest`, `graph` | what an image is made of; pure |
//! | `credentials` | docker's configuration files, credential helpers, and what platforms give their jobs |
//! | `registry` | the client: logins, manifests, blobs |
//! | `layout` | images in folders, as builders leave them |
//! | `copy` | the engine: what is missing where, in which order it goes, when a tag may move |

mod arguments;
pub mod copy;
pub mod credentials;
pub mod digest;
mod graph;
mod layout;
mod manifest;
pub mod reference;
mod registry;

pub use arguments::RegistryArgs;
pub use credentials::{Credential, Credentials, Login};
pub use digest::{Algorithm, Digest, Verifier};
pub use graph::Graph;
pub use layout::{Layout, LayoutReference};
pub use manifest::{Descriptor, Manifest};
pub use reference::{Reference, Tag};
pub use registry::{Access, Begun, BlobStream, Pointer, Registries, RegistrySettings, Repository, Upload};
