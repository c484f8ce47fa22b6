//! Releases of GitLab, as far as what this stand-in answers differs between them.
//!
//! Sources: GitLab's documentation, "Pipelines API", "CI/CD job token" and "Fine-grained permissions for CI/CD job tokens"
//! (18.4), and the annotations of its routes, which its OpenAPI document is generated from (19.2).

use std::fmt;

/// A release that the stand-in can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// Trigger jobs are under `bridges` alone; a job token starts pipelines and lists jobs.
    pub const V17_11: Version = Version::new(17, 11);
    /// The same as far as pipelines go.
    pub const V18_4: Version = Version::new(18, 4);
    /// Trigger jobs are under `trigger_jobs` too, a job token reads pipelines and their trigger jobs, and a log can be
    /// read in parts.
    pub const V19_2: Version = Version::new(19, 2);
    /// Each of them, oldest first.
    pub const ALL: [Version; 3] = [Version::V17_11, Version::V18_4, Version::V19_2];

    const fn new(major: u16, minor: u16) -> Self {
        Version { major, minor }
    }

    /// `GET .../pipelines/:pipeline_id/trigger_jobs`, beside the older `bridges`.
    pub(super) fn has_trigger_jobs(self) -> bool {
        self >= Version::V19_2
    }

    /// Whether a job token may list pipelines and read one with its trigger jobs; never its log, nor cancel it.
    pub(super) fn lets_job_tokens_read_pipelines(self) -> bool {
        self >= Version::V19_2
    }

    /// `byte_offset` and `byte_limit` of `GET .../trace`. Older releases ignore them, as any parameter they do not
    /// know, and answer the whole log.
    pub(super) fn has_parts_of_logs(self) -> bool {
        self >= Version::V19_2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}
