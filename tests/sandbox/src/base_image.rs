//! A small base image, made on the spot from a static busybox, so that no build ever pulls anything from outside.
//!
//! The same busybox makes the same bytes: the layer's entries are sorted and carry no time. Deliberately absent: more
//! than one platform, and any transport but the few requests that a push to the sandbox's own registry takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::servers::{Registry, http_client};
use crate::tools::{Tools, outside};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image in memory: a root filesystem with a shell, one layer, for this machine's processor.
#[derive(Clone)]
pub struct BaseImage {
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

#[derive(Clone)]
struct Blob {
    media_type: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

/// Makes the image and pushes it to a registry of the sandbox, as `repository:tag`. Answers its digest.
///
/// # Errors
/// When busybox does not answer, or the registry refuses.
pub async fn push(
    tools: &Tools,
    registry: &Registry,
    credentials: Option<(&str, &str)>,
    repository: &str,
    tag: &str,
) -> anyhow::Result<String> {
    let image = BaseImage::make(tools).await?;
    image.push(registry.host(), credentials, repository, tag).await?;
    Ok(image.digest().to_owned())
}

impl BaseImage {
    /// Makes the image.
    ///
    /// # Errors
    /// When busybox does not say which programs it stands for.
    pub async fn make(tools: &Tools) -> anyhow::Result<Self> {
        let busybox = fs::read(&tools.busybox).context("reading busybox")?;
        let mut list = tokio::process::Command::new(&tools.busybox);
        let programs = outside::output_of(list.arg("--list-full"), Duration::from_secs(20)).await?;
        let tar = root_filesystem(&busybox, &programs)?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        Self::of_layer(gzip.finish()?, &digest_of(&tar))
    }

    /// The digest of its manifest, `sha256:...`.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Pushes it to the registry at `host` (`127.0.0.1:PORT`, plain HTTP), leaving out blobs that are there.
    ///
    /// # Errors
    /// When the registry refuses, or stores other bytes than it was sent.
    pub async fn push(
        &self,
        host: &str,
        credentials: Option<(&str, &str)>,
        repository: &str,
        tag: &str,
    ) -> anyhow::Result<()> {
        let target = Target {
            client: http_client()?,
            repository: Url::parse(&format!("http://{host}/v2/{repository}/"))?,
            credentials,
        };
        for blob in [&self.layer, &self.config] {
            target.put_blob(blob).await?;
        }
        target.put_manifest(&self.manifest, tag).await
    }

    /// Writes it as an OCI image layout (the OCI image specification's `image-layout`), under the name `tag`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_oci_layout(&self, folder: &Path, tag: &str) -> anyhow::Result<()> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        for blob in [&self.layer, &self.config, &self.manifest] {
            fs::write(blobs.join(blob.digest.trim_start_matches("sha256:")), &blob.bytes)?;
        }
        let mut manifest = self.manifest.descriptor();
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        fs::write(folder.join("index.json"), index.to_string())?;
        fs::write(
            folder.join("oci-layout"),
            json!({"imageLayoutVersion": "1.0.0"}).to_string(),
        )?;
        Ok(())
    }

    fn of_layer(layer: Vec<u8>, diff_id: &str) -> anyhow::Result<Self> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("no name is known that images give to the processor {other}"),
        };
        let layer = Blob::new(LAYER, layer);
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": [format!("PATH={SEARCH_PATH}")], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "towpath sandbox: busybox"}],
        });
        let config = Blob::new(CONFIG, config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Blob::new(MANIFEST, manifest.to_string().into_bytes());
        Ok(Self {
            layer,
            config,
            manifest,
        })
    }
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            media_type,
            digest: digest_of(&bytes),
            bytes,
        }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

fn digest_of(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

enum Entry<'a> {
    Folder { mode: u32 },
    File { content: &'a [u8], mode: u32 },
    Link { to: &'static str },
}

/// A tar archive of what a shell, a RUN step and a CI job's script expect to find.
fn root_filesystem(busybox: &[u8], programs: &str) -> anyhow::Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    for program in programs.lines().filter(|path| *path != "linuxrc") {
        entries.insert(program.to_owned(), Entry::Link { to: "/bin/busybox" });
    }
    for folder in [
        "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var",
    ] {
        entries.insert(folder.to_owned(), Entry::Folder { mode: 0o755 });
    }
    for folder in ["tmp", "var/tmp"] {
        entries.insert(folder.to_owned(), Entry::Folder { mode: 0o1777 });
    }
    entries.insert(
        "bin/busybox".to_owned(),
        Entry::File {
            content: busybox,
            mode: 0o755,
        },
    );
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        (
            "etc/os-release",
            "ID=towpath-sandbox\nPRETTY_NAME=\"Towpath sandbox\"\n",
        ),
    ] {
        entries.insert(
            path.to_owned(),
            Entry::File {
                content: text.as_bytes(),
                mode: 0o644,
            },
        );
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let (kind, mode, content): (_, _, &[u8]) = match entry {
            Entry::Folder { mode } => (tar::EntryType::Directory, mode, &[]),
            Entry::File { content, mode } => (tar::EntryType::Regular, mode, content),
            Entry::Link { to } => {
                header.set_link_name(to)?;
                (tar::EntryType::Symlink, 0o777, &[])
            }
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len().try_into()?);
        archive.append_data(&mut header, path, content)?;
    }
    Ok(archive.into_inner()?)
}

/// A repository to push to.
struct Target<'a> {
    client: Client,
    repository: Url,
    credentials: Option<(&'a str, &'a str)>,
}

impl Target<'_> {
    async fn put_blob(&self, blob: &Blob) -> anyhow::Result<()> {
        let there = self.repository.join(&format!("blobs/{}", blob.digest))?;
        if self.request(Method::HEAD, there).send().await?.status() == StatusCode::OK {
            return Ok(());
        }
        let start = self
            .request(Method::POST, self.repository.join("blobs/uploads/")?)
            .send()
            .await?;
        let started = self.accepted(start, StatusCode::ACCEPTED).await?;
        let location = started
            .headers()
            .get(header::LOCATION)
            .context("the registry names no upload location")?;
        let mut location = self.repository.join(location.to_str()?)?;
        if location.origin() != self.repository.origin() {
            bail!(
                "the registry sends an upload to another host: {}",
                location.origin().ascii_serialization()
            );
        }
        location.query_pairs_mut().append_pair("digest", &blob.digest);
        let upload = self
            .request(Method::PUT, location)
            .header(header::CONTENT_TYPE, "application/octet-stream");
        self.accepted(upload.body(blob.bytes.clone()).send().await?, StatusCode::CREATED)
            .await?;
        Ok(())
    }

    async fn put_manifest(&self, manifest: &Blob, tag: &str) -> anyhow::Result<()> {
        let put = self.request(Method::PUT, self.repository.join(&format!("manifests/{tag}"))?);
        let put = put
            .header(header::CONTENT_TYPE, MANIFEST)
            .body(manifest.bytes.clone());
        let answer = self.accepted(put.send().await?, StatusCode::CREATED).await?;
        let stored = answer
            .headers()
            .get("docker-content-digest")
            .and_then(|digest| digest.to_str().ok());
        if stored != Some(&manifest.digest) {
            bail!(
                "{} stored {tag} as {stored:?} instead of {}",
                self.repository,
                manifest.digest
            );
        }
        Ok(())
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.client.request(method, url);
        match self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn accepted(&self, answer: Response, expected: StatusCode) -> anyhow::Result<Response> {
        if answer.status() == expected {
            return Ok(answer);
        }
        let status = answer.status();
        bail!(
            "pushing to {}: {status}: {}",
            self.repository,
            answer.text().await.unwrap_or_default().trim()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_busybox_makes_the_same_image() {
        let make = || {
            let tar = root_filesystem(b"ELF", "bin/sh\nbin/cat\nlinuxrc\n").unwrap();
            BaseImage::of_layer(tar.clone(), &digest_of(&tar))
                .unwrap()
                .digest()
                .to_owned()
        };
        assert_eq!(make(), make());
    }

    #[test]
    fn the_root_filesystem_holds_a_shell_and_a_place_for_temporary_files() {
        let tar = root_filesystem(b"ELF", "bin/sh\nlinuxrc\n").unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries: BTreeMap<String, (u32, Option<String>)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry
                    .link_name()
                    .unwrap()
                    .map(|path| path.to_str().unwrap().to_owned());
                (
                    entry.path().unwrap().to_str().unwrap().to_owned(),
                    (entry.header().mode().unwrap(), link),
                )
            })
            .collect();
        assert_eq!(entries["bin/sh"], (0o777, Some("/bin/busybox".to_owned())));
        assert_eq!(entries["bin/busybox"], (0o755, None));
        assert_eq!(entries["tmp"], (0o1777, None));
        assert!(entries.contains_key("etc/passwd") && !entries.contains_key("linuxrc"));
    }
}
