//! Changing one entry: one splice for each field, then the proof.

use std::ops::Range;

use yaml_edit::SyntaxKind;

use super::document::{Edit, Images, Kustomization, Mark, Root, value_of};
use super::entry::{DIGEST, Field, NAME, NEW_NAME, NEW_TAG, Shape, ValueKind, line_of};
use super::image::ImageState;
use super::proof;
use super::scalar::{self, Quotes};
use crate::failure::{Failure, Result};

/// A part of the text, and what takes its place.
#[derive(Clone, Debug)]
pub(super) struct Splice {
    span: Range<usize>,
    by: String,
}

impl Splice {
    pub(super) fn new(span: Range<usize>, by: String) -> Self {
        Splice { span, by }
    }
}

impl Kustomization {
    /// Makes entry `index` say exactly what `target` says.
    pub(super) fn replace(&self, index: usize, target: &ImageState) -> Result<Edit> {
        let old = self.images()[index].state.clone();
        if old == *target {
            return Ok(Edit {
                text: self.text.clone(),
                old: Some(old),
                new: target.clone(),
                notes: Vec::new(),
            });
        }
        self.refuse_shared(index)?;
        let wanted = [
            (NEW_NAME, &old.new_name, &target.new_name),
            (NEW_TAG, &old.tag, &target.tag),
            (DIGEST, &old.digest, &target.digest),
        ];
        let mut splices = Vec::new();
        for (key, _, value) in wanted {
            if let Some(value) = value {
                splices.extend(self.field_set(index, key, value)?);
            }
        }
        let mut text = self.with_splices(splices);
        // A removal may meet what was set beside it: for each of them the spans are read anew.
        // A field without a value, such as `digest: ""`, says nothing that would have to go.
        for (key, old, value) in wanted {
            if old.is_some() && value.is_none() && self.has_field(index, key) {
                let current = Kustomization::parse(&self.file, text.as_bytes())
                    .map_err(|failure| self.cannot_edit(index).because(failure))?;
                text = current.with_splices(current.field_removed(index, key));
            }
        }
        let edited =
            value_of(&text, &self.file).map_err(|failure| self.cannot_edit(index).because(failure))?;
        proof::replaced(&self.value, &edited, index, &old, target)
            .map_err(|difference| self.cannot_edit(index).because(difference))?;
        Ok(Edit {
            text,
            old: Some(old),
            new: target.clone(),
            notes: Vec::new(),
        })
    }

    /// The fields of an entry that stand in its place, and whether in flow style.
    fn fields_of(&self, index: usize) -> Option<(&[Field], bool)> {
        match &self.images()[index].shape {
            Shape::Mapping { flow, fields } => Some((fields, *flow)),
            Shape::Foreign => None,
        }
    }

    fn has_field(&self, index: usize, key: &str) -> bool {
        self.fields_of(index)
            .is_some_and(|(fields, _)| fields.iter().any(|field| field.key == key))
    }

    /// What sets one field of one entry; none when it says so already.
    fn field_set(&self, index: usize, key: &str, value: &str) -> Result<Option<Splice>> {
        let (fields, flow) = self.fields_of(index).ok_or_else(|| self.cannot_edit(index))?;
        let state = &self.images()[index].state;
        let now = match key {
            NEW_NAME => &state.new_name,
            NEW_TAG => &state.tag,
            _ => &state.digest,
        };
        if now.as_deref() == Some(value) {
            return Ok(None);
        }
        if let Some(field) = fields.iter().find(|field| field.key == key) {
            return self.with_value(index, field, value, flow).map(Some);
        }
        let earlier: &[&str] = match key {
            NEW_NAME => &[NAME],
            NEW_TAG => &[NAME, NEW_NAME],
            _ => &[NAME, NEW_NAME, NEW_TAG],
        };
        let before = fields
            .iter()
            .rposition(|field| earlier.contains(&field.key.as_str()))
            .unwrap_or(fields.len() - 1);
        Ok(Some(self.with_field_after(fields, before, key, value, flow)))
    }

    /// What removes one field of one entry.
    fn field_removed(&self, index: usize, key: &str) -> Option<Splice> {
        let (fields, flow) = self.fields_of(index)?;
        let at = fields.iter().position(|field| field.key == key)?;
        Some(self.without_field(fields, at, flow))
    }

    fn with_value(&self, index: usize, field: &Field, value: &str, flow: bool) -> Result<Splice> {
        let line = line_of(&self.text, field.key_span.start);
        let (_, quotes) = field.quotes(&self.text);
        match field.kind {
            ValueKind::Scalar => {
                let written = scalar::write(
                    value,
                    quotes,
                    self.usual_quotes(index),
                    flow && !self.plain_colon(field),
                );
                Ok(Splice::new(field.value_span.clone(), written))
            }
            ValueKind::Absent => {
                let colon = self.text[field.key_span.end..]
                    .find(':')
                    .map_or(field.key_span.end, |at| field.key_span.end + at + 1);
                let written = scalar::write(value, quotes, self.usual_quotes(index), flow);
                Ok(Splice::new(colon..colon, format!(" {written}")))
            }
            ValueKind::Block => {
                let raw = &self.text[field.value_span.clone()];
                let span = self.block_content(field).ok_or_else(|| {
                    Failure::input(format!(
                        "{}:{line}: {} has a value of several lines",
                        self.file, field.key
                    ))
                    .hint("write the value on one line")
                })?;
                if !raw.lines().next().unwrap_or_default().contains('-') {
                    return Err(Failure::input(format!(
                        "{}:{line}: the value of {} ends with a line break",
                        self.file, field.key
                    ))
                    .hint("write it on one line, or with |- or >-"));
                }
                Ok(Splice::new(span, value.to_owned()))
            }
            ValueKind::Alias | ValueKind::Tagged | ValueKind::Collection => {
                let what = match field.kind {
                    ValueKind::Alias => "an alias",
                    ValueKind::Tagged => "a value with a tag",
                    _ => "a collection",
                };
                Err(
                    Failure::input(format!("{}:{line}: {} is {what}", self.file, field.key))
                        .hint("write the value itself in its place"),
                )
            }
        }
    }

    /// Whether a colon stands in a plain scalar of a flow collection already, so that its readers can bear it.
    fn plain_colon(&self, field: &Field) -> bool {
        self.text[field.value_span.clone()].contains(':')
    }

    /// The one line of content of a block scalar.
    fn block_content(&self, field: &Field) -> Option<Range<usize>> {
        let raw = &self.text[field.value_span.clone()];
        let body = raw.find('\n')? + 1;
        let content = raw[body..].trim();
        if content.is_empty() || content.contains('\n') {
            return None;
        }
        let start = field.value_span.start + body + (raw[body..].len() - raw[body..].trim_start().len());
        Some(start..start + content.len())
    }

    /// The quotes that the entry's other values have, for a value that cannot stand without.
    fn usual_quotes(&self, index: usize) -> Quotes {
        match &self.images()[index].shape {
            Shape::Mapping { fields, .. } => fields
                .iter()
                .map(|field| field.quotes(&self.text).1)
                .find(|quotes| *quotes != Quotes::None)
                .unwrap_or(Quotes::Double),
            Shape::Foreign => Quotes::Double,
        }
    }

    /// A new field after field `before`, in the style of its neighbours.
    fn with_field_after(
        &self,
        fields: &[Field],
        before: usize,
        key: &str,
        value: &str,
        flow: bool,
    ) -> Splice {
        let anchor = &fields[before];
        let (key_quotes, anchor_quotes) = anchor.quotes(&self.text);
        let all_quoted = fields
            .iter()
            .all(|field| field.quotes(&self.text).1 != Quotes::None);
        let value_quotes = if all_quoted { anchor_quotes } else { Quotes::None };
        let key = scalar::write(key, key_quotes, Quotes::Double, flow);
        let value = scalar::write(value, value_quotes, Quotes::Double, flow);
        if flow {
            let gap = &self.text[anchor.key_span.end..anchor.value_span.start];
            let colon = if gap.trim() == ":" && !gap.contains('\n') {
                gap
            } else {
                ": "
            };
            let field = format!("{key}{colon}{value}");
            let end = anchor.value_span.end;
            // One field a line, each with its comma and perhaps a comment: the new line goes below them.
            if let (Some(indent), Some(next)) = (self.own_line(anchor), self.line_after_comma(anchor)) {
                return Splice::new(next..next, format!("{indent}{field},{}", self.line_break()));
            }
            let separator = before
                .checked_sub(1)
                .map(|earlier| &self.text[fields[earlier].value_span.end..anchor.key_span.start])
                .filter(|gap| gap.trim() == ",")
                .unwrap_or(", ");
            return Splice::new(end..end, format!("{separator}{field}"));
        }
        let column = self.text[self.line_start(anchor.key_span.start)..anchor.key_span.start]
            .chars()
            .count();
        self.line_after(
            anchor.value_span.end,
            &format!("{}{key}: {value}", " ".repeat(column)),
        )
    }

    fn without_field(&self, fields: &[Field], at: usize, flow: bool) -> Splice {
        let field = &fields[at];
        let next = fields.get(at + 1);
        if flow {
            // A line of its own goes with its comment, and no other comment does.
            if let (Some(_), Some(after)) = (self.own_line(field), self.line_after_comma(field)) {
                return Splice::new(self.line_start(field.key_span.start)..after, String::new());
            }
            // Between the one before and this one there may be a comment on the one before, which stays.
            if let Some(span) = self.last_of_its_lines(fields, at) {
                return Splice::new(span, String::new());
            }
            let span = match (at.checked_sub(1), next) {
                (Some(earlier), _) => fields[earlier].value_span.end..field.value_span.end,
                (None, Some(next)) => field.key_span.start..next.key_span.start,
                (None, None) => field.key_span.start..field.value_span.end,
            };
            return Splice::new(span, String::new());
        }
        let end = self.line_end(field.value_span.end);
        if at == 0 {
            // The dash stays, and what follows moves up to it.
            let rest = &self.text[end..];
            let start_of_rest = end + (rest.len() - rest.trim_start().len());
            return Splice::new(field.key_span.start..start_of_rest, String::new());
        }
        let start = self.line_start(field.key_span.start);
        if end == self.text.len() && !self.text.ends_with('\n') {
            // The file had no final line break, and still has none.
            let kept = self.text[..start].trim_end_matches(['\r', '\n']).len();
            return Splice::new(kept..end, String::new());
        }
        Splice::new(start..end, String::new())
    }

    /// What goes with a field of a flow mapping that begins its line and has no comma after it: the line, where it has
    /// its comma before it, or where the one above has a comment. That one keeps its own comma, which YAML allows.
    fn last_of_its_lines(&self, fields: &[Field], at: usize) -> Option<Range<usize>> {
        let field = &fields[at];
        let before = &self.text[fields[at.checked_sub(1)?].value_span.end..field.key_span.start];
        let start = self.line_start(field.key_span.start);
        let comma_before = match self.text[start..field.key_span.start].trim() {
            "," => true,
            "" if before.contains('#') && at + 1 == fields.len() => false,
            _ => return None,
        };
        let end = self.line_end(field.value_span.end);
        let rest = self.text[field.value_span.end..end].trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            return Some(start..end);
        }
        let stays_on_the_line = !comma_before && !rest.starts_with(',');
        stays_on_the_line.then_some(field.key_span.start..field.value_span.end)
    }

    /// The indentation of a field that begins its line.
    fn own_line(&self, field: &Field) -> Option<&str> {
        let lead = &self.text[self.line_start(field.key_span.start)..field.key_span.start];
        lead.trim().is_empty().then_some(lead)
    }

    /// Where the next line begins, when nothing but a comma and perhaps a comment follows a field on its own.
    fn line_after_comma(&self, field: &Field) -> Option<usize> {
        let end = self.line_end(field.value_span.end);
        let rest = self.text[field.value_span.end..end]
            .trim_start()
            .strip_prefix(',')?;
        let comment = rest.trim_start();
        let alone = comment.is_empty() || (comment.starts_with('#') && comment.len() < rest.len());
        (alone && self.text[..end].ends_with('\n')).then_some(end)
    }

    /// What puts `line` after the line that `offset` is on.
    pub(super) fn line_after(&self, offset: usize, line: &str) -> Splice {
        let end = self.line_end(offset);
        let eol = self.line_break();
        if self.text[..end].ends_with('\n') {
            Splice::new(end..end, format!("{line}{eol}"))
        } else {
            Splice::new(end..end, format!("{eol}{line}"))
        }
    }

    /// The text with splices that do not overlap. Where two begin at the same place, the earlier one comes first.
    pub(super) fn with_splices(&self, splices: impl IntoIterator<Item = Splice>) -> String {
        let mut splices: Vec<Splice> = splices.into_iter().collect();
        splices.sort_by_key(|splice| splice.span.start);
        let mut text = String::with_capacity(self.text.len() + 256);
        let mut at = 0;
        for Splice { span, by } in splices {
            text.push_str(&self.text[at..span.start]);
            text.push_str(&by);
            at = span.end;
        }
        text.push_str(&self.text[at..]);
        text
    }

    fn cannot_edit(&self, index: usize) -> Failure {
        Failure::input(format!(
            "{}:{}: this entry cannot be edited without changing more than it",
            self.file,
            self.images()[index].line
        ))
        .hint("write the entry as a plain block mapping, then try again")
    }

    /// Refuses an entry whose change would show elsewhere, or whose content comes from elsewhere.
    fn refuse_shared(&self, index: usize) -> Result<()> {
        let Images::Sequence { items, span, .. } = &self.images else {
            return Ok(());
        };
        let item = &items[index];
        let refuse = |line: usize, what: &str| {
            Err(Failure::input(format!("{}:{line}: {what}", self.file))
                .hint("write the entry out in full, without anchors, aliases and merge keys"))
        };
        let inside: Vec<&Mark> = self.marks.iter().filter(|mark| item.contains(&mark.at)).collect();
        for mark in &inside {
            let line = line_of(&self.text, mark.at);
            match mark.kind {
                SyntaxKind::REFERENCE => {
                    return refuse(line, &format!("the entry uses the alias {}", mark.name));
                }
                SyntaxKind::MERGE_KEY => return refuse(line, "the entry uses a merge key"),
                _ => {}
            }
        }
        // An anchor on the entry, on `images` or on the whole file stands before the entry's first field.
        let before = index
            .checked_sub(1)
            .map_or(span.start, |earlier| items[earlier].end);
        let containing = |mark: &Mark| {
            let of_entry = (before..item.start).contains(&mark.at);
            let of_images = self
                .images_key()
                .is_some_and(|key| (key.end..span.start).contains(&mark.at));
            let of_root = self.first_key().is_some_and(|first| mark.at < first);
            of_entry || of_images || of_root || item.contains(&mark.at)
        };
        for anchor in self
            .marks
            .iter()
            .filter(|mark| mark.kind == SyntaxKind::ANCHOR && containing(mark))
        {
            let alias = self
                .marks
                .iter()
                .find(|mark| mark.kind == SyntaxKind::REFERENCE && mark.name == anchor.name);
            if let Some(alias) = alias {
                let (line, used) = (line_of(&self.text, anchor.at), line_of(&self.text, alias.at));
                return refuse(
                    line,
                    &format!("the anchor {} is used on line {used}", anchor.name),
                );
            }
        }
        Ok(())
    }

    fn images_key(&self) -> Option<Range<usize>> {
        let Root::Mapping { fields, .. } = &self.root else {
            return None;
        };
        fields
            .iter()
            .find(|field| field.key == "images")
            .map(|field| field.key_span.clone())
    }

    fn first_key(&self) -> Option<usize> {
        let Root::Mapping { fields, .. } = &self.root else {
            return None;
        };
        fields.first().map(|field| field.key_span.start)
    }
}
