//! What a receipt says. Owns the names on the wire; must never hold a claim nobody verifies.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of the approval a receipt stands for (`jti`). Good for one call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReceiptId(String);

impl ReceiptId {
    /// Takes an id as the gate gave it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The claims of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it: the gate's name.
    pub iss: String,
    /// The server the call is for.
    pub aud: String,
    /// The approval it stands for; usable once.
    pub jti: ReceiptId,
    /// Issued at, in seconds since the Unix epoch.
    pub iat: u64,
    /// Good until, in seconds since the Unix epoch.
    pub exp: u64,
    /// Name of the MCP tool that was approved.
    pub tool: String,
    /// Digest of the arguments that were approved, see [`crate::ArgsDigest`].
    pub args_sha256: String,
    /// Who asked, as the gate knows it. Absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Names of the reviewers who approved.
    pub approved_by: Vec<String>,
}
