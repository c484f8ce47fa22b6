//! What Scaleway's tools read: environment, configuration file, registry login.
//!
//! Source: Scaleway's Go SDK, package `scw` (`env.go`, `config.go`, `internal/validation`), on which its command line
//! and its Terraform provider are built; Scaleway documentation, "How to connect to the Container Registry" and
//! "Object Storage: Terraform backend".
//!
//! Deliberately absent: Scaleway's API. Nothing here goes over the network.

mod config;
mod credentials;
mod files;
mod registry;

pub use config::{config_file, is_profile_name};
pub use credentials::{AWS_SHADOWING, Credentials, DEPRECATED, Field};
pub use files::{DockerFolder, PrivateFile, Written};
pub use registry::{RegistryHost, docker_config, is_object_name, pull_secret};
