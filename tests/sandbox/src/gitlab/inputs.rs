//! Pipeline inputs: the `spec:inputs` header of a CI/CD configuration, and the values given for it.
//!
//! Checked as GitLab checks them when a pipeline is created: at most 20 values, no unknown ones, none missing, and
//! each of its type, among its options and matching its regex. gitlab-ci-local takes no inputs for the file it
//! starts from but uses the header's defaults; so the checked values become the defaults of a copy of the file.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_norway::{Mapping, Value as Yaml};

/// The most inputs one pipeline takes.
const MAX_INPUTS: usize = 20;

/// The configuration with the given values in place, or what is wrong with them, in GitLab's words.
pub(super) fn with_inputs(content: &str, given: &BTreeMap<String, Value>) -> Result<String, Vec<String>> {
    if given.len() > MAX_INPUTS {
        return Err(vec![format!("There cannot be more than {MAX_INPUTS} inputs")]);
    }
    let values = checked_inputs(content, given)?;
    let Some((header, body)) = split_header(content) else {
        return Ok(content.to_owned());
    };
    let mut header: Mapping = serde_norway::from_str(header).map_err(|error| vec![error.to_string()])?;
    let specs = header
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("inputs"))
        .and_then(Yaml::as_mapping_mut);
    for (name, spec) in specs.into_iter().flatten() {
        let Some(value) = name.as_str().and_then(|name| values.get(name)) else {
            continue;
        };
        if !spec.is_mapping() {
            *spec = Yaml::Mapping(Mapping::new());
        }
        if let Some(spec) = spec.as_mapping_mut() {
            spec.insert("default".into(), value.clone());
        }
    }
    let header = serde_norway::to_string(&header).map_err(|error| vec![error.to_string()])?;
    Ok(format!("{header}---\n{body}"))
}

/// The value of every input of a file, the defaults included, or what is wrong with the given ones.
pub(super) fn checked_inputs(
    content: &str,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Yaml>, Vec<String>> {
    let Some((header, _)) = split_header(content) else {
        return if given.is_empty() {
            Ok(BTreeMap::new())
        } else {
            Err(vec![
                "Given inputs not defined in the `spec` section of the included configuration file".into(),
            ])
        };
    };
    let header: Yaml = serde_norway::from_str(header).map_err(|error| vec![error.to_string()])?;
    let specs = header
        .get("spec")
        .and_then(|spec| spec.get("inputs"))
        .and_then(Yaml::as_mapping);
    let specs = specs.cloned().unwrap_or_default();
    let mut errors = Vec::new();
    let unknown: Vec<&str> = given
        .keys()
        .filter(|name| !specs.contains_key(name.as_str()))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        errors.push(format!("unknown input arguments: {}", unknown.join(", ")));
    }
    let mut values = BTreeMap::new();
    let plain = Mapping::new();
    for (name, spec) in &specs {
        let name = name.as_str().unwrap_or_default();
        match checked(name, spec.as_mapping().unwrap_or(&plain), given.get(name)) {
            Ok(value) => {
                values.insert(name.to_owned(), value);
            }
            Err(problem) => errors.push(format!("`{name}` input: {problem}")),
        }
    }
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(errors)
    }
}

/// What comes after the header.
pub(super) fn body(content: &str) -> &str {
    split_header(content).map_or(content, |(_, body)| body)
}

/// What `workflow:name` says, with the inputs' values in place: those that the header has as defaults by now. Variables in
/// it are left as they are.
pub(super) fn workflow_name(content: &str) -> Option<String> {
    let body: Yaml = serde_norway::from_str(body(content)).ok()?;
    let mut name = body.get("workflow")?.get("name")?.as_str()?.to_owned();
    let values = checked_inputs(content, &BTreeMap::new()).unwrap_or_default();
    for (input, value) in values {
        let value = value.as_str().map_or_else(|| plain(&value), str::to_owned);
        name = name.replace(&format!("$[[ inputs.{input} ]]"), &value);
    }
    Some(name)
}

/// Splits off a first document that has a `spec:` key.
fn split_header(content: &str) -> Option<(&str, &str)> {
    let start = match content.strip_prefix("---") {
        Some(rest) if rest.starts_with(['\n', '\r']) => content.len() - rest.len(),
        _ => 0,
    };
    let mut at = start;
    for line in content[start..].split_inclusive('\n') {
        if line.trim_end() == "---" {
            let header = &content[start..at];
            let parsed: Yaml = serde_norway::from_str(header).ok()?;
            parsed.get("spec")?;
            return Some((header, &content[at + line.len()..]));
        }
        at += line.len();
    }
    None
}

fn checked(name: &str, spec: &Mapping, given: Option<&Value>) -> Result<Yaml, String> {
    let (value, origin) = match given {
        Some(Value::Null) | None => {
            let default = spec
                .get("default")
                .ok_or("required value has not been provided")?;
            (default.clone(), "default")
        }
        Some(value) => (
            serde_norway::to_value(value).map_err(|error| error.to_string())?,
            "provided",
        ),
    };
    let kind = spec.get("type").and_then(Yaml::as_str).unwrap_or("string");
    let (value, fits) = match kind {
        "string" => {
            let fits = value.is_string();
            (value, fits)
        }
        "number" => number(value),
        "boolean" => match value.as_str() {
            // Form parameters are text; GitLab reads these two words as booleans.
            Some("true") => (Yaml::Bool(true), true),
            Some("false") => (Yaml::Bool(false), true),
            _ => {
                let fits = value.is_bool();
                (value, fits)
            }
        },
        "array" => {
            let fits = value.is_sequence();
            (value, fits)
        }
        _ => {
            return Err(format!(
                "unknown input specification for `{name}` (valid types: array, boolean, number, string)"
            ));
        }
    };
    if !fits {
        let article = if kind == "array" { "an" } else { "a" };
        return Err(format!("{origin} value is not {article} {kind}"));
    }
    if let Some(options) = spec.get("options").and_then(Yaml::as_sequence)
        && !options.contains(&value)
    {
        return Err(format!(
            "`{}` cannot be used because it is not in the list of allowed options",
            value.as_str().map_or_else(|| plain(&value), str::to_owned)
        ));
    }
    if let Some(pattern) = spec.get("regex").and_then(Yaml::as_str) {
        let pattern = regex::Regex::new(pattern).map_err(|_| "invalid regular expression")?;
        if !pattern.is_match(value.as_str().unwrap_or_default()) {
            return Err(format!("{origin} value does not match required RegEx pattern"));
        }
    }
    Ok(value)
}

fn number(value: Yaml) -> (Yaml, bool) {
    if value.is_number() {
        return (value, true);
    }
    let parsed: Option<Yaml> = value
        .as_str()
        .and_then(|text| serde_norway::from_str(text).ok())
        .filter(Yaml::is_number);
    match parsed {
        Some(number) => (number, true),
        None => (value, false),
    }
}

fn plain(value: &Yaml) -> String {
    serde_norway::to_string(value)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "spec:\n  inputs:\n    image:\n      regex: ^sha256:[0-9a-f]+$\n    env:\n      default: dev\n      options: [dev, prod]\n    count:\n      type: number\n      default: 1\n---\njob:\n  script: echo $[[ inputs.image ]]\n";

    fn check(given: &[(&str, Value)]) -> Result<String, Vec<String>> {
        with_inputs(
            FILE,
            &given
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
        )
    }

    #[test]
    fn good_values_become_the_defaults() {
        let file = check(&[("image", Value::from("sha256:ab")), ("count", 3.into())]).unwrap();
        let (header, body) = split_header(&file).unwrap();
        let header: Yaml = serde_norway::from_str(header).unwrap();
        assert_eq!(
            header["spec"]["inputs"]["image"]["default"],
            Yaml::from("sha256:ab")
        );
        assert_eq!(header["spec"]["inputs"]["count"]["default"], Yaml::from(3));
        assert_eq!(header["spec"]["inputs"]["env"]["default"], Yaml::from("dev"));
        assert_eq!(body, "job:\n  script: echo $[[ inputs.image ]]\n");
    }

    #[test]
    fn each_kind_of_bad_value_is_refused() {
        let refused = |given: &[(&str, Value)]| check(given).unwrap_err().join(", ");
        assert_eq!(
            refused(&[]),
            "`image` input: required value has not been provided"
        );
        assert!(refused(&[("image", "x".into())]).contains("does not match required RegEx pattern"));
        let good = ("image", Value::from("sha256:ab"));
        assert_eq!(
            refused(&[good.clone(), ("nope", 1.into())]),
            "unknown input arguments: nope"
        );
        assert!(refused(&[good.clone(), ("env", "qa".into())]).contains("`qa` cannot be used"));
        assert!(refused(&[good, ("count", "many".into())]).contains("provided value is not a number"));
    }

    #[test]
    fn inputs_need_a_header() {
        let given = BTreeMap::from([("a".to_owned(), Value::from("b"))]);
        assert!(
            with_inputs("job: {script: x}\n", &given).unwrap_err()[0].contains("not defined in the `spec`")
        );
        assert_eq!(
            with_inputs("job: {script: x}\n", &BTreeMap::new()).unwrap(),
            "job: {script: x}\n"
        );
    }

    #[test]
    fn a_name_takes_its_inputs() {
        let file = "spec:\n  inputs:\n    key: {default: none}\n    count: {type: number}\n---\nworkflow:\n  name: 'Deploy $[[ inputs.key ]] x $[[ inputs.count ]]'\n";
        let given = BTreeMap::from([("key".to_owned(), "k1".into()), ("count".to_owned(), 2.into())]);
        let file = with_inputs(file, &given).unwrap();
        assert_eq!(workflow_name(&file).as_deref(), Some("Deploy k1 x 2"));
        assert_eq!(workflow_name("job: {script: x}\n"), None);
    }

    #[test]
    fn more_than_twenty_are_refused() {
        let given = (0..21).map(|n| (format!("i{n}"), Value::from(n))).collect();
        assert!(with_inputs(FILE, &given).is_err());
    }
}
