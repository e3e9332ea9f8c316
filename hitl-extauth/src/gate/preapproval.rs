//! What reviewers approve before the calls come.
//!
//! Owns which pre-approvals the gate knows of, who may make one, and for which calls. What is known here may
//! be a moment old: whether one may still be used is for the store to say, when the call is written down.
//! Must never let somebody make one for calls that they could not approve one by one.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use hitl_api::{
    Assurance, Preapproval, PreapprovalId, Preapprove, Request, RequestId, State, Vote,
};
use serde_json::Value;
use tokio::{sync::watch, task};

use super::{Gate, ruling::LARGE, unfinished};
use crate::{
    approval::Refused,
    identity,
    people::{People, Reviewer},
    policy,
    rules::{Facts, Lone},
    store::{NewCall, StoreError, preapprovals::Ender},
};

/// Most pre-approvals that are in force at a time.
const MOST: usize = 200;

/// Longest reason, in bytes.
const LONGEST_REASON: usize = 2000;

/// Shortest time for which one is made, in seconds.
const SHORTEST: u64 = 60;

/// How long what others have made may be news to this process.
const AGAIN: Duration = Duration::from_millis(250);

/// Why a pre-approval is not made.
#[derive(Debug, thiserror::Error)]
pub enum PreapproveError {
    /// There is no such request.
    #[error("there is no request with this id")]
    Unknown,
    /// It is the reviewer's own request.
    #[error("this is your own request; somebody else must approve the like of it")]
    Own,
    /// Somebody has said no to it.
    #[error("this request was {0}; look at a newer one before you approve the like of it")]
    Over(State),
    /// It would be bound to something else by now.
    #[error(
        "an approval of such a call is bound to something else by now than when this request came (the \
         rules ask about other headers, or its arguments were not kept); look at a newer one"
    )]
    Changed,
    /// There is nobody for whom it could be.
    #[error(
        "of whoever asks only the network address is known, which others may have by the time; \
         approve such calls one by one"
    )]
    Nameless,
    /// Somebody must look at each call.
    #[error("the rules ask that somebody looks at each call of this kind ({0})")]
    EveryTime(String),
    /// Nobody is asked anyway.
    #[error("the rules let such a call pass without anybody")]
    Allowed,
    /// The rules say no, or others must decide.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It says something that cannot be.
    #[error("{0}")]
    Wrong(String),
    /// Its id is another's.
    #[error("this id is another pre-approval's; send one of its own, or none")]
    Taken,
    /// There are too many.
    #[error("there are {MOST} pre-approvals in force; end one first")]
    Full,
    /// None are made here.
    #[error("this gate takes no pre-approvals (--preapproval-uses is 0)")]
    Off,
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pre-approval, ready to be asked.
#[derive(Debug)]
pub(super) struct Ready {
    preapproval: Preapproval,
    /// Nothing where it was made by a version that knows more than this one.
    condition: Option<Lone>,
}

impl Ready {
    fn of(preapproval: Preapproval) -> Self {
        let condition = Lone::parse(&preapproval.condition);
        if let Err(error) = &condition {
            tracing::warn!(preapproval = %preapproval.id, error, "a pre-approval is not used here");
        }
        Self { preapproval, condition: condition.ok() }
    }

    pub(super) fn id(&self) -> PreapprovalId {
        self.preapproval.id
    }

    /// Whether its condition holds. One that cannot be evaluated does not.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.holds(facts) == Ok(true))
    }
}

/// The pre-approvals that the gate knows of.
#[derive(Debug, Default)]
pub(super) struct Known {
    all: Mutex<Vec<Arc<Ready>>>,
    /// One reads at a time, so that what was read last is what is known.
    reading: tokio::sync::Mutex<()>,
    /// Who may decide.
    people: OnceLock<Arc<People>>,
}

impl Known {
    fn all(&self) -> Vec<Arc<Ready>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that are about a call, whatever its arguments.
    pub(super) fn about(&self, call: &NewCall) -> Vec<Arc<Ready>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = call.asked();
        let about = |ready: &&Arc<Ready>| {
            ready.preapproval.is_about(&asked) && self.counts(&ready.preapproval.vote)
        };
        all.iter().filter(about).cloned().collect()
    }

    /// Whether its maker is somebody still whose word counts, as far as is known here.
    fn counts(&self, vote: &Vote) -> bool {
        self.people.get().is_none_or(|people| people.counts(vote))
    }
}

impl Gate {
    /// Approves calls like one that a reviewer sees, before they come.
    ///
    /// # Errors
    /// See [`PreapproveError`].
    pub async fn preapprove(
        &self,
        id: RequestId,
        reviewer: &Reviewer,
        wanted: Preapprove,
    ) -> Result<Preapproval, PreapproveError> {
        let lasts = self.bounded(&wanted)?;
        let request = self.store.request(id).await?.ok_or(PreapproveError::Unknown)?;
        if reviewer.is(&request.requester) {
            return Err(PreapproveError::Own);
        }
        if request.requester.assurance == Assurance::Address {
            return Err(PreapproveError::Nameless);
        }
        if matches!(request.state, State::Denied | State::Withdrawn) {
            return Err(PreapproveError::Over(request.state));
        }
        let (identity, context) = self.bound_to(&request).ok_or(PreapproveError::Changed)?;
        let ruling = self.ruling_of(&request).await?.unwrap_or_default();
        if let Some(reason) = ruling.denied {
            return Err(Refused::Forbidden(reason).into());
        }
        if ruling.every_time {
            let rules: Vec<_> = ruling.rules.iter().map(|rule| rule.name.as_str()).collect();
            return Err(PreapproveError::EveryTime(rules.join(", ")));
        }
        if ruling.allows() {
            return Err(PreapproveError::Allowed);
        }
        if !ruling.may_decide(&reviewer.groups) {
            let missing: Vec<_> = ruling.quorums.iter().map(ToString::to_string).collect();
            return Err(Refused::NotAmong(missing.join(" and ")).into());
        }
        let now = self.store.now();
        let (condition, asked) = (wanted.condition.clone(), request.clone());
        let hold = move || {
            let condition = Lone::parse(&condition)?;
            condition.holds(&Facts::of(&asked, now))
        };
        let wrong = |text: String| PreapproveError::Wrong(format!("the condition: {text}"));
        let holds = self.evaluate(request.body.len() > LARGE, hold).await?;
        if !holds.map_err(wrong)? {
            return Err(wrong("it does not hold for this very call".to_owned()));
        }
        self.refresh().await?;
        if self.preapproved.all().len() >= MOST {
            return Err(PreapproveError::Full);
        }
        let vote = reviewer.says(true, wanted.reason.trim().to_owned(), now);
        let preapproval = Preapproval {
            id: wanted.id.unwrap_or_else(|| PreapprovalId::of(now)),
            request: id,
            identity,
            requester: request.requester,
            route: request.route,
            server: request.server,
            tool: request.tool_name,
            context,
            condition: wanted.condition,
            uses: wanted.uses,
            used: 0,
            vote,
            expires_at: now.saturating_add(lasts).unwrap_or(now),
            ended_at: None,
            ended_by: None,
        };
        let made = self.store.preapprove(preapproval, now).await?;
        let made = made.ok_or(PreapproveError::Taken)?;
        // It is made, whether or not that can be read now.
        self.refreshed().await;
        Ok(made)
    }

    /// What an approval of a request is bound to beside what it says: who asks, and what else is looked at.
    /// Nothing where that is not what it was when it came.
    fn bound_to(&self, request: &Request) -> Option<(String, Option<Value>)> {
        let Request { requester, route, server, tool_name, tool_args, .. } = request;
        let address = request.address.as_deref();
        let context = self.context(requester, address, &request.headers, &request.path);
        let same = |identity: &String| {
            let bound = context.as_ref();
            let digest = policy::digest(identity, route, server, tool_name, tool_args, bound);
            digest.is_ok_and(|digest| digest == request.digest)
        };
        let identity = identity::keys(requester, &self.settings.identity).find(same)?;
        Some((identity, context))
    }

    /// Whether what is wanted is within bounds, and how long it lasts.
    fn bounded(&self, wanted: &Preapprove) -> Result<Duration, PreapproveError> {
        let most = self.settings.beforehand;
        if most.uses == 0 {
            return Err(PreapproveError::Off);
        }
        let wrong = |text: String| Err(PreapproveError::Wrong(text));
        if !(1..=most.uses).contains(&wanted.uses) {
            return wrong(format!("uses is {}; it can be 1 to {}", wanted.uses, most.uses));
        }
        let longest = most.lasts.as_secs();
        if !(SHORTEST.min(longest)..=longest).contains(&wanted.seconds) {
            let text = format!("seconds is {}; it can be {SHORTEST} to {longest}", wanted.seconds);
            return wrong(text);
        }
        let reason = wanted.reason.trim();
        if reason.is_empty() || reason.len() > LONGEST_REASON || reason.contains('\0') {
            let text = "a pre-approval needs a reason, which is kept with every call: \
                        1 to 2000 bytes without NUL";
            return wrong(text.to_owned());
        }
        if wanted.condition.contains('\0') {
            return wrong("a condition has no NUL character in it".to_owned());
        }
        Ok(Duration::from_secs(wanted.seconds))
    }

    /// Ends a pre-approval; nothing where there is none.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_preapproval(
        &self,
        id: PreapprovalId,
        by: Ender,
    ) -> Result<Option<Preapproval>, StoreError> {
        let ended = self.store.end_preapproval(id, by, self.store.now()).await?;
        // It has ended, whether or not that can be read now.
        self.refreshed().await;
        Ok(ended)
    }

    async fn refreshed(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "pre-approvals are read again later");
        }
    }

    /// Who is asked whether the maker of a pre-approval is a reviewer still.
    pub fn ask(&self, people: Arc<People>) {
        // The first counts; there is one.
        let _ = self.preapproved.people.set(people);
    }

    /// Reads anew which pre-approvals there are.
    async fn refresh(&self) -> Result<(), StoreError> {
        let _alone = self.preapproved.reading.lock().await;
        if self.settings.beforehand.uses == 0 {
            // Switched off: what was made before counts no more.
            return Ok(());
        }
        let known = self.preapproved.all();
        let found = self.store.preapprovals().await?;
        let read = move || {
            let ready = |preapproval: Preapproval| {
                let same = known.iter().find(|ready| ready.id() == preapproval.id);
                same.map_or_else(|| Arc::new(Ready::of(preapproval)), Arc::clone)
            };
            found.into_iter().map(ready).collect()
        };
        let all: Vec<_> = task::spawn_blocking(read).await.map_err(|error| unfinished(&error))?;
        *self.preapproved.all.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    /// Keeps up with the pre-approvals that others make and end, until the store has ended.
    pub fn keep_preapprovals(&self) -> impl Future<Output = ()> + Send + 'static {
        let (gate, latest) = (self.clone(), self.store.latest());
        async move { gate.keep_up(latest).await }
    }

    async fn keep_up(&self, mut latest: watch::Receiver<u64>) {
        loop {
            latest.borrow_and_update();
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "pre-approvals are read again later");
                if latest.has_changed().is_err() {
                    return;
                }
            } else if latest.changed().await.is_err() {
                return;
            }
            // However much happens, a few looks a second.
            tokio::time::sleep(AGAIN).await;
        }
    }
}
