//! A kustomization file, parsed with the span of everything that may be edited.

use std::ops::Range;

use serde_norway::Value;
use yaml_edit::{SyntaxKind, YamlFile, YamlNode};

use super::entry::{self, Field, ImageEntry, line_of};
use super::image::{ImageSpec, ImageState, Pin};
use super::soundness;
use crate::failure::{Failure, Result};

/// The names under which kustomize looks for its file.
pub const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// No kustomization that people write is anywhere near this many bytes, and one that is would hold a run up for minutes.
const SIZE_LIMIT: usize = 1024 * 1024;

/// The files that may hold the kustomization of `path`: a folder, or the file itself.
#[must_use]
pub fn file_candidates(path: &str) -> Vec<String> {
    if FILE_NAMES.contains(&path.rsplit('/').next().unwrap_or(path)) {
        return vec![path.to_owned()];
    }
    FILE_NAMES
        .iter()
        .map(|name| match path {
            "" | "." => (*name).to_owned(),
            path => format!("{path}/{name}"),
        })
        .collect()
}

/// A parsed kustomization file.
#[derive(Clone, Debug)]
pub struct Kustomization {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) value: Value,
    pub(super) root: Root,
    pub(super) images: Images,
    entries: Vec<ImageEntry>,
    pub(super) marks: Vec<Mark>,
}

/// What stands at the top of the file.
#[derive(Clone, Debug)]
pub(super) enum Root {
    /// Nothing but comments.
    Empty,
    /// A mapping.
    Mapping { flow: bool, fields: Vec<Field> },
}

/// What `images` is.
#[derive(Clone, Debug)]
pub(super) enum Images {
    Missing,
    /// `images:` with nothing after it.
    Absent {
        key: Range<usize>,
    },
    Sequence {
        flow: bool,
        span: Range<usize>,
        items: Vec<Range<usize>>,
    },
}

/// An anchor, alias or merge key, or the end of the document.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) kind: SyntaxKind,
    pub(super) at: usize,
    pub(super) name: String,
}

/// The outcome of an edit.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The whole file after the edit.
    pub text: String,
    /// What the entry said before; none when it was added.
    pub old: Option<ImageState>,
    /// What it says now.
    pub new: ImageState,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

impl Edit {
    /// Whether anything changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.old.as_ref() != Some(&self.new)
    }
}

impl Kustomization {
    /// Parses a file; `file` is its name for messages.
    ///
    /// # Errors
    /// Input (exit 3) naming file and line: not UTF-8, not YAML, several documents, duplicate keys, tabs, a top level
    /// or an `images` of the wrong type; a file of more than 1 MiB.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > SIZE_LIMIT {
            return Err(Failure::input(format!(
                "{file} has {} bytes; a kustomization has {SIZE_LIMIT} at most",
                bytes.len()
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            Failure::input(format!("{file}:{line}: not UTF-8"))
        })?;
        soundness::refuse_odd_characters(text, file)?;
        soundness::refuse_directives(text, file)?;
        let parsed = YamlFile::parse(text);
        let tree = parsed.tree();
        let documents: Vec<_> = tree.documents().collect();
        if let Some(second) = documents.get(1) {
            let line = second.start_position(text).line;
            return Err(Failure::input(format!("{file}:{line}: a second document begins"))
                .hint("kustomize reads the first one alone; split the file"));
        }
        let root = documents.first().and_then(|document| document.as_mapping());
        if let Some(root) = &root {
            soundness::refuse_duplicate_keys(&YamlNode::Mapping(root.clone()), text, file)?;
        }
        // Two readers have to agree on the file: one that knows where things stand, and one that is strict.
        let value = value_of(text, file)?;
        if let Some(error) = parsed.positioned_errors().first() {
            let line = error.start_position(text).line;
            return Err(Failure::input(format!("{file}:{line}: {}", error.message)));
        }
        let root = match (root, &value) {
            (None, Value::Null) => Root::Empty,
            (Some(mapping), Value::Mapping(_)) => Root::Mapping {
                flow: mapping.is_flow_style(),
                fields: entry::fields(&mapping, text),
            },
            _ => {
                return Err(Failure::input(format!("{file}:1: not a mapping"))
                    .hint("a kustomization is a mapping with keys such as resources and images"));
            }
        };
        soundness::refuse_other_images(&root, text, file)?;
        let mut document = Kustomization {
            file: file.to_owned(),
            text: text.to_owned(),
            value,
            root,
            images: Images::Missing,
            entries: Vec::new(),
            marks: marks(text),
        };
        let images = documents
            .first()
            .and_then(|document| document.as_mapping())
            .and_then(|root| root.entries().find(|entry| entry.key_matches("images")))
            .and_then(|entry| entry.value_node());
        if let Some(images) = images {
            document.read_images(&images)?;
        }
        // Where a value before them has an odd tag, one of the two readers takes the key for a part of it.
        let strictly = match document.value.get("images") {
            Some(Value::Sequence(images)) => images.len(),
            _ => 0,
        };
        if strictly != document.entries.len() {
            return Err(
                Failure::input(format!("{file}:1: readers of YAML do not agree on images"))
                    .hint("is there a tag, such as !x, before it? Take it out"),
            );
        }
        Ok(document)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The entries of `images`, in their order.
    #[must_use]
    pub fn images(&self) -> &[ImageEntry] {
        &self.entries
    }

    /// The entry whose `name` or `newName` is `name`.
    ///
    /// # Errors
    /// Input (exit 3) with the lines when several entries are.
    pub fn find(&self, name: &str) -> Result<Option<&ImageEntry>> {
        Ok(self.position(name)?.map(|index| &self.entries[index]))
    }

    /// Changes an image as `spec` wishes. `add` says whether one that is not there may be added.
    ///
    /// # Errors
    /// Usage (exit 2) when the wish says too little for the policy; not found (exit 5) when there is no such image;
    /// input (exit 3) naming file and line when the file cannot be edited without touching more.
    pub fn set(&self, spec: &ImageSpec, pin: Pin, add: bool) -> Result<Edit> {
        spec.check(pin)?;
        let Some(index) = self.position(&spec.name)? else {
            if !add {
                return Err(self.unknown(&spec.name));
            }
            let target = spec.target(None, pin);
            let notes = self.check_effect(None, &target)?;
            return Ok(Edit {
                notes,
                ..self.append(&target)?
            });
        };
        self.set_entry(index, spec, pin)
    }

    /// Changes entry `index` as `spec` wishes, whatever name the wish has.
    ///
    /// # Errors
    /// As [`Kustomization::set`].
    pub fn set_entry(&self, index: usize, spec: &ImageSpec, pin: Pin) -> Result<Edit> {
        let target = spec.target(Some(&self.entries[index].state), pin);
        let notes = self.check_effect(Some(index), &target)?;
        Ok(Edit {
            notes,
            ..self.replace(index, &target)?
        })
    }

    /// Makes an entry say exactly what `target` says; the entry is found by `target.name`.
    ///
    /// # Errors
    /// As [`Kustomization::set`].
    pub fn restore(&self, target: &ImageState) -> Result<Edit> {
        let index = self
            .position(&target.name)?
            .ok_or_else(|| self.unknown(&target.name))?;
        self.replace(index, target)
    }

    fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self
            .entries
            .iter()
            .map(|entry| entry.state.name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let matching: String = self
            .entries_that_match(name)
            .into_iter()
            .map(|entry| {
                format!(
                    "; the name {} on line {} matches it as a regular expression",
                    entry.state.name, entry.line
                )
            })
            .collect();
        Failure::not_found(format!("{}: no image {name}", self.file))
            .hint(format!("images here: {known}{matching}; --add appends an entry"))
    }

    fn position(&self, name: &str) -> Result<Option<usize>> {
        let matches =
            |entry: &ImageEntry| entry.state.name == name || entry.state.new_name.as_deref() == Some(name);
        let found: Vec<usize> = (0..self.entries.len())
            .filter(|index| matches(&self.entries[*index]))
            .collect();
        match found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [first, second, ..] => {
                let (first, second) = (self.entries[first].line, self.entries[second].line);
                Err(Failure::input(format!(
                    "{}:{second}: image {name} is meant by this entry and by the one on line {first}",
                    self.file
                ))
                .hint("name the entry by a `name` that no other one has, or remove the duplicate"))
            }
        }
    }

    pub(super) fn spliced(&self, span: Range<usize>, by: &str) -> String {
        let mut text = self.text.clone();
        text.replace_range(span, by);
        text
    }

    /// The line break that the file uses.
    pub(super) fn line_break(&self) -> &'static str {
        match self.text.find('\n') {
            Some(at) if self.text[..at].ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    pub(super) fn line_start(&self, offset: usize) -> usize {
        self.text[..offset].rfind('\n').map_or(0, |at| at + 1)
    }

    /// After the line break of the line that `offset` is on.
    pub(super) fn line_end(&self, offset: usize) -> usize {
        self.text[offset..]
            .find('\n')
            .map_or(self.text.len(), |at| offset + at + 1)
    }

    /// Where the document ends by `...`, if it does.
    pub(super) fn document_end(&self) -> Option<usize> {
        self.marks
            .iter()
            .find(|mark| mark.kind == SyntaxKind::DOC_END)
            .map(|mark| mark.at)
    }
}

impl Kustomization {
    fn read_images(&mut self, images: &YamlNode) -> Result<()> {
        let value = self.value.get("images").cloned().unwrap_or(Value::Null);
        let span = entry::span(images);
        let wrong = |what: &str| {
            let line = line_of(&self.text, span.start);
            Err(Failure::input(format!("{}:{line}: images is {what}", self.file))
                .hint("images is a list of entries: `- name: app`"))
        };
        match (images, &value) {
            (YamlNode::Sequence(sequence), Value::Sequence(values)) => {
                if sequence.values().count() != values.len() {
                    return wrong("a list that cannot be followed");
                }
                // Lines are counted once for all entries, and no node is held longer than it takes to read it: both
                // would take time that grows with the square of a list's length.
                let breaks: Vec<usize> = self.text.match_indices('\n').map(|(at, _)| at).collect();
                let mut items = Vec::with_capacity(values.len());
                let mut entries = Vec::with_capacity(values.len());
                for (node, value) in sequence.values().zip(values) {
                    let item = entry::span(&node);
                    let line = breaks.partition_point(|at| *at < item.start) + 1;
                    entries.push(entry::read(&node, value, &self.text, &self.file, line)?);
                    items.push(item);
                }
                let flow = sequence.is_flow_style();
                self.entries = entries;
                self.images = Images::Sequence { flow, span, items };
                Ok(())
            }
            (YamlNode::Scalar(_), Value::Null) if span.is_empty() => {
                let key = match &self.root {
                    Root::Mapping { fields, .. } => fields.iter().find(|field| field.key == "images"),
                    Root::Empty => None,
                };
                self.images = Images::Absent {
                    key: key.map_or(span, |field| field.key_span.clone()),
                };
                Ok(())
            }
            (YamlNode::Alias(_), _) => wrong("an alias"),
            (YamlNode::TaggedNode(_), _) => wrong("a value with a tag"),
            _ => wrong("not a list"),
        }
    }
}

fn marks(text: &str) -> Vec<Mark> {
    let mut at = 0;
    let mut marks = Vec::new();
    for (kind, token) in yaml_edit::lex(text) {
        if matches!(
            kind,
            SyntaxKind::ANCHOR | SyntaxKind::REFERENCE | SyntaxKind::MERGE_KEY | SyntaxKind::DOC_END
        ) {
            let name = token.trim_start_matches(['&', '*']).to_owned();
            marks.push(Mark { kind, at, name });
        }
        at += token.len();
    }
    marks
}

/// The values in a text, as the strict reader sees them.
pub(super) fn value_of(text: &str, file: &str) -> Result<Value> {
    let without_mark = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_norway::from_str(without_mark).map_err(|error| malformed(file, text, &error))
}

fn malformed(file: &str, text: &str, error: &serde_norway::Error) -> Failure {
    let Some(location) = error.location() else {
        return Failure::input(format!("{file}: {error}"));
    };
    let line = location.line();
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let indentation = &source[..source.len() - source.trim_start().len()];
    if indentation.contains('\t') {
        return Failure::input(format!("{file}:{line}: indented with a tab"))
            .hint("YAML is indented with spaces alone");
    }
    Failure::input(format!("{file}:{line}: {error}"))
}
