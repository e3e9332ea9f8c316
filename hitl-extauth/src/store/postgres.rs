//! A store in a PostgreSQL, shared by all replicas of the gate.
//!
//! Owns nothing that another replica could not: what is held here is connections, and a clock that
//! goes as the database's. Must never decide by a clock of its own, and never let two replicas
//! release one call.

mod clock;
mod columns;
mod connect;
mod listen;
mod offline;
mod outbox;
mod preapprovals;
mod recall;
mod rows;
mod schema;
mod view;
mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hitl_api::{Detail, Event, Head, Insights, Request, RequestId, Ruling, Vote};
use jiff::Timestamp;
use prometheus_client::metrics::histogram::Histogram;
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use self::{
    clock::Clock,
    connect::{Connector, Pool, ask, search},
    rows::{millis, moment},
    writer::{Needs, Writer},
};
use super::{
    Arrival, ChangeError, Count, Filter, Listed, NewCall, Note, Page, Standing, Store, StoreError,
    Terms, Touched, Trail,
    database::{PostgresArgs, PostgresUrl},
    work::{self, OfStore, Whose, names},
};
use crate::{
    approval::Happening,
    insights::{Settled, Span, Tally},
};

pub use self::{
    connect::{ConnectError, TlsError},
    offline::AuditReader,
    schema::{OpenError, SchemaError},
};

pub(super) use self::{offline::Target, recall::recall};

/// Connections of each pool; lists have the others.
const WRITING: usize = 2;
const CALLS: usize = 2;

/// A plan for what is asked for, not for what is usual: a list may be of anything.
const LISTS: &str = "SET plan_cache_mode TO force_custom_plan";

/// The same for a search; the server ends it where the gate no longer can.
const SEARCHES: &str = "SET plan_cache_mode TO force_custom_plan; SET statement_timeout TO '12s'";

/// How long few rows may take, and many.
const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(35);

/// Rows of the audit looked through at once for what concerns held calls.
const TOUCHED_AT_ONCE: i64 = 5000;

/// What the parts of a store share.
struct Shared {
    connector: Connector,
    /// For the writer, and for what keeps this replica going.
    writing: Pool,
    /// For what calls and decisions wait for: few rows each.
    calls: Pool,
    /// For the queue and other lists that an index ends.
    lists: Pool,
    /// For what may take long: searches and insights.
    searches: Pool,
    /// This process, in the rows of requests that calls wait on here.
    replica: Uuid,
    latest: watch::Sender<u64>,
    clock: Clock,
    /// Whether NOTIFY reaches this replica.
    listening: watch::Sender<bool>,
}

impl Shared {
    /// The audit ends here, as somebody says who knows.
    fn heard(&self, seq: u64) {
        self.latest.send_if_modified(|latest| {
            let more = *latest < seq;
            *latest = seq.max(*latest);
            more
        });
    }

    fn saw(&self, head: Option<&Head>) {
        if let Some(head) = head {
            self.heard(head.seq);
        }
    }
}

/// Ends its tasks when it goes.
struct Tasks([JoinHandle<()>; 3]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// A store in a PostgreSQL; a cheap handle.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    writer: Writer,
    latest: watch::Receiver<u64>,
    latency: Histogram,
    _tasks: Arc<Tasks>,
}

impl PostgresStore {
    /// Connects, and brings the schema to this version's. How long each write takes, until it is
    /// durable, is observed in `latency`, in seconds.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        url: &PostgresUrl,
        args: &PostgresArgs,
        latency: Histogram,
    ) -> Result<Self, OpenError> {
        let name = url.to_string();
        let connector = Connector::new(url, args)?;
        // Boxed: it is large, and runs once.
        Box::pin(schema::bring(&connector))
            .await
            .map_err(|error| OpenError::of_schema(url, error))?;
        let others = usize::from(args.database_connections).saturating_sub(WRITING + CALLS);
        let (lists, searches) = ((others / 2).max(1), others.div_ceil(2).max(1));
        let shared = Arc::new(Shared {
            writing: connector.pool(WRITING)?,
            calls: connector.pool(CALLS)?,
            lists: connector.with(LISTS).pool(lists)?,
            searches: connector.with(SEARCHES).search_pool(searches)?,
            connector,
            replica: Uuid::now_v7(),
            latest: watch::Sender::new(0),
            clock: Clock::default(),
            listening: watch::Sender::new(false),
        });
        let first = async {
            shared.live().await?;
            shared.look().await
        };
        first.await.map_err(|error| OpenError::Store(name, error))?;
        let (writer, mut writing) = Writer::start(Arc::clone(&shared));
        let mut heard = shared.latest.subscribe();
        let (told, latest) = watch::channel(*heard.borrow());
        // Closed when nothing can be written any more.
        let telling = async move {
            loop {
                tokio::select! {
                    _ = &mut writing => return,
                    _ = heard.changed() => told.send_replace(*heard.borrow_and_update()),
                };
            }
        };
        let tasks = [
            tokio::spawn(listen::listen(Arc::clone(&shared))),
            tokio::spawn(listen::look(Arc::clone(&shared))),
            tokio::spawn(telling),
        ];
        Ok(Self { shared, writer, latest, latency, _tasks: Arc::new(Tasks(tasks)) })
    }

    async fn write<T, E>(
        &self,
        needs: Needs,
        work: impl FnOnce(&mut view::View, Timestamp) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: OfStore + Send + 'static,
    {
        let begun = Instant::now();
        let result = self.writer.write(needs, work).await;
        self.latency.observe(begun.elapsed().as_secs_f64());
        result
    }

    async fn change(
        &self,
        id: RequestId,
        happening: impl FnOnce(Timestamp) -> Happening + Send + 'static,
        whose: Whose,
    ) -> Result<Request, ChangeError> {
        let work = move |view: &mut view::View, now: Timestamp| {
            work::change(view, id, happening(now), &whose, now)
        };
        match self.write(Needs::Request(id), work).await? {
            (request, Ok(())) => Ok(request),
            (request, Err(refused)) => {
                Err(ChangeError::Refused { refused, request: Box::new(request) })
            }
        }
    }

    /// Reads what a call or a decision waits for.
    async fn rows(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        ask(&self.shared.calls, SOON, sql, values).await
    }

    /// Reads what an index ends.
    async fn listed(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        ask(&self.shared.lists, PATIENCE, sql, values).await
    }

    async fn kept(&self, id: RequestId) -> Result<Option<rows::Kept>, StoreError> {
        let ids = vec![rows::uuid(id)];
        let found = self.rows(&rows::by_ids(), &[&ids]).await?;
        found.first().map(rows::read).transpose()
    }

    async fn events_where(
        &self,
        condition: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Event>, StoreError> {
        let sql = format!("SELECT {} FROM events WHERE {condition}", rows::EVENT);
        self.listed(&sql, values).await?.iter().map(rows::read_event).collect()
    }
}

/// PostgreSQL keeps no text with a NUL in it. The gate lets none come this far.
fn keepable<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
    if texts.into_iter().any(|text| text.contains('\0')) {
        let why = "it keeps no text with a NUL character in it".to_owned();
        return Err(StoreError::Unavailable(why));
    }
    Ok(())
}

#[tonic::async_trait]
impl Store for PostgresStore {
    async fn arrive(
        &self,
        call: NewCall,
        terms: Terms,
        _: Timestamp,
    ) -> Result<Arrival, StoreError> {
        let texts = [
            &call.requester.name,
            &call.route,
            &call.server,
            &call.method,
            &call.path,
            &call.body,
            &call.tool,
        ];
        keepable(texts.into_iter().chain(&call.address).map(String::as_str))?;
        let needs = Needs::Call {
            digest: call.digest.clone(),
            requester: call.requester.clone(),
            crowd: call.crowd().map(str::to_owned),
            preapproved: call.preapproved.clone(),
            // The body, the arguments twice, and the rest.
            bytes: 3 * call.body.len() + call.path.len() + 1024,
        };
        self.write(needs, move |view, now| work::arrive(view, call, terms, now)).await
    }

    async fn vote(
        &self,
        id: RequestId,
        vote: Vote,
        waiter: bool,
        ruling: Option<Ruling>,
        terms: Terms,
    ) -> Result<Request, ChangeError> {
        keepable([vote.reviewer.as_str(), &vote.reason])?;
        let whose = Whose::NotOf(names(&vote));
        let happening = move |now| {
            let vote = Vote { at: now, ..vote };
            Happening::Vote { vote, waiter, grant: terms.grant, ruling: ruling.map(Box::new) }
        };
        self.change(id, happening, whose).await
    }

    async fn spend(
        &self,
        id: RequestId,
        ruling: Option<Ruling>,
        _: Timestamp,
    ) -> Result<Request, ChangeError> {
        let happening = move |_| Happening::Spend { ruling: ruling.map(Box::new) };
        self.change(id, happening, Whose::Anybodys).await
    }

    async fn restore(
        &self,
        id: RequestId,
        terms: Terms,
        _: Timestamp,
    ) -> Result<Request, ChangeError> {
        let happening = move |_| Happening::Restore { grant: terms.grant };
        self.change(id, happening, Whose::Anybodys).await
    }

    async fn withdraw(
        &self,
        id: RequestId,
        requester: Vec<String>,
        _: Timestamp,
    ) -> Result<Request, ChangeError> {
        let whose = Whose::Of(requester);
        self.change(id, |_| Happening::Withdraw, whose).await
    }

    async fn age(&self, _: Timestamp) -> Result<Vec<Request>, StoreError> {
        // Looking takes no lock; most of the time nothing has run out.
        let now = millis(self.now());
        if self.rows(rows::DUE, &[&now, &1_i64]).await?.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Needs::Due, work::age).await
    }

    async fn note(&self, id: RequestId, note: Note, _: Timestamp) -> Result<(), StoreError> {
        self.write(Needs::Request(id), move |view, now| work::note(view, id, note, now)).await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        Ok(self.kept(id).await?.map(|kept| kept.request))
    }

    async fn standing(&self, id: RequestId) -> Result<Option<Standing>, StoreError> {
        let kept = self.kept(id).await?;
        Ok(kept.map(|kept| Standing {
            elsewhere: kept.replica.is_some_and(|replica| replica != self.shared.replica),
            request: kept.request,
        }))
    }

    async fn touched(&self, after: u64) -> Result<Option<Touched>, StoreError> {
        let after_row = i64::try_from(after).unwrap_or(i64::MAX);
        let sql = "SELECT seq, request, kind FROM events WHERE seq > $1 ORDER BY seq LIMIT $2";
        let found = self.rows(sql, &[&after_row, &TOUCHED_AT_ONCE]).await?;
        let mut touched = Touched { requests: Vec::new(), until: after };
        for row in found {
            touched.until = row.try_get::<_, i64>(0)?.unsigned_abs();
            let kind: &str = row.try_get(2)?;
            if listen::touches(kind) {
                touched.requests.push(RequestId::from(row.try_get::<_, Uuid>(1)?));
            }
        }
        // Others may not have heard of them yet.
        self.shared.heard(touched.until);
        Ok(Some(touched))
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    async fn leave(&self) {
        let sql = "DELETE FROM replicas WHERE id = $1 RETURNING 1";
        if let Err(error) = self.rows(sql, &[&self.shared.replica]).await {
            tracing::debug!(%error, "the other replicas will notice by themselves");
        }
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Listed, StoreError> {
        let (sql, values) = rows::list(&filter, page)?;
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        let found = if filter.is_search() {
            search(&self.shared.searches, &sql, &values).await?
        } else {
            self.listed(&sql, &values).await?
        };
        let there: i64 = match found.first() {
            Some(row) => row.try_get("found")?,
            None => 0,
        };
        let more = u64::try_from(found.len()).is_ok_and(|shown| shown < there.unsigned_abs());
        let requests = found.iter().filter_map(rows::readable).map(|kept| kept.request).collect();
        Ok(Listed { requests, more })
    }

    async fn pending(&self) -> Result<u64, StoreError> {
        let found = self.listed(writer::PENDING, &[]).await?;
        let pending = found.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
        Ok(pending.unwrap_or_default().unsigned_abs())
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        let found = self.listed("SELECT state, tool, requests FROM tally", &[]).await?;
        let count = |row: &tokio_postgres::Row| {
            let requests = row.try_get::<_, i64>("requests")?.unsigned_abs();
            let tool = row.try_get("tool")?;
            Ok(rows::read_state(row).ok().map(|state| Count { state, tool, requests }))
        };
        found.iter().filter_map(|row| count(row).transpose()).collect()
    }

    async fn insights(&self, span: Span) -> Result<Insights, StoreError> {
        let mut tally = Tally::new(span);
        let sql = "SELECT tool, state, received_at, settled_at FROM requests
                   WHERE settled_at >= $1 AND settled_at < $2";
        let values = [&millis(span.since()) as &(dyn ToSql + Sync), &millis(span.until())];
        for row in search(&self.shared.searches, sql, &values).await? {
            let Ok(state) = rows::read_state(&row) else { continue };
            tally.settled(&Settled {
                tool: row.try_get("tool")?,
                state,
                received_at: moment(row.try_get("received_at")?),
                settled_at: moment(row.try_get("settled_at")?),
            });
        }
        Ok(tally.finish(&self.counts().await?))
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::from(limit));
        self.events_where("seq > $1 ORDER BY seq LIMIT $2", &[&after, &limit]).await
    }

    async fn trail(&self, id: RequestId) -> Result<Trail, StoreError> {
        let id = rows::uuid(id);
        let (first, last) = (i64::from(Detail::FIRST), i64::from(Detail::LAST));
        let events = self.events_where(rows::TRAIL, &[&id, &first, &last]).await?;
        let found = self.rows("SELECT count(*) FROM events WHERE request = $1", &[&id]).await?;
        let all: i64 = found.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(Trail::of(events, all))
    }

    async fn head(&self) -> Result<Head, StoreError> {
        let found =
            self.rows("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1", &[]).await?;
        rows::read_head(found.first())
    }

    fn latest(&self) -> watch::Receiver<u64> {
        self.latest.clone()
    }

    async fn probe(&self, _: Timestamp) -> Result<(), StoreError> {
        let probe = |view: &mut view::View, _: Timestamp| {
            view.probed = true;
            Ok::<_, StoreError>(())
        };
        self.write(Needs::Nothing, probe).await
    }
}
