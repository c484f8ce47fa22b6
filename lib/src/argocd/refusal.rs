//! What Argo CD's refusals mean, by status.

use serde::Deserialize;

use super::Located;
use crate::failure::{Failure, Kind};
use crate::http::{Response, StatusCode};

/// How much of an error's body is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How much of it is shown, in characters.
const SHOWN_LIMIT: usize = 400;

/// Turns an answer that is no success into a failure; `asked` names what for.
pub(super) async fn refusal(response: Response, located: &Located, asked: &str) -> Failure {
    let status = response.status();
    let said = message(&response.text(BODY_LIMIT).await);
    classify(status, &said, located, asked)
}

fn classify(status: StatusCode, said: &str, located: &Located, asked: &str) -> Failure {
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    };
    let code = status.as_u16();
    match code {
        401 => Failure::denied(format!("Argo CD does not know the token ({code}){said}")).hint(
            "it is wrong, expired or revoked: make a new one (argocd account generate-token, or \
             argocd proj role create-token) and set ARGOCD_AUTH_TOKEN",
        ),
        403 => Failure::denied(format!(
            "Argo CD refuses {asked} of application {located}: there is none of that name, or the token may not ({code}){said}"
        ))
        .hint(
            "Argo CD answers both alike. Check the name, --app-namespace (TOWPATH_APP_NAMESPACE) and --project \
             (ARGOCD_PROJECT), and that the token's role has `p, ..., applications, get, PROJECT/NAME, allow` \
             (and `sync` for --sync)",
        ),
        404 => Failure::not_found(format!("there is no application {located} in Argo CD ({code}){said}")).hint(
            "check the name, --app-namespace (TOWPATH_APP_NAMESPACE) and --project (ARGOCD_PROJECT)",
        ),
        300..=399 => Failure::input(format!("{asked} of application {located} is answered with another address ({code})"))
            .hint("is ARGOCD_SERVER Argo CD's own address? A proxy that wants a login answers so too"),
        408 | 429 | 500..=599 => {
            Failure::unavailable(format!("Argo CD cannot answer for {asked} of application {located} ({code}){said}"))
                .hint("try again; if it stays so, look at Argo CD's own logs")
        }
        400..=499 => Failure::new(
            Kind::Conflict,
            format!("Argo CD refuses {asked} of application {located} ({code}){said}"),
        ),
        _ => Failure::internal(format!("{asked} of application {located} is answered with {code}{said}")),
    }
}

/// What the gateway says, in one line. Proxies answer HTML, which is dropped.
pub(super) fn message(body: &str) -> String {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        error: Option<String>,
    }
    let text = match serde_json::from_str::<Said>(body) {
        Ok(said) => said.message.or(said.error).unwrap_or_default(),
        Err(_) if body.trim_start().starts_with('<') => String::new(),
        Err(_) => body.to_owned(),
    };
    one_line(&text)
}

/// Words of another system, in one line of a bounded length.
pub(super) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_LIMIT)
        .collect();
    if line.chars().count() > SHOWN_LIMIT {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_kinds() {
        let located: Located = "web".parse().unwrap();
        for (status, kind) in [
            (301, Kind::Input),
            (400, Kind::Conflict),
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (429, Kind::Unavailable),
            (500, Kind::Unavailable),
            (503, Kind::Unavailable),
        ] {
            let failure = classify(
                StatusCode::from_u16(status).unwrap(),
                "said",
                &located,
                "the state",
            );
            assert_eq!(failure.kind(), kind, "{status}");
        }
        let denied = classify(StatusCode::FORBIDDEN, "permission denied", &located, "the state");
        assert!(denied.message().contains("none of that name") && denied.message().contains("may not"));
    }

    #[test]
    fn every_shape_of_a_message_becomes_one_line() {
        for (body, line) in [
            (r#"{"error":"a\nb","code":7,"message":"a\nb"}"#, "a b"),
            (r#"{"error":"only"}"#, "only"),
            ("<html>502</html>", ""),
            ("plain\ttext\n", "plain text"),
            ("", ""),
        ] {
            assert_eq!(message(body), line, "{body}");
        }
        assert!(message(&"x".repeat(5000)).len() < 500);
    }
}
