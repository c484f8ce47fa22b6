//! How every git process is started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::remote::{Location, Remote};
use crate::deadline::Deadline;
use crate::failure::{Failure, Result};
use crate::http::authority;
use crate::process::{Command, Ended};

/// How long one exchange with a server may take.
const NETWORK_LIMIT: Duration = Duration::from_secs(180);
/// How long one command on this machine may take.
const LOCAL_LIMIT: Duration = Duration::from_secs(60);

/// With less room than this, in bytes, a failure of git is put down to the disk.
const LITTLE_ROOM: u64 = 16 * 1024 * 1024;

/// Variables that carry the credentials to the helper.
const HELPER_USER: &str = "TOWPATH_GIT_HELPER_USER";
const HELPER_TOKEN: &str = "TOWPATH_GIT_HELPER_TOKEN";

/// Prints the credentials when asked for them; git hands the word `get` to it as the last argument.
const HELPER: &str = concat!(
    "!f() { if test \"$1\" = get; then ",
    "printf 'username=%s\\npassword=%s\\n' \"$TOWPATH_GIT_HELPER_USER\" \"$TOWPATH_GIT_HELPER_TOKEN\"; fi; }; f"
);

/// Settings of the user that would harm here: a hook or a signature stops a run that nobody watches, and a protocol
/// that names a command to run has no place in an address.
const SETTINGS: [&str; 19] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.logAllRefUpdates=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "push.followTags=false",
    "submodule.recurse=false",
    "protocol.version=2",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
    "i18n.commitEncoding=UTF-8",
    "i18n.logOutputEncoding=UTF-8",
    "log.showSignature=false",
];

/// Variables that would point git at another repository, or make it tell secrets.
const FOREIGN: [&str; 14] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_TRACE",
    "GIT_TRACE_CURL",
    "GIT_TRACE_PACKET",
    "GIT_TRACE2",
    "GIT_TRACE2_EVENT",
    "GIT_CURL_VERBOSE",
    "GIT_TEMPLATE_DIR",
];

/// Starts git processes in one folder, with one set of credentials.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    folder: PathBuf,
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
    deadline: Deadline,
}

impl Runner {
    /// For a folder on this machine, without credentials.
    pub(super) fn local(folder: impl Into<PathBuf>, deadline: Deadline) -> Self {
        Runner {
            folder: folder.into(),
            settings: Vec::new(),
            environment: Vec::new(),
            deadline,
        }
    }

    /// For a folder whose contents come from `remote`.
    pub(super) fn remote(folder: impl Into<PathBuf>, remote: &Remote, deadline: Deadline) -> Self {
        let mut runner = Self::local(folder, deadline);
        let access = remote.access();
        if let Some(path) = &access.ca_file {
            runner.settings.push(format!("http.sslCAInfo={}", path.display()));
        }
        if let (Some(credentials), Location::Http(url)) = (&access.credentials, remote.location()) {
            // The empty helper drops all that the user's configuration names: none may store this token. The scope
            // keeps ours silent when the server sends git elsewhere.
            let scope = format!("{}://{}", url.scheme(), authority(url));
            runner.settings.push("credential.helper=".to_owned());
            runner
                .settings
                .push(format!("credential.{scope}.helper={HELPER}"));
            runner
                .environment
                .push((HELPER_USER, credentials.user().to_owned()));
            runner
                .environment
                .push((HELPER_TOKEN, credentials.token().expose().to_owned()));
        }
        runner
    }

    /// Where it works.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the disk has room for what git fetches. git takes away again what it could not finish, so this errs on
    /// the side of too little: it is asked only when something failed for no reason that the server knows.
    pub(super) fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.folder).map_or(true, |disk| {
            // Some file systems count no files at all.
            let has_files = disk.f_files == 0 || disk.f_favail > 0;
            disk.f_bavail.saturating_mul(disk.f_frsize) >= LITTLE_ROOM && has_files
        })
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }

    pub(super) fn network_deadline(&self) -> Deadline {
        self.deadline.within(NETWORK_LIMIT)
    }

    pub(super) fn local_deadline(&self) -> Deadline {
        self.deadline.within(LOCAL_LIMIT)
    }

    /// `git <subcommand>`, ready for its arguments.
    pub(super) fn git(&self, subcommand: &str) -> Command {
        self.git_with(&[], subcommand)
    }

    /// The same with more settings.
    pub(super) fn git_with(&self, settings: &[&str], subcommand: &str) -> Command {
        let mut command = Command::new("git").current_dir(&self.folder);
        for setting in SETTINGS
            .iter()
            .copied()
            .chain(self.settings.iter().map(String::as_str))
            .chain(settings.iter().copied())
        {
            command = command.arg("-c").arg(setting);
        }
        command = command.arg(subcommand);
        for name in FOREIGN {
            command = command.env_remove(name);
        }
        // Nobody can answer: a child in its own process group that reads from the terminal would be stopped.
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "false"),
            ("SSH_ASKPASS", "false"),
            ("SSH_ASKPASS_REQUIRE", "force"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("LC_ALL", "C"),
        ] {
            command = command.env(name, value);
        }
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        command
    }

    /// Runs a command that can only fail for reasons of this machine.
    ///
    /// # Errors
    /// Internal (exit 1) with what git said.
    pub(super) async fn local_output(&self, what: &str, command: Command) -> Result<Ended> {
        let ended = command.capture(self.local_deadline()).await?;
        if ended.success() {
            return Ok(ended);
        }
        Err(Failure::internal(format!("git cannot {what}: {}", ended.tail)))
    }
}
