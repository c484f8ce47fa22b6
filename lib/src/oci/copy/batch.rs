//! Many promotions in one file, a line each.
//!
//! `SOURCE TARGET [TARGET...] [move-tag-from=DIGEST|any|never]`, words apart by blanks; what follows a `#` at the
//! beginning of a word is a comment.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::place::ImageReference;
use super::plan::MoveTag;
use crate::bounded;
use crate::failure::{Failure, Result};
use crate::secret::without_login;

/// How many bytes a batch may have, and how many lines that say something.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;
const LINE_LIMIT: usize = 10_000;
/// Begins the word that says what a line's tags may be moved from.
const MOVE_TAG: &str = "move-tag-from=";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLine {
    /// Its number, from 1.
    pub number: usize,
    /// The image.
    pub source: ImageReference,
    /// Where it goes, as written. There is at least one.
    pub targets: Vec<ImageReference>,
    /// Which tags may be moved, where the line says so.
    pub move_tag: Option<MoveTag>,
}

/// Reads a batch from a file, or from standard input when the path is `-`. Dropping this does not wait for a pipe
/// into which nobody writes.
///
/// # Errors
/// Not found (exit 5) when it is not there; usage (2) when it cannot be read; input (3), naming the line, when it is
/// malformed.
pub async fn read_batch(path: &Path) -> Result<Vec<BatchLine>> {
    let is_standard_input = path == Path::new("-");
    let origin = if is_standard_input {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        if is_standard_input {
            read_standard_input()
        } else {
            bounded::read_text(&path, SIZE_LIMIT)
        }
    });
    let read = reading
        .await
        .map_err(|error| Failure::internal(format!("cannot read the batch {origin}")).because(error))?;
    let text = read.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::not_found(format!("there is no batch {origin}"))
            .hint("name a file with --batch (TOWPATH_BATCH), or - for standard input"),
        ErrorKind::InvalidData | ErrorKind::FileTooLarge => {
            Failure::input(format!("{origin} is no batch")).because(error)
        }
        _ => Failure::usage(format!("cannot read the batch {origin}"))
            .because(error)
            .hint("name a readable file with --batch (TOWPATH_BATCH)"),
    })?;
    parse_batch(&text, &origin)
}

fn read_standard_input() -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(SIZE_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_LIMIT {
        let why = format!("it has more than {SIZE_LIMIT} bytes");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, why));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Reads a batch's text; `origin` names it in messages. All lines are looked at before one counts.
///
/// # Errors
/// Input (exit 3), naming the line, when it is malformed or says nothing.
fn parse_batch(text: &str, origin: &str) -> Result<Vec<BatchLine>> {
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for (index, text) in text.lines().enumerate() {
        match line(index + 1, text) {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => {}
            Err(failure) => failures.push((index + 1, failure)),
        }
    }
    let others = failures.len().saturating_sub(1);
    if let Some((number, failure)) = failures.into_iter().next() {
        let hint = match (failure.next_action(), others) {
            (Some(hint), 0) => hint.to_owned(),
            (Some(hint), others) => format!("{hint}; {others} more lines are malformed"),
            (None, _) => "a line reads SOURCE TARGET [TARGET...] [move-tag-from=DIGEST|any|never]".to_owned(),
        };
        return Err(Failure::input(format!("{origin}, line {number}: {}", failure.message())).hint(hint));
    }
    if lines.is_empty() {
        return Err(
            Failure::input(format!("{origin} has no line with a SOURCE and a TARGET"))
                .hint("is it the file that was meant? A comment begins with #"),
        );
    }
    if lines.len() > LINE_LIMIT {
        return Err(Failure::input(format!(
            "{origin} has more than {LINE_LIMIT} lines"
        )));
    }
    Ok(lines)
}

fn line(number: usize, text: &str) -> Result<Option<BatchLine>> {
    let mut words: Vec<&str> = text
        .split_whitespace()
        .take_while(|word| !word.starts_with('#'))
        .collect();
    let move_tag = match words.last().and_then(|last| last.strip_prefix(MOVE_TAG)) {
        Some(allowed) => {
            words.pop();
            Some(allowed.parse()?)
        }
        None => None,
    };
    match words.as_slice() {
        [] if move_tag.is_none() => Ok(None),
        [] => Err(Failure::input("there is no SOURCE")),
        [source] => Err(Failure::input(format!(
            "there is no TARGET for {}",
            without_login(source)
        ))),
        [source, targets @ ..] => Ok(Some(BatchLine {
            number,
            source: ImageReference::source(source)?,
            targets: targets
                .iter()
                .map(|target| target.parse())
                .collect::<Result<_>>()?,
            move_tag,
        })),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::Kind;
    use crate::oci::Digest;

    #[test]
    fn lines_have_a_source_targets_and_perhaps_what_may_be_moved() {
        let digest = Digest::of(b"x");
        let text = format!(
            "# the shop\n\n  a.example/web:1\tb.example/web   oci:out:1 # beside it\r\n\
             a.example/api@{digest} b.example/api:2 move-tag-from={digest}\n\
             oci:in b.example/db move-tag-from=any"
        );
        let lines = parse_batch(&text, "batch").unwrap();
        assert_eq!(
            lines.iter().map(|line| line.number).collect::<Vec<_>>(),
            [3, 4, 5]
        );
        let targets: Vec<String> = lines[0].targets.iter().map(ToString::to_string).collect();
        assert_eq!(targets, ["b.example/web", "oci:out:1"]);
        assert_eq!(lines[0].move_tag, None);
        assert_eq!(lines[1].move_tag, Some(MoveTag::From(digest)));
        assert_eq!(lines[2].source.to_string(), "oci:in");
        assert_eq!(lines[2].move_tag, Some(MoveTag::Any));
    }

    #[test]
    fn what_is_wrong_is_named_by_file_and_line_before_anything_counts() {
        let good = "a.example/web:1 b.example/web";
        for (text, number, word) in [
            (format!("{good}\na.example/web:1\n"), 2, "TARGET"),
            (format!("{good}\n\nmove-tag-from=any\n"), 3, "SOURCE"),
            (format!("{good} move-tag-from=latest"), 1, "latest"),
            (format!("{good} move-tag-from="), 1, "neither"),
            (
                format!("{good} move-tag-from=any b.example/api"),
                1,
                "move-tag-from=any",
            ),
            (
                "a.example/web b.example/web".to_owned(),
                1,
                "neither tag nor digest",
            ),
            (format!("{good} b.example/WEB"), 1, "WEB"),
            ("web:1 b.example/web".to_owned(), 1, "web:1"),
        ] {
            let failure = parse_batch(&text, "the.batch").expect_err(&text);
            assert_eq!(failure.kind(), Kind::Input, "{text}");
            let place = format!("the.batch, line {number}: ");
            assert!(failure.message().starts_with(&place), "{failure:?}");
            assert!(failure.message().contains(word), "{failure:?}");
            assert!(failure.next_action().is_some(), "{failure:?}");
        }
        for text in ["", "\n \n# nothing\n"] {
            assert_eq!(parse_batch(text, "x").expect_err("empty").kind(), Kind::Input);
        }
        let long = format!("{good}\n").repeat(LINE_LIMIT + 1);
        assert!(parse_batch(&long, "x").is_err());
    }

    #[test]
    fn a_login_in_a_line_is_not_repeated() {
        for text in [
            "user:canary@a.example/web:1",
            "user:canary@a.example/web:1 b.example/web",
            "a.example/web:1 user:canary@b.example/web",
        ] {
            let failure = parse_batch(text, "batch").expect_err(text);
            let shown = format!("{failure:?}");
            assert!(
                !shown.contains("canary") && shown.contains(".example/web"),
                "{shown}"
            );
        }
    }

    #[tokio::test]
    async fn a_file_is_read_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch");
        let refused = async |path: &Path| read_batch(path).await.expect_err("refused").kind();
        assert_eq!(refused(&path).await, Kind::NotFound);
        assert_eq!(refused(folder.path()).await, Kind::Usage);
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(refused(&path).await, Kind::Input);
        assert_eq!(refused(Path::new("/dev/zero")).await, Kind::Input);
        std::fs::write(&path, "a.example/web:1 b.example/web").unwrap();
        assert_eq!(read_batch(&path).await.unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_every_mistake_has_a_line(
            text in "(a\\.example/web:1|oci:out|b\\.example/web|move-tag-from=(any|all)?|#|[ \t\n]|\\PC){0,30}"
        ) {
            match parse_batch(&text, "batch") {
                Ok(lines) => prop_assert!(lines.iter().all(|line| !line.targets.is_empty())),
                Err(failure) => prop_assert!(failure.kind() == Kind::Input && failure.message().starts_with("batch")),
            }
        }
    }
}
