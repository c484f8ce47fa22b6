//! Reading the commits that changed one file, and what it held after each.

use std::collections::BTreeMap;

use super::command::Runner;
use super::revision::{History, Revision};
use crate::failure::{Failure, Result};

/// Marks where a commit begins and where its fields end, in the output of `git log`.
const RECORD: char = '\u{1e}';
const FIELD: char = '\u{1f}';

/// How many moves of a file are followed back.
const MOVES: usize = 8;

/// Reads the log of one file from `tip` on, along first parents: what a merge brought in counts as one step. A file
/// that was moved without being changed is followed to where it was.
pub(super) async fn log(runner: &Runner, tip: &str, path: &str) -> Result<History> {
    let boundary = boundary(runner).await?;
    let (mut from, mut file) = (tip.to_owned(), path.to_owned());
    let mut revisions = Vec::new();
    for _ in 0..=MOVES {
        let entries = first_parents(runner, &from, &file).await?;
        let here = |entry: &Entry| !boundary.contains(&entry.revision.commit);
        let added = entries.last().filter(|entry| here(entry) && entry.was_added());
        let origin = match added {
            Some(added) => origin(runner, added, &file).await?,
            None => None,
        };
        revisions.extend(entries.into_iter().filter(here).map(|entry| entry.revision));
        let Some((parent, earlier)) = origin else { break };
        (from, file) = (parent, earlier);
    }
    Ok(History {
        revisions,
        complete: boundary.is_empty(),
    })
}

/// One commit of the log, with what is needed to follow it.
struct Entry {
    revision: Revision,
    parents: Vec<String>,
    status: String,
}

impl Entry {
    fn was_added(&self) -> bool {
        self.status.starts_with('A')
    }
}

async fn first_parents(runner: &Runner, tip: &str, path: &str) -> Result<Vec<Entry>> {
    let mut entries = entries(runner, &["--first-parent", "--root"], tip, path).await?;
    if entries.iter().any(|entry| entry.parents.len() > 1) {
        // A merge says who merged; what was done, and for which pipeline, is said by the commit that it brought in.
        let mut brought = self::entries(runner, &["--no-merges", "--root"], tip, path).await?;
        brought.retain(|one| {
            let first_parent = |entry: &Entry| entry.revision.commit == one.revision.commit;
            !entries.iter().any(first_parent)
        });
        for merge in entries.iter_mut().filter(|entry| entry.parents.len() > 1) {
            let same = |one: &Entry| one.revision.object == merge.revision.object;
            if let Some(found) = brought.iter().position(same) {
                // Each is found once, the newest by the newest merge.
                let found = brought.remove(found).revision;
                merge.revision.trailers.extend(found.trailers);
            }
        }
    }
    Ok(entries)
}

async fn entries(runner: &Runner, flags: &[&str], tip: &str, path: &str) -> Result<Vec<Entry>> {
    let format = format!(
        "--format=format:{RECORD}%H{FIELD}%P{FIELD}%an{FIELD}%ae{FIELD}%aI{FIELD}%s{FIELD}%(trailers:only=true,unfold=true){FIELD}"
    );
    let log = runner.git("log").args(flags).args([
        "--raw",
        "--no-abbrev",
        "--no-renames",
        &format,
        tip,
        "--",
        path,
    ]);
    let ended = runner.local_output("read the history", log).await?;
    Ok(String::from_utf8_lossy(&ended.stdout)
        .split(RECORD)
        .skip(1)
        .filter_map(parse)
        .collect())
}

/// Where a file that a commit added came from: the commit's first parent, and the one file with the same content that
/// the commit took away. Files alike in content are told apart by the last parts of their paths. None when there is no
/// such file, or no telling.
async fn origin(runner: &Runner, added: &Entry, file: &str) -> Result<Option<(String, String)>> {
    let (Some(parent), Some(object)) = (added.parents.first(), &added.revision.object) else {
        return Ok(None);
    };
    let compare = runner.git("diff-tree").args([
        "-r",
        "-z",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        parent,
        &added.revision.commit,
    ]);
    let ended = runner
        .local_output("compare a commit with the one before", compare)
        .await?;
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    let mut fields = output.split_terminator('\0');
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    while let (Some(meta), Some(path)) = (fields.next(), fields.next()) {
        let parts: Vec<&str> = meta.split(' ').collect();
        match parts[..] {
            [_, _, before, _, "D"] if before == object => gone.push(path.to_owned()),
            [_, _, _, after, "A"] if after == object => new.push(path.to_owned()),
            _ => {}
        }
    }
    let moved = if gone.len() == 1 && new.len() == 1 {
        gone.pop()
    } else {
        most_alike(&gone, file)
            .filter(|path| most_alike(&new, path) == Some(file))
            .map(str::to_owned)
    };
    Ok(moved.map(|path| (parent.clone(), path)))
}

/// The one path whose last parts are most like those of `file`, by more than the file's name.
fn most_alike<'path>(paths: &'path [String], file: &str) -> Option<&'path str> {
    let alike = |path: &str| {
        let parts = path.rsplit('/').zip(file.rsplit('/'));
        parts.take_while(|(one, other)| one == other).count()
    };
    let best = paths
        .iter()
        .map(|path| alike(path))
        .max()
        .filter(|best| *best > 1)?;
    let mut found = paths.iter().filter(|path| alike(path) == best);
    let one = found.next()?;
    found.next().is_none().then_some(one.as_str())
}

/// The commits that are here, from `tip` on.
pub(super) async fn commits(runner: &Runner, tip: &str) -> Result<Vec<String>> {
    let list = runner.git("rev-list").arg(tip);
    let ended = runner.local_output("list the commits", list).await?;
    Ok(ended.text().lines().map(str::to_owned).collect())
}

/// The object that `path` is at a commit that is here.
pub(super) async fn object_at(runner: &Runner, commit: &str, path: &str) -> Result<Option<String>> {
    let parse = runner
        .git("rev-parse")
        .args(["--verify", "--quiet", "--end-of-options"])
        .arg(format!("{commit}:{path}"));
    let ended = parse.capture(runner.local_deadline()).await?;
    Ok(ended.success().then(|| ended.text()))
}

/// The commits where a shallow clone ends. They look as if they had made every file.
pub(super) async fn boundary(runner: &Runner) -> Result<Vec<String>> {
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

fn parse(record: &str) -> Option<Entry> {
    let mut fields = record.split(FIELD);
    let mut next = || fields.next().map(str::to_owned);
    let (commit, parents) = (next()?, next()?);
    let (author, email, date, subject, trailers, raw) =
        (next()?, next()?, next()?, next()?, next()?, next()?);
    // `:<old mode> <new mode> <old object> <new object> <status>\t<path>`, one line for the one file.
    let line = raw
        .lines()
        .find_map(|line| line.strip_prefix(':'))
        .unwrap_or_default();
    let object = line
        .split(' ')
        .nth(3)
        .filter(|object| object.bytes().any(|b| b != b'0'))
        .map(str::to_owned);
    let trailers = trailers
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    Some(Entry {
        parents: parents
            .split(' ')
            .map(str::to_owned)
            .filter(|parent| !parent.is_empty())
            .collect(),
        status: line.split(' ').nth(4).unwrap_or_default().to_owned(),
        revision: Revision {
            commit,
            author,
            email,
            date,
            subject,
            trailers,
            content: None,
            object,
        },
    })
}
