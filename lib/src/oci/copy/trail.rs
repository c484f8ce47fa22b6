//! What a journal says of tags, and what follows from it for the way back. Pure.

use super::journal::{Entry, Recorded};
use super::place::ImageReference;
use crate::failure::{Failure, Result};
use crate::oci::{Digest, Tag, is_digest_tag};

/// Which entries of a journal are undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deliveries {
    /// Those of the last delivery that is not a rollback itself.
    Last,
    /// Those of this trace id.
    One(String),
    /// All.
    All,
}

/// How one tag was moved, oldest move first. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// The place, with the tag.
    pub reference: ImageReference,
    /// The tag.
    pub tag: Tag,
    /// What it named before and after each move.
    moves: Vec<(Option<Digest>, Option<Digest>)>,
    /// The delivery that moved it last.
    pub trace_id: String,
}

/// What has to be done about one tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it names what it did before, or never was moved.
    Unchanged,
    /// It is made to name this again.
    PutBack(Digest),
    /// It was new, and is deleted.
    Delete,
    /// It was new, and is left in place.
    Leave,
}

impl Trail {
    /// Decides by what the tag names now. `delete_new` says what becomes of a tag that was new.
    ///
    /// # Errors
    /// Conflict (exit 6) when somebody else moved it.
    pub fn decide(&self, now: Option<&Digest>, delete_new: bool) -> Result<Step> {
        let mut at = now;
        if now != self.oldest() {
            for (before, after) in self.moves.iter().rev() {
                if at == after.as_ref() {
                    at = before.as_ref();
                } else if at != before.as_ref() {
                    return Err(self.conflict(now, at, after.as_ref()));
                }
                // Else that move never came about: the run was killed before it, or failed.
            }
        }
        Ok(if at == now {
            Step::Unchanged
        } else {
            match at {
                Some(before) => Step::PutBack(before.clone()),
                None if delete_new => Step::Delete,
                None => Step::Leave,
            }
        })
    }

    /// What it named before all of it.
    #[must_use]
    pub fn oldest(&self) -> Option<&Digest> {
        self.moves.first().and_then(|(before, _)| before.as_ref())
    }

    fn conflict(&self, now: Option<&Digest>, at: Option<&Digest>, after: Option<&Digest>) -> Failure {
        let reference = &self.reference;
        if at == now {
            Failure::conflict(format!(
                "{reference} names {} by now, not {}, which was promoted",
                shown(now),
                shown(after)
            ))
            .hint("somebody moved the tag since: look at what it names, and promote what it should name")
        } else {
            Failure::conflict(format!(
                "{reference} was moved from {} to {} by somebody else between two promotions",
                shown(after),
                shown(at)
            ))
            .hint("go back one delivery at a time, with --trace-id")
        }
    }
}

/// A digest, or that there is none.
pub(super) fn shown(digest: Option<&Digest>) -> String {
    digest.map_or_else(|| "nothing".to_owned(), Digest::to_string)
}

/// Reads out of a journal how each tag was moved, those moved last first; `origin` names the journal in messages. Tags
/// made of digests are left out: they list what refers to an image, for whatever else names that image, too.
///
/// # Errors
/// Not found (exit 5) when it has no such delivery; input (3), naming the line, when an entry names no tag.
pub fn trails(recorded: &Recorded, chosen: &Deliveries, origin: &str) -> Result<Vec<Trail>> {
    let is_tag = |entry: &Entry| !is_digest_tag(&entry.tag);
    let is_promotion = |entry: &&(usize, Entry)| entry.1.undoes.is_none() && is_tag(&entry.1);
    let last = recorded.entries.iter().rfind(is_promotion);
    let is_chosen = |entry: &Entry| match chosen {
        Deliveries::All => true,
        Deliveries::One(trace_id) => entry.trace_id == *trace_id,
        Deliveries::Last => last.is_some_and(|(_, last)| last.trace_id == entry.trace_id),
    };
    let mut trails: Vec<Trail> = Vec::new();
    let chosen_entries = recorded.entries.iter();
    for (number, entry) in chosen_entries.filter(|(_, entry)| is_tag(entry) && is_chosen(entry)) {
        let reference = place(entry).map_err(|failure| {
            Failure::input(format!("{origin}, line {number}: not an entry of a journal")).because(failure)
        })?;
        let step = (entry.before.clone(), entry.after.clone());
        let at = match trails.iter().position(|trail| trail.reference == reference.0) {
            Some(at) => at,
            None => {
                trails.push(Trail {
                    reference: reference.0,
                    tag: reference.1,
                    moves: Vec::new(),
                    trace_id: String::new(),
                });
                trails.len() - 1
            }
        };
        // The order is that of the last moves.
        let mut trail = trails.remove(at);
        trail.moves.push(step);
        trail.trace_id.clone_from(&entry.trace_id);
        trails.push(trail);
    }
    trails.reverse();
    if trails.is_empty() {
        return Err(match chosen {
            Deliveries::One(trace_id) => Failure::not_found(format!(
                "the journal {origin} has nothing of the delivery {trace_id}"
            ))
            .hint(known(recorded)),
            _ if recorded.entries.is_empty() => {
                Failure::not_found(format!("the journal {origin} has no entry: no tag was moved"))
            }
            _ => {
                Failure::not_found(format!("the journal {origin} has rollbacks alone")).hint(known(recorded))
            }
        });
    }
    Ok(trails)
}

/// The deliveries there are, newest first.
fn known(recorded: &Recorded) -> String {
    let mut ids: Vec<&str> = Vec::new();
    for (_, entry) in recorded.entries.iter().rev() {
        if !ids.contains(&entry.trace_id.as_str()) {
            ids.push(&entry.trace_id);
        }
    }
    ids.truncate(5);
    format!(
        "choose one of its deliveries with --trace-id; the newest are {}",
        ids.join(", ")
    )
}

fn place(entry: &Entry) -> Result<(ImageReference, Tag)> {
    let tag: Tag = entry.tag.parse()?;
    let reference: ImageReference = entry.repository.parse()?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(Failure::input(format!("{} is no repository", entry.repository)));
    }
    Ok((reference.with_tag(Some(tag.clone())), tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn digest(name: &str) -> Option<Digest> {
        (!name.is_empty()).then(|| Digest::of(name.as_bytes()))
    }

    /// `trace tag before after [undoes]`, where `-` is nothing.
    fn journal(lines: &[&str]) -> Recorded {
        let entry = |line: &&str| {
            let words: Vec<&str> = line.split(' ').map(|word| word.trim_matches('-')).collect();
            Entry {
                schema: String::new(),
                at: String::new(),
                trace_id: words[0].to_owned(),
                repository: "example.com/app".to_owned(),
                tag: words[1].to_owned(),
                before: digest(words[2]),
                after: digest(words[3]),
                undoes: words.get(4).map(|word| (*word).to_owned()),
            }
        };
        Recorded {
            entries: lines
                .iter()
                .map(entry)
                .enumerate()
                .map(|(at, entry)| (at + 1, entry))
                .collect(),
            torn: None,
        }
    }

    fn decided(lines: &[&str], now: &str) -> Result<Step> {
        let trails = trails(&journal(lines), &Deliveries::All, "journal").unwrap();
        assert_eq!(trails.len(), 1);
        trails[0].decide(digest(now).as_ref(), false)
    }

    fn back_to(name: &str) -> Step {
        Step::PutBack(digest(name).unwrap())
    }

    #[test]
    fn a_tag_goes_back_to_where_it_was_before_all_moves() {
        let once = ["a stable v1 v2"];
        assert_eq!(decided(&once, "v2").unwrap(), back_to("v1"));
        let twice = ["a stable v1 v2", "b stable v2 v3"];
        assert_eq!(decided(&twice, "v3").unwrap(), back_to("v1"));
        // Undone already, or never done.
        assert_eq!(decided(&once, "v1").unwrap(), Step::Unchanged);
        assert_eq!(decided(&twice, "v1").unwrap(), Step::Unchanged);
        // The second run was killed between its line and its move, and then did it.
        assert_eq!(decided(&twice, "v2").unwrap(), back_to("v1"));
        let killed = ["a stable v1 v2", "a stable v1 v2"];
        assert_eq!(decided(&killed, "v2").unwrap(), back_to("v1"));
        // There and back again.
        let circle = ["a stable v1 v2", "a stable v2 v1"];
        assert_eq!(decided(&circle, "v1").unwrap(), Step::Unchanged);
        assert_eq!(decided(&circle, "v2").unwrap(), back_to("v1"));
    }

    #[test]
    fn a_tag_that_somebody_else_moved_stays_where_it_is() {
        for (lines, now, named) in [
            (&["a stable v1 v2"][..], "other", "other"),
            // Deleted.
            (&["a stable v1 v2"][..], "", "nothing"),
            (&["a stable v1 v2", "b stable v2 v3"][..], "other", "other"),
            // Somebody moved it from v2 to v7 between the runs.
            (&["a stable v1 v2", "b stable v7 v8"][..], "v8", "v7"),
        ] {
            let failure = decided(lines, now).expect_err(now);
            assert_eq!(failure.kind(), Kind::Conflict);
            let named = digest(named)
                .filter(|_| named != "nothing")
                .map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
            assert!(failure.message().contains(&named), "{failure:?}");
            assert!(
                failure.message().contains("example.com/app:stable"),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_tag_that_was_new_is_left_or_deleted_as_asked_and_one_that_was_deleted_comes_back() {
        let trails = |lines: &[&str]| trails(&journal(lines), &Deliveries::All, "journal").unwrap();
        let new = trails(&["a 1.4 - v1"]);
        assert_eq!(new[0].decide(digest("v1").as_ref(), false).unwrap(), Step::Leave);
        assert_eq!(new[0].decide(digest("v1").as_ref(), true).unwrap(), Step::Delete);
        assert_eq!(new[0].decide(None, true).unwrap(), Step::Unchanged);
        let deleted = trails(&["b 1.4 v1 - a"]);
        assert_eq!(deleted[0].decide(None, true).unwrap(), back_to("v1"));
        assert_eq!(
            deleted[0].decide(digest("v1").as_ref(), true).unwrap(),
            Step::Unchanged
        );
    }

    #[test]
    fn the_last_delivery_is_the_last_that_is_no_rollback() {
        let lines = [
            "one 1 - v1",
            "two 2 - v2",
            "two stable v1 v2",
            "two 2 v2 v3",
            "three stable v2 v1 two",
        ];
        let chosen = |deliveries| {
            let trails = trails(&journal(&lines), &deliveries, "journal")?;
            Ok::<_, Failure>(
                trails
                    .iter()
                    .map(|trail| trail.tag.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        // Newest first.
        assert_eq!(chosen(Deliveries::Last).unwrap(), ["2", "stable"]);
        assert_eq!(chosen(Deliveries::One("three".to_owned())).unwrap(), ["stable"]);
        assert_eq!(chosen(Deliveries::All).unwrap(), ["stable", "2", "1"]);
        let failure = chosen(Deliveries::One("four".to_owned())).expect_err("absent");
        assert_eq!(failure.kind(), Kind::NotFound);
        assert!(
            failure.next_action().unwrap().contains("three, two, one"),
            "{failure:?}"
        );
        for lines in [&[][..], &["b 1 v1 - a"][..]] {
            let failure = trails(&journal(lines), &Deliveries::Last, "journal").expect_err("nothing");
            assert_eq!(failure.kind(), Kind::NotFound);
        }
    }

    #[test]
    fn lists_of_what_refers_to_images_stay() {
        let list = format!("sha256-{}", Digest::of(b"v1").hex());
        let signature = format!("one {list}.sig - s1");
        let list = format!("two {list} l1 l2");
        let recorded = journal(&["one stable v0 v1", &signature, &list]);
        for deliveries in [Deliveries::Last, Deliveries::All] {
            let trails = trails(&recorded, &deliveries, "journal").unwrap();
            assert_eq!(trails.len(), 1);
            assert_eq!(trails[0].tag.as_str(), "stable");
        }
    }

    #[test]
    fn an_entry_without_a_place_is_named_by_its_line() {
        for (repository, tag) in [
            ("app", "1"),
            ("example.com/app:1", "1"),
            ("example.com/app", "../1"),
            ("oci:", "1"),
        ] {
            let mut recorded = journal(&["a 1 - v1", "a 2 - v2"]);
            recorded.entries[1].1.repository = repository.to_owned();
            recorded.entries[1].1.tag = tag.to_owned();
            let failure = trails(&recorded, &Deliveries::All, "journal.jsonl").expect_err(repository);
            assert_eq!(failure.kind(), Kind::Input);
            assert!(
                failure.message().starts_with("journal.jsonl, line 2:"),
                "{failure:?}"
            );
        }
    }
}
