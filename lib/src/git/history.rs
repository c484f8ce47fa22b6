//! Reading the commits that changed one file, and what it held after each.

use std::collections::BTreeMap;

use super::command::Runner;
use super::revision::{History, Revision};
use crate::failure::{Failure, Result};

/// Marks where a commit begins and where its fields end, in the output of `git log`.
const RECORD: char = '\u{1e}';
const FIELD: char = '\u{1f}';

/// Reads the log of one file from `tip` on, along first parents: what a merge brought in counts as one step.
pub(super) async fn log(runner: &Runner, tip: &str, path: &str) -> Result<History> {
    let format = format!(
        "--format=format:{RECORD}%H{FIELD}%an{FIELD}%ae{FIELD}%aI{FIELD}%s{FIELD}%(trailers:only=true,unfold=true){FIELD}"
    );
    let log = runner.git("log").args([
        "--first-parent",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "--root",
        &format,
        tip,
        "--",
        path,
    ]);
    let ended = runner.local_output("read the history", log).await?;
    let boundary = boundary(runner).await?;
    let revisions = String::from_utf8_lossy(&ended.stdout)
        .split(RECORD)
        .skip(1)
        .filter_map(parse)
        .filter(|revision| !boundary.contains(&revision.commit))
        .collect();
    Ok(History {
        revisions,
        complete: boundary.is_empty(),
    })
}

/// The commits where a shallow clone ends. They look as if they had made every file.
async fn boundary(runner: &Runner) -> Result<Vec<String>> {
    let path = runner
        .git("rev-parse")
        .args(["--path-format=absolute", "--git-path", "shallow"]);
    let path = runner.local_output("find its own folder", path).await?.text();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::internal(format!("cannot read {path}")).because(error)),
    }
}

/// Reads objects that are here, or that git can fetch. The inner error is what git said when it could not.
pub(super) async fn contents(
    runner: &Runner,
    objects: &[String],
) -> Result<std::result::Result<BTreeMap<String, Vec<u8>>, String>> {
    if objects.is_empty() {
        return Ok(Ok(BTreeMap::new()));
    }
    let list: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let command = runner.git("cat-file").arg("--batch").input(list);
    let ended = command.capture(runner.network_deadline()).await?;
    if !ended.success() {
        return Ok(Err(ended.tail));
    }
    Ok(
        parse_batch(&ended.stdout)
            .ok_or_else(|| "git cat-file gave an object that cannot be read".to_owned()),
    )
}

/// Reads `git cat-file --batch`: `<object> <type> <size>\n<content>\n`.
fn parse_batch(mut output: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut contents = BTreeMap::new();
    while !output.is_empty() {
        let end = output.iter().position(|byte| *byte == b'\n')?;
        let header = std::str::from_utf8(&output[..end]).ok()?;
        let mut fields = header.split(' ');
        let (object, _kind, size) = (fields.next()?, fields.next()?, fields.next()?);
        let size: usize = size.parse().ok()?;
        let content = output.get(end + 1..end + 1 + size)?;
        contents.insert(object.to_owned(), content.to_vec());
        output = output.get(end + 2 + size..)?;
    }
    Some(contents)
}

fn parse(record: &str) -> Option<Revision> {
    let mut fields = record.split(FIELD);
    let mut next = || fields.next().map(str::to_owned);
    let (commit, author, email, date, subject, trailers, raw) =
        (next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    // `:<old mode> <new mode> <old object> <new object> <status>\t<path>`, one line for the one file.
    let object = raw
        .lines()
        .find_map(|line| line.strip_prefix(':'))
        .and_then(|line| line.split(' ').nth(3))
        .filter(|object| object.bytes().any(|b| b != b'0'))
        .map(str::to_owned);
    let trailers = trailers
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    Some(Revision {
        commit,
        author,
        email,
        date,
        subject,
        trailers,
        content: None,
        object,
    })
}
