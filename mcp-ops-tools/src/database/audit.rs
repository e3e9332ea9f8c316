//! The audit: one row for every change, written in the transaction that makes the change.
//!
//! Owns what a row says. Must never be written outside the caller's transaction, never be changed
//! afterwards (triggers hold that), and never claim an approval that no receipt proved.

use hitl_receipt::Claims;
use rusqlite::{Connection, Row, named_params};
use serde::Serialize;
use serde_json::Value;

/// How much of a claimed name is kept, in characters.
const REQUESTER_LIMIT: usize = 256;

/// Who a change is made for, and what allowed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Who asked, as the request claims (`x-user-id`). Nobody has verified it.
    pub requester: Option<String>,
    /// The verified receipt, for a gated call.
    pub receipt: Option<Claims>,
}

impl Caller {
    /// Notes a claimed name; a very long one is cut, and says so. Characters that cannot be seen,
    /// or that change how others are seen, are written as their code.
    pub fn claimed(name: &str) -> Self {
        let name = visible(name.trim());
        let requester = match name.char_indices().nth(REQUESTER_LIMIT) {
            _ if name.is_empty() => None,
            Some((end, _)) => {
                let kept = name.get(..end).unwrap_or_default();
                Some(format!("{kept}… ({} bytes)", name.len()))
            }
            None => Some(name),
        };
        Self { requester, receipt: None }
    }
}

/// A text in which every character shows: control, bidirectional, zero-width and tag characters
/// are written as their code.
fn visible(text: &str) -> String {
    let hidden = |letter: char| {
        letter.is_control()
            || matches!(letter,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}')
    };
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if hidden(letter) {
            shown.extend(letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// One row of the audit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRow {
    /// Position; grows by one a change.
    pub id: i64,
    /// When, RFC 3339 in UTC.
    pub ts: String,
    /// What kind of change.
    pub op: String,
    /// What exactly, as an object that depends on `op`.
    pub detail: Value,
    /// Who asked, as claimed.
    pub requester: Option<String>,
    /// The approval that allowed it; `None` for a change that needs none.
    pub approval: Option<Approval>,
}

/// The approval behind a gated change, as a verified receipt states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Id of the approval at the gate.
    pub id: String,
    /// The reviewers.
    pub approved_by: Vec<String>,
    /// For whom, as the gate knows it.
    pub requester: Option<String>,
}

/// Appends a row. Call inside the transaction that makes the change.
pub(super) fn append(
    transaction: &Connection,
    op: &str,
    detail: &Value,
    caller: &Caller,
) -> rusqlite::Result<()> {
    let receipt = caller.receipt.as_ref();
    transaction
        .prepare_cached(
            "INSERT INTO audit (ts, op, detail, requester, approval_id, approved_by, approved_for)
             VALUES (:ts, :op, :detail, :requester, :approval_id, :approved_by, :approved_for)",
        )?
        .execute(named_params! {
            ":ts": format!("{:.3}", jiff::Timestamp::now()),
            ":op": op,
            ":detail": detail.to_string(),
            ":requester": caller.requester,
            ":approval_id": receipt.map(|claims| claims.jti.as_str()),
            ":approved_by": receipt.map(|claims| Value::from(claims.approved_by.clone()).to_string()),
            ":approved_for": receipt.and_then(|claims| claims.sub.as_deref()),
        })?;
    Ok(())
}

/// The newest `limit` rows, oldest of them first.
pub(super) fn newest(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<AuditRow>> {
    connection
        .prepare_cached(
            "SELECT * FROM (SELECT id, ts, op, detail, requester, approval_id, approved_by,
             approved_for FROM audit ORDER BY id DESC LIMIT ?1) ORDER BY id",
        )?
        .query_map([limit], read_row)?
        .collect()
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let json = |column: &str| -> rusqlite::Result<Value> {
        let text: Option<String> = row.get(column)?;
        Ok(text.and_then(|text| hitl_core::json::read(&text).ok()).unwrap_or(Value::Null))
    };
    let id: Option<String> = row.get("approval_id")?;
    let approval = match id {
        None => None,
        Some(id) => Some(Approval {
            id,
            approved_by: hitl_core::json::typed(json("approved_by")?).unwrap_or_default(),
            requester: row.get("approved_for")?,
        }),
    };
    Ok(AuditRow {
        id: row.get("id")?,
        ts: row.get("ts")?,
        op: row.get("op")?,
        detail: json("detail")?,
        requester: row.get("requester")?,
        approval,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_aloud_and_an_empty_one_is_nobody() {
        assert_eq!(Caller::claimed("  ").requester, None);
        let hidden = Caller::claimed("a\u{202e}b\u{200b}\u{9b}").requester.unwrap();
        assert_eq!(hidden, r"a\u{202e}b\u{200b}\u{9b}");
        assert_eq!(Caller::claimed(" alice ").requester.as_deref(), Some("alice"));
        let long = "é".repeat(300);
        let kept = Caller::claimed(&long).requester.unwrap();
        assert_eq!(kept, format!("{}… (600 bytes)", "é".repeat(256)));
    }
}
