//! What Scaleway's tools read: environment, configuration file, registry login; and the API keys behind it.
//!
//! Source: Scaleway's Go SDK, package `scw` (`env.go`, `config.go`, `internal/validation`), on which its command line
//! and its Terraform provider are built; Scaleway documentation, "How to connect to the Container Registry" and
//! "Object Storage: Terraform backend".
//!
//! Deliberately absent: the rest of Scaleway's API. Only [`Iam`] goes over the network.

mod config;
mod credentials;
mod files;
mod iam;
mod registry;

pub use config::{Profile, is_profile_name};
pub use credentials::{AWS_SHADOWING, Credentials, DEPRECATED, Field};
pub use files::{Change, Content, DockerFolder, Locked, PrivateFile, Removed, Written};
pub use iam::{API_URL, ApiKey, Bearer, DESCRIPTION_LIMIT, Iam, NewApiKey, NotMade, Proof};
pub use registry::{RegistryHost, docker_config, is_object_name, pull_secret, registry_login};
