//! Whether the audit is whole, as this process has seen it: every row is read once and checked.
//!
//! Must never call rows verified that it has not read, and never forget that a chain was broken: a restore looks as
//! if somebody had cut the end off, and whoever restores starts the queue anew.

use std::{sync::Arc, time::Duration};

use hitl_api::{
    Head,
    audit::{Broken, Verifier},
};
use hitl_client::{Client, ClientError};
use tokio::{sync::Mutex, time::timeout};

/// Longest a page waits for rows to be checked; the checking goes on without it.
const PATIENCE: Duration = Duration::from_millis(500);

/// How far the chain has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Every row up to this one.
    Whole(Head),
    /// It is being checked; so far up to this row.
    Checking(u64),
    /// A row does not fit.
    Broken(String),
    /// It could not be read.
    Unread(String),
}

/// What is known of the chain; a cheap handle.
#[derive(Clone, Debug)]
pub struct Chain {
    known: Arc<Mutex<Known>>,
    reached: Arc<std::sync::atomic::AtomicU64>,
}

#[derive(Debug)]
struct Known {
    verifier: Verifier,
    broken: Option<Broken>,
}

impl Default for Chain {
    fn default() -> Self {
        let known = Known { verifier: Verifier::new(None), broken: None };
        Self { known: Arc::new(Mutex::new(known)), reached: Arc::default() }
    }
}

impl Chain {
    /// Checks what has been added since the last look, in the name of whoever looks.
    pub async fn check(&self, gate: &Client) -> Standing {
        let (chain, gate) = (self.clone(), gate.clone());
        let checking = tokio::spawn(async move { chain.check_whole(&gate).await });
        match timeout(PATIENCE, checking).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => Standing::Unread(error.to_string()),
            Err(_) => Standing::Checking(self.reached.load(std::sync::atomic::Ordering::Relaxed)),
        }
    }

    async fn check_whole(&self, gate: &Client) -> Standing {
        // One checks; others wait for what it finds.
        let mut known = self.known.lock().await;
        if let Some(broken) = &known.broken {
            return Standing::Broken(said(broken));
        }
        match self.read_on(gate, &mut known).await {
            Ok(head) => match (&known.broken, known.verifier.head()) {
                (Some(broken), _) => Standing::Broken(said(broken)),
                // The gate has ended its answer early; the rest is for another time.
                (None, reached) if reached.seq < head => Standing::Checking(reached.seq),
                (None, reached) => Standing::Whole(reached.clone()),
            },
            Err(error) => Standing::Unread(error.to_string()),
        }
    }

    async fn read_on(&self, gate: &Client, known: &mut Known) -> Result<u64, ClientError> {
        let head = gate.head().await?;
        let seen = known.verifier.head().clone();
        if head == seen {
            return Ok(head.seq);
        }
        if head.seq <= seen.seq {
            // Fewer rows than there were, or another end.
            tracing::error!(noted = seen.seq, now = head.seq, "the audit's end was rewritten");
            known.broken = Some(Broken::Head { noted: seen.seq });
            return Ok(head.seq);
        }
        // The last one that was seen is read again: an end that was rewritten is called that.
        let mut rows = gate.audit(seen.seq.saturating_sub(1)).await?;
        while let Some(events) = rows.next().await? {
            for event in events {
                if event.seq == seen.seq && event.hash == seen.hash {
                    continue;
                }
                if event.seq == seen.seq {
                    tracing::error!(noted = seen.seq, "the audit's end was rewritten");
                    known.broken = Some(Broken::Head { noted: seen.seq });
                    return Ok(head.seq);
                }
                let checked = known.verifier.next(&event);
                let is_head = event.seq == head.seq;
                let checked = checked.and_then(|()| {
                    let other = is_head && event.hash != head.hash;
                    if other { Err(Broken::Head { noted: head.seq }) } else { Ok(()) }
                });
                if let Err(broken) = checked {
                    tracing::error!(%broken, "the audit is broken");
                    known.broken = Some(broken);
                    return Ok(head.seq);
                }
            }
            let reached = known.verifier.head().seq;
            self.reached.store(reached, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(head.seq)
    }
}

/// What is broken. From here, an audit whose end was cut off and one that a restore has put back look the same.
fn said(broken: &Broken) -> String {
    match broken {
        Broken::Head { .. } => format!(
            "{broken}. Rows were removed since this page saw them, or an older database was restored. After a restore \
             that you know of, restart the queue: it reads the whole audit anew"
        ),
        broken => broken.to_string(),
    }
}
