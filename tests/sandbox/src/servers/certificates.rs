//! Certificates for servers and clients of a test, made when they are needed.
//!
//! Just enough of X.509 (RFC 5280) in DER (X.690) for what TLS checks: names, validity, who may sign and what for. Keys
//! are ECDSA on P-256.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use serde_json::{Value, json};

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;

/// When a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From an hour ago until tomorrow.
    Now,
    /// It ended an hour ago.
    Over,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS#8).
    pub key: String,
}

impl Certificate {
    /// Signs claims with the key, as a token that carries the certificate (`x5c`; RFC 7515, section 4.1.6), which is how
    /// docker-registry gets to know who signs its tokens.
    ///
    /// # Errors
    /// When certificate or key are not what [`Authority::issue`] made.
    pub fn sign_token(&self, claims: &Value) -> anyhow::Result<String> {
        let random = SystemRandom::new();
        let key = STANDARD.decode(body(&self.key))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random)
            .map_err(|_| anyhow!("the key cannot be read"))?;
        let header = json!({"alg": "ES256", "typ": "JWT", "x5c": [body(&self.certificate)]});
        let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(claims));
        let signature = pair
            .sign(&random, signed.as_bytes())
            .map_err(|_| anyhow!("the token cannot be signed"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Writes certificate and key into a folder, which is made where it is not there, under the names that docker's
    /// `certs.d` has for a client's. Answers both paths, that of the certificate first.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write_to(&self, folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
        fs::create_dir_all(folder)?;
        let (certificate, key) = (folder.join("client.cert"), folder.join("client.key"));
        fs::write(&certificate, &self.certificate)?;
        fs::write(&key, &self.key)?;
        Ok((certificate, key))
    }
}

/// What a PEM text holds, on one line.
fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

/// Who signs certificates, and is trusted or not.
#[derive(Debug)]
pub struct Authority {
    name: String,
    pair: EcdsaKeyPair,
    certificate: String,
}

impl Authority {
    /// A new one, which signs itself.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let (pair, _) = new_pair()?;
        let is_authority = der(SEQUENCE, &[0x01, 0x01, 0xff]);
        let extension = extension(BASIC_CONSTRAINTS, &is_authority);
        let certificate = signed(
            name,
            &pair,
            name,
            pair.public_key().as_ref(),
            Validity::Now,
            &extension,
        )?;
        Ok(Authority {
            name: name.to_owned(),
            pair,
            certificate,
        })
    }

    /// Its own certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for these host names and addresses, good for servers and clients.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn issue(&self, names: &[&str], validity: Validity) -> anyhow::Result<Certificate> {
        let (pair, key) = new_pair()?;
        let mut alternatives = Vec::new();
        for name in names {
            match name.parse() {
                Ok(IpAddr::V4(address)) => alternatives.extend(der(0x87, &address.octets())),
                Ok(IpAddr::V6(address)) => alternatives.extend(der(0x87, &address.octets())),
                Err(_) => alternatives.extend(der(0x82, name.as_bytes())),
            }
        }
        let usages = [der(OID, SERVER_AUTH), der(OID, CLIENT_AUTH)].concat();
        let extensions = [
            extension(ALTERNATIVE_NAMES, &der(SEQUENCE, &alternatives)),
            extension(EXTENDED_KEY_USAGE, &der(SEQUENCE, &usages)),
        ]
        .concat();
        let subject = names.first().context("a certificate needs a name")?;
        let public_key = pair.public_key();
        let certificate = signed(
            &self.name,
            &self.pair,
            subject,
            public_key.as_ref(),
            validity,
            &extensions,
        )?;
        Ok(Certificate { certificate, key })
    }
}

/// A new key, and its PEM.
fn new_pair() -> anyhow::Result<(EcdsaKeyPair, String)> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
        .map_err(|_| anyhow!("no key could be made"))?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random)
        .map_err(|_| anyhow!("a new key cannot be read"))?;
    Ok((pair, pem("PRIVATE KEY", document.as_ref())))
}

fn signed(
    issuer: &str,
    issuer_pair: &EcdsaKeyPair,
    subject: &str,
    public_key: &[u8],
    validity: Validity,
    extensions: &[u8],
) -> anyhow::Result<String> {
    let algorithm = der(SEQUENCE, &der(OID, ECDSA_WITH_SHA256));
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let (from, until) = match validity {
        Validity::Now => (now - hour, now + hour * 24),
        Validity::Over => (now - hour * 2, now - hour),
    };
    let time = |at: Timestamp| der(0x17, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes());
    let key_kind = der(SEQUENCE, &[der(OID, EC_PUBLIC_KEY), der(OID, P256)].concat());
    let mut serial = [0; 16];
    ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut serial)
        .map_err(|_| anyhow!("no serial number could be made"))?;
    // A positive number without leading zeros.
    serial[0] = 0x40 | (serial[0] & 0x3f);
    let content = [
        // Version 3.
        der(0xa0, &der(0x02, &[2])),
        der(0x02, &serial),
        algorithm.clone(),
        name(issuer),
        der(SEQUENCE, &[time(from), time(until)].concat()),
        name(subject),
        der(SEQUENCE, &[key_kind, bits(public_key)].concat()),
        der(0xa3, &der(SEQUENCE, extensions)),
    ]
    .concat();
    let content = der(SEQUENCE, &content);
    let signature = issuer_pair
        .sign(&SystemRandom::new(), &content)
        .map_err(|_| anyhow!("the certificate of {subject} cannot be signed"))?;
    let certificate = [content, algorithm, bits(signature.as_ref())].concat();
    Ok(pem("CERTIFICATE", &der(SEQUENCE, &certificate)))
}

fn name(text: &str) -> Vec<u8> {
    let attribute = [der(OID, COMMON_NAME), der(0x0c, text.as_bytes())].concat();
    der(SEQUENCE, &der(SET, &der(SEQUENCE, &attribute)))
}

/// An extension, which counts as critical for authorities alone.
fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if oid == BASIC_CONSTRAINTS {
        &[0x01, 0x01, 0xff]
    } else {
        &[]
    };
    let content = [&der(OID, oid)[..], critical, &der(0x04, value)].concat();
    der(SEQUENCE, &content)
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], bytes].concat())
}

/// Tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => bytes.push(length),
        _ => {
            let length = content.len().to_be_bytes();
            let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            // As many bytes of length follow; there are never more than eight.
            bytes.push(0x80 + length.len() as u8);
            bytes.extend(length);
        }
    }
    bytes.extend(content);
    bytes
}

fn pem(kind: &str, bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {kind}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {kind}-----\n")
}
