//! One `config.json`, `auth.json`, or a variable that holds the same.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use super::{ConfigFile, Credential, Login};
use crate::bounded;
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// Larger than any list of logins, in bytes.
const SIZE_LIMIT: u64 = 1024 * 1024;
/// Docker Hub's key in every such file, for reasons that are history.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";
pub(super) const HUB: &str = "docker.io";

/// Some writers leave the padding off.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The file as it is written. Other tools keep more fields in it, which are none of our business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    auths: BTreeMap<String, RawEntry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// A document, read and checked.
#[derive(Clone, Debug)]
pub(super) struct Document {
    origin: String,
    is_ambient: bool,
    auths: BTreeMap<String, Credential>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

/// Where a credential is to be had.
#[derive(Debug)]
pub(super) enum Found {
    Login(Login),
    Helper { program: PathBuf, server: String },
}

fn malformed(origin: &str, why: &str) -> Failure {
    Failure::input(format!(
        "the registry credentials in {origin} are malformed: {why}"
    ))
    .hint("write it with `docker login`, or as docker's config.json is documented")
}

impl Document {
    /// Reads a file; none when it is absent and need not be there.
    pub(super) fn read(file: &ConfigFile) -> Result<Option<Self>> {
        let shown = file.path.display().to_string();
        let text = match bounded::read_text(&file.path, SIZE_LIMIT) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !file.required => return Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::FileTooLarge) => {
                return Err(malformed(&shown, &error.to_string()));
            }
            Err(error) => {
                return Err(
                    Failure::usage(format!("cannot read the registry credentials in {shown}"))
                        .because(error)
                        .hint("check --docker-config (DOCKER_CONFIG) and --registry-auth-file (REGISTRY_AUTH_FILE)"),
                );
            }
        };
        Self::parse(&text, &shown).map(Some)
    }

    /// Reads the text of one. `origin` names it in messages.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self> {
        let malformed = |why: &str| malformed(origin, why);
        // serde's own words may repeat a value of the file, so only the place is told.
        let raw: Raw = serde_json::from_str(text).map_err(|error| {
            malformed(&format!(
                "not the JSON of a docker configuration at line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
        let mut auths = BTreeMap::new();
        for (key, entry) in raw.auths {
            if let Some(credential) = entry
                .credential()
                .map_err(|why| malformed(&format!("{key}: {why}")))?
            {
                auths.insert(normal_key(&key), credential);
            }
        }
        let mut helpers = BTreeMap::new();
        for (key, helper) in raw.cred_helpers {
            check_helper(&helper).map_err(|why| malformed(&format!("credHelpers, {key}: {why}")))?;
            helpers.insert(normal_key(&key), helper);
        }
        // An empty credsStore is how docker's own tools turn one off.
        let store = raw.creds_store.filter(|store| !store.is_empty());
        if let Some(store) = &store {
            check_helper(store).map_err(|why| malformed(&format!("credsStore: {why}")))?;
        }
        Ok(Document {
            origin: origin.to_owned(),
            is_ambient: false,
            auths,
            helpers,
            store,
        })
    }

    /// The same, as one that nobody wrote for this run.
    pub(super) fn ambient(self) -> Self {
        Document {
            is_ambient: true,
            ..self
        }
    }

    /// Whether nobody wrote it for this run.
    pub(super) fn is_ambient(&self) -> bool {
        self.is_ambient
    }

    /// Where it was read from.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Where to look for these keys, longest first: helpers before entries, the general store last.
    pub(super) fn find(&self, keys: &[String]) -> Vec<Found> {
        let helper = |name: &str, key: &str| Found::Helper {
            program: PathBuf::from(format!("docker-credential-{name}")),
            server: if key == HUB {
                HUB_KEY.to_owned()
            } else {
                key.to_owned()
            },
        };
        let mut found = Vec::new();
        for key in keys {
            found.extend(self.helpers.get(key).map(|name| helper(name, key)));
            found.extend(self.auths.get(key).map(|credential| {
                Found::Login(Login {
                    credential: credential.clone(),
                    origin: format!("{}, entry {key}", self.origin),
                })
            }));
        }
        if let (Some(store), Some(host)) = (&self.store, keys.last()) {
            found.push(helper(store, host));
        }
        found
    }
}

impl RawEntry {
    fn credential(self) -> std::result::Result<Option<Credential>, &'static str> {
        let filled = |value: Option<String>| value.filter(|text| !text.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = filled(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = filled(self.auth) {
            // The encoded form is as good as the password, so it is masked like one.
            let auth = Secret::new(auth);
            let bytes = BASE64
                .decode(auth.expose())
                .map_err(|_| "its auth field is not base64")?;
            let pair = String::from_utf8(bytes).map_err(|_| "its auth field is not text")?;
            let (user, password) = pair
                .trim_end_matches('\0')
                .split_once(':')
                .ok_or("its auth field is not USER:PASSWORD in base64")?;
            return Ok(Some(Credential::Password {
                user: user.to_owned(),
                password: Secret::new(password),
            }));
        }
        match (filled(self.username), filled(self.password)) {
            (Some(user), Some(password)) => Ok(Some(Credential::Password {
                user,
                password: Secret::new(password),
            })),
            (None, None) => Ok(None),
            _ => Err("it has a user name or a password, but not both"),
        }
    }
}

/// Cuts off what older tools put around the host. Only a key with a scheme can carry an API version.
fn normal_key(key: &str) -> String {
    let without_scheme = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let key = match without_scheme {
        Some(rest) => {
            let rest = rest.trim_end_matches('/');
            rest.strip_suffix("/v1")
                .or_else(|| rest.strip_suffix("/v2"))
                .unwrap_or(rest)
        }
        None => key.trim_end_matches('/'),
    };
    match key {
        "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        other => other.to_owned(),
    }
}

/// The name becomes a program's, so it must not lead elsewhere.
fn check_helper(name: &str) -> std::result::Result<(), &'static str> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if plain && !name.is_empty() {
        Ok(())
    } else {
        Err("the name of a helper holds letters, digits, '-', '_' and '.'")
    }
}

/// Writes a `config.json` that logs in to each host as the user given with it. The text is a secret as a whole:
/// write it to a file that only its owner may read.
///
/// # Errors
/// Usage (exit 2) when a user's name holds a colon, which the format cannot express.
pub fn render(entries: &[(String, String, Secret)]) -> Result<Secret> {
    #[derive(Serialize)]
    struct Entry {
        auth: String,
    }
    let mut auths = BTreeMap::new();
    for (host, user, password) in entries {
        if user.contains(':') {
            return Err(Failure::usage(format!(
                "the registry user {user:?} of {host} holds a colon"
            )));
        }
        let auth = BASE64.encode(format!("{user}:{}", password.expose()));
        // Whoever prints the file by mistake prints this form.
        let auth = Secret::new(auth).expose().to_owned();
        let key = if host == HUB { HUB_KEY } else { host };
        auths.insert(key.to_owned(), Entry { auth });
    }
    let text = serde_json::to_string_pretty(&BTreeMap::from([("auths", auths)]))
        .map_err(|error| Failure::internal("cannot write registry credentials as JSON").because(error))?;
    Ok(Secret::new(text))
}
