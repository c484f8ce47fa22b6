//! Where the instructions of a Dockerfile write, as far as its text tells.
//!
//! Source: Dockerfile reference, sections "COPY", "ADD", "WORKDIR", "ENV", "ARG" and "Environment replacement". What depends on
//! the base image (its working folder, its variables) or on the builder's own arguments is not known, and nothing is said
//! of it.

use std::collections::BTreeMap;

use super::Stage;
use super::expansion::{default_value, expand_known};
use super::lines::Instructions;
use super::words::{self, Words};

/// An instruction that writes to the image's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) line: usize,
    /// The stage it belongs to, by its place.
    pub(super) stage: usize,
    pub(super) to: To,
}

/// What is known of where it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// `COPY` or `ADD`, to this absolute path.
    Copied(String, String),
    /// `WORKDIR`, which makes this folder.
    Folder(String),
    /// `RUN`: its text, here-documents among it, says what it names and not what it does to that.
    Step(String),
}

/// What is known inside of a stage.
#[derive(Clone, Debug, Default)]
struct Inside {
    /// The values of `ENV`, which stages on top of this one have, too.
    environment: BTreeMap<String, String>,
    /// The values of `ARG` and, over those, of `ENV`.
    values: BTreeMap<String, String>,
    /// The working folder; none when only the base image knows it.
    folder: Option<String>,
}

/// A file, and the arguments that it is built with.
pub(super) struct File<'a> {
    pub(super) text: &'a str,
    pub(super) read: &'a Instructions,
    pub(super) stages: &'a [Stage],
    /// The values of the `ARG` lines before the first stage.
    pub(super) global: &'a BTreeMap<String, String>,
    pub(super) build_args: &'a BTreeMap<String, String>,
}

/// Goes through the instructions of a file.
pub(super) fn writes(file: &File<'_>) -> Vec<Write> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    let mut insides: Vec<Inside> = Vec::new();
    for instruction in &file.read.all {
        let words = words::split(&instruction.text, file.read.escape);
        if words.keyword == "FROM" {
            let Some(stage) = file.stages.get(insides.len()) else {
                break;
            };
            insides.push(on_top_of(stage, &insides));
            continue;
        }
        let stage = insides.len().wrapping_sub(1);
        // What ONBUILD holds back is for another build.
        let Some(inside) = insides.last_mut().filter(|_| !words.held_back) else {
            continue;
        };
        let to = match words.keyword.as_str() {
            "RUN" => {
                let body = lines.get(instruction.body.clone()).unwrap_or_default();
                Some(To::Step([&[instruction.text.as_str()], body].concat().join("\n")))
            }
            _ => inside.take(file, &instruction.text[words.arguments..], &words),
        };
        let line = instruction.line();
        found.extend(to.map(|to| Write { line, stage, to }));
    }
    found
}

fn on_top_of(stage: &Stage, earlier: &[Inside]) -> Inside {
    let Some(base) = stage.base.and_then(|place| earlier.get(place)) else {
        return Inside {
            folder: stage.is_empty.then(|| "/".to_owned()),
            ..Inside::default()
        };
    };
    Inside {
        environment: base.environment.clone(),
        values: base.environment.clone(),
        folder: base.folder.clone(),
    }
}

impl Inside {
    fn take(&mut self, file: &File<'_>, arguments: &str, words: &Words) -> Option<To> {
        let plain = || words::plain(arguments, file.read.escape);
        match words.keyword.as_str() {
            "ARG" => {
                for word in arguments.split_whitespace() {
                    self.take_argument(word, file);
                }
                None
            }
            "ENV" => {
                self.take_environment(&plain());
                None
            }
            "WORKDIR" => {
                self.folder = self.path(&plain().join(" "));
                self.folder.clone().map(To::Folder)
            }
            "COPY" | "ADD" => {
                let listed = serde_json::from_str(arguments.trim());
                let listed: Vec<String> = listed.unwrap_or_else(|_| plain());
                match listed.as_slice() {
                    [_, .., target] => Some(To::Copied(words.keyword.clone(), self.path(target)?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn take_argument(&mut self, word: &str, file: &File<'_>) {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, default_value(default, &self.values)),
            None => (word, file.global.get(word).cloned()),
        };
        if self.environment.contains_key(name) {
            return;
        }
        match file.build_args.get(name).cloned().or(default) {
            Some(value) => self.values.insert(name.to_owned(), value),
            None => self.values.remove(name),
        };
    }

    fn take_environment(&mut self, words: &[String]) {
        let pairs: Vec<(String, String)> = match words {
            [first, rest @ ..] if !first.contains('=') => vec![(first.clone(), rest.join(" "))],
            words => words
                .iter()
                .filter_map(|word| word.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        };
        // All values of one line are filled in with what was before it.
        let before = self.values.clone();
        for (name, value) in pairs {
            let value = expand_known(&value, &before);
            self.environment.insert(name.clone(), value.clone());
            self.values.insert(name, value);
        }
    }

    /// The absolute path of what is written, links aside; none when its beginning is not known.
    fn path(&self, written: &str) -> Option<String> {
        let path = expand_known(written, &self.values);
        let whole = match path.strip_prefix('/') {
            Some(_) => path,
            None if path.is_empty() || path.starts_with('$') => return None,
            None => format!("{}/{path}", self.folder.as_deref()?),
        };
        Some(without_dots(&whole))
    }
}

fn without_dots(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a path is this folder, or is in it.
pub(super) fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a text names this folder, or something in it, as a path of its own.
pub(super) fn names(text: &str, folder: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.match_indices(folder).any(|(at, _)| {
        !text[..at].ends_with(|c| goes_on(c) || c == '/') && !text[at + folder.len()..].starts_with(goes_on)
    })
}
