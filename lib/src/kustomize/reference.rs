//! What kustomize does to an image in a manifest: which entries match it, and what they make of it.
//!
//! Source: kustomize's `api/internal/image` and `api/filters/imagetag` (5.5), each rule seen with `kubectl kustomize`:
//! the `name` of an entry is a regular expression before an optional tag and an optional `@sha256:` digest; `newTag` and
//! `digest` replace what was there of both; `tagSuffix` counts only where an entry has neither, and takes the digest
//! away; the entries of a list are applied one after the other, each to what the earlier ones made.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

use super::image::ImageState;

/// An image as a manifest names it, taken apart as kustomize does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The repository.
    pub name: String,
    /// The tag; empty for none.
    pub tag: String,
    /// The digest with its algorithm; empty for none.
    pub digest: String,
}

impl Reference {
    /// Takes a reference apart; whatever text it is, it is some name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let slash = text.find('/').filter(|at| *at > 0).unwrap_or(0);
        let (at_sign, colon) = (text[slash..].find('@'), text[slash..].find(':'));
        let cut = |at: usize| (text[..slash + at].to_owned(), text[slash + at + 1..].to_owned());
        match (at_sign, colon) {
            (None, None) => Reference::bare(text),
            (Some(at), colon) if colon.is_none_or(|colon| at < colon) => {
                let (name, digest) = cut(at);
                Reference {
                    name,
                    tag: String::new(),
                    digest,
                }
            }
            (at, Some(colon)) => {
                let (name, rest) = cut(colon);
                let (tag, digest) = match at {
                    Some(_) => rest.split_once('@').unwrap_or((&rest, "")),
                    None => (rest.as_str(), ""),
                };
                Reference {
                    name,
                    tag: tag.to_owned(),
                    digest: digest.to_owned(),
                }
            }
            (Some(_), None) => Reference::bare(text),
        }
    }

    /// A name without tag and digest.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Reference {
            name: name.to_owned(),
            tag: String::new(),
            digest: String::new(),
        }
    }

    /// Applies an entry that matches. True when it decides on tag and digest.
    pub(super) fn apply(&mut self, state: &ImageState, tag_suffix: Option<&str>) -> bool {
        if let Some(name) = &state.new_name {
            self.name.clone_from(name);
        }
        if state.tag.is_some() || state.digest.is_some() {
            self.tag = state.tag.clone().unwrap_or_default();
            self.digest = state.digest.clone().unwrap_or_default();
            return true;
        }
        if let Some(suffix) = tag_suffix {
            self.tag.push_str(suffix);
            self.digest.clear();
        }
        false
    }

    /// Whether it is what an entry says.
    #[must_use]
    pub fn is(&self, state: &ImageState) -> bool {
        self.name == *state.new_name.as_ref().unwrap_or(&state.name)
            && self.tag == state.tag.as_deref().unwrap_or_default()
            && self.digest == state.digest.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        if !self.digest.is_empty() {
            write!(f, "@{}", self.digest)?;
        }
        Ok(())
    }
}

/// The `name` of an entry as kustomize takes it.
#[derive(Clone, Debug)]
pub(super) enum NamePattern {
    /// Characters of which at most the dot has a meaning.
    Plain(String),
    /// Anything else.
    Expression(Box<Regex>),
}

impl NamePattern {
    /// Compiles a name; none for what is no regular expression, at which kustomize panics.
    pub(super) fn compile(name: &str) -> Option<Self> {
        if is_plain(name) {
            return Some(NamePattern::Plain(name.to_owned()));
        }
        RegexBuilder::new(&format!(
            "^{name}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$"
        ))
        .size_limit(1 << 20)
        .build()
        .ok()
        .map(|expression| NamePattern::Expression(Box::new(expression)))
    }

    /// Whether kustomize applies the entry to an image.
    pub(super) fn matches(&self, image: &str) -> bool {
        match self {
            NamePattern::Plain(name) => after_plain(name, image).is_some_and(is_version),
            NamePattern::Expression(expression) => expression.is_match(image),
        }
    }
}

/// Whether a name holds nothing that means more to a regular expression, but for dots.
pub(super) fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
}

/// What follows a plain name at the start of an image.
fn after_plain<'image>(name: &str, image: &'image str) -> Option<&'image str> {
    let mut rest = image.chars();
    for wanted in name.chars() {
        let there = rest.next()?;
        if there != wanted && (wanted != '.' || there == '\n') {
            return None;
        }
    }
    Some(rest.as_str())
}

/// Whether this is nothing, a tag, a SHA-256 digest, or both.
fn is_version(text: &str) -> bool {
    let fits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.{}-".contains(&b))
    };
    let (tag, digest) = match text.find('@') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let tag_fits = tag.is_empty() || tag.strip_prefix(':').is_some_and(fits);
    let digest_fits = digest.is_empty() || digest.strip_prefix("@sha256:").is_some_and(fits);
    tag_fits && digest_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart_as_kustomize_does() {
        for (text, name, tag, digest) in [
            ("app", "app", "", ""),
            ("app:v1", "app", "v1", ""),
            ("app@sha256:ab", "app", "", "sha256:ab"),
            ("app:v1@sha256:ab", "app", "v1", "sha256:ab"),
            ("host:5000/app", "host:5000/app", "", ""),
            ("host:5000/app:v1", "host:5000/app", "v1", ""),
            ("", "", "", ""),
        ] {
            let reference = Reference::parse(text);
            assert_eq!(
                (
                    reference.name.as_str(),
                    reference.tag.as_str(),
                    reference.digest.as_str()
                ),
                (name, tag, digest),
                "{text}"
            );
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn names_are_regular_expressions() {
        for (name, image, expected) in [
            ("app", "app", true),
            ("app", "app:v1", true),
            ("app", "app:v1@sha256:ab", true),
            ("app", "app@sha512:ab", false),
            ("app", "apple", false),
            ("app", "my/app", false),
            ("my.app", "my-app:1", true),
            ("my.app", "myapp", false),
            ("my\\.app", "my-app", false),
            ("app|web", "web:2", true),
            ("app|web", "apple", true),
            (".*/app", "registry.example.com/team/app:v1", true),
            ("host:5000/app", "host:5000/app:v1", true),
            ("(?i)APP", "app:v1", true),
            ("[[:alpha:]]{3}", "app", true),
            // As in Go, a class is of ASCII, and a dot is any character.
            ("ap\\w", "app", true),
            ("ap\\w", "ap\u{e9}", false),
            ("ap.+", "ap\u{e9}", true),
        ] {
            let pattern = NamePattern::compile(name).unwrap();
            assert_eq!(pattern.matches(image), expected, "{name} and {image}");
            let expression = NamePattern::compile(&format!("(?:){name}")).unwrap();
            if !name.contains('|') {
                assert_eq!(
                    expression.matches(image),
                    expected,
                    "{name} and {image}, compiled"
                );
            }
        }
        assert!(NamePattern::compile("app(").is_none());
    }
}
