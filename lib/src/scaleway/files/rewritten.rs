//! Profiles of ours in a `config.yaml` whose lines are not the ones that were written: a person changed some, or a tool wrote
//! the file anew. What still has our secret key goes by what it says: each of its keys that has the value that was written.
//!
//! Source: Scaleway's Go SDK, `scw/config.go`, `HumanConfig`: `scw config set` and `scw init` render the whole file, with
//! comments of their own and without those of others.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_norway::{Mapping, Value};

use super::MARK;
use super::entry::{Entry, Stripped};
use super::receipt::{Added, Piece, fingerprint_of_field, without};
use super::scw::{ACTIVE, PROFILES, choice, is, is_empty, spelled};
use crate::scaleway::config::{DEFAULT, Profile};

/// Takes our profiles out by what they say. None when one of them cannot be: its key is there and not as it was written, or
/// its lines cannot be told from others.
pub(super) fn take_out(text: &str, there: &Mapping, pieces: &[Piece], shown: &str) -> Option<Stripped> {
    let lines = lines(text);
    let mut wanted = there.clone();
    let mut entries: Vec<Entry> = Vec::new();
    let mut gone = BTreeSet::new();
    for piece in pieces {
        let (Some(name), Added::Text { fields, .. }) = (&piece.entry, &piece.added) else {
            continue;
        };
        if entries.iter().any(|entry| entry.name == *name) {
            continue;
        }
        let ours = ours(there, name, fields);
        let value = |wanted: &str| {
            ours.iter()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| *value)
        };
        if value("secret_key").is_none() {
            continue;
        }
        let is_all = leave_out(&mut wanted, name, &ours);
        gone.extend(numbers(&lines, name, &ours, is_all)?);
        if is_all && is_added(pieces, &choice(name)) && wanted.get(ACTIVE).map(spelled).as_ref() == Some(name)
        {
            wanted.shift_remove(ACTIVE);
            gone.extend(with_mark(&lines, top(&lines, ACTIVE)?));
        }
        let said: String = ours
            .iter()
            .map(|(key, value)| format!("{key}: {value}\n"))
            .collect();
        let profile = Profile::read(name, value("access_key").unwrap_or_default(), &said);
        entries.push(Entry::profile(profile));
    }
    if wanted.get(PROFILES).is_some_and(is_empty) && is_added(pieces, &format!("{PROFILES}:\n")) {
        wanted.shift_remove(PROFILES);
        gone.insert(top(&lines, PROFILES)?);
    }
    let parts: Vec<Range<usize>> = gone.iter().map(|number| lines[*number].range.clone()).collect();
    let rest = without(text, &parts);
    let is_left = pieces.iter().any(|piece| match &piece.added {
        Added::Text { access_key, .. } => !access_key.is_empty() && rest.contains(access_key.as_str()),
        _ => false,
    });
    (!is_left && is(&rest, Some(&wanted), shown)).then(|| Stripped::of(rest, entries))
}

/// What a profile says with the values that were written.
fn ours<'a>(there: &'a Mapping, name: &str, fields: &[String]) -> Vec<(String, &'a str)> {
    let profile = if name == DEFAULT {
        Some(there)
    } else {
        let all = there.get(PROFILES).and_then(Value::as_mapping);
        all.and_then(|all| all.iter().find(|(key, _)| spelled(key) == name))
            .and_then(|(_, profile)| profile.as_mapping())
    };
    let said = profile.into_iter().flatten();
    said.filter_map(|(key, value)| Some((spelled(key), value.as_str()?)))
        .filter(|(key, value)| fields.contains(&fingerprint_of_field(key, value)))
        .collect()
}

/// Leaves our keys out, and a profile that has none besides. Whether that was all.
fn leave_out(wanted: &mut Mapping, name: &str, ours: &[(String, &str)]) -> bool {
    let is_other = |key: &Value| !ours.iter().any(|(name, _)| *name == spelled(key));
    if name == DEFAULT {
        wanted.retain(|key, _| is_other(key));
        return false;
    }
    let Some(all) = wanted.get_mut(PROFILES).and_then(Value::as_mapping_mut) else {
        return false;
    };
    for (key, profile) in all.iter_mut() {
        if spelled(key) == name
            && let Some(profile) = profile.as_mapping_mut()
        {
            profile.retain(|key, _| is_other(key));
        }
    }
    let before = all.len();
    all.retain(|key, profile| spelled(key) != name || !is_empty(profile));
    all.len() < before
}

/// Whether this text was added, whatever line break was put before it.
fn is_added(pieces: &[Piece], text: &str) -> bool {
    let added = [Added::text(text, ""), Added::text(&format!("\n{text}"), "")];
    pieces
        .iter()
        .any(|piece| piece.entry.is_none() && added.contains(&piece.added))
}

/// A line of the file.
struct Line<'a> {
    range: Range<usize>,
    text: &'a str,
}

impl Line<'_> {
    fn indent(&self) -> usize {
        self.text.bytes().take_while(|byte| *byte == b' ').count()
    }

    fn says_nothing(&self) -> bool {
        let text = self.text.trim();
        text.is_empty() || text.starts_with('#')
    }

    /// The key and the value, where the line is all of both.
    fn pair(&self) -> Option<(String, Value)> {
        let pair: Mapping = serde_norway::from_str(self.text.trim()).ok()?;
        let mut pairs = pair.into_iter();
        let (key, value) = pairs.next()?;
        pairs.next().is_none().then(|| (spelled(&key), value))
    }

    fn is_key(&self, name: &str) -> bool {
        self.pair().is_some_and(|(key, _)| key == name)
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut at = 0;
    text.split_inclusive('\n')
        .map(|text| {
            let range = at..at + text.len();
            at = range.end;
            Line { range, text }
        })
        .collect()
}

/// The line at the top of the file with that key.
fn top(lines: &[Line<'_>], name: &str) -> Option<usize> {
    lines
        .iter()
        .position(|line| line.indent() == 0 && !line.says_nothing() && line.is_key(name))
}

/// A line, and the one above if we marked it so.
fn with_mark(lines: &[Line<'_>], number: usize) -> impl Iterator<Item = usize> {
    let above = number
        .checked_sub(1)
        .filter(|above| lines[*above].text.trim() == MARK);
    above.into_iter().chain([number])
}

/// The lines of a profile that say what is ours, or all of its lines. None when they are not to be found.
fn numbers(lines: &[Line<'_>], name: &str, ours: &[(String, &str)], is_all: bool) -> Option<Vec<usize>> {
    let (above, inner) = if name == DEFAULT {
        let at_the_top: Vec<usize> = (0..lines.len())
            .filter(|number| lines[*number].indent() == 0)
            .collect();
        (None, at_the_top)
    } else {
        let head = head(lines, name)?;
        let below = (head + 1..lines.len())
            .take_while(|number| {
                lines[*number].says_nothing() || lines[*number].indent() > lines[head].indent()
            })
            // Comments at the depth of the profile are about the next one.
            .filter(|number| lines[*number].indent() > lines[head].indent())
            .collect();
        (Some(head), below)
    };
    if is_all {
        return Some(with_mark(lines, above?).chain(inner).collect());
    }
    let is_ours = |number: &usize| {
        let pair = lines[*number].pair();
        pair.is_some_and(|(key, value)| {
            ours.iter()
                .any(|(name, said)| *name == key && value.as_str() == Some(said))
        })
    };
    let found: Vec<usize> = inner.into_iter().filter(is_ours).collect();
    let first = above.or_else(|| found.first().copied())?;
    let mark = with_mark(lines, first).find(|number| *number != first);
    (found.len() == ours.len()).then(|| mark.into_iter().chain(found).collect())
}

/// The line that a profile begins with.
fn head(lines: &[Line<'_>], name: &str) -> Option<usize> {
    let list = top(lines, PROFILES)?;
    let mut indent = None;
    for (number, line) in lines.iter().enumerate().skip(list + 1) {
        if line.says_nothing() {
            continue;
        }
        if line.indent() == 0 {
            return None;
        }
        if line.indent() == *indent.get_or_insert(line.indent()) && line.is_key(name) {
            return Some(number);
        }
    }
    None
}
