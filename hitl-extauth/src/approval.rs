//! The life of a request, as a state machine.
//!
//! ```text
//!            ┌────────── deny ───────────────> denied
//! pending ───┼────────── approve x needed ───> approved ── spent by the waiting call or a retry ──> spent
//!            ├── nobody decides in time ─────> expired         └── not spent in time ─────────────> lapsed
//!            └── the requester takes it back > withdrawn
//! ```
//!
//! A call that the rules deny begins as denied, one that they allow as spent. Rules may change while
//! something waits: what counts is what they say when somebody decides, and again when an approval is
//! used; one that is no longer enough lapses. What reviewers have approved beforehand counts like their
//! votes when the call arrives, and only where it makes the approval whole.
//!
//! Pure: owns the rules, and nothing else does. Every store loads a [`Life`], asks [`Life::step`],
//! and writes what comes back in one transaction. Must never approve by itself, and never let one
//! approval be spent twice.

use hitl_api::{Ruling, State, Vote};
use jiff::{SignedDuration, Timestamp};

/// What of a request its rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// When it expires if nobody decides.
    pub expires_at: Timestamp,
    /// Until when an approval may be used.
    pub grant_expires_at: Option<Timestamp>,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
    /// What reviewers have said.
    pub votes: Vec<Vote>,
    /// What the rules ask for.
    pub ruling: Ruling,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A reviewer decides. `waiter` says that the call itself is waiting and will be released by
    /// this very decision; the approval is then spent at once.
    Vote {
        /// Who, and what they said.
        vote: Vote,
        /// Whether the call is waiting.
        waiter: bool,
        /// How long an approval may be used, where the rules do not say.
        grant: SignedDuration,
        /// What the rules ask for by now; what they asked for before, unless given.
        ruling: Option<Box<Ruling>>,
    },
    /// The same call comes again.
    Arrive {
        /// What the rules say.
        ruling: Box<Ruling>,
        /// What reviewers have said of it beforehand.
        given: Vec<Vote>,
    },
    /// A call that waits wants to use the approval.
    Spend {
        /// What the rules ask for by now; what they asked for before, unless given.
        ruling: Option<Box<Ruling>>,
    },
    /// The call that was to be released had gone: what it spent is a grant again, unless it was approved
    /// before it came.
    Restore {
        /// How long it may be used from now on.
        grant: SignedDuration,
    },
    /// It comes back from a backup: what was approved then may have been used since.
    Recall,
    /// The requester takes it back.
    Withdraw,
    /// Time passes.
    Age,
}

impl Happening {
    /// Whether a call may be released by this, now or later.
    pub fn may_release(&self) -> bool {
        match self {
            Self::Vote { vote, .. } => vote.approved,
            Self::Arrive { .. } | Self::Spend { .. } => true,
            Self::Restore { .. } | Self::Recall | Self::Withdraw | Self::Age => false,
        }
    }
}

/// What a step changed; one row of the audit each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A reviewer said something and it is not enough yet.
    Voted,
    /// A reviewer had approved it beforehand: the vote in this place.
    Preapproved(usize),
    /// Approved.
    Approved,
    /// The rules let it pass.
    Allowed,
    /// The rules deny it.
    Forbidden,
    /// The approval is not enough any more for what the rules ask.
    Revoked,
    /// Used.
    Spent,
    /// Given back, because the call had gone before it was released.
    Restored,
    /// Rejected.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Not used in time.
    Lapsed,
    /// Not to be used any more: nobody knows whether it was.
    Recalled,
    /// Not to be decided any more by what was said before: nobody knows whether it was decided since.
    Outdated,
    /// Taken back.
    Withdrawn,
}

/// Why nothing happens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is settled already.
    #[error("the request is settled already: {0}")]
    Settled(State),
    /// This reviewer has spoken already.
    #[error("this reviewer has voted on it already")]
    Voted,
    /// There is no approval to use.
    #[error("there is no approval to use: the request is {0}")]
    NotApproved(State),
    /// It is for a newer identical call.
    #[error("a newer identical call waits for the approval")]
    Superseded,
    /// The rules deny the call, and nobody can approve it.
    #[error("the rules deny this call, and nobody can approve it: {0}")]
    Forbidden(String),
    /// Others must decide.
    #[error("this needs {0}, and you are in none of these groups")]
    NotAmong(String),
    /// An approval needs a reason here.
    #[error("the rules ask for a reason with every approval of this call")]
    ReasonNeeded,
    /// What is stored of it cannot be read.
    #[error("the stored request cannot be read and can only be denied: {0}")]
    Unreadable(String),
}

impl Life {
    /// A new request, and what the rules have made of it at once, or what reviewers have said beforehand.
    pub fn new(
        now: Timestamp,
        lifetime: SignedDuration,
        ruling: Ruling,
        given: &[Vote],
    ) -> (Self, Vec<Change>) {
        let lifetime = at_most(lifetime, ruling.expires_after);
        let mut life = Self {
            state: State::Pending,
            expires_at: later(now, lifetime),
            grant_expires_at: None,
            settled_at: None,
            votes: Vec::new(),
            ruling,
        };
        let mut changes = Vec::from_iter(life.ruled(now));
        life.take_in(given, now, &mut changes);
        (life, changes)
    }

    /// What the rules settle by themselves.
    fn ruled(&mut self, now: Timestamp) -> Option<Change> {
        if self.ruling.denied.is_some() {
            self.settle(State::Denied, now);
            return Some(Change::Forbidden);
        }
        if self.ruling.allows() {
            self.settle(State::Spent, now);
            return Some(Change::Allowed);
        }
        None
    }

    /// What comes of something happening now: the life after it, and the changes in order.
    ///
    /// Time comes first: what has run out by `now` has run out, whether or not anybody looked.
    ///
    /// # Errors
    /// [`Refused`], with the life as time alone has made it and the changes that made it so.
    pub fn step(
        &self,
        happening: &Happening,
        now: Timestamp,
    ) -> (Self, Vec<Change>, Result<(), Refused>) {
        let mut life = self.clone();
        let mut changes = Vec::new();
        if let Some(change) = life.age(now) {
            changes.push(change);
        }
        let result = life.happen(happening, now, &mut changes);
        (life, changes, result)
    }

    fn age(&mut self, now: Timestamp) -> Option<Change> {
        match self.state {
            State::Pending if now >= self.expires_at => {
                self.settle(State::Expired, self.expires_at);
                Some(Change::Expired)
            }
            State::Approved if self.grant_expires_at.is_some_and(|until| now >= until) => {
                self.state = State::Lapsed;
                Some(Change::Lapsed)
            }
            _ => None,
        }
    }

    fn happen(
        &mut self,
        happening: &Happening,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refused> {
        match (happening, self.state) {
            (Happening::Vote { vote, waiter, grant, ruling }, State::Pending) => {
                if let Some(ruling) = ruling {
                    self.ruling = Ruling::clone(ruling);
                }
                if let Some(reason) = self.ruling.denied.clone() {
                    changes.extend(self.ruled(now));
                    return Err(Refused::Forbidden(reason));
                }
                self.may_vote(vote)?;
                self.votes.push(vote.clone());
                if !vote.approved {
                    self.settle(State::Denied, now);
                    changes.push(Change::Denied);
                } else if !self.ruling.is_met(&self.votes) {
                    changes.push(Change::Voted);
                } else {
                    self.settle(State::Approved, now);
                    let grant = at_most(*grant, self.ruling.grant_for);
                    self.grant_expires_at = Some(later(now, grant));
                    changes.push(Change::Approved);
                    if *waiter {
                        self.state = State::Spent;
                        changes.push(Change::Spent);
                    }
                }
                Ok(())
            }
            (Happening::Withdraw, State::Pending) => {
                self.settle(State::Withdrawn, now);
                changes.push(Change::Withdrawn);
                Ok(())
            }
            (Happening::Arrive { ruling, given }, State::Pending) => {
                self.ruling = Ruling::clone(ruling);
                changes.extend(self.ruled(now));
                // Rules that ask for less by now: what reviewers have said is enough.
                if self.state == State::Pending
                    && !self.votes.is_empty()
                    && self.ruling.is_met(&self.votes)
                {
                    self.settle(State::Spent, now);
                    changes.extend([Change::Approved, Change::Spent]);
                }
                self.take_in(given, now, changes);
                Ok(())
            }
            (Happening::Arrive { ruling, .. }, State::Approved) => {
                self.ruling = Ruling::clone(ruling);
                self.spend(changes)
            }
            (Happening::Spend { ruling }, State::Approved) => {
                if let Some(ruling) = ruling {
                    self.ruling = Ruling::clone(ruling);
                }
                self.spend(changes)
            }
            // Nobody has looked at this very call: it asks again, as its retry does.
            (Happening::Restore { .. }, State::Spent) if self.votes.iter().any(is_given) => {
                self.state = State::Lapsed;
                changes.push(Change::Lapsed);
                Ok(())
            }
            (Happening::Restore { grant }, State::Spent) => {
                self.state = State::Approved;
                // Whoever hangs up again and again keeps an approval no longer than it was given.
                let anew = later(now, at_most(*grant, self.ruling.grant_for));
                self.grant_expires_at = Some(self.grant_expires_at.map_or(anew, |at| at.min(anew)));
                changes.push(Change::Restored);
                Ok(())
            }
            (Happening::Recall, State::Approved) => {
                self.state = State::Lapsed;
                changes.push(Change::Recalled);
                Ok(())
            }
            // Rules that ask for less by now would let its call pass, with nobody having looked since.
            (Happening::Recall, State::Pending) if self.votes.iter().any(|vote| vote.approved) => {
                self.settle(State::Expired, now);
                changes.push(Change::Outdated);
                Ok(())
            }
            (Happening::Spend { .. } | Happening::Restore { .. }, state) => {
                Err(Refused::NotApproved(state))
            }
            (Happening::Age | Happening::Arrive { .. } | Happening::Recall, _) => Ok(()),
            (Happening::Vote { .. } | Happening::Withdraw, state) => Err(Refused::Settled(state)),
        }
    }

    fn settle(&mut self, state: State, at: Timestamp) {
        self.state = state;
        self.settled_at = Some(at);
    }

    /// Uses an approval, if it is still enough.
    fn spend(&mut self, changes: &mut Vec<Change>) -> Result<(), Refused> {
        if !self.ruling.is_met(&self.votes) {
            self.state = State::Lapsed;
            changes.push(Change::Revoked);
            return Err(Refused::NotApproved(State::Lapsed));
        }
        self.state = State::Spent;
        changes.push(Change::Spent);
        Ok(())
    }

    /// Counts what reviewers have said beforehand, if with it nothing is missing: of each as much as that
    /// takes, and nothing at all where somebody must look every time.
    fn take_in(&mut self, given: &[Vote], now: Timestamp, changes: &mut Vec<Change>) {
        if self.state != State::Pending || self.ruling.every_time {
            return;
        }
        let missing = |votes: &[Vote]| -> u32 {
            self.ruling.missing(votes).iter().map(|quorum| quorum.approvals).sum()
        };
        let (before, mut votes) = (self.votes.len(), self.votes.clone());
        // Of what one person has said, that first which counts for most.
        let mut given: Vec<_> = given.iter().filter(|vote| vote.approved).collect();
        given.sort_by_key(|vote| std::cmp::Reverse(vote.groups.len()));
        for vote in given {
            let left = missing(&votes);
            if left == 0 || votes.iter().any(|earlier| earlier.is_of_same(vote)) {
                continue;
            }
            votes.push(vote.clone());
            if missing(&votes) == left {
                votes.pop();
            }
        }
        // No more of it than that takes.
        for at in (before..votes.len()).rev() {
            let mut without = votes.clone();
            without.remove(at);
            if self.ruling.is_met(&without) {
                votes = without;
            }
        }
        if votes.len() == before || !self.ruling.is_met(&votes) {
            return;
        }
        changes.extend((before..votes.len()).map(Change::Preapproved));
        changes.extend([Change::Approved, Change::Spent]);
        self.votes = votes;
        self.settle(State::Spent, now);
    }

    /// Whether somebody may say something about it, this time.
    fn may_vote(&self, vote: &Vote) -> Result<(), Refused> {
        if self.votes.iter().any(|earlier| earlier.is_of_same(vote)) {
            return Err(Refused::Voted);
        }
        if !self.ruling.may_decide(&vote.groups) {
            let missing: Vec<_> =
                self.ruling.missing(&self.votes).iter().map(ToString::to_string).collect();
            return Err(Refused::NotAmong(missing.join(" and ")));
        }
        // Saying no is never made harder.
        if vote.approved && self.ruling.reason_required && vote.reason.trim().is_empty() {
            return Err(Refused::ReasonNeeded);
        }
        Ok(())
    }
}

/// Whether somebody has said it before the call came.
fn is_given(vote: &Vote) -> bool {
    vote.preapproval.is_some()
}

/// The gate's own time, or less where the rules say so.
fn at_most(own: SignedDuration, ruled: Option<u32>) -> SignedDuration {
    ruled.map_or(own, |ruled| own.min(SignedDuration::from_secs(ruled.into())))
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
