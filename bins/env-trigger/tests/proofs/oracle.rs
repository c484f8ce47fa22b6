//! How a pipeline that moves no more should be judged, by what the README promises and nothing of the tool's own code: from
//! the final jobs alone, not from the pipeline's status.

use towpath_sandbox::gitlab::{PipelineSnapshot, Status};

/// `--on-manual`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnManual {
    Fail,
    Wait,
    Ignore,
}

impl OnManual {
    pub(crate) fn word(self) -> &'static str {
        match self {
            OnManual::Fail => "fail",
            OnManual::Wait => "wait",
            OnManual::Ignore => "ignore",
        }
    }
}

/// The exit code and the verdict of the report.
pub(crate) fn judge(pipeline: &PipelineSnapshot, on_manual: OnManual) -> (i32, &'static str) {
    let latest = || pipeline.jobs.iter().filter(|job| !job.retried);
    let required = |status: Status| latest().any(|job| job.status == status && !job.allow_failure);
    let blocked = required(Status::Manual);
    if blocked && on_manual == OnManual::Fail {
        return (9, "blocked");
    }
    if required(Status::Failed) {
        return (8, "failed");
    }
    if required(Status::Canceled) {
        return (8, "canceled");
    }
    let counts = |status: Status| {
        latest().any(|job| job.status == status)
            || latest()
                .any(|job| job.allow_failure && matches!(job.status, Status::Failed | Status::Canceled))
    };
    if blocked || counts(Status::Success) {
        return (0, "success");
    }
    // Nothing ran. An optional manual job is left to a person, and there is nothing else to wait for.
    let offered = latest().any(|job| job.status == Status::Manual);
    match (offered, on_manual) {
        (true, OnManual::Fail) => (9, "blocked"),
        (true, OnManual::Ignore) => (0, "success"),
        _ => (8, "skipped"),
    }
}
