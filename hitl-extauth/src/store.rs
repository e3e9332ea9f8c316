//! Where requests, decisions and the audit are kept.
//!
//! Owns the contract every store fulfils: each operation is one transaction that loads a
//! [`crate::approval::Life`], lets it step, and writes the outcome together with its rows of the
//! audit. What a store has acknowledged is durable. Must never answer from anything but the store,
//! and never acknowledge what might be lost.

pub mod backup;
pub mod database;
mod forms;
pub mod moving;
pub mod outbox;
pub mod postgres;
pub mod preapprovals;
pub mod recall;
pub mod sqlite;
pub mod unreadable;
mod work;

use std::{sync::Arc, time::Duration};

use hitl_api::{
    Asked, Event, Head, Insights, PreapprovalId, Request, RequestId, Requester, Ruling, State, Vote,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::{approval::Refused, insights::Span};

/// A store, however it keeps things.
pub type SharedStore = Arc<dyn Store>;

/// How long a search may take, with its wait for a connection. Less than the queue waits for the gate.
pub const SEARCH_LIMIT: Duration = Duration::from_secs(10);

/// How long things last, and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a request waits for a decision.
    pub request: SignedDuration,
    /// How long an approval may be used.
    pub grant: SignedDuration,
    /// How long a denial answers the same call again.
    pub cooldown: SignedDuration,
    /// Most requests that wait for a decision.
    pub pending: u32,
    /// Most of them of one requester.
    pub pending_per_requester: u32,
}

/// Says in the log that a database has got a newer schema: from then on an older gate does not open it.
fn tell_of_schema(database: &str, report: &refinery::Report) {
    let applied = report.applied_migrations();
    if let Some(last) = applied.last() {
        tracing::info!(
            database,
            schema = last.version(),
            migrations = applied.len(),
            "the database has got this version's schema; older gates do not open it any more"
        );
    }
}

/// A gated call as it arrives, before the store knows of it.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// The id it gets if it makes a new request.
    pub id: RequestId,
    /// What its approval is bound to.
    pub digest: String,
    /// Who asks, as one text that no other requester has.
    pub identity: String,
    /// Who asks.
    pub requester: Requester,
    /// Authority and path.
    pub route: String,
    /// The server behind.
    pub server: String,
    /// HTTP method.
    pub method: String,
    /// HTTP path with query.
    pub path: String,
    /// The caller's network address, as the gateway saw it.
    pub address: Option<String>,
    /// HTTP headers, redacted.
    pub headers: Map<String, Value>,
    /// The body as it came.
    pub body: String,
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// What the rules ask for.
    pub ruling: Ruling,
    /// What else an approval of it is bound to: what rules look at, its query.
    pub context: Option<Value>,
    /// Pre-approvals that are about it.
    pub preapproved: Vec<PreapprovalId>,
}

impl NewCall {
    /// The crowd whose limits its requester shares, if any.
    pub fn crowd(&self) -> Option<&str> {
        self.requester.crowd(self.address.as_deref())
    }

    /// What pre-approvals are compared with.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            identity: &self.identity,
            requester: &self.requester,
            route: &self.route,
            server: &self.server,
            tool: &self.tool,
            context: self.context.as_ref(),
        }
    }
}

/// What a call finds when it arrives.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// Nothing: it has made a new request.
    New {
        /// Its id.
        id: RequestId,
        /// The request of the same call that time has settled just now, if so: somebody may still
        /// wait on it.
        expired: Option<Box<Request>>,
    },
    /// A request of the same call that still waits for a decision.
    Joined(RequestId),
    /// An approval, which it has just spent; or rules that let it pass.
    Granted(Request),
    /// A denial given a moment ago, or by the rules now.
    Denied(Request),
    /// A queue in which there is no room for one more; nothing was kept.
    Full(QueueFull),
}

/// Why a call makes no new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    /// In all.
    #[error("as many requests wait for a decision as may ({0})")]
    Gate(u32),
    /// Of this requester.
    #[error("as many requests of this requester wait for a decision as may ({0})")]
    Requester(u32),
    /// Of requesters at this address whose names nobody has verified.
    #[error("as many requests from this address wait for a decision as may ({0})")]
    Address(u32),
}

/// Why something did not happen to a request.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such request.
    #[error("there is no request with this id")]
    Unknown,
    /// It is the reviewer's own request.
    #[error("this is your own request; somebody else must decide about it")]
    Own,
    /// It is not theirs to take back.
    #[error(
        "this is somebody else's request; only its requester can withdraw it, and you can deny it"
    )]
    NotOwn,
    /// The request does not allow it; says where it is.
    #[error("{refused}")]
    Refused {
        /// Why.
        refused: Refused,
        /// The request as it is.
        request: Box<Request>,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store cannot do its work now. Nothing of the operation has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room left.
    #[error("the gate's disk is full")]
    Full,
    /// Not writable.
    #[error("the gate's database is read-only")]
    ReadOnly,
    /// A search took longer than it may.
    #[error(
        "the search took longer than {} s: narrow it by state, tool, requester or time", SEARCH_LIMIT.as_secs()
    )]
    TooSlow,
    /// Anything else that may pass.
    #[error("the gate's database is not available: {0}")]
    Unavailable(String),
}

/// Something that changes no state: who left, what was superseded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The caller has hung up.
    CallerLeft,
    /// Its hold was over; it was told to come back.
    AnsweredPending,
    /// A newer identical call has taken its place.
    Superseded,
}

impl Note {
    /// What it is called in the audit.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallerLeft => "caller_left",
            Self::AnsweredPending => "answered_pending",
            Self::Superseded => "superseded",
        }
    }
}

/// A request as those see it who wait on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The request.
    pub request: Request,
    /// Whether a newer call waits on it at another replica.
    pub elsewhere: bool,
}

/// Which requests to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states; any when empty.
    pub states: Vec<State>,
    /// Of this tool.
    pub tool: Option<String>,
    /// Of this requester.
    pub requester: Option<String>,
    /// Of the same call: this is its digest.
    pub digest: Option<String>,
    /// That this reviewer has voted on.
    pub reviewer: Option<String>,
    /// With this text in tool, arguments, requester, reviewer or reason.
    pub text: Option<String>,
    /// Received at or after.
    pub since: Option<Timestamp>,
    /// Received before.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether finding its requests may take reading all of them. The queue, the newest requests and
    /// those of the same call have an index.
    pub fn is_search(&self) -> bool {
        // Every field, so that a new one is thought of here.
        let Self { states, tool, requester, digest: _, reviewer, text, since, until } = self;
        let texts = [tool, requester, reviewer, text];
        !(states.is_empty() || *states == [State::Pending])
            || texts.into_iter().any(Option::is_some)
            || since.is_some()
            || until.is_some()
    }
}

/// How many requests of one tool are in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The state.
    pub state: State,
    /// The tool.
    pub tool: String,
    /// How many.
    pub requests: u64,
}

/// Requests of a list, and whether there are more behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The requests.
    pub requests: Vec<Request>,
    /// Whether the list goes on.
    pub more: bool,
}

/// What was touched, in the order of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The requests.
    pub requests: Vec<RequestId>,
    /// The last row looked at.
    pub until: u64,
}

/// What happened to a request, in order. Of many rows those in the middle are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trail {
    /// The rows.
    pub events: Vec<Event>,
    /// How many are left out.
    pub left_out: u64,
}

impl Trail {
    /// What was read of so many rows.
    fn of(events: Vec<Event>, all: i64) -> Self {
        let read = events.len().try_into().unwrap_or(u64::MAX);
        Self { events, left_out: all.unsigned_abs().saturating_sub(read) }
    }
}

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Which way.
    pub order: Order,
    /// Behind this request, in that order.
    pub after: Option<RequestId>,
    /// At most this many. A page of large requests may end earlier.
    pub limit: u32,
}

/// A page ends when its requests' bodies, arguments, headers and paths have this many bytes.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The contract.
///
/// `now` is the caller's clock in everything that does not say otherwise; stores that are shared
/// between replicas use their own and ignore it.
#[tonic::async_trait]
pub trait Store: outbox::Outbox + preapprovals::Preapproving {
    /// A call arrives: it spends a grant, joins a request, meets a fresh denial, or makes a new
    /// request if there is room for one; the first of these that there is.
    async fn arrive(
        &self,
        call: NewCall,
        terms: Terms,
        now: Timestamp,
    ) -> Result<Arrival, StoreError>;

    /// A reviewer decides, never about a request of their own. `waiter` says that the call is waiting
    /// and will be released by this, `ruling` what the rules ask for by now, where they may have changed.
    async fn vote(
        &self,
        id: RequestId,
        vote: Vote,
        waiter: bool,
        ruling: Option<Ruling>,
        terms: Terms,
    ) -> Result<Request, ChangeError>;

    /// The same call uses the approval, if it is enough for what the rules ask by now.
    async fn spend(
        &self,
        id: RequestId,
        ruling: Option<Ruling>,
        now: Timestamp,
    ) -> Result<Request, ChangeError>;

    /// A call that was released had gone: what it spent is a grant again.
    async fn restore(
        &self,
        id: RequestId,
        terms: Terms,
        now: Timestamp,
    ) -> Result<Request, ChangeError>;

    /// The requester, and nobody else, takes a request back: whoever has one of these names.
    async fn withdraw(
        &self,
        id: RequestId,
        requester: Vec<String>,
        now: Timestamp,
    ) -> Result<Request, ChangeError>;

    /// Settles what has run out; gives those requests.
    async fn age(&self, now: Timestamp) -> Result<Vec<Request>, StoreError>;

    /// Notes something that changes no state: who left, what was superseded.
    async fn note(&self, id: RequestId, note: Note, now: Timestamp) -> Result<(), StoreError>;

    /// One request.
    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError>;

    /// One request, and whether a newer call waits on it at another replica. A store that has one
    /// process to itself knows of none.
    async fn standing(&self, id: RequestId) -> Result<Option<Standing>, StoreError> {
        let request = self.request(id).await?;
        Ok(request.map(|request| Standing { request, elsewhere: false }))
    }

    /// Which requests were settled, restored or joined after a position in the audit, in order, and
    /// the position to go on from: for replicas, which may hold the call that waits on one of them.
    /// `None` when no other replica can have done so.
    async fn touched(&self, after: u64) -> Result<Option<Touched>, StoreError> {
        let _ = after;
        Ok(None)
    }

    /// The time by which things expire, in the precision that everything is kept in.
    fn now(&self) -> Timestamp {
        crate::gate::now()
    }

    /// Says that this replica holds no calls any more, before it goes.
    async fn leave(&self) {}

    /// A page of the requests that a filter lets through.
    async fn list(&self, filter: Filter, page: Page) -> Result<Listed, StoreError>;

    /// How many requests wait for a decision.
    async fn pending(&self) -> Result<u64, StoreError>;

    /// How many requests there are, by state and tool. Whoever names the tools says how many that are.
    async fn counts(&self) -> Result<Vec<Count>, StoreError>;

    /// What became of requests that were settled in a span, and how many wait now.
    async fn insights(&self, span: Span) -> Result<Insights, StoreError>;

    /// Rows of the audit after a position, in order.
    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, StoreError>;

    /// The rows about one request: the first and the last, where there are many.
    async fn trail(&self, id: RequestId) -> Result<Trail, StoreError>;

    /// The end of the audit.
    async fn head(&self) -> Result<Head, StoreError>;

    /// Position of the last row of the audit; changes when there are more. Closed when the store
    /// has ended and will not come back.
    fn latest(&self) -> watch::Receiver<u64>;

    /// Writes something, to see whether writing works.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;
}
