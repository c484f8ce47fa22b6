//! Container registries and OCI layouts.
//!
//! | file | holds |
//! |---|---|
//! | `arguments` | the flags of a binary that speaks to registries |
//! | `reference`, `digest` | names, parsed strictly |
//! | `manifest`, `platform`, `graph` | what an image is made of; pure |
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
pub mod platform;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub mod reference;
mod registry;

pub use arguments::RegistryArgs;
pub use credentials::{Credential, Credentials, Login};
pub use digest::{Algorithm, Digest, Verifier};
pub use graph::{Graph, Referrer};
pub(crate) use layout::is_digest_tag;
pub use layout::{Joined, Layout, LayoutEntry, LayoutReference, LayoutWriter, PlatformImage, join};
pub use manifest::{Descriptor, Manifest};
pub use platform::Platform;
pub use reference::{Reference, Tag};
pub use registry::{
    Access, Begun, BlobStream, GoOn, Held, Pointer, Registries, RegistrySettings, Repository, Setback, Upload,
};
pub(crate) use registry::{DigestTag, HeldList, Listed, Lookout, digest_tags, read_list};
