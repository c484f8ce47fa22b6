//! Towpath.
