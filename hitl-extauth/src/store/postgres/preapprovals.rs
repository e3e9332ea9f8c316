//! Pre-approvals, in PostgreSQL.

use hitl_api::{Preapproval, PreapprovalId};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    PostgresStore,
    rows::{millis, moment, unkept},
    writer::Needs,
};
use crate::store::{
    Store as _, StoreError, forms,
    preapprovals::{AT_ONCE, Ender, Preapproving, readable},
    work,
};

/// What of one is read.
macro_rules! columns {
    () => {
        "SELECT said, expires_at, uses, used, ended_at, ended_by FROM preapprovals"
    };
}

pub(super) const BY_IDS: &str = concat!(columns!(), " WHERE id = ANY($1::uuid[])");

const IN_FORCE: &str = concat!(
    columns!(),
    " WHERE expires_at > $1::bigint AND ended_at IS NULL AND used < uses ORDER BY id LIMIT $2::bigint"
);

pub(super) const KEEP: &str = "
    INSERT INTO preapprovals (id, said, expires_at, uses, used, ended_at, ended_by)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::integer[], $5::integer[],
        $6::bigint[], $7::text[])
    ON CONFLICT (id) DO UPDATE SET
        used = excluded.used, ended_at = excluded.ended_at, ended_by = excluded.ended_by";

pub(super) fn read(row: &Row) -> Result<Preapproval, StoreError> {
    let number = |column: &str| -> Result<u32, StoreError> {
        Ok(u32::try_from(row.try_get::<_, i32>(column)?).unwrap_or_default())
    };
    let kept = forms::KeptPreapproval {
        said: row.try_get("said")?,
        expires_at: moment(row.try_get("expires_at")?),
        uses: number("uses")?,
        used: number("used")?,
        ended_at: row.try_get::<_, Option<i64>>("ended_at")?.map(moment),
        ended_by: row.try_get("ended_by")?,
    };
    kept.read().map_err(unkept)
}

/// Pre-approvals as they are to be kept, column by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    id: Vec<Uuid>,
    said: Vec<String>,
    expires_at: Vec<i64>,
    uses: Vec<i32>,
    used: Vec<i32>,
    ended_at: Vec<Option<i64>>,
    ended_by: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(
        preapprovals: impl IntoIterator<Item = &'a Preapproval>,
    ) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for preapproval in preapprovals {
            all.id.push(preapproval.id.uuid());
            all.said.push(serde_json::to_string(preapproval).map_err(unkept)?);
            all.expires_at.push(millis(preapproval.expires_at));
            all.uses.push(i32::try_from(preapproval.uses).unwrap_or(i32::MAX));
            all.used.push(i32::try_from(preapproval.used).unwrap_or(i32::MAX));
            all.ended_at.push(preapproval.ended_at.map(millis));
            all.ended_by.push(preapproval.ended_by.as_deref());
        }
        Ok(all)
    }

    /// In the order of the statement.
    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 7] {
        [
            &self.id,
            &self.said,
            &self.expires_at,
            &self.uses,
            &self.used,
            &self.ended_at,
            &self.ended_by,
        ]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }
}

#[tonic::async_trait]
impl Preapproving for PostgresStore {
    async fn preapprove(
        &self,
        preapproval: Preapproval,
        _: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError> {
        let id = preapproval.id;
        let (vote, condition) = (&preapproval.vote, &preapproval.condition);
        super::keepable([vote.reviewer.as_str(), &vote.reason, condition])?;
        let keep =
            move |view: &mut super::view::View, now| work::preapprove(view, preapproval, now);
        self.write(Needs::Preapproval(id), keep).await
    }

    async fn end_preapproval(
        &self,
        id: PreapprovalId,
        by: Ender,
        _: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError> {
        super::keepable([by.name.as_str()])?;
        let end = move |view: &mut super::view::View, now| work::end_preapproval(view, id, by, now);
        self.write(Needs::Preapproval(id), end).await
    }

    async fn preapprovals(&self) -> Result<Vec<Preapproval>, StoreError> {
        let (now, limit) = (millis(self.now()), i64::from(AT_ONCE));
        let found = self.rows(IN_FORCE, &[&now, &limit]).await?;
        Ok(found.iter().filter_map(|row| readable(read(row))).collect())
    }
}
