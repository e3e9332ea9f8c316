//! What a batch of operations works on: the rows they may touch, as they are after each of them.
//!
//! Pure: loaded by the writer, written back by it, in one transaction. Owns which rows a batch has
//! changed. Must never know more of a row than the transaction has read.

use std::collections::{BTreeMap, HashMap};

use hitl_api::{
    Event, Head, Preapproval, PreapprovalId, Request, RequestId, Requester, State, Vote,
};
use jiff::Timestamp;
use uuid::Uuid;

use super::rows::Kept;
use crate::{
    approval::Life,
    store::{NewCall, StoreError, forms, work::Rows},
};

/// A requester, as requests of theirs are counted.
type Who = (String, &'static str);

/// The rows of a batch.
#[derive(Default)]
pub(super) struct View {
    /// This replica.
    pub(super) replica: Uuid,
    /// The end of the audit.
    pub(super) head: Option<Head>,
    /// What has run out.
    pub(super) due: Vec<RequestId>,
    /// How many requests wait, in all and of those who ask in this batch.
    pub(super) pending: u32,
    pub(super) pending_of: HashMap<Who, u32>,
    /// The same by address, of requesters whose names nobody has verified.
    pub(super) pending_of_crowd: HashMap<String, u32>,
    /// Of each digest the requests that may count.
    standing: HashMap<String, Vec<RequestId>>,
    held: HashMap<RequestId, Held>,
    /// In the order in which they came to be.
    new: Vec<RequestId>,
    pub(super) votes: Vec<(RequestId, Vote)>,
    pub(super) events: Vec<Event>,
    /// Pre-approvals, and whether they were changed.
    preapprovals: BTreeMap<PreapprovalId, (Preapproval, bool)>,
    /// Whether it is to be seen that writing works, though nothing may have changed.
    pub(super) probed: bool,
    /// Why nothing of the batch can be kept, if so: an operation has done half of its work.
    pub(super) broken: Option<StoreError>,
}

/// A request, and what a batch has done to it.
pub(super) struct Held {
    /// As it is now.
    pub(super) request: Request,
    /// Where the newest call waits.
    pub(super) replica: Option<Uuid>,
    /// Since when, if that is of this batch or the row's.
    pub(super) waiting_since: Option<Timestamp>,
    /// The state in which the database has it; `None` when it is new.
    pub(super) before: Option<State>,
    changed: bool,
}

impl Held {
    /// One that comes from elsewhere, and nobody waits on.
    pub(super) fn alone(request: Request) -> Self {
        Self { request, replica: None, waiting_since: None, before: None, changed: true }
    }
}

/// How a requester is counted.
pub(super) fn who(requester: &Requester) -> Who {
    (requester.name.clone(), forms::assurance(requester.assurance))
}

impl View {
    /// Nothing loaded yet.
    pub(super) fn of(replica: Uuid) -> Self {
        Self { replica, ..Self::default() }
    }

    /// Takes in a request as the database has it.
    pub(super) fn load(&mut self, kept: Kept) {
        let Kept { request, replica, waiting_since } = kept;
        let before = Some(request.state);
        let held = Held { request, replica, waiting_since, before, changed: false };
        self.held.insert(held.request.id, held);
    }

    /// Takes in a request that may count for its digest.
    pub(super) fn load_standing(&mut self, kept: Kept) {
        self.standing.entry(kept.request.digest.clone()).or_default().push(kept.request.id);
        // By its id it may be there already; it is the same row.
        self.load(kept);
    }

    /// Takes in a pre-approval as the database has it.
    pub(super) fn load_preapproval(&mut self, kept: Preapproval) {
        self.preapprovals.insert(kept.id, (kept, false));
    }

    /// The pre-approvals that the database has otherwise, or not at all.
    pub(super) fn preapprovals(&self) -> impl Iterator<Item = &Preapproval> {
        self.preapprovals.values().filter(|(_, changed)| *changed).map(|(kept, _)| kept)
    }

    /// The requests that are new, in the order in which they came.
    pub(super) fn inserted(&self) -> Vec<&Held> {
        self.new.iter().filter_map(|id| self.held.get(id)).collect()
    }

    /// The requests that the database has otherwise.
    pub(super) fn updated(&self) -> Vec<(&Held, State)> {
        let held = self.held.values().filter(|held| held.changed);
        let mut held: Vec<_> = held.filter_map(|held| Some((held, held.before?))).collect();
        held.sort_by_key(|(held, _)| held.request.id);
        held
    }

    fn unknown(id: RequestId) -> StoreError {
        StoreError::Unavailable(format!("request {id} is not part of the batch"))
    }

    fn held(&mut self, id: RequestId) -> Result<&mut Held, StoreError> {
        self.held.get_mut(&id).ok_or_else(|| Self::unknown(id))
    }
}

impl Rows for View {
    fn standing(&mut self, digest: &str) -> Result<Option<Request>, StoreError> {
        let ids = self.standing.get(digest).into_iter().flatten();
        let requests = ids.filter_map(|id| self.held.get(id)).map(|held| &held.request);
        let first = requests.max_by_key(|request| {
            let (approved, pending) =
                (request.state == State::Approved, request.state == State::Pending);
            (approved, pending, request.received_at, request.id)
        });
        Ok(first.cloned())
    }

    fn request(&mut self, id: RequestId) -> Result<Option<Request>, StoreError> {
        Ok(self.held.get(&id).map(|held| held.request.clone()))
    }

    fn due(&mut self, _: Timestamp, limit: u32) -> Result<Vec<RequestId>, StoreError> {
        Ok(self.due.iter().copied().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    fn pending(&mut self) -> Result<u32, StoreError> {
        Ok(self.pending)
    }

    fn pending_of(&mut self, requester: &Requester, limit: u32) -> Result<u32, StoreError> {
        Ok(self.pending_of.get(&who(requester)).copied().unwrap_or_default().min(limit))
    }

    fn pending_of_crowd(&mut self, address: &str) -> Result<u32, StoreError> {
        Ok(self.pending_of_crowd.get(address).copied().unwrap_or_default())
    }

    fn insert(&mut self, call: NewCall, life: &Life, now: Timestamp) -> Result<(), StoreError> {
        if life.state == State::Pending {
            if let Some(address) = call.crowd() {
                *self.pending_of_crowd.entry(address.to_owned()).or_default() += 1;
            }
            self.pending += 1;
            *self.pending_of.entry(who(&call.requester)).or_default() += 1;
        }
        self.standing.entry(call.digest.clone()).or_default().push(call.id);
        self.new.push(call.id);
        let request = Request {
            id: call.id,
            state: life.state,
            received_at: now,
            expires_at: life.expires_at,
            settled_at: life.settled_at,
            grant_expires_at: life.grant_expires_at,
            requester: call.requester,
            route: call.route,
            server: call.server,
            method: call.method,
            path: call.path,
            headers: call.headers,
            body: call.body,
            rpc_method: "tools/call".to_owned(),
            tool_name: call.tool,
            tool_args: call.arguments,
            digest: call.digest,
            address: call.address,
            waiting: false,
            waiting_since: None,
            votes: life.votes.clone(),
            needed: life.ruling.needed(),
            ruling: life.ruling.clone(),
            missing: Vec::new(),
            nobody_present: false,
            unreadable: None,
        };
        self.held.insert(request.id, Held::alone(request));
        Ok(())
    }

    fn update(&mut self, id: RequestId, before: State, life: &Life) -> Result<bool, StoreError> {
        let held = self.held(id)?;
        if held.request.state != before {
            return Ok(false);
        }
        held.changed = true;
        held.request.state = life.state;
        held.request.settled_at = life.settled_at;
        held.request.grant_expires_at = life.grant_expires_at;
        held.request.votes.clone_from(&life.votes);
        held.request.needed = life.ruling.needed();
        held.request.ruling.clone_from(&life.ruling);
        let (who, digest) = (who(&held.request.requester), held.request.digest.clone());
        if life.state == State::Approved {
            let standing = self.standing.entry(digest).or_default();
            if !standing.contains(&id) {
                standing.push(id);
            }
        }
        if before == State::Pending && life.state != State::Pending {
            self.pending = self.pending.saturating_sub(1);
            if let Some(pending) = self.pending_of.get_mut(&who) {
                *pending = pending.saturating_sub(1);
            }
        }
        Ok(true)
    }

    fn vote(&mut self, id: RequestId, vote: &Vote) -> Result<(), StoreError> {
        self.votes.push((id, vote.clone()));
        Ok(())
    }

    fn preapproval(&mut self, id: PreapprovalId) -> Result<Option<Preapproval>, StoreError> {
        Ok(self.preapprovals.get(&id).map(|(kept, _)| kept.clone()))
    }

    fn keep(&mut self, preapproval: Preapproval) -> Result<(), StoreError> {
        self.preapprovals.insert(preapproval.id, (preapproval, true));
        Ok(())
    }

    fn head(&mut self) -> Result<Head, StoreError> {
        self.head.clone().ok_or_else(|| StoreError::Unavailable("the audit has no end".to_owned()))
    }

    fn append(&mut self, event: Event) -> Result<(), StoreError> {
        self.head = Some(Head { seq: event.seq, hash: event.hash.clone() });
        self.events.push(event);
        Ok(())
    }

    fn waits_here(&mut self, id: RequestId, now: Timestamp) -> Result<(), StoreError> {
        let replica = self.replica;
        let held = self.held(id)?;
        held.changed = true;
        held.replica = Some(replica);
        held.waiting_since = Some(now);
        Ok(())
    }

    fn left(&mut self, id: RequestId) -> Result<(), StoreError> {
        let replica = self.replica;
        if let Some(held) = self.held.get_mut(&id).filter(|held| held.replica == Some(replica)) {
            held.changed = true;
            held.replica = None;
            held.waiting_since = None;
        }
        Ok(())
    }

    fn waits_elsewhere(&mut self, id: RequestId) -> Result<bool, StoreError> {
        let replica = self.replica;
        Ok(self.held(id)?.replica.is_some_and(|other| other != replica))
    }
}
