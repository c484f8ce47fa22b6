//! Whom the user told git about.

use std::path::Path;

use super::command::Runner;
use super::commit::Identity;
use crate::deadline::Deadline;
use crate::failure::Result;

impl Identity {
    /// The identity that the user configured for git, if there is one.
    ///
    /// # Errors
    /// Usage (exit 2) when git is not there, or when what is configured is malformed.
    pub async fn configured(folder: &Path, deadline: Deadline) -> Result<Option<Self>> {
        let runner = Runner::local(folder, deadline);
        let mut values = Vec::new();
        for key in ["user.name", "user.email"] {
            let ended = runner
                .git("config")
                .args(["--get", key])
                .capture(runner.local_deadline())
                .await?;
            if !ended.success() {
                return Ok(None);
            }
            values.push(ended.text());
        }
        Self::new(&values[0], &values[1]).map(Some)
    }
}
