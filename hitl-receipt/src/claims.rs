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
    /// Names of the rules that let the call pass without an approval. Empty where reviewers approved it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<String>,
    /// Id of the pre-approval that released the call; `approved_by` names the reviewer who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preapproval: Option<String>,
}

impl Claims {
    /// Whether a reviewer approved the call, when it came or before.
    pub fn has_reviewer(&self) -> bool {
        is_named(&self.approved_by)
    }

    /// Whether rules let the call pass without an approval.
    pub fn is_allowed(&self) -> bool {
        is_named(&self.allowed_by)
    }
}

fn is_named(names: &[String]) -> bool {
    names.iter().any(|name| !name.trim().is_empty())
}
