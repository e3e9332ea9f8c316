//! Signs what was approved, for the tool to verify.
//!
//! Owns the signing key, and which public keys tools are given. Must never sign anything but a request that
//! has been spent, and never sign with any key but its own.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use hitl_api::{Assurance, Outcome, Request};
use hitl_receipt::{
    ArgsDigest, Claims, DigestError, KeySet, KeySetError, LIFETIME_SECONDS, ReceiptId, Signer,
    SigningError,
};
use hitl_service::private;
use jiff::Timestamp;
use serde_json::Value;

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The key cannot be read or made.
    #[error("--receipt-key {0}: {1}")]
    File(String, io::Error),
    /// There is no randomness to make a key from.
    #[error("no randomness for a new key: {0}")]
    Random(String),
    /// What is in the file is no key.
    #[error("--receipt-key {0}: {1}")]
    Key(String, SigningError),
    /// The public keys cannot be read.
    #[error("--published-keys {0}: {1}")]
    PublishedFile(String, io::Error),
    /// They are no keys.
    #[error("--published-keys {0}: {1}; `hitl-extauth public-key FILE` prints what belongs there")]
    Published(String, KeySetError),
    /// The key does not sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The arguments have no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// Makes receipts in the name of this gate.
#[derive(Debug)]
pub struct Receipts {
    signer: Signer,
    issuer: String,
    /// Public keys of others that are given to tools, too.
    also: Vec<Value>,
}

impl Receipts {
    /// Uses the key in a file, which is made, readable for its owner alone, if it is not there.
    /// Without a file the key lives as long as the process.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub fn new(key: Option<&Path>, issuer: &str) -> Result<Self, ReceiptError> {
        let signer = match key {
            None => Signer::from_bytes(&random()?)?,
            Some(path) => {
                let file = |error| ReceiptError::File(path.display().to_string(), error);
                let key = |error| ReceiptError::Key(path.display().to_string(), error);
                match fs::read_to_string(path) {
                    Ok(pem) => Signer::from_pem(&pem).map_err(key)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let pem = Signer::from_bytes(&random()?)?.to_pem()?;
                        make(path, pem.as_bytes()).map_err(file)?;
                        // Where another replica was faster, its key.
                        Signer::from_pem(&fs::read_to_string(path).map_err(file)?).map_err(key)?
                    }
                    Err(error) => return Err(file(error)),
                }
            }
        };
        Ok(Self { signer, issuer: issuer.to_owned(), also: Vec::new() })
    }

    /// Gives tools the public keys in a file, too: the one that was signed with before, or will be.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub fn with_published(mut self, file: &Path) -> Result<Self, ReceiptError> {
        let name = || file.display().to_string();
        let text =
            fs::read_to_string(file).map_err(|error| ReceiptError::PublishedFile(name(), error))?;
        let set = KeySet::parse(&text).map_err(|error| ReceiptError::Published(name(), error))?;
        // Its own is there already, and is not named twice.
        self.also = set.jwks().filter(|key| key["kid"] != self.signer.kid()).collect();
        Ok(self)
    }

    /// The public keys, for tools: its own first.
    pub fn jwks(&self) -> Value {
        let mut jwks = self.signer.jwks();
        if let Some(keys) = jwks.get_mut("keys").and_then(Value::as_array_mut) {
            keys.extend(self.also.iter().cloned());
        }
        jwks
    }

    /// A receipt for a request that has just been spent.
    ///
    /// # Errors
    /// When the library refuses to sign.
    pub fn sign(&self, request: &Request, now: Timestamp) -> Result<String, ReceiptError> {
        let iat = u64::try_from(now.as_second()).unwrap_or_default();
        let known = request.requester.assurance != Assurance::Address;
        let allowed = request.ruling.allows();
        // A call that the rules let pass was released by no reviewer, even where one had voted before;
        // unless votes made the approval whole, which is then a grant.
        let counted = !allowed || request.grant_expires_at.is_some();
        let approved = request.votes.iter().filter(|vote| counted && vote.approved);
        let rules = request
            .ruling
            .rules
            .iter()
            .filter(|rule| allowed && rule.outcome == Outcome::Allow && rule.failed.is_none());
        // The last one made the approval whole.
        let preapproval = approved.clone().filter_map(|vote| vote.preapproval).next_back();
        Ok(self.signer.sign(&Claims {
            iss: self.issuer.clone(),
            aud: request.server.clone(),
            jti: ReceiptId::new(request.id.to_string()),
            iat,
            exp: iat + LIFETIME_SECONDS,
            tool: request.tool_name.clone(),
            args_sha256: ArgsDigest::of(Some(&request.tool_args))?.as_str().to_owned(),
            sub: known.then(|| request.requester.name.clone()),
            approved_by: approved.map(|vote| vote.reviewer.clone()).collect(),
            allowed_by: rules.map(|rule| rule.name.clone()).collect(),
            preapproval: preapproval.map(|id| id.to_string()),
        })?)
    }
}

/// The public half of a key in a file, as tools are given it.
///
/// # Errors
/// See [`ReceiptError`].
pub fn public_key(file: &Path) -> Result<Value, ReceiptError> {
    let name = || file.display().to_string();
    let pem = fs::read_to_string(file).map_err(|error| ReceiptError::File(name(), error))?;
    let signer = Signer::from_pem(&pem).map_err(|error| ReceiptError::Key(name(), error))?;
    Ok(signer.jwks())
}

/// Makes a file with all of its content, or leaves the one that is there by now.
fn make(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    // Left by a process that had this number and was interrupted.
    let _ = fs::remove_file(&aside);
    let mut new = private::create_new(&aside)?;
    let made = new.write_all(content).and_then(|()| new.sync_all()).and_then(|()| {
        match fs::hard_link(&aside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    fs::remove_file(&aside)?;
    made
}

fn random() -> Result<[u8; 32], ReceiptError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| ReceiptError::Random(error.to_string()))?;
    Ok(bytes)
}
