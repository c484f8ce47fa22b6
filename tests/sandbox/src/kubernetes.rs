//! Stands in for a Kubernetes API server as far as a login by service-account token needs one.
//!
//! Documented behaviour kept ("Managing Service Accounts", "TokenReview v1", "Service account issuer discovery"):
//! tokens have the claims of projected ones and are bound to a service account that must exist under the same UID, so
//! that deleting it ends them; a review asks for audiences or gets the server's own, and answers with the
//! intersection; only an account bound to `system:auth-delegator` may review, itself included (which is how OpenBao
//! reviews with the token it was given); a token that fails review is answered with 201, no `authenticated` field (the
//! real server leaves a false one out) and an `error`; refusals are `Status` objects; the discovery documents are
//! for service accounts.
//!
//! Departures: tokens are signed as [`crate::jwt`] says, their times are kept without the real server's minute of
//! leeway, a deleted account's tokens end at once (the real server remembers for 10 s whom it has let in), TLS is off, and anonymous requests are turned off (401) but for `/version`. Absent: every other resource.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ring::rand::SecureRandom as _;
use serde_json::{Value, json};

use crate::jwt::{Signer, TokenError};
use crate::loopback;

/// The audiences of the API server itself (`--api-audiences`). A token needs one of them to make a request, so `vault`
/// is among them: OpenBao reviews a login with the very token it was given.
pub const API_AUDIENCES: [&str; 2] = ["https://kubernetes.default.svc", "vault"];

/// A running API server; it ends when this is dropped.
pub struct ApiServer {
    server: loopback::Server,
    cluster: Arc<Cluster>,
}

struct Cluster {
    issuer: String,
    signer: Signer,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    /// The UID of each service account, by namespace and name.
    uids: BTreeMap<(String, String), String>,
    /// The accounts bound to the cluster role `system:auth-delegator`.
    auth_delegators: BTreeSet<(String, String)>,
}

/// Who a valid token speaks for.
struct Identity {
    namespace: String,
    name: String,
    uid: String,
    extra: Value,
    /// The audiences that the token and the question have in common.
    audiences: Vec<String>,
}

impl ApiServer {
    /// Starts a server without service accounts on a free loopback port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> Result<ApiServer> {
        let mut shared = None;
        let server = loopback::Server::start(|address| {
            let cluster = Arc::new(Cluster {
                issuer: format!("http://{address}"),
                signer: Signer::generate("service-accounts"),
                accounts: Mutex::default(),
            });
            shared = Some(cluster.clone());
            Router::new()
                .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review_token))
                .route("/version", get(version))
                .route("/.well-known/openid-configuration", get(discovery))
                .route("/openid/v1/jwks", get(keys))
                .fallback(not_found)
                .with_state(cluster)
        })
        .await?;
        let cluster = shared.expect("the router was asked for once");
        Ok(ApiServer { server, cluster })
    }

    /// The base URL, for OpenBao's `kubernetes_host`; also the issuer of its tokens.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Creates a service account with a UID of its own. One that exists keeps its UID.
    pub fn create_service_account(&self, namespace: &str, name: &str) {
        let account = (namespace.to_owned(), name.to_owned());
        self.cluster
            .accounts()
            .uids
            .entry(account)
            .or_insert_with(new_uid);
    }

    /// Deletes a service account, which ends its tokens at once and for good: one created later under the same name
    /// has another UID.
    pub fn delete_service_account(&self, namespace: &str, name: &str) {
        self.cluster
            .accounts()
            .uids
            .remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Binds a service account to `system:auth-delegator`, which lets it review tokens. As with the real role binding,
    /// the account need not exist and the binding outlives it.
    pub fn bind_auth_delegator(&self, namespace: &str, name: &str) {
        self.cluster
            .accounts()
            .auth_delegators
            .insert((namespace.to_owned(), name.to_owned()));
    }

    /// Issues the token that a pod of this service account finds in a projected volume. Without audiences it is for
    /// the API server.
    ///
    /// # Errors
    /// When the service account does not exist.
    pub fn mint_service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        lifetime: Duration,
    ) -> Result<String> {
        self.cluster.mint(
            namespace,
            name,
            audiences,
            jiff::Timestamp::now().as_second(),
            lifetime,
        )
    }

    /// Issues a token that ran out an hour ago, which the leeway of no verifier saves.
    ///
    /// # Errors
    /// When the service account does not exist.
    pub fn mint_expired_service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
    ) -> Result<String> {
        let hour = Duration::from_secs(3600);
        let issued_at = jiff::Timestamp::now().as_second() - 7200;
        self.cluster.mint(namespace, name, audiences, issued_at, hour)
    }
}

impl Cluster {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // Every change is one insertion or removal, so a panic elsewhere cannot leave the maps half changed.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uid(&self, namespace: &str, name: &str) -> Option<String> {
        self.accounts()
            .uids
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    fn mint(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        issued_at: i64,
        lifetime: Duration,
    ) -> Result<String> {
        let uid = self.uid(namespace, name);
        ensure!(
            uid.is_some(),
            "serviceaccounts {name:?} not found in namespace {namespace:?}"
        );
        let audiences = if audiences.is_empty() {
            &API_AUDIENCES[..1]
        } else {
            audiences
        };
        let pod_uid = new_uid();
        Ok(self.signer.sign(&json!({
            "aud": audiences,
            "exp": issued_at.saturating_add_unsigned(lifetime.as_secs()),
            "iat": issued_at,
            "iss": self.issuer,
            "jti": new_uid(),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": format!("{name}-{}", &pod_uid[..8]), "uid": pod_uid},
                "serviceaccount": {"name": name, "uid": uid},
            },
            "nbf": issued_at,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        })))
    }

    /// Authenticates `token` for one of `wanted` audiences, with the real server's words when it is refused.
    fn authenticate(&self, token: &str, wanted: &[String]) -> Result<Identity, String> {
        let claims = self.signer.verify(token).map_err(|error| match error {
            // What no authenticator of the chain takes for its own is refused without a reason.
            TokenError::Malformed | TokenError::UnknownKey => "invalid bearer token".to_owned(),
            TokenError::WrongSignature => because("error in cryptographic primitive"),
            TokenError::Expired => because("service account token has expired"),
            TokenError::NotYetValid => because("service account token is not valid yet"),
        })?;
        let own = strings(&claims["aud"]);
        let audiences: Vec<String> = own
            .iter()
            .filter(|audience| wanted.contains(audience))
            .cloned()
            .collect();
        if audiences.is_empty() {
            return Err(because(&format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(&own),
                quoted(wanted)
            )));
        }
        let text = |pointer: &str| {
            claims
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let namespace = text("/kubernetes.io/namespace");
        let name = text("/kubernetes.io/serviceaccount/name");
        let claimed = text("/kubernetes.io/serviceaccount/uid");
        let Some(uid) = self.uid(&namespace, &name) else {
            return Err(because(&format!("serviceaccounts {name:?} not found")));
        };
        if uid != claimed {
            return Err(because(&format!(
                "service account UID ({uid}) does not match claim ({claimed})"
            )));
        }
        let extra = json!({
            "authentication.kubernetes.io/credential-id": [format!("JTI={}", text("/jti"))],
            "authentication.kubernetes.io/pod-name": [text("/kubernetes.io/pod/name")],
            "authentication.kubernetes.io/pod-uid": [text("/kubernetes.io/pod/uid")],
        });
        Ok(Identity {
            namespace,
            name,
            uid,
            extra,
            audiences,
        })
    }

    /// Authenticates the caller of the API itself.
    fn caller(&self, headers: &HeaderMap) -> Option<Identity> {
        let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?.trim();
        self.authenticate(token, &API_AUDIENCES.map(str::to_owned)).ok()
    }
}

impl Identity {
    fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// A random UID as Kubernetes gives its objects (RFC 9562, version 4).
pub(crate) fn new_uid() -> String {
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel's random source answers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = u128::from_be_bytes(bytes);
    let hex = format!("{digits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

async fn review_token(State(cluster): State<Arc<Cluster>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(caller) = cluster.caller(&headers) else {
        return unauthorized();
    };
    let account = (caller.namespace.clone(), caller.name.clone());
    if !cluster.accounts().auth_delegators.contains(&account) {
        return status(
            StatusCode::FORBIDDEN,
            "Forbidden",
            &format!(
                "tokenreviews.authentication.k8s.io is forbidden: User {:?} cannot create resource \"tokenreviews\" in \
                 API group \"authentication.k8s.io\" at the cluster scope",
                caller.username()
            ),
            json!({"group": "authentication.k8s.io", "kind": "tokenreviews"}),
        );
    }
    let bad_request = |message: &str| status(StatusCode::BAD_REQUEST, "BadRequest", message, json!(null));
    let Ok(Value::Object(review)) = serde_json::from_slice(&body) else {
        return bad_request("the object provided is unrecognized (must be of type TokenReview)");
    };
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let Some(token) = spec["token"].as_str().filter(|token| !token.is_empty()) else {
        return bad_request("token is required for TokenReview in authentication");
    };
    let mut wanted = strings(&spec["audiences"]);
    if wanted.is_empty() {
        wanted = API_AUDIENCES.map(str::to_owned).to_vec();
    }
    let outcome = match cluster.authenticate(token, &wanted) {
        Ok(identity) => json!({
            "authenticated": true,
            "user": {
                "username": identity.username(),
                "uid": identity.uid,
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{}", identity.namespace),
                    "system:authenticated",
                ],
                "extra": identity.extra,
            },
            "audiences": identity.audiences,
        }),
        Err(error) => json!({"user": {}, "error": error}),
    };
    let reviewed = json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "spec": spec,
        "status": outcome,
    });
    (StatusCode::CREATED, axum::Json(reviewed)).into_response()
}

async fn version() -> Response {
    axum::Json(json!({
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.3",
        "platform": "linux/amd64",
    }))
    .into_response()
}

async fn discovery(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Response {
    if cluster.caller(&headers).is_none() {
        return unauthorized();
    }
    axum::Json(json!({
        "issuer": cluster.issuer,
        "jwks_uri": format!("{}/openid/v1/jwks", cluster.issuer),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
    .into_response()
}

async fn keys(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Response {
    if cluster.caller(&headers).is_none() {
        return unauthorized();
    }
    (
        [(CONTENT_TYPE, "application/jwk-set+json")],
        cluster.signer.jwks().to_string(),
    )
        .into_response()
}

async fn not_found() -> Response {
    status(
        StatusCode::NOT_FOUND,
        "NotFound",
        "the server could not find the requested resource",
        json!({}),
    )
}

fn unauthorized() -> Response {
    status(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "Unauthorized",
        json!(null),
    )
}

/// A `Status` object of kind `Failure` (Kubernetes API conventions, "Response Status Kind").
fn status(code: StatusCode, reason: &str, message: &str, details: Value) -> Response {
    let mut body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
    });
    if !details.is_null() {
        body["details"] = details;
    }
    body["code"] = code.as_u16().into();
    (code, axum::Json(body)).into_response()
}

/// What an authenticator says that knew the token for its own and still refused it.
fn because(reason: &str) -> String {
    format!("[invalid bearer token, {reason}]")
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// A list as Go's `%q` prints it.
fn quoted(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
