//! The types of the gate's admin API.
//!
//! Owns the names on the wire, for the gate that serves them and for the queue, the command line
//! and the tests that read them; how the audit's rows follow each other; and how text of somebody
//! else is shown. No I/O, no decisions. Field names that people know from the original lab are kept
//! (`receivedAt`, `rpcMethod`, `toolName`, `toolArgs`).
//!
//! ```text
//! lib          requests, votes, decisions, lists of them
//! insights     what became of requests lately
//! audit        rows of the audit, and whether each follows the one before
//! ruling       what rules ask for, and whether it is met
//! preapproval  what is approved before it comes, and which calls that is about
//! webhooks     messages that did not arrive
//! reveal       other people's text, with nothing in it hidden
//! ```

pub mod audit;
mod insights;
mod preapproval;
pub mod reveal;
mod ruling;
mod webhooks;

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

pub use insights::{Insights, Outcomes, Step, ToolOutcomes};
pub use preapproval::{
    Asked, NotAPreapproval, Preapproval, PreapprovalId, Preapprovals, Preapprove, very_arguments,
};
pub use ruling::{Outcome, Quorum, Risk, RuleSaid, RulesFile, RulesInForce, Ruling};
pub use webhooks::{DeadLetter, DeadLetters, Redeliver, Redelivered};

/// Id of a request: a UUIDv7, so that ids sort by time.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = String, format = Uuid)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id, of now.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// A new id, of this moment.
    pub fn of(moment: Timestamp) -> Self {
        let seconds = u64::try_from(moment.as_second()).unwrap_or_default();
        let nanos = u32::try_from(moment.subsec_nanosecond()).unwrap_or_default();
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::ContextV7::new(), seconds, nanos)))
    }

    /// The id as a UUID, for databases that have a type for it.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for RequestId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text is not the id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a request (a UUID)")
    }
}

impl std::error::Error for NotAnId {}

impl FromStr for RequestId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // One spelling only: with hyphens, as we print it.
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Ok(Self(id)),
            _ => Err(NotAnId),
        }
    }
}

/// Bytes as hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        for half in [byte >> 4, byte & 15] {
            digits.extend(char::from_digit(half.into(), 16));
        }
        digits
    })
}

// The form that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

// The form that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

/// Where a request is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has decided yet.
    Pending,
    /// Approved, and not used yet: a grant for the same call.
    Approved,
    /// Approved and used.
    Spent,
    /// Rejected.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Approved, and not used in time.
    Lapsed,
    /// Taken back by its requester.
    Withdrawn,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Approved,
        Self::Spent,
        Self::Denied,
        Self::Expired,
        Self::Lapsed,
        Self::Withdrawn,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Spent => "spent",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Lapsed => "lapsed",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the gate knows who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// The gateway verified it: a token's claim, or a client certificate.
    Verified,
    /// The caller says so in a header.
    Claimed,
    /// Nobody says who; the caller's network address stands in.
    Address,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Requester {
    /// Name, or address.
    pub name: String,
    /// How the gate knows.
    pub assurance: Assurance,
    /// Groups they belong to, as the gateway has verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Other names of the same person, or of whom they act for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}

impl Requester {
    /// Whether this is that person: the same name or one of the others, however it is capitalised.
    pub fn is(&self, person: &str) -> bool {
        let person = person.to_lowercase();
        std::iter::once(&self.name).chain(&self.also).any(|name| name.to_lowercase() == person)
    }

    /// The network address, where the name is one that nobody has verified: whoever makes up names is one
    /// of a crowd.
    pub fn crowd<'a>(&self, address: Option<&'a str>) -> Option<&'a str> {
        (self.assurance != Assurance::Verified).then(|| address.unwrap_or_default())
    }
}

/// What one reviewer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vote {
    /// The reviewer's name, as their token says.
    pub reviewer: String,
    /// Groups they belonged to when they said it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Other names of the same person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Whether they came by a token of the list although there was an identity provider.
    #[serde(default, skip_serializing_if = "is_false")]
    pub break_glass: bool,
    /// Yes or no.
    pub approved: bool,
    /// Why, in their words.
    pub reason: String,
    /// The pre-approval by which they said it, before the call came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preapproval: Option<PreapprovalId>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl Vote {
    /// Whether two votes are one person's: by any name of either, however it is capitalised.
    pub fn is_of_same(&self, other: &Self) -> bool {
        let names = |vote: &Self| -> Vec<String> {
            let all = std::iter::once(&vote.reviewer).chain(&vote.also);
            all.map(|name| name.to_lowercase()).collect()
        };
        let (ours, theirs) = (names(self), names(other));
        ours.iter().any(|name| theirs.contains(name))
    }
}

/// A request, as reviewers see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Where it is in its life.
    pub state: State,
    /// When it arrived first.
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// When it expires if nobody decides.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When it was decided, expired or was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub settled_at: Option<Timestamp>,
    /// Until when an approval may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub grant_expires_at: Option<Timestamp>,
    /// Who asks.
    pub requester: Requester,
    /// Authority and path the call came for.
    pub route: String,
    /// The server behind, as receipts name it.
    pub server: String,
    /// HTTP method.
    pub method: String,
    /// HTTP path with query.
    pub path: String,
    /// HTTP headers, secrets redacted.
    #[schema(value_type = Object)]
    pub headers: Map<String, Value>,
    /// The body, as it came.
    pub body: String,
    /// JSON-RPC method.
    pub rpc_method: String,
    /// The tool.
    pub tool_name: String,
    /// Its arguments.
    #[schema(value_type = Object)]
    pub tool_args: Map<String, Value>,
    /// What the approval is bound to.
    pub digest: String,
    /// The caller's network address, as the gateway saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether a caller is waiting for the answer right now.
    pub waiting: bool,
    /// Since when it has been, this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub waiting_since: Option<Timestamp>,
    /// What reviewers have said so far.
    pub votes: Vec<Vote>,
    /// How many approvals it needs, at least.
    pub needed: u32,
    /// What the rules ask for: as they are now while it waits, and as they were when it was settled.
    #[serde(default)]
    pub ruling: Ruling,
    /// The approvals that are still missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Quorum>,
    /// While it waits: nobody who may decide listens at the replica that was asked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nobody_present: bool,
    /// Why its stored content cannot be read. Headers, arguments and votes may then be missing; it
    /// can be denied, and never approved or used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// A page of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pending {
    /// The requests that wait, oldest first.
    pub pending: Vec<Request>,
    /// How many wait, on this page and on others.
    #[serde(default)]
    pub total: u64,
    /// Where the next page begins; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The requests, newest first.
    pub requests: Vec<Request>,
    /// Where the next page begins; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a reviewer decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Yes or no.
    pub approved: bool,
    /// Why; the caller gets it word for word.
    #[serde(default)]
    pub reason: String,
}

/// One event: a row of the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Position in the chain, from 1.
    pub seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The request it is about.
    pub request: RequestId,
    /// What happened.
    pub kind: String,
    /// The particulars, by kind.
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
    /// Hash of the row before.
    pub previous: String,
    /// Hash of this row.
    pub hash: String,
    /// Why its stored data cannot be read; `data` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// The end of the audit's chain. Note it elsewhere, and a removed tail shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    /// Position of the last row; 0 when there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

/// Whom a token belongs to, and how the gate is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// The reviewer's name.
    pub name: String,
    /// Groups they belong to.
    pub groups: Vec<String>,
    /// How long a call is held, in seconds.
    pub hold_seconds: u64,
    /// How long an approval waits for the retry of its call, in seconds.
    pub grant_seconds: u64,
    /// Other names of the same person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Whether they may decide at all.
    #[serde(default = "yes")]
    pub may_decide: bool,
    /// Whether they came by a token of the list although there is an identity provider.
    #[serde(default)]
    pub break_glass: bool,
    /// Whether the gate asks nobody who they are: whoever can reach it may decide.
    #[serde(default)]
    pub anybody: bool,
    /// Most calls that one pre-approval may be for; 0: none can be made.
    #[serde(default)]
    pub preapproval_uses: u32,
    /// Longest time for which one may be made, in seconds.
    #[serde(default)]
    pub preapproval_seconds: u64,
}

fn yes() -> bool {
    true
}

/// A request with everything that happened to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// The rows of the audit about it, in order. Where there are more than 250, the first 50 and the last
    /// 200.
    pub events: Vec<Event>,
    /// How many rows between those are left out; the audit has them all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub events_left_out: u64,
}

impl Detail {
    /// Rows that a long trail begins with.
    pub const FIRST: u32 = 50;
    /// Rows that it ends with.
    pub const LAST: u32 = 200;
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, and what to do.
    pub error: String,
    /// How the request is settled, when that is what stands in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Who has settled it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
}
