//! What the API server's refusals mean, by status.

use serde::Deserialize;

use crate::failure::{Failure, Kind};
use crate::http::{Response, StatusCode};

/// How much of an error's body is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How much of it is shown, in characters.
const SHOWN_LIMIT: usize = 400;

/// A `Status` document, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub(super) message: Option<String>,
    pub(super) code: Option<u16>,
}

/// Turns an answer that is no success into a failure. `verb` and `object` are what a role would have to allow.
pub(super) async fn refusal(response: Response, verb: &str, object: &str) -> Failure {
    let status = response.status();
    let body = response.text(BODY_LIMIT).await;
    let said: Said = serde_json::from_str(&body).unwrap_or_default();
    classify(status, &said.message.unwrap_or_default(), verb, object)
}

pub(super) fn classify(status: StatusCode, said: &str, verb: &str, object: &str) -> Failure {
    let said: String = said
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_LIMIT)
        .collect();
    let said = if said.is_empty() {
        said
    } else {
        format!(": {said}")
    };
    let code = status.as_u16();
    match code {
        401 => Failure::denied(format!(
            "the cluster does not know the service account's token ({code}){said}"
        ))
        .hint("is --kubernetes-token-file of the cluster at --kubernetes-url?"),
        403 => Failure::denied(format!(
            "the service account may not {verb} {object}, which may not be there either ({code}){said}"
        ))
        .hint(format!(
            "bind it to a role with the verb `{verb}` on that resource in that namespace, and check the name"
        )),
        404 => Failure::not_found(format!("there is no {object} in the cluster ({code}){said}"))
            .hint("check the name and --app-namespace (TOWPATH_APP_NAMESPACE); is Argo CD in this cluster?"),
        409 => Failure::conflict(format!("the cluster refuses to {verb} {object} ({code}){said}")),
        408 | 410 | 429 | 500..=599 => {
            Failure::unavailable(format!("the cluster cannot {verb} {object} now ({code}){said}"))
                .hint("try again; if it stays so, look at the API server")
        }
        _ => Failure::new(
            Kind::Input,
            format!("the cluster refuses to {verb} {object} ({code}){said}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_kinds() {
        for (status, kind) in [
            (400, Kind::Input),
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (409, Kind::Conflict),
            (410, Kind::Unavailable),
            (429, Kind::Unavailable),
            (500, Kind::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                classify(status, "said", "get", "application web").kind(),
                kind,
                "{status}"
            );
        }
    }
}
