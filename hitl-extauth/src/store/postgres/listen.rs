//! Hears of what other replicas have written, and says that this one lives.
//!
//! Owns how soon that is: at once by NOTIFY; by looking, where the connection that listens is down
//! or silent, within a second. Must never be what correctness depends on: it says that there is
//! something to read, and no more.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::AsyncMessage;

use super::{
    Shared,
    connect::{ConnectError, ask, explain},
    rows::{CLOCK, SEEN},
};
use crate::store::StoreError;

/// How often the end of the audit is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often a replica says that it lives, in looks.
const BEATS: u32 = 4;

/// How soon a connection that listens is made again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A replica that was not seen for so many milliseconds is forgotten.
const FORGOTTEN: i64 = 3_600_000;

/// Kinds of rows that change nothing for a call that waits.
const UNTOUCHED: [&str; 8] = [
    "received",
    "repeated",
    "voted",
    "caller_left",
    "answered_pending",
    "superseded",
    "preapproval_made",
    "preapproval_ended",
];

/// Whether a row of this kind may change something for a call that waits.
pub(super) fn touches(kind: &str) -> bool {
    !UNTOUCHED.contains(&kind)
}

/// Listens for ever.
pub(super) async fn listen(shared: Arc<Shared>) {
    loop {
        match hear(&shared).await {
            Ok(()) => tracing::warn!("PostgreSQL's notifications are cut; looking instead"),
            Err(error) => tracing::debug!(%error, "nothing listens to PostgreSQL"),
        }
        shared.listening.send_replace(false);
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens until the connection ends.
async fn hear(shared: &Shared) -> Result<(), ConnectError> {
    let (client, mut work) = shared.connector.open().await?;
    let mut said =
        tokio::spawn(async move { client.batch_execute("LISTEN hitl").await.map(|()| client) });
    // Kept: the connection ends with it.
    let mut listening = None;
    loop {
        tokio::select! {
            message = poll_fn(|context| work.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(note))) => {
                    if let Ok(seq) = note.payload().parse() {
                        shared.heard(seq);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(error = %explain(&error), "the connection that listens");
                    return Ok(());
                }
                None => return Ok(()),
            },
            client = &mut said, if listening.is_none() => {
                let Ok(client) = client else { return Ok(()) };
                listening = Some(client?);
                shared.listening.send_replace(true);
            }
        }
    }
}

/// Looks for ever: at the end of the audit, at the clock, and that this replica is known to live.
pub(super) async fn look(shared: Arc<Shared>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for beat in (0..BEATS).cycle() {
        look.tick().await;
        let looked = async {
            if beat == 0 {
                shared.live().await?;
            }
            shared.look().await
        };
        if let Err(error) = looked.await {
            tracing::debug!(%error, "looked at PostgreSQL in vain");
        }
    }
}

impl Shared {
    /// Says that this replica lives. A write: where it succeeds, writing works.
    pub(super) async fn live(&self) -> Result<(), StoreError> {
        ask(&self.writing, PATIENCE, SEEN, &[&self.replica]).await?;
        let forget = "DELETE FROM replicas
            WHERE seen_at < extract(epoch FROM clock_timestamp()) * 1000 - $1::bigint";
        ask(&self.writing, PATIENCE, forget, &[&FORGOTTEN]).await?;
        Ok(())
    }

    /// Looks at the end of the audit, and at the clock.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let clock = ask(&self.writing, PATIENCE, CLOCK, &[]).await?;
        if let Some(row) = clock.first() {
            self.clock.set(row.try_get(0)?, asked.elapsed());
        }
        // May be below what it was: after a failover to a primary that does not have the last rows.
        let before = *self.latest.borrow();
        let head = "SELECT coalesce(max(seq), 0)::bigint FROM events";
        let head = ask(&self.writing, PATIENCE, head, &[]).await?;
        let head = match head.first() {
            Some(row) => row.try_get::<_, i64>(0)?.unsigned_abs(),
            None => 0,
        };
        self.latest.send_if_modified(|seq| {
            // Unless it has gone on since.
            *seq == before && std::mem::replace(seq, head) != head
        });
        Ok(())
    }
}
