//! Manifests and tags.

use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::json;
use towpath::oci::Digest;

use super::{Memory, error, parameter};

impl Memory {
    pub(super) fn manifest(&mut self, method: &Method, repository: &str, name: &str) -> Response {
        let tag = (repository.to_owned(), name.to_owned());
        let digest = self.tags.get(&tag).cloned().unwrap_or_else(|| name.to_owned());
        if let Some(thief) = self.script.thief.clone()
            && !name.starts_with("sha256:")
        {
            self.tags.insert(tag, thief);
        }
        let is_list = digest != name && name.starts_with("sha256-");
        if is_list && self.script.loses_list == Some(repository) {
            self.script.loses_list = None;
            self.tags.remove(&(repository.to_owned(), name.to_owned()));
        }
        match self.manifests.get(&(repository.to_owned(), digest.clone())) {
            None if *method == Method::HEAD && digest.starts_with("sha256:") && digest != name => {
                [("docker-content-digest", digest)].into_response()
            }
            None => error(404, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => {
                let bytes = if self.script.wrong_manifests {
                    Bytes::from_static(b"{\"schemaVersion\":2,\"config\":{}}")
                } else {
                    bytes.clone()
                };
                let headers = [
                    ("content-type", media_type.clone()),
                    ("docker-content-digest", digest),
                ];
                (headers, bytes).into_response()
            }
        }
    }

    pub(super) fn put_manifest(
        &mut self,
        repository: &str,
        name: &str,
        media_type: &str,
        body: Bytes,
    ) -> Response {
        let mut digest = Digest::of(&body).to_string();
        if name.contains(':') {
            name.clone_into(&mut digest);
        } else {
            if let Some((status, code)) = self.script.refuses_tags {
                return error(status, code);
            }
            self.tags
                .insert((repository.to_owned(), name.to_owned()), digest.clone());
        }
        let held = (media_type.to_owned(), body);
        self.manifests.insert((repository.to_owned(), digest), held);
        StatusCode::CREATED.into_response()
    }

    /// Two tags a page, whatever is asked for.
    pub(super) fn tags(&mut self, uri: &Uri, repository: &str) -> Response {
        if let Some(status) = self.script.lists_no_tags {
            return error(status, "PAGINATION_NUMBER_INVALID");
        }
        let last = parameter(uri, "last").unwrap_or_default();
        let all = self
            .tags
            .keys()
            .filter(|(held, tag)| held == repository && *tag > last);
        let page: Vec<&String> = all.map(|(_, tag)| tag).take(2).collect();
        let link = format!(
            "</v2/{repository}/tags/list?last={}>; rel=\"next\"",
            page.last().map_or("", |tag| tag)
        );
        let body = json!({"name": repository, "tags": page}).to_string();
        if page.len() == 2 {
            ([("link", link)], body).into_response()
        } else {
            body.into_response()
        }
    }
}
