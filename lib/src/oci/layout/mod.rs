//! OCI image layouts: images in a folder.
//!
//! Source: OCI Image Specification, "Image Layout": `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`.
//!
//! | file | holds |
//! |---|---|
//! | `reference` | how an image in a layout is written: `oci:PATH[:TAG][@DIGEST]` |
//! | `join` | images of one platform each, as one index |
//! | `index` | `index.json`: what is listed, and under which name; pure |
//! | `folder` | where things are, and reading them |
//! | `ground` | making a folder a layout |
//! | `lock` | one writer of it at a time |
//! | `part` | files on their way |
//! | `reader` | an image that is read |
//! | `writer` | a layout that is written to |

mod folder;
mod ground;
mod index;
mod join;
mod lock;
mod part;
mod reader;
mod reference;
mod writer;

pub use index::LayoutEntry;
pub(crate) use index::is_digest_tag;
pub use join::{Joined, PlatformImage, join};
pub use reader::Layout;
pub use reference::LayoutReference;
pub use writer::LayoutWriter;
