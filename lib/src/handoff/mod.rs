//! What one job leaves for the next: a dotenv report within GitLab's grammar and limits.
//!
//! Source: GitLab documentation, "CI/CD YAML syntax reference", `artifacts:reports:dotenv`, and its limits in
//! "Instance limits": at most 5 KB and 20 variables, one `KEY=value` a line, no blank or comment line, no quoting. A
//! `$` in a value would be expanded by the job that receives it, so no value may hold one. The report can be
//! downloaded and is not masked: it never holds a secret.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use crate::bounded;
use crate::failure::{Failure, Result};
use crate::secret::redact;

/// GitLab's limit on the size of a dotenv report, in bytes.
const SIZE_LIMIT: usize = 5 * 1024;
/// GitLab's limit on the number of variables of a self-managed instance.
const COUNT_LIMIT: usize = 20;

const PLACE_HINT: &str = "point --handoff (TOWPATH_HANDOFF) to a file in a folder that is there and writable";

/// The image repository without a tag: `registry.example.com/team/app`.
pub const IMAGE_REPOSITORY: &str = "IMAGE_REPOSITORY";
/// The tag it was built for.
pub const IMAGE_TAG: &str = "IMAGE_TAG";
/// The digest: `sha256:...`.
pub const IMAGE_DIGEST: &str = "IMAGE_DIGEST";
/// The whole reference by digest: `registry.example.com/team/app@sha256:...`.
pub const IMAGE_REF: &str = "IMAGE_REF";
/// The path of the project it was built from.
pub const SOURCE_PROJECT: &str = "SOURCE_PROJECT";
/// The commit it was built from.
pub const SOURCE_COMMIT: &str = "SOURCE_COMMIT";
/// The commit of the environment repository that sets the image.
pub const ENV_COMMIT: &str = "ENV_COMMIT";
/// What became of that commit: `ready`, or why it does not run.
pub const ENV_VERDICT: &str = "ENV_VERDICT";
/// Seconds from that commit until it was synced.
pub const ENV_SYNCED_SECONDS: &str = "ENV_SYNCED_SECONDS";
/// Seconds from then until it was healthy.
pub const ENV_HEALTHY_SECONDS: &str = "ENV_HEALTHY_SECONDS";
/// The W3C trace that the delivery belongs to.
pub const TRACEPARENT: &str = "TRACEPARENT";

/// Variables for the next job. Sorted by name, so that the same values give the same file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handoff {
    variables: BTreeMap<String, String>,
}

impl Handoff {
    /// Nothing handed over yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable, or replaces it.
    ///
    /// # Errors
    /// Input (exit 3), naming the variable, when name or value are outside GitLab's grammar; internal when the value
    /// is a known secret.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let name_is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !name_is_plain {
            return Err(
                Failure::input(format!("a handoff variable cannot be called {name:?}"))
                    .hint("names hold letters, digits and underscores"),
            );
        }
        if let Some(bad) = value.chars().find(|c| c.is_control() || *c == '$') {
            return Err(
                Failure::input(format!("the handoff variable {name} holds {bad:?}"))
                    .hint("GitLab's dotenv reports take neither line breaks nor variable references"),
            );
        }
        if redact(value) != value {
            return Err(Failure::internal(format!(
                "the handoff variable {name} would disclose a secret"
            )));
        }
        self.variables.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Takes a variable out, if it is there.
    pub fn remove(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// All variables by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Reads a dotenv report as strictly as GitLab does.
    ///
    /// # Errors
    /// Input (exit 3), naming `origin` and the line.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        check_size(text.len(), origin)?;
        let mut handoff = Handoff::new();
        for (index, line) in text.lines().enumerate() {
            let (name, value) = line.split_once('=').ok_or_else(|| {
                Failure::input(format!("{origin}, line {}: not KEY=value", index + 1))
                    .hint("dotenv reports hold no blank and no comment lines")
            })?;
            handoff.set(name, value).map_err(|failure| {
                Failure::input(format!("{origin}, line {}", index + 1)).because(failure)
            })?;
        }
        handoff.check_count(origin)?;
        Ok(handoff)
    }

    /// Reads a dotenv file.
    ///
    /// # Errors
    /// Not found (exit 5) when it is not there; usage (exit 2) when it cannot be read; as [`Handoff::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let text = bounded::read_text(path, SIZE_LIMIT as u64).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::not_found(format!("there is no handoff file {origin}"))
                .hint("is it an artifact of the job before, and does this job need that job?"),
            ErrorKind::InvalidData | ErrorKind::FileTooLarge => {
                Failure::input(format!("{origin} is not a dotenv report as GitLab takes it"))
                    .because(error)
                    .hint("name the file that a tool before wrote with --handoff (TOWPATH_HANDOFF)")
            }
            _ => Failure::usage(format!("cannot read the handoff file {origin}"))
                .because(error)
                .hint("name a readable file by --handoff (TOWPATH_HANDOFF)"),
        })?;
        Self::parse(&text, &origin)
    }

    /// Reads a dotenv file to add to it; nothing handed over yet when it is not there.
    ///
    /// # Errors
    /// As [`Handoff::read`], but for a file that is not there.
    pub fn read_or_new(path: &Path) -> Result<Self> {
        match path.try_exists() {
            Ok(false) => Ok(Handoff::new()),
            _ => Self::read(path),
        }
    }

    /// Checks that a file can be written at `path`, and leaves nothing there: a tool asks before it acts, since what it
    /// did would be lost to the next job.
    ///
    /// # Errors
    /// Usage (exit 2) when it cannot.
    pub fn check_place(path: &Path) -> Result<()> {
        if path.is_dir() {
            return Err(
                Failure::usage(format!("the handoff file {} is a folder", path.display())).hint(PLACE_HINT),
            );
        }
        match bounded::check_regular(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(
                    Failure::usage(format!("cannot write the handoff file {}", path.display()))
                        .because(error)
                        .hint(PLACE_HINT),
                );
            }
            _ => {}
        }
        temporary_beside(path).map(drop)
    }

    /// Writes the dotenv file, whole or not at all.
    ///
    /// # Errors
    /// Input (exit 3) when it would pass GitLab's limits; usage (exit 2) when no file can be made there; internal when it
    /// cannot be written, such as on a full disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        use std::io::Write as _;
        let origin = path.display().to_string();
        self.check_count(&origin)?;
        let text: String = self
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        check_size(text.len(), &origin)?;
        let broke = |error: std::io::Error| {
            Failure::internal(format!("cannot write the handoff file {origin}"))
                .because(error)
                .hint("is the disk full?")
        };
        let mut file = temporary_beside(path)?;
        file.write_all(text.as_bytes()).map_err(broke)?;
        file.persist(path).map_err(|error| broke(error.error))?;
        Ok(())
    }

    fn check_count(&self, origin: &str) -> Result<()> {
        if self.variables.len() > COUNT_LIMIT {
            let count = self.variables.len();
            return Err(Failure::input(format!(
                "{origin} holds {count} variables; GitLab takes {COUNT_LIMIT}"
            )));
        }
        Ok(())
    }
}

/// Artifacts are uploaded by another process, so the file is for everyone to read.
fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(|error| {
            // The name that the temporary file would have had stands around the reason, and tells nobody anything.
            let reason = error.get_ref().and_then(|error| error.source());
            let reason = reason.map_or_else(|| error.to_string(), ToString::to_string);
            Failure::usage(format!("cannot write the handoff file {}", path.display()))
                .because(reason)
                .hint(PLACE_HINT)
        })
}

fn check_size(size: usize, origin: &str) -> Result<()> {
    if size >= SIZE_LIMIT {
        return Err(Failure::input(format!(
            "{origin} has {size} bytes; GitLab takes less than {SIZE_LIMIT}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handoff.env");
        let mut handoff = Handoff::new();
        handoff.set(IMAGE_TAG, "1.2.3").unwrap();
        handoff
            .set(IMAGE_REPOSITORY, "registry.example.com/team/app")
            .unwrap();
        handoff.set(SOURCE_COMMIT, "0123").unwrap();
        handoff.remove(SOURCE_COMMIT);
        handoff.remove(SOURCE_PROJECT);
        handoff.write(&path).unwrap();
        assert_eq!(Handoff::read(&path).unwrap(), handoff);
        assert_eq!(Handoff::read_or_new(&path).unwrap(), handoff);
        assert_eq!(
            Handoff::read_or_new(&folder.path().join("absent.env")).unwrap(),
            Handoff::new()
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "IMAGE_REPOSITORY=registry.example.com/team/app\nIMAGE_TAG=1.2.3\n"
        );
    }

    #[test]
    fn what_gitlab_would_refuse_or_expand_is_refused() {
        for text in [
            "\n",
            "# comment\n",
            "NAME\n",
            "A B=1\n",
            "=1\n",
            "A=$HOME\n",
            "A=one\rtwo\n",
        ] {
            let failure = Handoff::parse(text, "handoff.env").expect_err(text);
            assert_eq!(failure.kind(), Kind::Input, "{text:?}");
            assert!(failure.message().contains("handoff.env"));
        }
        let many: String = (0..21).map(|n| format!("V{n}=1\n")).collect();
        assert!(Handoff::parse(&many, "handoff.env").is_err());
        assert!(Handoff::parse(&format!("A={}\n", "x".repeat(6000)), "handoff.env").is_err());
    }

    #[test]
    fn what_is_no_handoff_is_told_from_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handoff.env");
        assert_eq!(Handoff::read(&path).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(Handoff::read(folder.path()).unwrap_err().kind(), Kind::Usage);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(Handoff::read(&path).unwrap_err().kind(), Kind::Input);
        assert_eq!(
            Handoff::read(Path::new("/dev/zero")).unwrap_err().kind(),
            Kind::Input
        );
    }

    #[test]
    fn a_place_is_checked_without_leaving_anything_there() {
        let folder = tempfile::tempdir().unwrap();
        Handoff::check_place(&folder.path().join("handoff.env")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for wrong in [folder.path().to_owned(), folder.path().join("absent/handoff.env")] {
            assert_eq!(Handoff::check_place(&wrong).unwrap_err().kind(), Kind::Usage);
            assert!(Handoff::new().write(&wrong).is_err());
        }
        let device = Handoff::check_place(Path::new("/dev/null"));
        assert_eq!(device.unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_secret_is_never_handed_over() {
        let _secret = crate::secret::Secret::new("canary-of-the-handoff-test");
        assert!(Handoff::new().set("TOKEN", "canary-of-the-handoff-test").is_err());
    }
}
