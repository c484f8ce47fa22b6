//! What is done about jobs that wait for a person: for all of them, and for some by name.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::gitlab::Job;

/// What to do about a manual job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// End with exit code 9, naming it.
    #[default]
    Fail,
    /// Wait until somebody starts it.
    Wait,
    /// Judge the pipeline by what ran without it.
    Ignore,
    /// Start it.
    Play,
}

impl Action {
    const ALL: [Action; 4] = [Action::Fail, Action::Wait, Action::Ignore, Action::Play];

    fn as_str(self) -> &'static str {
        match self {
            Action::Fail => "fail",
            Action::Wait => "wait",
            Action::Ignore => "ignore",
            Action::Play => "play",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// Some rules, as one flag or one variable gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// None means every job that no other rule names.
    job: Option<String>,
    action: Action,
}

/// What is done about each manual job.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnManual {
    default: Action,
    jobs: BTreeMap<String, Action>,
}

impl OnManual {
    /// Puts the rules together.
    ///
    /// # Errors
    /// Usage (exit 2) when two of them are about the same job.
    pub(crate) fn new(given: &[Rules]) -> Result<Self> {
        let mut default = None;
        let mut jobs = BTreeMap::new();
        for rule in given.iter().flat_map(|rules| &rules.0) {
            let earlier = match &rule.job {
                None => default.replace(rule.action),
                Some(job) => jobs.insert(job.clone(), rule.action),
            };
            if earlier.is_some_and(|earlier| earlier != rule.action) {
                let about = rule.job.as_deref().unwrap_or("all jobs");
                return Err(
                    Failure::usage(format!("--on-manual says two things about {about}"))
                        .hint("give each job one action, and all others one (TOWPATH_ON_MANUAL)"),
                );
            }
        }
        Ok(OnManual {
            default: default.unwrap_or_default(),
            jobs,
        })
    }

    /// What is done about a job.
    pub(crate) fn of(&self, job: &Job) -> Action {
        self.named(job).unwrap_or(self.default)
    }

    /// What is done about jobs that no rule names.
    pub(crate) fn of_others(&self) -> Action {
        self.default
    }

    /// Whether a job is to be started as soon as it can be: any that is named so, and any that the pipeline cannot go on
    /// without where that is the rule for all.
    pub(crate) fn starts(&self, job: &Job) -> bool {
        match self.named(job) {
            Some(action) => action == Action::Play,
            None => self.default == Action::Play && !job.allow_failure,
        }
    }

    /// Whether any job is to be started.
    pub(crate) fn starts_any(&self) -> bool {
        self.default == Action::Play || self.jobs.values().any(|action| *action == Action::Play)
    }

    /// The names that none of these jobs has.
    pub(crate) fn unmet<'a>(&'a self, jobs: impl Iterator<Item = &'a Job>) -> Vec<&'a str> {
        let mut unmet: Vec<&str> = self.jobs.keys().map(String::as_str).collect();
        for job in jobs {
            unmet.retain(|name| *name != job.name && *name != family(&job.name));
        }
        unmet
    }

    fn named(&self, job: &Job) -> Option<Action> {
        let by = |name: &str| self.jobs.get(name).copied();
        by(&job.name).or_else(|| by(family(&job.name)))
    }
}

/// The name that the jobs of `parallel:` share: `deploy` for `deploy: [eu]` and for `deploy 1/3`.
fn family(name: &str) -> &str {
    if let Some((family, _)) = name.split_once(": [") {
        return family;
    }
    match name.rsplit_once(' ') {
        Some((family, part)) if part.split_once('/').is_some_and(is_fraction) => family,
        _ => name,
    }
}

fn is_fraction((part, whole): (&str, &str)) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number(part) && is_number(whole)
}

/// Parses `ACTION` or `JOB=ACTION`, several of them on lines of their own or parted by commas. A job's name may hold
/// commas and equals signs; an action ends a rule.
///
/// # Errors
/// A sentence for clap to show.
pub(crate) fn parse_rules(text: &str) -> Result<Rules, String> {
    let mut rules = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut pending = String::new();
        for part in line.split(',') {
            if !pending.is_empty() {
                pending.push(',');
            }
            pending.push_str(part);
            if let Some(rule) = parse_rule(&pending) {
                rules.push(rule);
                pending.clear();
            }
        }
        if !pending.is_empty() {
            return Err(format!(
                "expected fail, wait, ignore or play, or JOB=ACTION with one of these, got {:?}",
                pending.trim()
            ));
        }
    }
    if rules.is_empty() {
        return Err("expected fail, wait, ignore or play, or JOB=ACTION".to_owned());
    }
    Ok(Rules(rules))
}

fn parse_rule(text: &str) -> Option<Rule> {
    let text = text.trim();
    if let Some(action) = Action::from_word(text) {
        return Some(Rule { job: None, action });
    }
    let (job, action) = text.rsplit_once('=')?;
    let job = job.trim();
    Some(Rule {
        job: (!job.is_empty()).then(|| job.to_owned()),
        action: Action::from_word(action.trim())?,
    })
    .filter(|rule| rule.job.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, allow_failure: bool) -> Job {
        Job {
            name: name.to_owned(),
            allow_failure,
            ..Job::default()
        }
    }

    fn policy(texts: &[&str]) -> OnManual {
        let rules: Vec<Rules> = texts.iter().map(|text| parse_rules(text).unwrap()).collect();
        OnManual::new(&rules).unwrap()
    }

    #[test]
    fn jobs_are_named_alone_in_rows_and_by_their_family() {
        let policy = policy(&[
            "wait",
            "deploy=play,clean up=ignore\nscan: [a, b]=fail\na=b=ignore",
        ]);
        for (name, action) in [
            ("deploy", Action::Play),
            ("deploy: [eu]", Action::Play),
            ("deploy 2/3", Action::Play),
            ("deploy it", Action::Wait),
            ("clean up", Action::Ignore),
            ("scan: [a, b]", Action::Fail),
            ("scan: [a, c]", Action::Wait),
            ("a=b", Action::Ignore),
            ("other", Action::Wait),
        ] {
            assert_eq!(policy.of(&job(name, false)), action, "{name}");
        }
        assert_eq!(OnManual::default().of(&job("x", false)), Action::Fail);
    }

    #[test]
    fn an_optional_job_is_started_only_when_it_is_named() {
        let all = policy(&["play"]);
        assert!(all.starts(&job("apply", false)) && !all.starts(&job("apply", true)));
        let named = policy(&["apply=play"]);
        assert!(named.starts(&job("apply", true)) && !named.starts(&job("other", false)));
        assert!(all.starts_any() && named.starts_any() && !policy(&["x=wait"]).starts_any());
    }

    #[test]
    fn rules_are_refused_when_they_make_no_sense() {
        for wrong in [
            "",
            " \n",
            "maybe",
            "deploy=",
            "deploy=maybe",
            "=play",
            "deploy",
            "deploy=play,x",
        ] {
            assert!(parse_rules(wrong).is_err(), "{wrong:?} was accepted");
        }
        let twice = [parse_rules("a=play").unwrap(), parse_rules("a=wait").unwrap()];
        assert!(OnManual::new(&twice).is_err());
        let both = [parse_rules("fail,play").unwrap()];
        assert!(OnManual::new(&both).is_err());
    }

    #[test]
    fn a_name_that_no_job_has_is_found() {
        let policy = policy(&["deploy=play,aply=ignore"]);
        let jobs = [job("deploy: [eu]", false), job("apply", false)];
        assert_eq!(policy.unmet(jobs.iter()), ["aply"]);
    }
}
