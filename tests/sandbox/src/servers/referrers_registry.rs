//! A registry with the referrers API: go-containerregistry's, built by Go when the first test asks for one.
//!
//! What it does otherwise than docker-registry: whatever blob one repository has, all have; it mounts nothing (the answer
//! is an upload session); an upload cannot be given back or asked for its offset; a part of a blob is served only when
//! the range names its end; nobody needs a password.

use std::fs;
use std::path::Path;

use super::process::Process;
use crate::guardian::Guardian;
use crate::tools::{Progress, referrers_registry};

/// A running registry. It ends when this is dropped.
#[derive(Debug)]
pub struct ReferrersRegistry {
    process: Process,
    host: String,
}

/// A request that a server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The method, such as `GET`.
    pub method: String,
    /// The path with its query, as the client wrote it.
    pub uri: String,
    /// The answer's status.
    pub status: u16,
}

impl ReferrersRegistry {
    /// Starts a registry, after Go has built it if need be. Where there is no Go that could, standard error says so and
    /// the answer is `None`: a test has nothing to test then.
    ///
    /// # Errors
    /// When it cannot be built with the Go that is there, or does not come up; with the last lines of its log.
    pub async fn start(guardian: &Guardian, name: &str) -> anyhow::Result<Option<Self>> {
        let Some(program) = referrers_registry::find_or_build(&Progress::lines()).await? else {
            return Ok(None);
        };
        let blobs = guardian.dir().join(name);
        fs::create_dir_all(&blobs)?;
        let mut command = guardian.bare_command(program);
        command.arg(&blobs);
        let process = Process::start(guardian, name, command).await?;
        Ok(Some(Self {
            host: process.address().to_string(),
            process,
        }))
    }

    /// Where it listens, as it stands in an image's name: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// That it has ended by itself, with the last lines of its log; none while it runs.
    pub fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }

    /// Its log, which holds a line for each request that was answered: method, path with query, status.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// The requests it has answered so far, in that order. A body of more than some KiB can be there before its line.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn requests(&self) -> anyhow::Result<Vec<Logged>> {
        let log = fs::read_to_string(self.log())?;
        Ok(log.lines().filter_map(Logged::parse).collect())
    }
}

impl Logged {
    /// Reads a line of three words; none when it is another kind of line.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (method, uri, status) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        (uri.starts_with('/') && words.next().is_none()).then(|| Self {
            method: method.to_owned(),
            uri: uri.to_owned(),
            status,
        })
    }
}
