//! Backups are whole or not there, and what comes back from one lets nothing pass a second time.

mod recalling;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Gate, Lab, PATIENCE, command, id_of, migrate};

/// Runs the binary for something else than serving: whether it succeeded, and what it said.
fn run(args: &[&str]) -> (bool, String) {
    said(&command().args(args).output().unwrap())
}

fn said(output: &Output) -> (bool, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

impl Lab {
    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The same about this lab's database.
    fn run(&self, verb: &str, args: &[&str]) -> (bool, String) {
        run(&[&[verb, "--database", &self.file("gate.db")], args].concat())
    }

    fn backs_up(&self, name: &str) -> String {
        let (done, text) = self.run("backup", &[&self.file(name)]);
        assert!(done && text.contains("every one follows from the one before"), "{text}");
        text.trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// What lies in its folder, but for what a running gate has there.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path(".")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// Requests of these users, with nobody waiting, and their ids.
async fn asked<const N: usize>(gate: &Gate, users: [&str; N]) -> [String; N] {
    for user in users {
        gate.check(migrate(user, "v3", 1)).await;
    }
    let all = gate.pending().await;
    users
        .map(|user| id_of(all.iter().find(|request| request["requester"]["name"] == user).unwrap()))
}

async fn rows(gate: &Gate) -> Vec<Value> {
    gate.get("/audit").await.1.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_restored_lets_no_approval_of_its_time_pass_and_keeps_what_waits() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let [granted, waiting, denied] = asked(&gate, ["granted", "waiting", "denied"]).await;
    gate.decide("dana", &granted, true, "go").await;
    gate.decide("dana", &denied, false, "no").await;
    let beforehand = json!({"condition": "true", "uses": 3, "seconds": 600, "reason": "a release"});
    assert_eq!(gate.preapprove("dana", &granted, &beforehand).await.0, 201);
    let head = lab.backs_up("backup.db");
    // What the backup does not know: both are used.
    assert!(gate.check(migrate("granted", "v3", 2)).await.is_allowed());
    assert!(gate.check(migrate("granted", "v4", 3)).await.is_allowed());
    gate.kill();

    let (done, text) = lab.run("restore", &["--replace", "--head", &head, &lab.file("backup.db")]);
    assert!(done, "{text}");
    assert!(text.contains("Approvals that lapsed: 1; pre-approvals that were ended: 1"), "{text}");
    let gate = lab.start(&["--hold", "0"]);
    for (version, number) in [("v3", 4), ("v4", 5)] {
        let verdict = gate.check(migrate("granted", version, number)).await;
        assert!(!verdict.is_allowed(), "{verdict:?}");
    }
    assert_eq!(gate.json("/preapprovals").await["preapprovals"], json!([]));
    let rows = rows(&gate).await;
    let why = "the database comes from a backup, and it may have been used since then";
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind).unwrap().clone();
    let (lapsed, ended) = (of("lapsed"), of("preapproval_ended"));
    assert_eq!((&lapsed["request"], &lapsed["data"]["reason"]), (&json!(granted), &json!(why)));
    assert_eq!(ended["data"]["reason"], why);
    assert_eq!(ended["data"]["reviewer"], "hitl-extauth");
    gate.until_state(&granted, "lapsed").await;
    gate.until_state(&denied, "denied").await;
    assert!(run(&["audit", "verify", &lab.file("gate.db"), "--head", &head]).0);

    // Whoever has seen rows that are gone hears of what is new all the same.
    let mut events = gate.events(Some(rows.len() as u64 + 100)).await;
    gate.decide("lee", &waiting, true, "").await;
    let told = async {
        let mut text = String::new();
        while !text.contains(&waiting) {
            text += &String::from_utf8_lossy(&events.chunk().await.unwrap().unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(gate.check(migrate("waiting", "v3", 2)).await.is_allowed());
    assert!(!gate.check(migrate("waiting", "v3", 3)).await.is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_while_calls_come_and_are_decided() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "2"]);
    let (grpc, admin, http) = gate.doors();
    let mut load = JoinSet::new();
    for user in 0..4 {
        let grpc = grpc.clone();
        load.spawn(async move {
            for number in 0.. {
                let check = migrate(&format!("user-{user}"), &format!("v{number}"), number);
                Gate::try_check(grpc.clone(), check).await;
            }
        });
    }
    load.spawn(async move {
        loop {
            Gate::try_decide(http.clone(), admin.clone(), true).await;
        }
    });
    let mut seen = 0;
    for number in 0..6 {
        // Each has more than the one before.
        let more = async { while gate.json("/audit/head").await["seq"].as_u64() <= Some(seen) {} };
        tokio::time::timeout(PATIENCE, more).await.unwrap();
        let name = format!("backup-{number}.db");
        let head = tokio::task::block_in_place(|| lab.backs_up(&name));
        seen = head.split(':').next().unwrap().parse().unwrap();
        let file = lab.file(&name);
        assert!(run(&["audit", "verify", &file, "--head", &head]).0);
        // Nobody else may read it: there are bodies of calls in it.
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }
    load.shutdown().await;
    // The gate has gone on all the time, and its own audit holds every backup's head.
    gate.terminate();
    assert!(gate.exited().await.success());
    assert!(run(&["audit", "verify", &lab.file("gate.db")]).0);
    let other = lab.file("other.db");
    let (done, text) = run(&["restore", "--database", &other, &lab.file("backup-5.db")]);
    assert!(done, "{text}");
    lab.replica(&other, &[]).until_ready(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_nothing_under_its_name() {
    const KILLS: u32 = 15;
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0", "--max-pending-per-requester", "10000"]);
    for number in 0..60 {
        gate.check(migrate("alice", &"v".repeat(20_000 + number as usize), number)).await;
    }
    let begun = std::time::Instant::now();
    lab.backs_up("first.db");
    let takes = begun.elapsed();
    let (mut killed, mut done) = (0, 0);
    for round in 0..KILLS {
        let name = format!("backup-{round}.db");
        let mut backup = command();
        backup.args(["backup", "--database", &lab.file("gate.db"), &lab.file(&name)]);
        let mut backup = backup.stdout(Stdio::null()).spawn().unwrap();
        // At another moment each time: it is what happens in between that is looked for.
        std::thread::sleep(takes * round / KILLS);
        backup.kill().unwrap();
        backup.wait().unwrap();
        if lab.path(&name).exists() {
            done += 1;
            assert!(run(&["audit", "verify", &lab.file(&name)]).0, "{name} is there and not whole");
        } else {
            killed += 1;
        }
    }
    println!("{killed} backups were killed, {done} were whole");
    assert!(killed > 0);
    // What it leaves has a name that says so.
    let left = lab.files();
    let mut beside = left.iter().filter_map(|name| name.strip_prefix("backup-")?.split_once(".db"));
    assert!(beside.all(|(_, end)| end.is_empty() || end.contains(".partial")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over_and_nothing_is_restored_under_a_running_gate() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let [waiting] = asked(&gate, ["alice"]).await;
    lab.backs_up("backup.db");
    let backup = lab.file("backup.db");
    let before = fs::read(&backup).unwrap();
    let (done, text) = lab.run("backup", &[&backup]);
    assert!(!done && text.contains("is there already, and stays as it is"), "{text}");
    assert_eq!(fs::read(&backup).unwrap(), before);
    let (done, text) = lab.run("restore", &[&backup]);
    assert!(!done && text.contains("say --replace to put it aside"), "{text}");
    let (done, text) = lab.run("restore", &["--replace", &backup]);
    assert!(!done && text.contains("is in use: stop the gate first"), "{text}");
    let (done, text) = lab.run("recall", &[]);
    assert!(!done && text.contains("is in use: stop the gate first"), "{text}");
    // It goes on as if nobody had asked.
    gate.decide("dana", &waiting, true, "").await;
    assert!(gate.check(migrate("alice", "v3", 2)).await.is_allowed());
    gate.kill();
    let (done, text) = lab.run("restore", &["--replace", &lab.file("gate.db")]);
    assert!(!done && text.contains("is the backup and the gate's database at once"), "{text}");

    let (done, text) = lab.run("restore", &["--replace", &backup]);
    assert!(done, "{text}");
    // The old one is kept, and is no gate's any more; but one may go back to it.
    let aside = lab.files().into_iter().find(|name| name.starts_with("gate.db.replaced-")).unwrap();
    let (started, text) = run(&["--insecure-no-reviewer-auth", "--database", &lab.file(&aside)]);
    assert!(!started && text.contains("was put aside by `restore`"), "{text}");
    assert!(run(&["audit", "verify", &lab.file(&aside)]).0);
    assert!(!lab.files().iter().any(|name| name.contains(".partial")), "{:?}", lab.files());
    let (done, text) = lab.run("restore", &["--replace", &lab.file(&aside)]);
    assert!(done, "{text}");
    let gate = lab.start(&["--hold", "0"]);
    gate.until_state(&waiting, "spent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_backup_is_refused_and_the_database_stays_as_it_is() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    for number in 0..30 {
        gate.check(migrate("alice", &format!("v{number}"), number)).await;
    }
    let head = lab.backs_up("good.db");
    gate.terminate();
    assert!(gate.exited().await.success());
    let before = fs::read(lab.path("gate.db")).unwrap();
    let change = |name: &str, sql: &str| {
        fs::copy(lab.path("good.db"), lab.path(name)).unwrap();
        let past = rusqlite::Connection::open(lab.path(name)).unwrap();
        past.execute_batch(sql).unwrap();
    };
    change(
        "rewritten.db",
        "DROP TRIGGER events_keep_what_they_say; UPDATE events SET kind = 'approved' WHERE seq = 7",
    );
    change("cut.db", "DROP TRIGGER events_keep_their_rows; DELETE FROM events WHERE seq > 20");
    change(
        "newer.db",
        "INSERT INTO refinery_schema_history VALUES (999, 'from_the_future', '2026-01-01T00:00:00Z', '1')",
    );
    change("moved.db", "PRAGMA application_id = 1196379717");
    rusqlite::Connection::open(lab.path("foreign.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let mut torn = fs::read(lab.path("good.db")).unwrap();
    fs::write(lab.path("short.db"), &torn[..torn.len() / 2]).unwrap();
    let (from, until) = (torn.len() / 2, torn.len() / 2 + 9000);
    torn[from..until].fill(0xa5);
    fs::write(lab.path("torn.db"), &torn).unwrap();
    fs::write(lab.path("text.db"), "not a database, but long enough to be looked at\n".repeat(99))
        .unwrap();
    fs::write(lab.path("empty.db"), "").unwrap();
    for (name, why) in [
        ("rewritten.db", "row 7 does not say what its hash says"),
        ("newer.db", "Run the version that wrote it, or newer"),
        ("moved.db", "was moved to a PostgreSQL"),
        ("foreign.db", "is no database of a gate"),
        ("short.db", "malformed"),
        ("torn.db", "malformed"),
        ("text.db", "not a database"),
        ("empty.db", "is no database of a gate"),
        ("missing.db", "unable to open"),
        // The chain is whole in itself; what was noted elsewhere says more.
        ("cut.db", "the head noted earlier is row"),
    ] {
        let (done, text) = lab.run("restore", &["--replace", "--head", &head, &lab.file(name)]);
        assert!(!done && text.contains(why), "{name}: {text}");
        assert_eq!(fs::read(lab.path("gate.db")).unwrap(), before, "{name}");
    }
    let left = lab.files();
    assert!(
        !left.iter().any(|name| name.contains(".partial") || name.contains("replaced")),
        "{left:?}"
    );
    // Nor is one copied that is not whole.
    for name in ["rewritten.db", "torn.db", "foreign.db"] {
        let (done, text) = run(&["backup", "--database", &lab.file(name), &lab.file("copy.db")]);
        assert!(!done && !lab.path("copy.db").exists(), "{name}: {text}");
    }
    // A log that another database has left there would be read into this one.
    for name in lab.files().iter().filter(|name| name.starts_with("gate.db")) {
        fs::remove_file(lab.path(name)).unwrap();
    }
    fs::write(lab.path("gate.db-wal"), "left").unwrap();
    let (done, text) = lab.run("restore", &[&lab.file("good.db")]);
    assert!(!done && text.contains("put it away"), "{text}");
    fs::remove_file(lab.path("gate.db-wal")).unwrap();
    let (done, text) = lab.run("restore", &["--head", &head, &lab.file("good.db")]);
    assert!(done, "{text}");
    lab.start(&[]).until_ready(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_through_a_pipe_out_and_in() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    asked(&gate, ["alice"]).await;
    let database = lab.file("gate.db");
    let out = command().args(["backup", "--database", &database, "-"]).output().unwrap();
    let noted = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && noted.contains("rows of the audit"), "{noted}");
    let head = noted.trim().rsplit(' ').next().unwrap();
    gate.kill();
    let into = |bytes: &[u8]| {
        let mut restore = command();
        restore.args(["restore", "--database", &database, "--replace", "--head", head, "-"]);
        let restore = restore.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut restore = restore.spawn().unwrap();
        let mut pipe = restore.stdin.take().unwrap();
        // One that ends early has said why.
        let _ = pipe.write_all(bytes);
        drop(pipe);
        said(&restore.wait_with_output().unwrap())
    };
    // A connection that broke.
    let (done, text) = into(&out.stdout[..out.stdout.len() / 2]);
    assert!(!done && text.contains("standard input"), "{text}");
    let (done, text) = into(&out.stdout);
    assert!(done, "{text}");
    assert!(!lab.files().iter().any(|name| name.contains(".partial")), "{:?}", lab.files());
    assert_eq!(lab.start(&[]).pending().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_finds_no_room_leaves_nothing() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    for number in 0..30 {
        gate.check(migrate("alice", &format!("{}{number}", "v".repeat(20_000)), number)).await;
    }
    lab.backs_up("whole.db");
    // A disk with room for the database, and not for a second one.
    let kilobytes = fs::metadata(lab.path("whole.db")).unwrap().len() / 1024 * 3 / 2;
    fs::create_dir(lab.path("disk")).unwrap();
    let mut command = hitl_process::command("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let copy = r#"mount -t tmpfs -o "size=$1k" none "$3" && cp "$2" "$3/gate.db" || exit 9
        "$4" backup --database "$3/gate.db" "$3/backup.db"; echo "ended with $?"; ls -A "$3""#;
    command.args(["--mount", "sh", "-c", copy, "sh", &kilobytes.to_string()]);
    command.args([lab.file("whole.db"), lab.file("disk")]).arg(env!("CARGO_BIN_EXE_hitl-extauth"));
    let (done, text) = said(&command.output().unwrap());
    assert!(done && text.contains("ended with 1"), "{text}");
    assert!(text.contains("there is no room for a copy"), "{text}");
    assert!(!text.contains("partial") && !text.contains("\nbackup.db"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_one_whole_database_in_place_or_wants_to_be_given_again() {
    const KILLS: u32 = 15;
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let [granted] = asked(&gate, ["granted"]).await;
    gate.decide("dana", &granted, true, "").await;
    for number in 0..40 {
        gate.check(migrate("alice", &"v".repeat(20_000 + number as usize), number)).await;
    }
    lab.backs_up("backup.db");
    let backup = lab.file("backup.db");
    gate.kill();
    let begun = std::time::Instant::now();
    assert!(lab.run("restore", &["--replace", &backup]).0);
    let takes = begun.elapsed();
    for round in 0..KILLS {
        let mut restore = command();
        restore.args(["restore", "--database", &lab.file("gate.db"), "--replace", &backup]);
        let mut restore = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(takes * round / KILLS);
        restore.kill().unwrap();
        restore.wait().unwrap();
        let (whole, text) = run(&["audit", "verify", &lab.file("gate.db")]);
        assert!(whole, "{text}");
        // What a gate that starts now would say.
        let (ours, text) = lab.run("recall", &[]);
        assert!(ours || text.contains("was put aside by `restore`"), "{text}");
    }
    let (done, text) = lab.run("restore", &["--replace", &backup]);
    assert!(done, "{text}");
    let gate = lab.start(&["--hold", "0"]);
    gate.until_state(&granted, "lapsed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_put_back_by_hand_is_recalled() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let [granted] = asked(&gate, ["alice"]).await;
    gate.decide("dana", &granted, true, "").await;
    gate.terminate();
    assert!(gate.exited().await.success());
    for lapsed in [1, 0] {
        let (done, text) = lab.run("recall", &[]);
        let says = format!("Approvals that lapsed: {lapsed}; pre-approvals that were ended: 0");
        assert!(done && text.contains(&says), "{text}");
    }
    let gate = lab.start(&["--hold", "0"]);
    gate.until_state(&granted, "lapsed").await;
    assert!(!gate.check(migrate("alice", "v3", 2)).await.is_allowed());
    assert!(run(&["audit", "verify", &lab.file("gate.db")]).0);
    let (done, text) = run(&["recall", "--database", &lab.file("nothing.db")]);
    assert!(!done && text.contains("unable to open") && !lab.path("nothing.db").exists(), "{text}");
}
