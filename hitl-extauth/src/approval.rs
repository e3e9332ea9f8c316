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
//! used; one that is no longer enough lapses.
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
    /// The same call comes again, and the rules say this.
    Arrive(Box<Ruling>),
    /// A call that waits wants to use the approval.
    Spend {
        /// What the rules ask for by now; what they asked for before, unless given.
        ruling: Option<Box<Ruling>>,
    },
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
}

impl Life {
    /// A new request, and what the rules have made of it at once.
    pub fn new(now: Timestamp, lifetime: SignedDuration, ruling: Ruling) -> (Self, Option<Change>) {
        let lifetime = ruling.expires_after.map_or(lifetime, seconds);
        let mut life = Self {
            state: State::Pending,
            expires_at: later(now, lifetime),
            grant_expires_at: None,
            settled_at: None,
            votes: Vec::new(),
            ruling,
        };
        let change = life.ruled(now);
        (life, change)
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
                    let grant = self.ruling.grant_for.map_or(*grant, seconds);
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
            (Happening::Arrive(ruling), State::Pending) => {
                self.ruling = Ruling::clone(ruling);
                changes.extend(self.ruled(now));
                Ok(())
            }
            (Happening::Arrive(ruling), State::Approved) => {
                self.ruling = Ruling::clone(ruling);
                self.spend(changes)
            }
            (Happening::Spend { ruling }, State::Approved) => {
                if let Some(ruling) = ruling {
                    self.ruling = Ruling::clone(ruling);
                }
                self.spend(changes)
            }
            (Happening::Restore { grant }, State::Spent) => {
                self.state = State::Approved;
                self.grant_expires_at = Some(later(now, *grant));
                changes.push(Change::Restored);
                Ok(())
            }
            (Happening::Spend { .. } | Happening::Restore { .. }, state) => {
                Err(Refused::NotApproved(state))
            }
            (Happening::Age | Happening::Arrive(_), _) => Ok(()),
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

    /// Whether somebody may say something about it, this time.
    fn may_vote(&self, vote: &Vote) -> Result<(), Refused> {
        if self.votes.iter().any(|earlier| same(&earlier.reviewer, &vote.reviewer)) {
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

/// Whether two names are one person's: however they are capitalised.
fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use hitl_api::Quorum;
    use proptest::prelude::*;

    use super::*;

    const TTL: SignedDuration = SignedDuration::from_secs(100);
    const GRANT: SignedDuration = SignedDuration::from_secs(20);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn vote(reviewer: &str, approved: bool, waiter: bool, now: i64) -> Happening {
        let vote = Vote {
            reviewer: reviewer.into(),
            groups: Vec::new(),
            approved,
            reason: String::new(),
            at: at(now),
        };
        Happening::Vote { vote, waiter, grant: GRANT, ruling: None }
    }

    fn spend() -> Happening {
        Happening::Spend { ruling: None }
    }

    /// A life that needs so many approvals.
    fn life(approvals: u32) -> Life {
        Life::new(at(0), TTL, needs(approvals, &[])).0
    }

    fn needs(approvals: u32, groups: &[&str]) -> Ruling {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Ruling { quorums: vec![Quorum { approvals, groups }], ..Ruling::default() }
    }

    fn under(happening: Happening, now: Ruling) -> Happening {
        match happening {
            Happening::Vote { vote, waiter, grant, .. } => {
                Happening::Vote { vote, waiter, grant, ruling: Some(Box::new(now)) }
            }
            _ => Happening::Spend { ruling: Some(Box::new(now)) },
        }
    }

    fn after(life: &Life, happening: &Happening, now: i64) -> (Life, Vec<Change>) {
        let (life, changes, result) = life.step(happening, at(now));
        result.unwrap();
        (life, changes)
    }

    #[test]
    fn an_approval_with_a_waiter_is_spent_at_once_and_without_one_is_a_grant() {
        let life = life(1);
        let (spent, changes) = after(&life, &vote("dana", true, true, 5), 5);
        assert_eq!((spent.state, changes), (State::Spent, vec![Change::Approved, Change::Spent]));
        let (grant, changes) = after(&life, &vote("dana", true, false, 5), 5);
        assert_eq!((grant.state, changes), (State::Approved, vec![Change::Approved]));
        assert_eq!(grant.grant_expires_at, Some(at(25)));
        assert_eq!(after(&grant, &spend(), 24).0.state, State::Spent);
    }

    #[test]
    fn time_comes_first_even_when_nobody_looked() {
        let life = life(1);
        let (late, changes, result) = life.step(&vote("dana", true, true, 100), at(100));
        assert_eq!(result, Err(Refused::Settled(State::Expired)));
        assert_eq!((late.state, changes), (State::Expired, vec![Change::Expired]));
        let (grant, _) = after(&life, &vote("dana", true, false, 5), 5);
        let (late, _, result) = grant.step(&spend(), at(25));
        assert_eq!((late.state, result), (State::Lapsed, Err(Refused::NotApproved(State::Lapsed))));
    }

    #[test]
    fn two_approvals_are_two_people_and_one_rejection_is_enough() {
        let life = life(2);
        let (life, changes) = after(&life, &vote("dana", true, true, 1), 1);
        assert_eq!((life.state, changes), (State::Pending, vec![Change::Voted]));
        let (_, _, result) = life.step(&vote("dana", true, true, 2), at(2));
        assert_eq!(result, Err(Refused::Voted));
        assert_eq!(after(&life, &vote("lee", true, true, 3), 3).0.state, State::Spent);
        assert_eq!(after(&life, &vote("lee", false, true, 3), 3).0.state, State::Denied);
    }

    #[test]
    fn a_call_that_left_before_its_release_leaves_a_grant() {
        let life = life(1);
        let (spent, _) = after(&life, &vote("dana", true, true, 5), 5);
        let (grant, changes) = after(&spent, &Happening::Restore { grant: GRANT }, 6);
        assert_eq!((grant.state, changes), (State::Approved, vec![Change::Restored]));
        assert_eq!(grant.grant_expires_at, Some(at(26)));
    }

    #[test]
    fn what_got_stricter_asks_again_and_what_the_rules_deny_nobody_can_approve() {
        let (grant, _) = after(&life(1), &vote("dana", true, false, 1), 1);
        assert_eq!(after(&grant, &under(spend(), needs(1, &[])), 2).0.state, State::Spent);
        let (lapsed, changes, result) = grant.step(&under(spend(), needs(2, &[])), at(2));
        assert_eq!((lapsed.state, changes), (State::Lapsed, vec![Change::Revoked]));
        assert_eq!(result, Err(Refused::NotApproved(State::Lapsed)));

        let denied = Ruling { denied: Some("no".into()), ..needs(1, &[]) };
        let (life, changes, result) =
            life(1).step(&under(vote("dana", true, true, 1), denied.clone()), at(1));
        assert_eq!((life.state, changes), (State::Denied, vec![Change::Forbidden]));
        assert_eq!((life.votes, result), (vec![], Err(Refused::Forbidden("no".into()))));
        assert_eq!(Life::new(at(0), TTL, denied).0.state, State::Denied);
    }

    #[test]
    fn what_the_rules_have_loosened_needs_less() {
        let (waiting, _) = after(&life(3), &vote("dana", true, true, 1), 1);
        let next = under(vote("lee", true, true, 2), needs(2, &[]));
        assert_eq!(after(&waiting, &next, 2).0.state, State::Spent);
        let allowed = Ruling { quorums: Vec::new(), ..needs(1, &[]) };
        let arrive = Happening::Arrive(Box::new(allowed.clone()));
        let (spent, changes) = after(&waiting, &arrive, 2);
        assert_eq!((spent.state, changes), (State::Spent, vec![Change::Allowed]));
        assert_eq!(Life::new(at(0), TTL, allowed).0.state, State::Spent);
    }

    #[test]
    fn who_is_in_no_group_that_counts_cannot_decide_and_a_reason_is_given_where_it_must() {
        let mut ruling = needs(1, &["dba"]);
        ruling.reason_required = true;
        let life = Life::new(at(0), TTL, ruling).0;
        let said = |groups: &[&str], approved, reason: &str| {
            let Happening::Vote { mut vote, waiter, grant, ruling } =
                vote("dana", approved, true, 1)
            else {
                unreachable!()
            };
            vote.groups = groups.iter().map(|group| (*group).to_owned()).collect();
            vote.reason = reason.to_owned();
            life.step(&Happening::Vote { vote, waiter, grant, ruling }, at(1)).2
        };
        let other = Refused::NotAmong("1 approval from dba".into());
        assert_eq!(said(&["web"], true, "why"), Err(other.clone()));
        assert_eq!(said(&["web"], false, "why"), Err(other));
        assert_eq!(said(&["dba"], true, " "), Err(Refused::ReasonNeeded));
        assert_eq!(said(&["dba"], false, ""), Ok(()));
        assert_eq!(said(&["web", "dba"], true, "why"), Ok(()));
    }

    #[test]
    fn nobody_votes_twice_by_writing_their_name_otherwise() {
        let (waiting, _) = after(&life(2), &vote("dana", true, true, 1), 1);
        assert_eq!(waiting.step(&vote("Dana", true, true, 2), at(2)).2, Err(Refused::Voted));
    }

    fn happenings() -> impl Strategy<Value = Vec<(Happening, i64)>> {
        let one = prop_oneof![
            (prop::sample::select(vec!["dana", "lee"]), any::<bool>(), any::<bool>())
                .prop_map(|(who, yes, waiter)| vote(who, yes, waiter, 0)),
            Just(spend()),
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
            let mut life = life(needed);
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
                    prop_assert!(next.ruling.is_met(&next.votes));
                }
                life = next;
            }
            prop_assert!(spent <= approved && approved <= 1);
        }
    }
}
