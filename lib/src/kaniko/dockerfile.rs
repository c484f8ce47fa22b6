//! The base images that a Dockerfile names.
//!
//! Source: Dockerfile reference, sections "FROM", "Understand how ARG and FROM interact", "Parser directives" and
//! "Line continuation". Only what decides a base image is read; everything else is the builder's.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use crate::bounded;
use crate::failure::{Failure, Kind, Result};

/// Larger than any Dockerfile, in bytes.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// One `FROM` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The line it stands on, counted from 1.
    pub line: usize,
    /// What it builds on.
    pub base: Base,
    /// The name behind `AS`.
    pub name: Option<String>,
    /// The value of `--platform`.
    pub platform: Option<String>,
}

/// What a stage builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// An image of a registry, as written, with arguments filled in.
    Image(String),
    /// An earlier stage of the same file.
    Stage(String),
    /// Nothing.
    Scratch,
}

/// Reads the stages of the Dockerfile at `path`. `build_args` override the defaults of `ARG` lines.
///
/// # Errors
/// Input (exit 3), naming file and line, when there is no `FROM`, one is malformed, or an argument has no value.
pub fn read(path: &Path, build_args: &BTreeMap<String, String>) -> Result<Vec<Stage>> {
    let shown = path.display().to_string();
    let text = bounded::read_text(path, SIZE_LIMIT).map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::InvalidData | ErrorKind::FileTooLarge => Kind::Input,
            _ => Kind::Usage,
        };
        Failure::new(kind, format!("cannot read the Dockerfile {shown}"))
            .because(error)
            .hint("pass its path as --dockerfile (TOWPATH_DOCKERFILE)")
    })?;
    parse(&text, &shown, build_args)
}

/// Reads the stages of a Dockerfile's text. `shown` names it in messages. See [`read`].
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, shown: &str, build_args: &BTreeMap<String, String>) -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for (line, instruction) in instructions(text) {
        let mut words = instruction.split_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            // Only the arguments before the first FROM are visible to FROM lines.
            "ARG" if stages.is_empty() => {
                for word in words {
                    let (name, default) = word.split_once('=').unwrap_or((word, ""));
                    let default = default.trim_matches(['"', '\'']);
                    let value = build_args
                        .get(name)
                        .map_or_else(|| expand(default, &values), |v| Ok(v.clone()));
                    values.insert(name.to_owned(), value.unwrap_or_default());
                }
            }
            "FROM" => {
                let at = |message: String| Failure::input(format!("{shown}, line {line}: {message}"));
                let mut platform = None;
                let mut rest = Vec::new();
                for word in words {
                    match word.strip_prefix("--platform=") {
                        Some(value) => platform = Some(expand_known(value, &values)),
                        None => rest.push(word),
                    }
                }
                let (image, name) = match rest[..] {
                    [image] => (image, None),
                    [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                        (image, Some(name.to_owned()))
                    }
                    _ => return Err(at("FROM takes an image and perhaps AS and a name".to_owned())),
                };
                let image = expand(image, &values).map_err(|name| {
                    at(format!("the argument {name} has no value"))
                        .hint(format!("pass --build-arg {name}=VALUE"))
                })?;
                if image.is_empty() {
                    return Err(at("FROM names no image".to_owned()));
                }
                let is_stage = stages.iter().any(|stage| {
                    stage
                        .name
                        .as_deref()
                        .is_some_and(|name| name.eq_ignore_ascii_case(&image))
                });
                let base = match image {
                    image if is_stage => Base::Stage(image),
                    image if image == "scratch" => Base::Scratch,
                    image => Base::Image(image),
                };
                stages.push(Stage {
                    line,
                    base,
                    name,
                    platform,
                });
            }
            _ => {}
        }
    }
    if stages.is_empty() {
        return Err(Failure::input(format!("{shown} has no FROM line")));
    }
    Ok(stages)
}

/// Joins continued lines and drops comments; gives each instruction with the line it begins on. Bodies of
/// here-documents are skipped: a `FROM` in them is not one.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut instructions = Vec::new();
    let mut escape = '\\';
    let mut only_directives = true;
    let mut current: Option<(usize, String)> = None;
    let mut heredocs: Vec<(String, bool)> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        if let Some((delimiter, strip_tabs)) = heredocs.first() {
            let line = if *strip_tabs {
                raw.trim_start_matches('\t')
            } else {
                raw
            };
            if line == delimiter {
                heredocs.remove(0);
            }
            continue;
        }
        let line = raw.trim();
        if let Some(comment) = line.strip_prefix('#') {
            if only_directives
                && let Some((name, value)) = comment.split_once('=')
                && name.trim().eq_ignore_ascii_case("escape")
                && value.trim() == "`"
            {
                escape = '`';
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        only_directives = false;
        let (part, continues) = match line.strip_suffix(escape) {
            Some(part) => (part, true),
            None => (line, false),
        };
        let (start, mut so_far) = current.take().unwrap_or((index + 1, String::new()));
        so_far.push_str(part);
        if continues {
            so_far.push(' ');
            current = Some((start, so_far));
        } else {
            heredocs = here_documents(&so_far);
            instructions.push((start, so_far));
        }
    }
    instructions.extend(current);
    instructions
}

/// The delimiters of here-documents that an instruction opens: `<<EOF`, `<<-"EOF"`.
fn here_documents(instruction: &str) -> Vec<(String, bool)> {
    let keyword = instruction
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return Vec::new();
    }
    instruction
        .split_whitespace()
        .filter_map(|word| {
            word.trim_start_matches(|c: char| c.is_ascii_digit())
                .strip_prefix("<<")
        })
        .map(|word| match word.strip_prefix('-') {
            Some(word) => (word, true),
            None => (word, false),
        })
        .map(|(word, strip)| (word.trim_matches(['"', '\'']).to_owned(), strip))
        .filter(|(word, _)| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .collect()
}

/// Fills in `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; fails with the name that has no value.
fn expand(text: &str, values: &BTreeMap<String, String>) -> std::result::Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (expression, after) = match rest.strip_prefix('{') {
            Some(inner) => match inner.split_once('}') {
                Some(split) => split,
                None => return Err(inner.to_owned()),
            },
            None => {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        rest = after;
        let (name, alternative) = match expression.find(":-").or_else(|| expression.find(":+")) {
            Some(at) => (
                &expression[..at],
                Some((&expression[at..at + 2], &expression[at + 2..])),
            ),
            None => (expression, None),
        };
        let value = values.get(name).filter(|value| !value.is_empty());
        match (value, alternative) {
            (Some(_), Some((":+", other))) => expanded.push_str(other),
            (None, Some((":+", _))) => {}
            (Some(value), _) => expanded.push_str(value),
            (None, Some((_, default))) => expanded.push_str(default),
            (None, None) => return Err(name.to_owned()),
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// As [`expand`], but leaves alone what it does not know: builders define platform arguments of their own.
fn expand_known(text: &str, values: &BTreeMap<String, String>) -> String {
    expand(text, values).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(text: &str, build_args: &[(&str, &str)]) -> Vec<String> {
        let build_args = build_args
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        parse(text, "Dockerfile", &build_args)
            .unwrap()
            .into_iter()
            .map(|stage| match stage.base {
                Base::Image(image) => image,
                Base::Stage(name) => format!("(stage {name})"),
                Base::Scratch => "(scratch)".to_owned(),
            })
            .collect()
    }

    #[test]
    fn stages_scratch_and_platforms_are_told_apart() {
        let text = "# syntax=docker/dockerfile:1\n\
            FROM --platform=$BUILDPLATFORM rust:1.95 AS Build\nRUN make\n\
            FROM build as test\nfrom scratch\nCOPY --from=build /a /a\n";
        assert_eq!(bases(text, &[]), ["rust:1.95", "(stage build)", "(scratch)"]);
    }

    #[test]
    fn arguments_have_defaults_and_can_be_overridden() {
        let text = "ARG BASE=debian\nARG TAG=\"12\"\nFROM ${BASE}:${TAG:-11}\nARG TAG=9\nFROM alpine:$TAG\n";
        assert_eq!(bases(text, &[]), ["debian:12", "alpine:12"]);
        assert_eq!(bases(text, &[("TAG", "13")]), ["debian:13", "alpine:13"]);
    }

    #[test]
    fn continuations_comments_and_here_documents_do_not_confuse() {
        let text = "FROM \\\n  # a comment in between\n  debian:12\nRUN <<EOF\nFROM evil\nEOF\nCOPY <<-'A' <<B /x/\nFROM x\n\tA\nFROM y\nB\n";
        assert_eq!(bases(text, &[]), ["debian:12"]);
    }

    #[test]
    fn what_cannot_be_known_is_refused_with_its_line() {
        for (text, expected) in [
            ("RUN true\n", "no FROM"),
            ("\nFROM $NOWHERE\n", "line 2"),
            ("FROM a b\n", "line 1"),
            ("FROM\n", "line 1"),
        ] {
            let failure = parse(text, "Dockerfile", &BTreeMap::new()).expect_err(text);
            assert!(failure.message().contains(expected), "{text:?}: {failure}");
        }
    }

    mod properties {
        use super::super::parse;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn no_text_makes_the_parser_panic(text in "(FROM|ARG|RUN|[${}:\\-+\\\\<`#\"' \n]|[a-z]){0,60}") {
                let _ = parse(&text, "Dockerfile", &std::collections::BTreeMap::new());
            }
        }
    }
}
