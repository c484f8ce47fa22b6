//! Programs that come as Debian packages, unpacked without being installed and without root.
//!
//! apt works on a state of its own below a temporary folder, so that the machine's package lists and caches stay as
//! they are; sources and keys are the machine's. Each package brings the libraries that this machine lacks. Pinned
//! packages are checked against their SHA-256. An archive replaces a package when it mends a flaw, so where it no longer offers the
//! pinned version, the one it offers is taken, which apt has checked against the archive's signed index.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::cache::Cache;
use super::install::Installer;
use super::progress::Progress;
use super::{outside, search_path};
use crate::guardian::Guardian;

const DEADLINE: Duration = Duration::from_secs(600);

/// A Debian package that carries a program.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: &'static str,
    /// Where the program may lie in it: releases differ in whether `/bin` is a folder of its own.
    pub(super) programs: &'static [&'static str],
    /// Packages that hold a part of the program.
    pub(super) parts: &'static [&'static str],
}

pub(super) const DOCKER_REGISTRY: Package = Package {
    name: "docker-registry",
    programs: &["usr/bin/docker-registry"],
    parts: &[],
};
pub(super) const RSYNC: Package = Package {
    name: "rsync",
    programs: &["usr/bin/rsync"],
    parts: &[],
};
pub(super) const BUILDAH: Package = Package {
    name: "buildah",
    programs: &["usr/bin/buildah"],
    parts: &[],
};
/// Runs programs of other processors.
pub(super) const QEMU: Package = Package {
    name: "qemu-user-static",
    programs: &["usr/bin/qemu-aarch64-static", "usr/bin/qemu-x86_64-static"],
    parts: &[],
};
pub(super) const BUSYBOX: Package = Package {
    name: "busybox-static",
    programs: &["bin/busybox", "usr/bin/busybox"],
    parts: &[],
};

/// The program is a link to one of `redis-tools`: which of them it is, it tells by its name.
pub(super) const REDIS: Package = Package {
    name: "redis-server",
    programs: &["usr/bin/redis-server"],
    parts: &["redis-tools"],
};

/// One version of a package, by the checksum of its file.
struct Pin {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
}

const fn pin(name: &'static str, version: &'static str, sha256: &'static str) -> Pin {
    Pin {
        name,
        version,
        sha256,
    }
}

/// Debian 12, amd64: the programs, and the libraries that a machine may lack.
#[rustfmt::skip]
const PINS: &[Pin] = &[
    pin("docker-registry", "2.8.2+ds1-1", "a9bd06c0e006854608f8469b4371743f40604ad90975532bb3b7ceeb72fe2913"),
    pin("rsync", "3.5.0+ds1-0+deb12u1", "26ea59ef1c3d05595e9637002ace6f4e00181638b438ecad0f1cf1659ebb67ed"),
    pin("buildah", "1.28.2+ds1-3+deb12u1+b3", "d12d6017f6ba04d8e0f9c3327fc39375f866b05a731522be211057f6df63fbf5"),
    pin("busybox-static", "1:1.35.0-4+deb12u1+b1", "3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744"),
    pin("redis-server", "5:7.0.15-1~deb12u10", "784e17b51024ff878fd7d709a68346658fa9b21f6de740cb75e474f28790971c"),
    pin("redis-tools", "5:7.0.15-1~deb12u10", "f791cfcbf3054832bd6e786546acb0d4e046888f8e63bcf567c1c65fbfaf69e2"),
    pin("libassuan0", "2.5.5-5", "5912430927da16ccc831459679207fdbb9dfc5a206f2bab8d6f36d5a1ab53e25"),
    pin("libdevmapper1.02.1", "2:1.02.185-2", "aaa78ca236055fedccf637eacf7bda02bf1980b2db668dccd202b04d0d2cfe04"),
    pin("libgpgme11", "1.18.0-3+b1", "dc075584050dc5c8ac27563fc222e8c1ea71128a019a6d129d5823e47ac1e55e"),
    pin("libip6tc2", "1.8.9-2", "be88db3dfa2fe3345ea343207f7c75345602686121e579023d021c348b9b4f4d"),
    pin("libjemalloc2", "5.3.0-1", "a4117c23c5c8acf6c9678a6cb086f000b79476369da7efe8a78a70826956ad3d"),
    pin("liblzf1", "3.6-3", "9854b0866201b63e04f1e446f45f01ef4a6f72c61f2250b75f944f6046cc7e8c"),
    pin("libnetfilter-conntrack3", "1.0.9-3", "65f1539238f60fcc85d115acd640474f45c77bfddcf402eb7d75965a783c2bc8"),
    pin("libnfnetlink0", "1.0.2-2", "ae5cbba417ea48f34c1f72c27e8146a81f20614c1296bca2cd7234c8215fddcc"),
    pin("libnftnl11", "1.2.4-2", "9e619e1470a1915264e906020f3bfc046fd8458043b1342686d997b5078213af"),
    pin("libpopt0", "1.19+dfsg-1", "6f94b488255acd996254f775c77ff3956557c61f860a3c9caeaf65457554194f"),
    pin("libseccomp2", "2.5.4-1+deb12u1", "108fe67957ca7cf9ba51d801118a1b37d404bea7b6e365025cd00779e9eca38d"),
    pin("libsubid4", "1:4.13+dfsg1-1+deb12u2", "5c1c214484e57bcfaff4136e6cdbe4e8108776c7159ce7c9087218896a5eb12d"),
];

impl Package {
    /// The name of its entry in the cache. It names the release, since a home may be shared by machines of several.
    pub(super) fn entry(&self) -> String {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |key: &str| {
            release
                .lines()
                .find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"').to_owned()))
        };
        let (id, version) = (
            value("ID=").unwrap_or_default(),
            value("VERSION_ID=").unwrap_or_default(),
        );
        let pinned = PINS
            .iter()
            .find(|pin| pin.name == self.name)
            .map_or("", |pin| pin.version);
        let name = format!("{id}{version}-{}-{}-{pinned}", std::env::consts::ARCH, self.name);
        name.replace(|c: char| !(c.is_ascii_alphanumeric() || "-.+".contains(c)), "_")
    }

    pub(super) fn program_in(&self, entry: &Path) -> Option<PathBuf> {
        self.programs
            .iter()
            .map(|program| entry.join(program))
            .find(|file| search_path::is_program(file))
    }

    /// What keeps this machine from getting packages, if anything does.
    pub(super) fn obstacle() -> Option<String> {
        let absent = |program: &&&str| search_path::find(program).is_none();
        let absent: Vec<&str> = ["apt-get", "apt-cache", "dpkg-deb"]
            .iter()
            .filter(absent)
            .copied()
            .collect();
        (!absent.is_empty()).then(|| {
            format!(
                "no Debian packages can be had here: PATH lacks {}",
                absent.join(", ")
            )
        })
    }

    /// The folder that the package is unpacked in, which is filled unless it is in the cache.
    ///
    /// Several processes may ask at once: one installs, the others wait for it.
    pub(super) async fn find_or_install(&self, progress: &Progress) -> anyhow::Result<PathBuf> {
        let cache = Cache::open()?;
        let name = self.entry();
        if let Some(entry) = cache.entry(&name) {
            return Ok(entry);
        }
        if let Some(why) = Self::obstacle() {
            bail!("{why}");
        }
        let lock = cache.lock(progress).await?;
        // Meanwhile another process may have installed it.
        if let Some(entry) = cache.entry(&name) {
            return Ok(entry);
        }
        let guardian = Guardian::start()?;
        let installed = self
            .install(&Installer::new(&cache, &lock, progress, &guardian))
            .await;
        guardian.stop().await?;
        installed?;
        cache.entry(&name).context("the cache lost what was installed")
    }

    pub(super) async fn install(&self, installer: &Installer<'_>) -> anyhow::Result<PathBuf> {
        // Before the step begins: waiting for one's turn is not working.
        let mut apt = installer.archive.apt.lock().await;
        apt.update().await?;
        let name = self.entry();
        let made = installer.cache.make(installer.lock, &name, async |partial| {
            apt.unpack(self, partial).await
        });
        let entry = installer
            .progress
            .step(format!("unpack Debian's {}", self.name), made)
            .await?;
        self.program_in(&entry)
            .with_context(|| format!("package {} holds no program", self.name))
    }
}

/// Folders below an unpacked package that hold shared libraries, for the loader's search path.
pub(super) fn library_folders(entry: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for base in ["lib", "usr/lib"].map(|base| entry.join(base)) {
        let Ok(below) = fs::read_dir(&base) else { continue };
        folders.extend(
            below
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
        folders.push(base);
    }
    let holds_libraries = |folder: &PathBuf| {
        fs::read_dir(folder).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().contains(".so")))
        })
    };
    folders.retain(holds_libraries);
    folders.sort();
    folders
}

/// The machine's package archive, seen through a private apt. Packages are had one after the other.
pub(super) struct Archive<'a> {
    apt: Mutex<Apt<'a>>,
}

impl<'a> Archive<'a> {
    pub(super) fn new(progress: &'a Progress, guardian: &'a Guardian) -> Self {
        Self {
            apt: Mutex::new(Apt::new(progress, guardian)),
        }
    }
}

pub(super) struct Apt<'a> {
    progress: &'a Progress,
    guardian: &'a Guardian,
    /// Another machine than this one: nothing is installed on it, and its processor has this name of Debian's.
    other: Option<&'static str>,
    /// Written when the lists have been updated, which is done once.
    configuration: Option<PathBuf>,
}

impl<'a> Apt<'a> {
    fn new(progress: &'a Progress, guardian: &'a Guardian) -> Self {
        Self {
            progress,
            guardian,
            other: None,
            configuration: None,
        }
    }

    /// For an empty machine with the processor that Debian calls `architecture`.
    pub(super) fn of_empty(
        progress: &'a Progress,
        guardian: &'a Guardian,
        architecture: &'static str,
    ) -> Self {
        Self {
            other: Some(architecture),
            ..Self::new(progress, guardian)
        }
    }

    /// Downloads what the archive offers of these packages, checked by its signed index, into a folder.
    pub(super) async fn download(&self, names: &[&str], into: &Path) -> anyhow::Result<()> {
        let mut get = self.command("apt-get");
        get.arg("download").args(names).current_dir(into);
        outside::output_of(&mut get, DEADLINE).await?;
        Ok(())
    }

    async fn unpack(&self, package: &Package, into: &Path) -> anyhow::Result<()> {
        let names = self.with_lacking_libraries(package).await?;
        let mut show = self.command("apt-cache");
        let offers = Offer::parse(&outside::output_of(show.arg("show").args(&names), DEADLINE).await?);
        let mut wanted = Vec::new();
        for name in &names {
            wanted.push(match pinned(name, &offers) {
                Some(pin) => format!("{}={}", pin.name, pin.version),
                None => {
                    self.progress.note(format!(
                        "the archive offers no pinned version of {name}: taking what it offers, checked by apt's signed index"
                    ));
                    name.clone()
                }
            });
        }
        let download = tempfile::tempdir_in(self.guardian.dir())?;
        let mut get = self.command("apt-get");
        get.arg("download").args(&wanted).current_dir(download.path());
        outside::output_of(&mut get, DEADLINE).await?;
        let mut unpacked = String::new();
        for file in fs::read_dir(download.path())? {
            let file = file?.path();
            let stem = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let name = stem.split('_').next().unwrap_or_default();
            if let Some(pin) = pinned(name, &offers) {
                check(&file, pin)?;
            }
            let mut unpack = self.guardian.command("dpkg-deb");
            outside::output_of(unpack.arg("--extract").arg(&file).arg(into), DEADLINE).await?;
            unpacked.push_str(&format!("{stem}\n"));
        }
        // Packages set the mode of their root folder, and some of them only root could enter.
        fs::set_permissions(into, fs::Permissions::from_mode(0o755))?;
        Ok(fs::write(into.join("packages.txt"), unpacked)?)
    }

    pub(super) async fn update(&mut self) -> anyhow::Result<()> {
        if self.configuration.is_some() {
            return Ok(());
        }
        let folder = self
            .guardian
            .dir()
            .join(format!("apt-{}", self.other.unwrap_or("own")));
        for below in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let file = folder.join("apt.conf");
        let path = folder
            .to_str()
            .context("the temporary folder's path is not UTF-8")?;
        // Container images add hooks that clear the machine's own caches after each update, and turn off the binary
        // caches without which each call reads all lists anew: neither is wanted here.
        let mut settings = format!(
            "Dir::State \"{path}/state\";\nDir::State::Lists \"{path}/state/lists\";\nDir::Cache \"{path}/cache\";\n\
             Dir::Cache::pkgcache \"pkgcache.bin\";\nDir::Cache::srcpkgcache \"srcpkgcache.bin\";\n\
             APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
             #clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        );
        if let Some(architecture) = self.other {
            fs::write(folder.join("state/status"), "")?;
            settings.push_str(&format!(
                "APT::Architecture \"{architecture}\";\n#clear APT::Architectures;\nAPT::Architectures {{ \"{architecture}\"; }};\n\
                 Dir::State::status \"{path}/state/status\";\n"
            ));
        }
        fs::write(&file, settings)?;
        let mut update = self.guardian.command("apt-get");
        update.arg("-c").arg(&file).args(["-q", "update"]);
        let updated = async { outside::output_of(&mut update, DEADLINE).await };
        self.progress
            .step("read the package lists of this machine's Debian archive", updated)
            .await?;
        self.configuration = Some(file);
        Ok(())
    }

    /// The package, its parts, and the libraries that installing it would add to this machine. Everything else it asks for
    /// (users, services, network plugins) is of no use to a program that is only unpacked.
    async fn with_lacking_libraries(&self, package: &Package) -> anyhow::Result<Vec<String>> {
        let name = package.name;
        let mut simulate = self.command("apt-get");
        simulate.args(["--simulate", "--no-install-recommends", "install", name]);
        let plan = outside::output_of(&mut simulate, DEADLINE).await?;
        let added = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        let libraries = added.filter(|added| added.starts_with("lib") && *added != name);
        Ok(std::iter::once(name)
            .chain(package.parts.iter().copied())
            .chain(libraries)
            .map(str::to_owned)
            .collect())
    }

    fn command(&self, program: &str) -> tokio::process::Command {
        let mut command = self.guardian.command(program);
        // What is parsed must not depend on the user's language.
        command.env("LC_ALL", "C");
        if let Some(configuration) = &self.configuration {
            command.arg("-c").arg(configuration);
        }
        command
    }
}

/// A version that the archive offers, as its index describes it.
struct Offer {
    name: String,
    version: String,
    sha256: String,
}

impl Offer {
    fn parse(stanzas: &str) -> Vec<Self> {
        let field = |stanza: &str, key: &str| {
            stanza
                .lines()
                .find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
                .unwrap_or_default()
        };
        let parse = |stanza| Self {
            name: field(stanza, "Package:"),
            version: field(stanza, "Version:"),
            sha256: field(stanza, "SHA256:"),
        };
        stanzas
            .split("\n\n")
            .filter(|stanza| !stanza.trim().is_empty())
            .map(parse)
            .collect()
    }
}

fn pinned(name: &str, offers: &[Offer]) -> Option<&'static Pin> {
    PINS.iter().find(|pin| {
        pin.name == name
            && offers
                .iter()
                .any(|o| o.name == name && o.version == pin.version && o.sha256 == pin.sha256)
    })
}

fn check(file: &Path, pin: &Pin) -> anyhow::Result<()> {
    let sum = Sha256::digest(fs::read(file)?);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    if sum != pin.sha256 {
        bail!(
            "{} has SHA-256 {sum}, but {} is pinned to {}",
            file.display(),
            pin.name,
            pin.sha256
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "Package: rsync\nVersion: 3.9.9\nSHA256: 00\n\nPackage: libpopt0\nVersion: 1.19+dfsg-1\n\
                         SHA256: 6f94b488255acd996254f775c77ff3956557c61f860a3c9caeaf65457554194f\n\n";

    #[test]
    fn only_the_pinned_file_counts_as_pinned() {
        let mut offers = Offer::parse(INDEX);
        assert_eq!(
            pinned("libpopt0", &offers).map(|pin| pin.version),
            Some("1.19+dfsg-1")
        );
        assert!(
            pinned("rsync", &offers).is_none(),
            "the archive has another version"
        );
        offers[1].sha256 = "11".to_owned();
        assert!(
            pinned("libpopt0", &offers).is_none(),
            "the same version built anew is another file"
        );
    }

    #[test]
    fn a_file_that_differs_from_its_pin_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = pin(
            "x",
            "1",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
        check(file.path(), &empty).unwrap();
        fs::write(file.path(), "y").unwrap();
        let error = check(file.path(), &empty).unwrap_err().to_string();
        assert!(error.contains("but x is pinned to e3b0c442"), "{error}");
    }
}
