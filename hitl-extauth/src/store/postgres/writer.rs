//! Writes, in batches: what waits together is one transaction, and one flush.
//!
//! Owns when things are committed, and what is said when nobody knows whether they were. One
//! replica writes at a time, under a lock that its transaction holds: that is what makes one chain
//! of all their audits. Must never acknowledge a write before its commit, and never call one undone
//! whose commit was sent and not answered, before the database has said so.

mod doubt;
mod needs;

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, try_join_all};
use hitl_api::{RequestId, Requester};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{
    Error, Row,
    error::SqlState,
    types::{FromSql, ToSql},
};
use uuid::Uuid;

pub(super) use self::needs::Needs;
use self::needs::Wanted;
use super::{
    Shared,
    columns::{APPEND, Events, INSERT, Inserted, UPDATE, Updated, VOTE, Votes},
    connect::{Pooled, ask, discard},
    preapprovals,
    rows::{self, moment},
    view::{View, who},
};
use crate::store::{
    StoreError, forms,
    preapprovals::readable,
    work::{self, OfStore},
};

/// Writes committed together at most, and bytes of calls after which no more are added: while they
/// are worked on, the other replicas wait.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How long one way to the database and back may take. Longer than the server waits for a lock.
const FLIGHT: Duration = Duration::from_secs(12);

/// How soon a database that is away is asked again what became of a commit.
const AGAIN: Duration = Duration::from_millis(250);

/// One transaction that writes at a time ("GATE" in ASCII, and the first of its locks).
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(1195463749, 1)";

const FREE: &str = "
    SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.classid = 1195463749 AND l.objid = 1 AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND a.xact_start < clock_timestamp() - interval '15 seconds'";

const HEAD: &str = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1";
pub(super) const PENDING: &str =
    "SELECT coalesce(sum(requests), 0)::bigint FROM tally WHERE state = 'pending'";
// Name by name: joined as a set, a database that has not counted its rows yet reads all that wait.
const PENDING_OF: &str = "
    SELECT c.requester, c.assurance, c.pending FROM unnest($1::text[]) AS n (name)
    CROSS JOIN LATERAL (
        SELECT r.requester, r.assurance, count(*) AS pending FROM requests r
        WHERE r.state = 'pending' AND md5(r.requester) = md5(n.name) AND r.requester = n.name
        GROUP BY r.requester, r.assurance
    ) AS c";

const PENDING_OF_CROWD: &str =
    "SELECT address, requests FROM crowds WHERE address = ANY($1::text[])";

/// Tells the other replicas where the audit ends, when this is committed.
const NOTIFY: &str = "SELECT pg_notify('hitl', $1::text)";

/// Does its work in the batch's view, or learns that there is none. `now` is the database's clock.
type Run = Box<dyn FnOnce(Option<(&mut View, Timestamp)>) -> Finish + Send>;

/// Told whether the batch was committed.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// An operation that waits to be written.
pub(super) struct Job {
    needs: Needs,
    run: Run,
}

/// Writes; a cheap handle. The task ends with the last of them.
#[derive(Clone)]
pub(super) struct Writer(mpsc::UnboundedSender<Job>);

impl Writer {
    /// Starts writing, with a task that ends with the last handle.
    pub(super) fn start(shared: Arc<Shared>) -> (Self, JoinHandle<()>) {
        let (jobs, queue) = mpsc::unbounded_channel();
        (Self(jobs), tokio::spawn(write_batches(shared, queue)))
    }

    /// Runs `work` in a transaction and answers when that is durable.
    pub(super) async fn write<T, E>(
        &self,
        needs: Needs,
        work: impl FnOnce(&mut View, Timestamp) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: OfStore + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |view| {
            let done = view.map(|(view, now)| {
                let done = work(view, now);
                view.broken =
                    view.broken.take().or(done.as_ref().err().and_then(E::of_store).cloned());
                done
            });
            Box::new(move |committed: Result<(), StoreError>| {
                let said = match (committed, done) {
                    (Err(error), _) => Err(E::from(error)),
                    (Ok(()), Some(done)) => done,
                    (Ok(()), None) => Err(E::from(stopped())),
                };
                // Nobody waits any more: what is done is done all the same.
                let _ = answer.send(said);
            })
        });
        self.0.send(Job { needs, run }).map_err(|_| E::from(stopped()))?;
        answered.await.unwrap_or_else(|_| Err(stopped().into()))
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("it has stopped".to_owned())
}

async fn write_batches(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some(first) = queue.recv().await {
        let mut jobs = vec![first];
        let mut bytes = jobs.iter().map(|job| job.needs.bytes()).sum::<usize>();
        while jobs.len() < BATCH
            && bytes < BATCH_BYTES
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.needs.bytes();
            jobs.push(job);
        }
        let (needs, runs): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.needs, job.run)).unzip();
        let begun = match begin(&shared, &needs).await {
            // A connection of the pool may have ended without a word; the next one is new.
            Err(Unbegun::Closed(_)) => begin(&shared, &needs).await,
            begun => begun,
        };
        let (client, mut view, now) = match begun {
            Ok(begun) => begun,
            Err(unbegun) => {
                let error = unbegun.into();
                tracing::error!(%error, "nothing was written");
                // Whoever waits by now would wait for nothing, one after the other.
                let waiting = std::iter::from_fn(|| queue.try_recv().ok()).map(|job| job.run);
                for run in runs.into_iter().chain(waiting) {
                    run(None)(Err(StoreError::clone(&error)));
                }
                continue;
            }
        };
        let finishes: Vec<_> = runs.into_iter().map(|run| run(Some((&mut view, now)))).collect();
        match end(client, &view).await {
            Ended::Committed => {
                shared.saw(view.head.as_ref());
                finish(finishes, &Ok(()));
            }
            Ended::Undone(error) => {
                tracing::error!(%error, "nothing was written");
                finish(finishes, &Err(error));
            }
            Ended::InDoubt(why) => {
                // Others need not wait for the answer; these do, for as long as it takes.
                tracing::warn!(%why, writes = finishes.len(), "a commit was not answered");
                let (shared, head) = (Arc::clone(&shared), view.head.clone());
                tokio::spawn(async move {
                    let result = doubt::resolve(&shared, head.as_ref(), why).await;
                    finish(finishes, &result);
                });
            }
        }
    }
}

fn finish(finishes: Vec<Finish>, result: &Result<(), StoreError>) {
    for finish in finishes {
        finish(result.clone());
    }
}

/// Why a batch has not begun. Nothing of it has happened.
enum Unbegun {
    /// The connection was not there any more.
    Closed(StoreError),
    /// Anything else.
    Failed(StoreError),
}

impl From<Unbegun> for StoreError {
    fn from(unbegun: Unbegun) -> Self {
        match unbegun {
            Unbegun::Closed(error) | Unbegun::Failed(error) => error,
        }
    }
}

/// How a batch has ended.
enum Ended {
    Committed,
    /// Nothing of it has happened.
    Undone(StoreError),
    /// The commit was sent and not answered.
    InDoubt(StoreError),
}

/// One statement on its way.
type Step<'a> = BoxFuture<'a, Result<Vec<Row>, Error>>;

/// Sends statements together, and takes their answers. They run in this order.
async fn fly(steps: Vec<Step<'_>>) -> Result<Vec<Vec<Row>>, Flown> {
    Ok(try_join_all(steps).await?)
}

/// As long as a way to the database and back may take.
async fn timed<T>(way: impl Future<Output = Result<T, Flown>>) -> Result<T, Flown> {
    timeout(FLIGHT, way).await.unwrap_or(Err(Flown::TimedOut))
}

/// Why statements have no answers.
enum Flown {
    Error(Error),
    TimedOut,
    /// What the database keeps is not what it should be.
    Kept(StoreError),
}

impl From<Error> for Flown {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<StoreError> for Flown {
    fn from(error: StoreError) -> Self {
        Self::Kept(error)
    }
}

impl Flown {
    /// Whether somebody else held the lock for too long.
    fn is_locked(&self) -> bool {
        let Self::Error(error) = self else { return false };
        error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::Error(error) if error.is_closed())
    }
}

impl From<Flown> for StoreError {
    fn from(flown: Flown) -> Self {
        match flown {
            Flown::Error(error) => error.into(),
            Flown::Kept(error) => error,
            Flown::TimedOut => Self::Unavailable("it did not answer in time".to_owned()),
        }
    }
}

/// A value of a statement.
type Value<'a> = &'a (dyn ToSql + Sync);

/// A statement of a flight. Prepared once for each connection.
async fn step<'a>(
    client: &'a Pooled,
    sql: &'a str,
    values: &'a [Value<'a>],
) -> Result<Step<'a>, Error> {
    let statement = client.prepare_cached(sql).await?;
    Ok(Box::pin(async move { client.query(&statement, values).await }))
}

/// A statement without values or rows.
fn bare<'a>(client: &'a Pooled, sql: &'a str) -> Step<'a> {
    Box::pin(async move { client.batch_execute(sql).await.map(|()| Vec::new()) })
}

/// Begins a transaction, takes the lock and loads what the operations need.
async fn begin(shared: &Shared, needs: &[Needs]) -> Result<(Pooled, View, Timestamp), Unbegun> {
    let failed = |error: StoreError| Unbegun::Failed(error);
    let client = shared.writing.get().await.map_err(|error| failed(error.into()))?;
    match timed(load(shared, &client, needs)).await {
        Ok((view, now)) => Ok((client, view, now)),
        Err(flown) => {
            let closed = flown.is_closed() || client.is_closed();
            discard(client);
            if flown.is_locked() {
                free(shared).await;
            }
            let error = StoreError::from(flown);
            Err(if closed { Unbegun::Closed(error) } else { Unbegun::Failed(error) })
        }
    }
}

/// Takes the lock from a session that has had it for longer than a batch may take: a replica that
/// froze while it read. Its work is undone, and it finds that out when it wakes.
async fn free(shared: &Shared) {
    match ask(&shared.calls, FLIGHT, FREE, &[]).await {
        Ok(freed) if !freed.is_empty() => {
            tracing::warn!("a replica that held the lock for too long has lost it");
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "whoever holds the lock keeps it"),
    }
}

async fn load(
    shared: &Shared,
    client: &Pooled,
    needs: &[Needs],
) -> Result<(View, Timestamp), Flown> {
    let Wanted { ids, digests, names, crowds, given, due } = Wanted::of(needs);
    let (by_ids, by_digests) = (rows::by_ids(), rows::by_digests());
    let (ids, digests, names): ([Value<'_>; 1], [Value<'_>; 1], [Value<'_>; 1]) =
        ([&ids], [&digests], [&names]);
    let (given_values, crowds): ([Value<'_>; 1], [Value<'_>; 1]) = ([&given], [&crowds]);
    // Each statement sees what was committed when it began: after the lock, all there is.
    let mut steps = vec![bare(client, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")];
    for (sql, values) in [
        (LOCK, [].as_slice()),
        (rows::CLOCK, &[]),
        (HEAD, &[]),
        (PENDING, &[]),
        (PENDING_OF, &names),
        (PENDING_OF_CROWD, &crowds),
        (&by_ids, &ids),
        (&by_digests, &digests),
    ] {
        steps.push(step(client, sql, values).await?);
    }
    if !given.is_empty() {
        steps.push(step(client, preapprovals::BY_IDS, &given_values).await?);
    }
    let mut answers = fly(steps).await?.into_iter().skip(2);
    let mut next = || answers.next().unwrap_or_default();
    let now: i64 = first(&next())?.unwrap_or_default();
    let mut view = View::of(shared.replica);
    view.head = Some(rows::read_head(next().first())?);
    let pending: i64 = first(&next())?.unwrap_or_default();
    view.pending = u32::try_from(pending).unwrap_or(u32::MAX);
    for row in next() {
        let (name, sure): (String, &str) = (row.try_get(0)?, row.try_get(1)?);
        let count = u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u32::MAX);
        if let Some(assurance) = forms::assured(sure) {
            let requester = Requester { name, assurance, groups: Vec::new(), also: Vec::new() };
            view.pending_of.insert(who(&requester), count);
        }
    }
    for row in next() {
        let count = u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(u32::MAX);
        view.pending_of_crowd.insert(row.try_get(0)?, count);
    }
    for row in next() {
        if let Some(kept) = rows::readable(&row) {
            view.load(kept);
        }
    }
    for row in next() {
        if let Some(kept) = rows::readable(&row) {
            view.load_standing(kept);
        }
    }
    for row in next() {
        if let Some(one) = readable(preapprovals::read(&row)) {
            view.load_preapproval(one);
        }
    }
    if due {
        load_due(client, now, &mut view).await?;
    }
    Ok((view, moment(now)))
}

/// Loads what has run out.
async fn load_due(client: &Pooled, now: i64, view: &mut View) -> Result<(), Flown> {
    let limit = i64::from(work::SETTLED_AT_ONCE);
    let values: [Value<'_>; 2] = [&now, &limit];
    let found = fly(vec![step(client, rows::DUE, &values).await?]).await?;
    let ids: Vec<Uuid> =
        found.iter().flatten().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let by_ids = rows::by_ids();
    let values: [Value<'_>; 1] = [&ids];
    for row in fly(vec![step(client, &by_ids, &values).await?]).await?.into_iter().flatten() {
        if let Some(kept) = rows::readable(&row) {
            view.load(kept);
        }
    }
    view.due = ids.into_iter().map(RequestId::from).collect();
    Ok(())
}

/// The first value of the first row.
fn first<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<Option<T>, Error> {
    rows.first().map(|row| row.try_get(0)).transpose()
}

/// Writes what a batch has changed, and commits.
async fn end(client: Pooled, view: &View) -> Ended {
    if let Some(error) = &view.broken {
        discard(client);
        return Ended::Undone(error.clone());
    }
    if let Err(flown) = timed(flush(&client, view)).await {
        discard(client);
        return Ended::Undone(flown.into());
    }
    match timed(fly(vec![bare(&client, "COMMIT")])).await {
        Ok(_) => Ended::Committed,
        Err(flown) => {
            discard(client);
            Ended::InDoubt(flown.into())
        }
    }
}

async fn flush(client: &Pooled, view: &View) -> Result<(), Flown> {
    let (inserted, updated) = (Inserted::of(&view.inserted())?, Updated::of(&view.updated())?);
    let (votes, events) = (Votes::of(&view.votes)?, Events::of(&view.events)?);
    let given = preapprovals::Columns::of(view.preapprovals())?;
    let given_values = given.values();
    let seq = view.head.as_ref().map_or_else(String::new, |head| head.seq.to_string());
    let (inserted_values, updated_values) = (inserted.values(), updated.values());
    let (vote_values, event_values) = (votes.values(), events.values());
    let notify: [Value<'_>; 1] = [&seq];
    let seen: [Value<'_>; 1] = [&view.replica];
    let mut steps = Vec::new();
    for (sql, values, any) in [
        (INSERT, inserted_values.as_slice(), !inserted.id.is_empty()),
        // Its answer is looked at: it comes second.
        (UPDATE, &updated_values, true),
        (VOTE, &vote_values, !view.votes.is_empty()),
        (preapprovals::KEEP, &given_values, !given.is_empty()),
        (APPEND, &event_values, !view.events.is_empty()),
        (NOTIFY, &notify, !view.events.is_empty()),
        (rows::SEEN, &seen, view.probed),
    ] {
        if any {
            steps.push((sql, step(client, sql, values).await?));
        }
    }
    let at = steps.iter().position(|(sql, _)| *sql == UPDATE).unwrap_or_default();
    let answers = fly(steps.into_iter().map(|(_, step)| step).collect()).await?;
    let changed = answers.get(at).map_or(0, Vec::len);
    if changed != updated.id.len() {
        let changed_meanwhile = "the request changed meanwhile".to_owned();
        return Err(Flown::Kept(StoreError::Unavailable(changed_meanwhile)));
    }
    Ok(())
}
