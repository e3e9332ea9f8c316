//! What was approved before a backup is used no more, in whatever state it came back.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{asked, rows, run};
use crate::{
    postgres::Server,
    support::{Lab, PATIENCE, id_of, migrate},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_had_some_of_its_approvals_is_not_let_pass_by_rules_that_ask_for_less_after_a_restore()
{
    let lab = Lab::new();
    let rules = lab.file("rules.yaml");
    let need = |approvals: u32| {
        let text = format!("rules:\n- name: some\n  require: {{approvals: {approvals}}}\n");
        fs::write(&rules, text).unwrap();
    };
    need(2);
    let args = ["--hold", "0", "--rules", rules.as_str()];
    let gate = lab.start(&args);
    let [half, none] = asked(&gate, ["half", "none"]).await;
    gate.decide("dana", &half, true, "").await;
    lab.backs_up("backup.db");
    gate.decide("lee", &half, true, "").await;
    assert!(gate.check(migrate("half", "v3", 2)).await.is_allowed());
    gate.kill();

    let (done, text) = lab.run("restore", &["--replace", &lab.file("backup.db")]);
    assert!(done && text.contains("some of their approvals: 1"), "{text}");
    need(1);
    let gate = lab.start(&args);
    let verdict = gate.check(migrate("half", "v3", 3)).await;
    assert!(!verdict.is_allowed(), "{verdict:?}");
    gate.until_state(&half, "expired").await;
    gate.until_state(&none, "pending").await;
    let rows = rows(&gate).await;
    let expired = rows.iter().find(|row| row["kind"] == "expired").unwrap();
    assert!(expired["data"]["reason"].as_str().unwrap().contains("comes from a backup"));
    // Somebody who looks at it now can approve it, as a request of its own.
    let again = gate.pending().await;
    let again = again.iter().find(|request| request["requester"]["name"] == "half").unwrap();
    assert_eq!(gate.decide("lee", &id_of(again), true, "").await.0, 204);
    assert!(gate.check(migrate("half", "v3", 4)).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_postgresql_that_was_restored_is_recalled_before_its_gates_start() {
    let (lab, server) = (Lab::new(), Server::start());
    let gate = lab.replica(&server.url(), &["--hold", "0"]);
    let [granted, waiting] = asked(&gate, ["granted", "waiting"]).await;
    gate.decide("dana", &granted, true, "").await;
    let beforehand = json!({"condition": "true", "uses": 3, "seconds": 600, "reason": "a release"});
    assert_eq!(gate.preapprove("dana", &granted, &beforehand).await.0, 201);
    let dump = server.dumps();
    assert!(gate.check(migrate("granted", "v3", 2)).await.is_allowed());
    assert!(gate.check(migrate("granted", "v4", 3)).await.is_allowed());
    gate.kill();

    server.client().await.batch_execute("DROP SCHEMA hitl CASCADE").await.unwrap();
    // A database into which nothing was restored is not called recalled, and stays empty.
    let (done, text) = run(&["recall", "--database", &server.url()]);
    assert!(!done && text.contains("restore the backup first"), "{text}");
    server.restores(&dump);
    // The gate of the dump was there a moment ago.
    let recall = || run(&["recall", "--database", &server.url()]);
    let begun = Instant::now();
    let first = loop {
        let (done, text) = recall();
        if done {
            break (done, text);
        }
        assert!(
            text.contains("gates have this database open") && begun.elapsed() < PATIENCE,
            "{text}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut first = Some(first);
    for found in [1, 0] {
        let (done, text) = first.take().unwrap_or_else(recall);
        let says =
            format!("Approvals that lapsed: {found}; pre-approvals that were ended: {found}");
        assert!(done && text.contains(&says), "{text}");
    }
    assert!(run(&["audit", "verify", &server.url()]).0);
    let gate = lab.replica(&server.url(), &["--hold", "0"]);
    for (version, number) in [("v3", 4), ("v4", 5)] {
        let verdict = gate.check(migrate("granted", version, number)).await;
        assert!(!verdict.is_allowed(), "{verdict:?}");
    }
    gate.decide("dana", &waiting, true, "").await;
    assert!(gate.check(migrate("waiting", "v3", 2)).await.is_allowed());
    let (done, text) = run(&["backup", "--database", &server.url(), &lab.file("copy.db")]);
    assert!(!done && text.contains("with its own tools"), "{text}");
}
