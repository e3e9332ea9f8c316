//! Pre-approvals, in the file.

use hitl_api::{Preapproval, PreapprovalId};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{
    SqliteStore,
    rows::{Within, corrupt, millis, moment},
};
use crate::store::{
    Store as _, StoreError, forms,
    preapprovals::{AT_ONCE, Ender, Preapproving, readable},
    work,
};

fn read(row: &Row<'_>) -> rusqlite::Result<Preapproval> {
    let kept = forms::KeptPreapproval {
        said: row.get_ref("said")?.as_str()?,
        expires_at: moment(row.get("expires_at")?),
        uses: row.get("uses")?,
        used: row.get("used")?,
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(moment),
        ended_by: row.get("ended_by")?,
    };
    kept.read().map_err(|error| corrupt(error.to_string()))
}

pub(super) fn one(
    connection: &Connection,
    id: PreapprovalId,
) -> rusqlite::Result<Option<Preapproval>> {
    connection
        .prepare_cached("SELECT * FROM preapprovals WHERE id = ?1")?
        .query_row([id.to_string()], |row| Ok(readable(read(row))))
        .optional()
        .map(Option::flatten)
}

pub(super) fn keep(connection: &Connection, preapproval: &Preapproval) -> rusqlite::Result<()> {
    let said = serde_json::to_string(preapproval).map_err(|error| corrupt(error.to_string()))?;
    connection
        .prepare_cached(
            "INSERT INTO preapprovals (id, said, expires_at, uses, used, ended_at, ended_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET
                 used = excluded.used, ended_at = excluded.ended_at, ended_by = excluded.ended_by",
        )?
        .execute((
            preapproval.id.to_string(),
            said,
            millis(preapproval.expires_at),
            preapproval.uses,
            preapproval.used,
            preapproval.ended_at.map(millis),
            &preapproval.ended_by,
        ))
        .map(drop)
}

/// All there have ever been, in pages: for a move to another store.
pub(super) fn all(
    connection: &Connection,
    after: Option<PreapprovalId>,
    limit: u32,
) -> rusqlite::Result<Vec<Preapproval>> {
    connection
        .prepare_cached("SELECT * FROM preapprovals WHERE id > ?1 ORDER BY id LIMIT ?2")?
        .query_map((after.map(|id| id.to_string()).unwrap_or_default(), limit), read)?
        .collect()
}

#[tonic::async_trait]
impl Preapproving for SqliteStore {
    async fn preapprove(
        &self,
        preapproval: Preapproval,
        now: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError> {
        self.write(move |connection| work::preapprove(&mut Within(connection), preapproval, now))
            .await
    }

    async fn end_preapproval(
        &self,
        id: PreapprovalId,
        by: Ender,
        now: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError> {
        let end = move |connection: &Connection| {
            work::end_preapproval(&mut Within(connection), id, by, now)
        };
        self.write(end).await
    }

    async fn preapprovals(&self) -> Result<Vec<Preapproval>, StoreError> {
        let now = millis(self.now());
        let in_force = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM preapprovals WHERE expires_at > ?1 AND ended_at IS NULL AND used < uses
                 ORDER BY id LIMIT ?2",
            )?;
            let found = statement.query_map((now, AT_ONCE), |row| Ok(readable(read(row))))?;
            found.filter_map(Result::transpose).collect()
        };
        Self::read(&self.reader, in_force).await
    }
}
