//! kaniko
