//! With keys configured, `run_migration` runs once for each approval, and never without one.

use std::{fs, path::PathBuf};

use axum::{Router, routing::get};
use hitl_receipt::{ArgsDigest, Claims, ReceiptId, Signer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Server};

fn signer() -> Signer {
    Signer::from_bytes(&[7; 32]).unwrap()
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap()
}

/// A receipt for `run_migration` with `arguments`, as the gate makes it.
fn claims(id: &str, arguments: &Value) -> Claims {
    Claims {
        iss: "hitl-extauth".into(),
        aud: "mcp-ops-tools".into(),
        jti: ReceiptId::new(id),
        iat: now(),
        exp: now() + hitl_receipt::LIFETIME_SECONDS,
        tool: "run_migration".into(),
        args_sha256: ArgsDigest::of(arguments.as_object()).unwrap().as_str().into(),
        sub: Some("alice@example.com".into()),
        approved_by: vec!["dana".into(), "lee".into()],
        allowed_by: Vec::new(),
        preapproval: None,
    }
}

fn receipt(id: &str, version: &str) -> String {
    signer().sign(&claims(id, &json!({"version": version}))).unwrap()
}

async fn migrate(server: &Server, version: &str, receipt: &str) -> Answer {
    let headers = [("x-hitl-receipt", receipt), ("x-user-id", "alice")];
    server.call_with("run_migration", json!({"version": version}), &headers).await
}

struct Lab {
    folder: TempDir,
    keys: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys.json");
        fs::write(&keys, signer().jwks().to_string()).unwrap();
        Self { folder, keys }
    }

    async fn start(&self) -> Server {
        self.start_with(&[]).await
    }

    async fn start_with(&self, more: &[&str]) -> Server {
        let database = self.folder.path().join("orders.db");
        let keys = self.keys.to_str().unwrap();
        let args = ["--receipt-keys", keys, "--database", database.to_str().unwrap()];
        Server::start(&[&args[..], more].concat()).await
    }
}

#[tokio::test]
async fn a_good_receipt_runs_the_call_once_and_the_audit_names_the_approval() {
    let lab = Lab::new();
    let server = lab.start().await;
    let token = receipt("approval-1", "v3");
    assert_eq!(migrate(&server, "v3", &token).await.structured()["to"], "v3");
    let again = migrate(&server, "v3", &token).await.refusal();
    assert!(again.contains("used before"), "{again}");

    let audit = server.state().await["audit"].clone();
    assert_eq!(audit.as_array().unwrap().len(), 1);
    assert_eq!(audit[0]["op"], "migrate");
    assert_eq!(audit[0]["detail"], json!({"from": "v2", "to": "v3"}));
    assert_eq!(audit[0]["requester"], "alice");
    assert_eq!(
        audit[0]["approval"],
        json!({"id": "approval-1", "approved_by": ["dana", "lee"], "requester": "alice@example.com"})
    );
    // Remembered by the database, not by the process.
    server.kill();
    let server = lab.start().await;
    let again = migrate(&server, "v3", &token).await.refusal();
    assert!(again.contains("used before"), "{again}");
}

#[tokio::test]
async fn a_hundred_uses_of_one_receipt_at_once_run_one_call() {
    let lab = Lab::new();
    let server = lab.start().await;
    let token = receipt("approval-1", "v3");
    let calls = (0..100).map(|_| migrate(&server, "v3", &token));
    let answers = futures_all(calls).await;
    let ran = answers.iter().filter(|answer| answer.0["result"]["isError"] != true).count();
    assert_eq!(ran, 1);
    assert_eq!(server.state().await["audit"].as_array().unwrap().len(), 1);
}

async fn futures_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    futures_util::future::join_all(futures).await
}

#[tokio::test]
async fn what_a_receipt_does_not_cover_is_refused_and_nothing_runs() {
    let lab = Lab::new();
    let server = lab.start().await;
    let good = claims("approval-1", &json!({"version": "v3"}));
    let signed = |change: &dyn Fn(&mut Claims)| {
        let mut claims = good.clone();
        change(&mut claims);
        signer().sign(&claims).unwrap()
    };
    let stranger = Signer::from_bytes(&[8; 32]).unwrap().sign(&good).unwrap();
    let expired = signed(&|claims| (claims.iat, claims.exp) = (now() - 120, now() - 60));
    for (token, expected) in [
        (signed(&|claims| claims.tool = "truncate_table".into()), "another tool"),
        (receipt("approval-1", "v4"), "other arguments"),
        (signed(&|claims| claims.aud = "billing".into()), "for another server"),
        (signed(&|claims| claims.iss = "somebody".into()), "another gate"),
        (signed(&|claims| (claims.iat, claims.exp) = (now() + 60, now() + 90)), "in the future"),
        (signed(&|claims| claims.exp += 600), "longer than a receipt"),
        (signed(&|claims| claims.approved_by.clear()), "neither a reviewer nor a rule"),
        (expired, "has expired"),
        (stranger, "a key this server does not know"),
        ("x.y.z".to_owned(), "not a receipt"),
        (String::new(), "not a receipt"),
    ] {
        let refusal = migrate(&server, "v3", &token).await.refusal();
        assert!(refusal.contains(expected), "{refusal}");
    }
    let without = server.call("run_migration", json!({"version": "v3"})).await.refusal();
    assert!(without.contains("through the gateway"), "{without}");
    let token = receipt("approval-1", "v3");
    let twice = [("x-hitl-receipt", token.as_str()), ("x-hitl-receipt", token.as_str())];
    let answer = server.call_with("run_migration", json!({"version": "v3"}), &twice).await;
    assert!(answer.refusal().contains("more than one receipt"));

    let state = server.state().await;
    assert_eq!((&state["schema_version"], &state["audit"]), (&json!("v2"), &json!([])));
    // None of this used the approval up.
    assert_eq!(migrate(&server, "v3", &token).await.structured()["migrated"], true);
}

#[tokio::test]
async fn a_rule_in_the_place_of_a_reviewer_is_refused_unless_the_server_says_otherwise() {
    let lab = Lab::new();
    let allowed = |id: &str| {
        let claims = claims(id, &json!({"version": "v3"}));
        let allowed_by = vec!["rehearsed".to_owned()];
        signer().sign(&Claims { approved_by: Vec::new(), allowed_by, ..claims }).unwrap()
    };
    let neither = Claims { approved_by: vec![], ..claims("approval-2", &json!({"version": "v3"})) };
    let neither = signer().sign(&neither).unwrap();
    let server = lab.start().await;
    let refusal = migrate(&server, "v3", &allowed("approval-1")).await.refusal();
    assert!(refusal.contains("--receipt-require-reviewer"), "{refusal}");
    server.kill();
    let server = lab.start_with(&["--receipt-require-reviewer", "false"]).await;
    let refusal = migrate(&server, "v3", &neither).await.refusal();
    assert!(refusal.contains("neither a reviewer nor a rule"), "{refusal}");
    let ran = migrate(&server, "v3", &allowed("approval-1")).await.structured();
    assert_eq!(ran["to"], "v3");
}

#[tokio::test]
async fn a_receipt_covers_exactly_the_arguments_that_were_shown() {
    let lab = Lab::new();
    let server = lab.start().await;
    let shown = json!({"version": "v3"});
    let token = signer().sign(&claims("approval-1", &shown)).unwrap();
    let headers = [("x-hitl-receipt", token.as_str())];
    let more = json!({"version": "v3", "force": true});
    let refusal = server.call_with("run_migration", more, &headers).await.refusal();
    assert!(refusal.contains("other arguments"), "{refusal}");
    // A repeated key has two meanings: the message is rejected before anything reads it.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_migration","arguments":{"version":"v3","version":"v1"}}}"#;
    let (status, answer) = server.post("/privileged/mcp", body.to_owned(), &headers).await;
    assert!(status == 400 && answer.contains("occurs twice"), "{answer}");
    assert_eq!(server.state().await["schema_version"], "v2");
}

#[tokio::test]
async fn asking_for_the_current_version_says_so_and_uses_the_approval_up() {
    let lab = Lab::new();
    let server = lab.start().await;
    let token = receipt("approval-1", "v2");
    let answer = migrate(&server, "v2", &token).await.structured();
    assert_eq!((&answer["migrated"], &answer["from"]), (&json!(false), &json!("v2")));
    assert!(answer["note"].as_str().unwrap().contains("at v2 already"));
    let audit = server.state().await["audit"].clone();
    assert_eq!(audit[0]["op"], "migrate_unneeded");
    assert_eq!(audit[0]["approval"]["id"], "approval-1");
    assert!(migrate(&server, "v2", &token).await.refusal().contains("used before"));
}

#[tokio::test]
async fn in_memory_a_receipt_from_before_the_start_may_have_been_used_and_is_refused() {
    let lab = Lab::new();
    let server = Server::start(&["--receipt-keys", lab.keys.to_str().unwrap()]).await;
    let mut old = claims("approval-1", &json!({"version": "v3"}));
    (old.iat, old.exp) = (now() - 30, now() + 20);
    let refusal = migrate(&server, "v3", &signer().sign(&old).unwrap()).await.refusal();
    assert!(refusal.contains("older than this server"), "{refusal}");
    assert_eq!(migrate(&server, "v3", &receipt("approval-2", "v3")).await.structured()["to"], "v3");
}

#[tokio::test]
async fn keys_come_from_a_url_even_when_the_gate_starts_later_and_changes_them() {
    let reserved = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let url = format!("http://{address}/.well-known/jwks.json");
    let server = Server::start(&["--receipt-keys", &url]).await;

    let refusal = migrate(&server, "v3", &receipt("approval-1", "v3")).await.refusal();
    assert!(refusal.contains("a key this server does not know"), "{refusal}");
    assert!(server.said("no new keys").await.contains("does not answer"));

    let jwks = signer().jwks();
    let app =
        Router::new().route("/.well-known/jwks.json", get(async move || hitl_service::Json(jwks)));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    // Keys are looked for once a second at most; the gate was just found away.
    let token = receipt("approval-1", "v3");
    let until_known = async {
        loop {
            let answer = migrate(&server, "v3", &token).await;
            if answer.0["result"]["isError"] != true {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(crate::support::PATIENCE, until_known).await.unwrap();
    assert_eq!(answer.structured()["to"], "v3");
}

#[tokio::test]
async fn a_key_added_to_the_file_is_found_when_a_receipt_names_it() {
    let lab = Lab::new();
    let server = lab.start().await;
    let next = Signer::from_bytes(&[9; 32]).unwrap();
    let mut both = signer().jwks();
    let added = next.jwks()["keys"][0].clone();
    both["keys"].as_array_mut().unwrap().push(added);
    fs::write(&lab.keys, both.to_string()).unwrap();
    let token = next.sign(&claims("approval-1", &json!({"version": "v3"}))).unwrap();
    assert_eq!(migrate(&server, "v3", &token).await.structured()["to"], "v3");
    assert_eq!(migrate(&server, "v2", &receipt("approval-2", "v2")).await.structured()["to"], "v2");
}

#[tokio::test]
async fn a_key_taken_out_of_the_file_is_refused_from_then_on() {
    let lab = Lab::new();
    let server = lab.start().await;
    assert_eq!(migrate(&server, "v3", &receipt("approval-1", "v3")).await.structured()["to"], "v3");
    let next = Signer::from_bytes(&[9; 32]).unwrap();
    fs::write(&lab.keys, next.jwks().to_string()).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    fs::File::options().append(true).open(&lab.keys).unwrap().set_modified(later).unwrap();
    // Keys are looked for once a second at most.
    let refused = async {
        loop {
            let id = format!("approval-{:?}", std::time::Instant::now());
            let answer = migrate(&server, "v3", &receipt(&id, "v3")).await;
            if answer.0["result"]["isError"] == true {
                return answer.refusal();
            }
        }
    };
    let refusal = tokio::time::timeout(crate::support::PATIENCE, refused).await.unwrap();
    assert!(refusal.contains("a key this server does not know"), "{refusal}");
}
