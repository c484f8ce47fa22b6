//! Which system is asked: Argo CD's API, or the cluster's where that cannot be reached.

use towpath::argocd::{self, Located};
use towpath::cli::{Run, secret_variable};
use towpath::failure::{Failure, Kind, Result};
use towpath::http::Settings;
use towpath::kubernetes::{self, Account};
use towpath::secret::Secret;

use crate::args::{Args, Via};
use crate::source::Source;

/// Decides where to look, and tries it where there is a choice.
///
/// # Errors
/// Usage (exit 2) when nothing is given to look at; whatever the chosen system answers.
pub(crate) async fn reach(args: &Args, first: &Located, run: &Run) -> Result<Source> {
    match args.argocd.via {
        Via::ArgoCd => argocd(args, run)?.ok_or_else(|| {
            Failure::usage("no Argo CD is given")
                .hint("pass --server HOST or set ARGOCD_SERVER, or look in the cluster by --via kubernetes")
        }),
        Via::Kubernetes => cluster(args, run)?.ok_or_else(|| {
            Failure::usage("no cluster is given, and this does not run in one").hint(
                "pass --kubernetes-url and --kubernetes-token-file, or use Argo CD's API by --via argocd",
            )
        }),
        Via::Auto => {
            let in_cluster = || -> Result<Option<Source>> {
                let token = Account::in_file(args.kubernetes.kubernetes_token_file.clone());
                if token.is_there() {
                    cluster(args, run)
                } else {
                    Ok(None)
                }
            };
            let Some(source) = argocd(args, run)? else {
                return in_cluster()?.ok_or_else(|| {
                    Failure::usage("neither Argo CD nor a cluster is given to look at")
                        .hint("set ARGOCD_SERVER and ARGOCD_AUTH_TOKEN, or run it in the cluster that Argo CD runs in")
                });
            };
            // Without a choice there is nothing to try.
            let Some(cluster) = in_cluster()? else {
                return Ok(source);
            };
            match source.look(first).await {
                Err(failure) if failure.kind() == Kind::Unavailable => {
                    tracing::warn!(
                        action = "look",
                        object = format!("application {first}"),
                        outcome = "in the cluster, since Argo CD cannot be reached",
                        "{failure}"
                    );
                    Ok(cluster)
                }
                // Whatever else is wrong shows at the first look that counts.
                _ => Ok(source),
            }
        }
    }
}

fn argocd(args: &Args, run: &Run) -> Result<Option<Source>> {
    let Some(base) = args.argocd.base()? else {
        return Ok(None);
    };
    let token = match &args.argocd.token_file {
        Some(path) => Some(Secret::from_file(path, "Argo CD token")?),
        None => secret_variable("ARGOCD_AUTH_TOKEN")?,
    };
    let token = token.ok_or_else(|| {
        Failure::usage("there is no token for Argo CD")
            .hint("set ARGOCD_AUTH_TOKEN, or pass --token-file (ARGOCD_AUTH_TOKEN_FILE)")
    })?;
    let client = argocd::Client::new(args.argocd.settings(), base, token, run.deadline)?;
    Ok(Some(Source::ArgoCd(client)))
}

fn cluster(args: &Args, run: &Run) -> Result<Option<Source>> {
    let Some(base) = args.kubernetes.base()? else {
        return Ok(None);
    };
    let account = Account::in_file(args.kubernetes.kubernetes_token_file.clone());
    let given = args.kubernetes.kubernetes_ca_file.clone();
    let settings = Settings {
        ca_file: given.or_else(kubernetes::own_certificates),
        plain_http: args.argocd.plain_http(),
        ..Settings::new("kubernetes")
    };
    let client = kubernetes::Client::new(settings, base, account, run.deadline)?;
    Ok(Some(Source::Kubernetes(client)))
}
