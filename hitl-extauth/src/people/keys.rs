//! The keys that a provider signs with.
//!
//! Owns when they are asked for: when they are old, and when a token is signed by one that is not known.
//! Must never take a key that is no public key for signatures, and never use old ones for ever.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use hitl_service::given::url::loggable;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Mutex;

/// How old keys may be before they are asked for again.
const FRESH: Duration = Duration::from_mins(10);

/// How old they may be when the provider does not answer.
const OLDEST: Duration = Duration::from_hours(24);

/// How soon they are asked for again, whoever wants to know.
const AGAIN: Duration = Duration::from_secs(5);

/// Largest answer, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Most keys of a provider.
const MOST: usize = 100;

/// A key that signatures are verified with.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: &'static [Algorithm],
    /// The one that the key is for, where that is said.
    only: Option<String>,
    pub(super) verifies: DecodingKey,
}

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The provider does not know it.
    Unknown,
    /// The provider does not answer.
    Away(String),
}

#[derive(Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    at: Option<Instant>,
    /// When they were asked for last, and why that failed.
    asked: Option<(Instant, Option<String>)>,
}

/// The keys of a provider.
pub(super) struct Keys {
    issuer: String,
    jwks: Option<Url>,
    http: reqwest::Client,
    known: RwLock<Known>,
    asking: Mutex<()>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of an issuer; where they are is asked, unless it is given.
    pub(super) fn new(issuer: String, jwks: Option<Url>, http: reqwest::Client) -> Self {
        Self { issuer, jwks, http, known: RwLock::default(), asking: Mutex::default() }
    }

    /// The keys that may have signed this.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<Key>, NoKey> {
        let fits = |keys: &[Key]| -> Vec<Key> {
            let fit = |key: &&Key| {
                key.algorithms.contains(&algorithm)
                    && key.only.as_ref().is_none_or(|only| *only == format!("{algorithm:?}"))
                    && id.is_none_or(|id| key.id.as_deref() == Some(id))
            };
            keys.iter().filter(fit).cloned().collect()
        };
        let (found, age) = self.now(&fits);
        if !found.is_empty() && age.is_some_and(|age| age < OLDEST) {
            if age.is_some_and(|age| age >= FRESH) {
                // Beside: whoever comes with a key that is known waits for nobody.
                let keys = Arc::clone(self);
                tokio::spawn(async move { keys.ask().await });
            }
            return Ok(found);
        }
        let failed = self.ask().await;
        let (found, age) = self.now(&fits);
        match (found.is_empty(), failed) {
            (false, _) if age.is_some_and(|age| age < OLDEST) => Ok(found),
            (_, Some(why)) => Err(NoKey::Away(why)),
            (_, None) => Err(NoKey::Unknown),
        }
    }

    fn now(&self, fits: &impl Fn(&[Key]) -> Vec<Key>) -> (Vec<Key>, Option<Duration>) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        (fits(&known.keys), known.at.map(|at| at.elapsed()))
    }

    /// Asks for the keys, unless somebody has a moment ago; why that failed.
    async fn ask(&self) -> Option<String> {
        let _one = self.asking.lock().await;
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, failed)) = &known.asked
                && at.elapsed() < AGAIN
            {
                return failed.clone();
            }
        }
        let asked = self.fetch().await;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let failed = match asked {
            Ok(keys) => {
                known.keys = Arc::new(keys);
                known.at = Some(Instant::now());
                None
            }
            Err(why) => {
                tracing::error!(issuer = %self.issuer, error = %why, "the keys of the provider stay as they were");
                Some(why)
            }
        };
        known.asked = Some((Instant::now(), failed.clone()));
        failed
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let url = match &self.jwks {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let said = self.get(&url).await?;
        let keys = said.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or_else(|| format!("{} gives no set of keys", loggable(&url)))?;
        // One by one: what is wrong with one is no reason to do without the others.
        let keys: Vec<_> = keys.iter().filter_map(usable).take(MOST).collect();
        if keys.is_empty() {
            let url = loggable(&url);
            return Err(format!("{url} gives no key that signatures can be verified with"));
        }
        Ok(keys)
    }

    /// Where the keys are, as the provider says of itself.
    async fn discover(&self) -> Result<Url, String> {
        let base = self.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let url: Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let said = self.get(&url).await?;
        if said.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(format!("{url} speaks of another issuer"));
        }
        let jwks = said.get("jwks_uri").and_then(Value::as_str).unwrap_or_default();
        let jwks: Url =
            jwks.parse().map_err(|_| format!("{url} does not say where its keys are"))?;
        hitl_client::provider::reachable(&jwks)?;
        Ok(jwks)
    }

    async fn get(&self, url: &Url) -> Result<Value, String> {
        let shown = loggable(url);
        let failed = |error: reqwest::Error| format!("{shown}: {}", innermost(&error));
        let mut answer = self.http.get(url.clone()).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("{shown} answers {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(format!("{shown} answers more than {LARGEST} bytes"));
            }
        }
        hitl_core::json::read(&body).map_err(|error| format!("{shown} gives no JSON: {error}"))
    }
}

/// What lies at the bottom of an error.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A key that signatures can be verified with.
fn usable(value: &Value) -> Option<Key> {
    let jwk: Jwk = hitl_core::json::typed(value.clone()).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        // Anything but 32 bytes is no such key, and the library would not take it for one.
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
            let bytes = URL_SAFE_NO_PAD.decode(&pair.x).ok()?;
            if bytes.len() != 32 {
                return None;
            }
            &[Algorithm::EdDSA]
        }
        // A shared secret is not something that a provider publishes.
        _ => return None,
    };
    let only = value.get("alg").and_then(Value::as_str).map(str::to_owned);
    let verifies = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithms, only, verifies })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_public_key_for_signatures_is_left_out() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "a"});
        assert!(usable(&good).is_some());
        for wrong in [
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": format!("{x}AAAA")}),
            json!({"kty": "OKP", "crv": "X25519", "x": x}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "use": "enc"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": 7}),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-521", "x": x, "y": x}),
            json!({"kty": "new"}),
            json!([]),
        ] {
            assert!(usable(&wrong).is_none(), "{wrong}");
        }
    }
}
