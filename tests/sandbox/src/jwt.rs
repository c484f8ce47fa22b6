//! Signed JSON Web Tokens (RFC 7519), as the stand-ins for GitLab and Kubernetes hand out.
//!
//! The real GitLab and Kubernetes sign with RS256. ring cannot generate RSA keys, so these tokens are signed with
//! ES256 (RFC 7518 section 3.4), which OpenBao's JWT login accepts just as well. Deliberately absent: every other
//! algorithm (a token that names one is refused, which rules out `none` and key confusion), encryption, and leeway on
//! the times, since the world's processes share one clock.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};

/// What precedes the 65 bytes of an uncompressed P-256 point in a DER SubjectPublicKeyInfo (RFC 5480 section 2):
/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 66 bytes with no unused bits }.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// One key pair that signs tokens and knows its own again.
pub struct Signer {
    key_id: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// Why a token was not accepted. No variant carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not three base64url parts of which the first two are JSON objects, or a time is not a number.
    #[error("not a well-formed token")]
    Malformed,
    /// Its header names another algorithm or another key.
    #[error("signed with a key that is not known here")]
    UnknownKey,
    /// The signature does not belong to the header and claims.
    #[error("wrong signature")]
    WrongSignature,
    /// `exp` is not in the future.
    #[error("expired")]
    Expired,
    /// `nbf` is in the future.
    #[error("not valid yet")]
    NotYetValid,
}

impl Signer {
    /// Generates a P-256 key whose tokens name it `key_id` in their header (`kid`).
    pub fn generate(key_id: impl Into<String>) -> Signer {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .expect("the kernel's random source answers");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
            .expect("ring reads the key it just wrote");
        Signer {
            key_id: key_id.into(),
            key,
            random,
        }
    }

    /// Signs `claims` (a JSON object) and returns the token in compact form.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.key_id, "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .expect("the kernel's random source answers");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the claims of `token` if this key signed it and it is valid now. `exp` and `nbf` (RFC 7519 section
    /// 4.1) are optional there, so they are checked where they are present.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, token: &str) -> Result<Value, TokenError> {
        let claims = self.verify_signature(token)?;
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        if numeric_date(&claims, "exp")?.is_some_and(|expires| expires <= now) {
            return Err(TokenError::Expired);
        }
        if numeric_date(&claims, "nbf")?.is_some_and(|starts| starts > now) {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }

    /// The public key as PEM (SubjectPublicKeyInfo), for OpenBao's `jwt_validation_pubkeys`.
    pub fn public_key_pem(&self) -> String {
        let mut der = P256_SPKI_PREFIX.to_vec();
        der.extend_from_slice(self.key.public_key().as_ref());
        let text = STANDARD.encode(der);
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }

    /// The public key as a JSON Web Key Set (RFC 7517 section 5, RFC 7518 section 6.2.1).
    pub fn jwks(&self) -> Value {
        // An uncompressed point (SEC 1, 2.3.3) is 0x04, then x, then y.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    fn verify_signature(&self, token: &str) -> Result<Value, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header = decode_object(header)?;
        if header["alg"] != "ES256" || header["kid"] != self.key_id.as_str() {
            return Err(TokenError::UnknownKey);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::WrongSignature)?;
        decode_object(claims)
    }
}

fn decode_object(part: &str) -> Result<Value, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(TokenError::Malformed)
    }
}

/// A NumericDate (RFC 7519 section 2): seconds since the epoch, possibly with a fraction.
fn numeric_date(claims: &Value, name: &str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(lifetime_seconds: i64) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"iss": "https://gitlab.example.com", "sub": "job", "nbf": now - 5, "exp": now + lifetime_seconds})
    }

    /// `token` with the part at `index` (0 header, 1 claims, 2 signature) put through `change`.
    fn with_part(token: &str, index: usize, change: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let bytes = URL_SAFE_NO_PAD.decode(&parts[index]).unwrap();
        parts[index] = URL_SAFE_NO_PAD.encode(change(bytes));
        parts.join(".")
    }

    fn replaced(from: &'static str, to: &'static str) -> impl Fn(Vec<u8>) -> Vec<u8> {
        move |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{text} lacks {from}");
            text.replace(from, to).into_bytes()
        }
    }

    #[test]
    fn a_token_comes_back_with_its_claims() {
        let signer = Signer::generate("one");
        let claims = claims(60);
        assert_eq!(signer.verify(&signer.sign(&claims)), Ok(claims));
    }

    #[test]
    fn a_token_is_refused_outside_its_times() {
        let signer = Signer::generate("one");
        assert_eq!(signer.verify(&signer.sign(&claims(-1))), Err(TokenError::Expired));
        let later = jiff::Timestamp::now().as_second() + 60;
        assert_eq!(
            signer.verify(&signer.sign(&json!({"nbf": later}))),
            Err(TokenError::NotYetValid)
        );
        assert_eq!(
            signer.verify(&signer.sign(&json!({"exp": "tomorrow"}))),
            Err(TokenError::Malformed)
        );
    }

    #[test]
    fn a_changed_token_is_refused() {
        let signer = Signer::generate("one");
        let token = signer.sign(&claims(60));
        let cases = [
            (
                with_part(&token, 1, replaced("job", "god")),
                TokenError::WrongSignature,
            ),
            (
                with_part(&token, 0, replaced("JWT", "JWS")),
                TokenError::WrongSignature,
            ),
            (
                with_part(&token, 0, replaced("ES256", "none")),
                TokenError::UnknownKey,
            ),
            (
                with_part(&token, 0, replaced("ES256", "HS256")),
                TokenError::UnknownKey,
            ),
            (
                with_part(&token, 0, replaced("one", "two")),
                TokenError::UnknownKey,
            ),
            (with_part(&token, 2, |_| vec![0; 64]), TokenError::WrongSignature),
            (
                with_part(&token, 2, |bytes| bytes[..63].to_vec()),
                TokenError::WrongSignature,
            ),
            (with_part(&token, 2, |_| Vec::new()), TokenError::WrongSignature),
            (format!("{token}="), TokenError::Malformed),
            (
                token.rsplit_once('.').unwrap().0.to_owned(),
                TokenError::Malformed,
            ),
            (String::new(), TokenError::Malformed),
            ("a.b.c".to_owned(), TokenError::Malformed),
            ("never.gonna".to_owned(), TokenError::Malformed),
        ];
        for (changed, expected) in cases {
            assert_eq!(signer.verify(&changed), Err(expected), "{changed}");
        }
        assert!(signer.verify(&token).is_ok());
    }

    #[test]
    fn another_key_of_the_same_name_is_not_this_key() {
        let token = Signer::generate("one").sign(&claims(60));
        assert_eq!(
            Signer::generate("one").verify(&token),
            Err(TokenError::WrongSignature)
        );
    }

    #[test]
    fn pem_and_jwks_hold_the_same_point() {
        let signer = Signer::generate("one");
        let pem = signer.public_key_pem();
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!(lines.first(), Some(&"-----BEGIN PUBLIC KEY-----"));
        assert_eq!(lines.last(), Some(&"-----END PUBLIC KEY-----"));
        assert!(lines.iter().all(|line| line.len() <= 64));
        let der = STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
        assert_eq!(
            usize::from(der[1]) + 2,
            der.len(),
            "the outer length covers the whole document"
        );
        let keys = signer.jwks();
        let key = &keys["keys"][0];
        let mut point = vec![4];
        for coordinate in ["x", "y"] {
            point.extend(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().unwrap()).unwrap());
        }
        assert!(der.ends_with(&point));
        assert_eq!(key["kid"], "one");
    }
}
