//! The words of an instruction: its keyword, its flags, and the here-documents it opens.

use std::ops::Range;

/// A flag before an instruction's arguments, such as `--from=build`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// Where it stands in the instruction's text, quotes and all.
    pub(super) place: Range<usize>,
    /// What it says, quotes and escapes taken off.
    pub(super) text: String,
    /// Whether a quote in it is still open where the instruction ends.
    pub(super) is_open: bool,
}

impl Flag {
    /// The value, if the flag has this name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.text
            .strip_prefix("--")?
            .strip_prefix(name)?
            .strip_prefix('=')
    }
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HereDocument {
    pub(super) delimiter: String,
    /// Whether tabs before the delimiter do not count: `<<-`.
    pub(super) strips_tabs: bool,
}

/// An instruction in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// In capitals. What `ONBUILD` holds back is read as if it stood there itself.
    pub(super) keyword: String,
    /// Whether `ONBUILD` holds it back.
    pub(super) held_back: bool,
    pub(super) flags: Vec<Flag>,
    /// Where the arguments behind the flags begin.
    pub(super) arguments: usize,
}

/// Takes an instruction's text apart.
pub(super) fn split(text: &str, escape: char) -> Words {
    let (mut keyword, mut at) = word_at(text, 0);
    let held_back = keyword.eq_ignore_ascii_case("ONBUILD");
    if held_back {
        (keyword, at) = word_at(text, at);
    }
    let keyword = keyword.to_ascii_uppercase();
    let mut flags = Vec::new();
    loop {
        let start = at + blanks(&text[at..]);
        if !text[start..].starts_with("--") {
            return Words {
                keyword,
                held_back,
                flags,
                arguments: start,
            };
        }
        let flag = flag_at(text, start, escape);
        at = flag.place.end;
        if flag.text == "--" {
            return Words {
                keyword,
                held_back,
                flags,
                arguments: at + blanks(&text[at..]),
            };
        }
        flags.push(flag);
    }
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn word_at(text: &str, at: usize) -> (&str, usize) {
    let start = at + blanks(&text[at..]);
    let length = text[start..]
        .find(char::is_whitespace)
        .unwrap_or(text.len() - start);
    (&text[start..start + length], start + length)
}

/// Reads a flag, or another word, as builders do: quotes anywhere in it keep blanks together, and are not part of it.
fn flag_at(text: &str, start: usize, escape: char) -> Flag {
    let mut said = String::new();
    let mut quote = None;
    let mut letters = text[start..].char_indices();
    while let Some((offset, letter)) = letters.next() {
        match quote {
            None if letter.is_whitespace() => {
                return Flag {
                    place: start..start + offset,
                    text: said,
                    is_open: false,
                };
            }
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ if letter == escape => said.extend(letters.next().map(|(_, next)| next)),
            _ => said.push(letter),
        }
    }
    Flag {
        place: start..text.len(),
        text: said,
        is_open: quote.is_some(),
    }
}

/// The words of arguments, quotes and escapes taken off.
pub(super) fn plain(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut at = blanks(text);
    while at < text.len() {
        let word = flag_at(text, at, escape);
        at = word.place.end + blanks(&text[word.place.end..]);
        words.push(word.text);
    }
    words
}

/// The here-documents that an instruction opens, and whether it may open more than those: builders tell by the rules of a
/// shell, and not all of them know here-documents.
pub(super) fn here_documents(text: &str, escape: char) -> (Vec<HereDocument>, bool) {
    let words = split(text, escape);
    if !matches!(words.keyword.as_str(), "RUN" | "COPY" | "ADD") || !text.contains("<<") {
        return (Vec::new(), false);
    }
    let (raw, is_balanced) = shell_words(&text[words.arguments..]);
    let marks = raw.iter().filter(|word| could_open(word)).count();
    let documents: Vec<HereDocument> = if is_balanced {
        raw.iter().filter_map(|word| here_document(word)).collect()
    } else {
        Vec::new()
    };
    let is_doubtful = marks != documents.len();
    (documents, is_doubtful)
}

/// Words with their quotes and escapes, and whether every quote was closed.
fn shell_words(text: &str) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match quote {
            None if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ => {}
        }
        word.push(letter);
        // Here the escape is the shell's, whatever the file's is.
        if letter == '\\' && quote != Some('\'') {
            word.extend(letters.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    (words, quote.is_none())
}

/// Whether somebody might see a here-document in it. A shift (`1<<2`) and a here-string (`<<<`) are none.
fn could_open(word: &str) -> bool {
    word.match_indices("<<").any(|(at, _)| {
        let rest = word[at + 2..].trim_start_matches('-');
        !word[..at].ends_with('<') && rest.starts_with(|c: char| c.is_alphabetic() || "_\"'\\$".contains(c))
    })
}

/// `<<EOF`, `<<-EOF`, `3<<"EOF"`. Other delimiters are left to doubt.
fn here_document(word: &str) -> Option<HereDocument> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (rest, strips_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| rest.strip_prefix(quote)?.strip_suffix(quote));
    let delimiter = quoted.unwrap_or(rest);
    let starts_well = delimiter.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let plain = delimiter
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    (starts_well && plain).then(|| HereDocument {
        delimiter: delimiter.to_owned(),
        strips_tabs,
    })
}
