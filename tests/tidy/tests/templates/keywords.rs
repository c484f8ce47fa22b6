//! What the jobs of the templates are to GitLab: their keywords, and the rules that they are in a pipeline by.

use std::collections::BTreeMap;

use serde_norway::Value;

use crate::{Template, interpolated, script, templates};

/// GitLab knows no bounds for lists. So one stands for a keyword of GitLab's, which GitLab checks, and is in no text: as
/// all of a list, or as an item of one, which its items then take the place of.
#[test]
fn lists_are_keywords_and_nothing_else() {
    let mut lists = 0;
    for Template { file, inputs, body } in templates() {
        for (name, definition) in &inputs {
            if definition["type"] != "array" {
                continue;
            }
            assert!(
                definition["default"].is_sequence(),
                "{file}: {name} says what it is when nobody gives it"
            );
            let block = format!("$[[ inputs.{name} ]]");
            let places: Vec<&str> = body.lines().filter(|line| line.contains(&block)).collect();
            for line in &places {
                let handed_on = format!("      {name}: {block}");
                let keyword = format!("  {name}: {block}");
                let item = format!("    - {block}");
                assert!(
                    [handed_on.as_str(), &keyword, &item].contains(line),
                    "{file}: {name} in {line:?}"
                );
            }
            assert!(["rules", "needs"].contains(&name.as_str()), "{file}: {name}");
            lists += places.len();
        }
    }
    assert!(lists > 15, "most jobs take rules");
}

/// Whoever includes a template may add rules to each of its jobs, but for those that a schedule alone starts, behind the
/// guard of protected branches. What a job is held to is a keyword of the job, so that a rule from outside keeps to it.
#[test]
fn rules_from_outside_come_behind_the_guards() {
    let mut jobs_with_rules = 0;
    for Template { file, inputs, body } in templates() {
        let jobs: BTreeMap<String, Value> =
            serde_norway::from_str(&body).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (job, definition) in &jobs {
            let Some(rules) = definition["rules"].as_sequence() else {
                continue;
            };
            if job.ends_with("-drift") {
                continue;
            }
            let at = rules
                .iter()
                .position(|rule| rule.as_str() == Some("$[[ inputs.rules ]]"))
                .unwrap_or_else(|| panic!("{file}: {job} takes no rules"));
            let (before, after) = (&rules[..at], &rules[at + 1..]);
            assert!(
                before.iter().all(|rule| rule["when"] == "never"),
                "{file}: {job}: {before:?}"
            );
            let guarded = before.iter().any(|rule| {
                rule["if"]
                    .as_str()
                    .is_some_and(|rule| rule.contains("inputs.protected_only"))
            });
            assert_eq!(guarded, inputs.contains_key("protected_only"), "{file}: {job}");
            assert!(
                !after.is_empty() && after.iter().all(|rule| rule.get("when").is_none()),
                "{file}: {job}: {after:?}"
            );
            assert_eq!(
                definition.get("when").is_some(),
                definition.get("allow_failure").is_some(),
                "{file}: {job} says whether it holds the pipeline up while it waits"
            );
            jobs_with_rules += 1;
        }
    }
    assert!(jobs_with_rules >= 11, "{jobs_with_rules} jobs have rules");
}

/// What a job is called, where and on what it runs and how long is said by whoever includes it; the rest is as GitLab
/// wants it for what the job does.
#[test]
fn keywords_are_inputs_or_set_for_what_the_job_does() {
    let (mut jobs_seen, mut deploying) = (0, 0);
    for Template { file, body, .. } in templates() {
        let jobs: BTreeMap<String, Value> =
            serde_norway::from_str(&body).unwrap_or_else(|error| panic!("{file}: {error}"));
        let hidden = jobs.iter().find(|(name, _)| name.starts_with('.'));
        for (job, definition) in jobs
            .iter()
            .filter(|(_, definition)| definition["script"].is_sequence())
        {
            let of = |key: &str| {
                let own = definition.get(key);
                own.or(hidden.and_then(|(_, hidden)| hidden.get(key)))
            };
            let is_input = |value: Option<&Value>| {
                let text = value.and_then(Value::as_str);
                text.is_some_and(|text| !interpolated(text).is_empty())
            };
            assert!(is_input(Some(&Value::from(job.as_str()))), "{file}: {job}");
            assert!(is_input(of("stage")), "{file}: {job} has a stage of its own");
            assert!(is_input(of("timeout")), "{file}: {job} has a timeout of its own");
            let tag = of("tags").and_then(|tags| tags.get(0));
            assert!(is_input(tag), "{file}: {job} has a runner's tag of its own");
            let image = of("image");
            assert!(
                is_input(image.and_then(|image| image.get("name"))),
                "{file}: {job} has an image of its own"
            );
            assert_eq!(
                image.map(|image| &image["entrypoint"]),
                Some(&Value::from(vec![""])),
                "{file}: {job}: an entrypoint could keep the script from running"
            );
            let may_be_interrupted = of("interruptible").and_then(Value::as_bool);
            assert!(may_be_interrupted.is_some(), "{file}: {job}");
            if let Some(environment) = of("environment") {
                assert!(is_input(environment.get("name")), "{file}: {job}");
                let action = environment["action"].as_str().unwrap_or("start");
                if action == "start" {
                    assert!(is_input(environment.get("deployment_tier")), "{file}: {job}");
                    assert_eq!(of("resource_group"), environment.get("name"), "{file}: {job}");
                    assert_eq!(may_be_interrupted, Some(false), "{file}: {job} deploys");
                    deploying += 1;
                }
            }
            // A plan goes stale and a person looks on: those who pressed a button try again themselves.
            let by_hand = file.ends_with("/infra.yml") || file.ends_with("/rollback.yml");
            let retry = of("retry");
            assert_eq!(retry.is_none(), by_hand, "{file}: {job}");
            let codes = Value::from(vec![7]);
            assert!(
                retry.is_none_or(|retry| retry["exit_codes"] == codes && retry["max"] == 2),
                "{file}: {job} is retried when trying again may help, and only then"
            );
            // Whoever runs Vault's tool has what proves who it is.
            if script(definition).join("\n").contains("vault-scw-creds") {
                assert!(is_input(of("extends")), "{file}: {job} extends no credentials");
            }
            jobs_seen += 1;
        }
        for (name, hidden) in &jobs {
            let logs_in = hidden["variables"].get("VAULT_ADDR").is_some();
            assert_eq!(
                logs_in,
                hidden["id_tokens"]["VAULT_ID_TOKEN"]["aud"].is_string(),
                "{file}: {name}"
            );
        }
    }
    assert_eq!(
        (jobs_seen, deploying),
        (12, 3),
        "the bump, the rollback and the apply deploy"
    );
}
