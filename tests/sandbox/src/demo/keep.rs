//! A world that is kept for a person to poke.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::Result;

use crate::argocd::Access;
use crate::world::{APPLICATION, ENV, IMAGE, OVERLAY, World};

/// Commands to paste into another shell.
///
/// # Errors
/// When a file with a token cannot be written.
pub(super) async fn how_to_poke(world: &World) -> Result<String> {
    let dir = world.guardian.dir().display();
    let (token, git_credentials) = world.person.write_credentials(world.gitlab.url())?;
    // curl reads the header from a file, so that no list of processes shows the token.
    let header = world.guardian.dir().join("laptop/argocd-header");
    let day = Duration::from_secs(24 * 3600);
    let argocd_token = world.platform.mint_argocd_token("ada", Access::Read, day).await?;
    fs::write(&header, format!("Authorization: Bearer {argocd_token}\n"))?;
    fs::set_permissions(&header, fs::Permissions::from_mode(0o600))?;
    let bump = |verb: &str| {
        format!(
            "{}/kustomize-bump {verb} --repo {} --branch main --path {} --image web",
            world.bin.display(),
            world.gitlab.clone_url(ENV),
            OVERLAY
        )
    };
    Ok(format!(
        "
the world stays up until Ctrl-C; it lives in {dir}. In another shell:
  first        export TOWPATH_GIT_TOKEN=$(cat {token})
  what is set  {get}
  what runs    curl -s -H @{header} {argocd}/api/v1/applications/{APPLICATION} | grep -o '\"images\":[^]]*'
  history      {history}
  release      {release}
  push a tag   git -C {web} -c credential.helper='store --file {store}' push origin HEAD:refs/tags/v1.2.0
Each job that ends is told here. A tag is deployed once the hold is released.
  job logs     ls -t {dir}/logs/jobs
  server logs  ls {dir}/logs
",
        token = token.display(),
        header = header.display(),
        argocd = world.platform.argocd_url(),
        get = bump("get"),
        history = bump("history"),
        release = bump("release"),
        web = world.person.folder(IMAGE).display(),
        store = git_credentials.display(),
    ))
}
