//! The secret with which nodes pull: made by `vault-scw-creds` for the key in OpenBao, and applied to the namespace.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::timeline::Timeline;
use crate::cluster::Cluster;
use crate::servers::http_client;
use crate::world::{ENV, NAMESPACE, World};

/// What the example's Deployment calls it.
const NAME: &str = "registry";

/// Writes it, applies it, removes the file, and checks that what the cluster has logs in to the registry.
pub(super) async fn hand_over(world: &World, cluster: &Cluster, timeline: &mut Timeline) -> Result<()> {
    timeline.begin("pull secret written by vault-scw-creds", ENV);
    let file = world.guardian.dir().join("laptop/pull-secret.yaml");
    let registry = world.production.host();
    let mut write = world.by_hand("vault-scw-creds");
    write.args(["write", "--pull-secret-name", NAME, "--registry-login", registry]);
    write.arg("--pull-secret").arg(&file).envs(world.vault_login());
    succeed(&mut write, "vault-scw-creds write").await?;
    timeline.done(None);

    timeline.begin("pull secret applied to the namespace", ENV);
    let mut apply = world.guardian.bare_command(&world.tools.kubectl);
    apply
        .args(["apply", "--namespace", NAMESPACE, "--filename"])
        .arg(&file);
    apply.env("KUBECONFIG", cluster.kubeconfig());
    succeed(&mut apply, "kubectl apply").await?;
    let mut revoke = world.by_hand("vault-scw-creds");
    revoke.arg("revoke").arg("--pull-secret").arg(&file);
    succeed(&mut revoke, "vault-scw-creds revoke").await?;
    ensure!(
        !fs::read_to_string(&file).is_ok_and(|left| left.contains("dockerconfigjson:")),
        "the pull secret is still in {}",
        file.display()
    );
    timeline.done(None);

    timeline.begin("it logs in to the production registry", ENV);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}");
    let secret = cluster.read(&path).await?;
    let (user, password) = login(&secret, registry).context("reading the pull secret")?;
    let answer = http_client()?
        .get(format!("http://{registry}/v2/"))
        .basic_auth(user, Some(password))
        .send()
        .await?;
    ensure!(
        answer.status().is_success(),
        "the registry answers {} to the pull secret's login",
        answer.status()
    );
    timeline.done(None);
    Ok(())
}

/// The user name and the password that a pull secret has for a registry.
fn login(secret: &Value, registry: &str) -> Result<(String, String)> {
    ensure!(
        secret["type"] == "kubernetes.io/dockerconfigjson",
        "it is of type {}",
        secret["type"]
    );
    let decoded = |value: &Value| -> Result<Vec<u8>> {
        let text = value.as_str().context("a field is missing")?;
        STANDARD.decode(text).context("a field is no base64")
    };
    let configuration: Value = serde_json::from_slice(&decoded(&secret["data"][".dockerconfigjson"])?)?;
    let login = String::from_utf8(decoded(&configuration["auths"][registry]["auth"])?)?;
    let (user, password) = login.split_once(':').context("the login has no colon")?;
    Ok((user.to_owned(), password.to_owned()))
}

async fn succeed(command: &mut tokio::process::Command, what: &str) -> Result<()> {
    let output = command
        .output()
        .await
        .with_context(|| format!("running {what}"))?;
    ensure!(
        output.status.success(),
        "{what} failed: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
