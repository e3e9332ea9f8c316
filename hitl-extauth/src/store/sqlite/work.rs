//! What happens inside a transaction: load, let the life step, write it and its audit rows.

use hitl_api::{Head, Request, RequestId, State, audit};
use jiff::Timestamp;
use rusqlite::{Connection, named_params};
use serde_json::{Map, Value, json};

use super::rows::{self, millis};
use crate::{
    approval::{Change, Happening, Life, Refused},
    store::{Arrival, ChangeError, NewCall, QueueFull, StoreError, Terms},
};

/// Whose request it has to be.
pub(super) enum Whose {
    /// Anybody's.
    Anybodys,
    /// This person's.
    Of(String),
    /// Anybody's but this person's.
    NotOf(String),
}

/// Most requests settled by one look at the clock; the next look takes the rest.
const SETTLED_AT_ONCE: u32 = 500;

pub(super) fn arrive(
    connection: &Connection,
    call: &NewCall,
    terms: Terms,
    now: Timestamp,
) -> Result<Arrival, StoreError> {
    let mut expired = None;
    if let Some(standing) = rows::standing(connection, &call.digest)? {
        let before = standing.state;
        // Time may have settled it since; then it is as if there were none.
        let aged = step(connection, standing, &Happening::Age, now)?.0;
        match aged.state {
            State::Approved => {
                let (request, refused) = step(connection, aged, &Happening::Spend, now)?;
                if refused.is_ok() {
                    return Ok(Arrival::Granted(request));
                }
            }
            State::Pending => {
                append(connection, aged.id, "joined", Map::new(), now)?;
                return Ok(Arrival::Joined(aged.id));
            }
            State::Denied
                if aged.settled_at.is_some_and(|at| now.duration_since(at) < terms.cooldown) =>
            {
                append(connection, aged.id, "repeated", Map::new(), now)?;
                return Ok(Arrival::Denied(aged));
            }
            State::Expired if before == State::Pending => expired = Some(Box::new(aged)),
            _ => {}
        }
    }
    if let Some(full) = full(connection, call, terms)? {
        return Ok(Arrival::Full(full));
    }
    let life = Life::new(now, terms.request, call.needed);
    rows::insert(connection, call, &life, now)?;
    let data = json!({
        "requester": call.requester, "route": call.route, "server": call.server,
        "tool": call.tool, "arguments": call.arguments, "digest": call.digest,
        "expiresAt": life.expires_at, "needed": life.needed,
    });
    append(connection, call.id, "received", object(data), now)?;
    Ok(Arrival::New { id: call.id, expired })
}

/// Whether one more request may wait for a decision.
fn full(
    connection: &Connection,
    call: &NewCall,
    terms: Terms,
) -> Result<Option<QueueFull>, StoreError> {
    let most = terms.pending_per_requester;
    if rows::pending_of(connection, &call.requester, most)? >= most {
        return Ok(Some(QueueFull::Requester(most)));
    }
    let most = terms.pending;
    Ok((rows::pending(connection)? >= most).then_some(QueueFull::Gate(most)))
}

/// The request after it, and whether it was allowed. A refusal is no failure of the transaction: what
/// time has made of the request stays.
pub(super) fn change(
    connection: &Connection,
    id: RequestId,
    happening: &Happening,
    whose: &Whose,
    now: Timestamp,
) -> Result<(Request, Result<(), Refused>), ChangeError> {
    let request = rows::request(connection, id)?.ok_or(ChangeError::Unknown)?;
    match whose {
        Whose::NotOf(person) if request.requester.is(person) => return Err(ChangeError::Own),
        Whose::Of(person) if !request.requester.is(person) => return Err(ChangeError::NotOwn),
        Whose::Anybodys | Whose::Of(_) | Whose::NotOf(_) => {}
    }
    Ok(step(connection, request, happening, now)?)
}

pub(super) fn age(connection: &Connection, now: Timestamp) -> Result<Vec<Request>, StoreError> {
    let mut settled = Vec::new();
    for id in rows::due(connection, now, SETTLED_AT_ONCE)? {
        if let Some(request) = rows::request(connection, id)? {
            settled.push(step(connection, request, &Happening::Age, now)?.0);
        }
    }
    Ok(settled)
}

pub(super) fn note(
    connection: &Connection,
    id: RequestId,
    kind: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    append(connection, id, kind, Map::new(), now)
}

pub(super) fn probe(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO probe (only_row, at) VALUES (1, ?1)
             ON CONFLICT (only_row) DO UPDATE SET at = excluded.at",
        )?
        .execute([millis(now)])?;
    Ok(())
}

/// Lets a request step, and writes what that changed.
fn step(
    connection: &Connection,
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
        needed: request.needed,
    };
    let (life, changes, result) = before.step(happening, now);
    if changes.is_empty() {
        return Ok((request, result));
    }
    // Conditional on the state it was in: whoever else may write, one step wins.
    let updated = connection
        .prepare_cached(
            "UPDATE requests SET state = :state, settled_at = :settled_at,
             grant_expires_at = :grant_expires_at WHERE id = :id AND state = :before",
        )?
        .execute(named_params! {
            ":state": life.state.name(),
            ":settled_at": life.settled_at.map(millis),
            ":grant_expires_at": life.grant_expires_at.map(millis),
            ":id": request.id.to_string(),
            ":before": before.state.name(),
        })?;
    if updated != 1 {
        return Err(StoreError::Unavailable("the request changed meanwhile".to_owned()));
    }
    for vote in life.votes.iter().skip(before.votes.len()) {
        rows::insert_vote(connection, request.id, vote)?;
    }
    for change in changes {
        let data = particulars(change, &life);
        append(connection, request.id, kind(change), data, now)?;
    }
    let request = Request {
        state: life.state,
        settled_at: life.settled_at,
        grant_expires_at: life.grant_expires_at,
        votes: life.votes,
        ..request
    };
    Ok((request, result))
}

fn kind(change: Change) -> &'static str {
    match change {
        Change::Voted => "voted",
        Change::Approved => "approved",
        Change::Spent => "spent",
        Change::Restored => "restored",
        Change::Denied => "denied",
        Change::Expired => "expired",
        Change::Lapsed => "lapsed",
        Change::Withdrawn => "withdrawn",
    }
}

fn particulars(change: Change, life: &Life) -> Map<String, Value> {
    let data = match change {
        Change::Voted | Change::Denied => {
            let vote = life.votes.last();
            json!({"reviewer": vote.map(|v| &v.reviewer), "reason": vote.map(|v| &v.reason)})
        }
        Change::Approved => {
            let vote = life.votes.last();
            json!({
                "reviewer": vote.map(|v| &v.reviewer), "reason": vote.map(|v| &v.reason),
                "grantExpiresAt": life.grant_expires_at,
            })
        }
        Change::Restored => json!({"grantExpiresAt": life.grant_expires_at}),
        Change::Spent | Change::Expired | Change::Lapsed | Change::Withdrawn => json!({}),
    };
    object(data)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Appends a row to the audit.
fn append(
    connection: &Connection,
    request: RequestId,
    kind: &str,
    data: Map<String, Value>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let head: Head = rows::head(connection)?;
    let event = audit::follow(&head, now, request, kind, data)
        .map_err(|broken| StoreError::Unavailable(broken.to_string()))?;
    rows::insert_event(connection, &event)?;
    Ok(())
}
