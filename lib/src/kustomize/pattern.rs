//! Patterns that name many folders at once, such as `overlays/*` and `apps/**/prod`.
//!
//! They are matched against the list of files of the repository, never by a shell: a job has no checkout to match
//! against, and quoting has to make no difference. As in a shell, `*`, `?` and `[a-z]` stay within one folder and do
//! not match a leading dot, `{a,b}` stands for both, and `\` takes the meaning from the character after it. `**` is any
//! number of folders, none included.

use super::document::FILE_NAMES;
use crate::failure::{Failure, Result};

/// How many patterns the braces of one may stand for.
const ALTERNATIVES: usize = 1000;

/// A pattern of folders.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    alternatives: Vec<Vec<Segment>>,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`.
    Folders,
    /// Anything else.
    One(Vec<Glyph>),
}

impl Segment {
    /// Whether it holds no wildcard.
    fn is_literal(&self) -> bool {
        matches!(self, Segment::One(glyphs) if glyphs.iter().all(|glyph| matches!(glyph, Glyph::Literal(_))))
    }
}

/// What stands for characters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Glyph {
    /// This one.
    Literal(char),
    /// `?`.
    Any,
    /// `*`.
    Run,
    /// `[a-z]`, or `[!a-z]` for the others.
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Pattern {
    /// Whether a path holds a character that makes it a pattern.
    #[must_use]
    pub fn is_one(path: &str) -> bool {
        path.contains(['*', '?', '[', '{', '\\'])
    }

    /// A path as a pattern that names nothing else.
    #[must_use]
    pub fn escape(path: &str) -> String {
        let mut escaped = String::with_capacity(path.len());
        for character in path.chars() {
            if "*?[]{},\\".contains(character) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        escaped
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// Usage (exit 2) for brackets or braces that are not closed, and braces that stand for more than 1,000 patterns.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |why: &str| {
            Failure::usage(format!("malformed pattern {text:?}: {why}"))
                .hint("write \\ before a character that is meant as it stands")
        };
        let mut alternatives = Vec::new();
        for plain in without_braces(text).map_err(malformed)? {
            let segments: std::result::Result<Vec<Segment>, &str> = plain
                .split('/')
                .filter(|part| !matches!(*part, "" | "."))
                .map(|part| match part {
                    "**" => Ok(Segment::Folders),
                    part => glyphs(part).map(Segment::One),
                })
                .collect();
            alternatives.push(segments.map_err(malformed)?);
        }
        Ok(Pattern {
            text: text.to_owned(),
            alternatives,
        })
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The folder that everything it can name is in; `.` for the root.
    #[must_use]
    pub fn base(&self) -> String {
        let mut alternatives = self.alternatives.iter().map(|segments| literal_start(segments));
        let first = alternatives.next().unwrap_or_default();
        let shared = alternatives.fold(first, |shared, other| {
            let count = shared
                .iter()
                .zip(&other)
                .take_while(|(one, other)| one == other)
                .count();
            shared.into_iter().take(count).collect()
        });
        if shared.is_empty() {
            ".".to_owned()
        } else {
            shared.join("/")
        }
    }

    /// The folders with a kustomization that it names, out of a list of files; each once, in the order of the list.
    /// A pattern may name the kustomization files themselves too, but only by their names: `overlays/*` is not the
    /// file in `overlays`.
    #[must_use]
    pub fn folders<'files>(&self, files: impl IntoIterator<Item = &'files str>) -> Vec<String> {
        let mut folders: Vec<String> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for file in files {
            let Some(folder) = kustomization_folder(file) else {
                continue;
            };
            if (self.names(folder, false) || self.names(file, true)) && seen.insert(folder) {
                folders.push(folder.to_owned());
            }
        }
        folders
    }

    fn names(&self, path: &str, by_last_name: bool) -> bool {
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        self.alternatives.iter().any(|segments| {
            if by_last_name && !segments.last().is_some_and(Segment::is_literal) {
                return false;
            }
            fits(
                segments,
                &parts,
                |segment| *segment == Segment::Folders,
                |segment, part| match segment {
                    Segment::Folders => !part.starts_with('.'),
                    Segment::One(glyphs) => fits_segment(glyphs, part),
                },
            )
        })
    }
}

/// The folder of a kustomization file; none for other files.
#[must_use]
pub fn kustomization_folder(file: &str) -> Option<&str> {
    let (folder, name) = file.rsplit_once('/').unwrap_or((".", file));
    FILE_NAMES.contains(&name).then_some(folder)
}

/// Whether `items` fit `pattern`, where a step that repeats takes any number of items and every other one takes one.
/// All ways are gone at once, so that no pattern takes long.
fn fits<Step, Item>(
    pattern: &[Step],
    items: &[Item],
    repeats: impl Fn(&Step) -> bool,
    takes: impl Fn(&Step, &Item) -> bool,
) -> bool {
    let skip_repeats = |reached: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if reached[at] && repeats(&pattern[at]) {
                reached[at + 1] = true;
            }
        }
    };
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    skip_repeats(&mut reached);
    for item in items {
        let mut next = vec![false; pattern.len() + 1];
        for (at, step) in pattern.iter().enumerate() {
            if reached[at] && takes(step, item) {
                next[if repeats(step) { at } else { at + 1 }] = true;
            }
        }
        skip_repeats(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}

fn fits_segment(glyphs: &[Glyph], part: &str) -> bool {
    let hidden = part.starts_with('.') && glyphs.first() != Some(&Glyph::Literal('.'));
    let characters: Vec<char> = part.chars().collect();
    !hidden
        && fits(
            glyphs,
            &characters,
            |glyph| *glyph == Glyph::Run,
            |glyph, character| match glyph {
                Glyph::Literal(literal) => literal == character,
                Glyph::Any | Glyph::Run => true,
                Glyph::Class { ranges, negated } => {
                    let inside = ranges
                        .iter()
                        .any(|(first, last)| (first..=last).contains(&character));
                    inside != *negated
                }
            },
        )
}

/// The folders at the start that hold no wildcard.
fn literal_start(segments: &[Segment]) -> Vec<String> {
    segments
        .iter()
        .map_while(|segment| match segment {
            Segment::Folders => None,
            Segment::One(glyphs) => glyphs
                .iter()
                .map(|glyph| match glyph {
                    Glyph::Literal(literal) => Some(*literal),
                    _ => None,
                })
                .collect(),
        })
        .collect()
}

/// The patterns that braces stand for, without the braces.
fn without_braces(text: &str) -> std::result::Result<Vec<String>, &'static str> {
    let mut plain = Vec::new();
    let mut waiting = vec![text.to_owned()];
    while let Some(next) = waiting.pop() {
        let Some((before, choices, after)) = first_braces(&next)? else {
            plain.push(next);
            continue;
        };
        if plain.len() + waiting.len() + choices.len() > ALTERNATIVES {
            return Err("its braces stand for more than 1000 patterns");
        }
        waiting.extend(choices.iter().map(|choice| format!("{before}{choice}{after}")));
    }
    Ok(plain)
}

/// The first pair of braces: what stands before, the choices, what stands after.
#[allow(clippy::type_complexity, reason = "a name for it would say no more")]
fn first_braces(text: &str) -> std::result::Result<Option<(&str, Vec<&str>, &str)>, &'static str> {
    let (mut depth, mut open, mut start) = (0_usize, 0, 0);
    let mut choices = Vec::new();
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => {
                depth += 1;
                if depth == 1 {
                    (open, start) = (at, at + 1);
                }
            }
            ',' if depth == 1 => {
                choices.push(&text[start..at]);
                start = at + 1;
            }
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    choices.push(&text[start..at]);
                    return Ok(Some((&text[..open], choices, &text[at + 1..])));
                }
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("a brace is not closed");
    }
    Ok(None)
}

fn glyphs(part: &str) -> std::result::Result<Vec<Glyph>, &'static str> {
    let mut glyphs = Vec::new();
    let mut characters = part.chars().peekable();
    while let Some(character) = characters.next() {
        glyphs.push(match character {
            '\\' => Glyph::Literal(characters.next().ok_or("it ends with \\")?),
            '*' => Glyph::Run,
            '?' => Glyph::Any,
            '[' => {
                let negated = characters.next_if(|next| matches!(next, '!' | '^')).is_some();
                let mut ranges = Vec::new();
                loop {
                    let mut next = || characters.next().ok_or("a bracket is not closed");
                    let first = match next()? {
                        ']' if !ranges.is_empty() => break,
                        '\\' => next()?,
                        first => first,
                    };
                    let mut ahead = characters.clone();
                    let last = match (ahead.next(), ahead.next()) {
                        (Some('-'), Some(last)) if last != ']' => {
                            characters = ahead;
                            last
                        }
                        _ => first,
                    };
                    ranges.push((first, last));
                }
                Glyph::Class { ranges, negated }
            }
            literal => Glyph::Literal(literal),
        });
    }
    Ok(glyphs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 9] = [
        "Kustomization",
        "apps/shop/base/kustomization.yaml",
        "apps/shop/eu/prod/kustomization.yaml",
        "apps/shop/prod/kustomization.yml",
        "apps/web/prod/deployment.yaml",
        "apps/web/prod/kustomization.yaml",
        "overlays/.hidden/kustomization.yaml",
        "overlays/dev-1/kustomization.yaml",
        "overlays/prod[1]/kustomization.yaml",
    ];

    fn named(pattern: &str) -> Vec<String> {
        Pattern::parse(pattern).unwrap().folders(FILES)
    }

    #[test]
    fn patterns_name_the_folders_that_a_shell_would() {
        for (pattern, folders) in [
            ("overlays/*", &["overlays/dev-1", "overlays/prod[1]"][..]),
            ("overlays/*/", &["overlays/dev-1", "overlays/prod[1]"]),
            ("overlays/.*", &["overlays/.hidden"]),
            ("overlays/???-[0-9]", &["overlays/dev-1"]),
            ("overlays/*[!0-9]", &["overlays/prod[1]"]),
            ("overlays/prod\\[1\\]", &["overlays/prod[1]"]),
            ("apps/*/prod", &["apps/shop/prod", "apps/web/prod"]),
            (
                "apps/**/prod",
                &["apps/shop/eu/prod", "apps/shop/prod", "apps/web/prod"],
            ),
            (
                "apps/{shop/{base,eu/prod},web/prod}",
                &["apps/shop/base", "apps/shop/eu/prod", "apps/web/prod"],
            ),
            ("apps/*/*/kustomization.yml", &["apps/shop/prod"]),
            ("*", &[]),
            ("apps/*", &[]),
            ("{.,apps/web/prod}", &[".", "apps/web/prod"]),
        ] {
            assert_eq!(named(pattern), folders, "{pattern}");
        }
        assert_eq!(named("**").len(), 7, "the root, and all that is not hidden");
        assert_eq!(named(&Pattern::escape("overlays/prod[1]")), ["overlays/prod[1]"]);
    }

    #[test]
    fn only_the_folder_that_all_is_in_has_to_be_listed() {
        for (pattern, base) in [
            ("overlays/*", "overlays"),
            ("a/b/**/c", "a/b"),
            ("a/{b,c}/d", "a"),
            ("**/prod", "."),
            ("a/b{1,2}", "a"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().base(), base, "{pattern}");
        }
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        for pattern in ["a/[b", "a/{b,c", "a\\", "a/[", "{".repeat(2000).as_str()] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern:?} was accepted");
        }
        let many = "{a,b}".repeat(40);
        assert!(Pattern::parse(&many).is_err());
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Pattern::parse(&format!("{}b", "**/*a*a*a*a*/".repeat(30))).unwrap();
        let file = format!("{}/kustomization.yaml", ["a".repeat(200).as_str(); 30].join("/"));
        assert!(pattern.folders([file.as_str()]).is_empty());
    }
}
