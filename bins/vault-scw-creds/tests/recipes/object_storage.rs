//! Stands in for Object Storage as far as Terraform's S3 backend goes.
//!
//! Documented behaviour kept (Amazon S3's API reference and "Authenticating requests: AWS Signature Version 4", which Object
//! Storage follows): `ListObjectsV2`, `GetObject`, `HeadObject` and `PutObject` of one bucket, addressed by its host name;
//! 404 `NoSuchKey`; 403 `SignatureDoesNotMatch` for whoever has not signed with the secret key, 403 `InvalidAccessKeyId` for
//! another access key. Departures: it is reached as an HTTP proxy, so that the host stays the page's; no TLS; the list
//! is always empty, which is right where no workspace but the default one has a state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ring::{digest, hmac};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

const EMPTY_LIST: &str =
    "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";

pub(crate) struct ObjectStorage {
    /// What `HTTP_PROXY` is to be.
    pub(crate) address: String,
    bucket: Arc<Bucket>,
    serving: AbortHandle,
}

struct Bucket {
    host: String,
    access_key: String,
    secret_key: String,
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl ObjectStorage {
    /// One empty bucket, whose objects are at `http://HOST/KEY`, for whoever has this key.
    pub(crate) async fn start(host: &str, access_key: &str, secret_key: &str) -> Self {
        let bucket = Arc::new(Bucket {
            host: host.to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            objects: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(bucket.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        ObjectStorage {
            address,
            bucket,
            serving: serving.abort_handle(),
        }
    }

    pub(crate) fn object(&self, key: &str) -> Option<Bytes> {
        self.bucket.objects.lock().unwrap().get(key).cloned()
    }
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let said = |name: &str| text(&head.headers, name);
    if said("host") != bucket.host {
        return (StatusCode::BAD_GATEWAY, format!("no host {}", said("host"))).into_response();
    }
    let query = head.uri.query().unwrap_or_default();
    if let Err(code) = bucket.check(&head.method, head.uri.path(), query, &head.headers, &body) {
        return refusal(StatusCode::FORBIDDEN, code);
    }
    let key = head.uri.path().trim_start_matches('/').to_owned();
    let mut objects = bucket.objects.lock().unwrap();
    match (&head.method, objects.get(&key)) {
        (&Method::GET, _) if key.is_empty() => EMPTY_LIST.into_response(),
        (&Method::GET | &Method::HEAD, Some(object)) => object.clone().into_response(),
        (&Method::GET | &Method::HEAD, None) => refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
        (&Method::PUT, _) => {
            objects.insert(key, body);
            [(header::ETAG, "\"1\"")].into_response()
        }
        _ => refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).map(|value| value.to_str().unwrap());
    value.unwrap_or_default().trim().to_owned()
}

impl Bucket {
    /// Whether the request is signed with the key, as the page named above says.
    fn check(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), &'static str> {
        let authorization = text(headers, "authorization");
        let part = |name: &str| {
            authorization
                .trim_start_matches("AWS4-HMAC-SHA256 ")
                .split(',')
                .find_map(|part| part.trim().strip_prefix(name))
                .unwrap_or_default()
        };
        let (access_key, scope) = part("Credential=").split_once('/').unwrap_or_default();
        if access_key != self.access_key {
            return Err("InvalidAccessKeyId");
        }
        let content = text(headers, "x-amz-content-sha256");
        if content != "UNSIGNED-PAYLOAD" && content != hex(digest::digest(&digest::SHA256, body).as_ref()) {
            return Err("XAmzContentSHA256Mismatch");
        }
        let mut parameters: Vec<&str> = query.split('&').collect();
        parameters.sort_unstable();
        let named = part("SignedHeaders=");
        let signed: String = named
            .split(';')
            .map(|name| format!("{name}:{}\n", text(headers, name)))
            .collect();
        let canonical = format!(
            "{method}\n{path}\n{}\n{signed}\n{named}\n{content}",
            parameters.join("&")
        );
        let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let date = text(headers, "x-amz-date");
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical}");
        let sign = |key: &[u8], text: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
        };
        let first = format!("AWS4{}", self.secret_key).into_bytes();
        let key = scope.split('/').fold(first, |key, part| sign(&key, part));
        if hex(&sign(&key, &to_sign)) != part("Signature=") {
            return Err("SignatureDoesNotMatch");
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
