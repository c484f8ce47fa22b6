//! Where a command works, and which way leads there: the arguments, and the decision.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use towpath::failure::{Failure, Result};
use towpath::git::check_path;
use towpath::gitlab::Project;
use towpath::http::{Url, parse_base_url};
use towpath::kustomize::Pattern;

/// How a project of GitLab is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    // Without documentation of their own, since that would make the help of every subcommand three times as long.
    #[default]
    Auto,
    Git,
    Api,
}

/// Which tokens are at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A personal, project or group access token.
    Access,
    /// The job's own alone.
    Job,
    /// None.
    Nothing,
}

/// Where to go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A folder.
    Checkout(PathBuf),
    /// A repository by git, at this address.
    Git(String),
    /// A project by the API.
    Api(Project),
    /// A project by the API if the token may use it, else by git at this address; none when that is not known.
    ApiElseGit(Project, Option<String>),
}

/// Which kustomizations, in which repository, and how one gets in.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Place")]
pub(crate) struct PlaceArgs {
    /// Folders of kustomizations (or the files themselves), from the root of the repository or the checkout; `set`,
    /// `diff` and `get` take patterns too, such as overlays/*, apps/**/prod and {dev,test}
    #[arg(
        long = "path",
        value_name = "DIR",
        env = "TOWPATH_PATH",
        value_delimiter = ',',
        global = true,
        hide_env_values = true
    )]
    pub(crate) paths: Vec<String>,
    /// The repository: https, ssh or an absolute path, without credentials
    #[arg(
        long,
        value_name = "URL",
        env = "TOWPATH_REPO",
        global = true,
        hide_env_values = true
    )]
    pub(crate) repo: Option<String>,
    /// A project of GitLab instead: GROUP/PROJECT or its number
    #[arg(
        long,
        value_name = "PROJECT",
        env = "TOWPATH_PROJECT",
        conflicts_with_all = ["repo", "checkout"],
        global = true,
        hide_env_values = true
    )]
    pub(crate) project: Option<Project>,
    /// The address of GitLab's API, for --project
    #[arg(
        long,
        value_name = "URL",
        env = "CI_API_V4_URL",
        default_value = "https://gitlab.com/api/v4",
        global = true,
        hide_env_values = true
    )]
    pub(crate) gitlab_url: String,
    /// How --project is reached: by the API where the token may write there, else by git
    #[arg(
        long,
        value_enum,
        env = "TOWPATH_VIA",
        default_value_t,
        global = true,
        hide_env_values = true
    )]
    pub(crate) via: Via,
    /// Its branch [default: the repository's own default]
    #[arg(long, env = "TOWPATH_BRANCH", global = true, hide_env_values = true)]
    pub(crate) branch: Option<String>,
    /// A folder to work in instead
    #[arg(
        long,
        value_name = "DIR",
        env = "TOWPATH_CHECKOUT",
        conflicts_with = "repo",
        global = true,
        hide_env_values = true
    )]
    pub(crate) checkout: Option<PathBuf>,
    /// A file with the token, instead of TOWPATH_GIT_TOKEN
    #[arg(
        long,
        value_name = "FILE",
        env = "TOWPATH_GIT_TOKEN_FILE",
        global = true,
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// The user that goes with the token
    #[arg(
        long,
        value_name = "NAME",
        env = "TOWPATH_GIT_USER",
        default_value = "oauth2",
        global = true,
        hide_env_values = true
    )]
    pub(crate) git_user: String,
    /// A PEM file with the certificates to trust
    #[arg(
        long,
        value_name = "FILE",
        env = "CI_SERVER_TLS_CA_FILE",
        global = true,
        hide_env_values = true
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow plain http beyond this machine
    #[arg(long, env = "TOWPATH_PLAIN_HTTP", global = true, hide_env_values = true)]
    pub(crate) plain_http: bool,
    /// The job's own project, as GitLab says
    #[arg(
        long,
        env = "CI_PROJECT_URL",
        hide = true,
        global = true,
        hide_env_values = true
    )]
    pub(crate) project_url: Option<String>,
    /// The number of the job's own project, as GitLab says
    #[arg(
        long,
        env = "CI_PROJECT_ID",
        hide = true,
        global = true,
        hide_env_values = true
    )]
    pub(crate) project_id: Option<u64>,
    /// The default branch of the job's own project, as GitLab says
    #[arg(
        long,
        env = "CI_DEFAULT_BRANCH",
        hide = true,
        global = true,
        hide_env_values = true
    )]
    pub(crate) default_branch: Option<String>,
    /// The job's own GitLab, as it says
    #[arg(
        long,
        env = "CI_SERVER_URL",
        hide = true,
        global = true,
        hide_env_values = true
    )]
    pub(crate) server_url: Option<String>,
}

impl PlaceArgs {
    /// The paths, normalised.
    ///
    /// # Errors
    /// Usage (exit 2) for none, or one that leads out of the repository.
    pub(crate) fn paths(&self) -> Result<Vec<String>> {
        if self.paths.is_empty() {
            return Err(Failure::usage("no path is given")
                .hint("pass --path DIR (TOWPATH_PATH), such as --path overlays/prod"));
        }
        let mut paths = Vec::new();
        for path in whole_patterns(&self.paths) {
            let path = check_path(&path)?;
            if Pattern::is_one(&path) {
                Pattern::parse(&path)?;
            }
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    /// The one path, for commands that act on one.
    ///
    /// # Errors
    /// Usage (exit 2) for none or several.
    pub(crate) fn path(&self) -> Result<String> {
        let mut paths = self.paths()?;
        if paths.len() > 1 {
            return Err(
                Failure::usage(format!("{} paths are given where one is needed", paths.len()))
                    .hint("give a single --path (TOWPATH_PATH)"),
            );
        }
        let path = paths.remove(0);
        if Pattern::is_one(&path) {
            return Err(Failure::usage(format!(
                "the path {path:?} is a pattern where one folder is needed"
            ))
            .hint("name the folder itself with --path (TOWPATH_PATH)"));
        }
        Ok(path)
    }

    /// The address of GitLab's API.
    ///
    /// # Errors
    /// Usage (exit 2) when it is none.
    pub(crate) fn api(&self) -> Result<Url> {
        parse_base_url("--gitlab-url (CI_API_V4_URL)", &self.gitlab_url)
    }

    /// Decides where to go. Nothing is asked.
    ///
    /// # Errors
    /// Usage (exit 2) for a way that does not lead there; denied (exit 4) for the API with a job token.
    pub(crate) fn way(&self, via: Via, held: Held) -> Result<Way> {
        if let Some(project) = &self.project {
            return self.way_to(project, via, held);
        }
        if via == Via::Api {
            return Err(
                Failure::usage("--via api goes to a project of GitLab, and none is given")
                    .hint("give --project GROUP/PROJECT (TOWPATH_PROJECT) instead of --repo or --checkout"),
            );
        }
        Ok(match (&self.checkout, &self.repo, self.own_address()) {
            (Some(folder), _, _) => Way::Checkout(folder.clone()),
            (None, Some(repo), _) => Way::Git(repo.clone()),
            (None, None, Some(own)) => Way::Git(own),
            (None, None, None) => Way::Checkout(Path::new(".").to_owned()),
        })
    }

    /// The way that leads there without GitLab's API.
    ///
    /// # Errors
    /// Usage (exit 2) where the API is asked for.
    pub(crate) fn via_offline(&self) -> Result<Via> {
        match self.via {
            Via::Auto | Via::Git => Ok(Via::Git),
            Via::Api => Err(Failure::usage(
                "--offline does without GitLab's API, and --via api (TOWPATH_VIA) goes by it",
            )
            .hint("leave one of them away")),
        }
    }

    fn way_to(&self, project: &Project, via: Via, held: Held) -> Result<Way> {
        let address = self.address_of(project)?;
        let by_git = || {
            address.clone().map(Way::Git).ok_or_else(|| {
                Failure::usage(format!("the address of {project} for git is not known"))
                    .hint("give --project as GROUP/PROJECT, not as a number")
            })
        };
        match (via, held) {
            (Via::Git, _) | (Via::Auto, Held::Job | Held::Nothing) => by_git(),
            (Via::Auto, Held::Access) => Ok(Way::ApiElseGit(project.clone(), address)),
            (Via::Api, Held::Access) => Ok(Way::Api(project.clone())),
            (Via::Api, Held::Job) => Err(Failure::denied(
                "a job token may not commit over GitLab's API",
            )
            .hint("set TOWPATH_GIT_TOKEN to a project access token with the scope `api`, or go by git (--via git)")),
            (Via::Api, Held::Nothing) => Err(Failure::usage("GitLab's API wants a token, and none is given")
                .hint("set TOWPATH_GIT_TOKEN (or --token-file) to an access token with the scope `api`")),
        }
    }

    /// The job's own project, for git.
    fn own_address(&self) -> Option<String> {
        let url = self.project_url.as_ref()?;
        Some(format!("{}.git", url.trim_end_matches('/')))
    }

    /// Where git finds a project of this GitLab. Of a number, only the job's own project is known.
    ///
    /// # Errors
    /// As [`PlaceArgs::api`].
    pub(crate) fn address_of(&self, project: &Project) -> Result<Option<String>> {
        Ok(match project {
            Project::Path(path) => {
                let api = self.api()?;
                let root = api.as_str().strip_suffix("api/v4/");
                root.map(|root| format!("{root}{path}.git"))
            }
            Project::Id(id) if Some(*id) == self.project_id => self.own_address(),
            Project::Id(_) => None,
        })
    }

    /// The branch to look at; none for the repository's own default.
    pub(crate) fn branch_to_open(&self) -> Option<&str> {
        // Only of its own project does a job know the default branch.
        let is_own = self.repo.is_none() && self.project.is_none() && self.checkout.is_none();
        let known = self.default_branch.as_deref().filter(|_| is_own);
        self.branch.as_deref().or(known)
    }
}

/// The paths between commas, where a comma within braces separates none.
fn whole_patterns(pieces: &[String]) -> Vec<String> {
    let open = |path: &str| {
        let plain = path.replace("\\{", "").replace("\\}", "");
        plain.matches('{').count() > plain.matches('}').count()
    };
    let mut paths: Vec<String> = Vec::new();
    for piece in pieces {
        match paths.last_mut() {
            Some(path) if open(path) => {
                path.push(',');
                path.push_str(piece);
            }
            _ => paths.push(piece.clone()),
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser as _;

    fn place(arguments: &[&str]) -> PlaceArgs {
        let line = ["kustomize-bump", "get"].iter().chain(arguments);
        Args::try_parse_from(line).unwrap().place
    }

    #[test]
    fn the_kind_of_token_decides_the_way_to_a_project() {
        let api = "--gitlab-url=https://git.example.com/api/v4";
        let address = "https://git.example.com/env/shop.git".to_owned();
        let shop = || Project::Path("env/shop".into());
        let auto = place(&["--project=env/shop", api]);
        assert_eq!(
            auto.way(Via::Auto, Held::Access).unwrap(),
            Way::ApiElseGit(shop(), Some(address.clone()))
        );
        assert_eq!(auto.way(Via::Auto, Held::Job).unwrap(), Way::Git(address.clone()));
        assert_eq!(
            auto.way(Via::Auto, Held::Nothing).unwrap(),
            Way::Git(address.clone())
        );
        assert_eq!(auto.way(Via::Api, Held::Access).unwrap(), Way::Api(shop()));
        let denied = auto.way(Via::Api, Held::Job).unwrap_err();
        assert_eq!(denied.kind(), towpath::failure::Kind::Denied);
        assert!(auto.way(Via::Api, Held::Nothing).is_err());
        assert_eq!(auto.way(Via::Git, Held::Access).unwrap(), Way::Git(address));
    }

    #[test]
    fn a_number_leads_by_git_to_the_jobs_own_project_alone() {
        let own = ["--project-id=7", "--project-url=https://git.example.com/env/shop"];
        let seven = place(&[&own[..], &["--project=7"]].concat());
        assert_eq!(
            seven.way(Via::Auto, Held::Job).unwrap(),
            Way::Git("https://git.example.com/env/shop.git".into())
        );
        let eight = place(&[&own[..], &["--project=8"]].concat());
        assert!(eight.way(Via::Auto, Held::Job).is_err());
        assert_eq!(
            eight.way(Via::Auto, Held::Access).unwrap(),
            Way::ApiElseGit(Project::Id(8), None)
        );
    }

    #[test]
    fn without_the_api_git_leads_there() {
        assert_eq!(place(&["--project=env/shop"]).via_offline().unwrap(), Via::Git);
        assert!(place(&["--project=env/shop", "--via=api"]).via_offline().is_err());
    }

    #[test]
    fn the_api_needs_a_project() {
        assert!(place(&["--repo=/x.git"]).way(Via::Api, Held::Access).is_err());
        assert_eq!(
            place(&["--repo=/x.git"]).way(Via::Auto, Held::Nothing).unwrap(),
            Way::Git("/x.git".into())
        );
    }
}
