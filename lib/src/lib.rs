//! What Towpath's binaries share.
//!
//! A binary holds its arguments, one pure decision, its report and the order of its effects. Everything that touches
//! the network, a file or a process is here, one module per outside system, named after it:
//!
//! | module | speaks to |
//! |---|---|
//! | [`cli`] | the person or the job that started us: arguments, logs, report, progress, exit code |
//! | [`failure`] | every error, and the one table of exit codes |
//! | [`secret`] | values that never print |
//! | [`deadline`] | how long the run, and each outside call in it, may take |
//! | [`trace`] | the W3C trace id that runs through all pipelines |
//! | [`http`] | the only HTTP client |
//! | [`process`] | child processes: builders, git, kustomize, the command of `exec` |
//! | [`handoff`] | the dotenv report that one job leaves for the next |
//! | [`oci`] | container registries and OCI layouts |
//! | [`vault`] | Vault and OpenBao |
//! | [`scaleway`] | what Scaleway's tools read: environment, configuration, registry login |
//! | [`gitlab`] | GitLab's REST API |
//! | [`argocd`] | Argo CD's API |
//! | [`kubernetes`] | the API of the cluster that a job runs in |
//! | [`git`] | the git command line |
//! | [`kustomize`] | `images` in kustomization files |
//! | [`kaniko`] | image builders: kaniko first, buildah second |
//!
//! Deliberately absent: no client of one system imports another's, no trait without two real implementations, and no
//! reading of environment variables outside [`cli`]: a caller hands in what it got from its arguments.

pub mod argocd;
mod bounded;
pub mod cli;
pub mod deadline;
pub mod failure;
pub mod git;
pub mod gitlab;
pub mod handoff;
pub mod http;
pub mod kaniko;
pub mod kubernetes;
pub mod kustomize;
pub mod oci;
pub mod process;
pub mod scaleway;
pub mod secret;
pub mod trace;
pub mod vault;
