//! The variables a job gets, in GitLab's order of precedence, and the file that hands them to gitlab-ci-local.
//!
//! Lowest to highest: predefined, the YAML's own (added by gitlab-ci-local), dotenv reports of earlier jobs,
//! instance, project, pipeline. gitlab-ci-local lets its variables file win over the YAML, so a predefined variable
//! that the YAML sets is left out of the file. The file is private to the job and never an argument: the
//! job token and the secrets are in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::hub::Hub;
use super::repository::Commit;
use super::settings::{CiVariable, wildcard_match};
use super::state::{Job, Pipeline, Project, User, timestamp};

/// What gitlab-ci-local defines by itself for every job; each is set here or taken away.
const OWN_DEFINITIONS: [&str; 17] = [
    "CI_COMMIT_BRANCH",
    "CI_COMMIT_DESCRIPTION",
    "CI_DEPENDENCY_PROXY_DIRECT_GROUP_IMAGE_PREFIX",
    "CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX",
    "CI_DEPENDENCY_PROXY_SERVER",
    "CI_DEPENDENCY_PROXY_USER",
    "CI_ENVIRONMENT_ACTION",
    "CI_ENVIRONMENT_NAME",
    "CI_ENVIRONMENT_SLUG",
    "CI_ENVIRONMENT_TIER",
    "CI_ENVIRONMENT_URL",
    "CI_NODE_TOTAL",
    "CI_REGISTRY",
    "CI_REGISTRY_IMAGE",
    "CI_SERVER_SHELL_SSH_PORT",
    "CI_TEMPLATE_REGISTRY_HOST",
    "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR",
];

/// The variables of one run of gitlab-ci-local.
#[derive(Default)]
pub(super) struct Variables {
    values: BTreeMap<String, CiVariable>,
    predefined: BTreeSet<String>,
}

impl Variables {
    /// Adds predefined variables, as they are: a `$` in a commit message is no reference.
    pub(super) fn predefine(&mut self, variables: impl IntoIterator<Item = (&'static str, String)>) {
        for (key, value) in variables {
            self.predefined.insert(key.to_owned());
            self.values.insert(
                key.to_owned(),
                CiVariable {
                    raw: true,
                    ..CiVariable::new(key, value)
                },
            );
        }
    }

    /// Adds a predefined variable that logs must not show.
    pub(super) fn predefine_secret(&mut self, key: &str, value: String) {
        self.predefined.insert(key.to_owned());
        self.values.insert(key.to_owned(), CiVariable::masked(key, value));
    }

    /// Takes away the predefined variables that the YAML sets.
    pub(super) fn yield_to(&mut self, yaml: &BTreeSet<String>) {
        for key in yaml {
            if self.predefined.remove(key) {
                self.values.remove(key);
            }
        }
    }

    /// Adds variables that win over all before them.
    pub(super) fn add(&mut self, variables: impl IntoIterator<Item = CiVariable>) {
        for variable in variables {
            self.predefined.remove(&variable.key);
            self.values.insert(variable.key.clone(), variable);
        }
    }

    /// Values that the job's log must not show.
    pub(super) fn masked_values(&self) -> impl Iterator<Item = String> {
        self.values
            .values()
            .filter(|variable| variable.masked)
            .map(|variable| variable.value.clone())
    }

    /// File-type variables, to be written where [`Variables::set_file`] then points to.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        let files = self.values.values().filter(|variable| variable.file);
        files
            .map(|variable| (variable.key.clone(), variable.value.clone()))
            .collect()
    }

    /// Replaces a file-type variable's content by the path of the file that holds it.
    pub(super) fn set_file(&mut self, key: &str, path: String) {
        self.add([CiVariable {
            raw: true,
            ..CiVariable::new(key, path)
        }]);
    }

    /// Names that gitlab-ci-local would warn about.
    pub(super) fn names(&self) -> String {
        self.values
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// gitlab-ci-local's own definitions that GitLab would not give.
    pub(super) fn unwanted(&self, environment: bool, yaml: &BTreeSet<String>) -> Vec<&'static str> {
        OWN_DEFINITIONS
            .into_iter()
            .filter(|key| !self.values.contains_key(*key) && !yaml.contains(*key))
            .filter(|key| !(environment && key.starts_with("CI_ENVIRONMENT_")))
            .collect()
    }

    /// The content of a `--variables-file`.
    pub(super) fn to_file(&self) -> String {
        let entries: Map<String, Value> = self
            .values
            .values()
            .map(|variable| {
                let value = if variable.raw {
                    variable.value.replace('$', "$$")
                } else {
                    variable.value.clone()
                };
                (
                    variable.key.clone(),
                    json!({ "type": "variable", "values": { "*": value } }),
                )
            })
            .collect();
        Value::Object(entries).to_string()
    }

    /// Expands `$NAME` and `${NAME}` in a text such as an environment's name, with the YAML's variables in their place
    /// of the order.
    pub(super) fn expand(&self, text: &str, yaml: &[(String, String)]) -> String {
        self.expand_nested(text, yaml, 0)
    }

    fn expand_nested(&self, text: &str, yaml: &[(String, String)], depth: usize) -> String {
        /// As deep as a variable may refer to variables.
        const MAX_DEPTH: usize = 8;
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, after)) => (name, after),
                None => {
                    let end = rest
                        .find(|ch: char| !(ch.is_ascii_alphanumeric() || ch == '_'))
                        .unwrap_or(rest.len());
                    rest.split_at(end)
                }
            };
            let given = self.values.get(name).filter(|_| !self.predefined.contains(name));
            let of_yaml = || {
                yaml.iter()
                    .rev()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| (value, false))
            };
            let value = given
                .map(|variable| (&variable.value, variable.raw))
                .or_else(of_yaml);
            match value.or_else(|| {
                self.values
                    .get(name)
                    .map(|variable| (&variable.value, variable.raw))
            }) {
                Some((value, false)) if depth < MAX_DEPTH => {
                    expanded.push_str(&self.expand_nested(value, yaml, depth + 1));
                }
                Some((value, _)) => expanded.push_str(value),
                None => {}
            }
            rest = after;
        }
        expanded.push_str(rest);
        expanded
    }
}

/// The CI/CD variables among these that a job on this ref and environment gets.
pub(super) fn for_job(
    variables: &[CiVariable],
    protected_ref: bool,
    environment: Option<&str>,
) -> impl Iterator<Item = CiVariable> {
    variables
        .iter()
        .filter(move |variable| protected_ref || !variable.protected)
        .filter(move |variable| {
            variable.environment_scope == "*"
                || environment.is_some_and(|name| wildcard_match(&variable.environment_scope, name))
        })
        .cloned()
}

/// `CI_*` that every job of the pipeline shares and that `rules` may look at.
pub(super) fn of_pipeline(
    hub: &Hub,
    pipeline: &Pipeline,
    project: &Project,
    user: &User,
    commit: &Commit,
) -> Vec<(&'static str, String)> {
    let url = format!("{}/{}", hub.url, project.path);
    let flag = |value: bool| if value { "true" } else { "false" }.to_owned();
    let mut variables = vec![
        ("CI", flag(true)),
        ("GITLAB_CI", flag(true)),
        ("CI_API_V4_URL", hub.api_url()),
        (
            "CI_COMMIT_AUTHOR",
            format!("{} <{}>", commit.author_name, commit.author_email),
        ),
        (
            "CI_COMMIT_BEFORE_SHA",
            pipeline.before_sha.clone().unwrap_or_else(|| "0".repeat(40)),
        ),
        (
            "CI_COMMIT_DESCRIPTION",
            commit
                .message
                .split_once('\n')
                .map_or("", |(_, rest)| rest)
                .trim()
                .to_owned(),
        ),
        ("CI_COMMIT_MESSAGE", commit.message.clone()),
        ("CI_COMMIT_REF_NAME", pipeline.ref_name.clone()),
        (
            "CI_COMMIT_REF_PROTECTED",
            flag(project.is_protected(&pipeline.ref_name, pipeline.tag)),
        ),
        ("CI_COMMIT_REF_SLUG", slug(&pipeline.ref_name)),
        ("CI_COMMIT_SHA", pipeline.sha.clone()),
        ("CI_COMMIT_SHORT_SHA", commit.short_id().to_owned()),
        ("CI_COMMIT_TIMESTAMP", commit.committed_date.clone()),
        ("CI_COMMIT_TITLE", commit.title().to_owned()),
        ("CI_CONFIG_PATH", project.settings.ci_config_path.clone()),
        ("CI_DEFAULT_BRANCH", project.settings.default_branch.clone()),
        (
            "CI_PIPELINE_CREATED_AT",
            timestamp(pipeline.created_at)
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        ),
        ("CI_PIPELINE_ID", pipeline.id.to_string()),
        ("CI_PIPELINE_IID", pipeline.iid.to_string()),
        ("CI_PIPELINE_SOURCE", pipeline.source.as_str().to_owned()),
        ("CI_PIPELINE_URL", format!("{url}/-/pipelines/{}", pipeline.id)),
        ("CI_PROJECT_ID", project.id.to_string()),
        ("CI_PROJECT_NAME", project.name().to_owned()),
        ("CI_PROJECT_NAMESPACE", project.namespace().to_owned()),
        ("CI_PROJECT_PATH", project.path.clone()),
        ("CI_PROJECT_PATH_SLUG", slug(&project.path)),
        (
            "CI_PROJECT_ROOT_NAMESPACE",
            project.path.split('/').next().unwrap_or_default().to_owned(),
        ),
        ("CI_PROJECT_TITLE", project.name().to_owned()),
        ("CI_PROJECT_URL", url),
        (
            "CI_PROJECT_VISIBILITY",
            project.settings.visibility.name().to_owned(),
        ),
        ("CI_SERVER", "yes".to_owned()),
        ("CI_SERVER_FQDN", format!("127.0.0.1:{}", hub.port)),
        ("CI_SERVER_HOST", "127.0.0.1".to_owned()),
        ("CI_SERVER_NAME", "GitLab".to_owned()),
        ("CI_SERVER_PORT", hub.port.to_string()),
        ("CI_SERVER_PROTOCOL", "http".to_owned()),
        ("CI_SERVER_URL", hub.url.clone()),
        ("CI_SERVER_VERSION", hub.settings.version.to_string()),
        ("GITLAB_USER_EMAIL", user.email.clone()),
        ("GITLAB_USER_ID", user.id.to_string()),
        ("GITLAB_USER_LOGIN", user.username.clone()),
        ("GITLAB_USER_NAME", user.name.clone()),
    ];
    variables.push(if pipeline.tag {
        ("CI_COMMIT_TAG", pipeline.ref_name.clone())
    } else {
        ("CI_COMMIT_BRANCH", pipeline.ref_name.clone())
    });
    if pipeline.source == super::state::Source::Trigger {
        variables.push(("CI_PIPELINE_TRIGGERED", flag(true)));
    }
    if let Some(registry) = &hub.settings.registry {
        variables.push(("CI_REGISTRY", registry.clone()));
        variables.push((
            "CI_REGISTRY_IMAGE",
            format!("{registry}/{}", project.path.to_lowercase()),
        ));
    }
    variables
}

/// `CI_*` of one job, the secret ones aside.
pub(super) fn of_job(
    hub: &Hub,
    job: &Job,
    project: &Project,
    project_dir: &str,
    builds_dir: &str,
) -> Vec<(&'static str, String)> {
    let started = job.started_at.map(timestamp).unwrap_or_default();
    let timeout = job.spec.timeout.unwrap_or(hub.settings.job_timeout);
    vec![
        ("CI_BUILDS_DIR", builds_dir.to_owned()),
        ("CI_CONCURRENT_ID", job.id.to_string()),
        ("CI_JOB_ID", job.id.to_string()),
        ("CI_JOB_NAME", job.spec.name.clone()),
        ("CI_JOB_NAME_SLUG", slug(&job.spec.name)),
        ("CI_JOB_STAGE", job.spec.stage.clone()),
        (
            "CI_JOB_STARTED_AT",
            started.as_str().unwrap_or_default().to_owned(),
        ),
        ("CI_JOB_TIMEOUT", timeout.as_secs().to_string()),
        (
            "CI_JOB_URL",
            format!("{}/{}/-/jobs/{}", hub.url, project.path, job.id),
        ),
        ("CI_PROJECT_DIR", project_dir.to_owned()),
        ("CI_RUNNER_DESCRIPTION", "sandbox".to_owned()),
        ("CI_RUNNER_ID", "1".to_owned()),
        ("CI_RUNNER_TAGS", json!(job.spec.tags).to_string()),
        ("CI_RUNNER_VERSION", hub.settings.version.to_string()),
        ("CI_SHARED_ENVIRONMENT", "true".to_owned()),
    ]
}

/// Lower case, at most 63 bytes, everything but letters and digits replaced by `-`, none at the ends.
pub(super) fn slug(name: &str) -> String {
    let mut slug: String = name
        .to_lowercase()
        .chars()
        .map(|ch| {
            if ch.is_ascii_lowercase() || ch.is_ascii_digit() {
                ch
            } else {
                '-'
            }
        })
        .collect();
    slug.truncate(63);
    slug.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_gitlabs() {
        assert_eq!(slug("Feature/ABC_1."), "feature-abc-1");
        assert_eq!(slug(&"x".repeat(70)).len(), 63);
    }

    #[test]
    fn later_variables_win_and_yaml_wins_over_predefined() {
        let mut variables = Variables::default();
        variables.predefine([
            ("CI_DEFAULT_BRANCH", "main".to_owned()),
            ("CI", "true".to_owned()),
        ]);
        variables.yield_to(&BTreeSet::from([
            "CI_DEFAULT_BRANCH".to_owned(),
            "OTHER".to_owned(),
        ]));
        variables.add([CiVariable::new("CI", "no"), CiVariable::masked("KEY", "a$b")]);
        let file: Value = serde_json::from_str(&variables.to_file()).unwrap();
        assert_eq!(file["CI"]["values"]["*"], "no");
        assert_eq!(file["KEY"]["values"]["*"], "a$$b");
        assert!(file.get("CI_DEFAULT_BRANCH").is_none());
        let yaml = [
            ("Y".to_owned(), "y-$CI".to_owned()),
            ("CI".to_owned(), "of yaml".to_owned()),
        ];
        assert_eq!(variables.expand("x/$Y/${KEY}-$NONE.", &yaml), "x/y-no/a$b-.");
    }

    #[test]
    fn protected_and_scoped_variables_stay_where_they_belong() {
        let scoped = CiVariable {
            environment_scope: "prod*".into(),
            ..CiVariable::new("S", "1")
        };
        let all = [CiVariable::new("P", "1").protected(), scoped];
        let keys = |protected, environment| {
            for_job(&all, protected, environment)
                .map(|variable| variable.key)
                .collect::<String>()
        };
        assert_eq!(keys(false, None), "");
        assert_eq!(keys(true, Some("dev")), "P");
        assert_eq!(keys(true, Some("production")), "PS");
    }
}
