//! base_image
