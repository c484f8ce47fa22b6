//! Whether kustomize will do what an edited file says: text that it refuses, names that mean more than they say, and
//! entries that undo one another.

use super::document::{Images, Kustomization};
use super::entry::{
    DIGEST, Field, ImageEntry, NAME, NEW_NAME, NEW_TAG, Shape, TAG_SUFFIX, ValueKind, line_of,
};
use super::image::ImageState;
use super::reference::{NamePattern, Reference, is_plain};
use super::scalar::{self, Quotes};
use crate::failure::{Failure, Result};

impl Kustomization {
    /// Checks the list as it is once entry `index`, or a new one at its end, says `new`. Gives what a person should
    /// know about it.
    ///
    /// # Errors
    /// Input (exit 3) naming file and line: a value that is no text to kustomize, a name at which it panics, an entry
    /// that changes the image again.
    pub(super) fn check_effect(&self, index: Option<usize>, new: &ImageState) -> Result<Vec<String>> {
        let entries = self.images();
        for (at, entry) in entries.iter().enumerate() {
            self.refuse_other_types(entry, (index == Some(at)).then_some(new))?;
        }
        let patterns: Vec<NamePattern> = entries
            .iter()
            .map(|entry| {
                NamePattern::compile(&entry.state.name).ok_or_else(|| {
                    Failure::input(format!(
                        "{}:{}: the name {} is not a regular expression, which kustomize takes it for",
                        self.file, entry.line, entry.state.name
                    ))
                    .hint("name the image as the manifests do")
                })
            })
            .collect::<Result<_>>()?;
        let mut notes = Vec::new();
        if is_plain(&new.name) {
            self.refuse_undone(&patterns, index, new)?;
        } else if let Some(entry) = index.map(|index| &entries[index]) {
            notes.push(format!(
                "{}:{}: the name {} is a regular expression: every image that it matches changes",
                self.file, entry.line, entry.state.name
            ));
        }
        if let Some(entry) = index.map(|index| &entries[index])
            && let Some(suffix) = &entry.tag_suffix
            && (new.tag.is_some() || new.digest.is_some())
        {
            notes.push(format!(
                "{}:{}: the tagSuffix {suffix} of image {} counts only where there is neither newTag nor digest",
                self.file, entry.line, new.name
            ));
        }
        Ok(notes)
    }

    /// Refuses values that are numbers or booleans to kustomize, unless they are replaced by `new`.
    fn refuse_other_types(&self, entry: &ImageEntry, new: Option<&ImageState>) -> Result<()> {
        let Shape::Mapping { fields, .. } = &entry.shape else {
            return Ok(());
        };
        let replaced = |field: &Field| {
            let Some(new) = new else { return false };
            match field.key.as_str() {
                NEW_NAME => new.new_name != entry.state.new_name,
                NEW_TAG => new.tag != entry.state.tag,
                DIGEST => new.digest != entry.state.digest,
                _ => false,
            }
        };
        for field in fields {
            let known = [NAME, NEW_NAME, NEW_TAG, DIGEST, TAG_SUFFIX].contains(&field.key.as_str());
            let plain = field.kind == ValueKind::Scalar && field.quotes(&self.text).1 == Quotes::None;
            if !known || !plain || replaced(field) {
                continue;
            }
            let value = &self.text[field.value_span.clone()];
            if let Some(what) = scalar::refused_by_kustomize(value) {
                let line = line_of(&self.text, field.key_span.start);
                return Err(Failure::input(format!(
                    "{}:{line}: the {} {value} is {what} to kustomize, which refuses the file",
                    self.file, field.key
                ))
                .hint(format!("put it into quotes: {}: \"{value}\"", field.key)));
            }
        }
        Ok(())
    }

    /// Refuses a list whose other entries keep this one from deciding about its image.
    fn refuse_undone(&self, patterns: &[NamePattern], index: Option<usize>, new: &ImageState) -> Result<()> {
        let mut reference = Reference::bare(&new.name);
        let mut undone_by = None;
        let mut decided = false;
        for (at, (entry, pattern)) in self.images().iter().zip(patterns).enumerate() {
            if !pattern.matches(&reference.to_string()) {
                continue;
            }
            if index == Some(at) {
                reference.apply(new, entry.tag_suffix.as_deref());
                decided = true;
                continue;
            }
            let before = reference.clone();
            reference.apply(&entry.state, entry.tag_suffix.as_deref());
            if reference != before && (decided || reference.name != before.name) {
                undone_by = Some(entry);
            }
        }
        if index.is_none()
            && NamePattern::compile(&new.name).is_some_and(|name| name.matches(&reference.to_string()))
        {
            reference.apply(new, None);
        }
        let Some(entry) = undone_by.filter(|_| !reference.is(new)) else {
            return Ok(());
        };
        Err(Failure::input(format!(
            "{}:{}: the entry {} here changes image {} too, so that it would not be what was asked for",
            self.file, entry.line, entry.state.name, new.name
        ))
        .hint("name that entry instead, or take it out"))
    }

    /// The entries that kustomize applies to `name` although they are named otherwise.
    pub(super) fn entries_that_match(&self, name: &str) -> Vec<&ImageEntry> {
        match &self.images {
            Images::Sequence { .. } => self
                .images()
                .iter()
                .filter(|entry| entry.state.name != name)
                .filter(|entry| {
                    NamePattern::compile(&entry.state.name).is_some_and(|pattern| pattern.matches(name))
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::Pin;
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn set(list: &str, spec: &str) -> Result<Vec<String>> {
        let text = format!("images:\n{list}");
        let kustomization = Kustomization::parse("k.yaml", text.as_bytes())?;
        let spec = format!("{spec}@{DIGEST}").parse()?;
        Ok(kustomization.set(&spec, Pin::Digest, false)?.notes)
    }

    #[track_caller]
    fn refused(list: &str, spec: &str, words: &str) {
        let failure = set(list, spec).expect_err(list);
        assert!(failure.message().contains(words), "{words:?} is not in {failure}");
    }

    #[test]
    fn entries_that_undo_one_another_are_refused() {
        refused(
            "- {name: app, newName: web}\n- {name: web, newTag: v2}\n",
            "app",
            "k.yaml:3: the entry web here changes image app too",
        );
        refused(
            "- {name: app}\n- {name: .*, newTag: v2}\n",
            "app",
            "k.yaml:3: the entry .*",
        );
        refused(
            "- {name: a.*, newName: web}\n- {name: app}\n",
            "app",
            "k.yaml:2: the entry a.*",
        );
        assert!(set("- {name: .*, newTag: v2}\n- {name: app}\n", "app").is_ok());
        assert!(
            set(
                "- {name: web, newTag: v2}\n- {name: app, newName: web-2}\n",
                "app"
            )
            .is_ok()
        );
    }

    #[test]
    fn what_kustomize_refuses_is_refused_unless_it_is_what_changes() {
        refused(
            "- {name: app}\n- {name: web, newTag: 1.10}\n",
            "app",
            "k.yaml:3: the newTag 1.10 is a number to kustomize",
        );
        refused("- {name: app}\n- {name: web, newTag: on}\n", "app", "a boolean");
        refused(
            "- {name: app}\n- {name: web(}\n",
            "app",
            "k.yaml:3: the name web( is not a regular",
        );
        assert!(set("- {name: app, newTag: 1.10}\n", "app").is_ok());
        assert!(set("- {name: app}\n- {name: web, newTag: \"1.10\"}\n", "app").is_ok());
        let unchanged = "- {name: app, newTag: 1.10}\n";
        refused(unchanged, "app:1.10", "k.yaml:2: the newTag 1.10");
    }

    #[test]
    fn what_a_person_should_know_is_told() {
        let notes = set("- name: app\n  tagSuffix: -x\n", "app").unwrap();
        assert!(
            notes[0].starts_with("k.yaml:2: the tagSuffix -x of image app"),
            "{notes:?}"
        );
        let notes = set("- name: app|web\n", "app|web").unwrap();
        assert!(
            notes[0].starts_with("k.yaml:2: the name app|web is a regular"),
            "{notes:?}"
        );
        let failure = set("- name: app|web\n", "web").unwrap_err();
        let hint = failure.next_action().unwrap();
        assert!(hint.contains("the name app|web on line 2 matches it"), "{hint}");
    }
}
