//! A pipeline's configuration: the repository's `.gitlab-ci.yml`, expanded by gitlab-ci-local, as jobs to run.
//!
//! gitlab-ci-local reads includes, inputs of includes, `extends`, `!reference` and `rules`, and tells which jobs take
//! part. What it leaves out is done here: inputs of the pipeline itself (see [`super::inputs`]), `workflow:rules`,
//! and the reading of the keys it does not look at. Each job becomes a configuration of its own, so that a job's run
//! reads no includes again.
//!
//! Not modelled: child pipelines (`trigger:include`), `needs:pipeline` and `needs:project`, `cache`, `services` and
//! `image` (jobs run on the machine itself), `secrets`, `interruptible` and workflow variables.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use serde_norway::{Mapping, Value as Yaml};

use super::hub::Hub;
use super::job_spec::{AllowFailure, EnvironmentSpec, JobSpec, Need, Retry, TriggerSpec, duration, is_named};
use super::variables::Variables;

/// The expanded configuration.
pub(super) struct Config {
    pub(super) stages: Vec<String>,
    pub(super) jobs: Vec<JobSpec>,
}

/// Where and with what gitlab-ci-local reads a configuration.
pub(super) struct Source<'a> {
    /// A clone at the pipeline's commit.
    pub(super) clone: &'a Path,
    /// The configuration, beside the clone.
    pub(super) file: &'a str,
    pub(super) variables: &'a Variables,
    /// Private git configuration that lets includes be fetched.
    pub(super) git_config: &'a Path,
    pub(super) evaluate_changes: bool,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    stage: String,
    when: String,
    #[serde(default)]
    allow_failure: AllowFailure,
    needs: Option<Vec<Need>>,
}

/// Expands a configuration.
///
/// # Errors
/// What gitlab-ci-local has against it, for the pipeline's author to read.
pub(super) async fn read(hub: &Hub, source: &Source<'_>) -> anyhow::Result<Config> {
    let listed = list(hub, source).await?;
    let content = tokio::fs::read_to_string(source.clone.with_file_name(source.file)).await?;
    super::includes::check(source.clone, &source.clone.with_file_name("state"), &content)?;
    let expanded = source
        .clone
        .with_file_name("state")
        .join("expanded-gitlab-ci.yml");
    let expanded = tokio::fs::read_to_string(&expanded)
        .await
        .context("no expanded configuration")?;
    let expanded: Mapping = serde_norway::from_str(&expanded).context("the expanded configuration")?;
    if let Some(rules) = expanded
        .get("workflow")
        .and_then(|workflow| workflow.get("rules"))
    {
        check_workflow(hub, source, rules).await?;
    }
    let stages: Vec<String> = from_yaml(expanded.get("stages"))?;
    let jobs = listed.into_iter().filter(|job| job.when != "never");
    let jobs = jobs
        .map(|job| job_spec(&expanded, job))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if jobs.is_empty() {
        bail!(
            "The resulting pipeline would have been empty. Review the `rules` configuration for the relevant jobs."
        );
    }
    for job in &jobs {
        for need in job.needs.iter().flatten().filter(|need| !need.optional) {
            if !jobs.iter().any(|other| is_named(&other.name, &need.job)) {
                let (job, need) = (&job.name, &need.job);
                bail!("'{job}' job needs '{need}' job, but '{need}' does not exist in the pipeline");
            }
        }
    }
    Ok(Config { stages, jobs })
}

async fn list(hub: &Hub, source: &Source<'_>) -> anyhow::Result<Vec<Listed>> {
    let beside = |name: &str| source.clone.with_file_name(name);
    tokio::fs::create_dir_all(beside("state")).await?;
    super::workspace::write_private(&beside("variables.json"), &source.variables.to_file()).await?;
    let mut command = hub.clean_command(&hub.settings.gitlab_ci_local);
    command
        .args([
            "--list-json",
            "--no-json-schema-validation",
            "--state-dir",
            "../state",
        ])
        .args([
            "--file",
            &format!("../{}", source.file),
            "--variables-file",
            "../variables.json",
        ])
        .args(["--ignore-predefined-vars", &source.variables.names()])
        .env("GIT_CONFIG_GLOBAL", source.git_config)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .current_dir(source.clone)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for key in source.variables.unwanted(false, &BTreeSet::new()) {
        command.args(["--unset-variable", key]);
    }
    if !source.evaluate_changes {
        command.arg("--no-evaluate-rule-changes");
    }
    let output = command.output().await.context("cannot start gitlab-ci-local")?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        return Err(anyhow!("{}", complaint(&stdout, &stderr)));
    }
    // Warnings come before the list, on the same stream.
    let starts = stdout.match_indices('[').map(|(at, _)| at);
    let starts = starts.filter(|at| *at == 0 || stdout.as_bytes()[at - 1] == b'\n');
    starts
        .filter_map(|at| serde_json::from_str(&stdout[at..]).ok())
        .next()
        .with_context(|| format!("gitlab-ci-local listed no jobs: {}", complaint(&stdout, &stderr)))
}

/// What is left of gitlab-ci-local's words without its remarks about the machine.
fn complaint(stdout: &str, stderr: &str) -> String {
    const REMARKS: [&str; 6] = [
        "Using fallback git",
        "  Command failed with exit code 1: git config",
        "parsing and downloads",
        "Unable to retrieve default remote branch",
        " WARN ",
        "\t",
    ];
    let lines = stdout.lines().chain(stderr.lines());
    let kept = lines.filter(|line| !line.trim().is_empty());
    let kept = kept.filter(|line| !REMARKS.iter().any(|remark| line.starts_with(remark)));
    kept.collect::<Vec<_>>().join("\n")
}

/// gitlab-ci-local does not look at `workflow:rules`; as the rules of a job it does.
async fn check_workflow(hub: &Hub, source: &Source<'_>, rules: &Yaml) -> anyhow::Result<()> {
    let probe = serde_json::json!({
        "stages": ["workflow"],
        "workflow-rules": { "stage": "workflow", "script": ["true"], "rules": serde_json::to_value(rules)? },
    });
    let file = "workflow.json";
    tokio::fs::write(source.clone.with_file_name(file), probe.to_string()).await?;
    let listed = list(hub, &Source { file, ..*source }).await?;
    if listed.iter().any(|job| job.when == "never") {
        bail!("Pipeline filtered out by workflow rules.");
    }
    Ok(())
}

fn job_spec(expanded: &Mapping, listed: Listed) -> anyhow::Result<JobSpec> {
    let base = if expanded.contains_key(&listed.name) {
        listed.name.as_str()
    } else {
        // A job of `parallel` is listed as `name: [...]`.
        listed
            .name
            .split_once(": [")
            .map_or(listed.name.as_str(), |(base, _)| base)
    };
    let job = expanded.get(base).and_then(Yaml::as_mapping);
    let job = job.with_context(|| format!("job {} is not in the expanded configuration", listed.name))?;
    // gitlab-ci-local has a manual job fail freely, whatever the job says of itself.
    let stated = job.get("allow_failure").and_then(Yaml::as_bool);
    let allow_failure = match (stated.filter(|_| !rules_allow_failure(job)), listed.allow_failure) {
        (Some(stated), _) => AllowFailure::Always(stated),
        // A manual job may fail unless it says otherwise; one that a rule makes manual must not.
        (None, AllowFailure::Unset | AllowFailure::Always(false))
            if listed.when == "manual"
                && !job.contains_key("rules")
                && !job.contains_key("allow_failure") =>
        {
            AllowFailure::Always(true)
        }
        (None, AllowFailure::Always(true))
            if listed.when == "manual"
                && job.get("when").and_then(Yaml::as_str) != Some("manual")
                && job.contains_key("rules")
                && !job.contains_key("allow_failure")
                && !rules_allow_failure(job) =>
        {
            AllowFailure::Always(false)
        }
        (None, other) => other,
    };
    let duration_of = |key: &str| job.get(key).and_then(Yaml::as_str).and_then(duration);
    let environment = match job.get("environment") {
        Some(Yaml::String(name)) => Some(EnvironmentSpec {
            name: name.clone(),
            ..Default::default()
        }),
        Some(other) => Some(serde_norway::from_value(other.clone()).context("environment")?),
        None => None,
    };
    let retry = match job.get("retry") {
        Some(Yaml::Number(max)) => Retry {
            max: max.as_u64().and_then(|max| max.try_into().ok()).unwrap_or(0),
            ..Retry::default()
        },
        other => from_yaml(other).context("retry")?,
    };
    let id_tokens = job
        .get("id_tokens")
        .and_then(Yaml::as_mapping)
        .into_iter()
        .flatten();
    let id_tokens = id_tokens.map(|(name, token)| {
        let audience = serde_json::to_value(token.get("aud")).unwrap_or_default();
        (name.as_str().unwrap_or_default().to_owned(), audience)
    });
    let trigger = match job.get("trigger") {
        Some(Yaml::String(project)) => Some(TriggerSpec {
            project: project.clone(),
            ..Default::default()
        }),
        Some(other) => Some(serde_norway::from_value(other.clone()).context("trigger")?),
        None => None,
    };
    let reports = job
        .get("artifacts")
        .and_then(|artifacts| artifacts.get("reports"));
    let dotenv_reports = match reports.and_then(|reports| reports.get("dotenv")) {
        Some(Yaml::String(path)) => vec![path.clone()],
        other => from_yaml(other)?,
    };
    let own = [expanded.get("variables"), job.get("variables")];
    let own = || {
        own.iter()
            .copied()
            .flatten()
            .filter_map(Yaml::as_mapping)
            .flatten()
    };
    let rules = || job.get("rules").and_then(Yaml::as_sequence).into_iter().flatten();
    let of_rules = rules()
        .filter_map(|rule| rule.get("variables")?.as_mapping())
        .flatten();
    let yaml_variables = own()
        .chain(of_rules)
        .filter_map(|(key, _)| key.as_str().map(str::to_owned))
        .collect();
    let text = |value: &Yaml| value.as_str().map_or_else(String::new, str::to_owned);
    let yaml_values = own().map(|(key, value)| (text(key), text(value))).collect();
    Ok(JobSpec {
        file: alone(expanded, base, job)?,
        stage: listed.stage,
        when: listed.when,
        allow_failure,
        needs: listed.needs,
        dependencies: job
            .get("dependencies")
            .map(|names| from_yaml(Some(names)))
            .transpose()?,
        environment,
        retry,
        resource_group: job
            .get("resource_group")
            .and_then(Yaml::as_str)
            .map(str::to_owned),
        timeout: duration_of("timeout"),
        start_in: duration_of("start_in"),
        id_tokens: id_tokens.collect(),
        trigger,
        tags: from_yaml(job.get("tags"))?,
        dotenv_reports,
        yaml_variables,
        yaml_values,
        name: listed.name,
    })
}

fn rules_allow_failure(job: &Mapping) -> bool {
    let mut rules = job.get("rules").and_then(Yaml::as_sequence).into_iter().flatten();
    rules.any(|rule| rule.get("allow_failure").is_some())
}

/// A configuration with one job, which starts whatever happened before it: that is decided here.
fn alone(expanded: &Mapping, base: &str, job: &Mapping) -> anyhow::Result<String> {
    let mut job = job.clone();
    for key in [
        "needs",
        "dependencies",
        "allow_failure",
        "image",
        "services",
        "cache",
        "retry",
        "when",
        "start_in",
    ] {
        job.remove(key);
    }
    let rules = job
        .remove("rules")
        .and_then(|rules| rules.as_sequence().cloned())
        .unwrap_or_default();
    if rules.iter().any(|rule| rule.get("variables").is_some()) {
        let rules = rules.into_iter().map(|mut rule| {
            if let Some(rule) = rule.as_mapping_mut() {
                if rule.get("when").and_then(Yaml::as_str) != Some("never") {
                    rule.remove("when");
                }
                for key in ["allow_failure", "start_in", "needs"] {
                    rule.remove(key);
                }
            }
            rule
        });
        job.insert("rules".into(), Yaml::Sequence(rules.collect()));
    }
    let mut file = Mapping::new();
    for key in ["stages", "variables"] {
        if let Some(value) = expanded.get(key) {
            file.insert(key.into(), value.clone());
        }
    }
    file.insert(base.into(), Yaml::Mapping(job));
    Ok(serde_norway::to_string(&file)?)
}

fn from_yaml<T: serde::de::DeserializeOwned + Default>(value: Option<&Yaml>) -> anyhow::Result<T> {
    value.map_or_else(
        || Ok(T::default()),
        |value| Ok(serde_norway::from_value(value.clone())?),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_alone_keeps_its_script_and_loses_its_conditions() {
        let expanded: Mapping = serde_norway::from_str(
            "stages: [a]\nvariables: {G: '1'}\nj:\n  stage: a\n  when: on_failure\n  needs: [{job: x}]\n  script: [exit 3]\n  rules: [{if: $X, when: on_failure, variables: {Y: '2'}}]\nother: {script: [y]}\n",
        )
        .unwrap();
        let listed = Listed {
            name: "j".into(),
            stage: "a".into(),
            when: "on_failure".into(),
            allow_failure: AllowFailure::Codes { exit_codes: vec![3] },
            needs: None,
        };
        let spec = job_spec(&expanded, listed).unwrap();
        let file: Mapping = serde_norway::from_str(&spec.file).unwrap();
        assert!(!file.contains_key("other"));
        assert!(file["j"].get("when").is_none() && file["j"].get("needs").is_none());
        assert!(file["j"]["rules"][0].get("when").is_none());
        assert_eq!(
            spec.yaml_variables,
            BTreeSet::from(["G".to_owned(), "Y".to_owned()])
        );
        assert!(spec.allow_failure.covers(Some(3)) && !spec.allow_failure.covers(Some(1)));
    }

    #[test]
    fn a_manual_job_says_itself_whether_it_holds_the_pipeline_up() {
        let spec = |keys: &str| {
            let text = format!("stages: [a]\nj: {{stage: a, script: [x], {keys}}}\n");
            let expanded: Mapping = serde_norway::from_str(&text).unwrap();
            // What gitlab-ci-local tells of manual jobs.
            let listed = Listed {
                name: "j".into(),
                stage: "a".into(),
                when: "manual".into(),
                allow_failure: AllowFailure::Always(true),
                needs: None,
            };
            job_spec(&expanded, listed).unwrap().allow_failure.covers(Some(1))
        };
        assert!(spec("when: manual"));
        assert!(spec("when: manual, rules: [{if: $X}]"));
        assert!(!spec("rules: [{if: $X, when: manual}]"));
        assert!(!spec("when: manual, allow_failure: false"));
        assert!(!spec("when: manual, allow_failure: false, rules: [{if: $X}]"));
        assert!(spec("when: manual, allow_failure: true, rules: [{if: $X}]"));
        let both = "when: manual, allow_failure: false, rules: [{if: $X, allow_failure: true}]";
        assert!(spec(both));
    }
}
