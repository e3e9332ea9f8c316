//! From one machine to a team: a lab's file moves to a PostgreSQL, which is reached safely.

use std::{
    io::Read as _,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::{
    postgres::{NOBODY, Server},
    support::{Lab, PATIENCE, command, id_of, migrate},
};

fn gate(args: &[&str]) -> Command {
    let mut command = command();
    command.args(args);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

fn run(args: &[&str]) -> (bool, String) {
    let output = gate(args).output().unwrap();
    (output.status.success(), said(&output))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_file_moves_with_its_chain_and_is_used_no_more() {
    let (lab, server) = (Lab::new(), Server::start());
    let alone = lab.start(&["--hold", "0"]);
    for user in ["waiting", "granted", "denied"] {
        alone.check(migrate(user, "v3", 1)).await;
    }
    let of = |list: &[serde_json::Value], user: &str| {
        id_of(list.iter().find(|request| request["requester"]["name"] == user).unwrap())
    };
    let pending = alone.pending().await;
    let (waiting, granted) = (of(&pending, "waiting"), of(&pending, "granted"));
    alone.decide("dana", &granted, true, "“yes”, said 道").await;
    alone.decide("dana", &of(&pending, "denied"), false, "no").await;
    let beforehand = json!({"condition": "true", "uses": 2, "seconds": 600, "reason": "a release"});
    let (status, made) = alone.preapprove("dana", &granted, &beforehand).await;
    assert_eq!(status, 201, "{made}");
    let before = alone.get("/audit").await.1;
    let (from, url) = (format!("sqlite://{}", lab.path("gate.db").display()), server.url());
    let moving = ["migrate", "--from", &from, "--to", &url];

    // Not while somebody writes to it.
    let (moved, text) = run(&moving);
    assert!(!moved && text.contains("stop the gate first"), "{text}");
    alone.kill();
    let (moved, text) = run(&["migrate", "--from", &url, "--to", &from]);
    assert!(!moved && text.contains("in no other way"), "{text}");
    let (moved, text) = run(&moving);
    assert!(moved && text.contains("3 requests, 2 votes, 1 pre-approvals and 9 rows"), "{text}");
    let (whole, text) = run(&["audit", "verify", &url]);
    assert!(whole && text.contains("9 rows"), "{text}");
    assert_eq!(run(&["audit", "export", &url]).1, before);

    // Neither twice, nor back into the file.
    let (again, text) = run(&moving);
    assert!(!again && text.contains("was moved to a PostgreSQL"), "{text}");
    let (started, text) = run(&["--insecure-no-reviewer-auth", "--database", &from]);
    assert!(!started && text.contains("was moved to a PostgreSQL"), "{text}");
    // Nor into one that is in use.
    let other = lab.path("other.db").display().to_string();
    let second = lab.replica(&other, &["--hold", "0"]);
    second.check(migrate("bob", "v9", 1)).await;
    second.kill();
    let (into, text) = run(&["migrate", "--from", &other, "--to", &url]);
    assert!(!into && text.contains("holds requests or an audit already"), "{text}");

    let replica = lab.replica(&url, &[]);
    assert!(replica.check(migrate("granted", "v3", 2)).await.is_allowed());
    let request = replica.until_state(&granted, "spent").await;
    assert_eq!(request["votes"][0]["reason"], "“yes”, said 道");
    // What was approved beforehand still is.
    assert!(replica.check(migrate("granted", "v4", 3)).await.is_allowed());
    assert_eq!(replica.json("/preapprovals").await["preapprovals"][0]["used"], 1);
    let call = replica.hold(migrate("waiting", "v3", 2)).await;
    assert_eq!(replica.waiting_one().await, waiting);
    replica.decide("lee", &waiting, true, "").await;
    assert!(call.await.unwrap().is_allowed());
    let after = replica.get("/audit").await.1;
    assert!(after.starts_with(&before));
    assert!(run(&["audit", "verify", &url]).0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn whoever_reads_an_export_may_take_their_time() {
    let (lab, server) = (Lab::new(), Server::start());
    let replica = lab.replica(&server.url(), &["--hold", "0"]);
    for number in 0..150 {
        let version = "v".repeat(4000) + &number.to_string();
        replica.check(migrate(&format!("user-{number}"), &version, 1)).await;
    }
    let mut export =
        gate(&["audit", "export", &server.url()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = export.stdout.take().unwrap();
    // Longer than a session of the gate may be idle in a transaction.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut text = String::new();
    tokio::task::block_in_place(|| out.read_to_string(&mut text)).unwrap();
    assert!(export.wait().unwrap().success());
    assert!(text.lines().count() >= 150, "{}", text.lines().count());
    // An audit that is changed past the gate is not whole.
    let client = server.client().await;
    let change = "UPDATE hitl.events SET kind = 'approved' WHERE seq = 2";
    assert!(client.batch_execute(change).await.unwrap_err().to_string().contains("db error"));
    let past = "ALTER TABLE hitl.events DISABLE TRIGGER USER";
    client.batch_execute(past).await.unwrap();
    client.batch_execute(change).await.unwrap();
    let (whole, text) = run(&["audit", "verify", &server.url()]);
    assert!(!whole && text.contains("row 2 does not say what its hash says"), "{text}");
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// An authority, and a certificate of it for this machine.
fn certificates(folder: &Path, name: &str) -> [String; 3] {
    let path = |file: &str| folder.join(format!("{name}-{file}")).display().to_string();
    let (ca, ca_key, pem, key) = (path("ca.pem"), path("ca.key"), path("pem"), path("key"));
    let new = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let days = ["-days", "2", "-subj", "/CN=test"];
    openssl(&[&new[..], &days, &["-keyout", &ca_key, "-out", &ca]].concat());
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    let name = ["-addext", "subjectAltName=IP:127.0.0.1"];
    let by = ["-CA", &ca, "-CAkey", &ca_key, "-keyout", &key, "-out", &pem];
    openssl(&[&new[..], &days, &leaf, &name, &by].concat());
    [ca, pem, key]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn postgresql_is_reached_by_verified_tls_with_a_password_that_may_change() {
    let (lab, mut server) = (Lab::new(), Server::start());
    let client = server.client().await;
    client.batch_execute("ALTER ROLE gate PASSWORD 'first-one'").await.unwrap();
    let keys = lab.path("keys");
    std::fs::create_dir(&keys).unwrap();
    let [authority, pem, key] = certificates(&keys, "right");
    let [another, ..] = certificates(&keys, "wrong");
    server.only_by_tls(&pem, &key);

    let (file, tls) = (lab.path("password"), format!("{}?sslmode=verify-full", server.url()));
    let file = file.display().to_string();
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("first-one\n");
    let base = ["--insecure-no-reviewer-auth", "--database-password-file", &file];
    let start = |more: &[&str]| run(&[&base[..], more].concat());
    let (_, text) = start(&["--database", &server.url()]);
    assert!(text.contains("no encryption") && !text.contains("first-one"), "{text}");
    let (_, text) = start(&["--database", &tls, "--database-ca", &another]);
    assert!(text.contains("certificate"), "{text}");
    write("not-that-one");
    let (_, text) = start(&["--database", &tls, "--database-ca", &authority]);
    assert!(text.contains("password authentication failed"), "{text}");
    assert!(!text.contains("not-that-one"), "{text}");
    // What is wrong with a URL is said without the URL.
    let wrong = "postgres://gate:hunter2@db.example/n?sslmode=prefer";
    let (_, text) = run(&["--database", wrong, "--insecure-no-reviewer-auth"]);
    assert!(text.contains("sslmode=prefer is not known") && !text.contains("hunter2"), "{text}");
    let help = gate(&["--help"]).env("HITL_DATABASE", wrong).output().unwrap();
    assert!(!said(&help).contains("hunter2"));

    write("first-one\n");
    let safe = ["--database-ca", &authority, "--database-password-file", &file];
    let replica = lab.replica(&tls, &safe);
    let call = replica.hold(migrate("alice", "v3", 1)).await;
    let id = replica.waiting_one().await;
    let encrypted = "SELECT count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl JOIN pg_stat_activity
                     USING (pid) WHERE application_name = 'hitl-extauth'";
    let plain: i64 = client.query_one(encrypted, &[]).await.unwrap().get(0);
    assert_eq!(plain, 0);
    // Another password, and no connection survives: no restart is needed.
    client.batch_execute("ALTER ROLE gate PASSWORD 'another-one'").await.unwrap();
    write("another-one");
    let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'hitl-extauth'";
    client.batch_execute(all).await.unwrap();
    let decided = async { while replica.decide("dana", &id, true, "").await.0 != 204 {} };
    tokio::time::timeout(PATIENCE, decided).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().is_allowed());
}

impl Server {
    /// From now on it takes in nobody without TLS and a password.
    fn only_by_tls(&mut self, pem: &str, key: &str) {
        let key_here = self.folder().join("server.key");
        std::fs::copy(key, &key_here).unwrap();
        std::fs::set_permissions(&key_here, PermissionsExt::from_mode(0o600)).unwrap();
        let pem_here = self.folder().join("server.pem");
        std::fs::copy(pem, &pem_here).unwrap();
        if rustix::process::geteuid().is_root() {
            for file in [&key_here, &pem_here] {
                chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        self.configure(&format!(
            "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'",
            pem_here.display(),
            key_here.display()
        ));
        let rules = self.folder().join("data/pg_hba.conf");
        std::fs::write(rules, "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        self.reload();
    }
}
