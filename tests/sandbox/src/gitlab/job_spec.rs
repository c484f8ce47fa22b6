//! One job as an expanded configuration describes it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// One job as the configuration describes it.
#[derive(Clone, Debug, Default)]
pub(super) struct JobSpec {
    pub(super) name: String,
    pub(super) stage: String,
    pub(super) when: String,
    pub(super) allow_failure: AllowFailure,
    pub(super) needs: Option<Vec<Need>>,
    pub(super) dependencies: Option<Vec<String>>,
    pub(super) environment: Option<EnvironmentSpec>,
    pub(super) retry: Retry,
    pub(super) resource_group: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) start_in: Option<Duration>,
    pub(super) id_tokens: Vec<(String, Value)>,
    pub(super) trigger: Option<TriggerSpec>,
    pub(super) tags: Vec<String>,
    pub(super) dotenv_reports: Vec<String>,
    /// Variables that the YAML sets, by name.
    pub(super) yaml_variables: BTreeSet<String>,
    /// The YAML's variables of the pipeline and the job, those of `rules` aside.
    pub(super) yaml_values: Vec<(String, String)>,
    /// The configuration that holds this job alone.
    pub(super) file: String,
}

/// Whether the pipeline goes on after the job failed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub(super) enum AllowFailure {
    #[default]
    #[serde(skip)]
    Unset,
    Always(bool),
    Codes {
        #[serde(deserialize_with = "one_or_many")]
        exit_codes: Vec<i32>,
    },
}

impl AllowFailure {
    pub(super) fn covers(&self, exit_code: Option<i32>) -> bool {
        match self {
            AllowFailure::Unset => false,
            AllowFailure::Always(allowed) => *allowed,
            AllowFailure::Codes { exit_codes } => exit_code.is_some_and(|code| exit_codes.contains(&code)),
        }
    }
}

/// One entry of `needs`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Need {
    pub(super) job: String,
    #[serde(default = "yes")]
    pub(super) artifacts: bool,
    #[serde(default)]
    pub(super) optional: bool,
}

/// `environment` of a job.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct EnvironmentSpec {
    pub(super) name: String,
    pub(super) url: Option<String>,
    pub(super) action: Option<String>,
    pub(super) deployment_tier: Option<String>,
}

/// `retry` of a job.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Retry {
    #[serde(default)]
    pub(super) max: u32,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) when: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) exit_codes: Vec<i32>,
}

/// `trigger` of a job that starts another project's pipeline.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct TriggerSpec {
    #[serde(default)]
    pub(super) project: String,
    pub(super) branch: Option<String>,
    pub(super) strategy: Option<String>,
    #[serde(default)]
    pub(super) inputs: std::collections::BTreeMap<String, Value>,
}

/// Whether a name in `needs` or `dependencies` means a job: by its name, or by the name of its `parallel` family.
pub(super) fn is_named(job: &str, name: &str) -> bool {
    job.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(": ["))
}

/// Durations as `timeout` writes them: `3600 seconds`, `1h 30m`, `10 minutes`, `90`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|ch: char| !ch.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let unit_end = after
            .find(|ch: char| !ch.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        total += number.parse::<u64>().ok()? * seconds;
        rest = after.trim_start();
    }
    Some(Duration::from_secs(total))
}

fn yes() -> bool {
    true
}

fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("1h 30m"), Some(5400));
        assert_eq!(seconds("10 minutes"), Some(600));
        assert_eq!(seconds("90"), Some(90));
        assert_eq!(seconds("soon"), None);
    }
}
