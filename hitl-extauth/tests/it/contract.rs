//! The contract of every store, as one set of tests.
//!
//! Each test asks for the store anew before every step: the one store of a kind, or one that was
//! closed and opened again since the last step, so that nothing counts but what outlives the process.

mod audit;
mod beforehand;
mod outbox;
mod ruling;
mod unreadable;

use std::sync::Arc;

use hitl_api::{Assurance, Quorum, RequestId, Requester, Ruling, State, Vote};
use hitl_extauth::{
    approval::Refused,
    insights::Span,
    store::{Arrival, ChangeError, Filter, NewCall, Order, Page, QueueFull, SharedStore, Terms},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use self::audit::{
    everything_that_happens_is_a_link_of_one_chain,
    many_writers_at_once_make_one_chain_without_a_gap,
    of_a_long_trail_the_beginning_and_the_end_are_read,
};
use self::beforehand::{
    a_preapproval_is_used_as_often_as_it_says_and_no_more,
    one_that_is_not_in_force_or_not_about_the_call_is_not_used,
};
use self::outbox::{
    a_message_is_kept_until_it_has_arrived_or_is_dead,
    what_happens_becomes_messages_once_for_each_webhook,
};
use self::ruling::{
    an_approval_that_the_rules_find_too_little_lapses_and_the_call_asks_again,
    groups_and_rulings_are_kept_as_they_were, two_approvals_are_two_people,
    what_the_rules_settle_is_kept_and_counts_as_nothing_that_waits,
};
use self::unreadable::{
    an_approval_of_a_row_that_cannot_be_read_any_more_is_not_used,
    an_audit_names_the_rows_it_cannot_read_and_verifies_the_others,
    rows_that_cannot_be_read_are_shown_and_stop_nothing,
};
use crate::keepers::{Keeper, Open, Postgres, Reopened, Replicas};

const TERMS: Terms = Terms {
    request: SignedDuration::from_secs(3600),
    grant: SignedDuration::from_secs(900),
    cooldown: SignedDuration::from_secs(10),
    pending: 50,
    pending_per_requester: 10,
};

fn call(requester: &str, version: &str) -> NewCall {
    NewCall {
        id: RequestId::generate(),
        digest: format!("{requester}/{version}"),
        identity: format!("header:x-user-id:{requester}"),
        requester: Requester {
            name: requester.into(),
            assurance: Assurance::Claimed,
            groups: Vec::new(),
            also: Vec::new(),
        },
        route: "gateway/privileged/mcp".into(),
        server: "mcp-ops-tools".into(),
        method: "POST".into(),
        path: "/privileged/mcp".into(),
        address: Some("10.1.2.3".into()),
        headers: serde_json::Map::new(),
        body: "{}".into(),
        tool: "run_migration".into(),
        arguments: json!({"version": version}).as_object().unwrap().clone(),
        ruling: Ruling::default(),
        context: None,
        preapproved: Vec::new(),
    }
}

fn needs(approvals: u32, groups: &[&str]) -> Ruling {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Ruling { quorums: vec![Quorum { approvals, groups }], ..Ruling::default() }
}

fn vote(reviewer: &str, approved: bool, at: Timestamp) -> Vote {
    let groups = vec!["dba".to_owned()];
    Vote {
        reviewer: reviewer.into(),
        groups,
        also: vec![format!("{reviewer}@example.com")],
        break_glass: false,
        preapproval: None,
        approved,
        reason: "because".into(),
        at,
    }
}

async fn arrive(keeper: &mut impl Keeper, requester: &str, version: &str) -> Arrival {
    keeper.store().await.arrive(call(requester, version), TERMS, keeper.now()).await.unwrap()
}

async fn new(keeper: &mut impl Keeper, requester: &str, version: &str) -> RequestId {
    match arrive(keeper, requester, version).await {
        Arrival::New { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

async fn new_at(store: &SharedStore, requester: &str, version: &str, now: Timestamp) -> RequestId {
    match store.arrive(call(requester, version), TERMS, now).await.unwrap() {
        Arrival::New { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

async fn state(keeper: &mut impl Keeper, id: RequestId) -> State {
    keeper.store().await.request(id).await.unwrap().unwrap().state
}

fn refused<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> Refused {
    match result.unwrap_err() {
        ChangeError::Refused { refused, .. } => refused,
        other => panic!("{other:?}"),
    }
}

async fn a_call_makes_a_request_and_the_same_call_joins_it(mut keeper: impl Keeper) {
    let id = new(&mut keeper, "alice", "v3").await;
    let again = arrive(&mut keeper, "alice", "v3").await;
    assert!(matches!(again, Arrival::Joined(joined) if joined == id));
    assert_ne!(new(&mut keeper, "bob", "v3").await, id);
    assert_ne!(new(&mut keeper, "alice", "v4").await, id);
    let request = keeper.store().await.request(id).await.unwrap().unwrap();
    assert_eq!((request.state, request.tool_name.as_str()), (State::Pending, "run_migration"));
    assert_eq!(request.tool_args, *json!({"version": "v3"}).as_object().unwrap());
    assert_eq!(request.expires_at.duration_since(request.received_at), TERMS.request);
}

async fn an_approval_with_a_waiter_is_spent_and_without_one_waits_for_the_same_call(
    mut keeper: impl Keeper,
) {
    let store = keeper.store().await;
    let waited = new_at(&store, "alice", "v3", keeper.now()).await;
    let yes = vote("dana", true, keeper.now());
    let request = store.vote(waited, yes, true, None, TERMS).await.unwrap();
    let voted: Vec<_> = request.votes.iter().map(|vote| (&*vote.reviewer, vote.approved)).collect();
    assert_eq!((request.state, voted), (State::Spent, vec![("dana", true)]));
    assert!(request.votes[0].at >= request.received_at, "{request:?}");
    // What is spent lets nothing pass any more.
    let id = new(&mut keeper, "alice", "v3").await;
    keeper
        .store()
        .await
        .vote(id, vote("dana", true, keeper.now()), false, None, TERMS)
        .await
        .unwrap();
    assert_eq!(state(&mut keeper, id).await, State::Approved);
    assert!(matches!(arrive(&mut keeper, "bob", "v3").await, Arrival::New { .. }));
    let granted = arrive(&mut keeper, "alice", "v3").await;
    assert!(matches!(granted, Arrival::Granted(request) if request.id == id));
    assert!(matches!(arrive(&mut keeper, "alice", "v3").await, Arrival::New { .. }));
}

async fn of_a_hundred_spending_one_approval_one_does(mut keeper: impl Keeper) {
    let store = keeper.store().await;
    let id = new_at(&store, "alice", "v3", keeper.now()).await;
    store.vote(id, vote("dana", true, keeper.now()), false, None, TERMS).await.unwrap();
    let now = keeper.now();
    let spending = (0..100).map(|_| store.spend(id, None, now));
    let results = futures_util::future::join_all(spending).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(refused(store.spend(id, None, now).await), Refused::NotApproved(State::Spent));
    // Given back, it is there once more.
    assert_eq!(
        keeper.store().await.restore(id, TERMS, keeper.now()).await.unwrap().state,
        State::Approved
    );
    assert_eq!(keeper.store().await.spend(id, None, now).await.unwrap().state, State::Spent);
}

async fn of_all_who_decide_at_once_one_does(mut keeper: impl Keeper) {
    let id = new(&mut keeper, "alice", "v3").await;
    let store = keeper.store().await;
    let now = keeper.now();
    let deciding = (0..20).map(|number| {
        let (store, reviewer) = (Arc::clone(&store), format!("reviewer-{number}"));
        async move {
            match number % 3 {
                0 => store.withdraw(id, vec!["alice".into()], now).await,
                _ => {
                    store.vote(id, vote(&reviewer, number % 2 == 0, now), false, None, TERMS).await
                }
            }
        }
    });
    let results = futures_util::future::join_all(deciding).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let settled = state(&mut keeper, id).await;
    for result in results.into_iter().filter(Result::is_err) {
        assert_eq!(refused(result), Refused::Settled(settled));
    }
}

async fn nobody_decides_about_their_own_request_or_takes_back_anothers(mut keeper: impl Keeper) {
    let id = new(&mut keeper, "alice", "v3").await;
    for approved in [true, false] {
        let own = keeper
            .store()
            .await
            .vote(id, vote("Alice", approved, keeper.now()), true, None, TERMS)
            .await;
        assert!(matches!(own, Err(ChangeError::Own)), "{own:?}");
    }
    let others = keeper.store().await.withdraw(id, vec!["dana".into()], keeper.now()).await;
    assert!(matches!(others, Err(ChangeError::NotOwn)), "{others:?}");
    assert_eq!(state(&mut keeper, id).await, State::Pending);
    keeper.store().await.withdraw(id, vec!["alice".into()], keeper.now()).await.unwrap();
    assert_eq!(state(&mut keeper, id).await, State::Withdrawn);
}

async fn a_denial_answers_the_same_call_for_a_while(mut keeper: impl Keeper) {
    let id = new(&mut keeper, "alice", "v3").await;
    keeper
        .store()
        .await
        .vote(id, vote("dana", false, keeper.now()), true, None, TERMS)
        .await
        .unwrap();
    let again = arrive(&mut keeper, "alice", "v3").await;
    assert!(matches!(again, Arrival::Denied(request) if request.id == id));
    keeper.pass(11).await;
    let again = arrive(&mut keeper, "alice", "v3").await;
    assert!(matches!(again, Arrival::New { .. }));
}

async fn time_settles_requests_and_grants(mut keeper: impl Keeper) {
    let pending = new(&mut keeper, "alice", "v3").await;
    let granted = new(&mut keeper, "alice", "v4").await;
    keeper
        .store()
        .await
        .vote(granted, vote("dana", true, keeper.now()), false, None, TERMS)
        .await
        .unwrap();
    assert!(keeper.store().await.age(keeper.now()).await.unwrap().is_empty());
    keeper.pass(901).await;
    let lapsed = keeper.store().await.age(keeper.now()).await.unwrap();
    assert_eq!(lapsed.iter().map(|request| request.id).collect::<Vec<_>>(), [granted]);
    keeper.pass(2700).await;
    let expired = keeper.store().await.age(keeper.now()).await.unwrap();
    assert_eq!(expired.iter().map(|request| request.id).collect::<Vec<_>>(), [pending]);
    let states = (state(&mut keeper, granted).await, state(&mut keeper, pending).await);
    assert_eq!(states, (State::Lapsed, State::Expired));
    // Where the same call comes again first, whoever still waits on the old one is found.
    let old = new(&mut keeper, "carol", "v3").await;
    keeper.pass(3601).await;
    let again = arrive(&mut keeper, "carol", "v3").await;
    assert!(matches!(again, Arrival::New { expired: Some(expired), .. } if expired.id == old));
    // Time counts even where nobody has looked.
    let id = new(&mut keeper, "bob", "v3").await;
    keeper.pass(3601).await;
    let late =
        keeper.store().await.vote(id, vote("dana", true, keeper.now()), true, None, TERMS).await;
    assert_eq!(refused(late), Refused::Settled(State::Expired));
    assert_eq!(state(&mut keeper, id).await, State::Expired);
}

async fn the_queue_has_room_for_so_many(mut keeper: impl Keeper) {
    for number in 0..TERMS.pending_per_requester {
        new(&mut keeper, "alice", &format!("v{number}")).await;
    }
    let full = arrive(&mut keeper, "alice", "more").await;
    assert!(matches!(full, Arrival::Full(QueueFull::Requester(10))), "{full:?}");
    // Whoever makes up names gets three quarters of the room at one address.
    for number in TERMS.pending_per_requester..38 {
        new(&mut keeper, &format!("user-{number}"), "v3").await;
    }
    let full = arrive(&mut keeper, "bob", "v3").await;
    assert!(matches!(full, Arrival::Full(QueueFull::Address(38))), "{full:?}");
    // The rest is for who comes from elsewhere, and for those whose names were verified.
    let elsewhere = NewCall { address: None, ..call("bob", "v3") };
    let verified = |number: u32| {
        let mut call = call(&format!("user-{number}"), "verified");
        call.requester.assurance = Assurance::Verified;
        call
    };
    for call in [elsewhere].into_iter().chain((39..TERMS.pending).map(verified)) {
        let arrival = keeper.store().await.arrive(call, TERMS, keeper.now()).await.unwrap();
        assert!(matches!(arrival, Arrival::New { .. }), "{arrival:?}");
    }
    let full = keeper.store().await.arrive(verified(50), TERMS, keeper.now()).await.unwrap();
    assert!(matches!(full, Arrival::Full(QueueFull::Gate(50))), "{full:?}");
    // What waits already may be asked for again, and leaves nothing behind when there is no room.
    assert!(matches!(arrive(&mut keeper, "alice", "v0").await, Arrival::Joined(_)));
    let counts = keeper.store().await.counts().await.unwrap();
    assert_eq!(counts.iter().map(|count| count.requests).sum::<u64>(), 50);
    let Arrival::Joined(id) = arrive(&mut keeper, "alice", "v1").await else { panic!("not there") };
    let no = vote("dana", false, keeper.now());
    keeper.store().await.vote(id, no, true, None, TERMS).await.unwrap();
    assert_eq!(keeper.store().await.pending().await.unwrap(), 49);
}

async fn listed(keeper: &mut impl Keeper, filter: Filter) -> Vec<RequestId> {
    let newest = Page { order: Order::Newest, after: None, limit: 100 };
    let listed = keeper.store().await.list(filter, newest).await.unwrap().requests;
    listed.into_iter().map(|request| request.id).collect()
}

async fn requests_are_listed_in_order_in_pages_and_by_what_they_are(mut keeper: impl Keeper) {
    let mut ids = Vec::new();
    for user in ["alice", "bob", "carol"] {
        for version in ["v3", "v4"] {
            ids.push(new(&mut keeper, user, version).await);
        }
    }
    keeper
        .store()
        .await
        .vote(ids[1], vote("dana", false, keeper.now()), false, None, TERMS)
        .await
        .unwrap();
    let waiting = Filter { states: vec![State::Pending], ..Filter::default() };
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = Page { order: Order::Oldest, after, limit: 2 };
        let listed = keeper.store().await.list(waiting.clone(), page).await.unwrap();
        seen.extend(listed.requests.iter().map(|request| request.id));
        after = seen.last().copied();
        if !listed.more {
            break;
        }
    }
    let pending: Vec<_> = ids.iter().copied().filter(|id| *id != ids[1]).collect();
    assert_eq!(seen, pending);
    let of_bob = Filter { requester: Some("bob".into()), ..Filter::default() };
    assert_eq!(listed(&mut keeper, of_bob).await, [ids[3], ids[2]]);
    let same = Filter { digest: Some("carol/v4".into()), ..Filter::default() };
    assert_eq!(listed(&mut keeper, same).await, [ids[5]]);
    let of_dana = Filter { reviewer: Some("dana".into()), ..Filter::default() };
    assert_eq!(listed(&mut keeper, of_dana).await, [ids[1]]);
    let because = Filter { text: Some("BECAUSE".into()), ..Filter::default() };
    assert_eq!(listed(&mut keeper, because).await, [ids[1]]);
    // Text as a person reads it, not as JSON writes it.
    let path = NewCall {
        arguments: json!({"path": "C:\\temp \"x\""}).as_object().unwrap().clone(),
        ..call("dave", "v9")
    };
    let path_id = path.id;
    keeper.store().await.arrive(path, TERMS, keeper.now()).await.unwrap();
    for text in ["c:\\temp", "\"X\"", "temp \"x"] {
        let read = Filter { text: Some(text.into()), ..Filter::default() };
        assert_eq!(listed(&mut keeper, read).await, [path_id], "{text}");
    }
    let settled = vec![State::Denied, State::Spent];
    let settled = Filter { states: settled, ..Filter::default() };
    assert_eq!(listed(&mut keeper, settled).await, [ids[1]]);
    let none = Filter { until: Some(Timestamp::UNIX_EPOCH), ..Filter::default() };
    assert!(listed(&mut keeper, none).await.is_empty());
    let other = Filter { tool: Some("other".into()), ..Filter::default() };
    assert!(listed(&mut keeper, other).await.is_empty());
}

async fn what_became_of_requests_is_counted_by_tool_and_in_steps(mut keeper: impl Keeper) {
    let (yes, no) = (new(&mut keeper, "a", "v3").await, new(&mut keeper, "b", "v3").await);
    let other = NewCall { tool: "drop_database".into(), ..call("c", "v3") };
    keeper.store().await.arrive(other, TERMS, keeper.now()).await.unwrap();
    keeper.pass(60).await;
    keeper
        .store()
        .await
        .vote(yes, vote("dana", true, keeper.now()), true, None, TERMS)
        .await
        .unwrap();
    keeper
        .store()
        .await
        .vote(no, vote("dana", false, keeper.now()), true, None, TERMS)
        .await
        .unwrap();
    // It is in the second of the span's minutes.
    let begun = keeper.now() - SignedDuration::from_secs(90);
    let hour = Span::new(begun, begun + SignedDuration::from_secs(3600), 60).unwrap();
    let insights = keeper.store().await.insights(hour).await.unwrap();
    let all = &insights.all;
    assert_eq!((all.waiting, all.approved, all.rejected, all.expired), (1, 1, 1, 0));
    assert!((59.0..=61.0).contains(&all.median_seconds.unwrap()), "{all:?}");
    let tools: Vec<_> = insights.tools.iter().map(|tool| tool.tool.as_str()).collect();
    assert_eq!(tools, ["drop_database", "run_migration"]);
    let steps = insights.steps.iter().map(|step| (step.approved, step.rejected));
    assert_eq!(steps.enumerate().filter(|(_, n)| *n != (0, 0)).collect::<Vec<_>>(), [(1, (1, 1))]);
    let later = Span::new(hour.until(), hour.until() + TERMS.request, 1).unwrap();
    assert_eq!(keeper.store().await.insights(later).await.unwrap().all.approved, 0);
}

/// Every test over every kind of store.
macro_rules! contract {
    ($($test:ident)*) => {
        mod sqlite_file {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<super::Open as super::Keeper>::new().await).await;
            })*
        }

        mod sqlite_file_after_a_kill_at_every_step {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<super::Reopened as super::Keeper>::new().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            #[ignore = "of the suite postgres"]
            async fn $test() {
                super::$test(<super::Postgres as super::Keeper>::new().await).await;
            })*
        }

        mod postgres_by_another_replica_at_every_step {
            $(#[tokio::test]
            #[ignore = "of the suite postgres"]
            async fn $test() {
                super::$test(<super::Replicas as super::Keeper>::new().await).await;
            })*
        }
    };
}

contract! {
    an_approval_of_a_row_that_cannot_be_read_any_more_is_not_used
    an_audit_names_the_rows_it_cannot_read_and_verifies_the_others
    rows_that_cannot_be_read_are_shown_and_stop_nothing
    a_preapproval_is_used_as_often_as_it_says_and_no_more
    one_that_is_not_in_force_or_not_about_the_call_is_not_used
    what_happens_becomes_messages_once_for_each_webhook
    a_message_is_kept_until_it_has_arrived_or_is_dead
    groups_and_rulings_are_kept_as_they_were
    an_approval_that_the_rules_find_too_little_lapses_and_the_call_asks_again
    what_the_rules_settle_is_kept_and_counts_as_nothing_that_waits
    a_call_makes_a_request_and_the_same_call_joins_it
    an_approval_with_a_waiter_is_spent_and_without_one_waits_for_the_same_call
    of_a_hundred_spending_one_approval_one_does
    of_all_who_decide_at_once_one_does
    nobody_decides_about_their_own_request_or_takes_back_anothers
    a_denial_answers_the_same_call_for_a_while
    two_approvals_are_two_people
    time_settles_requests_and_grants
    the_queue_has_room_for_so_many
    requests_are_listed_in_order_in_pages_and_by_what_they_are
    what_became_of_requests_is_counted_by_tool_and_in_steps
    everything_that_happens_is_a_link_of_one_chain
    of_a_long_trail_the_beginning_and_the_end_are_read
    many_writers_at_once_make_one_chain_without_a_gap
}
