//! The search for planted secrets in everything that the run made.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::timeline::Timeline;
use crate::world::{Planted, World};

/// Searches every file of the world, every job's log and the timeline itself.
pub(super) fn search(world: &World, timeline: &mut Timeline) -> Result<()> {
    let started = Instant::now();
    let needles: Vec<Needle> = world.planted().iter().map(Needle::of).collect();
    let mut found = Vec::new();
    let mut files = 0;
    search_folder(world.guardian.dir(), &needles, &mut found, &mut files)?;
    for pipeline in world.gitlab.snapshot() {
        for job in &pipeline.jobs {
            let place = format!("the log of {} in {}", job.name, pipeline.project);
            look(&place, None, job.trace.as_bytes(), &needles, &mut found);
        }
    }
    look(
        "the timeline",
        None,
        timeline.printed().as_bytes(),
        &needles,
        &mut found,
    );
    look(
        "the report",
        None,
        timeline.report().to_string().as_bytes(),
        &needles,
        &mut found,
    );
    ensure!(found.is_empty(), "secrets leaked:\n  {}", found.join("\n  "));
    timeline.step(
        &format!("no secret in {files} files and all logs"),
        "",
        started.elapsed(),
        None,
    );
    Ok(())
}

/// A secret in the forms it travels in.
struct Needle<'a> {
    planted: &'a Planted,
    forms: Vec<Vec<u8>>,
}

impl<'a> Needle<'a> {
    fn of(planted: &'a Planted) -> Self {
        let value = planted.value.as_str();
        let mut forms = vec![value.as_bytes().to_vec()];
        // Registry and git credentials travel as base64 of user:secret, aligned in any of three ways.
        for padding in ["", "x", "xx"] {
            for engine in [&STANDARD, &URL_SAFE] {
                let encoded = engine.encode(format!("{padding}{value}"));
                // The first group mixes with what stands before, the last with what comes after.
                let inner = &encoded.as_bytes()[4..encoded.len() - 4];
                forms.push(inner.to_vec());
            }
        }
        Needle { planted, forms }
    }
}

fn search_folder(
    folder: &Path,
    needles: &[Needle<'_>],
    found: &mut Vec<String>,
    files: &mut usize,
) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            search_folder(&path, needles, found, files)?;
        } else if kind.is_file() {
            let mut content = Vec::new();
            fs::File::open(&path)?.read_to_end(&mut content)?;
            *files += 1;
            look(&path.display().to_string(), Some(&path), &content, needles, found);
        }
    }
    Ok(())
}

fn look(place: &str, path: Option<&Path>, content: &[u8], needles: &[Needle<'_>], found: &mut Vec<String>) {
    for needle in needles {
        if path.is_some() && path == needle.planted.home.as_deref() {
            continue;
        }
        if needle.forms.iter().any(|form| contains(content, form)) {
            found.push(format!("{} is in {place}", needle.planted.what));
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else {
        return false;
    };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let planted = Planted {
            what: "a secret",
            value: "0b5f7a4e-canary-9d2c".to_owned(),
            home: Some("/home/of/it".into()),
        };
        let needles = [Needle::of(&planted)];
        let found_in = |text: &str, path: Option<&Path>| {
            let mut found = Vec::new();
            look("a place", path, text.as_bytes(), &needles, &mut found);
            !found.is_empty()
        };
        assert!(found_in("x0b5f7a4e-canary-9d2cx", None));
        for user in ["nologin", "ada", "oauth2", "x"] {
            assert!(
                found_in(&STANDARD.encode(format!("{user}:{}", planted.value)), None),
                "{user}"
            );
        }
        assert!(!found_in("0b5f7a4e-canary", None));
        assert!(!found_in(&planted.value, Some(Path::new("/home/of/it"))));
    }
}
