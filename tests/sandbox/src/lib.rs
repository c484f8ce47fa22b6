//! The world Towpath works in, on one machine: real servers where one can run here, stand-ins for the rest.
//!
//! Used as a library by tests (one world a test, on free loopback ports) and by the binaries behind `cargo demo` and `cargo
//! release-binaries`.
//! Everything binds to loopback only. Each stand-in says in its module doc which documented behaviour it keeps.

pub mod argocd;
pub mod argocd_cases;
pub mod base_image;
pub mod bill_of_materials;
pub mod cluster;
pub mod demo;
pub mod gitlab;
pub mod guardian;
pub mod jwt;
pub mod kubernetes;
mod loopback;
pub mod measured;
pub mod person;
pub mod platform;
pub mod release;
pub mod scaleway;
pub mod scripted;
pub mod servers;
pub mod static_binaries;
pub mod tool_run;
pub mod tools;
pub mod towpath_binaries;
pub mod world;
