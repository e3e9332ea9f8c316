//! Rows to types and back. The only place that knows the column names.

use hitl_api::{
    Assurance, Detail, Event, Head, Preapproval, PreapprovalId, Request, RequestId, Requester,
    State, Vote, audit,
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, types::Type};
use serde_json::{Map, Value};

use super::preapprovals;
use crate::{
    approval::Life,
    insights::Settled,
    store::{Count, NewCall, StoreError, Trail, forms, unreadable, work::Rows},
};

/// A connection in whose transaction something happens.
pub(super) struct Within<'a>(pub(super) &'a Connection);

impl Rows for Within<'_> {
    fn standing(&mut self, digest: &str) -> Result<Option<Request>, StoreError> {
        Ok(standing(self.0, digest)?)
    }

    fn request(&mut self, id: RequestId) -> Result<Option<Request>, StoreError> {
        Ok(request(self.0, id)?)
    }

    fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<RequestId>, StoreError> {
        Ok(due(self.0, now, limit)?)
    }

    fn pending(&mut self) -> Result<u32, StoreError> {
        Ok(pending(self.0)?)
    }

    fn pending_of(&mut self, requester: &Requester, limit: u32) -> Result<u32, StoreError> {
        Ok(pending_of(self.0, requester, limit)?)
    }

    fn pending_of_crowd(&mut self, address: &str) -> Result<u32, StoreError> {
        Ok(pending_of_crowd(self.0, address)?)
    }

    fn insert(&mut self, call: NewCall, life: &Life, now: Timestamp) -> Result<(), StoreError> {
        Ok(insert(self.0, &call, life, now)?)
    }

    fn update(&mut self, id: RequestId, before: State, life: &Life) -> Result<bool, StoreError> {
        Ok(update(self.0, id, before, life)?)
    }

    fn vote(&mut self, id: RequestId, vote: &Vote) -> Result<(), StoreError> {
        Ok(insert_vote(self.0, id, vote)?)
    }

    fn preapproval(&mut self, id: PreapprovalId) -> Result<Option<Preapproval>, StoreError> {
        Ok(preapprovals::one(self.0, id)?)
    }

    fn keep(&mut self, preapproval: Preapproval) -> Result<(), StoreError> {
        Ok(preapprovals::keep(self.0, &preapproval)?)
    }

    fn head(&mut self) -> Result<Head, StoreError> {
        Ok(head(self.0)?)
    }

    fn append(&mut self, event: Event) -> Result<(), StoreError> {
        Ok(insert_event(self.0, &event)?)
    }

    // One process has the file, and knows by itself who waits.

    fn waits_here(&mut self, _: RequestId, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    fn left(&mut self, _: RequestId) -> Result<(), StoreError> {
        Ok(())
    }

    fn waits_elsewhere(&mut self, _: RequestId) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// A moment as the database keeps it.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

pub(super) fn corrupt(text: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, text.into().into())
}

fn insert(
    connection: &Connection,
    call: &NewCall,
    life: &Life,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO requests (id, digest, state, received_at, expires_at, settled_at, needed,
             ruling, requester, assurance, requester_groups, requester_also, route, server, method, path, address,
             headers, body, tool, arguments)
             VALUES (:id, :digest, :state, :received_at, :expires_at, :settled_at, :needed,
             :ruling, :requester, :assurance, :groups, :also, :route, :server, :method, :path, :address,
             :headers, :body, :tool, :arguments)",
        )?
        .execute(named_params! {
            ":id": call.id.to_string(),
            ":digest": call.digest,
            ":state": life.state.name(),
            ":received_at": millis(now),
            ":expires_at": millis(life.expires_at),
            ":settled_at": life.settled_at.map(millis),
            ":needed": life.ruling.needed(),
            ":ruling": forms::ruling(&life.ruling).map_err(unkept)?,
            ":groups": forms::groups(&call.requester.groups).map_err(unkept)?,
            ":also": forms::groups(&call.requester.also).map_err(unkept)?,
            ":requester": call.requester.name,
            ":assurance": forms::assurance(call.requester.assurance),
            ":route": call.route,
            ":server": call.server,
            ":method": call.method,
            ":path": call.path,
            ":address": call.address,
            ":headers": json(&call.headers)?,
            ":body": call.body,
            ":tool": call.tool,
            ":arguments": json(&call.arguments)?,
        })
        .map(drop)
}

fn update(
    connection: &Connection,
    id: RequestId,
    before: State,
    life: &Life,
) -> rusqlite::Result<bool> {
    let updated = connection
        .prepare_cached(
            "UPDATE requests SET state = :state, settled_at = :settled_at,
             grant_expires_at = :grant_expires_at, needed = :needed, ruling = :ruling
             WHERE id = :id AND state = :before",
        )?
        .execute(named_params! {
            ":state": life.state.name(),
            ":settled_at": life.settled_at.map(millis),
            ":grant_expires_at": life.grant_expires_at.map(millis),
            ":needed": life.ruling.needed(),
            ":ruling": forms::ruling(&life.ruling).map_err(unkept)?,
            ":id": id.to_string(),
            ":before": before.name(),
        })?;
    Ok(updated == 1)
}

/// Writes something, to see whether writing works.
pub(super) fn probe(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO probe (only_row, at) VALUES (1, ?1)
             ON CONFLICT (only_row) DO UPDATE SET at = excluded.at",
        )?
        .execute([millis(now)])?;
    Ok(())
}

fn insert_vote(connection: &Connection, id: RequestId, vote: &Vote) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO votes (request, reviewer, approved, reason, at, groups, also, break_glass,
             preapproval) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            id.to_string(),
            &vote.reviewer,
            vote.approved,
            &vote.reason,
            millis(vote.at),
            forms::groups(&vote.groups).map_err(unkept)?,
            forms::groups(&vote.also).map_err(unkept)?,
            vote.break_glass,
            vote.preapproval.map(|id| id.to_string()),
        ))
        .map(drop)
}

fn insert_event(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO events (seq, at, request, kind, data, previous, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            i64::try_from(event.seq).unwrap_or(i64::MAX),
            millis(event.at),
            event.request.to_string(),
            &event.kind,
            json(&event.data)?,
            &event.previous,
            &event.hash,
        ))
        .map(drop)
}

pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    let last = connection
        .prepare_cached("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| {
            Ok(Head { seq: row.get::<_, i64>(0)?.unsigned_abs(), hash: row.get(1)? })
        })
        .optional()?;
    Ok(last.unwrap_or_else(|| Head { seq: 0, hash: audit::GENESIS.to_owned() }))
}

pub(super) fn request(connection: &Connection, id: RequestId) -> rusqlite::Result<Option<Request>> {
    let found = connection
        .prepare_cached("SELECT * FROM requests WHERE id = ?1")?
        .query_row([id.to_string()], read_request)
        .optional()?;
    found.map(|request| with_votes(connection, request)).transpose()
}

/// The request of a call that counts: an approval that can be spent, else one that waits, else the
/// newest.
fn standing(connection: &Connection, digest: &str) -> rusqlite::Result<Option<Request>> {
    let found = connection
        .prepare_cached(
            "SELECT * FROM requests WHERE digest = ?1
             ORDER BY state = 'approved' DESC, state = 'pending' DESC, id DESC LIMIT 1",
        )?
        .query_row([digest], read_request)
        .optional()?;
    found.map(|request| with_votes(connection, request)).transpose()
}

/// Requests and grants that have run out by `now`.
pub(super) fn due(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<RequestId>> {
    connection
        .prepare_cached(
            "SELECT id FROM requests WHERE state = 'pending' AND expires_at <= ?1
             UNION ALL
             SELECT id FROM requests WHERE state = 'approved' AND grant_expires_at <= ?1
             LIMIT ?2",
        )?
        .query_map((millis(now), limit), |row| read_id(row, "id"))?
        .filter(|id| !is_corrupt(id))
        .collect()
}

/// What somebody has approved and nobody has used: grants, and what waits for more approvals.
pub(super) fn approved_by_any(connection: &Connection) -> rusqlite::Result<Vec<RequestId>> {
    connection
        .prepare_cached(
            "SELECT id FROM requests r WHERE state = 'approved' OR state = 'pending'
             AND EXISTS (SELECT 1 FROM votes v WHERE v.request = r.id AND v.approved) ORDER BY id",
        )?
        .query_map([], |row| read_id(row, "id"))?
        .filter(|id| !is_corrupt(id))
        .collect()
}

/// Whether a row cannot even be named. It is logged and counted, and left out.
pub(super) fn is_corrupt<T>(read: &rusqlite::Result<T>) -> bool {
    let Err(rusqlite::Error::FromSqlConversionFailure(_, _, why)) = read else { return false };
    unreadable::met(why, "");
    true
}

pub(super) fn counts(connection: &Connection) -> rusqlite::Result<Vec<Count>> {
    connection
        .prepare_cached("SELECT state, tool, requests FROM tally")?
        .query_map([], |row| {
            let requests = row.get::<_, i64>("requests")?.unsigned_abs();
            Ok(Count { state: read_state(row)?, tool: row.get("tool")?, requests })
        })?
        .filter(|count| !is_corrupt(count))
        .collect()
}

/// Gives every request that was settled in a span of time.
pub(super) fn settled(
    connection: &Connection,
    since: Timestamp,
    until: Timestamp,
    mut each: impl FnMut(&Settled<'_>),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT tool, state, received_at, settled_at FROM requests
         WHERE settled_at >= ?1 AND settled_at < ?2",
    )?;
    let mut rows = statement.query((millis(since), millis(until)))?;
    while let Some(row) = rows.next()? {
        let state = read_state(row);
        if is_corrupt(&state) {
            continue;
        }
        each(&Settled {
            tool: row.get_ref("tool")?.as_str()?,
            state: state?,
            received_at: moment(row.get("received_at")?),
            settled_at: moment(row.get("settled_at")?),
        });
    }
    Ok(())
}

/// How many requests wait for a decision.
pub(super) fn pending(connection: &Connection) -> rusqlite::Result<u32> {
    connection
        .prepare_cached("SELECT coalesce(sum(requests), 0) FROM tally WHERE state = 'pending'")?
        .query_row([], |row| row.get(0))
}

/// How many of them are this requester's, counted no further than `limit`.
fn pending_of(connection: &Connection, requester: &Requester, limit: u32) -> rusqlite::Result<u32> {
    connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM requests
             WHERE state = 'pending' AND requester = ?1 AND assurance = ?2 LIMIT ?3)",
        )?
        .query_row((&requester.name, forms::assurance(requester.assurance), limit), |row| {
            row.get(0)
        })
}

/// The same of requesters at this address whose names nobody has verified.
fn pending_of_crowd(connection: &Connection, address: &str) -> rusqlite::Result<u32> {
    let found = connection
        .prepare_cached("SELECT requests FROM crowds WHERE address = ?1")?
        .query_row([address], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or_default())
}

pub(super) fn events(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<Event>> {
    connection
        .prepare_cached("SELECT * FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map((i64::try_from(after).unwrap_or(i64::MAX), limit), read_event)?
        .collect()
}

pub(super) fn trail(connection: &Connection, id: RequestId) -> rusqlite::Result<Trail> {
    let id = id.to_string();
    let events: Vec<_> = connection
        .prepare_cached(
            "SELECT * FROM events WHERE seq IN (
                 SELECT seq FROM (SELECT seq FROM events WHERE request = ?1 ORDER BY seq LIMIT ?2)
                 UNION
                 SELECT seq FROM (SELECT seq FROM events WHERE request = ?1 ORDER BY seq DESC LIMIT ?3)
             ) ORDER BY seq",
        )?
        .query_map((&id, Detail::FIRST, Detail::LAST), read_event)?
        .collect::<Result<_, _>>()?;
    let all: i64 = connection
        .prepare_cached("SELECT count(*) FROM events WHERE request = ?1")?
        .query_row([&id], |row| row.get(0))?;
    Ok(Trail::of(events, all))
}

pub(super) fn with_votes(
    connection: &Connection,
    mut request: Request,
) -> rusqlite::Result<Request> {
    let mut columns = unreadable::Columns::default();
    request.votes = connection
        .prepare_cached("SELECT * FROM votes WHERE request = ?1 ORDER BY at, reviewer")?
        .query_map([request.id.to_string()], |row| {
            Ok(Vote {
                reviewer: row.get("reviewer")?,
                groups: columns.groups("groups of a vote", text(row, "groups")?),
                also: columns.groups("names of a vote", text(row, "also")?),
                break_glass: row.get("break_glass")?,
                approved: row.get("approved")?,
                reason: row.get("reason")?,
                preapproval: {
                    let id = text(row, "preapproval")?.map(str::parse).transpose();
                    columns.take("pre-approval of a vote", id)
                },
                at: moment(row.get("at")?),
            })
        })?
        .collect::<Result<_, _>>()?;
    request.unreadable = request.unreadable.or(columns.finish(request.id));
    Ok(request)
}

pub(super) fn read_request(row: &Row<'_>) -> rusqlite::Result<Request> {
    let optional = |column: &str| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(moment))
    };
    let (id, mut columns) = (read_id(row, "id")?, unreadable::Columns::default());
    Ok(Request {
        id,
        state: read_state(row)?,
        received_at: moment(row.get("received_at")?),
        expires_at: moment(row.get("expires_at")?),
        settled_at: optional("settled_at")?,
        grant_expires_at: optional("grant_expires_at")?,
        requester: Requester {
            name: row.get("requester")?,
            assurance: {
                let name: String = row.get("assurance")?;
                let known = forms::assured(&name).ok_or("unknown").map(Some);
                columns.take("assurance", known).unwrap_or(Assurance::Address)
            },
            groups: columns.groups("requester_groups", text(row, "requester_groups")?),
            also: columns.groups("requester_also", text(row, "requester_also")?),
        },
        route: row.get("route")?,
        server: row.get("server")?,
        method: row.get("method")?,
        path: row.get("path")?,
        headers: columns.object("headers", row.get_ref("headers")?.as_str()?),
        body: row.get("body")?,
        rpc_method: "tools/call".to_owned(),
        tool_name: row.get("tool")?,
        tool_args: columns.object("arguments", row.get_ref("arguments")?.as_str()?),
        digest: row.get("digest")?,
        address: row.get("address")?,
        // The store does not know who waits.
        waiting: false,
        waiting_since: None,
        votes: Vec::new(),
        needed: row.get("needed")?,
        ruling: {
            let kept = text(row, "ruling")?;
            columns.take("ruling", forms::read_ruling(kept, row.get("needed")?))
        },
        // Worked out where it is shown.
        missing: Vec::new(),
        nobody_present: false,
        unreadable: columns.finish(id),
    })
}

fn text<'a>(row: &'a Row<'_>, column: &str) -> rusqlite::Result<Option<&'a str>> {
    Ok(row.get_ref(column)?.as_str_or_null()?)
}

// The error is used up, as `map_err` gives it.
#[allow(clippy::needless_pass_by_value)]
fn unkept(error: serde_json::Error) -> rusqlite::Error {
    corrupt(error.to_string())
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let mut columns = unreadable::Columns::default();
    let seq = row.get::<_, i64>("seq")?.unsigned_abs();
    Ok(Event {
        seq,
        at: moment(row.get("at")?),
        request: columns
            .take("request", read_id(row, "request").map(Some))
            .unwrap_or_else(|| RequestId::from(uuid::Uuid::nil())),
        kind: row.get("kind")?,
        data: columns.object("data", row.get_ref("data")?.as_str()?),
        previous: row.get("previous")?,
        hash: row.get("hash")?,
        unreadable: columns.finish(format_args!("audit row {seq}")),
    })
}

pub(super) fn read_id(row: &Row<'_>, column: &str) -> rusqlite::Result<RequestId> {
    row.get::<_, String>(column)?.parse().map_err(|_| corrupt("not an id"))
}

fn read_state(row: &Row<'_>) -> rusqlite::Result<State> {
    let name: String = row.get("state")?;
    State::from_name(&name).ok_or_else(|| corrupt(format!("unknown state {name:?}")))
}

fn json(object: &Map<String, Value>) -> rusqlite::Result<String> {
    serde_json::to_string(object).map_err(|error| corrupt(error.to_string()))
}
