//! What must hold of the Dockerfile reader whatever it is given, for property tests and for fuzzing.

use std::collections::BTreeMap;

use super::dockerfile::Dockerfile;
use crate::failure::Kind;

const FILE: &str = "Dockerfile";

/// A text is refused by name, or its images can be told, belong to lines that are there, and can be given other names,
/// which are read back in their places, while every line keeps its number.
///
/// # Panics
/// When that does not hold.
pub fn dockerfile(text: &str) {
    let read = match Dockerfile::parse(text, FILE, &BTreeMap::new()) {
        Ok(read) => read,
        Err(failure) => {
            assert_eq!(failure.kind(), Kind::Input, "{failure:?}");
            assert!(failure.message().contains(FILE), "{failure:?}");
            return;
        }
    };
    assert_eq!(read.text(), text);
    let lines = text.lines().count();
    let images = read.images();
    for line in images
        .iter()
        .map(|image| image.line)
        .chain(read.doubts().iter().copied())
    {
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
    }
    let last = read.target(None).unwrap_or_default();
    for stage in 0..=last {
        assert!(read.target(Some(&stage.to_string())).is_ok(), "stage {stage}");
        let needed = read.needed(stage);
        assert!(needed.is_sorted() && needed.iter().all(|place| *place < images.len()));
        // What a stage stands on is among what it needs.
        assert!(read.base_of(stage).is_none_or(|base| needed.contains(&base)));
        for intrusion in read.intrusions(stage, "/a") {
            assert!((1..=lines).contains(&intrusion.line), "{intrusion:?}");
            assert!(
                intrusion.path == "/a" || intrusion.path.starts_with("/a/"),
                "{intrusion:?}"
            );
        }
    }
    assert_eq!(read.with_images(&BTreeMap::new()).lines().count(), lines);
    let names: BTreeMap<usize, String> = (0..images.len())
        .map(|place| (place, format!("h.example.com/i{place}@sha256:{}", "0".repeat(64))))
        .collect();
    let pinned = read.with_images(&names);
    assert_eq!(pinned.lines().count(), lines, "{pinned:?}");
    let again = Dockerfile::parse(&pinned, FILE, &BTreeMap::new())
        .unwrap_or_else(|failure| panic!("{failure:?}: {pinned:?}"));
    let found: Vec<&str> = again.images().iter().map(|image| image.name.as_str()).collect();
    assert_eq!(
        found,
        names.values().map(String::as_str).collect::<Vec<_>>(),
        "{pinned:?}"
    );
    for stage in 0..=last {
        assert_eq!(again.needed(stage), read.needed(stage), "{pinned:?}");
    }
}
