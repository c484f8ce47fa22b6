//! The thirteen statuses of pipelines and jobs.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a pipeline or job stands. Source: GitLab documentation, "Pipelines API", attribute `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Made, and nothing of it has begun.
    Created,
    /// Waits for its resource group.
    WaitingForResource,
    /// Its prerequisites (a cluster, an environment) are being prepared.
    Preparing,
    /// Waits for an external system to call back.
    WaitingForCallback,
    /// Waits for a runner.
    Pending,
    /// Runs.
    Running,
    /// Ended well.
    Success,
    /// Ended badly.
    Failed,
    /// Was told to stop, and has not stopped yet.
    Canceling,
    /// Was stopped.
    Canceled,
    /// Will not run.
    Skipped,
    /// Waits for a person to start it.
    Manual,
    /// Waits for its delay to pass.
    Scheduled,
    /// A word this version does not know; empty where GitLab said null.
    Unknown(String),
}

impl Status {
    /// Every status that GitLab documents.
    pub const KNOWN: [Status; 13] = [
        Status::Created,
        Status::WaitingForResource,
        Status::Preparing,
        Status::WaitingForCallback,
        Status::Pending,
        Status::Running,
        Status::Success,
        Status::Failed,
        Status::Canceling,
        Status::Canceled,
        Status::Skipped,
        Status::Manual,
        Status::Scheduled,
    ];

    /// Reads the API's word. Nothing is refused: GitLab adds statuses now and then.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|status| status.as_str() == word)
            .unwrap_or_else(|| {
                // It ends up in logs, so a hostile server must not write there what it likes.
                let plain = word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_');
                Status::Unknown(plain.take(40).collect())
            })
    }

    /// The API's word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Status::Created => "created",
            Status::WaitingForResource => "waiting_for_resource",
            Status::Preparing => "preparing",
            Status::WaitingForCallback => "waiting_for_callback",
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Success => "success",
            Status::Failed => "failed",
            Status::Canceling => "canceling",
            Status::Canceled => "canceled",
            Status::Skipped => "skipped",
            Status::Manual => "manual",
            Status::Scheduled => "scheduled",
            Status::Unknown(word) if word.is_empty() => "unknown",
            Status::Unknown(word) => word,
        }
    }

    /// Whether it has come to an end that only a person's retry changes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self,
            Status::Success | Status::Failed | Status::Canceled | Status::Skipped
        )
    }

    /// Whether this version knows what the word means.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self, Status::Unknown(_))
    }
}

impl Default for Status {
    fn default() -> Self {
        Status::Unknown(String::new())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        Ok(Status::from_word(&word.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_none_is_refused() {
        for status in Status::KNOWN {
            assert_eq!(Status::from_word(status.as_str()), status);
            assert!(status.is_known());
        }
        let read = |json: &str| serde_json::from_str::<Status>(json).unwrap();
        assert_eq!(read("null"), Status::default());
        assert_eq!(read("null").as_str(), "unknown");
        assert_eq!(
            read("\"snoozed\\n\\u001b[31m\""),
            Status::Unknown("snoozed31m".to_owned())
        );
        let ended = Status::KNOWN.iter().filter(|status| status.has_ended()).count();
        assert_eq!(ended, 4);
    }
}
