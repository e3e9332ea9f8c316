//! What a batch writes, column by column: one statement for many rows.

use hitl_api::{Event, PreapprovalId, RequestId, State, Vote};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    rows::{json, millis, unkept, uuid},
    view::Held,
};
use crate::store::{StoreError, forms};

pub(super) const INSERT: &str = "
    INSERT INTO requests (id, digest, state, received_at, expires_at, settled_at, grant_expires_at,
        needed, requester, assurance, route, server, method, path, address, headers, body, tool,
        arguments, replica, waiting_since, ruling, requester_groups,
        requester_also)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[],
        $6::bigint[], $7::bigint[], $8::integer[], $9::text[], $10::text[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[],
        $19::text[], $20::uuid[], $21::bigint[], $22::text[], $23::text[],
        $24::text[])";

// Conditional on the state a request was in: whoever else may write, one step wins.
pub(super) const UPDATE: &str = "
    UPDATE requests AS r SET state = u.state, settled_at = u.settled_at,
        grant_expires_at = u.grant_expires_at, replica = u.replica, waiting_since = u.waiting_since,
        needed = u.needed, ruling = u.ruling
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::uuid[],
        $7::bigint[], $8::integer[], $9::text[])
        AS u (id, before, state, settled_at, grant_expires_at, replica, waiting_since, needed, ruling)
    WHERE r.id = u.id AND r.state = u.before
    RETURNING 1";

pub(super) const VOTE: &str = "
    INSERT INTO votes (request, reviewer, approved, reason, at, groups, also, break_glass, preapproval)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::text[], $5::bigint[], $6::text[],
        $7::text[], $8::boolean[], $9::uuid[])";

pub(super) const APPEND: &str = "
    INSERT INTO events (seq, at, request, kind, data, previous, hash)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[],
        $6::text[], $7::text[])";

/// Values of a statement.
type Values<'a, const N: usize> = [&'a (dyn ToSql + Sync); N];

/// New requests.
#[derive(Default)]
pub(super) struct Inserted<'a> {
    pub(super) id: Vec<Uuid>,
    texts: [Vec<&'a str>; 10],
    headers: Vec<String>,
    arguments: Vec<String>,
    address: Vec<Option<&'a str>>,
    received_at: Vec<i64>,
    expires_at: Vec<i64>,
    settled_at: Vec<Option<i64>>,
    grant_expires_at: Vec<Option<i64>>,
    needed: Vec<i32>,
    replica: Vec<Option<Uuid>>,
    waiting_since: Vec<Option<i64>>,
    ruling: Vec<Option<String>>,
    groups: Vec<Option<String>>,
    also: Vec<Option<String>>,
}

impl<'a> Inserted<'a> {
    pub(super) fn of(inserted: &[&'a Held]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for held in inserted {
            let request = &held.request;
            all.id.push(uuid(request.id));
            let texts = [
                request.digest.as_str(),
                request.state.name(),
                &request.requester.name,
                forms::assurance(request.requester.assurance),
                &request.route,
                &request.server,
                &request.method,
                &request.path,
                &request.body,
                &request.tool_name,
            ];
            for (column, text) in all.texts.iter_mut().zip(texts) {
                column.push(text);
            }
            all.headers.push(json(&request.headers)?);
            all.arguments.push(json(&request.tool_args)?);
            all.address.push(request.address.as_deref());
            all.received_at.push(millis(request.received_at));
            all.expires_at.push(millis(request.expires_at));
            all.settled_at.push(request.settled_at.map(millis));
            all.grant_expires_at.push(request.grant_expires_at.map(millis));
            all.needed.push(i32::try_from(request.needed).unwrap_or(i32::MAX));
            all.replica.push(held.replica);
            all.waiting_since.push(held.waiting_since.map(millis));
            all.ruling.push(forms::ruling(&request.ruling).map_err(unkept)?);
            all.groups.push(forms::groups(&request.requester.groups).map_err(unkept)?);
            all.also.push(forms::groups(&request.requester.also).map_err(unkept)?);
        }
        Ok(all)
    }

    /// In the order of the statement.
    pub(super) fn values(&self) -> Values<'_, 24> {
        let [digest, state, requester, sure, route, server, method, path, body, tool] = &self.texts;
        [
            &self.id,
            digest,
            state,
            &self.received_at,
            &self.expires_at,
            &self.settled_at,
            &self.grant_expires_at,
            &self.needed,
            requester,
            sure,
            route,
            server,
            method,
            path,
            &self.address,
            &self.headers,
            body,
            tool,
            &self.arguments,
            &self.replica,
            &self.waiting_since,
            &self.ruling,
            &self.groups,
            &self.also,
        ]
    }
}

/// Requests that have changed.
#[derive(Default)]
pub(super) struct Updated {
    pub(super) id: Vec<Uuid>,
    before: Vec<&'static str>,
    state: Vec<&'static str>,
    settled_at: Vec<Option<i64>>,
    grant_expires_at: Vec<Option<i64>>,
    replica: Vec<Option<Uuid>>,
    waiting_since: Vec<Option<i64>>,
    needed: Vec<i32>,
    ruling: Vec<Option<String>>,
}

impl Updated {
    pub(super) fn of(updated: &[(&Held, State)]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for (held, before) in updated {
            let request = &held.request;
            all.id.push(uuid(request.id));
            all.before.push(before.name());
            all.state.push(request.state.name());
            all.settled_at.push(request.settled_at.map(millis));
            all.grant_expires_at.push(request.grant_expires_at.map(millis));
            all.replica.push(held.replica);
            all.waiting_since.push(held.waiting_since.map(millis));
            all.needed.push(i32::try_from(request.needed).unwrap_or(i32::MAX));
            all.ruling.push(forms::ruling(&request.ruling).map_err(unkept)?);
        }
        Ok(all)
    }

    /// In the order of the statement.
    pub(super) fn values(&self) -> Values<'_, 9> {
        [
            &self.id,
            &self.before,
            &self.state,
            &self.settled_at,
            &self.grant_expires_at,
            &self.replica,
            &self.waiting_since,
            &self.needed,
            &self.ruling,
        ]
    }
}

/// Votes.
#[derive(Default)]
pub(super) struct Votes<'a> {
    request: Vec<Uuid>,
    reviewer: Vec<&'a str>,
    approved: Vec<bool>,
    reason: Vec<&'a str>,
    at: Vec<i64>,
    groups: Vec<Option<String>>,
    also: Vec<Option<String>>,
    break_glass: Vec<bool>,
    preapproval: Vec<Option<Uuid>>,
}

impl<'a> Votes<'a> {
    pub(super) fn of(
        votes: impl IntoIterator<Item = &'a (RequestId, Vote)>,
    ) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for (id, vote) in votes {
            all.request.push(uuid(*id));
            all.reviewer.push(&vote.reviewer);
            all.approved.push(vote.approved);
            all.reason.push(&vote.reason);
            all.at.push(millis(vote.at));
            all.groups.push(forms::groups(&vote.groups).map_err(unkept)?);
            all.also.push(forms::groups(&vote.also).map_err(unkept)?);
            all.break_glass.push(vote.break_glass);
            all.preapproval.push(vote.preapproval.map(PreapprovalId::uuid));
        }
        Ok(all)
    }

    /// In the order of the statement.
    pub(super) fn values(&self) -> Values<'_, 9> {
        [
            &self.request,
            &self.reviewer,
            &self.approved,
            &self.reason,
            &self.at,
            &self.groups,
            &self.also,
            &self.break_glass,
            &self.preapproval,
        ]
    }
}

/// Rows of the audit.
#[derive(Default)]
pub(super) struct Events<'a> {
    seq: Vec<i64>,
    at: Vec<i64>,
    request: Vec<Uuid>,
    kind: Vec<&'a str>,
    data: Vec<String>,
    previous: Vec<&'a str>,
    hash: Vec<&'a str>,
}

impl<'a> Events<'a> {
    pub(super) fn of(events: &'a [Event]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for event in events {
            all.seq.push(i64::try_from(event.seq).unwrap_or(i64::MAX));
            all.at.push(millis(event.at));
            all.request.push(uuid(event.request));
            all.kind.push(&event.kind);
            all.data.push(json(&event.data)?);
            all.previous.push(&event.previous);
            all.hash.push(&event.hash);
        }
        Ok(all)
    }

    /// In the order of the statement.
    pub(super) fn values(&self) -> Values<'_, 7> {
        [&self.seq, &self.at, &self.request, &self.kind, &self.data, &self.previous, &self.hash]
    }
}
