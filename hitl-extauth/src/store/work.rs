//! What happens inside a transaction: load, let the life step, write it and its audit rows.
//!
//! Owns the order of things for every store; a store brings the rows. Must never decide what
//! [`Life::step`] decides.

use hitl_api::{
    Event, Head, Preapproval, PreapprovalId, Request, RequestId, Requester, State, Vote, audit,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    approval::{Change, Happening, Life, Refused},
    parking::Limits,
    store::{
        Arrival, ChangeError, NewCall, Note, QueueFull, StoreError, Terms, preapprovals::Ender,
        recall,
    },
};

/// The rows of a store, inside one transaction.
pub(super) trait Rows {
    /// The request of a call that counts: an approval that can be spent, else one that waits, else
    /// the newest.
    fn standing(&mut self, digest: &str) -> Result<Option<Request>, StoreError>;

    /// One request.
    fn request(&mut self, id: RequestId) -> Result<Option<Request>, StoreError>;

    /// Requests and grants that have run out by `now`, so many at most.
    fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<RequestId>, StoreError>;

    /// How many requests wait for a decision.
    fn pending(&mut self) -> Result<u32, StoreError>;

    /// How many of them are this requester's, counted no further than `limit`.
    fn pending_of(&mut self, requester: &Requester, limit: u32) -> Result<u32, StoreError>;

    /// How many of them are of requesters at this address whose names nobody has verified.
    fn pending_of_crowd(&mut self, address: &str) -> Result<u32, StoreError>;

    /// Keeps a new request.
    fn insert(&mut self, call: NewCall, life: &Life, now: Timestamp) -> Result<(), StoreError>;

    /// Keeps what a step has made of a request that was in the state `before`. `false` when it was
    /// not.
    fn update(&mut self, id: RequestId, before: State, life: &Life) -> Result<bool, StoreError>;

    /// Keeps a vote.
    fn vote(&mut self, id: RequestId, vote: &Vote) -> Result<(), StoreError>;

    /// One pre-approval.
    fn preapproval(&mut self, id: PreapprovalId) -> Result<Option<Preapproval>, StoreError>;

    /// Keeps a pre-approval as it is now, new or not.
    fn keep(&mut self, preapproval: Preapproval) -> Result<(), StoreError>;

    /// The end of the audit.
    fn head(&mut self) -> Result<Head, StoreError>;

    /// Keeps a row of the audit.
    fn append(&mut self, event: Event) -> Result<(), StoreError>;

    /// A call waits on a request here from now on, and nowhere else.
    fn waits_here(&mut self, id: RequestId, now: Timestamp) -> Result<(), StoreError>;

    /// The call that waited on a request here has gone.
    fn left(&mut self, id: RequestId) -> Result<(), StoreError>;

    /// Whether a newer call waits on a request at another replica.
    fn waits_elsewhere(&mut self, id: RequestId) -> Result<bool, StoreError>;
}

/// Whose request it has to be.
pub(super) enum Whose {
    /// Anybody's.
    Anybodys,
    /// That of a person with these names.
    Of(Vec<String>),
    /// Anybody's but that of a person with these names.
    NotOf(Vec<String>),
}

/// Most requests settled by one look at the clock; the next look takes the rest.
pub(super) const SETTLED_AT_ONCE: u32 = 500;

pub(super) fn arrive(
    rows: &mut impl Rows,
    call: NewCall,
    terms: Terms,
    now: Timestamp,
) -> Result<Arrival, StoreError> {
    let mut expired = None;
    let mut given = given(rows, &call, now)?;
    let standing = rows.standing(&call.digest)?;
    if let Some(standing) = standing.filter(|standing| standing.unreadable.is_none()) {
        let before = standing.state;
        // What somebody has said of this very call counts more than what was said before of many.
        if let Some(no) = standing.votes.iter().find(|vote| !vote.approved) {
            given.retain(|one| one.vote.at > no.at);
        }
        // Time may have settled it since, or the rules by now; then it is as if there were none.
        let ruling = Box::new(call.ruling.clone());
        let given = given.iter().map(|one| one.cast(now)).collect();
        let arrive = Happening::Arrive { ruling, given };
        let aged = step(rows, standing, &arrive, now)?.0;
        match aged.state {
            State::Spent if before != State::Spent => return Ok(Arrival::Granted(aged)),
            State::Denied if before == State::Pending => return Ok(Arrival::Denied(aged)),
            State::Pending => {
                rows.waits_here(aged.id, now)?;
                append(rows, aged.id, "joined", Map::new(), now)?;
                return Ok(Arrival::Joined(aged.id));
            }
            State::Denied
                if aged.settled_at.is_some_and(|at| now.duration_since(at) < terms.cooldown) =>
            {
                append(rows, aged.id, "repeated", Map::new(), now)?;
                return Ok(Arrival::Denied(aged));
            }
            State::Expired if before == State::Pending => expired = Some(Box::new(aged)),
            _ => {}
        }
    }
    let given: Vec<_> = given.iter().map(|one| one.cast(now)).collect();
    let (life, changes) = Life::new(now, terms.request, call.ruling.clone(), &given);
    if life.state == State::Pending
        && let Some(full) = full(rows, &call, terms)?
    {
        return Ok(Arrival::Full(full));
    }
    let mut data = object(json!({
        "requester": call.requester, "route": call.route, "server": call.server,
        "tool": call.tool, "arguments": call.arguments, "digest": call.digest,
        "expiresAt": life.expires_at, "needed": life.ruling.needed(),
    }));
    if !life.ruling.rules.is_empty() {
        data.insert("ruling".to_owned(), json!(life.ruling));
    }
    let id = call.id;
    rows.insert(call, &life, now)?;
    if life.state == State::Pending {
        rows.waits_here(id, now)?;
    }
    append(rows, id, "received", data, now)?;
    if life.state == State::Pending {
        return Ok(Arrival::New { id, expired });
    }
    for vote in &life.votes {
        cast(rows, id, vote)?;
    }
    for change in changes {
        append(rows, id, kind(change), particulars(change, &life), now)?;
    }
    let gone = || StoreError::Unavailable("a request that was just kept is gone".to_owned());
    let request = rows.request(id)?.ok_or_else(gone)?;
    Ok(match request.state {
        State::Denied => Arrival::Denied(request),
        _ => Arrival::Granted(request),
    })
}

/// What reviewers have said of a call beforehand: of what the gate has found, whatever may still be used.
fn given(
    rows: &mut impl Rows,
    call: &NewCall,
    now: Timestamp,
) -> Result<Vec<Preapproval>, StoreError> {
    let mut given = Vec::new();
    for id in &call.preapproved {
        let Some(found) = rows.preapproval(*id)? else { continue };
        // Nobody approves their own, not even beforehand.
        let own = names(&found.vote).iter().any(|name| call.requester.is(name));
        if found.is_about(&call.asked()) && !own && found.is_in_force(now) {
            given.push(found);
        }
    }
    Ok(given)
}

/// Keeps a vote. One that was given beforehand uses its pre-approval.
fn cast(rows: &mut impl Rows, id: RequestId, vote: &Vote) -> Result<(), StoreError> {
    rows.vote(id, vote)?;
    let Some(preapproval) = vote.preapproval else { return Ok(()) };
    let gone = || StoreError::Unavailable("a pre-approval is gone".to_owned());
    let found = rows.preapproval(preapproval)?.ok_or_else(gone)?;
    rows.keep(Preapproval { used: found.used.saturating_add(1), ..found })
}

/// A reviewer approves calls that have not come yet. What they have sent before is there already.
pub(super) fn preapprove(
    rows: &mut impl Rows,
    preapproval: Preapproval,
    now: Timestamp,
) -> Result<Option<Preapproval>, StoreError> {
    if let Some(there) = rows.preapproval(preapproval.id)? {
        let same = there.request == preapproval.request
            && there.condition == preapproval.condition
            && there.uses == preapproval.uses
            && there.vote.reviewer == preapproval.vote.reviewer;
        return Ok(same.then_some(there));
    }
    let mut data = object(json!({
        "preapproval": preapproval.id, "requester": preapproval.requester,
        "route": preapproval.route, "server": preapproval.server, "tool": preapproval.tool,
        "condition": preapproval.condition, "context": preapproval.context,
        "uses": preapproval.uses,
        "expiresAt": preapproval.expires_at,
    }));
    data.extend(said(Some(&preapproval.vote)));
    rows.keep(preapproval.clone())?;
    append(rows, preapproval.request, "preapproval_made", data, now)?;
    Ok(Some(preapproval))
}

/// Somebody ends a pre-approval. One that has ended stays as it is.
pub(super) fn end_preapproval(
    rows: &mut impl Rows,
    id: PreapprovalId,
    by: Ender,
    now: Timestamp,
) -> Result<Option<Preapproval>, StoreError> {
    let Some(found) = rows.preapproval(id)? else { return Ok(None) };
    if !found.is_in_force(now) {
        return Ok(Some(found));
    }
    end(rows, found, by, None, now).map(Some)
}

/// Ends one that is in force.
pub(super) fn end(
    rows: &mut impl Rows,
    found: Preapproval,
    by: Ender,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<Preapproval, StoreError> {
    let mut data = object(json!({
        "preapproval": found.id, "reviewer": by.name, "used": found.used, "uses": found.uses,
    }));
    if let Some(reason) = reason {
        data.insert("reason".to_owned(), json!(reason));
    }
    of_whom(&mut data, &by.groups, by.break_glass);
    let ended = Preapproval { ended_at: Some(now), ended_by: Some(by.name), ..found };
    rows.keep(ended.clone())?;
    append(rows, ended.request, "preapproval_ended", data, now)?;
    Ok(ended)
}

/// Whether one more request may wait for a decision.
fn full(
    rows: &mut impl Rows,
    call: &NewCall,
    terms: Terms,
) -> Result<Option<QueueFull>, StoreError> {
    let most = terms.pending_per_requester;
    if rows.pending_of(&call.requester, most)? >= most {
        return Ok(Some(QueueFull::Requester(most)));
    }
    if let Some(address) = call.crowd() {
        let most = Limits::of_crowd(terms.pending);
        if rows.pending_of_crowd(address)? >= most {
            return Ok(Some(QueueFull::Address(most)));
        }
    }
    let most = terms.pending;
    Ok((rows.pending()? >= most).then_some(QueueFull::Gate(most)))
}

/// The request after it, and whether it was allowed. A refusal is no failure of the transaction: what
/// time has made of the request stays.
pub(super) fn change(
    rows: &mut impl Rows,
    id: RequestId,
    mut happening: Happening,
    whose: &Whose,
    now: Timestamp,
) -> Result<(Request, Result<(), Refused>), ChangeError> {
    let request = rows.request(id)?.ok_or(ChangeError::Unknown)?;
    match whose {
        Whose::NotOf(names) if is_any(&request, names) => return Err(ChangeError::Own),
        Whose::Of(names) if !is_any(&request, names) => return Err(ChangeError::NotOwn),
        Whose::Anybodys | Whose::Of(_) | Whose::NotOf(_) => {}
    }
    match &mut happening {
        // The newest call has it. It is told of the approval where it waits.
        Happening::Vote { waiter, .. } if *waiter => *waiter = !rows.waits_elsewhere(id)?,
        Happening::Spend { .. }
            if request.state == State::Approved && rows.waits_elsewhere(id)? =>
        {
            return Ok((request, Err(Refused::Superseded)));
        }
        _ => {}
    }
    Ok(step(rows, request, &happening, now)?)
}

/// All names of whoever has voted.
pub(super) fn names(vote: &Vote) -> Vec<String> {
    std::iter::once(&vote.reviewer).chain(&vote.also).cloned().collect()
}

/// Whether one of these names is the requester's.
fn is_any(request: &Request, names: &[String]) -> bool {
    names.iter().any(|name| request.requester.is(name))
}

pub(super) fn age(rows: &mut impl Rows, now: Timestamp) -> Result<Vec<Request>, StoreError> {
    let mut settled = Vec::new();
    for id in rows.due(now, SETTLED_AT_ONCE)? {
        if let Some(request) = rows.request(id)? {
            settled.push(step(rows, request, &Happening::Age, now)?.0);
        }
    }
    Ok(settled)
}

pub(super) fn note(
    rows: &mut impl Rows,
    id: RequestId,
    note: Note,
    now: Timestamp,
) -> Result<(), StoreError> {
    match note {
        Note::CallerLeft | Note::AnsweredPending => rows.left(id)?,
        Note::Superseded => {}
    }
    append(rows, id, note.name(), Map::new(), now)
}

/// Lets a request step, and writes what that changed.
pub(super) fn step(
    rows: &mut impl Rows,
    request: Request,
    happening: &Happening,
    now: Timestamp,
) -> Result<(Request, Result<(), Refused>), StoreError> {
    let before = Life {
        state: request.state,
        expires_at: request.expires_at,
        grant_expires_at: request.grant_expires_at,
        settled_at: request.settled_at,
        votes: request.votes.clone(),
        ruling: request.ruling.clone(),
    };
    // What cannot be read cannot have been looked at: time passes, and nothing is approved or used.
    let unreadable = request.unreadable.clone().filter(|_| happening.may_release());
    let happening = if unreadable.is_some() { &Happening::Age } else { happening };
    let (life, changes, result) = before.step(happening, now);
    let result = unreadable.map_or(result, |why| Err(Refused::Unreadable(why)));
    if changes.is_empty() {
        return Ok((request, result));
    }
    // Conditional on the state it was in: whoever else may write, one step wins.
    if !rows.update(request.id, before.state, &life)? {
        return Err(StoreError::Unavailable("the request changed meanwhile".to_owned()));
    }
    for vote in life.votes.iter().skip(before.votes.len()) {
        cast(rows, request.id, vote)?;
    }
    for change in changes {
        let data = particulars(change, &life);
        append(rows, request.id, kind(change), data, now)?;
    }
    let request = Request {
        state: life.state,
        settled_at: life.settled_at,
        grant_expires_at: life.grant_expires_at,
        votes: life.votes,
        needed: life.ruling.needed(),
        ruling: life.ruling,
        ..request
    };
    Ok((request, result))
}

fn kind(change: Change) -> &'static str {
    match change {
        Change::Voted => "voted",
        Change::Preapproved(_) => "preapproved",
        Change::Approved => "approved",
        Change::Allowed => "allowed",
        Change::Forbidden => "forbidden",
        Change::Revoked => "revoked",
        Change::Spent => "spent",
        Change::Restored => "restored",
        Change::Denied => "denied",
        Change::Expired | Change::Outdated => "expired",
        Change::Lapsed | Change::Recalled => "lapsed",
        Change::Withdrawn => "withdrawn",
    }
}

fn particulars(change: Change, life: &Life) -> Map<String, Value> {
    let mut said = said(life.votes.last());
    let data = match change {
        Change::Voted | Change::Denied => return said,
        Change::Preapproved(place) => return self::said(life.votes.get(place)),
        Change::Approved => {
            said.insert("grantExpiresAt".to_owned(), json!(life.grant_expires_at));
            return said;
        }
        Change::Allowed => json!({"rules": rule_names(life)}),
        Change::Forbidden => json!({"rules": rule_names(life), "reason": life.ruling.denied}),
        Change::Revoked => json!({
            "rules": rule_names(life), "reason": "the rules ask for more by now",
            "ruling": life.ruling,
        }),
        Change::Restored => json!({"grantExpiresAt": life.grant_expires_at}),
        Change::Recalled | Change::Outdated => json!({"reason": recall::WHY}),
        Change::Spent | Change::Expired | Change::Lapsed | Change::Withdrawn => json!({}),
    };
    object(data)
}

/// What a reviewer has said.
fn said(vote: Option<&Vote>) -> Map<String, Value> {
    let mut said =
        object(json!({"reviewer": vote.map(|v| &v.reviewer), "reason": vote.map(|v| &v.reason)}));
    if let Some(vote) = vote {
        of_whom(&mut said, &vote.groups, vote.break_glass);
    }
    if let Some(id) = vote.and_then(|vote| vote.preapproval) {
        said.insert("preapproval".to_owned(), json!(id));
    }
    said
}

/// As whom somebody did something.
fn of_whom(data: &mut Map<String, Value>, groups: &[String], break_glass: bool) {
    if !groups.is_empty() {
        data.insert("groups".to_owned(), json!(groups));
    }
    if break_glass {
        data.insert("breakGlass".to_owned(), json!(true));
    }
}

/// The rules that have ruled.
fn rule_names(life: &Life) -> Vec<&str> {
    life.ruling.rules.iter().map(|rule| rule.name.as_str()).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Appends a row to the audit.
fn append(
    rows: &mut impl Rows,
    request: RequestId,
    kind: &str,
    data: Map<String, Value>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let head = rows.head()?;
    let event = audit::follow(&head, now, request, kind, data)
        .map_err(|broken| StoreError::Unavailable(broken.to_string()))?;
    rows.append(event)
}

/// Errors that may hold one of the store.
pub(super) trait OfStore: From<StoreError> {
    /// The store's error in it.
    fn of_store(&self) -> Option<&StoreError>;
}

impl OfStore for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl OfStore for ChangeError {
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Unknown | Self::Own | Self::NotOwn | Self::Refused { .. } => None,
        }
    }
}
