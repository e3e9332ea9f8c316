//! Making receipts: the gate's side.
//!
//! Owns the signing key while it is in memory. Must never print it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Claims, TYPE};

/// Signs receipts with one Ed25519 key.
pub struct Signer {
    key: EncodingKey,
    kid: String,
    public: String,
    secret: SigningKey,
}

/// Why a key cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The key is not a PKCS#8 Ed25519 private key in PEM.
    #[error(
        "not an Ed25519 private key in PKCS#8 PEM (make one with `openssl genpkey -algorithm ed25519`): {0}"
    )]
    NotAKey(String),
    /// The library refused to sign.
    #[error("the receipt could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

impl Signer {
    /// Reads a private key: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// [`SigningError::NotAKey`] for anything else.
    pub fn from_pem(pem: &str) -> Result<Self, SigningError> {
        let key = SigningKey::from_pkcs8_pem(pem)
            .map_err(|error| SigningError::NotAKey(error.to_string()))?;
        Self::new(&key)
    }

    /// Takes the 32 secret bytes of an Ed25519 key.
    ///
    /// # Errors
    /// When the key has no PKCS#8 form, which does not happen for 32 bytes.
    pub fn from_bytes(secret: &[u8; 32]) -> Result<Self, SigningError> {
        Self::new(&SigningKey::from_bytes(secret))
    }

    fn new(key: &SigningKey) -> Result<Self, SigningError> {
        let der = key.to_pkcs8_der().map_err(|error| SigningError::NotAKey(error.to_string()))?;
        let public = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        Ok(Self {
            key: EncodingKey::from_ed_der(der.as_bytes()),
            kid: thumbprint(&public),
            public,
            secret: key.clone(),
        })
    }

    /// The private key: PKCS#8 in PEM, as [`Self::from_pem`] reads it. Keep it secret.
    ///
    /// # Errors
    /// When the key cannot be written as PEM, which does not happen for a key that was read.
    pub fn to_pem(&self) -> Result<String, SigningError> {
        let pem = self.secret.to_pkcs8_pem(LineEnding::LF);
        pem.map(|pem| (*pem).clone()).map_err(|error| SigningError::NotAKey(error.to_string()))
    }

    /// The key's id: its RFC 7638 thumbprint, so that the same key has the same id everywhere.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK set, for `/.well-known/jwks.json`.
    pub fn jwks(&self) -> Value {
        json!({"keys": [jwk(&self.kid, &self.public)]})
    }

    /// Signs a receipt: a compact JWS.
    ///
    /// # Errors
    /// [`SigningError::Sign`] when the library refuses.
    pub fn sign(&self, claims: &Claims) -> Result<String, SigningError> {
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A public key as a member of a JWK set (RFC 8037).
pub(crate) fn jwk(kid: &str, x: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x})
}

/// RFC 7638: the required members in lexical order, without white space.
fn thumbprint(public: &str) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}
