//! Messages for webhooks, in the file.

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{
    SqliteStore,
    rows::{millis, moment, read_id},
};
use crate::store::{
    Store as _, StoreError,
    outbox::{AT_ONCE, Delivery, Outbox, Sent, TOLD},
};

fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get("id")?,
        hook: row.get("hook")?,
        kind: row.get("kind")?,
        request: read_id(row, "request")?,
        at: moment(row.get("at")?),
        attempts: row.get("attempts")?,
        error: row.get("error")?,
    })
}

fn publish(connection: &Connection, hook: &str, now: i64) -> rusqlite::Result<bool> {
    connection.execute(
        "INSERT OR IGNORE INTO hooks SELECT ?1, coalesce((SELECT max(seq) FROM events), 0)",
        [hook],
    )?;
    let after: i64 =
        connection.query_row("SELECT seq FROM hooks WHERE name = ?1", [hook], |row| row.get(0))?;
    let until = connection
        .prepare_cached("SELECT max(seq), count(*) FROM (SELECT seq FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2)")?
        .query_row((after, AT_ONCE), |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, u32>(1)?)))
        .optional()?;
    let Some((Some(until), rows)) = until else { return Ok(false) };
    let told = serde_json::json!(TOLD).to_string();
    connection.execute(
        "INSERT OR IGNORE INTO deliveries (id, hook, kind, request, at, due_at)
         SELECT ?1 || '_' || e.seq || '_' || substr(e.hash, 1, 16), ?1, e.kind, e.request, e.at, ?2 FROM events e
         WHERE e.seq > ?3 AND e.seq <= ?4 AND e.kind IN (SELECT value FROM json_each(?5))
         UNION ALL
         SELECT ?1 || '_' || e.seq || '_' || substr(e.hash, 1, 16) || '_' || p.value, ?1, 'reminder', e.request, e.at,
                r.received_at + (r.expires_at - r.received_at) * p.value / 100
         FROM events e JOIN requests r ON r.id = e.request JOIN json_each('[50,90]') p
         WHERE e.seq > ?3 AND e.seq <= ?4 AND e.kind = 'received' AND r.state = 'pending'",
        (hook, now, after, until, told),
    )?;
    connection.execute("UPDATE hooks SET seq = ?2 WHERE name = ?1", (hook, until))?;
    Ok(rows == AT_ONCE)
}

#[tonic::async_trait]
impl Outbox for SqliteStore {
    async fn publish(&self, hook: &str) -> Result<bool, StoreError> {
        let (hook, now) = (hook.to_owned(), millis(self.now()));
        // Looking costs no commit; most of the time nothing has happened.
        let look = "SELECT coalesce((SELECT max(seq) FROM events), 0) IS (SELECT seq FROM hooks WHERE name = ?1)";
        let name = hook.clone();
        let told = Self::read(&self.lists, move |c| c.query_row(look, [name], |row| row.get(0)));
        if told.await? {
            return Ok(false);
        }
        self.write(move |connection| Ok(publish(connection, &hook, now)?)).await
    }

    async fn take(&self, limit: u32, lease: u32) -> Result<Vec<Delivery>, StoreError> {
        let now = millis(self.now());
        let look = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE due_at <= ?1)";
        let due = Self::read(&self.lists, move |c| c.query_row(look, [now], |row| row.get(0)));
        if !due.await? {
            return Ok(Vec::new());
        }
        let taken = move |connection: &Connection| -> Result<Vec<Delivery>, StoreError> {
            let mut statement = connection.prepare_cached(
                "UPDATE deliveries SET due_at = ?1 + ?3 * 1000, attempts = attempts + 1
                 WHERE id IN (SELECT id FROM deliveries WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2)
                 RETURNING *",
            )?;
            let found = statement.query_map((now, limit, lease), read)?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        };
        self.write(taken).await
    }

    async fn sent(&self, id: &str, sent: Sent) -> Result<(), StoreError> {
        let id = id.to_owned();
        let settle = move |connection: &Connection| -> Result<(), StoreError> {
            match sent {
                Sent::Arrived => {
                    connection.execute("DELETE FROM deliveries WHERE id = ?1", [id])?
                }
                Sent::Again { due, error } => connection.execute(
                    "UPDATE deliveries SET due_at = ?2, error = ?3 WHERE id = ?1",
                    (id, millis(due), error),
                )?,
                Sent::Dead(error) => connection.execute(
                    "UPDATE deliveries SET due_at = NULL, error = ?2 WHERE id = ?1",
                    (id, error),
                )?,
            };
            Ok(())
        };
        self.write(settle).await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let dead = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM deliveries WHERE due_at IS NULL ORDER BY at, id LIMIT ?1",
            )?;
            statement.query_map([limit], read)?.collect()
        };
        Self::read(&self.lists, dead).await
    }

    async fn redeliver(&self, id: Option<String>) -> Result<u64, StoreError> {
        let now = millis(self.now());
        let again = move |connection: &Connection| -> Result<u64, StoreError> {
            let sent = connection.execute(
                "UPDATE deliveries SET due_at = ?1, attempts = 0
                 WHERE due_at IS NULL AND (?2 IS NULL OR id = ?2)",
                (now, id),
            )?;
            Ok(sent as u64)
        };
        self.write(again).await
    }
}
