//! The life of a request, as a state machine.
//!
//! ```text
//!            ┌────────── deny ───────────────> denied
//! pending ───┼────────── approve x needed ───> approved ── spent by the waiting call or a retry ──> spent
//!            ├── nobody decides in time ─────> expired         └── not spent in time ─────────────> lapsed
//!            └── the requester takes it back > withdrawn
//! ```
//!
//! Pure: owns the rules, and nothing else does. Every store loads a [`Life`], asks [`Life::step`],
//! and writes what comes back in one transaction. Must never approve by itself, and never let one
//! approval be spent twice.

use hitl_api::{State, Vote};
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
    /// How many approvals it needs.
    pub needed: u32,
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
        /// How long an approval may be used.
        grant: SignedDuration,
    },
    /// The same call comes again and wants to use the approval.
    Spend,
    /// The call that was to be released had gone: what it spent is a grant again.
    Restore {
        /// How long it may be used from now on.
        grant: SignedDuration,
    },
    /// The requester takes it back.
    Withdraw,
    /// Time passes.
    Age,
}

/// What a step changed; one row of the audit each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A reviewer said something and it is not enough yet.
    Voted,
    /// Approved.
    Approved,
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
    /// Taken back.
    Withdrawn,
}

/// Why nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
}

impl Life {
    /// A new request.
    pub fn new(now: Timestamp, lifetime: SignedDuration, needed: u32) -> Self {
        Self {
            state: State::Pending,
            expires_at: later(now, lifetime),
            grant_expires_at: None,
            settled_at: None,
            votes: Vec::new(),
            needed: needed.max(1),
        }
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
            (Happening::Age, _) => Ok(()),
            (Happening::Vote { vote, waiter, grant }, State::Pending) => {
                if self.votes.iter().any(|earlier| earlier.reviewer == vote.reviewer) {
                    return Err(Refused::Voted);
                }
                self.votes.push(vote.clone());
                if !vote.approved {
                    self.settle(State::Denied, now);
                    changes.push(Change::Denied);
                } else if self.approvals() < self.needed {
                    changes.push(Change::Voted);
                } else {
                    self.settle(State::Approved, now);
                    self.grant_expires_at = Some(later(now, *grant));
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
            (Happening::Spend, State::Approved) => {
                self.state = State::Spent;
                changes.push(Change::Spent);
                Ok(())
            }
            (Happening::Restore { grant }, State::Spent) => {
                self.state = State::Approved;
                self.grant_expires_at = Some(later(now, *grant));
                changes.push(Change::Restored);
                Ok(())
            }
            (Happening::Spend | Happening::Restore { .. }, state) => {
                Err(Refused::NotApproved(state))
            }
            (Happening::Vote { .. } | Happening::Withdraw, state) => Err(Refused::Settled(state)),
        }
    }

    fn settle(&mut self, state: State, at: Timestamp) {
        self.state = state;
        self.settled_at = Some(at);
    }

    fn approvals(&self) -> u32 {
        let approvals = self.votes.iter().filter(|vote| vote.approved).count();
        u32::try_from(approvals).unwrap_or(u32::MAX)
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: SignedDuration = SignedDuration::from_secs(100);
    const GRANT: SignedDuration = SignedDuration::from_secs(20);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn vote(reviewer: &str, approved: bool, waiter: bool, now: i64) -> Happening {
        let vote = Vote { reviewer: reviewer.into(), approved, reason: String::new(), at: at(now) };
        Happening::Vote { vote, waiter, grant: GRANT }
    }

    fn after(life: &Life, happening: &Happening, now: i64) -> (Life, Vec<Change>) {
        let (life, changes, result) = life.step(happening, at(now));
        result.unwrap();
        (life, changes)
    }

    #[test]
    fn an_approval_with_a_waiter_is_spent_at_once_and_without_one_is_a_grant() {
        let life = Life::new(at(0), TTL, 1);
        let (spent, changes) = after(&life, &vote("dana", true, true, 5), 5);
        assert_eq!((spent.state, changes), (State::Spent, vec![Change::Approved, Change::Spent]));
        let (grant, changes) = after(&life, &vote("dana", true, false, 5), 5);
        assert_eq!((grant.state, changes), (State::Approved, vec![Change::Approved]));
        assert_eq!(grant.grant_expires_at, Some(at(25)));
        assert_eq!(after(&grant, &Happening::Spend, 24).0.state, State::Spent);
    }

    #[test]
    fn time_comes_first_even_when_nobody_looked() {
        let life = Life::new(at(0), TTL, 1);
        let (late, changes, result) = life.step(&vote("dana", true, true, 100), at(100));
        assert_eq!(result, Err(Refused::Settled(State::Expired)));
        assert_eq!((late.state, changes), (State::Expired, vec![Change::Expired]));
        let (grant, _) = after(&life, &vote("dana", true, false, 5), 5);
        let (late, _, result) = grant.step(&Happening::Spend, at(25));
        assert_eq!((late.state, result), (State::Lapsed, Err(Refused::NotApproved(State::Lapsed))));
    }

    #[test]
    fn two_approvals_are_two_people_and_one_rejection_is_enough() {
        let life = Life::new(at(0), TTL, 2);
        let (life, changes) = after(&life, &vote("dana", true, true, 1), 1);
        assert_eq!((life.state, changes), (State::Pending, vec![Change::Voted]));
        let (_, _, result) = life.step(&vote("dana", true, true, 2), at(2));
        assert_eq!(result, Err(Refused::Voted));
        assert_eq!(after(&life, &vote("lee", true, true, 3), 3).0.state, State::Spent);
        assert_eq!(after(&life, &vote("lee", false, true, 3), 3).0.state, State::Denied);
    }

    #[test]
    fn a_call_that_left_before_its_release_leaves_a_grant() {
        let life = Life::new(at(0), TTL, 1);
        let (spent, _) = after(&life, &vote("dana", true, true, 5), 5);
        let (grant, changes) = after(&spent, &Happening::Restore { grant: GRANT }, 6);
        assert_eq!((grant.state, changes), (State::Approved, vec![Change::Restored]));
        assert_eq!(grant.grant_expires_at, Some(at(26)));
    }

    fn happenings() -> impl Strategy<Value = Vec<(Happening, i64)>> {
        let one = prop_oneof![
            (prop::sample::select(vec!["dana", "lee"]), any::<bool>(), any::<bool>())
                .prop_map(|(who, yes, waiter)| vote(who, yes, waiter, 0)),
            Just(Happening::Spend),
            Just(Happening::Withdraw),
            Just(Happening::Age),
        ];
        prop::collection::vec((one, 0_i64..40), 0..12)
    }

    proptest! {
        #[test]
        fn whatever_happens_one_approval_is_spent_once_and_a_settled_request_stays_so(
            happenings in happenings(), needed in 1_u32..3,
        ) {
            let mut life = Life::new(at(0), TTL, needed);
            let (mut now, mut approved, mut spent) = (0, 0, 0);
            for (happening, passed) in happenings {
                now += passed;
                let before = life.clone();
                let (next, changes, result) = life.step(&happening, at(now));
                approved += changes.iter().filter(|change| **change == Change::Approved).count();
                spent += changes.iter().filter(|change| **change == Change::Spent).count();
                if result.is_err() {
                    prop_assert!(!changes.contains(&Change::Spent));
                }
                let final_states = [State::Spent, State::Denied, State::Expired, State::Lapsed, State::Withdrawn];
                if final_states.contains(&before.state) {
                    prop_assert_eq!(&next, &before);
                }
                if next.state == State::Spent {
                    prop_assert!(next.approvals() >= needed);
                }
                life = next;
            }
            prop_assert!(spent <= approved && approved <= 1);
        }
    }
}
