//! Verifying receipts: the tool's side.
//!
//! Owns the list of checks, in one place and in one order: type, algorithm, key, signature,
//! issuer, audience, time, who or what let it pass, tool, arguments. Must never let a token through that fails one of
//! them, and never say "used before": only the database that runs the tool knows.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet, PublicKeyUse},
};

use serde_json::Value;

use crate::{ArgsDigest, Claims, LEEWAY_SECONDS, LIFETIME_SECONDS, TYPE, sign::jwk};

/// The public keys receipts may be signed with, by key id.
#[derive(Clone, Default)]
pub struct KeySet(BTreeMap<String, PublicKey>);

#[derive(Clone)]
struct PublicKey {
    /// As it is written in a JWK.
    x: String,
    verifies: DecodingKey,
}

/// Why a text is not a usable key set.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It is not a JWK set.
    #[error("not a JWK set (RFC 7517, `{{\"keys\":[…]}}`): {0}")]
    NotAJwks(#[from] hitl_core::json::JsonError),
    /// It holds no key that could have signed a receipt.
    #[error("the JWK set holds no Ed25519 key with a `kid` (kty OKP, crv Ed25519)")]
    NoUsableKey,
    /// One of its keys is broken.
    #[error("key {kid:?} of the JWK set is not a valid Ed25519 public key: {reason}")]
    BadKey {
        /// The key's id.
        kid: String,
        /// What the library said.
        reason: String,
    },
}

impl KeySet {
    /// Reads a JWK set. Keys of other kinds are left out: a set may serve other purposes too.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(jwks: &str) -> Result<Self, KeySetError> {
        let set: JwkSet = hitl_core::json::read(jwks)?;
        let mut keys = BTreeMap::new();
        for jwk in set.keys {
            let (Some(kid), AlgorithmParameters::OctetKeyPair(pair)) =
                (jwk.common.key_id, &jwk.algorithm)
            else {
                continue;
            };
            let encryption = jwk.common.public_key_use == Some(PublicKeyUse::Encryption);
            if pair.curve != EllipticCurve::Ed25519 || encryption {
                continue;
            }
            // The library takes any bytes here, and falls over them when it verifies.
            let bad = |reason: String| KeySetError::BadKey { kid: kid.clone(), reason };
            let bytes = URL_SAFE_NO_PAD.decode(&pair.x).map_err(|error| bad(error.to_string()))?;
            let bytes = bytes.as_slice().try_into().map_err(|_| bad("not 32 bytes".to_owned()))?;
            VerifyingKey::from_bytes(bytes).map_err(|error| bad(error.to_string()))?;
            let verifies =
                DecodingKey::from_ed_components(&pair.x).map_err(|error| bad(error.to_string()))?;
            keys.insert(kid, PublicKey { x: pair.x.clone(), verifies });
        }
        if keys.is_empty() { Err(KeySetError::NoUsableKey) } else { Ok(Self(keys)) }
    }

    /// The keys as members of a JWK set, and nothing else of what they were read from.
    pub fn jwks(&self) -> impl Iterator<Item = Value> {
        self.0.iter().map(|(kid, key)| jwk(kid, &key.x))
    }

    /// The ids of the keys, for logs.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kids()).finish()
    }
}

/// Why a receipt was refused. The texts are for the caller: they say what is wrong, not how to
/// forge it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a compact JWS with the claims of a receipt.
    #[error("it is not a receipt")]
    Malformed,
    /// Another `typ`.
    #[error("it is a token of another type, not {TYPE}")]
    WrongType,
    /// Another algorithm.
    #[error("it is not signed with EdDSA")]
    WrongAlgorithm,
    /// Signed by a key that is not in the set. Worth another look at the set: keys rotate.
    #[error("it is signed by a key this server does not know")]
    UnknownKey,
    /// The signature does not fit.
    #[error("its signature is wrong")]
    BadSignature,
    /// Issued by somebody else.
    #[error("it was issued by another gate")]
    WrongIssuer,
    /// For another server.
    #[error("it is for another server")]
    WrongAudience,
    /// Too old.
    #[error("it has expired")]
    Expired,
    /// Good for longer than receipts are.
    #[error("it is good for longer than a receipt may be")]
    LongLived,
    /// It stands for no approval.
    #[error("it names no approval, or neither a reviewer nor a rule that let the call pass")]
    Unattributed,
    /// Rules let the call pass, and a reviewer is required.
    #[error(
        "no reviewer approved the call, a rule of the gate let it pass; have the rules require an \
         approval, or turn require_reviewer off at the server that verifies receipts"
    )]
    NoReviewer,
    /// From the future.
    #[error("it was issued in the future: the clocks of gate and server differ")]
    NotYet,
    /// For another tool.
    #[error("it approves another tool")]
    OtherTool,
    /// For other arguments.
    #[error("it approves other arguments than those of this call")]
    OtherArguments,
}

/// Checks receipts for one server.
#[derive(Clone, Debug)]
pub struct Verifier {
    issuer: String,
    audience: String,
    require_reviewer: bool,
}

impl Verifier {
    /// A verifier that accepts receipts of `issuer` for `audience`, with a reviewer.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: audience.into(), require_reviewer: true }
    }

    /// Whether a receipt must name a reviewer (default: yes). Without, calls that the gate's rules let
    /// pass by themselves are accepted, too.
    #[must_use]
    pub fn require_reviewer(mut self, require: bool) -> Self {
        self.require_reviewer = require;
        self
    }

    /// Checks everything about a receipt but whether it was used before.
    ///
    /// `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The first [`Refusal`] in the order the module names.
    pub fn verify(
        &self,
        keys: &KeySet,
        token: &str,
        now: u64,
        tool: &str,
        arguments: &ArgsDigest,
    ) -> Result<Claims, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Malformed)?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(Refusal::WrongType);
        }
        if header.alg != Algorithm::EdDSA {
            return Err(Refusal::WrongAlgorithm);
        }
        // RFC 7515: what is marked critical and not understood is refused, and nothing is.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let kid = header.kid.as_deref().ok_or(Refusal::UnknownKey)?;
        let key = &keys.0.get(kid).ok_or(Refusal::UnknownKey)?.verifies;

        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation())
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => Refusal::BadSignature,
                ErrorKind::InvalidIssuer => Refusal::WrongIssuer,
                ErrorKind::InvalidAudience => Refusal::WrongAudience,
                _ => Refusal::Malformed,
            })?
            .claims;

        if claims.exp.saturating_add(LEEWAY_SECONDS) <= now || claims.exp < claims.iat {
            return Err(Refusal::Expired);
        }
        if claims.exp - claims.iat > LIFETIME_SECONDS {
            return Err(Refusal::LongLived);
        }
        if claims.iat > now.saturating_add(LEEWAY_SECONDS) {
            return Err(Refusal::NotYet);
        }
        if claims.jti.as_str().is_empty() || !(claims.has_reviewer() || claims.is_allowed()) {
            return Err(Refusal::Unattributed);
        }
        if self.require_reviewer && !claims.has_reviewer() {
            return Err(Refusal::NoReviewer);
        }
        if claims.tool != tool {
            return Err(Refusal::OtherTool);
        }
        if claims.args_sha256 != arguments.as_str() {
            return Err(Refusal::OtherArguments);
        }
        Ok(claims)
    }

    /// What the library checks. Time is checked here, against the caller's clock.
    fn validation(&self) -> Validation {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["aud", "exp", "iss"]);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }
}

#[cfg(test)]
mod tests;
