//! What a registry's refusal means to whoever is told: what happened to which object, and what to do next.

use super::Repository;
use super::auth::Scopes;
use super::refusal::{Meaning, Refusal};
use crate::failure::Failure;
use crate::http::Response;
use crate::oci::credentials::variables_for;

/// What was tried.
pub(super) struct Tried<'a> {
    pub(super) repository: &'a Repository,
    /// A gerund: `reading`.
    pub(super) verb: &'static str,
    /// With its article: `the manifest team/app:1`.
    pub(super) object: String,
    pub(super) scopes: &'a Scopes,
}

/// The hint for whoever is nobody at a registry.
pub(super) fn no_credential(endpoint: &str) -> String {
    // Nobody logs in to Docker Hub by the name of its machine.
    let endpoint = match endpoint {
        "registry-1.docker.io" => "docker.io",
        other => other,
    };
    let variables = match variables_for(endpoint) {
        Some(variables) => format!(", or set {variables}"),
        None => String::new(),
    };
    format!(
        "no login for {endpoint} was found: run `docker login {endpoint}`, or point --docker-config (DOCKER_CONFIG) to the folder of a config.json that has one{variables}"
    )
}

impl Tried<'_> {
    /// Turns an answer that is no success into a failure.
    pub(super) async fn refused(self, response: Response) -> Failure {
        let refusal = Refusal::read(response, self.verb == "pushing").await;
        self.judge(&refusal)
    }

    fn judge(&self, refusal: &Refusal) -> Failure {
        let Tried {
            repository,
            verb,
            object,
            scopes,
        } = self;
        let host = repository.reference().endpoint();
        let name = repository.reference().name();
        let scope = scopes.words().join(" ");
        let status = refusal.status;
        let details = refusal.details();
        match refusal.meaning() {
            Meaning::Lost => Failure::unavailable(format!("{host} lost track of {verb} {object}{details}")),
            Meaning::Incomplete => Failure::unavailable(format!("{host} misses parts of {object}{details}"))
                .hint("run it again: what is missing is sent then"),
            Meaning::TagKept => Failure::conflict(format!("{host} does not let {object} change{details}"))
                .hint("the tag is immutable or protected there: promote under another tag"),
            Meaning::Conflict => {
                Failure::conflict(format!("{host} has something against {verb} {object} (status {status}){details}"))
                    .hint("look at what is there, and at the rules of the repository")
            }
            Meaning::NoLogin => match repository.login_origin() {
                Some(origin) => Failure::denied(format!(
                    "{host} refuses the login for {verb} {object} (scope {scope}){details}"
                ))
                .hint(format!("check the user and password for {name} (from {origin})")),
                None => Failure::denied(format!("{host} wants a login for {verb} {object}{details}"))
                    .hint(no_credential(host)),
            },
            Meaning::Quota => Failure::denied(format!("{host} has no room left for {object}{details}")).hint(format!(
                "delete what is not needed at {name}, or have the quota raised"
            )),
            Meaning::Forbidden => Failure::denied(format!(
                "{host} does not allow {verb} {object} (scope {scope}){details}"
            ))
            .hint(match repository.login_origin() {
                Some(origin) => format!(
                    "check what this login (from {origin}) may do in {name}, and whether a quota, a lock or a protected tag is in the way"
                ),
                None => no_credential(host),
            }),
            Meaning::Policy => {
                Failure::denied(format!("{host} keeps {object} back by a policy (status {status}){details}"))
                    .hint("look at the rules of the repository: findings of a scan, missing signatures")
            }
            Meaning::NoRepository => Failure::not_found(format!("{host} has no repository for {object}{details}"))
                .hint("check its name, or make it first: not every registry does so by itself"),
            Meaning::Absent => Failure::not_found(format!("{host} does not have {object}{details}"))
                .hint("check registry, repository and tag or digest; some registries say this for lack of permission"),
            Meaning::Unsupported => Failure::denied(format!("{host} does not support {verb} {object}{details}")),
            Meaning::TooLarge => Failure::denied(format!("{host} finds {object} too large{details}"))
                .hint("raise the limit of the registry, or of the proxy in front of it"),
            Meaning::Busy => Failure::unavailable(format!("{host} limits our rate: {verb} {object}{details}"))
                .hint("wait a while, or lower --concurrency"),
            Meaning::Malformed => Failure::input(format!("{host} finds {object} malformed (status {status}){details}")),
            Meaning::Broken => {
                Failure::unavailable(format!("{host} broke at {verb} {object} (status {status}){details}"))
            }
            Meaning::Odd => Failure::denied(format!("{host} does not take {verb} {object} (status {status}){details}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use crate::failure::Kind;
    use crate::oci::registry::auth::Access;
    use crate::oci::{Credentials, Registries, RegistrySettings};

    #[tokio::test]
    async fn what_is_said_names_host_object_scope_and_the_next_action() {
        let registries = Registries::new(
            RegistrySettings::default(),
            Credentials::default(),
            Deadline::after(std::time::Duration::from_secs(5)),
        )
        .unwrap();
        let repository = registries
            .repository(&"registry.example.com/team/app".parse().unwrap())
            .await
            .unwrap();
        let scopes = Scopes::of("team/app", Access::Push);
        let tried = Tried {
            repository: &repository,
            verb: "pushing",
            object: "the manifest team/app:1".to_owned(),
            scopes: &scopes,
        };
        for (status, code, kind) in [
            (401, "UNAUTHORIZED", Kind::Denied),
            (403, "DENIED", Kind::Denied),
            (404, "NAME_UNKNOWN", Kind::NotFound),
            (404, "MANIFEST_BLOB_UNKNOWN", Kind::Unavailable),
            (400, "MANIFEST_INVALID", Kind::Input),
            (400, "TAG_INVALID", Kind::Conflict),
            (507, "", Kind::Denied),
            (413, "", Kind::Denied),
            (405, "UNSUPPORTED", Kind::Denied),
            (429, "TOOMANYREQUESTS", Kind::Unavailable),
            (503, "", Kind::Unavailable),
        ] {
            let body = format!(r#"{{"errors": [{{"code": "{code}"}}]}}"#);
            let failure = tried.judge(&Refusal::of_a_tag(status, &body));
            assert_eq!(failure.kind(), kind, "{status} {code}");
            let message = failure.message();
            assert!(
                message.contains("registry.example.com") && message.contains(code),
                "{message}"
            );
            assert!(message.contains("team/app:1"), "{message}");
        }
        let denied = tried.judge(&Refusal::of_a_tag(403, ""));
        assert!(denied.message().contains("repository:team/app:pull,push"));
        assert!(
            denied.next_action().unwrap().contains("docker login"),
            "{denied:?}"
        );
    }
}
