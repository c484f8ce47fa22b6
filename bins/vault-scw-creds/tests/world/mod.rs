//! A real OpenBao that trusts a cluster's service accounts, and the tool as a process beside it.

#![allow(dead_code, reason = "each test binary uses its own part of it")]

pub(crate) mod engine;
pub(crate) mod rotating;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::kubernetes::ApiServer;
use towpath_sandbox::servers::{KubernetesRole, OpenBao};
use towpath_sandbox::tools::{Progress, Tools};

/// What must show up nowhere but in the command's environment.
pub(crate) const SECRET_KEY: &str = "0badcafe-0000-4000-8000-00000000ca01";
/// The secret key of the version before.
pub(crate) const OLD_SECRET_KEY: &str = "0badcafe-0000-4000-8000-00000000ca00";
pub(crate) const ACCESS_KEY: &str = "SCWCANARY00000000001";
pub(crate) const PROJECT: &str = "0badcafe-1111-4111-8111-111111111111";
/// A token that lies about in the environment, as they do.
pub(crate) const STRAY_TOKEN: &str = "s.canary-stray-token-of-somebody";

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) cluster: ApiServer,
    pub(crate) server: OpenBao,
    pub(crate) guardian: Guardian,
    /// What the service account's token file holds.
    pub(crate) jwt: String,
}

impl World {
    /// Two versions of a secret at `secret/ci/scw`, and the role `ci` for the account `gitlab-ci/deployer`.
    pub(crate) async fn start() -> World {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        let cluster = ApiServer::start().await.unwrap();
        cluster.create_service_account("gitlab-ci", "deployer");
        cluster.bind_auth_delegator("gitlab-ci", "deployer");
        let server = OpenBao::start(&guardian, &tools).await.unwrap();
        server
            .enable_kubernetes_auth("kubernetes", &cluster.url())
            .await
            .unwrap();
        let role = KubernetesRole {
            service_accounts: vec!["deployer".to_owned()],
            namespaces: vec!["gitlab-ci".to_owned()],
            audience: Some("vault".to_owned()),
            policies: vec!["ci".to_owned()],
            ttl: "15m".to_owned(),
        };
        server
            .write_kubernetes_role("kubernetes", "ci", &role)
            .await
            .unwrap();
        server.enable_kv("secret").await.unwrap();
        for secret_key in [OLD_SECRET_KEY, SECRET_KEY] {
            let data = json!({
                "access_key": ACCESS_KEY,
                "secret_key": secret_key,
                "project_id": PROJECT,
                "region": "fr-par",
            });
            server.write_secret("secret", "ci/scw", &data).await.unwrap();
        }
        let policy = r#"path "secret/data/ci/*" { capabilities = ["read"] }"#;
        server.write_policy("ci", policy).await.unwrap();
        let jwt = cluster
            .mint_service_account_token("gitlab-ci", "deployer", &["vault"], HOUR)
            .unwrap();
        let world = World {
            cluster,
            server,
            guardian,
            jwt,
        };
        std::fs::write(world.jwt_file(), format!("{}\n", world.jwt)).unwrap();
        world
    }

    pub(crate) async fn stop(self) {
        self.guardian.stop().await.unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.guardian.dir().join(name)
    }

    pub(crate) fn jwt_file(&self) -> PathBuf {
        self.path("jwt")
    }

    /// The folder that the tool's temporary files are in.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.path("tmp")
    }

    /// The tool with nothing in its environment but what reaches this server, and a stray token.
    pub(crate) fn tool(&self) -> tokio::process::Command {
        let mut command = tool();
        command
            .env("VAULT_ADDR", self.server.address())
            .env("TOWPATH_VAULT_ROLE", "ci")
            .env("TOWPATH_JWT_FILE", self.jwt_file())
            .env("TOWPATH_SECRET", "secret/ci/scw")
            .env("VAULT_TOKEN", STRAY_TOKEN)
            .env("TMPDIR", self.tmp());
        command
    }

    /// Runs `exec` with these flags and a shell script.
    pub(crate) async fn exec(&self, flags: &[&str], script: &str) -> Ran {
        let mut command = self.tool();
        command.arg("exec").args(flags).args(["--", "sh", "-c", script]);
        run(command).await
    }

    /// The accessors of all tokens that are alive, sorted.
    pub(crate) async fn tokens(&self) -> Vec<String> {
        let list = self.server.read("auth/token/accessors?list=true").await.unwrap();
        let mut tokens: Vec<String> = list["data"]["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|accessor| accessor.as_str().unwrap().to_owned())
            .collect();
        tokens.sort();
        tokens
    }

    /// The paths of all requests that the server has audited so far, as `operation path`.
    pub(crate) fn audited(&self) -> Vec<String> {
        std::fs::read_to_string(self.server.audit_log())
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|entry| entry["type"] == "request")
            .map(|entry| {
                let text = |name: &str| entry["request"][name].as_str().unwrap().to_owned();
                format!("{} {}", text("operation"), text("path"))
            })
            .collect()
    }
}

/// The tool with an empty environment.
pub(crate) fn tool() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_vault-scw-creds"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a run printed, and its code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The report.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails if a secret, raw or in base64, is in either stream.
    pub(crate) fn assert_discreet(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(!self.stdout.contains(secret), "standard output holds {secret}");
            assert!(!self.stderr.contains(secret), "standard error holds {secret}");
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) async fn run(mut command: tokio::process::Command) -> Ran {
    command.output().await.unwrap().into()
}

/// Waits until a file has `lines` whole lines, and gives back its text.
pub(crate) async fn wait_for_lines(path: &Path, lines: usize) -> String {
    for _ in 0..12000 {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.matches('\n').count() >= lines
        {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} does not get {lines} lines", path.display());
}

/// Makes a running tool panic when its command next prints something that has to be masked: another thread is to pass
/// it on, and there is no room for its stack any more. What the runtime does then is to panic, in the middle of what
/// holds lease, key and files. There stays room for all else.
///
/// The limit is the process's own, as a machine may set one; the command has started and is free of it.
pub(crate) fn make_it_panic(pid: u32) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    /// Half of a thread's stack, and more than the tool asks for besides.
    const ROOM: u64 = 1024 * 1024;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let limit = Rlimit {
        current: Some(kibibytes * 1024 + ROOM),
        maximum: None,
    };
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    prlimit(pid, Resource::As, limit).unwrap();
}

/// Waits until a process has ended, be it that nobody has asked for its exit code yet.
pub(crate) async fn wait_for_end(pid: &str) {
    for _ in 0..6000 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if stat
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{pid} goes on");
}

/// What is in a folder.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
