//! What is told to webhooks: kept until it has arrived, or is a dead letter.
//!
//! The audit is the outbox: what happened is turned into messages from its rows, so that nothing that was
//! decided is lost between the decision and its telling. Must never forget a message that nobody has taken.

use hitl_api::RequestId;
use jiff::Timestamp;

use super::StoreError;

/// Rows of the audit that are turned into messages at once.
pub(super) const AT_ONCE: u32 = 500;

/// Kinds of rows that somebody may want to hear of.
pub(super) const TOLD: [&str; 10] = [
    "received",
    "approved",
    "denied",
    "forbidden",
    "spent",
    "allowed",
    "expired",
    "lapsed",
    "revoked",
    "withdrawn",
];

/// A message on its way to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same however often it is sent: the webhook, the row and the begin of the row's hash. By the
    /// position alone, what happens after a restore would be taken for what had been told before it.
    pub id: String,
    /// The webhook's name.
    pub hook: String,
    /// The audit's word for what happened, or `reminder`.
    pub kind: String,
    /// The request it is about.
    pub request: RequestId,
    /// When it happened.
    pub at: Timestamp,
    /// How often it was sent, this time included.
    pub attempts: u32,
    /// Why it did not arrive the last time.
    pub error: Option<String>,
}

/// What became of sending one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It has arrived, or nobody wants it.
    Arrived,
    /// It is sent again.
    Again {
        /// When.
        due: Timestamp,
        /// Why it did not arrive.
        error: String,
    },
    /// It is not sent again by itself.
    Dead(String),
}

/// Messages for webhooks.
#[tonic::async_trait]
pub trait Outbox: Send + Sync {
    /// Turns what has happened since the last time into messages for a webhook; whether there is more. One
    /// that is new hears of what happens from now on.
    async fn publish(&self, hook: &str) -> Result<bool, StoreError>;

    /// Messages that are due, so many at most. They are due again after `lease` seconds, unless it is said
    /// what became of them.
    async fn take(&self, limit: u32, lease: u32) -> Result<Vec<Delivery>, StoreError>;

    /// Says what became of a message.
    async fn sent(&self, id: &str, sent: Sent) -> Result<(), StoreError>;

    /// Dead letters, oldest first.
    async fn dead_letters(&self, limit: u32) -> Result<Vec<Delivery>, StoreError>;

    /// Sends a dead letter again, or all of them; how many.
    async fn redeliver(&self, id: Option<String>) -> Result<u64, StoreError>;
}
