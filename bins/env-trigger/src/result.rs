//! What came of a pipeline, by a dotenv file that one of its jobs left behind, and whether it is what was asked for.

use std::collections::BTreeMap;
use std::str::FromStr;

use towpath::cli::effect;
use towpath::failure::{Failure, Result};
use towpath::gitlab::{Client, Project, Status};
use towpath::handoff::Handoff;

use crate::tree::Tree;

/// The most such a file may have, in bytes: well above GitLab's own limit for dotenv reports.
const LIMIT: usize = 64 * 1024;

/// Over how many pages of a hundred a job that went well is looked for.
const PAGES: usize = 50;

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
    let Some((project, job)) = find(client, tree, &source.job).await? else {
        return Err(Failure::not_found(format!(
            "pipeline {} of {} has no job {}",
            tree.id, tree.project, source.job
        ))
        .hint("compare --result (TOWPATH_RESULT) with the names of its jobs"));
    };
    let effect = effect("read", format!("{} of job {}", source.path, source.job));
    let content = client.artifact(&project, job, &source.path, LIMIT).await?;
    let origin = format!("{} of job {} of {project}", source.path, source.job);
    let result = Handoff::parse(&String::from_utf8_lossy(&content), &origin)?;
    effect.done("read");
    Ok(result
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// The job of this name: one that succeeded, in the pipeline itself rather than in one below.
async fn find(client: &Client, tree: &Tree, name: &str) -> Result<Option<(Project, u64)>> {
    let mut found = None;
    for (project, id, _, seen) in tree.pipelines() {
        // Of a long pipeline the jobs that went well were not listed.
        let whole = if seen.partial {
            client.jobs_in(project, id, &[Status::Success], PAGES).await?.jobs
        } else {
            Vec::new()
        };
        for job in seen.jobs.iter().chain(&whole).filter(|job| job.name == name) {
            if job.status == Status::Success {
                return Ok(Some((project.clone(), job.id)));
            }
            found = found.or(Some((project.clone(), job.id)));
        }
    }
    Ok(found)
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
