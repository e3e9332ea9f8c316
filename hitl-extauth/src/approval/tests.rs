//! The life of a request, case by case and by chance.

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
        also: vec![format!("{}@example.com", reviewer.to_lowercase())],
        break_glass: false,
        preapproval: None,
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
    Life::new(at(0), TTL, needs(approvals, &[]), &[]).0
}

fn needs(approvals: u32, groups: &[&str]) -> Ruling {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Ruling { quorums: vec![Quorum { approvals, groups }], ..Ruling::default() }
}

fn arrive(ruling: Ruling, given: Vec<Vote>) -> Happening {
    Happening::Arrive { ruling: Box::new(ruling), given }
}

/// What somebody has said beforehand.
fn beforehand(reviewer: &str, groups: &[&str]) -> Vote {
    let Happening::Vote { vote, .. } = vote(reviewer, true, false, 0) else { unreachable!() };
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let preapproval = Some(hitl_api::PreapprovalId::of(at(0)));
    Vote { groups, preapproval, reason: "why".into(), ..vote }
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
    assert_eq!(grant.grant_expires_at, Some(at(25)));
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
    assert_eq!(Life::new(at(0), TTL, denied, &[]).0.state, State::Denied);
}

#[test]
fn what_the_rules_have_loosened_needs_less() {
    let (waiting, _) = after(&life(3), &vote("dana", true, true, 1), 1);
    let next = under(vote("lee", true, true, 2), needs(2, &[]));
    assert_eq!(after(&waiting, &next, 2).0.state, State::Spent);
    let allowed = Ruling { quorums: Vec::new(), ..needs(1, &[]) };
    let again = arrive(allowed.clone(), Vec::new());
    let (spent, changes) = after(&waiting, &again, 2);
    assert_eq!((spent.state, changes), (State::Spent, vec![Change::Allowed]));
    assert_eq!(Life::new(at(0), TTL, allowed, &[]).0.state, State::Spent);
    let again = arrive(needs(1, &[]), Vec::new());
    let (spent, changes) = after(&waiting, &again, 2);
    assert_eq!((spent.state, changes), (State::Spent, vec![Change::Approved, Change::Spent]));
    assert_eq!(after(&life(3), &again, 2).0.state, State::Pending);
}

#[test]
fn who_is_in_no_group_that_counts_cannot_decide_and_a_reason_is_given_where_it_must() {
    let mut ruling = needs(1, &["dba"]);
    ruling.reason_required = true;
    let life = Life::new(at(0), TTL, ruling, &[]).0;
    let said = |groups: &[&str], approved, reason: &str| {
        let Happening::Vote { mut vote, waiter, grant, ruling } = vote("dana", approved, true, 1)
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
    // Their other account is theirs.
    let other = waiting.step(&vote("DANA@example.com", true, true, 2), at(2));
    assert_eq!(other.2, Err(Refused::Voted));
}

#[test]
fn what_was_approved_beforehand_counts_where_it_makes_the_approval_whole() {
    let (dana, lee) = (beforehand("dana", &["dba"]), beforehand("lee", &["sec"]));
    let two = life(2);
    let begin = |ruling, given: &[Vote]| Life::new(at(0), TTL, ruling, given);
    let (life, changes) = begin(needs(1, &[]), &[dana.clone(), lee.clone()]);
    // As little of it as that takes.
    assert_eq!((life.state, life.votes.len()), (State::Spent, 1));
    assert_eq!(changes, [Change::Preapproved(0), Change::Approved, Change::Spent]);
    let (life, changes) = begin(needs(2, &[]), &[dana.clone(), dana.clone()]);
    assert_eq!((life.state, life.votes.len(), changes), (State::Pending, 0, vec![]));
    assert_eq!(begin(needs(2, &[]), &[dana.clone(), lee.clone()]).0.state, State::Spent);
    assert_eq!(begin(needs(1, &["sec"]), std::slice::from_ref(&dana)).0.state, State::Pending);
    // Somebody who is of no use before one who is.
    let (life, _) = begin(needs(1, &["sec"]), &[dana.clone(), lee.clone()]);
    assert_eq!(life.votes[0].reviewer, "lee");
    let every_time = Ruling { every_time: true, ..needs(1, &[]) };
    assert_eq!(begin(every_time, std::slice::from_ref(&dana)).0.state, State::Pending);
    let denied = Ruling { denied: Some("no".into()), ..needs(1, &[]) };
    assert_eq!(begin(denied, std::slice::from_ref(&dana)).0.state, State::Denied);

    // Beside what somebody has said of the call itself; but nobody counts twice.
    let (waiting, _) = after(&two, &vote("dana", true, true, 1), 1);
    let same = arrive(needs(2, &[]), vec![beforehand("DANA@example.com", &[])]);
    assert_eq!(after(&waiting, &same, 2).0.state, State::Pending);
    let other = arrive(needs(2, &[]), vec![dana, lee]);
    let (spent, changes) = after(&waiting, &other, 2);
    assert_eq!((spent.state, spent.votes.len()), (State::Spent, 2));
    assert_eq!(changes, [Change::Preapproved(1), Change::Approved, Change::Spent]);
}

fn happenings() -> impl Strategy<Value = Vec<(Happening, i64)>> {
    let one = prop_oneof![
        (prop::sample::select(vec!["dana", "lee"]), any::<bool>(), any::<bool>())
            .prop_map(|(who, yes, waiter)| vote(who, yes, waiter, 0)),
        Just(spend()),
        Just(Happening::Withdraw),
        Just(Happening::Recall),
        Just(Happening::Age),
    ];
    prop::collection::vec((one, 0_i64..40), 0..12)
}

#[test]
fn what_comes_back_from_a_backup_lapses_if_it_was_granted_and_waits_if_it_waited() {
    let waits = life(1);
    let (recalled, changes, result) = waits.step(&Happening::Recall, at(1));
    assert_eq!((recalled, changes, result), (waits.clone(), vec![], Ok(())));
    let (granted, _) = after(&waits, &vote("dana", true, false, 1), 1);
    assert_eq!(granted.state, State::Approved);
    // Somebody has said yes and that was not enough: with rules that ask for less it would be.
    let mut partly = waits.clone();
    partly.votes = granted.votes.clone();
    let (outdated, changes) = after(&partly, &Happening::Recall, 2);
    assert_eq!((outdated.state, changes), (State::Expired, vec![Change::Outdated]));
    let (lapsed, changes) = after(&granted, &Happening::Recall, 2);
    assert_eq!((lapsed.state, changes), (State::Lapsed, vec![Change::Recalled]));
    let (_, _, spent) = lapsed.step(&spend(), at(3));
    assert_eq!(spent, Err(Refused::NotApproved(State::Lapsed)));
}

proptest! {
    #[test]
    fn whatever_was_said_beforehand_a_call_begins_as_spent_only_where_that_is_enough(
        people in prop::collection::vec(
            (prop::sample::select(vec!["dana", "lee", "kim", "Dana"]),
             prop::sample::subsequence(vec!["dba", "sec"], 0..=2)), 0..6),
        needed in 1_u32..4, group in prop::option::of(prop::sample::select(vec!["dba", "sec"])),
        every_time in any::<bool>(),
    ) {
        let given: Vec<_> = people.iter().map(|(who, groups)| beforehand(who, groups)).collect();
        let groups: Vec<_> = group.into_iter().collect();
        let ruling = Ruling { every_time, ..needs(needed, &groups) };
        let (life, changes) = Life::new(at(0), TTL, ruling.clone(), &given);
        let spent = life.state == State::Spent;
        prop_assert_eq!(spent, changes.contains(&Change::Spent));
        prop_assert_eq!(life.votes.is_empty(), !spent);
        let mut names: Vec<_> = people
            .iter()
            .filter(|(_, groups)| group.is_none_or(|group| groups.contains(&group)))
            .map(|(who, _)| who.to_lowercase())
            .collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(spent, !every_time && names.len() >= needed as usize);
        if spent {
            prop_assert!(ruling.is_met(&life.votes) && life.votes.len() == needed as usize);
        }
    }

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
