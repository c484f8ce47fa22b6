//! The search for secrets in everything that the run made: the planted ones, and those that came up on the way.
//!
//! Files are searched as they are and, where they are compressed (layers of images, objects of git), for what is inside.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use regex::bytes::{Captures, Regex};

use super::timeline::Timeline;
use crate::world::{Planted, World};

/// A token that OpenBao gave a job: nobody can list those, but their form is known. Boundaries of words are those of ASCII:
/// with Unicode's, a byte above 127 takes the search out of its automaton, and most files here are not text.
const VAULT_TOKEN: &str = r"(?-u:\b)(?:hvs|s)\.[A-Za-z0-9]{24}(?-u:\b)";

/// How long what GitLab does by itself may take to end. Until then a pipeline has its tokens in its own folder, and folders
/// vanish while they are read.
const CALM: Duration = Duration::from_secs(60);

/// Searches every file of the world, every job's log and the timeline itself.
pub(super) async fn search(world: &World, timeline: &mut Timeline) -> Result<()> {
    timeline.begin("no secret in any file or log", "");
    ensure!(
        Regex::new(VAULT_TOKEN)?.is_match(world.openbao.root_token().as_bytes()),
        "OpenBao's tokens have another form than the search knows"
    );
    // The push of the rollback started pipelines, too, and they may still run.
    world.gitlab.rest(CALM).await?;
    let searched = search_once(world, timeline).await?;
    let found: Vec<String> = searched.found.into_iter().collect();
    ensure!(found.is_empty(), "secrets leaked:\n  {}", found.join("\n  "));
    timeline.note(&format!(
        "searched for {} secrets in {} files and the logs of {} jobs",
        searched.secrets.planted.len(),
        searched.files,
        searched.logs
    ));
    timeline.done(None);
    Ok(())
}

async fn search_once(world: &World, timeline: &Timeline) -> Result<Search> {
    let mut search = Search::new(Secrets::new(world.secrets())?);
    search.folder(world.guardian.dir())?;
    for repository in search.packed.clone() {
        let objects = ["cat-file", "--batch", "--batch-all-objects"];
        let text = match world.person.git(&repository, objects).await {
            Ok(text) => text,
            // A server that still runs, such as Argo CD's, has removed its clone since its files were searched.
            Err(_) if !repository.exists() => continue,
            Err(error) => return Err(error),
        };
        search.look(
            &format!("git objects of {}", repository.display()),
            text.as_bytes(),
        );
    }
    for pipeline in world.gitlab.snapshot() {
        for job in &pipeline.jobs {
            let place = format!("the log of {} in {}", job.name, pipeline.project);
            search.look(&place, job.trace.as_bytes());
            search.logs += 1;
        }
    }
    search.look("the timeline", timeline.printed().as_bytes());
    search.look("the report", timeline.report().to_string().as_bytes());
    Ok(search)
}

/// What is searched for, as one pattern: there are many secrets and much to search.
struct Secrets {
    planted: Vec<Planted>,
    pattern: Regex,
}

impl Secrets {
    fn new(planted: Vec<Planted>) -> Result<Self> {
        let mut alternatives: Vec<String> = planted
            .iter()
            .enumerate()
            .map(|(index, secret)| format!("(?P<s{index}>{})", forms(&secret.value)))
            .collect();
        alternatives.push(VAULT_TOKEN.to_owned());
        let pattern = Regex::new(&alternatives.join("|")).context("making a pattern of all secrets")?;
        Ok(Secrets { planted, pattern })
    }

    /// The secret that was found; none when it is a token of OpenBao's that nobody knew of.
    fn named(&self, found: &Captures<'_>) -> Option<&Planted> {
        let index = (0..self.planted.len()).find(|index| found.name(&format!("s{index}")).is_some())?;
        self.planted.get(index)
    }
}

/// A pattern for every form a secret travels in.
fn forms(value: &str) -> String {
    let mut forms = BTreeSet::from([regex::escape(value)]);
    // Registry and git credentials travel as base64 of user:secret, aligned in any of three ways.
    for padding in ["", "x", "xx"] {
        for engine in [&STANDARD, &URL_SAFE] {
            let encoded = engine.encode(format!("{padding}{value}"));
            // The first group mixes with what stands before, the last with what comes after.
            forms.insert(regex::escape(&encoded[4..encoded.len() - 4]));
        }
    }
    forms.into_iter().collect::<Vec<_>>().join("|")
}

struct Search {
    secrets: Secrets,
    found: BTreeSet<String>,
    files: usize,
    logs: usize,
    /// Repositories with packs, which only git can read.
    packed: BTreeSet<PathBuf>,
}

impl Search {
    fn new(secrets: Secrets) -> Self {
        Search {
            secrets,
            found: BTreeSet::new(),
            files: 0,
            logs: 0,
            packed: BTreeSet::new(),
        }
    }

    fn folder(&mut self, folder: &Path) -> Result<()> {
        // The servers still run, and remove folders of their own.
        let Some(entries) = unless_gone(fs::read_dir(folder))? else {
            return Ok(());
        };
        for entry in entries {
            let entry = entry?;
            let Some(kind) = unless_gone(entry.file_type())? else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                self.folder(&path)?;
            } else if kind.is_file() {
                self.file(&path)
                    .with_context(|| format!("searching {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let Some(content) = unless_gone(fs::read(path))? else {
            return Ok(());
        };
        self.files += 1;
        let place = path.display().to_string();
        // etcd makes the files of its log 64 MB long before there is anything in them.
        self.look_at(&place, Some(path), without_trailing_zeros(&content));
        if let Some(inside) = unpacked(&content) {
            self.look_at(&format!("{place} (unpacked)"), Some(path), &inside);
        }
        if path.extension().is_some_and(|extension| extension == "pack")
            && let Some(repository) = path.ancestors().nth(3)
        {
            self.packed.insert(repository.to_owned());
        }
        Ok(())
    }

    fn look(&mut self, place: &str, content: &[u8]) {
        self.look_at(place, None, content);
    }

    fn look_at(&mut self, place: &str, path: Option<&Path>, content: &[u8]) {
        for captures in self.secrets.pattern.captures_iter(content) {
            let secret = self.secrets.named(&captures);
            let home = secret.and_then(|secret| secret.home.as_deref());
            if let (Some(path), Some(home)) = (path, home)
                && path.starts_with(home)
            {
                continue;
            }
            let what = secret.map_or("a token of OpenBao", |secret| secret.what);
            self.found.insert(format!("{what} is in {place}"));
        }
    }
}

/// Up to the last block that holds anything but zeros. Blocks are compared as a whole, which is fast in any build.
fn without_trailing_zeros(content: &[u8]) -> &[u8] {
    const ZEROS: [u8; 4096] = [0; 4096];
    let last = content
        .rchunks(ZEROS.len())
        .take_while(|block| **block == ZEROS[..block.len()]);
    let zeros: usize = last.map(<[u8]>::len).sum();
    &content[..content.len() - zeros]
}

fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The content of a gzip or zlib stream; none when it is neither.
fn unpacked(content: &[u8]) -> Option<Vec<u8>> {
    let mut inside = Vec::new();
    let read = match content {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(content).read_to_end(&mut inside),
        [0x78, ..] => ZlibDecoder::new(content).read_to_end(&mut inside),
        _ => return None,
    };
    read.is_ok().then_some(inside)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    const SECRET: &str = "0b5f7a4e-canary-9d2c";

    fn search(home: Option<PathBuf>) -> Search {
        let planted = Planted {
            what: "a secret",
            value: SECRET.to_owned(),
            home,
        };
        let other = Planted {
            what: "another",
            value: "something.else(entirely)".to_owned(),
            home: None,
        };
        Search::new(Secrets::new(vec![other, planted]).unwrap())
    }

    fn found_in(text: &str) -> Vec<String> {
        let mut search = search(None);
        search.look("a place", text.as_bytes());
        search.found.into_iter().collect()
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        assert_eq!(found_in(&format!("x{SECRET}x")), ["a secret is in a place"]);
        for user in ["nologin", "ada", "oauth2", "x"] {
            let pair = STANDARD.encode(format!("{user}:{SECRET}"));
            assert_eq!(found_in(&pair), ["a secret is in a place"], "{user}");
        }
        assert_eq!(
            found_in("token: s.abcdefGHIJKL0123456789xy;"),
            ["a token of OpenBao is in a place"]
        );
        assert!(found_in("0b5f7a4e-canary").is_empty());
        assert!(found_in("something-else(entirely)").is_empty());
    }

    #[test]
    fn what_stands_between_other_bytes_is_found() {
        let mut search = search(None);
        search.look(
            "a place",
            &[&[0xff, 0xc3][..], SECRET.as_bytes(), &[0x80]].concat(),
        );
        search.look(
            "another",
            &[&[0xff][..], b"s.abcdefGHIJKL0123456789xy", &[0xc3]].concat(),
        );
        assert_eq!(search.found.len(), 2, "{:?}", search.found);
    }

    #[test]
    fn only_zeros_at_the_end_are_left_out() {
        let written = [&[0; 5000][..], b"last", &[0; 9000]].concat();
        let searched = without_trailing_zeros(&written);
        assert!(searched.len() < 5004 + 4096);
        assert!(searched[..5004].ends_with(b"last"));
        assert!(without_trailing_zeros(&[0; 10_000]).is_empty());
    }

    #[test]
    fn every_file_but_its_home_is_searched_and_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        let home = below.join("home");
        fs::write(&home, SECRET).unwrap();
        fs::write(below.join("plain"), format!("password={SECRET}\n")).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(SECRET.as_bytes()).unwrap();
        fs::write(below.join("layer"), gzip.finish().unwrap()).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(format!("blob 20\0{SECRET}").as_bytes()).unwrap();
        fs::write(below.join("object"), zlib.finish().unwrap()).unwrap();

        let mut search = search(Some(home));
        search.folder(folder.path()).unwrap();
        let place = |name: &str| format!("a secret is in {}", below.join(name).display());
        let expected = [
            format!("{} (unpacked)", place("layer")),
            format!("{} (unpacked)", place("object")),
            place("plain"),
        ];
        assert_eq!(search.found.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(search.files, 4);
    }
}
