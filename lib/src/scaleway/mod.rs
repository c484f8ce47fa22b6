//! scaleway
