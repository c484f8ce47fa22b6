//! What the recipes expect around a job: GitLab, Vault, a registry, Object Storage, and the programs on `PATH`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use towpath_sandbox::cluster::Cluster;
use towpath_sandbox::gitlab::{CiVariable, PipelineSnapshot, ProjectSettings};
use towpath_sandbox::jwt::Signer;
use towpath_sandbox::servers::{JwtRole, OpenBao, Registry};
use towpath_sandbox::tools::{ClusterTools, Progress, Tools};

use crate::gitlab_world::{LIMIT, World};
use crate::object_storage::ObjectStorage;

pub(crate) const ACCESS_KEY: &str = "SCWCANARY00000000001";
pub(crate) const SECRET_KEY: &str = "0badcafe-0000-4000-8000-0000000ec1fe";
pub(crate) const SCW_PROJECT: &str = "0badcafe-1111-4111-8111-111111111111";
/// The first docker that was seen to log in without a daemon here.
const DOCKER: u32 = 28;

pub(crate) struct Platform {
    world: World,
    pub(crate) vault: OpenBao,
    pub(crate) registry: Registry,
    pub(crate) storage: ObjectStorage,
    cluster: Option<Cluster>,
    /// What stands for `/tmp`.
    tmp: PathBuf,
    programs: TempDir,
}

impl Platform {
    /// With the key at `secret/ci/scaleway`, and nobody who may read it.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same with a Kubernetes, where its tools are in the cache.
    pub(crate) async fn start_with_cluster() -> Self {
        Self::start_with(ClusterTools::find().await.unwrap()).await
    }

    async fn start_with(parts: Option<ClusterTools>) -> Self {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let programs = lay_programs(parts.is_some()).await;
        let signer = Signer::generate("gitlab");
        let key = signer.public_key_pem();
        let world = World::with(|settings| {
            let own = std::env::split_paths(&settings.path).collect::<Vec<_>>();
            let first = programs.path().to_owned();
            settings.path = std::env::join_paths([first].into_iter().chain(own)).unwrap();
            settings.id_tokens = Some(Arc::new(move |claims| signer.sign(claims)));
            settings
                .environment
                .push(("CHECKPOINT_DISABLE".into(), "1".into()));
        })
        .await;
        let guardian = world.guardian();
        let vault = OpenBao::start(guardian, &tools).await.unwrap();
        vault
            .enable_jwt_auth("gitlab", &key, world.gitlab.url())
            .await
            .unwrap();
        vault.enable_kv("secret").await.unwrap();
        let data = json!({
            "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "project_id": SCW_PROJECT, "region": "fr-par",
        });
        vault.write_secret("secret", "ci/scaleway", &data).await.unwrap();
        let users = [("nologin", SECRET_KEY)];
        let registry = Registry::start(guardian, &tools, "registry", &users)
            .await
            .unwrap();
        let bucket = "team-states.s3.fr-par.scw.cloud";
        let storage = ObjectStorage::start(bucket, ACCESS_KEY, SECRET_KEY).await;
        let cluster = match &parts {
            Some(parts) => Some(Cluster::start(guardian, &tools, parts).await.unwrap()),
            None => None,
        };
        let tmp = world.folder().join("tmp-of-jobs");
        std::fs::create_dir(&tmp).unwrap();
        let text = match &cluster {
            Some(cluster) => std::fs::read_to_string(cluster.kubeconfig()).unwrap(),
            None => "apiVersion: v1\nkind: Config\n".to_owned(),
        };
        if let Some(cluster) = &cluster {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}});
            cluster.apply(&[namespace]).await.unwrap();
        }
        for file in [tmp.join("of-a-person"), programs.path().join("kubeconfig")] {
            std::fs::write(file, &text).unwrap();
        }
        Platform {
            world,
            vault,
            registry,
            storage,
            cluster,
            tmp,
            programs,
        }
    }

    pub(crate) async fn stop(self) {
        drop((self.cluster, self.registry, self.vault, self.storage));
        self.world.gitlab.shutdown().await;
    }

    /// What stands for a path in `/tmp`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.tmp.join(name)
    }

    /// A recipe with this world's hosts and folder for temporary files in the place of the page's.
    pub(crate) fn fit(&self, recipe: &str) -> String {
        recipe
            .replace("https://vault.example.com", self.vault.address())
            .replace("rg.fr-par.scw.cloud", self.registry.host())
            .replace("https://s3.", "http://s3.")
            .replace("/tmp/", self.path("").to_str().unwrap())
    }

    /// Lets jobs of a project in by a role with this policy.
    pub(crate) async fn let_in(&self, project: &str, role: &str, policy: &str) {
        self.vault.write_policy(role, policy).await.unwrap();
        let claims = json!({"project_path": project});
        let settings = JwtRole {
            user_claim: "sub".to_owned(),
            bound_audiences: vec![self.vault.address().to_owned()],
            bound_claims: claims.as_object().unwrap().clone(),
            policies: vec![role.to_owned()],
            ttl: "2m".to_owned(),
        };
        self.vault
            .write_jwt_role("gitlab", role, &settings)
            .await
            .unwrap();
    }

    /// Runs a project's pipeline to its end: by a push, or on schedule.
    pub(crate) async fn run(
        &self,
        project: &str,
        variables: Vec<CiVariable>,
        files: &[(&str, String)],
        on_schedule: bool,
    ) -> PipelineSnapshot {
        let everywhere = [
            CiVariable::new("STAND_INS", self.programs.path().to_str().unwrap()),
            CiVariable::new("HTTP_PROXY", &self.storage.address),
            CiVariable::new("NO_PROXY", "127.0.0.1"),
        ];
        let settings = ProjectSettings {
            variables: variables.into_iter().chain(everywhere).collect(),
            ..ProjectSettings::default()
        };
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let world = &self.world;
        if !on_schedule {
            world.project(project, settings).await;
            let commit = world.push(project, "main", &files, &[]).await;
            return world.finished(project, &commit).await;
        }
        let id = world.project_with(project, settings, &files).await;
        let pipeline = world
            .gitlab
            .run_schedule(id, world.maintainer, "main")
            .await
            .unwrap();
        world.gitlab.wait_until_finished(pipeline, LIMIT).await.unwrap()
    }

    /// The accessors of all tokens that are alive, sorted.
    pub(crate) async fn tokens(&self) -> Vec<String> {
        let list = self.vault.read("auth/token/accessors?list=true").await.unwrap();
        let mut tokens: Vec<String> = serde_json::from_value(list["data"]["keys"].clone()).unwrap();
        tokens.sort();
        tokens
    }

    /// What the stand-ins have noted.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.programs.path().join("calls")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Checks what `kubectl` has applied: the application, and a pull secret with this login.
    pub(crate) async fn check_cluster(&self, calls: &[Value], login: &str) {
        use base64::Engine as _;
        let text = |encoded: &str| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let config = match &self.cluster {
            Some(cluster) => {
                let map = cluster
                    .read("/api/v1/namespaces/app/configmaps/app")
                    .await
                    .unwrap();
                assert_eq!(map["data"]["of"], "the-recipe");
                let secrets = cluster.read("/api/v1/namespaces/app/secrets").await.unwrap();
                let secrets = secrets["items"].as_array().unwrap();
                assert_eq!(secrets.len(), 1, "{secrets:?}");
                assert_eq!(secrets[0]["type"], "kubernetes.io/dockerconfigjson");
                text(secrets[0]["data"][".dockerconfigjson"].as_str().unwrap())
            }
            None => {
                let applied: Vec<&Value> = calls.iter().filter(|call| call["program"] == "kubectl").collect();
                let of = |file: &str| {
                    let fits = |call: &&&Value| call["arguments"].as_array().unwrap().last().unwrap() == file;
                    applied.iter().find(fits).unwrap_or_else(|| panic!("{applied:?}"))
                };
                let app = of("app.yaml");
                assert_eq!(app["mode"], 0o600, "{app}");
                assert_eq!(
                    app["kubeconfig"],
                    std::fs::read_to_string(self.path("of-a-person")).unwrap()
                );
                let pull = of(self.path("pull.yaml").to_str().unwrap());
                let manifest = pull["manifest"].as_str().unwrap();
                let data = manifest.split_once(".dockerconfigjson: ").unwrap().1;
                text(data.lines().next().unwrap().trim_matches(['"', '\'']))
            }
        };
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["auths"][self.registry.host()]["auth"], login);
    }
}

/// The programs that come first on `PATH`: the tool, Terraform or OpenTofu under its name, and stand-ins.
async fn lay_programs(with_cluster: bool) -> TempDir {
    let programs = tempfile::tempdir().unwrap();
    let link = |to: &Path, name: &str| symlink(to, programs.path().join(name)).unwrap();
    link(
        Path::new(env!("CARGO_BIN_EXE_vault-scw-creds")),
        "vault-scw-creds",
    );
    let terraform = match Tools::terraform().await.unwrap() {
        Some(terraform) => terraform,
        None => {
            let (_, tofu) = Tools::find_or_install_with_tofu(&Progress::silent())
                .await
                .unwrap();
            tofu
        }
    };
    link(&terraform, "terraform");
    if let Some(docker) = docker_that_logs_in().await {
        link(&docker, "real-docker");
    }
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/stand_in.py");
    for name in ["docker", "scw", "kubectl"] {
        if name != "kubectl" || !with_cluster {
            link(&stand_in, name);
        }
    }
    programs
}

/// docker, where it is on `PATH` and logs in by itself when there is no daemon.
async fn docker_that_logs_in() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let docker = std::env::split_paths(&path)
        .map(|folder| folder.join("docker"))
        .find(|file| file.is_file())?;
    let asked = tokio::process::Command::new(&docker).arg("--version").output();
    let said = tokio::time::timeout(Duration::from_secs(60), asked)
        .await
        .ok()?
        .ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let major = said.strip_prefix("Docker version ")?.split('.').next()?;
    (major.parse::<u32>().ok()? >= DOCKER).then_some(docker)
}
