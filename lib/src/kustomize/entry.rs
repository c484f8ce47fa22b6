//! One entry of `images`: what it says, and where each of its fields stands in the text.

use std::ops::Range;

use serde_norway::Value;
use yaml_edit::{Mapping, YamlNode};

use super::image::ImageState;
use super::scalar::Quotes;
use super::soundness;
use crate::failure::{Failure, Result};

/// The fields this module reads, in the order in which they are written.
pub(super) const NAME: &str = "name";
pub(super) const NEW_NAME: &str = "newName";
pub(super) const NEW_TAG: &str = "newTag";
pub(super) const DIGEST: &str = "digest";
pub(super) const TAG_SUFFIX: &str = "tagSuffix";

/// An entry of `images`.
#[derive(Clone, Debug)]
pub struct ImageEntry {
    /// The line it begins on, from 1.
    pub line: usize,
    /// What it says.
    pub state: ImageState,
    /// What is put behind the tag of the manifest, where the entry has neither tag nor digest.
    pub tag_suffix: Option<String>,
    pub(super) shape: Shape,
}

/// Where an entry stands in the text.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A mapping, with its fields in their order.
    Mapping { flow: bool, fields: Vec<Field> },
    /// An alias, or a mapping with a tag: nothing to be edited in its place.
    Foreign,
}

/// A field of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    /// Without the line breaks after it.
    pub(super) value_span: Range<usize>,
    pub(super) kind: ValueKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// Plain or quoted.
    Scalar,
    /// After `|` or `>`.
    Block,
    /// Nothing at all, as in `newTag:`.
    Absent,
    /// An alias.
    Alias,
    /// A value with a tag.
    Tagged,
    /// A mapping or sequence.
    Collection,
}

impl Field {
    /// How key and value are quoted in `text`.
    pub(super) fn quotes(&self, text: &str) -> (Quotes, Quotes) {
        let value = match self.kind {
            ValueKind::Scalar => Quotes::of(&text[self.value_span.clone()]),
            _ => Quotes::None,
        };
        (Quotes::of(&text[self.key_span.clone()]), value)
    }
}

/// The span of a node, as yaml-edit gives it.
pub(super) fn span(node: &YamlNode) -> Range<usize> {
    let range = node.byte_range();
    range.start as usize..range.end as usize
}

/// The line of an offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    yaml_edit::byte_offset_to_line_column(text, offset).line
}

/// The fields of a mapping, in their order. Keys that are no scalars are left out: kustomize has none.
pub(super) fn fields(mapping: &Mapping, text: &str) -> Vec<Field> {
    mapping
        .entries()
        .filter_map(|entry| {
            let (key, value) = (entry.key_node()?, entry.value_node()?);
            let mut value_span = span(&value);
            let raw = &text[value_span.clone()];
            let kind = match &value {
                YamlNode::Scalar(scalar) if scalar.is_block() => ValueKind::Block,
                YamlNode::Scalar(_) if raw.is_empty() => ValueKind::Absent,
                YamlNode::Scalar(_) => ValueKind::Scalar,
                YamlNode::Alias(_) => ValueKind::Alias,
                YamlNode::TaggedNode(_) => ValueKind::Tagged,
                YamlNode::Mapping(_) | YamlNode::Sequence(_) => ValueKind::Collection,
            };
            value_span.end -= raw.len() - raw.trim_end().len();
            Some(Field {
                key: key.as_scalar()?.as_string(),
                key_span: span(&key),
                value_span,
                kind,
            })
        })
        .collect()
}

/// Reads the entry that begins on `line` from its node and from its value with all aliases resolved.
///
/// # Errors
/// Input (exit 3) naming file and line.
pub(super) fn read(
    node: &YamlNode,
    value: &Value,
    text: &str,
    file: &str,
    line: usize,
) -> Result<ImageEntry> {
    let mut merged = value.clone();
    let Value::Mapping(mapping) = &mut merged else {
        return Err(
            Failure::input(format!("{file}:{line}: an entry of images is not a mapping"))
                .hint("an entry reads `- name: app`, with newName, newTag and digest below"),
        );
    };
    let shape = match node {
        YamlNode::Mapping(mapping) => Shape::Mapping {
            flow: mapping.is_flow_style(),
            fields: fields(mapping, text),
        },
        _ => Shape::Foreign,
    };
    if let Shape::Mapping { fields, .. } = &shape {
        soundness::refuse_other_fields(fields, text, file)?;
    }
    // What a merge key brings in counts where nothing stands in the entry itself.
    if let Some(Value::Mapping(base)) = mapping.get("<<").cloned() {
        for (key, value) in base {
            if !mapping.contains_key(&key) {
                mapping.insert(key, value);
            }
        }
    }
    let field = |name: &str| -> Result<Option<String>> {
        let raw = || match &shape {
            Shape::Mapping { fields, .. } => fields
                .iter()
                .find(|field| field.key == name && field.kind == ValueKind::Scalar)
                .map(|field| text[field.value_span.clone()].to_owned()),
            Shape::Foreign => None,
        };
        match mapping.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            // kustomize refuses an unquoted `newTag: 1.10`; read as it stands, it can be replaced by what works.
            Some(Value::Number(number)) => Ok(Some(raw().unwrap_or_else(|| number.to_string()))),
            Some(Value::Bool(word)) => Ok(Some(raw().unwrap_or_else(|| word.to_string()))),
            Some(_) => Err(
                Failure::input(format!("{file}:{line}: {name} of an image is not text"))
                    .hint(format!("write {name} as one value")),
            ),
        }
    };
    let state = ImageState {
        name: field(NAME)?.unwrap_or_default(),
        new_name: field(NEW_NAME)?,
        tag: field(NEW_TAG)?,
        digest: field(DIGEST)?,
    };
    let tag_suffix = field(TAG_SUFFIX)?;
    Ok(ImageEntry {
        line,
        state,
        tag_suffix,
        shape,
    })
}
