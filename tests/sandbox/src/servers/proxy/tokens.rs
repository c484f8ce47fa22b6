//! Tokens that run out.

use std::collections::BTreeMap;

use super::rule::Canned;

const PATH: &str = "/token";

/// A token server and the check of its tokens. It looks at no login and no scope.
#[derive(Debug)]
pub(super) struct Tokens {
    uses: u32,
    issued: u32,
    /// How many requests each token is still good for.
    left: BTreeMap<String, u32>,
}

impl Tokens {
    pub(super) fn good_for(uses: u32) -> Self {
        Self {
            uses,
            issued: 0,
            left: BTreeMap::new(),
        }
    }

    /// The answer to a request that asks for a token or lacks one that is still good.
    pub(super) fn answer(&mut self, host: &str, uri: &str, authorization: Option<&str>) -> Option<Canned> {
        if uri.split('?').next() == Some(PATH) {
            self.issued += 1;
            let token = format!("canary-proxy-token-{}", self.issued);
            let body = format!(r#"{{"token":"{token}","expires_in":300}}"#);
            self.left.insert(token, self.uses);
            return Some(Canned {
                body,
                ..Canned::status(200).with("content-type", "application/json")
            });
        }
        let left = authorization
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(|token| self.left.get_mut(token));
        match left {
            Some(left) if *left > 0 => {
                *left -= 1;
                None
            }
            _ => {
                let challenge = format!("Bearer realm=\"http://{host}{PATH}\",service=\"proxy\"");
                Some(Canned::error(401, "UNAUTHORIZED").with("www-authenticate", &challenge))
            }
        }
    }
}
