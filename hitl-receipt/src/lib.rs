//! The approval receipt: what the gate signs and a tool verifies.
//!
//! A receipt travels with an approved call as the header [`HEADER`]: a compact JWS (EdDSA over
//! Ed25519) that names the one call it is good for. With it a tool need not trust the network
//! between itself and the gate: reaching the tool's port directly gains nothing.
//!
//! Owns the format: [`Claims`], the digest of the arguments ([`ArgsDigest`]), signing and
//! verifying. Must never do I/O, read a clock on its own while it decides about time, or accept an
//! algorithm other than EdDSA. Remembering which receipts were used is the verifier's own
//! business, because it has to happen in the transaction that runs the tool.

mod claims;
mod digest;
mod sign;
mod verify;

pub use claims::{Claims, ReceiptId};
pub use digest::{ArgsDigest, DigestError};
pub use sign::{Signer, SigningError};
pub use verify::{KeySet, KeySetError, Refusal, Verifier};

/// Request header that carries a receipt. Lower case, as HTTP/2 and the gateways write it.
pub const HEADER: &str = "x-hitl-receipt";

/// The `typ` of the JWS header. A token made for another purpose has another type and is refused.
pub const TYPE: &str = "hitl-receipt+jwt";

/// How long a receipt is good for after it was issued, in seconds.
pub const LIFETIME_SECONDS: u64 = 60;

/// How far the clocks of gate and tool may differ, in seconds.
pub const LEEWAY_SECONDS: u64 = 5;

/// Name of the issuer unless configured otherwise.
pub const DEFAULT_ISSUER: &str = "hitl-extauth";
