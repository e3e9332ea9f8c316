//! What fails between the replicas and their PostgreSQL: connections, servers, the replicas themselves.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hitl_process::rounds;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    envoy::{Answer, Envoy},
    postgres::{Server, free_port},
    replicas::{audit, percentile, three},
    support::{Gate, Lab, PATIENCE, migrate, post, random},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn without_notify_a_decision_is_found_within_a_second() {
    let (lab, server) = (Lab::new(), Server::start());
    let [holds, decides, _third] = three(&lab, &server, &[]).await;
    // Whoever listens is cut off, again and again.
    let client = server.client().await;
    let cutting = tokio::spawn(async move {
        let mut cut = 0_i64;
        loop {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE query ILIKE 'listen%'";
            cut += client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
            tokio::time::sleep(Duration::from_millis(2)).await;
            if cut > 1_000_000 {
                return;
            }
        }
    });
    let mut times = Vec::new();
    for number in 0..12 {
        let call = holds.hold(migrate("alice", &format!("v{number}"), number)).await;
        let id = decides.waiting_one().await;
        let begun = Instant::now();
        assert_eq!(decides.decide("dana", &id, true, "").await.0, 204);
        assert!(tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().is_allowed());
        times.push(begun.elapsed());
    }
    cutting.abort();
    let most = percentile(&mut times, 100);
    println!("without NOTIFY: p50 {:?}, most {most:?}", percentile(&mut times, 50));
    // A second, and what the decision and the release themselves take here.
    assert!(most < Duration::from_millis(1250), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn while_postgresql_is_away_calls_are_refused_held_ones_stay_and_nothing_is_restarted() {
    let (lab, mut server) = (Lab::new(), Server::start());
    let [a, b, c] = three(&lab, &server, &[]).await;
    let held = a.hold(migrate("alice", "v3", 1)).await;
    let id = b.waiting_one().await;
    let short = lab.replica(&server.url(), &["--hold", "1"]);
    let brief = short.hold(migrate("bob", "v3", 1)).await;
    b.waiting(2).await;
    server.kill();

    for gate in [&a, &b, &c] {
        gate.until_ready(false).await;
        let begun = Instant::now();
        let (text, particulars) = gate.check(migrate("carol", "v3", 1)).await.denial();
        assert!(text.contains("database is not available") && text.contains("try again"), "{text}");
        assert_eq!(particulars["disposition"], "pending");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        assert!(gate.check(post(list, &[])).await.is_allowed());
        assert_eq!(gate.decide("dana", &id, true, "").await.0, 503);
        assert_eq!(gate.get_as("nobody", "/healthz").await.0, 200);
        // What is counted here is there all the same, and says why the rest is not.
        let (status, metrics) = gate.get_as("nobody", "/metrics").await;
        assert_eq!(status, 200);
        assert!(metrics.contains("hitl_store_up 0\n") && metrics.contains("hitl_checks_total{"));
        assert!(!metrics.contains("hitl_requests{"), "{metrics}");
    }
    // One whose hold ends meanwhile is told to come back.
    let (_, particulars) = brief.await.unwrap().denial();
    assert_eq!(particulars["disposition"], "pending");
    assert!(!held.is_finished());

    server.revive();
    for gate in [&a, &b, &c] {
        gate.until_ready(true).await;
        let metrics = gate.get_as("nobody", "/metrics").await.1;
        assert!(metrics.contains("hitl_store_up 1\n"), "{metrics}");
    }
    // It has left: that is known once the database is back.
    b.waiting(1).await;
    assert_eq!(b.decide("dana", &id, true, "").await.0, 204);
    assert!(tokio::time::timeout(PATIENCE, held).await.unwrap().unwrap().is_allowed());
    audit(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_frozen_replica_holds_nobody_up_for_long() {
    let (lab, server) = (Lab::new(), Server::start());
    let [a, b, _c] = three(&lab, &server, &["--hold", "0"]).await;
    // As one that froze in the middle of a write: it holds the lock that all writes take.
    let frozen = server.client().await;
    let settings = "SET idle_in_transaction_session_timeout TO '5s'";
    frozen.batch_execute(settings).await.unwrap();
    frozen.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1195463749, 1)").await.unwrap();
    let begun = Instant::now();
    let answers = tokio::join!(a.check(migrate("a", "v3", 1)), b.check(migrate("b", "v3", 1)));
    for verdict in [answers.0, answers.1] {
        assert!(verdict.denial().0.contains("repeat the same call later"), "{verdict:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn nothing_acknowledged_is_lost_when_another_server_takes_over() {
    let lab = Lab::new();
    let mut primary = Server::start();
    let standby = primary.standby().await;
    let url = format!(
        "postgres://gate@127.0.0.1:{},127.0.0.1:{}/postgres",
        primary.port(),
        standby.port()
    );
    let gates = [lab.replica(&url, &[]), lab.replica(&url, &[]), lab.replica(&url, &[])];
    let held = gates[0].hold(migrate("alice", "held", 1)).await;
    let id = gates[1].waiting_one().await;
    let ledger = Ledger::default();
    let mut load = JoinSet::new();
    for (number, gate) in gates.iter().enumerate() {
        let (grpc, admin, http) = gate.doors();
        let (passed, decided) = (Arc::clone(&ledger.passed), Arc::clone(&ledger.decided));
        load.spawn(async move {
            for round in 0.. {
                let check = migrate(&format!("user-{number}"), &format!("v{}", random(3)), round);
                let verdict = Gate::try_check(grpc.clone(), check);
                let verdict = tokio::time::timeout(Duration::from_secs(1), verdict).await;
                let approval = verdict.ok().flatten().and_then(|verdict| verdict.approval());
                passed.lock().unwrap().extend(approval);
            }
        });
        let keep = id.clone();
        load.spawn(async move {
            loop {
                let (http, admin) = (http.clone(), admin.clone());
                let decision = Gate::try_decide_but(http, admin, random(3) > 0, &keep).await;
                decided.lock().unwrap().extend(decision);
            }
        });
    }
    let some = async {
        while ledger.decided.lock().unwrap().len() < 50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, some).await.expect("decisions before the failover");
    primary.kill();
    standby.promote().await;
    let before = ledger.decided.lock().unwrap().len();
    let more = async {
        while ledger.decided.lock().unwrap().len() < before + 50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, more).await.expect("decisions after the failover");
    load.shutdown().await;
    for gate in &gates {
        gate.until_ready(true).await;
    }
    assert_eq!(gates[2].decide("dana", &id, true, "").await.0, 204);
    assert!(tokio::time::timeout(PATIENCE, held).await.unwrap().unwrap().is_allowed());
    ledger.verify(&gates[1]).await;
}

/// What was acknowledged, as those kept it who were told.
#[derive(Clone, Default)]
struct Ledger {
    passed: Arc<Mutex<Vec<String>>>,
    decided: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Ledger {
    /// Compares it with what the gate knows.
    async fn verify(&self, gate: &Gate) {
        audit(gate).await;
        let passed = self.passed.lock().unwrap().clone();
        let decided = self.decided.lock().unwrap().clone();
        let different: BTreeSet<_> = passed.iter().collect();
        assert_eq!(different.len(), passed.len(), "an approval has let two calls pass");
        for id in &passed {
            let request = gate.json(&format!("/requests/{id}")).await;
            assert_eq!(request["state"], "spent", "{request}");
        }
        for (id, approved) in &decided {
            let request = gate.json(&format!("/requests/{id}")).await;
            let state = request["state"].as_str().unwrap();
            let kept = if *approved {
                ["spent", "approved", "lapsed"].contains(&state)
            } else {
                state == "denied"
            };
            assert!(kept, "acknowledged as {approved}: {request}");
        }
        println!("{} passed and {} decided, as the ledger has it", passed.len(), decided.len());
        // The load was one: otherwise nothing was tested.
        assert!(passed.len() > 5 && decided.len() > 10, "{} {}", passed.len(), decided.len());
    }
}

fn one_of_three() -> usize {
    usize::try_from(random(3)).unwrap()
}

/// Three gates behind Envoy, under load.
struct Field {
    lab: Lab,
    server: Server,
    ports: Vec<(String, String)>,
    gates: Vec<Option<Gate>>,
    ledger: Ledger,
    load: JoinSet<()>,
    away: Arc<Mutex<Vec<u16>>>,
}

impl Field {
    async fn new(args: &'static [&'static str]) -> Self {
        let (lab, server) = (Lab::new(), Server::start());
        let port = || format!("127.0.0.1:{}", free_port());
        let ports: Vec<_> = (0..3).map(|_| (port(), port())).collect();
        let mut field = Self {
            lab,
            server,
            ports,
            gates: vec![None, None, None],
            ledger: Ledger::default(),
            load: JoinSet::new(),
            away: Arc::default(),
        };
        (0..3).for_each(|number| field.revive(number, args));
        let doors: Vec<_> = field.gates.iter().flatten().map(Gate::grpc_port).collect();
        let envoy = Arc::new(Envoy::start(&doors).await);
        for user in 0..6 {
            let (envoy, passed) = (Arc::clone(&envoy), Arc::clone(&field.ledger.passed));
            let away = Arc::clone(&field.away);
            field.load.spawn(async move {
                for number in 0.. {
                    // Few different calls, so that they meet requests and grants of killed rounds.
                    let version = format!("v{}", random(3));
                    match envoy.call(&format!("user-{user}"), &version, number).await {
                        Some(Answer::Passed(approval)) => passed.lock().unwrap().push(approval),
                        Some(Answer::Denied(_)) => {}
                        Some(Answer::Away(status)) => {
                            away.lock().unwrap().push(status);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        None => away.lock().unwrap().push(0),
                    }
                }
            });
        }
        for _ in 0..3 {
            let (ports, decided) = (field.ports.clone(), Arc::clone(&field.ledger.decided));
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            field.load.spawn(async move {
                loop {
                    let admin = format!("http://{}", ports[one_of_three()].1);
                    let decision = Gate::try_decide(http.clone(), admin, random(3) > 0).await;
                    if decision.is_none() {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    decided.lock().unwrap().extend(decision);
                }
            });
        }
        field
    }

    fn revive(&mut self, number: usize, args: &[&str]) {
        let (grpc, admin) = &self.ports[number];
        let listen = ["--grpc-listen", grpc, "--admin-listen", admin, "--hold", "2"];
        let gate = self.lab.replica(&self.server.url(), &[&listen, args].concat());
        self.gates[number] = Some(gate);
    }

    async fn verify(mut self) {
        self.load.shutdown().await;
        let gate = self.gates[0].take().unwrap();
        gate.until_ready(true).await;
        self.ledger.verify(&gate).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn kills_of_replicas_lose_no_decision_and_let_no_approval_pass_twice() {
    let mut field = Field::new(&[]).await;
    for _ in 0..rounds(30, 100) {
        tokio::time::sleep(Duration::from_millis(20 + random(120))).await;
        let number = one_of_three();
        field.gates[number].take().unwrap().kill();
        tokio::time::sleep(Duration::from_millis(random(50))).await;
        tokio::task::block_in_place(|| field.revive(number, &[]));
    }
    field.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn kills_of_postgresql_lose_no_decision_and_let_no_approval_pass_twice() {
    let mut field = Field::new(&[]).await;
    for _ in 0..rounds(30, 100) {
        tokio::time::sleep(Duration::from_millis(20 + random(200))).await;
        tokio::task::block_in_place(|| {
            field.server.kill();
            field.server.revive();
        });
    }
    field.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn replicas_are_replaced_one_after_the_other_without_a_lost_or_refused_call() {
    let mut field = Field::new(&["--drain", "1"]).await;
    for number in [0, 1, 2, 0, 1, 2] {
        let old = field.gates[number].take().unwrap();
        old.terminate();
        assert!(old.exited().await.success());
        tokio::task::block_in_place(|| field.revive(number, &["--drain", "1"]));
        // Until the gateway has seen it, as a rollout waits for it to be ready.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let away = field.away.lock().unwrap().clone();
    assert!(away.is_empty(), "no gate was asked: {away:?}");
    field.verify().await;
}

/// Held calls through kills of the server: none of them is told anything but what was decided.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_held_call_outlives_kills_of_postgresql() {
    let (lab, mut server) = (Lab::new(), Server::start());
    let [a, b, _c] = three(&lab, &server, &[]).await;
    let mut held = Vec::new();
    for user in 0..10 {
        held.push(a.hold(migrate(&format!("user-{user}"), "v3", user)).await);
    }
    let requests = b.waiting(10).await;
    for _ in 0..3 {
        server.kill();
        server.revive();
    }
    b.until_ready(true).await;
    for (number, request) in requests.iter().enumerate() {
        let id = request["id"].as_str().unwrap();
        let decided = async {
            // The connection that it takes may still be one from before.
            while b.decide("dana", id, number % 2 == 0, "").await.0 == 503 {}
        };
        tokio::time::timeout(PATIENCE, decided).await.unwrap();
    }
    let mut passed = 0;
    for call in held {
        let verdict = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        passed += u32::from(verdict.is_allowed());
    }
    assert_eq!(passed, 5);
    let spent = |event: &hitl_api::Event| event.kind == "spent";
    assert_eq!(audit(&a).await.iter().filter(|event| spent(event)).count(), 5);
    let _: Value = b.json("/insights").await;
}
