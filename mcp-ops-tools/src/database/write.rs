//! The two changes there are, each one transaction: the change, its audit row, and the receipt it
//! used up, or none of them.
//!
//! Must never put a caller's text into SQL.

use std::{fmt, str::FromStr};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{
    audit::{self, Caller},
    migration::{self, Version},
    schema_version,
};

/// How long a used receipt is remembered after it expired, in seconds: far longer than any leeway.
const REMEMBER_SECONDS: i64 = 3600;

/// One of the lab's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// What customers ordered.
    Orders,
    /// Who orders.
    Customers,
}

/// No table of the lab has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no table {0:?}; the tables are orders and customers")]
pub struct UnknownTable(String);

impl Table {
    /// Every table there is.
    pub const ALL: [Self; 2] = [Self::Orders, Self::Customers];

    fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Customers => "customers",
        }
    }

    fn delete(self) -> &'static str {
        match self {
            Self::Orders => "DELETE FROM orders",
            Self::Customers => "DELETE FROM customers",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Table {
    type Err = UnknownTable;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|table| table.name() == text)
            .ok_or_else(|| UnknownTable(text.chars().take(64).collect()))
    }
}

/// Rows in each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    /// In `orders`.
    pub orders: u64,
    /// In `customers`.
    pub customers: u64,
}

/// A table was emptied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Truncated {
    /// The table.
    pub truncated: Table,
    /// How many rows it had.
    pub rows_deleted: u64,
}

/// The schema was taken to a version, or was there already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Migrated {
    /// Whether anything was changed.
    pub migrated: bool,
    /// The version before.
    #[schemars(with = "String")]
    pub from: Version,
    /// The version now.
    #[schemars(with = "String")]
    pub to: Version,
    /// What there is to say when nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Why a change did not happen. Nothing of it did.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The receipt allowed one call, and that has been made.
    #[error(
        "the approval receipt of this call was used before; an approval is good for one call, \
         ask for a new one"
    )]
    ReceiptUsed,
    /// It waited too long for its turn.
    #[error(
        "the approval receipt of this call ran out before its turn came; nothing was run, try again"
    )]
    ReceiptExpired,
    /// SQLite's answer.
    #[error("the database refused the change, and nothing was changed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The thread that worked on it is gone.
    #[error("the database stopped working on this; read the state before asking again")]
    Lost,
}

pub(super) fn row_counts(connection: &Connection) -> rusqlite::Result<RowCounts> {
    connection
        .prepare_cached("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM customers)")?
        .query_row([], |row| {
            let rows = |index| row.get(index).map(i64::unsigned_abs);
            Ok(RowCounts { orders: rows(0)?, customers: rows(1)? })
        })
}

pub(super) fn truncate(
    connection: &mut Connection,
    table: Table,
    caller: &Caller,
) -> Result<Truncated, WriteError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rows_deleted = transaction.prepare_cached(table.delete())?.execute([])? as u64;
    let detail = json!({"table": table, "rows": rows_deleted});
    audit::append(&transaction, "truncate", &detail, caller)?;
    transaction.commit()?;
    Ok(Truncated { truncated: table, rows_deleted })
}

pub(super) fn migrate(
    connection: &mut Connection,
    to: Version,
    caller: &Caller,
) -> Result<Migrated, WriteError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    spend(&transaction, caller)?;
    let from = schema_version(&transaction)?;
    let migrated = from != to;
    if migrated {
        for step in migration::path(Some(from), to) {
            transaction.execute_batch(step.sql)?;
        }
        transaction
            .prepare_cached("UPDATE schema_state SET version = ?1")?
            .execute([to.number()])?;
        audit::append(&transaction, "migrate", &json!({"from": from, "to": to}), caller)?;
    } else if caller.receipt.is_some() {
        // Nothing changed, but an approval was used up, and that leaves a trace.
        audit::append(&transaction, "migrate_unneeded", &json!({"version": to}), caller)?;
    }
    transaction.commit()?;
    let note = (!migrated).then(|| format!("the schema is at {to} already; nothing was changed"));
    Ok(Migrated { migrated, from, to, note })
}

/// Uses up the caller's receipt, if the call carries one.
fn spend(transaction: &Transaction<'_>, caller: &Caller) -> Result<(), WriteError> {
    let Some(receipt) = &caller.receipt else {
        return Ok(());
    };
    let expires_at = i64::try_from(receipt.exp).unwrap_or(i64::MAX);
    let now = jiff::Timestamp::now().as_second();
    let leeway = i64::try_from(hitl_receipt::LEEWAY_SECONDS).unwrap_or_default();
    if expires_at.saturating_add(leeway) <= now {
        return Err(WriteError::ReceiptExpired);
    }
    let forgotten = now.saturating_sub(REMEMBER_SECONDS);
    transaction
        .prepare_cached("DELETE FROM used_receipts WHERE expires_at < ?1")?
        .execute([forgotten])?;
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO used_receipts (id, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute((receipt.jti.as_str(), expires_at))?;
    if inserted == 1 { Ok(()) } else { Err(WriteError::ReceiptUsed) }
}
