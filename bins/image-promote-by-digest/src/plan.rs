//! Which image is wanted where. Pure: what the registries have is for the copy engine to compare.

use std::collections::BTreeMap;

use towpath::failure::{Failure, Result};
use towpath::oci::copy::{BatchLine, ImageReference, MoveTag};

use crate::args::PromotionArgs;

/// One target, with the tag it is going to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) target: ImageReference,
    pub(crate) move_tag: MoveTag,
    /// The batch's line that it stands in.
    pub(crate) line: Option<usize>,
}

/// One image and its targets, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) source: ImageReference,
    pub(crate) edges: Vec<Edge>,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// An image, which reaches all its targets or none.
    One(Group),
    /// A batch, in which each target stands for itself.
    Many(Vec<Group>),
}

/// Completes the targets: one without a tag takes over the source's. `lines` are the batch's.
///
/// # Errors
/// Usage (exit 2) when it is not clear what goes where; input (3), naming the line, when a batch names a target twice.
pub(crate) fn decide(args: &PromotionArgs, lines: Option<Vec<BatchLine>>) -> Result<Wanted> {
    match (&args.source, lines) {
        (Some(source), None) => one(source, &args.targets, &args.move_tag_from).map(Wanted::One),
        (source, Some(lines)) => {
            if source.is_some() || !args.targets.is_empty() {
                return Err(Failure::usage("an image and a batch are given")
                    .hint("leave SOURCE and TARGET (TOWPATH_SOURCE, TOWPATH_TARGET) out, or --batch (TOWPATH_BATCH)"));
            }
            if args.handoff.is_some() {
                return Err(Failure::usage("a batch has no one image to hand over").hint(
                    "leave --handoff (TOWPATH_HANDOFF) out, or promote the image for the next job by itself",
                ));
            }
            many(lines, &args.move_tag_from).map(Wanted::Many)
        }
        (None, None) => Err(Failure::usage("there is nothing to promote")
            .hint("give SOURCE and TARGET (TOWPATH_SOURCE, TOWPATH_TARGET), or --batch (TOWPATH_BATCH)")),
    }
}

fn one(source: &ImageReference, targets: &[ImageReference], move_tag: &MoveTag) -> Result<Group> {
    let mut edges: Vec<Edge> = Vec::with_capacity(targets.len());
    for target in targets {
        let target = complete(source, target);
        if edges.iter().any(|earlier| is_same(&earlier.target, &target)) {
            return Err(Failure::usage(format!("the target {target} is named twice"))
                .hint("leave one out of TARGET (TOWPATH_TARGET)"));
        }
        edges.push(Edge {
            target,
            move_tag: move_tag.clone(),
            line: None,
        });
    }
    Ok(Group {
        source: source.clone(),
        edges,
    })
}

/// Lines with the same source are one group, so that it is read once.
fn many(lines: Vec<BatchLine>, move_tag: &MoveTag) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = BTreeMap::new();
    // The line that each target stands in.
    let mut named = BTreeMap::new();
    for line in lines {
        let place = *places.entry(line.source.to_string()).or_insert_with(|| {
            groups.push(Group {
                source: line.source.clone(),
                edges: Vec::new(),
            });
            groups.len() - 1
        });
        for target in &line.targets {
            let target = complete(&line.source, target);
            if let Some(earlier) = named.insert((target.name(), target.tag().cloned()), line.number) {
                return Err(Failure::input(format!(
                    "the batch's line {} names the target {target}, as line {earlier} does already",
                    line.number,
                ))
                .hint("leave one of them out"));
            }
            groups[place].edges.push(Edge {
                target,
                move_tag: line.move_tag.clone().unwrap_or_else(|| move_tag.clone()),
                line: Some(line.number),
            });
        }
    }
    Ok(groups)
}

fn complete(source: &ImageReference, target: &ImageReference) -> ImageReference {
    let tag = target.tag().or_else(|| source.tag()).cloned();
    target.clone().with_tag(tag)
}

/// Whether both are written to at the same place.
fn is_same(one: &ImageReference, other: &ImageReference) -> bool {
    one.name() == other.name() && one.tag() == other.tag()
}

impl Wanted {
    /// All images.
    pub(crate) fn groups(&self) -> &[Group] {
        match self {
            Wanted::One(group) => std::slice::from_ref(group),
            Wanted::Many(groups) => groups,
        }
    }
}

impl Group {
    /// All targets.
    pub(crate) fn targets(&self) -> Vec<ImageReference> {
        self.edges.iter().map(|edge| edge.target.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use towpath::failure::Kind;
    use towpath::oci::Digest;

    use super::*;

    fn reference(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    fn completed(source: &str, targets: &[&str]) -> Result<Vec<String>> {
        let targets: Vec<ImageReference> = targets.iter().map(|target| reference(target)).collect();
        let group = one(&reference(source), &targets, &MoveTag::Never)?;
        Ok(group.targets().iter().map(ToString::to_string).collect())
    }

    fn line(number: usize, source: &str, targets: &[&str], move_tag: Option<MoveTag>) -> BatchLine {
        BatchLine {
            number,
            source: reference(source),
            targets: targets.iter().map(|target| reference(target)).collect(),
            move_tag,
        }
    }

    #[test]
    fn a_target_without_a_tag_takes_the_sources() {
        assert_eq!(
            completed(
                "a.example/app:1",
                &["b.example/app", "b.example/app:2", "oci:out"]
            )
            .unwrap(),
            ["b.example/app:1", "b.example/app:2", "oci:out:1"]
        );
        let by_digest = format!("a.example/app@{}", Digest::of(b""));
        assert_eq!(
            completed(&by_digest, &["b.example/app"]).unwrap(),
            ["b.example/app"]
        );
        assert_eq!(
            completed("oci:out:7", &["b.example/app"]).unwrap(),
            ["b.example/app:7"]
        );
    }

    #[test]
    fn the_same_target_twice_is_a_mistake() {
        let failure = completed("a.example/app:1", &["b.example/app", "b.example/app:1"]).expect_err("twice");
        assert_eq!(failure.kind(), Kind::Usage);
        assert!(completed("a.example/app:1", &["b.example/app:1", "b.example/app:2"]).is_ok());
        let lines = vec![
            line(2, "a.example/app:1", &["b.example/app", "c.example/app"], None),
            line(5, "a.example/other:1", &["b.example/app:1"], None),
        ];
        let failure = many(lines, &MoveTag::Never).expect_err("twice");
        assert_eq!(failure.kind(), Kind::Input);
        for part in ["line 5", "line 2", "b.example/app:1"] {
            assert!(failure.message().contains(part), "{failure:?}");
        }
    }

    #[test]
    fn lines_with_one_source_are_one_group_and_keep_their_own_guards() {
        let lines = vec![
            line(1, "a.example/web:1", &["b.example/web", "c.example/web"], None),
            line(2, "a.example/api:1", &["b.example/api"], None),
            line(
                4,
                "a.example/web:1",
                &["b.example/web:stable"],
                Some(MoveTag::Any),
            ),
        ];
        let groups = many(lines, &MoveTag::Never).unwrap();
        let shown: Vec<(String, Vec<Option<usize>>)> = groups
            .iter()
            .map(|group| {
                let lines = group.edges.iter().map(|edge| edge.line);
                (group.source.to_string(), lines.collect())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("a.example/web:1".to_owned(), vec![Some(1), Some(1), Some(4)]),
                ("a.example/api:1".to_owned(), vec![Some(2)]),
            ]
        );
        let guards: Vec<&MoveTag> = groups[0].edges.iter().map(|edge| &edge.move_tag).collect();
        assert_eq!(guards, [&MoveTag::Never, &MoveTag::Never, &MoveTag::Any]);
    }
}
