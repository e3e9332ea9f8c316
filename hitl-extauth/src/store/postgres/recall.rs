//! A PostgreSQL that has come back from a backup.
//!
//! Owns that nothing of an approval in it is used. Must never lapse one of a database that it could not read
//! to the end and call that done.

use futures_util::future::try_join_all;
use hitl_api::RequestId;
use prometheus_client::metrics::histogram::Histogram;
use uuid::Uuid;

use super::{PostgresStore, writer::Needs};
use crate::store::{
    Store as _, StoreError,
    database::{PostgresArgs, PostgresUrl},
    preapprovals::Preapproving as _,
    recall::{self, RecallError, Recalled},
};

/// Approvals that lapse together.
const AT_ONCE: i64 = 250;

const GRANTED: &str =
    "SELECT id FROM requests WHERE state = 'approved' ORDER BY id LIMIT $1::bigint";

/// Recalls everything, some of it at a time: what was recalled is found no more.
pub(in crate::store) async fn recall(
    url: &PostgresUrl,
    args: &PostgresArgs,
) -> Result<Recalled, RecallError> {
    // Nobody looks at how long it takes.
    let store = PostgresStore::open(url, args, Histogram::new([])).await?;
    let recalled = store.recall_all().await;
    store.leave().await;
    Ok(recalled?)
}

impl PostgresStore {
    async fn recall_all(&self) -> Result<Recalled, StoreError> {
        let mut recalled = Recalled::default();
        loop {
            let found = self.listed(GRANTED, &[&AT_ONCE]).await?;
            if found.is_empty() {
                break;
            }
            let ids: Vec<Uuid> =
                found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            let lapsing = ids.into_iter().map(RequestId::from).map(|id| {
                self.write(Needs::Request(id), move |view, now| recall::lapse(view, id, now))
            });
            recalled.approvals += count(&try_join_all(lapsing).await?);
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
