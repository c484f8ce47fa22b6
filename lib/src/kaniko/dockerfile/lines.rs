//! The instructions of a Dockerfile: lines joined, comments dropped, here-documents set apart.
//!
//! Source: Dockerfile reference, sections "Parser directives", "Escape" and "Here-documents". Where builders read a file
//! differently, a line that one of them takes for an instruction must not hide in what another takes for text: whatever
//! stands in a here-document is kept, so that it can be looked through, too.

use std::ops::Range;

use super::words::{self, HereDocument};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Its own lines, counted from 0, without here-documents.
    pub(super) lines: Range<usize>,
    /// Its text in one line.
    pub(super) text: String,
    /// The lines of its here-documents, delimiters among them.
    pub(super) body: Range<usize>,
    /// Whether it may open a here-document in a way that builders do not agree on.
    pub(super) is_doubtful: bool,
}

impl Instruction {
    /// The line it begins on, counted from 1.
    pub(super) fn line(&self) -> usize {
        self.lines.start + 1
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Instructions {
    /// What continues a line, and takes the meaning off the next letter.
    pub(super) escape: char,
    pub(super) all: Vec<Instruction>,
}

/// Reads a whole file.
pub(super) fn instructions(text: &str) -> Instructions {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let escape = escape(&lines);
    Instructions {
        escape,
        all: joined(&lines, escape, 0),
    }
}

/// Reads lines that stand in a here-document as a builder would that does not know those.
pub(super) fn instructions_in(text: &str, body: Range<usize>, escape: char) -> Vec<Instruction> {
    let lines: Vec<&str> = text.lines().collect();
    joined(lines.get(body.clone()).unwrap_or_default(), escape, body.start)
}

/// Directives stand before everything else, other comments and empty lines among that.
fn escape(lines: &[&str]) -> char {
    for line in lines {
        let Some((name, value)) = line
            .trim_start()
            .strip_prefix('#')
            .and_then(|comment| comment.split_once('='))
        else {
            break;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" => return if value.trim() == "`" { '`' } else { '\\' },
            "syntax" | "check" => {}
            _ => break,
        }
    }
    '\\'
}

fn joined(lines: &[&str], escape: char, offset: usize) -> Vec<Instruction> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let start = at;
        let mut text = String::new();
        let mut continues = true;
        while continues && at < lines.len() {
            let line = lines[at];
            at += 1;
            // Comments and empty lines in between do not end an instruction.
            if is_passed_over(line) {
                if text.is_empty() {
                    break;
                }
                continue;
            }
            let line = if text.is_empty() { line.trim_start() } else { line };
            let (part, goes_on) = match without_continuation(line, escape) {
                Some(line) => (line, true),
                None => (line, false),
            };
            // Nothing stands for the line's end: FR and OM make FROM.
            text.push_str(part);
            continues = goes_on;
        }
        if text.trim().is_empty() {
            continue;
        }
        let own = start..at;
        let (documents, is_doubtful) = words::here_documents(&text, escape);
        for document in documents {
            at = end_of(lines, at, &document);
        }
        all.push(Instruction {
            lines: own.start + offset..own.end + offset,
            body: own.end + offset..at + offset,
            text,
            is_doubtful,
        });
    }
    all
}

fn is_passed_over(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The line without the escape at its end; none when it does not go on. An escaped escape is one that stands for itself.
fn without_continuation(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!rest.ends_with(escape)).then_some(rest)
}

/// The line behind a here-document that begins at `at`.
fn end_of(lines: &[&str], at: usize, document: &HereDocument) -> usize {
    let ends = |line: &&str| {
        let line = if document.strips_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        line == document.delimiter
    };
    lines[at..]
        .iter()
        .position(ends)
        .map_or(lines.len(), |found| at + found + 1)
}
