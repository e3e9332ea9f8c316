//! Rows to types and back. The only place that knows the column names.

use hitl_api::{
    Assurance, Event, Head, PreapprovalId, Request, RequestId, Requester, State, Vote, audit,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::store::{
    Filter, Order, PAGE_BYTES, Page, StoreError, forms,
    unreadable::{self, Columns},
};

/// The database's clock, in milliseconds.
pub(super) const CLOCK: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// A replica that has not been seen for so many milliseconds holds no calls any more.
pub(super) const REPLICA_LIVES: i64 = 10_000;

/// This replica lives.
pub(super) const SEEN: &str = "
    INSERT INTO replicas (id, seen_at)
    VALUES ($1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at";

/// What of a request is read: its row, its votes, and the replica at which a call waits on it, if
/// that one lives.
///
/// Named one by one: a newer version may add columns while this one runs.
fn columns() -> String {
    format!(
        "r.id, r.digest, r.state, r.received_at, r.expires_at, r.settled_at, r.grant_expires_at,
         r.needed, r.requester, r.assurance, r.route, r.server, r.method, r.path, r.address,
         r.headers, r.body, r.tool, r.arguments, r.waiting_since, r.ruling, r.requester_groups, r.requester_also,
         (SELECT coalesce(json_agg(json_build_object('reviewer', v.reviewer, 'approved', v.approved,
              'reason', v.reason, 'at', v.at, 'groups', v.groups, 'also', v.also,
              'break_glass', v.break_glass,
              'preapproval', v.preapproval) ORDER BY v.at, v.reviewer), '[]')::text
          FROM votes v WHERE v.request = r.id) AS votes,
         (SELECT p.id FROM replicas p WHERE p.id = r.replica
              AND p.seen_at > extract(epoch FROM clock_timestamp()) * 1000 - {REPLICA_LIVES})
          AS replica"
    )
}

/// Requests by their ids.
pub(super) fn by_ids() -> String {
    format!("SELECT {} FROM requests r WHERE r.id = ANY($1::uuid[])", columns())
}

/// Of each digest the requests that may count: those that are not settled, and the newest.
pub(super) fn by_digests() -> String {
    format!(
        "SELECT {} FROM unnest($1::text[]) AS d (digest) CROSS JOIN LATERAL (
             SELECT * FROM requests s
             WHERE s.digest = d.digest AND s.state IN ('approved', 'pending')
             UNION ALL
             (SELECT * FROM requests s WHERE s.digest = d.digest
              ORDER BY s.received_at DESC, s.id DESC LIMIT 1)
         ) AS r",
        columns()
    )
}

/// Requests and grants that have run out.
pub(super) const DUE: &str = "
    (SELECT id FROM requests WHERE state = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT $2)
    UNION ALL
    (SELECT id FROM requests WHERE state = 'approved' AND grant_expires_at <= $1
     ORDER BY grant_expires_at LIMIT $2)
    LIMIT $2";

/// A request as it is kept.
pub(super) struct Kept {
    /// The request.
    pub(super) request: Request,
    /// The replica at which the newest call waits.
    pub(super) replica: Option<Uuid>,
    /// Since when it waits there.
    pub(super) waiting_since: Option<Timestamp>,
}

/// A moment as the database keeps it.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A moment from the database.
pub(super) fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// Why a value cannot be kept as text, or read from it.
// The error is used up, as `map_err` gives it.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn unkept(error: impl ToString) -> StoreError {
    corrupt(error.to_string())
}

fn corrupt(text: impl Into<String>) -> StoreError {
    StoreError::Unavailable(format!("a row cannot be read: {}", text.into()))
}

/// An id as the database keeps it.
pub(super) fn uuid(id: RequestId) -> Uuid {
    id.uuid()
}

#[derive(Deserialize)]
struct KeptVote {
    reviewer: String,
    approved: bool,
    reason: String,
    at: i64,
    groups: Option<String>,
    also: Option<String>,
    break_glass: bool,
    preapproval: Option<PreapprovalId>,
}

/// A request that can at least be named. One that cannot is logged, counted and left out.
pub(super) fn readable(row: &Row) -> Option<Kept> {
    let told = |error: &StoreError| match row.try_get::<_, Uuid>("id") {
        Ok(id) => unreadable::met(id, &error.to_string()),
        Err(_) => unreadable::met("a request without an id", &error.to_string()),
    };
    read(row).inspect_err(told).ok()
}

/// A request from a row with all its columns.
pub(super) fn read(row: &Row) -> Result<Kept, StoreError> {
    let optional = |column: &str| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.try_get::<_, Option<i64>>(column)?.map(moment))
    };
    let when = |column: &str| -> Result<Timestamp, StoreError> {
        Ok(moment(row.try_get::<_, i64>(column)?))
    };
    let sure: &str = row.try_get("assurance")?;
    let (id, mut columns) = (RequestId::from(row.try_get::<_, Uuid>("id")?), Columns::default());
    let votes: Vec<KeptVote> =
        columns.take("votes", hitl_core::json::read(row.try_get::<_, &str>("votes")?));
    let (replica, since) = (row.try_get::<_, Option<Uuid>>("replica")?, optional("waiting_since")?);
    let waiting_since = since.filter(|_| replica.is_some());
    let state = read_state(row)?;
    let waiting = state == State::Pending && replica.is_some();
    let needed = u32::try_from(row.try_get::<_, i32>("needed")?).unwrap_or(1);
    let request = Request {
        id,
        state,
        received_at: when("received_at")?,
        expires_at: when("expires_at")?,
        settled_at: optional("settled_at")?,
        grant_expires_at: optional("grant_expires_at")?,
        requester: Requester {
            name: row.try_get("requester")?,
            assurance: columns
                .take("assurance", forms::assured(sure).ok_or("unknown").map(Some))
                .unwrap_or(Assurance::Address),
            groups: columns.groups("requester_groups", row.try_get("requester_groups")?),
            also: columns.groups("requester_also", row.try_get("requester_also")?),
        },
        route: row.try_get("route")?,
        server: row.try_get("server")?,
        method: row.try_get("method")?,
        path: row.try_get("path")?,
        headers: columns.object("headers", row.try_get("headers")?),
        body: row.try_get("body")?,
        rpc_method: "tools/call".to_owned(),
        tool_name: row.try_get("tool")?,
        tool_args: columns.object("arguments", row.try_get("arguments")?),
        digest: row.try_get("digest")?,
        address: row.try_get("address")?,
        waiting,
        waiting_since: waiting_since.filter(|_| waiting),
        votes: votes
            .into_iter()
            .map(|vote| Vote {
                reviewer: vote.reviewer,
                groups: columns.groups("groups of a vote", vote.groups.as_deref()),
                also: columns.groups("names of a vote", vote.also.as_deref()),
                break_glass: vote.break_glass,
                preapproval: vote.preapproval,
                approved: vote.approved,
                reason: vote.reason,
                at: moment(vote.at),
            })
            .collect(),
        needed,
        ruling: columns.take("ruling", forms::read_ruling(row.try_get("ruling")?, needed)),
        // Worked out where it is shown.
        missing: Vec::new(),
        nobody_present: false,
        unreadable: columns.finish(id),
    };
    Ok(Kept { request, replica, waiting_since })
}

/// The first and the last rows about a request.
pub(super) const TRAIL: &str = "seq IN (
    (SELECT seq FROM events WHERE request = $1 ORDER BY seq LIMIT $2)
    UNION (SELECT seq FROM events WHERE request = $1 ORDER BY seq DESC LIMIT $3)) ORDER BY seq";

/// Columns of a row of the audit.
pub(super) const EVENT: &str = "seq, at, request, kind, data, previous, hash";

/// A row of the audit.
pub(super) fn read_event(row: &Row) -> Result<Event, StoreError> {
    let (seq, mut columns) = (row.try_get::<_, i64>("seq")?.unsigned_abs(), Columns::default());
    Ok(Event {
        seq,
        at: moment(row.try_get("at")?),
        request: RequestId::from(row.try_get::<_, Uuid>("request")?),
        kind: row.try_get("kind")?,
        data: columns.object("data", row.try_get("data")?),
        previous: row.try_get("previous")?,
        hash: row.try_get("hash")?,
        unreadable: columns.finish(format_args!("audit row {seq}")),
    })
}

/// The end of the audit, of its last row if there is one.
pub(super) fn read_head(row: Option<&Row>) -> Result<Head, StoreError> {
    Ok(match row {
        Some(row) => Head { seq: row.try_get::<_, i64>(0)?.unsigned_abs(), hash: row.try_get(1)? },
        None => Head { seq: 0, hash: audit::GENESIS.to_owned() },
    })
}

/// The state in a row.
pub(super) fn read_state(row: &Row) -> Result<State, StoreError> {
    let name: &str = row.try_get("state")?;
    State::from_name(name).ok_or_else(|| corrupt(format!("unknown state {name:?}")))
}

/// An object as the database keeps it.
pub(super) fn json(object: &Map<String, Value>) -> Result<String, StoreError> {
    serde_json::to_string(object).map_err(|error| corrupt(error.to_string()))
}

/// A value of a query.
pub(super) type Param = Box<dyn ToSql + Sync + Send>;

/// A query for a page of requests, and its values. It gives the rows of the page and, in `found`,
/// how many there were up to one more than asked for.
pub(super) fn list(filter: &Filter, page: Page) -> Result<(String, Vec<Param>), StoreError> {
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<Param> = vec![Box::new(i64::from(page.limit))];
    if filter.states == [State::Pending] {
        // In these words, so that the index of the queue is found.
        conditions.push("state = 'pending'".to_owned());
    }
    let mut add = |condition: &str, value: Param| {
        values.push(value);
        conditions.push(condition.replace('?', &format!("${}", values.len())));
    };
    if let Some(after) = page.after {
        // Ids sort by time.
        let condition = match page.order {
            Order::Oldest => "id > ?::uuid",
            Order::Newest => "id < ?::uuid",
        };
        add(condition, Box::new(uuid(after)));
    }
    if !filter.states.is_empty() && filter.states != [State::Pending] {
        let names: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
        add("state = ANY(?::text[])", Box::new(names));
    }
    for (condition, value) in [
        ("tool = ?::text", &filter.tool),
        ("requester = ?::text", &filter.requester),
        ("digest = ?::text", &filter.digest),
        (
            "EXISTS (SELECT 1 FROM votes v WHERE v.request = requests.id AND v.reviewer = ?::text)",
            &filter.reviewer,
        ),
    ] {
        if let Some(value) = value {
            add(condition, Box::new(keepable(value)));
        }
    }
    if let Some(since) = filter.since {
        add("received_at >= ?::bigint", Box::new(millis(since)));
    }
    if let Some(until) = filter.until {
        add("received_at < ?::bigint", Box::new(millis(until)));
    }
    if let Some(text) = &filter.text {
        // Arguments are JSON there: what is escaped in it is looked for as it is escaped.
        let escaped = serde_json::to_string(text).map_err(|error| corrupt(error.to_string()))?;
        let escaped = escaped.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let both = vec![keepable(text), escaped.unwrap_or_default().to_owned()];
        add(
            "(position(lower((?::text[])[1]) IN lower(tool || ' ' || arguments || ' ' || requester)) > 0
              OR position(lower((?::text[])[2]) IN lower(arguments)) > 0
              OR EXISTS (SELECT 1 FROM votes v WHERE v.request = requests.id AND position(
                     lower((?::text[])[1]) IN lower(v.reviewer || ' ' || v.reason)) > 0))",
            Box::new(both),
        );
    }
    let order = match page.order {
        Order::Oldest => "ASC",
        Order::Newest => "DESC",
    };
    // One more than asked for shows whether there are more.
    let query = format!(
        "SELECT {columns}, p.found FROM (
             SELECT id, count(*) OVER () AS found,
                    row_number() OVER (ORDER BY id {order}) AS number,
                    sum(size) OVER (ORDER BY id {order}) - size AS before
             FROM (SELECT id, (octet_length(body) + octet_length(arguments) + octet_length(headers)
                          + octet_length(path))::bigint AS size
                   FROM requests WHERE {conditions} ORDER BY id {order} LIMIT $1::bigint + 1) AS s
         ) AS p JOIN requests r ON r.id = p.id
         WHERE p.number <= $1 AND p.before < {PAGE_BYTES} ORDER BY r.id {order}",
        columns = columns(),
        conditions = conditions.join(" AND "),
    );
    Ok((query, values))
}

/// Text that PostgreSQL can be asked for. It keeps none with a NUL in it, so what is asked with one
/// is not there.
fn keepable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
