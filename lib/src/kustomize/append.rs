//! A new entry at the end of `images`, in the style of the file.

use std::ops::Range;

use super::document::{Edit, Images, Kustomization, Root};
use super::entry::{DIGEST, NAME, NEW_NAME, NEW_TAG, Shape};
use super::image::{ImageState, check_repository};
use super::proof;
use super::scalar::{self, Quotes};
use crate::failure::{Failure, Result};

impl Kustomization {
    /// Adds an entry that says `new`.
    pub(super) fn append(&self, new: &ImageState) -> Result<Edit> {
        check_repository(&new.name)?;
        let text = match &self.images {
            Images::Sequence {
                flow: true,
                span,
                items,
            } => self.flow_item_added(span, items, &self.flow_entry(new)),
            Images::Sequence {
                flow: false, items, ..
            } => self.block_item_added(items, new)?,
            Images::Absent { key } => {
                let lines = self.block_lines(new, self.usual_indent(), "- ");
                self.with_splices([self.line_after(key.end, &lines)])
            }
            Images::Missing => self.images_added(new),
        };
        let cannot = || {
            Failure::input(format!("{}: an entry cannot be added to this file", self.file))
                .hint("add the entry by hand, or write images as a plain block list")
        };
        let edited =
            Kustomization::parse(&self.file, text.as_bytes()).map_err(|failure| cannot().because(failure))?;
        proof::appended(&self.value, &edited.value, new)
            .map_err(|difference| cannot().because(difference))?;
        Ok(Edit {
            text,
            old: None,
            new: new.clone(),
            notes: Vec::new(),
        })
    }

    fn flow_item_added(&self, list: &Range<usize>, items: &[Range<usize>], entry: &str) -> String {
        let Some(last) = items.last() else {
            return self.spliced(list.start + 1..list.start + 1, entry);
        };
        // On one line, or one item a line, as the list is.
        let lead = &self.text[list.start + 1..items[0].start];
        let separator = if lead.contains('\n') && lead.trim().is_empty() {
            format!(",{lead}")
        } else {
            ", ".to_owned()
        };
        self.spliced(last.end..last.end, &format!("{separator}{entry}"))
    }

    fn block_item_added(&self, items: &[Range<usize>], new: &ImageState) -> Result<String> {
        let (last, entry) = items
            .last()
            .zip(self.images().last())
            .ok_or_else(|| Failure::internal(format!("{}: a block list without an item", self.file)))?;
        let line_start = self.line_start(last.start);
        let line = &self.text[line_start..last.start];
        // `- &anchor name: app` and a dash on a line of its own have no gap worth copying.
        let (indent, dash) = match line.split_once('-') {
            Some((indent, gap)) if indent.trim().is_empty() && gap.trim().is_empty() => {
                (indent.len(), format!("-{gap}"))
            }
            _ => (self.usual_indent(), "- ".to_owned()),
        };
        let end = last.start + self.text[last.clone()].trim_end().len();
        let flow = matches!(entry.shape, Shape::Mapping { flow: true, .. });
        let lines = if flow {
            format!("{}{dash}{}", " ".repeat(indent), self.flow_entry(new))
        } else {
            self.block_lines(new, indent, &dash)
        };
        Ok(self.with_splices([self.line_after(end, &lines)]))
    }

    fn images_added(&self, new: &ImageState) -> String {
        if let Root::Mapping { flow: true, fields } = &self.root {
            let (quotes, end) = fields.last().map_or((Quotes::None, None), |last| {
                (last.quotes(&self.text).0, Some(last.value_span.end))
            });
            let images = format!(
                "{}: [{}]",
                scalar::write("images", quotes, quotes, true),
                self.flow_entry(new)
            );
            return match end {
                Some(end) => self.spliced(end..end, &format!(", {images}")),
                None => {
                    let at = self.text.find('{').map_or(0, |at| at + 1);
                    self.spliced(at..at, &images)
                }
            };
        }
        let eol = self.line_break();
        let lines = format!("images:{eol}{}", self.block_lines(new, self.usual_indent(), "- "));
        if let Some(end) = self.document_end() {
            return self.spliced(end..end, &format!("{lines}{eol}"));
        }
        if self.text.is_empty() || self.text.ends_with('\n') {
            return format!("{}{lines}{eol}", self.text);
        }
        format!("{}{eol}{lines}", self.text)
    }

    /// `- name: app` and the fields below it, without a line break at the end.
    fn block_lines(&self, new: &ImageState, indent: usize, dash: &str) -> String {
        let eol = self.line_break();
        let below = " ".repeat(indent + dash.len());
        let fields: Vec<String> = written(new)
            .map(|(key, value)| {
                format!(
                    "{key}: {}",
                    scalar::write(value, Quotes::None, Quotes::Double, false)
                )
            })
            .collect();
        format!(
            "{}{dash}{}",
            " ".repeat(indent),
            fields.join(&format!("{eol}{below}"))
        )
    }

    /// `{name: app}`, or `{"name": "app"}` in a file that is JSON.
    fn flow_entry(&self, new: &ImageState) -> String {
        let quotes = match &self.root {
            Root::Mapping { fields, .. } => fields
                .first()
                .map_or(Quotes::None, |first| first.quotes(&self.text).0),
            Root::Empty => Quotes::None,
        };
        let fields: Vec<String> = written(new)
            .map(|(key, value)| {
                let key = scalar::write(key, quotes, quotes, true);
                format!("{key}: {}", scalar::write(value, quotes, Quotes::Double, true))
            })
            .collect();
        format!("{{{}}}", fields.join(", "))
    }

    /// How far the file's other lists at the top level are indented.
    fn usual_indent(&self) -> usize {
        let Root::Mapping { fields, .. } = &self.root else {
            return 0;
        };
        fields
            .iter()
            .find_map(|field| {
                let value = &self.text[field.value_span.clone()];
                let start = self.line_start(field.value_span.start);
                let lead = &self.text[start..field.value_span.start];
                (value.starts_with("- ") && lead.trim().is_empty()).then_some(lead.len())
            })
            .unwrap_or(0)
    }
}

/// The fields that have a value, in the order in which kustomize writes them.
fn written(state: &ImageState) -> impl Iterator<Item = (&'static str, &str)> {
    [
        (NAME, Some(state.name.as_str())),
        (NEW_NAME, state.new_name.as_deref()),
        (NEW_TAG, state.tag.as_deref()),
        (DIGEST, state.digest.as_deref()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
}
