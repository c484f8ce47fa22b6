//! What is asked for: inputs, variables, and the key that tells one delivery from another.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use towpath::failure::{Failure, Result};
use towpath::gitlab::{NewPipeline, Project};
use towpath::handoff::{self, Handoff};
use towpath::trace::TraceParent;

use crate::args::StartArgs;

/// The variable that carries the key where no input does.
pub(crate) const KEY_VARIABLE: &str = "TOWPATH_TRIGGER_KEY";
/// GitLab's limit on inputs of one pipeline (GitLab documentation, "CI/CD inputs").
const INPUT_LIMIT: usize = 20;
/// The most one value may have, in bytes: what GitLab lets an interpolated value have (GitLab documentation, "CI/CD
/// inputs").
const VALUE_LIMIT: usize = 1024 * 1024;
/// The most a name may have, in characters.
const NAME_LIMIT: usize = 255;
/// How many hexadecimal digits of the digest make a key: enough to never meet by chance, short enough for a name.
const KEY_DIGITS: usize = 32;

/// Some named values, as one flag or one variable gives them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Given(Vec<(String, Content)>);

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Value(Value),
    /// To be taken from the handoff file.
    HandedOver,
}

/// What is to be started, and the key it is found by.
#[derive(Debug)]
pub(crate) struct Request {
    /// What GitLab is asked for, the key not yet in it.
    pub(crate) new: NewPipeline,
    /// The key; none when nothing says what is delivered.
    pub(crate) key: Option<String>,
    /// The input that carries the key; without one the variable does.
    pub(crate) key_input: Option<String>,
}

impl Request {
    /// Puts the request together from the arguments and the handoff file.
    ///
    /// # Errors
    /// Usage (exit 2) for a name given twice, too many inputs, or a value that is nowhere; not found (exit 5) or input
    /// (exit 3) when the handoff file is missing or malformed.
    pub(crate) fn new(args: &StartArgs, project: &Project, trace: &TraceParent) -> Result<Self> {
        let handoff = match &args.handoff {
            Some(path) => Handoff::read(path)?,
            None => Handoff::new(),
        };
        let inputs = resolve(&args.inputs, "--input", &handoff, trace)?;
        let variables = resolve(&args.variables, "--variable", &handoff, trace)?
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => (name, text),
                other => (name, other.to_string()),
            })
            .collect();
        let count = inputs.len() + usize::from(args.key_input.is_some());
        if count > INPUT_LIMIT {
            return Err(
                Failure::usage(format!("{count} inputs are given; GitLab takes {INPUT_LIMIT}"))
                    .hint("pass fewer --input (TOWPATH_INPUTS); several values can go into one array"),
            );
        }
        if let Some(name) = args.key_input.as_ref().filter(|name| inputs.contains_key(*name)) {
            return Err(Failure::usage(format!("the input {name} is given twice"))
                .hint("--key-input (TOWPATH_KEY_INPUT) fills it already"));
        }
        let new = NewPipeline {
            reference: args.reference.clone(),
            inputs,
            variables,
        };
        let digest = args.digest.as_deref().or(handoff.get(handoff::IMAGE_DIGEST));
        // A tag may be moved, and the commit it was on when this was built may be known alone.
        let commit = args
            .source_commit
            .as_deref()
            .or(handoff.get(handoff::SOURCE_COMMIT))
            .or(args.source_tag.as_deref());
        let source = args
            .source_project
            .as_deref()
            .or(handoff.get(handoff::SOURCE_PROJECT));
        let key = args.key.clone().or_else(|| {
            (digest.is_some() || commit.is_some()).then(|| derive_key(source, commit, digest, project, &new))
        });
        Ok(Request {
            new,
            key,
            key_input: args.key_input.clone(),
        })
    }

    /// What GitLab is asked for, with the key in it where it can be found again: always in an input that was made for
    /// it, in the variable only when `can_look`, since some projects refuse variables.
    pub(crate) fn with_key(&self, can_look: bool) -> NewPipeline {
        let mut new = self.new.clone();
        if let Some(key) = &self.key {
            match &self.key_input {
                Some(name) => {
                    new.inputs.insert(name.clone(), key.as_str().into());
                }
                None if can_look => {
                    new.variables.insert(KEY_VARIABLE.to_owned(), key.clone());
                }
                None => {}
            }
        }
        new
    }
}

/// Parses `NAME=STRING`, `NAME:=JSON` or `NAME`, one a line; blank lines are nothing, so that a block of YAML fits.
///
/// # Errors
/// A sentence for clap to show.
pub(crate) fn parse_inputs(text: &str) -> Result<Given, String> {
    parse_lines(text, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// As [`parse_inputs`], with the narrower names of variables.
///
/// # Errors
/// A sentence for clap to show.
pub(crate) fn parse_variables(text: &str) -> Result<Given, String> {
    parse_lines(text, |c| c.is_ascii_alphanumeric() || c == '_')
}

/// Parses the name of an input.
///
/// # Errors
/// A sentence for clap to show.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    match parse_inputs(text)?.0.as_slice() {
        [(name, Content::HandedOver)] => Ok(name.clone()),
        _ => Err("expected the name of one input".to_owned()),
    }
}

/// Parses a key: it has to survive in a variable, an input and a name.
///
/// # Errors
/// A sentence for clap to show.
pub(crate) fn parse_key(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@');
    // A short key would be found inside other pipelines' names.
    if (8..=128).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("expected 8 to 128 letters, digits or any of - _ . : / @".to_owned())
}

fn parse_lines(text: &str, in_name: fn(char) -> bool) -> Result<Given, String> {
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.trim().is_empty());
    let given = lines
        .map(|line| parse_line(line, in_name))
        .collect::<Result<Vec<_>, _>>()?;
    if given.is_empty() {
        return Err("expected NAME=VALUE".to_owned());
    }
    Ok(Given(given))
}

fn parse_line(line: &str, in_name: fn(char) -> bool) -> Result<(String, Content), String> {
    let end = line.find(|c| !in_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return Err(format!("expected NAME=VALUE, got {line:?}"));
    }
    if name.len() > NAME_LIMIT {
        return Err(format!(
            "a name has {} characters; GitLab takes {NAME_LIMIT}",
            name.len()
        ));
    }
    if rest.len() > VALUE_LIMIT {
        return Err(format!(
            "the value of {name} has {} bytes; GitLab takes {VALUE_LIMIT}",
            rest.len()
        ));
    }
    let content = if let Some(value) = rest.strip_prefix('=') {
        Content::Value(value.into())
    } else if let Some(json) = rest.strip_prefix(":=") {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| format!("the value of {name} is not JSON: {error}"))?;
        if value.is_null() || value.is_object() {
            return Err(format!(
                "{name} has to be a string, a number, a boolean or an array"
            ));
        }
        Content::Value(value)
    } else if rest.trim().is_empty() {
        Content::HandedOver
    } else {
        return Err(format!("{line:?} does not start with a name and `=` or `:=`"));
    };
    Ok((name.to_owned(), content))
}

/// What is expected of the result: what was given, by name out of the handoff file where it has no value, and the digest
/// that is delivered where nothing was given.
///
/// # Errors
/// Usage (exit 2) for a name given twice or a value that is nowhere; not found (exit 5) or input (exit 3) when the handoff
/// file is missing or malformed.
pub(crate) fn expected(
    given: &[Given],
    start: &StartArgs,
    trace: &TraceParent,
) -> Result<BTreeMap<String, String>> {
    let mut handoff = match &start.handoff {
        Some(path) => Handoff::read(path)?,
        None => Handoff::new(),
    };
    if let (None, Some(digest)) = (handoff.get(handoff::IMAGE_DIGEST), &start.digest) {
        handoff.set(handoff::IMAGE_DIGEST, digest)?;
    }
    if given.is_empty() {
        let digest = handoff.get(handoff::IMAGE_DIGEST);
        return Ok(digest
            .map(|digest| (handoff::IMAGE_DIGEST.to_owned(), digest.to_owned()))
            .into_iter()
            .collect());
    }
    let expected = resolve(given, "--expect", &handoff, trace)?;
    Ok(expected
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
        .collect())
}

fn resolve(
    given: &[Given],
    flag: &str,
    handoff: &Handoff,
    trace: &TraceParent,
) -> Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    for (name, content) in given.iter().flat_map(|given| &given.0) {
        let value = match content {
            Content::Value(value) => value.clone(),
            Content::HandedOver => handed_over(name, flag, handoff, trace)?,
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(Failure::usage(format!("{flag} gives {name} twice")).hint("give each name one value"));
        }
    }
    Ok(values)
}

fn handed_over(name: &str, flag: &str, handoff: &Handoff, trace: &TraceParent) -> Result<Value> {
    let variable = name.to_ascii_uppercase().replace('-', "_");
    if let Some(value) = handoff.get(&variable) {
        return Ok(value.into());
    }
    if variable == handoff::TRACEPARENT {
        return Ok(trace.to_string().into());
    }
    Err(Failure::usage(format!(
        "{flag} {name} has no value, and no handoff holds {variable}"
    ))
    .hint(format!(
        "write {flag} {name}=VALUE, or give the file that holds {variable} by --handoff (TOWPATH_HANDOFF)"
    )))
}

/// The same delivery gives the same key, whichever attempt of whichever job asks: so nothing about the attempt (its
/// pipeline, job, time or trace) goes into it.
fn derive_key(
    source: Option<&str>,
    commit: Option<&str>,
    digest: Option<&str>,
    project: &Project,
    new: &NewPipeline,
) -> String {
    let is_trace = |name: &str| name.eq_ignore_ascii_case(handoff::TRACEPARENT);
    let inputs: BTreeMap<_, _> = new.inputs.iter().filter(|(name, _)| !is_trace(name)).collect();
    let variables: BTreeMap<_, _> = new.variables.iter().filter(|(name, _)| !is_trace(name)).collect();
    let material = json!([
        source,
        commit,
        digest,
        project.to_string(),
        new.reference,
        inputs,
        variables
    ]);
    let mut key: String = Sha256::digest(material.to_string())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    key.truncate(KEY_DIGITS);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Vec<Given> {
        vec![parse_inputs(text).unwrap()]
    }

    fn trace() -> TraceParent {
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            .parse()
            .unwrap()
    }

    #[test]
    fn values_are_strings_unless_marked_as_json() {
        let values = resolve(
            &given("name=a=b, c\ncount:=3\n\n  flag:=true\nlist:=[\"x\",1]\nempty=\n"),
            "--input",
            &Handoff::new(),
            &trace(),
        )
        .unwrap();
        assert_eq!(
            json!(values),
            json!({"count": 3, "empty": "", "flag": true, "list": ["x", 1], "name": "a=b, c"})
        );
    }

    #[test]
    fn malformed_values_are_refused() {
        for wrong in ["", "\n", "=1", "a b=1", "a:=", "a:={}", "a:=null", "a:1", "ä=1"] {
            assert!(parse_inputs(wrong).is_err(), "{wrong:?} was accepted");
        }
        assert!(parse_variables("a-b=1").is_err());
        assert!(parse_inputs(&format!("a={}", "x".repeat(VALUE_LIMIT))).is_err());
        assert!(parse_inputs(&format!("{}=1", "n".repeat(NAME_LIMIT + 1))).is_err());
        for wrong in ["", "short", "with space in it", "with\nnewline"] {
            assert!(parse_key(wrong).is_err(), "{wrong:?} was accepted");
        }
        assert!(parse_name("a=1").is_err());
    }

    #[test]
    fn a_name_alone_takes_the_handoff_and_then_the_trace() {
        let mut handoff = Handoff::new();
        handoff.set("IMAGE_DIGEST", "sha256:abc").unwrap();
        let values = resolve(&given("image_digest\ntraceparent"), "--input", &handoff, &trace()).unwrap();
        assert_eq!(values["image_digest"], "sha256:abc");
        assert_eq!(values["traceparent"], trace().to_string());
        let missing = resolve(&given("image_tag"), "--input", &handoff, &trace()).unwrap_err();
        assert!(missing.message().contains("IMAGE_TAG"));
        assert!(resolve(&given("a=1\na=2"), "--input", &handoff, &trace()).is_err());
    }

    #[test]
    fn the_key_follows_what_is_delivered_and_not_the_attempt() {
        let project: Project = "group/env".parse().unwrap();
        let new = |pairs: &[(&str, &str)]| NewPipeline {
            reference: "main".to_owned(),
            inputs: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect(),
            variables: BTreeMap::new(),
        };
        let key = |commit, pairs: &[(&str, &str)]| {
            derive_key(Some("group/image"), commit, None, &project, &new(pairs))
        };
        let one = key(Some("c1"), &[("a", "1"), ("traceparent", "x")]);
        assert_eq!(one.len(), KEY_DIGITS);
        assert!(parse_key(&one).is_ok());
        assert_eq!(one, key(Some("c1"), &[("a", "1"), ("traceparent", "y")]));
        assert_ne!(one, key(Some("c1"), &[("a", "2"), ("traceparent", "x")]));
        assert_ne!(one, key(Some("c2"), &[("a", "1"), ("traceparent", "x")]));
    }
}
