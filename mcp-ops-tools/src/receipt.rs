//! Approval receipts: when `run_migration` asks for one, and where the keys come from.
//!
//! Owns the gate's public keys and looks for new ones when a receipt names a key it does not know.
//! Must never let a call through because keys could not be had. That a receipt is used once is the
//! database's business: it has to be remembered with the change.

use std::{
    fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use hitl_receipt::{
    ArgsDigest, Claims, DigestError, HEADER, KeySet, KeySetError, Refusal, Verifier,
};
use http::HeaderMap;
use rmcp::model::JsonObject;
use tokio::sync::Mutex;

use crate::config::{KeySource, ReceiptConfig};

/// Shortest time between two looks for new keys: a caller with a made-up key id cannot make this
/// server ask the gate more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How old keys from a URL may be before they are asked for again, and before they are no longer
/// trusted. A key that the gate has taken out is refused after the first of these.
const REFRESH_AFTER: Duration = Duration::from_mins(1);
const TRUSTED_FOR: Duration = Duration::from_mins(5);

/// Longest the gate may take to answer with its keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest key set, in bytes.
const FETCH_LIMIT: usize = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("--receipt-keys {0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// The URL does not answer.
    #[error("--receipt-keys {0} does not answer: {1}")]
    Fetch(String, String),
    /// What is there is not a key set.
    #[error("--receipt-keys {0}: {1}")]
    KeySet(String, KeySetError),
}

/// Why a call is not covered by a receipt. The texts are for whoever made the call.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// There is no receipt.
    #[error(
        "run_migration needs an approval: this call carries no receipt ({HEADER}). Call it through \
         the gateway, where a reviewer approves it; this server cannot be called directly"
    )]
    Missing,
    /// There are several.
    #[error("this call carries more than one receipt ({HEADER}); nothing was run")]
    Several,
    /// The arguments have no digest to compare.
    #[error("{0}")]
    Arguments(#[from] DigestError),
    /// No reviewer approved the call.
    #[error("{0} (mcp-ops-tools: --receipt-require-reviewer false). Nothing was run")]
    NoReviewer(Refusal),
    /// The receipt does not cover this call.
    #[error("the approval receipt of this call does not cover it: {0}. Nothing was run")]
    Refused(Refusal),
    /// It is from before this server could know what was used.
    #[error(
        "the approval receipt is older than this server, which keeps its memory of used receipts \
         in memory only; ask for a new approval (or start the server with --database)"
    )]
    BeforeStart,
}

impl From<Refusal> for ReceiptError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoReviewer => Self::NoReviewer(refusal),
            other => Self::Refused(other),
        }
    }
}

/// The keys, and when and as what they were read.
#[derive(Debug, Default)]
struct Known {
    keys: Arc<KeySet>,
    at: Option<Instant>,
    modified: Option<SystemTime>,
}

/// Checks receipts against the gate's keys.
#[derive(Debug)]
pub struct Receipts {
    verifier: Verifier,
    keys: RwLock<Known>,
    source: KeySource,
    client: Option<reqwest::Client>,
    looked: Mutex<Option<Instant>>,
    /// Oldest `iat` accepted, in seconds since the epoch.
    not_before: u64,
}

impl Receipts {
    /// Prepares to check receipts. Keys in a file must be there; keys at a URL are asked for when
    /// the first receipt comes, because the gate may start later than this server.
    ///
    /// `remembers` says whether used receipts outlive this process. Where they do not, a receipt
    /// from before its start is refused: it may have been used.
    ///
    /// # Errors
    /// [`KeysError`] for a file without a usable key, and a client that cannot be built.
    pub fn new(config: &ReceiptConfig, remembers: bool) -> Result<Self, KeysError> {
        let (keys, client) = match &config.keys {
            KeySource::File(path) => {
                let modified = modified(path);
                let keys = Arc::new(read_file(&config.keys)?);
                (Known { keys, at: Some(Instant::now()), modified }, None)
            }
            KeySource::Url(_) => (Known::default(), Some(client(&config.keys)?)),
        };
        Ok(Self {
            verifier: Verifier::new(&config.issuer, &config.audience)
                .require_reviewer(config.require_reviewer),
            keys: RwLock::new(keys),
            source: config.keys.clone(),
            client,
            looked: Mutex::new(None),
            not_before: if remembers { 0 } else { now() },
        })
    }

    /// The verified receipt of a call of `tool` with `arguments`.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub async fn check(
        &self,
        headers: &HeaderMap,
        tool: &str,
        arguments: Option<&JsonObject>,
    ) -> Result<Claims, ReceiptError> {
        let mut values = headers.get_all(HEADER).iter();
        let token = match (values.next(), values.next()) {
            (None, _) => return Err(ReceiptError::Missing),
            (Some(_), Some(_)) => return Err(ReceiptError::Several),
            (Some(token), None) => token.to_str().map_err(|_| Refusal::Malformed)?,
        };
        let digest = ArgsDigest::of(arguments)?;
        if self.may_have_changed() {
            self.look_for_new_keys().await;
        }
        let verify = || self.verifier.verify(&self.keys(), token, now(), tool, &digest);
        let verified = match verify() {
            Err(Refusal::UnknownKey) if self.look_for_new_keys().await => verify(),
            other => other,
        };
        let claims = verified?;
        if claims.iat < self.not_before { Err(ReceiptError::BeforeStart) } else { Ok(claims) }
    }

    /// The keys; none when they could not be had for too long.
    fn keys(&self) -> Arc<KeySet> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let too_old = matches!(self.source, KeySource::Url(_))
            && known.at.is_none_or(|at| at.elapsed() > TRUSTED_FOR);
        if too_old { Arc::default() } else { Arc::clone(&known.keys) }
    }

    /// Whether a key may have been taken out since the keys were read.
    fn may_have_changed(&self) -> bool {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match &self.source {
            KeySource::File(path) => known.modified != modified(path),
            KeySource::Url(_) => known.at.is_some_and(|at| at.elapsed() > REFRESH_AFTER),
        }
    }

    /// Whether there may be new keys now. Callers that come together share one look.
    async fn look_for_new_keys(&self) -> bool {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        match *looked {
            // Somebody looked while this call waited for its turn.
            Some(at) if at >= asked => return true,
            Some(at) if at.elapsed() < LOOK_INTERVAL => return false,
            _ => {}
        }
        let modified = match &self.source {
            KeySource::File(path) => modified(path),
            KeySource::Url(_) => None,
        };
        let found = match &self.client {
            None => read_file(&self.source),
            Some(client) => fetch(client, &self.source).await,
        };
        *looked = Some(Instant::now());
        match found {
            Ok(keys) => {
                tracing::info!(source = %self.source, ?keys, "read the gate's keys");
                let known = Known { keys: Arc::new(keys), at: Some(Instant::now()), modified };
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = known;
                true
            }
            Err(error) => {
                tracing::error!(%error, "no new keys; calls they would cover are refused");
                false
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read_file(source: &KeySource) -> Result<KeySet, KeysError> {
    let KeySource::File(path) = source else {
        return Ok(KeySet::default());
    };
    let text =
        fs::read_to_string(path).map_err(|error| KeysError::File(source.to_string(), error))?;
    KeySet::parse(&text).map_err(|error| KeysError::KeySet(source.to_string(), error))
}

fn client(source: &KeySource) -> Result<reqwest::Client, KeysError> {
    // An error means that a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| KeysError::Fetch(source.to_string(), error.to_string()))
}

async fn fetch(client: &reqwest::Client, source: &KeySource) -> Result<KeySet, KeysError> {
    let KeySource::Url(url) = source else {
        return Ok(KeySet::default());
    };
    let failed = |text: String| KeysError::Fetch(source.to_string(), text);
    let network = |error: reqwest::Error| failed(error.without_url().to_string());
    let mut response = client
        .get(url.url().clone())
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(network)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        body.extend_from_slice(&chunk);
        if body.len() > FETCH_LIMIT {
            return Err(failed(format!("more than {FETCH_LIMIT} bytes")));
        }
    }
    KeySet::parse(&String::from_utf8_lossy(&body))
        .map_err(|error| KeysError::KeySet(source.to_string(), error))
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}
