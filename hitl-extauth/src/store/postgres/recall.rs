//! A PostgreSQL that has come back from a backup.
//!
//! Owns that nothing of an approval in it is used. Must never lapse one of a database that it could not read
//! to the end and call that done.

use futures_util::future::try_join_all;
use hitl_api::RequestId;
use prometheus_client::metrics::histogram::Histogram;
use uuid::Uuid;

use super::{PostgresStore, offline, rows::REPLICA_LIVES, writer::Needs};
use crate::store::{
    Store as _, StoreError,
    database::{PostgresArgs, PostgresUrl},
    preapprovals::Preapproving as _,
    recall::{self, RecallError, Recalled},
};

/// Requests that are recalled together.
const AT_ONCE: i64 = 250;

/// What somebody has approved and nobody has used.
const APPROVED: &str = "
    SELECT id FROM requests r WHERE state = 'approved'
        OR state = 'pending' AND EXISTS (SELECT FROM votes v WHERE v.request = r.id AND v.approved)
    ORDER BY id LIMIT $1::bigint";

/// Gates that have it open, this one aside.
const OTHERS: &str = "
    SELECT count(*) FROM replicas WHERE id <> $1
        AND seen_at > extract(epoch FROM clock_timestamp()) * 1000 - $2::bigint";

/// Recalls everything, some of it at a time: what was recalled is found no more.
pub(in crate::store) async fn recall(
    url: &PostgresUrl,
    args: &PostgresArgs,
) -> Result<Recalled, RecallError> {
    exists(url, args).await?;
    // Nobody looks at how long it takes.
    let store = PostgresStore::open(url, args, Histogram::new([])).await?;
    let recalled = match store.alone().await {
        Ok(()) => store.recall_all().await.map_err(RecallError::from),
        Err(error) => Err(error),
    };
    store.leave().await;
    recalled
}

/// Whether there is a schema: opening a database makes one, and one that was just made holds nothing.
async fn exists(url: &PostgresUrl, args: &PostgresArgs) -> Result<(), RecallError> {
    let read = |error: tokio_postgres::Error| StoreError::from(error);
    let client = offline::connect(url, args).await?;
    let found = client.query_one("SELECT to_regnamespace('hitl') IS NOT NULL", &[]).await;
    let there: bool = found.and_then(|row| row.try_get(0)).map_err(read)?;
    if there { Ok(()) } else { Err(RecallError::NotThere(url.to_string())) }
}

impl PostgresStore {
    /// Whether no gate has it open: one would spend what is about to be recalled.
    async fn alone(&self) -> Result<(), RecallError> {
        let found = self.listed(OTHERS, &[&self.shared.replica, &REPLICA_LIVES]).await?;
        let others = found.first().map(|row| row.try_get::<_, i64>(0)).transpose();
        match others.map_err(StoreError::from)? {
            None | Some(0) => Ok(()),
            Some(others) => Err(RecallError::InUse(others)),
        }
    }

    async fn recall_all(&self) -> Result<Recalled, StoreError> {
        let mut recalled = Recalled::default();
        loop {
            let found = self.listed(APPROVED, &[&AT_ONCE]).await?;
            if found.is_empty() {
                break;
            }
            let ids: Vec<Uuid> =
                found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            let lapsing = ids.into_iter().map(RequestId::from).map(|id| {
                self.write(Needs::Request(id), move |view, now| recall::lapse(view, id, now))
            });
            try_join_all(lapsing).await?.into_iter().for_each(|became| recalled.count(became));
        }
        loop {
            let found = self.preapprovals().await?;
            if found.is_empty() {
                break;
            }
            let ending = found.into_iter().map(|found| found.id).map(|id| {
                let end = move |view: &mut super::view::View, now| recall::end(view, id, now);
                self.write(Needs::Preapproval(id), end)
            });
            recalled.preapprovals += count(&try_join_all(ending).await?);
        }
        Ok(recalled)
    }
}

fn count(done: &[bool]) -> u64 {
    done.iter().filter(|done| **done).count() as u64
}
