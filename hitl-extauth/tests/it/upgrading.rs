//! A database of any older schema goes on where it was: its chain, what waits, and what was granted.

use std::path::Path;

use refinery::{Migration, Runner, Target};
use rusqlite::Connection;

use crate::{
    postgres::Server,
    support::{Gate, Lab, PATIENCE, command, id_of, migrate},
};

/// A gate's, and no other program's.
const APPLICATION_ID: i64 = 0x4741_5445;

fn run(args: &[&str]) -> (bool, String) {
    let output = command().args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn ask(gate: &Gate, user: &str) -> String {
    gate.check(migrate(user, "v3", 1)).await;
    let all = gate.pending().await;
    id_of(all.iter().find(|request| request["requester"]["name"] == user).unwrap())
}

/// A request in every state there is, and the states.
async fn filled(lab: &Lab) -> Vec<(String, &'static str)> {
    let brief = ["--hold", "0", "--expire-after", "1", "--grant-for", "1"];
    let gate = lab.start(&brief);
    let (expired, lapsed) = (ask(&gate, "expired").await, ask(&gate, "lapsed").await);
    gate.decide("dana", &lapsed, true, "").await;
    gate.until_state(&expired, "expired").await;
    gate.until_state(&lapsed, "lapsed").await;
    gate.terminate();
    assert!(gate.exited().await.success());
    let gate = lab.start(&["--hold", "0"]);
    let mut all = vec![(expired, "expired"), (lapsed, "lapsed")];
    for (user, state) in [
        ("pending", "pending"),
        ("approved", "approved"),
        ("spent", "spent"),
        ("denied", "denied"),
        ("alice", "withdrawn"),
    ] {
        let id = ask(&gate, user).await;
        match state {
            "approved" | "spent" => gate.decide("dana", &id, true, "“yes”, said 道").await.0,
            "denied" => gate.decide("lee", &id, false, "no").await.0,
            "withdrawn" => gate.withdraw("alice", &id).await,
            _ => 204,
        };
        if state == "spent" {
            assert!(gate.check(migrate(user, "v3", 2)).await.is_allowed());
        }
        gate.until_state(&id, state).await;
        all.push((id, state));
    }
    gate.terminate();
    assert!(gate.exited().await.success());
    all
}

/// A database as the version that had this schema would have it, with everything of a newer one that it
/// could keep.
fn older(path: &Path, newer: &Path, all: &[Migration], version: i32) {
    let mut old = Connection::open(path).unwrap();
    Runner::new(all).set_target(Target::Version(version)).run(&mut old).unwrap();
    old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    old.pragma_update(None, "journal_mode", "wal").unwrap();
    old.execute("ATTACH ?1 AS newer", [newer.to_str().unwrap()]).unwrap();
    // The tally and the crowds keep themselves.
    let tables = "SELECT name FROM main.sqlite_schema WHERE type = 'table'
                  AND name NOT IN ('refinery_schema_history', 'tally', 'crowds', 'probe') ORDER BY name";
    let names = |sql: &str| -> Vec<String> {
        let mut statement = old.prepare(sql).unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.collect::<Result<_, _>>().unwrap()
    };
    for table in names(tables) {
        let columns = names(&format!("SELECT name FROM pragma_table_info('{table}', 'main')"));
        let columns = columns.join(", ");
        let copy =
            format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}");
        old.execute_batch(&copy).unwrap();
    }
}

/// That how many of each crowd wait is what the requests say.
fn crowds_are_counted(path: &Path) {
    let counted = "SELECT address, requests FROM crowds";
    let there = "SELECT coalesce(address, ''), count(*) FROM requests
                 WHERE state = 'pending' AND assurance <> 'verified' GROUP BY 1";
    let differ = format!(
        "SELECT count(*) FROM (SELECT * FROM ({counted} EXCEPT {there})
         UNION ALL SELECT * FROM ({there} EXCEPT {counted}))"
    );
    let database = Connection::open(path).unwrap();
    assert_eq!(database.query_row(&differ, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_every_older_schema_the_chain_verifies_what_waits_is_decided_and_grants_pass_once() {
    let lab = Lab::new();
    let requests = filled(&lab).await;
    let of = |state: &str| &requests.iter().find(|(_, is)| *is == state).unwrap().0;
    let newest = lab.path("gate.db");
    crowds_are_counted(&newest);
    let (whole, said) = run(&["audit", "verify", newest.to_str().unwrap()]);
    assert!(whole, "{said}");
    let head = said.trim().rsplit(' ').next().unwrap();

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
    let all = refinery::load_sql_migrations(folder).unwrap();
    let mut versions: Vec<_> = all.iter().map(Migration::version).collect();
    versions.sort_unstable();
    for version in versions {
        let path = lab.path(&format!("schema-{version}.db"));
        older(&path, &newest, &all, version);
        let database = path.display().to_string();
        // As before every upgrade: the new program copies what the old one has written.
        let backup = lab.path(&format!("backup-{version}.db")).display().to_string();
        let (done, said) = run(&["backup", "--database", &database, &backup]);
        assert!(done && said.contains(head), "{version}: {said}");

        let gate = lab.replica(&database, &["--hold", "0"]);
        for (id, state) in &requests {
            assert_eq!(gate.json(&format!("/requests/{id}")).await["state"], *state, "{version}");
        }
        let approved = gate.json(&format!("/requests/{}", of("approved"))).await;
        assert_eq!(approved["votes"][0]["reason"], "“yes”, said 道");
        assert_eq!(gate.decide("lee", of("pending"), true, "").await.0, 204, "{version}");
        for user in ["pending", "approved"] {
            let once = gate.check(migrate(user, "v3", 3)).await;
            assert!(once.is_allowed(), "{version} {user}: {once:?}");
            let again = gate.check(migrate(user, "v3", 4)).await;
            assert!(!again.is_allowed(), "{version} {user}: {again:?}");
        }
        // What was over stays over.
        for user in ["spent", "denied", "expired", "lapsed", "alice"] {
            assert!(!gate.check(migrate(user, "v3", 3)).await.is_allowed(), "{version} {user}");
        }
        gate.terminate();
        assert!(gate.exited().await.success());
        let (whole, said) = run(&["audit", "verify", &database, "--head", head]);
        assert!(whole, "{version}: {said}");
        crowds_are_counted(&path);

        // And the way back to before the upgrade.
        let (done, said) = run(&["restore", "--database", &database, "--replace", &backup]);
        assert!(done && said.contains("Approvals that lapsed: 1"), "{version}: {said}");
        let gate = lab.replica(&database, &["--hold", "0"]);
        gate.until_state(of("pending"), "pending").await;
        assert!(!gate.check(migrate("approved", "v3", 5)).await.is_allowed(), "{version}");
        gate.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn what_an_older_gate_writes_while_the_crowds_are_first_counted_is_counted() {
    const OURS: &str = "SET search_path TO hitl, pg_catalog";
    let server = Server::start();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
    let all = refinery::load_sql_migrations(folder).unwrap();
    let mut newer = server.client().await;
    newer.batch_execute(&format!("CREATE SCHEMA hitl; {OURS}")).await.unwrap();
    Runner::new(&all).set_target(Target::Version(4)).run_async(&mut newer).await.unwrap();

    let older = server.client().await;
    older.batch_execute(OURS).await.unwrap();
    let insert = "INSERT INTO requests (id, digest, state, received_at, expires_at, needed, requester, assurance,
        route, server, method, path, address, headers, body, tool, arguments)
        SELECT gen_random_uuid(), n::text, 'pending', n, 9, 1, 'alice', 'claimed', '', '', 'POST', '/', '10.0.0.7',
        '{}', '', 'run_migration', '{}' FROM generate_series(1, 5) AS n";
    older.batch_execute(insert).await.unwrap();
    // It is in the middle of denying three of them.
    let denying =
        "BEGIN; UPDATE requests SET state = 'denied', settled_at = 9 WHERE received_at <= 3";
    older.batch_execute(denying).await.unwrap();
    let bringing = tokio::spawn(async move {
        Runner::new(&all).run_async(&mut newer).await.unwrap();
        newer
    });
    let looker = server.client().await;
    let waits = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while looker.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap();
    older.batch_execute("COMMIT").await.unwrap();
    let newer = tokio::time::timeout(PATIENCE, bringing).await.unwrap().unwrap();

    let counted = async || {
        let rows = newer.query("SELECT address, requests FROM crowds", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, i64)>>()
    };
    assert_eq!(counted().await, [("10.0.0.7".to_owned(), 2)]);
    // And the rest of them are counted as they are settled, whoever does so.
    older
        .batch_execute("UPDATE requests SET state = 'expired' WHERE state = 'pending'")
        .await
        .unwrap();
    assert_eq!(counted().await, []);
}
