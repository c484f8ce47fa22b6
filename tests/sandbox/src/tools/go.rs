//! Programs that Go builds from a module of the sandbox, whose `go.sum` pins every part by its checksum.
//!
//! That may take minutes, so it is done only for who asks. Go keeps each package it has compiled, so a build that was
//! killed goes on where it ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::cache::Cache;
use super::install::Installer;
use super::{outside, search_path};

/// From no module in Go's cache the largest of them takes about five minutes on two cores; where ten others want them too, half an hour.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
/// The first Go that fetches the version that a module asks for.
const SWITCHES_SINCE: Version = [1, 21, 0];

/// The numbers of a version: major, minor, patch.
pub(super) type Version = [u32; 3];

/// One program and the module it is built from.
#[derive(Debug)]
pub(super) struct GoProgram {
    /// What people call it.
    pub(super) title: &'static str,
    /// The name of its file.
    pub(super) name: &'static str,
    /// How the name of its entry in the cache begins.
    pub(super) entry: &'static str,
    /// How the line of `go.mod` begins that has its version.
    pub(super) requirement: &'static str,
    /// The module's files by their names. The first one is `go.mod`.
    pub(super) module: &'static [(&'static str, &'static str)],
    /// What is built of it.
    pub(super) package: &'static str,
    /// The path of the variables that are told the version, as the makers' own build tells them; none where no variable is.
    pub(super) version_variables: Option<&'static str>,
    /// What else is kept of the modules that it is built from: the module, the folder or file in it, and the name here.
    pub(super) keeps: &'static [(&'static str, &'static str, &'static str)],
    /// What is built differently from how it was published.
    pub(super) amendment: Option<&'static Amendment>,
}

/// One text of one source file, and what stands there instead while the program is built: from a copy of its module, since Go
/// has none of its own modules' files replaced.
#[derive(Debug)]
pub(super) struct Amendment {
    pub(super) module: &'static str,
    pub(super) file: &'static str,
    pub(super) published: &'static str,
    pub(super) built: &'static str,
}

impl GoProgram {
    /// The program, when it was built before.
    pub(super) fn in_cache(&self, cache: &Cache) -> Option<PathBuf> {
        Some(cache.entry(&self.entry())?.join(self.name))
    }

    /// What keeps Go from building it, if anything does.
    pub(super) async fn obstacle(&self, cache: &Cache) -> Option<String> {
        let title = self.title;
        if search_path::find("go").is_none() {
            return Some(format!("no Go is on PATH that could build {title}"));
        }
        let mut go = Command::new("go");
        // Elsewhere, a go.mod nearby would have a say in the version.
        go.args(["env", "GOVERSION", "GOTOOLCHAIN"])
            .current_dir(cache.dir());
        let said = match outside::output_of(&mut go, Duration::from_secs(20)).await {
            Ok(said) => said,
            Err(error) => return Some(format!("Go does not work: {error:#}")),
        };
        (!self.builds(&said)).then(|| {
            let [major, minor, patch] = self.go_needed();
            let own = said.lines().next().unwrap_or_default();
            format!("{own} neither is Go {major}.{minor}.{patch}, which builds {title}, nor may fetch it")
        })
    }

    /// Lets Go build it.
    pub(super) async fn install(&self, installer: &Installer<'_>) -> anyhow::Result<PathBuf> {
        let name = self.entry();
        let made = installer.cache.make(installer.lock, &name, async |partial| {
            // Go works on a copy, so that nothing it may want to write ends up in the repository.
            let module = partial.join("module");
            fs::create_dir(&module)?;
            for (name, text) in self.module {
                fs::write(module.join(name), text)?;
            }
            if let Some(amendment) = self.amendment {
                let source = self.folder_of(amendment.module, installer, &module).await?;
                amendment.make(&source, &module)?;
            }
            let mut build = self.go(installer, &module);
            build.args(["build", "-mod=readonly", "-buildvcs=false"]);
            build.arg(format!("-ldflags={}", self.linker_flags()));
            build.arg("-o").arg(partial.join(self.name)).arg(self.package);
            outside::output_of(&mut build, DEADLINE).await?;
            for (origin, from, to) in self.keeps {
                let source = self.folder_of(origin, installer, &module).await?.join(from);
                copy(&source, &partial.join(to))
                    .with_context(|| format!("keeping {from} of the module {origin}"))?;
            }
            Ok(fs::remove_dir_all(module)?)
        });
        let version = self.stated(self.requirement).unwrap_or_default();
        let step = format!("build {} {version} with Go (once)", self.title);
        let entry = installer.progress.step(step, made).await?;
        Ok(entry.join(self.name))
    }

    /// Go, at work on a copy of the module.
    fn go(&self, installer: &Installer<'_>, module: &Path) -> Command {
        let mut go = installer.guardian.command("go");
        go.current_dir(module)
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off");
        go
    }

    /// Where Go keeps the files of one of the modules that this is built from.
    async fn folder_of(
        &self,
        name: &str,
        installer: &Installer<'_>,
        module: &Path,
    ) -> anyhow::Result<PathBuf> {
        let mut list = self.go(installer, module);
        // Go lists a module that it has not fetched without a folder, so it is fetched first. With go.sum there, that is
        // checked like any other.
        list.args(["mod", "download", name]);
        outside::output_of(&mut list, DEADLINE).await?;
        let mut list = self.go(installer, module);
        list.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", name]);
        let folder = outside::output_of(&mut list, DEADLINE).await?;
        Ok(PathBuf::from(folder.trim_end()))
    }

    fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if let Some(variables) = self.version_variables {
            let version = self.stated(self.requirement).unwrap_or_default();
            let [major, minor, _] = parsed(version.trim_start_matches('v')).unwrap_or_default();
            flags.push_str(&format!(
                " -X {variables}.gitVersion={version} -X {variables}.gitMajor={major} -X {variables}.gitMinor={minor}"
            ));
        }
        flags
    }

    /// Whether a Go that says this of its version and its way with other versions can build the module.
    fn builds(&self, said: &str) -> bool {
        let mut lines = said.lines();
        let own = lines
            .next()
            .and_then(|line| line.strip_prefix("go"))
            .and_then(parsed);
        let stays = lines.next().is_none_or(|toolchain| toolchain == "local");
        own.is_some_and(|own| own >= self.go_needed() || (own >= SWITCHES_SINCE && !stays))
    }

    /// The name of its entry in the cache.
    fn entry(&self) -> String {
        let mut sum = Sha256::new();
        for (_, text) in self.module {
            sum.update(text);
        }
        if let Some(Amendment { file, built, .. }) = self.amendment {
            sum.update(file);
            sum.update(built);
        }
        let sum: String = sum
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{}-{sum}-{}", self.entry, std::env::consts::ARCH)
    }

    fn go_needed(&self) -> Version {
        self.stated("go ").and_then(parsed).unwrap_or_default()
    }

    /// What `go.mod` states after a word at a line's start.
    fn stated(&self, word: &str) -> Option<&'static str> {
        let (_, text) = self.module.first()?;
        text.lines()
            .find_map(|line| line.trim_start().strip_prefix(word)?.split(' ').next())
    }
}

impl Amendment {
    /// Copies the module that is at `source`, amended, into the folder of the one that is built, which takes the copy instead.
    fn make(&self, source: &Path, module: &Path) -> anyhow::Result<()> {
        copy(source, &module.join("amended")).with_context(|| format!("copying {}", source.display()))?;
        let file = module.join("amended").join(self.file);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        ensure!(
            text.matches(self.published).count() == 1,
            "{} of {} does not hold {:?} once",
            self.file,
            self.module,
            self.published
        );
        fs::write(&file, text.replace(self.published, self.built))?;
        let requirements = module.join("go.mod");
        let text = fs::read_to_string(&requirements)?;
        Ok(fs::write(
            &requirements,
            format!("{text}\nreplace {} => ./amended\n", self.module),
        )?)
    }
}

/// Copies a file or a whole folder. Go makes its modules' files read-only, which the copies are not.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::write(to, fs::read(from)?)
}

/// The numbers at the start of a version such as `1.26.6`, `1.27rc1` or `1.5.7-dev`.
pub(super) fn parsed(version: &str) -> Option<Version> {
    let mut numbers = [0; 3];
    for (place, (number, part)) in numbers.iter_mut().zip(version.trim().split('.')).enumerate() {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        match part[..digits].parse() {
            Ok(parsed) => *number = parsed,
            Err(_) if place > 0 => break,
            Err(_) => return None,
        }
        if digits < part.len() {
            break;
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::cluster;
    use super::super::referrers_registry::REFERRERS_REGISTRY;
    use super::super::tofu::OPENTOFU;
    use super::*;

    #[test]
    fn a_go_builds_that_is_new_enough_or_may_fetch_a_newer_one() {
        let [major, minor, patch] = OPENTOFU.go_needed();
        assert!(OPENTOFU.builds(&format!("go{major}.{minor}.{patch}\nlocal\n")));
        assert!(OPENTOFU.builds("go1.99rc1\nlocal\n"));
        assert!(OPENTOFU.builds("go1.21.13\nauto\n"));
        assert!(!OPENTOFU.builds("go1.21.13\nlocal\n"));
        // Before there was GOTOOLCHAIN, its line was empty.
        assert!(!OPENTOFU.builds("go1.19.8\n\n"));
        assert!(!OPENTOFU.builds("devel +abc\nauto\n"));
        assert!(!OPENTOFU.builds(""));
    }

    #[test]
    fn each_module_is_pinned() {
        for program in [&OPENTOFU, &REFERRERS_REGISTRY]
            .into_iter()
            .chain(&cluster::PROGRAMS)
        {
            assert_eq!(program.module[0].0, "go.mod");
            assert!(program.go_needed() > SWITCHES_SINCE, "{}", program.name);
            let version = program.stated(program.requirement).unwrap();
            let (_, sums) = program.module.iter().find(|(name, _)| *name == "go.sum").unwrap();
            let module = program.requirement.trim_start_matches("require ");
            let sum = format!("{module}{version} h1:");
            assert!(sums.contains(&sum), "go.sum has no line that starts with {sum}");
        }
    }
}
