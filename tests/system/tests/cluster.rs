//! A real Kubernetes and a real Argo CD: what the stand-ins stand for is so.
//!
//! These run where the cluster's tools are in the cache. Elsewhere each says that it was left out, and passes; with
//! `TOWPATH_CLUSTER=1` it fails.

// Helpers outside of #[test] functions are tests all the same.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use towpath_sandbox::cluster::Cluster;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::kubernetes::API_AUDIENCES;
use towpath_sandbox::servers::{KubernetesRole, OpenBao, http_client};
use towpath_sandbox::tools::{ClusterTools, Progress, Tools};
use towpath_sandbox::towpath_binaries;

const HOUR: Duration = Duration::from_secs(3600);
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster takes more than a gigabyte: one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What a cluster is made of, and the turn to start one; none where the test is left out.
async fn cluster_tools(test: &str) -> Option<(ClusterTools, MutexGuard<'static, ()>)> {
    let Some(tools) = ClusterTools::find().await.unwrap() else {
        let why = "the cluster's tools are not in the cache: `cargo demo -- --cluster` builds them";
        assert!(std::env::var_os("TOWPATH_CLUSTER").is_none(), "{why}");
        // Not by a macro that the test harness keeps to itself.
        let _ = writeln!(std::io::stderr(), "{test} is left out: {why}");
        return None;
    };
    Some((tools, ALONE.lock().await))
}

async fn log_in(openbao: &OpenBao, jwt: &str) -> (u16, Value) {
    let url = format!("{}/v1/auth/kubernetes/login", openbao.address());
    let body = json!({"role": "image", "jwt": jwt});
    let answer = http_client().unwrap().post(url).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "current_thread")]
async fn openbao_has_the_api_server_judge_the_tokens_that_it_issued() {
    let Some((parts, _alone)) = cluster_tools("a login by a service account").await else {
        return;
    };
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let openbao = OpenBao::start(&guardian, &tools).await.unwrap();
    let cluster = Cluster::start(&guardian, &tools, &parts).await.unwrap();
    openbao
        .enable_kubernetes_auth_by("kubernetes", cluster.url(), cluster.authority())
        .await
        .unwrap();
    let role = KubernetesRole {
        service_accounts: vec!["image".to_owned()],
        namespaces: vec!["gitlab-runner".to_owned()],
        audience: Some("vault".to_owned()),
        policies: vec!["default".to_owned()],
        ttl: "15m".to_owned(),
    };
    openbao
        .write_kubernetes_role("kubernetes", "image", &role)
        .await
        .unwrap();
    for name in ["image", "other"] {
        cluster
            .create_service_account("gitlab-runner", name)
            .await
            .unwrap();
        cluster.bind_auth_delegator("gitlab-runner", name).await.unwrap();
    }
    let mint = async |name: &str, audiences: &[&str]| {
        cluster
            .mint_service_account_token("gitlab-runner", name, audiences, HOUR)
            .await
            .unwrap()
    };

    let token = mint("image", &API_AUDIENCES).await;
    let (status, answer) = log_in(&openbao, &token).await;
    assert_eq!(status, 200, "{answer}");
    let account = &answer["auth"]["metadata"]["service_account_name"];
    assert_eq!(account, "image");

    let (status, _) = log_in(&openbao, &mint("other", &API_AUDIENCES).await).await;
    assert_eq!(status, 403, "the role is for another account");
    let (status, _) = log_in(&openbao, &mint("image", &["elsewhere"]).await).await;
    assert_eq!(status, 403, "the token is for another audience");
    let (head, _) = token.rsplit_once('.').unwrap();
    let (status, _) = log_in(&openbao, &format!("{head}.{}", "A".repeat(86))).await;
    assert_eq!(status, 403, "the signature is not the API server's");

    cluster
        .delete("/api/v1/namespaces/gitlab-runner/serviceaccounts/image")
        .await
        .unwrap();
    cluster
        .create_service_account("gitlab-runner", "image")
        .await
        .unwrap();
    // The API server remembers for ten seconds whom it has let in.
    let start = Instant::now();
    while log_in(&openbao, &token).await.0 != 403 {
        assert!(
            start.elapsed() < PATIENCE,
            "the account is another one of the same name"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop((cluster, openbao));
    guardian.stop().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_of_a_cluster_listens_on_more_than_loopback_and_nothing_stays() {
    let Some((parts, _alone)) = cluster_tools("where a cluster listens").await else {
        return;
    };
    let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
    let guardian = Guardian::start().unwrap();
    let folder = guardian.dir().to_owned();
    let mut cluster = Cluster::start(&guardian, &tools, &parts).await.unwrap();
    assert_eq!(cluster.ended(), Vec::<String>::new());
    let own = inodes_of_world(guardian.id());
    let listening: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listeners(&fs::read_to_string(table).unwrap()))
        .filter(|(_, inode)| own.contains(inode))
        .map(|(address, _)| address)
        .collect();
    assert!(!listening.is_empty(), "the API server listens");
    let elsewhere: Vec<&String> = listening
        .iter()
        .filter(|address| !address.starts_with("0100007F:"))
        .collect();
    assert!(elsewhere.is_empty(), "not on 127.0.0.1: {elsewhere:?}");

    let world = guardian.id().to_owned();
    drop(cluster);
    guardian.stop().await.unwrap();
    assert!(!folder.exists());
    assert!(inodes_of_world(&world).is_empty(), "a process is left");
}

/// The sockets that the processes of a world have open.
fn inodes_of_world(id: &str) -> Vec<String> {
    let mark = format!("{}={id}", towpath_sandbox::guardian::WORLD_VARIABLE);
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let of_world = processes.filter(|process| {
        fs::read(process.join("environ")).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        })
    });
    of_world
        .filter_map(|process| fs::read_dir(process.join("fd")).ok())
        .flat_map(|descriptors| descriptors.flatten())
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// Address and inode of each listening socket of a table of the kernel's.
fn listeners(table: &str) -> Vec<(String, String)> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            (fields.get(3) == Some(&LISTEN)).then(|| (fields[1].to_owned(), fields[9].to_owned()))
        })
        .collect()
}

#[tokio::test(flavor = "current_thread")]
async fn the_demo_runs_on_a_cluster() {
    let Some((_, _alone)) = cluster_tools("the demo on a cluster").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let demo = Command::new(towpath_binaries::build_demo().unwrap())
        .args(["--cluster", "--report"])
        .arg(&report)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stdout);
    assert!(
        demo.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&demo.stderr)
    );
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let steps = report["steps"].as_array().unwrap();
    for step in [
        "pull secret applied to the namespace",
        "it logs in to the production registry",
        "argocd-wait says why it does not run",
        "cluster runs the first digest alone",
        "hold refuses to deploy v1.2.0",
        "hold released, v1.2.0 let through",
    ] {
        assert!(
            steps
                .iter()
                .any(|done| done["name"] == step && done["ok"] == true),
            "no step {step:?} in {report}"
        );
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "the report alone is left: {left:?}");
}
