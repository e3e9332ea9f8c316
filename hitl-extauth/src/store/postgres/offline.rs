//! A PostgreSQL without a gate: reading its audit, and filling an empty one.

use hitl_api::{Event, Head, Preapproval, Request};

use super::{
    OpenError,
    columns::{APPEND, Events, INSERT, Inserted, VOTE, Votes},
    connect::{Connector, Pool, Pooled},
    preapprovals, rows, schema,
    view::Held,
    writer::LOCK,
};
use crate::store::{
    StoreError,
    database::{PostgresArgs, PostgresUrl},
};

/// Rows read at once.
const AT_ONCE: i64 = 100;

/// Whoever reads the output may take their time, and a large table its own.
const UNHURRIED: &str = "SET idle_in_transaction_session_timeout TO 0; SET statement_timeout TO 0";

pub(super) async fn connect(url: &PostgresUrl, args: &PostgresArgs) -> Result<Pooled, OpenError> {
    let pool: Pool = Connector::new(url, args)?.with(UNHURRIED).pool(1)?;
    pool.get().await.map_err(|error| match error {
        deadpool::managed::PoolError::Backend(error) => OpenError::Connect(url.to_string(), error),
        error => OpenError::Store(url.to_string(), error.into()),
    })
}

/// Reads an audit from its begin to its end.
pub struct AuditReader {
    client: Pooled,
    after: i64,
}

impl AuditReader {
    /// Connects. What is read is the audit of this moment.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: &PostgresUrl, args: &PostgresArgs) -> Result<Self, OpenError> {
        let client = connect(url, args).await?;
        let begun = client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await;
        begun.map_err(|error| OpenError::Store(url.to_string(), error.into()))?;
        Ok(Self { client, after: 0 })
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        let sql =
            format!("SELECT {} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2", rows::EVENT);
        let statement = self.client.prepare_cached(&sql).await?;
        let found = self.client.query(&statement, &[&self.after, &AT_ONCE]).await?;
        let events: Vec<Event> = found.iter().map(rows::read_event).collect::<Result<_, _>>()?;
        if let Some(last) = events.last() {
            self.after = i64::try_from(last.seq).unwrap_or(i64::MAX);
        }
        Ok(events)
    }
}

/// An empty PostgreSQL that is filled, in one transaction.
pub(in crate::store) struct Target(Pooled);

impl Target {
    /// Connects, and makes the tables.
    pub(in crate::store) async fn open(
        url: &PostgresUrl,
        args: &PostgresArgs,
    ) -> Result<Self, OpenError> {
        let connector = Connector::new(url, args)?;
        schema::bring(&connector).await.map_err(|error| OpenError::of_schema(url, error))?;
        let client = connect(url, args).await?;
        let begin = async {
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE").await?;
            client.batch_execute(LOCK).await
        };
        begin.await.map_err(|error| OpenError::Store(url.to_string(), error.into()))?;
        Ok(Self(client))
    }

    /// Whether there is something already, and where its audit ends.
    pub(in crate::store) async fn holds(&self) -> Result<Option<Head>, StoreError> {
        let any = "SELECT EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM requests)";
        if !self.0.query_one(any, &[]).await?.try_get::<_, bool>(0)? {
            return Ok(None);
        }
        let head = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1";
        rows::read_head(self.0.query_opt(head, &[]).await?.as_ref()).map(Some)
    }

    /// Keeps requests, with their votes.
    pub(in crate::store) async fn requests(&mut self, all: &[Request]) -> Result<(), StoreError> {
        let held: Vec<_> = all.iter().cloned().map(Held::alone).collect();
        let held: Vec<_> = held.iter().collect();
        let inserted = Inserted::of(&held)?;
        let insert = self.0.prepare_cached(INSERT).await?;
        self.0.execute(&insert, &inserted.values()).await?;
        let votes: Vec<_> = all
            .iter()
            .flat_map(|request| request.votes.iter().map(|vote| (request.id, vote.clone())))
            .collect();
        let vote = self.0.prepare_cached(VOTE).await?;
        self.0.execute(&vote, &Votes::of(&votes)?.values()).await?;
        Ok(())
    }

    /// Keeps pre-approvals.
    pub(in crate::store) async fn preapprovals(
        &mut self,
        all: &[Preapproval],
    ) -> Result<(), StoreError> {
        let columns = preapprovals::Columns::of(all)?;
        let keep = self.0.prepare_cached(preapprovals::KEEP).await?;
        self.0.execute(&keep, &columns.values()).await?;
        Ok(())
    }

    /// Keeps rows of the audit.
    pub(in crate::store) async fn events(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let append = self.0.prepare_cached(APPEND).await?;
        self.0.execute(&append, &Events::of(events)?.values()).await?;
        Ok(())
    }

    /// Makes all of it durable.
    pub(in crate::store) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.0.batch_execute("COMMIT").await?)
    }
}
