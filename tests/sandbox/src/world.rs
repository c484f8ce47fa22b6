//! Everything a delivery needs, started together: servers, stand-ins, and a user's three repositories.
//!
//! What is real: OpenBao, two registries that ask for a password, git over HTTP, the builder, kustomize, and the jobs of
//! every pipeline. What is stood in for: GitLab's API, and, unless the world is given a real cluster, Kubernetes'
//! TokenReview and Argo CD (see those modules). The repositories are `ci-templates/examples`, with the hosts they name replaced by those of this world; their pipelines
//! include `ci-templates` from a project of this GitLab, as a user's do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::argocd::{self, Access};
use crate::base_image;
use crate::gitlab::{CiVariable, GitLab, ProjectSettings, Role, Scope, Settings, Visibility};
use crate::guardian::Guardian;
use crate::jwt::Signer;
use crate::kubernetes;
use crate::person::Person;
use crate::platform::{Deployments, Kubernetes, Platform};
use crate::servers::{KubernetesRole, OpenBao, Registry};
use crate::tools::{BuilderKind, ClusterTools, Tools};

/// The project that holds the templates.
pub const TEMPLATES: &str = "platform/towpath";
/// The tag of the templates that the examples include.
pub const TEMPLATES_TAG: &str = "v0.1.0";
/// The image repository's project.
pub const IMAGE: &str = "shop/web";
/// The environment repository's project.
pub const ENV: &str = "shop/env";
/// The infrastructure repository's project.
pub const INFRA: &str = "shop/infra";
/// Argo CD's application for the environment.
pub const APPLICATION: &str = "web-production";
/// The namespace it deploys to.
pub const NAMESPACE: &str = "shop";
/// The folder of its kustomization.
pub const OVERLAY: &str = "apps/web/overlays/production";

/// The user name with which a Scaleway key logs in to the registry.
const REGISTRY_USER: &str = "nologin";
/// Who the runner's pods are.
const SERVICE_ACCOUNT: (&str, &str) = ("gitlab-runner", "image");
/// An input of `env.yml` in the example, behind another one.
const HEALTHY_WITHIN: &str = "\n      healthy_within: 6s";
/// The role they log in as.
const VAULT_ROLE: &str = "image";

/// A running world. [`World::stop`] ends and removes it.
pub struct World {
    /// The folder and the processes.
    pub guardian: Arc<Guardian>,
    /// What it runs with.
    pub tools: Tools,
    /// Vault.
    pub openbao: OpenBao,
    /// Where images are built into.
    pub staging: Registry,
    /// Where clusters pull from.
    pub production: Registry,
    /// GitLab and its runner.
    pub gitlab: GitLab,
    /// The API server that knows the runner's service account, and the Argo CD that deploys.
    pub platform: Platform,
    /// The developer who pushes tags and, on a bad night, rolls back.
    pub person: Person,
    /// The folder of Towpath's binaries.
    pub bin: PathBuf,
    /// The program that plans and applies.
    pub infra_command: &'static str,
    planted: Vec<Planted>,
    registry_password: String,
    /// The file with the token that the runner's pods have.
    runner_token: PathBuf,
}

/// A secret of this world, and what it is.
#[derive(Clone)]
pub struct Planted {
    /// What it is, for messages.
    pub what: &'static str,
    /// The value.
    pub value: String,
    /// The one file or folder it may be in, when there is one.
    pub home: Option<PathBuf>,
}

impl World {
    /// Starts everything. `tofu` is the program that plans and applies, named `tofu` or `terraform`; `bin` is the folder
    /// of Towpath's binaries. With a `cluster`, images run on a real one, else on stand-ins.
    ///
    /// # Errors
    /// When a server does not come up, with the last lines of its log.
    pub async fn start(
        guardian: Guardian,
        tools: Tools,
        tofu: &Path,
        bin: PathBuf,
        cluster: Option<&ClusterTools>,
    ) -> Result<Self> {
        let guardian = Arc::new(guardian);
        let key = scaleway_key();
        let users = [(REGISTRY_USER, key.secret_key.as_str())];
        let runner_token = runner_token(&guardian);
        let infra_command = infra_command(tofu);
        // A cluster takes longer to start than all the rest, which need not wait for it.
        let besides = async {
            let (openbao, staging, production) = tokio::try_join!(
                OpenBao::start(&guardian, &tools),
                Registry::start(&guardian, &tools, "staging", &users),
                Registry::start(&guardian, &tools, "production", &users),
            )?;
            let login = Some((REGISTRY_USER, key.secret_key.as_str()));
            base_image::push(&tools, &staging, login, "base/busybox", "1").await?;
            let gitlab = start_gitlab(&guardian, &tools, tofu, &bin, &runner_token).await?;
            let (person, env) = settle_projects(&guardian, &gitlab).await?;
            let hosts = Hosts {
                vault: openbao.address(),
                staging: staging.host(),
                production: production.host(),
                infra_command,
                real: cluster.is_some(),
            };
            fill_projects(&person, &gitlab, &hosts).await?;
            anyhow::Ok((openbao, staging, production, gitlab, person, env))
        };
        let (kubernetes, (openbao, staging, production, gitlab, person, env)) =
            tokio::try_join!(Kubernetes::start(&guardian, &tools, cluster), besides)?;
        identify_runner(&kubernetes, &runner_token).await?;
        teach_vault(&openbao, &kubernetes, &key).await?;
        let argocd_token = gitlab.project_access_token(env, Role::Reporter, &[Scope::ReadRepository])?;
        let deployments = deployments(&gitlab, &production, &argocd_token, &key.secret_key);
        let platform = kubernetes.deploy(&guardian, &tools, deployments).await?;
        gitlab.add_push_hook(&format!("{}/api/webhook", platform.argocd_url()));
        let wait_token = platform
            .mint_argocd_token("ci", Access::Read, Duration::from_secs(24 * 60 * 60))
            .await?;
        gitlab.configure(env, |settings| {
            let server = CiVariable::new("ARGOCD_SERVER", platform.argocd_url());
            let token = CiVariable::masked("ARGOCD_AUTH_TOKEN", wait_token.clone());
            settings.variables.extend([server, token.protected()]);
        })?;

        let (cluster_folder, administrator_token) = platform.keeps_secrets().unzip();
        let mut planted = vec![
            Planted {
                what: "the Scaleway secret key",
                value: key.secret_key.clone(),
                // A pull secret holds it.
                home: cluster_folder.clone(),
            },
            Planted {
                what: "OpenBao's root token",
                value: openbao.root_token().to_owned(),
                home: None,
            },
            Planted {
                what: "the person's access token",
                value: person.token().to_owned(),
                home: None,
            },
            Planted {
                what: "the token that waits read Argo CD with",
                value: wait_token,
                home: None,
            },
            Planted {
                what: "Argo CD's repository token",
                value: argocd_token,
                home: cluster_folder.clone(),
            },
            Planted {
                what: "the runner's service-account token",
                value: fs::read_to_string(&runner_token)?,
                home: Some(runner_token.clone()),
            },
        ];
        planted.extend(administrator_token.map(|value| Planted {
            what: "the cluster's administrator token",
            value,
            home: cluster_folder,
        }));
        Ok(World {
            guardian,
            tools,
            openbao,
            staging,
            production,
            gitlab,
            platform,
            person,
            bin,
            infra_command,
            planted,
            registry_password: key.secret_key,
            runner_token,
        })
    }

    /// Ends everything and removes the folder.
    ///
    /// # Errors
    /// When a process outlasts KILL or a file cannot be removed.
    pub async fn stop(self) -> Result<()> {
        self.gitlab.shutdown().await;
        drop((
            self.platform,
            self.openbao,
            self.staging,
            self.production,
            self.person,
        ));
        // Tasks of the stand-ins that were told to end let go of the guardian once the runtime comes to them.
        let mut guardian = self.guardian;
        for _ in 0..500 {
            match Arc::try_unwrap(guardian) {
                Ok(guardian) => return guardian.stop().await,
                Err(held) => guardian = held,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("something still holds on to the world after 5 s")
    }

    /// The secrets that this world was given and that no log and no file may hold.
    #[must_use]
    pub fn planted(&self) -> &[Planted] {
        &self.planted
    }

    /// Every secret that there was so far: the planted ones, and each token that GitLab gave out.
    #[must_use]
    pub fn secrets(&self) -> Vec<Planted> {
        let mut secrets = self.planted.clone();
        for (what, value) in self.gitlab.issued_tokens() {
            if !secrets.iter().any(|known| known.value == value) {
                secrets.push(Planted {
                    what,
                    value,
                    home: None,
                });
            }
        }
        secrets
    }

    /// What became of the servers that have ended although the world still runs, with the last lines of their logs.
    pub fn ended_servers(&mut self) -> Vec<String> {
        let ended = [
            self.openbao.ended(),
            self.staging.ended(),
            self.production.ended(),
        ];
        let ended = ended.into_iter().flatten();
        ended.chain(self.platform.ended()).collect()
    }

    /// The digest that a registry has under a tag; none when the tag is not there.
    ///
    /// # Errors
    /// When the registry does not answer or refuses.
    pub async fn digest_at(
        &self,
        registry: &Registry,
        repository: &str,
        tag: &str,
    ) -> Result<Option<String>> {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", registry.host());
        let answer = crate::servers::http_client()?
            .head(&url)
            .basic_auth(REGISTRY_USER, Some(&self.registry_password))
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
            .header("accept", "application/vnd.oci.image.index.v1+json")
            .header("accept", "application/vnd.docker.distribution.manifest.v2+json")
            .send()
            .await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let answer = answer.error_for_status()?;
        let digest = answer
            .headers()
            .get("docker-content-digest")
            .context("the registry names no digest")?;
        Ok(Some(digest.to_str()?.to_owned()))
    }

    /// The environment with which a tool of Towpath logs in to OpenBao as the runner's pods do, and reads the key.
    #[must_use]
    pub fn vault_login(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("VAULT_ADDR", self.openbao.address().into()),
            ("TOWPATH_VAULT_AUTH", "kubernetes".into()),
            ("TOWPATH_VAULT_ROLE", VAULT_ROLE.into()),
            ("TOWPATH_JWT_FILE", self.runner_token.clone().into()),
            ("TOWPATH_SECRET", "scaleway/registry".into()),
        ]
    }

    /// A Towpath binary, run by the person at their own machine: with `PATH` and nothing of a job's environment.
    #[must_use]
    pub fn by_hand(&self, tool: &str) -> tokio::process::Command {
        self.guardian.bare_command(self.bin.join(tool))
    }
}

/// What the examples' hosts become.
struct Hosts<'a> {
    vault: &'a str,
    staging: &'a str,
    production: &'a str,
    infra_command: &'a str,
    /// Whether images run on a real cluster.
    real: bool,
}

impl Hosts<'_> {
    fn fill_in(&self, text: &str) -> String {
        // Pods that will never become ready are given up soon, since somebody watches.
        let patience = if self.real { HEALTHY_WITHIN } else { "" };
        text.replace("on_failure: rollback", &format!("on_failure: rollback{patience}"))
            .replace("https://vault.example.com", self.vault)
            // First, since the other's name ends like it.
            .replace("staging.registry.example.com", self.staging)
            .replace("registry.example.com", self.production)
            .replace("command: tofu", &format!("command: {}", self.infra_command))
    }
}

/// A key in Scaleway's formats, new for each world.
struct ScalewayKey {
    access_key: String,
    secret_key: String,
}

fn scaleway_key() -> ScalewayKey {
    let id = kubernetes::new_uid();
    let letters: String = id
        .bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(char::from)
        .collect();
    ScalewayKey {
        access_key: format!("SCW{}", &letters.to_uppercase()[..17]),
        secret_key: kubernetes::new_uid(),
    }
}

/// Where the token lies that the runner's pods find in their volume.
fn runner_token(guardian: &Guardian) -> PathBuf {
    guardian.dir().join("serviceaccount/token")
}

/// Makes that token.
async fn identify_runner(kubernetes: &Kubernetes, file: &Path) -> Result<()> {
    let (namespace, name) = SERVICE_ACCOUNT;
    let hour = Duration::from_secs(3600);
    // OpenBao reviews a login's token with that very token.
    let token = kubernetes.make_reviewer(namespace, name, hour).await?;
    fs::create_dir(file.parent().context("the token is in a folder")?)?;
    fs::write(file, token)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

async fn teach_vault(openbao: &OpenBao, kubernetes: &Kubernetes, key: &ScalewayKey) -> Result<()> {
    openbao.enable_kv("scaleway").await?;
    let secret = json!({
        "access_key": key.access_key,
        "secret_key": key.secret_key,
        "organization_id": kubernetes::new_uid(),
        "project_id": kubernetes::new_uid(),
        "region": "fr-par",
        "zone": "fr-par-1",
    });
    openbao.write_secret("scaleway", "registry", &secret).await?;
    openbao
        .write_policy(
            "image",
            "path \"scaleway/data/registry\" { capabilities = [\"read\"] }",
        )
        .await?;
    match kubernetes.authority() {
        Some(authority) => {
            openbao
                .enable_kubernetes_auth_by("kubernetes", &kubernetes.url(), authority)
                .await?;
        }
        None => {
            openbao
                .enable_kubernetes_auth("kubernetes", &kubernetes.url())
                .await?;
        }
    }
    let (namespace, name) = SERVICE_ACCOUNT;
    let role = KubernetesRole {
        service_accounts: vec![name.to_owned()],
        namespaces: vec![namespace.to_owned()],
        audience: Some("vault".to_owned()),
        policies: vec!["image".to_owned()],
        ttl: "15m".to_owned(),
    };
    openbao
        .write_kubernetes_role("kubernetes", VAULT_ROLE, &role)
        .await
}

async fn start_gitlab(
    guardian: &Arc<Guardian>,
    tools: &Tools,
    tofu: &Path,
    bin: &Path,
    runner_token: &Path,
) -> Result<GitLab> {
    let mut settings = Settings::new(
        guardian.dir().join("gitlab"),
        &tools.gitlab_ci_local,
        job_path(tools, tofu, bin)?,
    );
    let owner = guardian.clone();
    settings.command = Arc::new(move |program| owner.command(program));
    let tmp = guardian.dir().join("tmp");
    settings.environment = vec![
        // A job's environment is a clean one, but its processes belong to this world.
        (crate::guardian::WORLD_VARIABLE.into(), guardian.id().into()),
        ("TMPDIR".into(), tmp.into_os_string()),
        // Terraform would ask its maker's server whether there is a newer version.
        ("CHECKPOINT_DISABLE".into(), "1".into()),
    ];
    // What differs between this machine and a runner's pod: where the token is mounted, and the builder.
    settings.variables = vec![
        CiVariable::new("TOWPATH_JWT_FILE", runner_token.display().to_string()),
        CiVariable::new("TOWPATH_BUILDER", tools.builder.kind.name()),
    ];
    if tools.builder.kind == BuilderKind::Kaniko {
        let executor = tools.builder.program.display().to_string();
        settings
            .variables
            .push(CiVariable::new("TOWPATH_KANIKO", executor));
    }
    let signer = Signer::generate("gitlab");
    settings.jwks = Some(signer.jwks());
    settings.id_tokens = Some(Arc::new(move |claims| signer.sign(claims)));
    GitLab::start(settings).await
}

/// `PATH` of jobs: Towpath, the sandbox's tools, then the machine's.
fn job_path(tools: &Tools, tofu: &Path, bin: &Path) -> Result<OsString> {
    let own = std::env::var_os("PATH").context("PATH is not set")?;
    let mut folders = vec![bin.to_owned(), tools.bin_dir().to_owned()];
    let programs = [tools.node.as_path(), tofu];
    folders.extend(
        programs
            .into_iter()
            .filter_map(|file| file.parent().map(Path::to_owned)),
    );
    folders.extend(std::env::split_paths(&own));
    std::env::join_paths(folders).context("a folder on PATH holds a colon")
}

fn infra_command(tofu: &Path) -> &'static str {
    match tofu.file_name() {
        Some(name) if name == "terraform" => "terraform",
        _ => "tofu",
    }
}

/// Makes the projects with who may do what, and the person who works in them. Answers the person and the id of the
/// environment repository's project.
async fn settle_projects(guardian: &Arc<Guardian>, gitlab: &GitLab) -> Result<(Person, u64)> {
    let user = gitlab.add_user("ada");
    let token = gitlab.personal_access_token(user, &[Scope::WriteRepository, Scope::Api])?;
    let person = Person::new(guardian.clone(), user, "Ada", token);
    let internal = ProjectSettings {
        visibility: Visibility::Internal,
        ..ProjectSettings::default()
    };
    // kustomize-bump pushes with its job's own token: no key has to be kept for it.
    let env_settings = ProjectSettings {
        job_token_may_push: true,
        ..ProjectSettings::default()
    };
    let mut ids = BTreeMap::new();
    for (path, settings) in [
        (TEMPLATES, internal),
        (IMAGE, ProjectSettings::default()),
        (ENV, env_settings),
        (INFRA, ProjectSettings::default()),
    ] {
        let id = gitlab.create_project(path, settings).await?;
        gitlab.add_member(id, user, Role::Maintainer)?;
        ids.insert(path, id);
    }
    // Who may trigger whom.
    gitlab.allow_job_tokens(ids[ENV], ids[IMAGE])?;
    gitlab.allow_job_tokens(ids[INFRA], ids[ENV])?;
    Ok((person, ids[ENV]))
}

/// Pushes the templates and the three examples.
async fn fill_projects(person: &Person, gitlab: &GitLab, hosts: &Hosts<'_>) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci-templates");
    let templates = person
        .start_repository(&gitlab.clone_url(TEMPLATES), TEMPLATES)
        .await?;
    copy(&source, &templates.join("ci-templates"), &str::to_owned)?;
    copy(
        &source.join("../templates"),
        &templates.join("templates"),
        &str::to_owned,
    )?;
    person.publish(&templates, "Publish the templates").await?;
    person.push_tag(&templates, TEMPLATES_TAG).await?;
    for (project, example) in [(IMAGE, "image"), (ENV, "env"), (INFRA, "infra")] {
        let folder = person
            .start_repository(&gitlab.clone_url(project), project)
            .await?;
        copy(&source.join("examples").join(example), &folder, &|text| {
            hosts.fill_in(text)
        })?;
        person.publish(&folder, "Start from the example").await?;
    }
    Ok(())
}

/// Copies a folder of text files, each through `change`.
fn copy(from: &Path, to: &Path, change: &impl Fn(&str) -> String) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target, change)?;
        } else {
            let text =
                fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
            fs::write(target, change(&text))?;
        }
    }
    Ok(())
}

fn deployments(gitlab: &GitLab, production: &Registry, token: &str, registry_password: &str) -> Deployments {
    let credentials = |username: &str, password: &str| argocd::Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
    };
    Deployments {
        applications: vec![argocd::Declaration {
            name: APPLICATION.to_owned(),
            sources: vec![argocd::Source {
                repo_url: gitlab.clone_url(ENV),
                path: OVERLAY.to_owned(),
                target_revision: "main".to_owned(),
            }],
            namespace: NAMESPACE.to_owned(),
            automated: true,
        }],
        repositories: BTreeMap::from([(gitlab.url().to_owned(), credentials("argocd", token))]),
        registries: BTreeMap::from([(
            production.host().to_owned(),
            credentials(REGISTRY_USER, registry_password),
        )]),
    }
}
