//! What came of a pipeline, by a dotenv file that one of its jobs left behind, and whether it is what was asked for.

use std::collections::BTreeMap;
use std::str::FromStr;

use towpath::cli::effect;
use towpath::failure::{Failure, Result};
use towpath::gitlab::{Client, Status};
use towpath::handoff::Handoff;

use crate::tree::Tree;

/// The most such a file may have, in bytes: well above GitLab's own limit for dotenv reports.
const LIMIT: usize = 64 * 1024;

/// A file among the artifacts of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    job: String,
    path: String,
}

impl FromStr for Source {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Failure::usage(format!("{text:?} names no file of a job"))
                .hint("give it as JOB:PATH, such as bump:handoff.env")
        };
        // The name of a job may hold colons, a path of ours does not.
        let (job, path) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        if job.trim().is_empty() || !path.split('/').all(is_plain) {
            return Err(wrong());
        }
        Ok(Source {
            job: job.trim().to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Reads the file.
///
/// # Errors
/// Not found (exit 5) when there is no such job or file; input (exit 3) when it is no dotenv file; denied or
/// unavailable, as GitLab answers.
pub(crate) async fn fetch(client: &Client, tree: &Tree, source: &Source) -> Result<BTreeMap<String, String>> {
    let jobs = tree.pipelines().flat_map(|(project, _, _, seen)| {
        let named = seen.jobs.iter().filter(|job| job.name == source.job);
        named.map(move |job| (project, job))
    });
    let found: Vec<_> = jobs.collect();
    // The pipeline's own comes before those below.
    let succeeded = found.iter().find(|(_, job)| job.status == Status::Success);
    let Some((project, job)) = succeeded.or(found.first()) else {
        return Err(Failure::not_found(format!(
            "pipeline {} of {} has no job {}",
            tree.id, tree.project, source.job
        ))
        .hint("compare --result (TOWPATH_RESULT) with the names of its jobs"));
    };
    let effect = effect("read", format!("{} of job {}", source.path, source.job));
    let content = client.artifact(project, job.id, &source.path, LIMIT).await?;
    let origin = format!("{} of job {} of {project}", source.path, source.job);
    let result = Handoff::parse(&String::from_utf8_lossy(&content), &origin)?;
    effect.done("read");
    Ok(result
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// The failure of a result that is not what was asked for; none when it is.
pub(crate) fn difference(
    result: &BTreeMap<String, String>,
    expected: &BTreeMap<String, String>,
    source: &Source,
) -> Option<Failure> {
    let differences: Vec<String> = expected
        .iter()
        .filter_map(|(name, wanted)| match result.get(name) {
            Some(value) if value == wanted => None,
            Some(value) => Some(format!("{name} is {value}, not {wanted}")),
            None => Some(format!("{name} is not in it, and should be {wanted}")),
        })
        .collect();
    (!differences.is_empty()).then(|| {
        Failure::conflict(format!(
            "the pipeline succeeded, but {} of job {} says otherwise than asked for: {}",
            source.path,
            source.job,
            differences.join("; ")
        ))
        .hint("another delivery may have come in between: look at what runs before delivering again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_job_and_a_path() {
        let source: Source = "deploy: [eu]:out/handoff.env".parse().unwrap();
        assert_eq!(
            (source.job.as_str(), source.path.as_str()),
            ("deploy: [eu]", "out/handoff.env")
        );
        for wrong in [
            "",
            "job",
            "job:",
            ":path",
            "job:/etc/passwd",
            "job:../x",
            "job:a//b",
        ] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn both_values_of_a_difference_are_named() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let source: Source = "bump:handoff.env".parse().unwrap();
        let result = map(&[("IMAGE_DIGEST", "sha256:b"), ("IMAGE_TAG", "v1")]);
        assert!(difference(&result, &map(&[("IMAGE_TAG", "v1")]), &source).is_none());
        let failure = difference(
            &result,
            &map(&[("IMAGE_DIGEST", "sha256:a"), ("X", "1")]),
            &source,
        )
        .unwrap();
        assert_eq!(failure.kind(), towpath::failure::Kind::Conflict);
        for part in [
            "IMAGE_DIGEST is sha256:b, not sha256:a",
            "X is not in it, and should be 1",
        ] {
            assert!(failure.message().contains(part), "{failure}");
        }
    }
}
