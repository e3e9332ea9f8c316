//! Webhooks: who is told what has happened.
//!
//! Owns the telling, and that what was not taken is told again. A message decides nothing: it leads to the
//! queue, where somebody signs in. Must never follow a server elsewhere, nor reach into the network for
//! somebody who has only written down an address.

mod address;
pub mod file;
pub mod message;
mod sign;
mod templates;

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    file::{Hook, Hooks},
    message::Message,
};
use crate::{
    metrics::HookCounts,
    store::{
        SharedStore, StoreError,
        outbox::{Delivery, Sent},
    },
    watched::Watched,
};

/// How soon it is looked for messages that are due.
const LOOK: Duration = Duration::from_millis(500);

/// Messages that are sent at the same time.
const AT_ONCE: u32 = 8;

/// Longest that a receiver may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long messages are in one process's hands, in seconds. Should it be killed, another one sends them
/// then.
const LEASE: u32 = 25;

/// For how long one begins to send what one has in hand.
const BEGIN: Duration = Duration::from_secs(10);

/// Most of an answer that is read, in bytes.
const LARGEST: usize = 64 * 1024;

/// How long to wait after each attempt, in seconds. After the last one it is a dead letter.
const AGAIN: [u32; 11] =
    [5, 30, 120, 300, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 12 * 3600];

/// Longest that a receiver may have us wait, in seconds.
const LONGEST_WAIT: u32 = 12 * 3600;

/// Why a message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    /// It may the next time.
    #[error("{0}")]
    Again(String),
    /// The receiver says when.
    #[error("{1}")]
    After(u32, String),
    /// It will not.
    #[error("{0}")]
    Never(String),
}

/// The webhooks of a gate.
pub struct Telling {
    hooks: Watched<Hooks>,
    open: reqwest::Client,
    inward: reqwest::Client,
    counts: HookCounts,
}

impl Telling {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path, counts: HookCounts) -> Result<Self, String> {
        let told = |what: String| format!("--webhooks {}: {what}", path.display());
        let hooks = Watched::open(path, file::parse).map_err(told)?;
        // An error means that the process has chosen how TLS is done already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                // Through a proxy it could not be said where a message goes.
                .no_proxy()
                .timeout(PATIENCE)
        };
        let failed = |error: reqwest::Error| format!("no HTTP client can be made: {error}");
        let open = http().dns_resolver(Arc::new(address::PublicOnly)).build().map_err(failed)?;
        let inward = http().build().map_err(failed)?;
        Ok(Self { hooks, open, inward, counts })
    }

    /// Notes from where on new webhooks are told, before anything can happen.
    pub async fn begin(&self, store: &SharedStore) {
        for hook in self.hooks.current().all() {
            if let Err(error) = store.publish(&hook.name).await {
                tracing::warn!(webhook = %hook.name, %error, "it hears of what happens a little later");
            }
        }
    }

    /// Tells what happens, until the gate stops.
    pub async fn run(self: Arc<Self>, store: SharedStore, stopping: CancellationToken) {
        let mut latest = store.latest();
        let mut failing = false;
        while !stopping.is_cancelled() {
            let told = self.tell(&store).await;
            match &told {
                Ok(_) if failing => tracing::info!("webhooks are told again"),
                Err(error) if !failing => tracing::error!(%error, "webhooks are told later"),
                _ => {}
            }
            failing = told.is_err();
            if !matches!(told, Ok(true)) {
                // Until something happens, or something is due; an error means that neither has.
                let wait = timeout(LOOK, latest.changed());
                if stopping.run_until_cancelled(wait).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Tells what is due; whether there may be more.
    async fn tell(self: &Arc<Self>, store: &SharedStore) -> Result<bool, StoreError> {
        let hooks = self.hooks.current();
        let mut more = false;
        for hook in hooks.all() {
            more |= store.publish(&hook.name).await?;
        }
        let due = store.take(AT_ONCE, LEASE).await?;
        more |= due.len() == AT_ONCE as usize;
        // One after the other what is about one request: a receiver may keep one thing for all of it.
        let mut about: HashMap<_, Vec<Delivery>> = HashMap::new();
        for delivery in due {
            about.entry((delivery.hook.clone(), delivery.request)).or_default().push(delivery);
        }
        let mut sending = JoinSet::new();
        for mut deliveries in about.into_values() {
            deliveries.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
            let (telling, hooks, store) = (Arc::clone(self), Arc::clone(&hooks), store.clone());
            sending.spawn(async move {
                let begun = Instant::now();
                for delivery in deliveries {
                    // The rest is due again by itself.
                    if begun.elapsed() < BEGIN {
                        telling.deliver(&hooks, &store, delivery).await?;
                    }
                }
                Ok::<_, StoreError>(())
            });
        }
        while let Some(sent) = sending.join_next().await {
            if let Ok(Err(error)) = sent {
                tracing::warn!(%error, "what became of a message is not written down; it is sent again");
            }
        }
        Ok(more)
    }

    async fn deliver(
        &self,
        hooks: &Hooks,
        store: &SharedStore,
        delivery: Delivery,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let id = delivery.id.clone();
        let Some(hook) = hooks.named(&delivery.hook) else {
            let error = "there is no webhook of this name any more".to_owned();
            return store.sent(&id, Sent::Dead(error)).await;
        };
        let request = store.request(delivery.request).await?;
        let Some(message) = Message::of(hooks, hook, &delivery, request) else {
            // Nobody wants it, or it has been overtaken.
            return store.sent(&id, Sent::Arrived).await;
        };
        let sent = templates::send(self.client(hook), hook, &message).await;
        let word = match &sent {
            Ok(()) => "arrived",
            Err(NotSent::Never(_)) => "dead",
            Err(_) if wait(delivery.attempts).is_none() => "dead",
            Err(_) => "again",
        };
        self.counts.told(hook.template.name(), word);
        let sent = match sent {
            Ok(()) => {
                tracing::info!(webhook = %hook.name, message = %id, taken = ?begun.elapsed(), "told");
                Sent::Arrived
            }
            Err(not) => {
                tracing::warn!(webhook = %hook.name, message = %id, error = %not, word, "not told");
                match (not, wait(delivery.attempts)) {
                    (NotSent::Never(error), _)
                    | (NotSent::Again(error) | NotSent::After(_, error), None) => Sent::Dead(error),
                    (NotSent::Again(error), Some(wait)) => again(store, wait, error),
                    (NotSent::After(own, error), Some(wait)) => {
                        again(store, own.min(LONGEST_WAIT).max(wait.min(5)), error)
                    }
                }
            }
        };
        store.sent(&id, sent).await
    }

    fn client(&self, hook: &Hook) -> &reqwest::Client {
        if hook.private { &self.inward } else { &self.open }
    }
}

/// How long to wait after so many attempts, in seconds.
fn wait(attempts: u32) -> Option<u32> {
    AGAIN.get(usize::try_from(attempts.saturating_sub(1)).ok()?).copied()
}

/// Later, and not when everybody else comes again.
fn again(store: &SharedStore, seconds: u32, error: String) -> Sent {
    let spread = i64::from(std::process::id() % 100);
    let after = SignedDuration::from_millis(i64::from(seconds) * (1000 + spread));
    let due = store.now().saturating_add(after).unwrap_or(Timestamp::MAX);
    Sent::Again { due, error }
}

/// What an answer means.
pub(crate) async fn taken(
    answer: Result<reqwest::Response, reqwest::Error>,
) -> Result<Vec<u8>, NotSent> {
    // Without the address: of some receivers it is all that one needs to write there.
    let failed = |error: reqwest::Error| NotSent::Again(why(&error.without_url()));
    let mut answer = answer.map_err(failed)?;
    let status = answer.status();
    let after =
        answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        let room = LARGEST.saturating_sub(body.len());
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if room == 0 {
            break;
        }
    }
    if status.is_success() {
        return Ok(body);
    }
    let said: String =
        String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(200).collect();
    let error = format!("{status} {said}").trim().to_owned();
    Err(match (status, after) {
        (StatusCode::GONE, _) => NotSent::Never(error),
        (_, Some(after)) => NotSent::After(after, error),
        _ => NotSent::Again(error),
    })
}

/// What lies at the bottom of an error.
fn why(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_again_for_more_than_a_day_and_then_is_a_dead_letter() {
        assert_eq!(wait(1), Some(5));
        assert_eq!(wait(11), Some(12 * 3600));
        assert_eq!(wait(12), None);
        assert!(AGAIN.iter().sum::<u32>() > 24 * 3600);
    }
}
