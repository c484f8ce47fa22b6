//! A unified diff, as `git diff` shows it.

use std::fmt::Write as _;

/// How many unchanged lines surround a change.
const CONTEXT: usize = 3;

/// One line of the comparison: kept, removed or added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'text> {
    Kept(&'text str),
    Removed(&'text str),
    Added(&'text str),
}

/// The difference between two versions of a file; empty when there is none.
pub(crate) fn unified(file: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let lines = compare(&split(before), &split(after));
    let mut text = format!("--- a/{file}\n+++ b/{file}\n");
    let changed: Vec<usize> = (0..lines.len())
        .filter(|at| !matches!(lines[*at], Line::Kept(_)))
        .collect();
    let mut at = 0;
    while at < changed.len() {
        let start = changed[at].saturating_sub(CONTEXT);
        let mut last = changed[at];
        while at < changed.len() && changed[at] <= last + 2 * CONTEXT {
            last = changed[at];
            at += 1;
        }
        let end = (last + CONTEXT + 1).min(lines.len());
        write_hunk(&mut text, &lines, start, end);
    }
    text
}

fn write_hunk(text: &mut String, lines: &[Line<'_>], start: usize, end: usize) {
    let old = |lines: &[Line<'_>]| {
        lines
            .iter()
            .filter(|line| !matches!(line, Line::Added(_)))
            .count()
    };
    let new = |lines: &[Line<'_>]| {
        lines
            .iter()
            .filter(|line| !matches!(line, Line::Removed(_)))
            .count()
    };
    let range = |before: usize, count: usize| {
        // An empty range names the line before it (POSIX diff, "Diff -u output format").
        let first = if count == 0 { before } else { before + 1 };
        format!("{first},{count}")
    };
    let (head, hunk) = (&lines[..start], &lines[start..end]);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "@@ -{} +{} @@",
        range(old(head), old(hunk)),
        range(new(head), new(hunk))
    );
    for line in hunk {
        let (mark, content) = match line {
            Line::Kept(content) => (' ', content),
            Line::Removed(content) => ('-', content),
            Line::Added(content) => ('+', content),
        };
        text.push(mark);
        text.push_str(content);
        if !content.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// The longest common subsequence, after what is the same at both ends is set aside.
fn compare<'text>(before: &[&'text str], after: &[&'text str]) -> Vec<Line<'text>> {
    let head = before
        .iter()
        .zip(after)
        .take_while(|(one, other)| one == other)
        .count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(one, other)| one == other)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);

    let mut lengths = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for (row, one) in old.iter().enumerate().rev() {
        for (column, other) in new.iter().enumerate().rev() {
            lengths[row][column] = if one == other {
                lengths[row + 1][column + 1] + 1
            } else {
                lengths[row + 1][column].max(lengths[row][column + 1])
            };
        }
    }
    let mut lines: Vec<Line<'text>> = before[..head].iter().map(|line| Line::Kept(line)).collect();
    let (mut row, mut column) = (0, 0);
    while row < old.len() || column < new.len() {
        if row < old.len() && column < new.len() && old[row] == new[column] {
            lines.push(Line::Kept(old[row]));
            row += 1;
            column += 1;
        } else if column == new.len()
            || (row < old.len() && lengths[row + 1][column] >= lengths[row][column + 1])
        {
            lines.push(Line::Removed(old[row]));
            row += 1;
        } else {
            lines.push(Line::Added(new[column]));
            column += 1;
        }
    }
    lines.extend(before[before.len() - tail..].iter().map(|line| Line::Kept(line)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_changes_far_apart_make_two_hunks() {
        let before: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let after = before.replace("\n2\n", "\ntwo\n").replace("\n19\n", "\nx\n19\n");
        assert_eq!(
            unified("f", &before, &after),
            "--- a/f\n+++ b/f\n@@ -1,5 +1,5 @@\n 1\n-2\n+two\n 3\n 4\n 5\n@@ -16,5 +16,6 @@\n 16\n 17\n 18\n+x\n 19\n 20\n"
        );
    }

    #[test]
    fn a_missing_final_line_break_is_shown() {
        assert_eq!(
            unified("f", "a", "b"),
            "--- a/f\n+++ b/f\n@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("f", "", "b\n"), "--- a/f\n+++ b/f\n@@ -0,0 +1,1 @@\n+b\n");
        assert_eq!(unified("f", "a", "a"), "");
    }
}
