//! Messages for webhooks, in PostgreSQL. Whichever replica is first takes them.

use hitl_api::RequestId;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    PostgresStore,
    rows::{millis, moment},
};
use crate::store::{
    StoreError,
    outbox::{AT_ONCE, Delivery, Outbox, Sent, TOLD},
};

/// Of the rows behind the last one that was told: messages, reminders, and how far it is told now. The row
/// of the webhook is locked meanwhile, so that two replicas do not both tell.
const PUBLISH: &str = "
    WITH h AS (SELECT seq FROM hooks WHERE name = $1 FOR UPDATE),
    b AS (SELECT e.seq, left(e.hash, 16) AS hash, e.kind, e.request, e.at FROM events e, h WHERE e.seq > h.seq
          ORDER BY e.seq LIMIT $3::bigint),
    m AS (INSERT INTO deliveries (id, hook, kind, request, at, due_at)
          SELECT $1 || '_' || b.seq || '_' || b.hash, $1, b.kind, b.request, b.at,
                 floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM b
          WHERE b.kind = ANY($2::text[])
          ON CONFLICT DO NOTHING),
    r AS (INSERT INTO deliveries (id, hook, kind, request, at, due_at)
          SELECT $1 || '_' || b.seq || '_' || b.hash || '_' || p, $1, 'reminder', b.request, b.at,
                 q.received_at + (q.expires_at - q.received_at) * p / 100
          FROM b JOIN requests q ON q.id = b.request CROSS JOIN unnest(ARRAY[50, 90]) AS p
          WHERE b.kind = 'received' AND q.state = 'pending'
          ON CONFLICT DO NOTHING)
    UPDATE hooks SET seq = (SELECT max(seq) FROM b) WHERE name = $1 AND EXISTS (SELECT 1 FROM b)
    RETURNING (SELECT count(*) FROM b)";

fn read(row: &Row) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: row.try_get("id")?,
        hook: row.try_get("hook")?,
        kind: row.try_get("kind")?,
        request: RequestId::from(row.try_get::<_, Uuid>("request")?),
        at: moment(row.try_get("at")?),
        attempts: u32::try_from(row.try_get::<_, i32>("attempts")?).unwrap_or_default(),
        error: row.try_get("error")?,
    })
}

#[tonic::async_trait]
impl Outbox for PostgresStore {
    async fn publish(&self, hook: &str) -> Result<bool, StoreError> {
        let new = "INSERT INTO hooks SELECT $1::text, coalesce((SELECT max(seq) FROM events), 0)
                   WHERE NOT EXISTS (SELECT 1 FROM hooks WHERE name = $1::text)
                   ON CONFLICT DO NOTHING";
        self.listed(new, &[&hook]).await?;
        let (told, limit) = (TOLD.to_vec(), i64::from(AT_ONCE));
        let found = self.listed(PUBLISH, &[&hook, &told, &limit]).await?;
        let rows: i64 = found.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
        Ok(rows == limit)
    }

    async fn take(&self, limit: u32, lease: u32) -> Result<Vec<Delivery>, StoreError> {
        // By the database's clock: no two replicas' are quite the same.
        let sql = "
            WITH clock AS (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now)
            UPDATE deliveries SET due_at = clock.now + $2::bigint * 1000, attempts = attempts + 1
            FROM clock
            WHERE id IN (SELECT d.id FROM deliveries d, clock c WHERE d.due_at <= c.now
                         ORDER BY d.due_at LIMIT $1::bigint FOR UPDATE OF d SKIP LOCKED)
            RETURNING id, hook, kind, request, at, attempts, error";
        let (limit, lease) = (i64::from(limit), i64::from(lease));
        self.listed(sql, &[&limit, &lease]).await?.iter().map(read).collect()
    }

    async fn sent(&self, id: &str, sent: Sent) -> Result<(), StoreError> {
        match sent {
            Sent::Arrived => {
                self.listed("DELETE FROM deliveries WHERE id = $1", &[&id]).await?;
            }
            Sent::Again { due, error } => {
                let sql = "UPDATE deliveries SET due_at = $2, error = $3 WHERE id = $1";
                self.listed(sql, &[&id, &millis(due), &error]).await?;
            }
            Sent::Dead(error) => {
                let sql = "UPDATE deliveries SET due_at = NULL, error = $2 WHERE id = $1";
                self.listed(sql, &[&id, &error]).await?;
            }
        }
        Ok(())
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let sql = "SELECT id, hook, kind, request, at, attempts, error FROM deliveries
                   WHERE due_at IS NULL ORDER BY at, id LIMIT $1";
        self.listed(sql, &[&i64::from(limit)]).await?.iter().map(read).collect()
    }

    async fn redeliver(&self, id: Option<String>) -> Result<u64, StoreError> {
        let sql = "UPDATE deliveries SET attempts = 0,
                          due_at = floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
                   WHERE due_at IS NULL AND ($1::text IS NULL OR id = $1) RETURNING 1";
        let sent = self.listed(sql, &[&id]).await?;
        Ok(sent.len() as u64)
    }
}
