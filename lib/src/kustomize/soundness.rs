//! What is refused before anything is read from a file: text on which readers of YAML disagree, so that what is edited
//! here would not be what kustomize builds.
//!
//! Each refusal was seen with `kubectl kustomize` 5.5: it matches field names in any case (Go's encoding/json,
//! "Unmarshal"), takes the last of two equal keys, reads `imageTags` as `images`, and ends a line at every line break
//! of YAML 1.1, also in the middle of a comment.

use yaml_edit::YamlNode;

use super::document::Root;
use super::entry::{DIGEST, Field, NAME, NEW_NAME, NEW_TAG, TAG_SUFFIX, line_of};
use crate::failure::{Failure, Result};

/// The fields of an entry as kustomize names them.
const ENTRY_FIELDS: [&str; 5] = [NAME, NEW_NAME, NEW_TAG, DIGEST, TAG_SUFFIX];

/// Refuses characters that YAML forbids, and line breaks that only some readers know.
pub(super) fn refuse_odd_characters(text: &str, file: &str) -> Result<()> {
    let mut line = 1;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let what = match character {
            '\n' => {
                line += 1;
                continue;
            }
            '\r' if characters.peek() == Some(&'\n') => continue,
            '\r' => "a carriage return without a line feed".to_owned(),
            '\u{85}' | '\u{2028}' | '\u{2029}' => {
                format!("the line break U+{:04X}", u32::from(character))
            }
            '\t' => continue,
            // YAML 1.2.2, section 5.1.
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                format!("the control character U+{:04X}", u32::from(character))
            }
            _ => continue,
        };
        return Err(Failure::input(format!("{file}:{line}: {what}"))
            .hint("readers of YAML do not agree on it; take it out, and end lines as other files do"));
    }
    Ok(())
}

/// Refuses directives but `%YAML 1.1`: kustomize takes no other version, and passes over what it does not know no more.
pub(super) fn refuse_directives(text: &str, file: &str) -> Result<()> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('%') {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["%YAML", "1.1"] | ["%YAML", "1.1", "#", ..] = words[..] {
                continue;
            }
            let number = index + 1;
            return Err(Failure::input(format!("{file}:{number}: the directive {line}"))
                .hint("take the line out: a kustomization needs none, and kustomize takes no YAML but 1.1"));
        }
        // They stand before the document begins: what comes later is content, be it of a text of several lines.
        if !line.trim().is_empty() && !line.starts_with('#') {
            break;
        }
    }
    Ok(())
}

/// Refuses a key that stands twice in one mapping.
pub(super) fn refuse_duplicate_keys(node: &YamlNode, text: &str, file: &str) -> Result<()> {
    match node {
        YamlNode::Mapping(mapping) => {
            let mut seen: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
            for entry in mapping.entries() {
                if let Some(YamlNode::Scalar(key)) = entry.key_node() {
                    let at = key.byte_range().start as usize;
                    let key = key.as_string();
                    if let Some(first) = seen.get(&key) {
                        let (first, line) = (line_of(text, *first), line_of(text, at));
                        return Err(Failure::input(format!(
                            "{file}:{line}: the key {key} stands on line {first} already"
                        ))
                        .hint("remove one of the two"));
                    }
                    seen.insert(key, at);
                }
                if let Some(value) = entry.value_node() {
                    refuse_duplicate_keys(&value, text, file)?;
                }
            }
        }
        YamlNode::Sequence(sequence) => {
            for value in sequence.values() {
                refuse_duplicate_keys(&value, text, file)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Refuses keys at the top that kustomize takes for `images` although they read otherwise.
pub(super) fn refuse_other_images(root: &Root, text: &str, file: &str) -> Result<()> {
    let Root::Mapping { fields, .. } = root else {
        return Ok(());
    };
    refuse_other_spelling(fields, &["images"], text, file)?;
    match fields.iter().find(|field| field.key == "imageTags") {
        Some(field) => {
            let line = line_of(text, field.key_span.start);
            Err(
                Failure::input(format!("{file}:{line}: imageTags is an old name of images"))
                    .hint("rename it, or run `kustomize edit fix`"),
            )
        }
        None => Ok(()),
    }
}

/// Refuses fields of an entry that kustomize takes for others.
pub(super) fn refuse_other_fields(fields: &[Field], text: &str, file: &str) -> Result<()> {
    refuse_other_spelling(fields, &ENTRY_FIELDS, text, file)
}

fn refuse_other_spelling(fields: &[Field], known: &[&str], text: &str, file: &str) -> Result<()> {
    for field in fields {
        let meant = known
            .iter()
            .find(|known| field.key != **known && folded(&field.key) == folded(known));
        if let Some(meant) = meant {
            let line = line_of(text, field.key_span.start);
            return Err(Failure::input(format!(
                "{file}:{line}: kustomize reads the key {} as {meant}",
                field.key
            ))
            .hint(format!("write {meant}")));
        }
    }
    Ok(())
}

/// As Go compares field names: the long s and the Kelvin sign are letters of ASCII to it.
fn folded(key: &str) -> String {
    key.replace('\u{17f}', "s")
        .replace('\u{212a}', "k")
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::document::Kustomization;
    use crate::failure::Kind;

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let failure = Kustomization::parse("k.yaml", text.as_bytes()).expect_err(text);
        assert_eq!(failure.kind(), Kind::Input, "{text:?}: {failure}");
        assert!(
            failure.message().contains(words),
            "{words:?} is not in {failure} for {text:?}"
        );
        assert!(failure.next_action().is_some(), "{text:?}: {failure}");
    }

    #[test]
    fn text_that_kustomize_reads_otherwise_is_refused_with_its_line() {
        let hidden = "images: [{name: app, newTag: evil}]\n";
        for (character, words) in [
            ('\u{2028}', "k.yaml:2: the line break U+2028"),
            ('\u{2029}', "k.yaml:2: the line break U+2029"),
            ('\u{85}', "k.yaml:2: the line break U+0085"),
            ('\r', "k.yaml:2: a carriage return"),
            ('\0', "k.yaml:2: the control character U+0000"),
            ('\u{7f}', "k.yaml:2: the control character U+007F"),
            ('\u{fffe}', "k.yaml:2: the control character U+FFFE"),
        ] {
            refused(&format!("resources: []\n# c {character}{hidden}"), words);
        }
        refused(
            &format!("namespace: x\nI{}", &hidden[1..]),
            "k.yaml:2: kustomize reads the key Images as images",
        );
        refused(&hidden.replace("images", "image\u{17f}"), "as images");
        refused(&hidden.replace("images", "imageTags"), "k.yaml:1: imageTags");
        refused(
            "images:\n- name: app\n  newTag: v1\n  newtag: v2\n",
            "k.yaml:4: kustomize reads the key newtag as newTag",
        );
        refused(&hidden.replace("name", "NAME"), "as name");
        refused(&format!("{hidden}images: []\n"), "k.yaml:2: the key images");
        for directive in ["%YAML 1.2", "%FOO bar", "%TAG ! tag:example.com,2000:"] {
            refused(
                &format!("# shop\n{directive}\n---\n{hidden}"),
                "k.yaml:2: the directive %",
            );
        }
        let fine = format!("%YAML 1.1\n---\n{hidden}# %YAML 1.2\nnote: |\n%YAML 1.2\n");
        assert!(super::refuse_directives(&fine, "k.yaml").is_ok());
        assert!(Kustomization::parse("k.yaml", "\u{feff}images: []\r\n# \u{a0}\t\r\n".as_bytes()).is_ok());
    }
}
