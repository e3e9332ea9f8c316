//! Receipts of the real gate at the real tool server.

use std::fs;

use hitl_process::{Process, beside};
use hitl_receipt::{ArgsDigest, Claims, KeySet, Verifier};
use serde_json::{Value, json};

use crate::support::{Gate, Lab, migrate};

/// The tool server, with the keys of a gate.
struct Tools {
    _process: Process,
    url: String,
    http: reqwest::Client,
}

impl Tools {
    fn start(lab: &Lab, gate: &Gate, name: &str, args: &[&str]) -> Self {
        let (_, admin, http) = gate.doors();
        let mut command =
            hitl_process::command(beside(env!("CARGO_BIN_EXE_hitl-extauth"), "mcp-ops-tools"));
        command.args(["--listen", "127.0.0.1:0"]).arg("--database").arg(lab.path(name));
        command.args(["--receipt-keys", &format!("{admin}/.well-known/jwks.json")]);
        let process = Process::start(command.args(args));
        Self { url: format!("{}/privileged/mcp", process.url("address")), _process: process, http }
    }

    /// What comes of a migration with a receipt: a result, or why not.
    async fn migrate(&self, version: &str, receipt: &str) -> Result<Value, String> {
        let body = json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": "run_migration", "arguments": {"version": version}},
        });
        let request = self.http.post(&self.url).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", "2025-11-25");
        let response = request.header("x-hitl-receipt", receipt).body(body.to_string()).send();
        let text = response.await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        let result = answer["result"].take();
        if result["isError"] == true {
            return Err(result["content"][0]["text"].as_str().unwrap().to_owned());
        }
        Ok(result["structuredContent"].clone())
    }
}

async fn claims(gate: &Gate, receipt: &str, version: &str) -> Claims {
    let keys = KeySet::parse(&gate.json("/.well-known/jwks.json").await.to_string()).unwrap();
    let arguments = ArgsDigest::of(json!({"version": version}).as_object()).unwrap();
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let verifier = Verifier::new("hitl-extauth", "mcp-ops-tools").require_reviewer(false);
    verifier.verify(&keys, receipt, now, "run_migration", &arguments).unwrap()
}

#[tokio::test]
async fn a_call_that_rules_let_pass_runs_only_where_the_tool_server_requires_no_reviewer() {
    let lab = Lab::new();
    let path = lab.path("rules.yaml");
    let rules = "rules:\n- {name: rehearsed, when: \"arguments.version == 'v3'\", allow: true}\n\
                 - {name: drafts, when: \"arguments.version in ['v3', 'v1']\", allow: true}\n\
                 - {name: other, when: \"arguments.version == 'v1'\", allow: true}\n";
    fs::write(&path, rules).unwrap();
    let gate = lab.start(&["--rules", path.to_str().unwrap()]);
    let strict = Tools::start(&lab, &gate, "strict.db", &[]);
    let lenient = Tools::start(&lab, &gate, "lenient.db", &["--receipt-require-reviewer", "false"]);

    let receipt = gate.check(migrate("bob", "v3", 1)).await.receipt();
    let Claims { approved_by, allowed_by, preapproval, .. } = claims(&gate, &receipt, "v3").await;
    assert_eq!((approved_by, preapproval), (vec![], None));
    assert_eq!(allowed_by, ["rehearsed", "drafts"]);
    let refused = strict.migrate("v3", &receipt).await.unwrap_err();
    assert!(refused.contains("no reviewer approved") && refused.contains("require"), "{refused}");
    assert_eq!(lenient.migrate("v3", &receipt).await.unwrap()["to"], "v3");

    // An approved call runs at both.
    for tools in [&strict, &lenient] {
        let call = gate.hold(migrate("bob", "v4", 2)).await;
        let id = gate.waiting_one().await;
        assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
        let receipt = call.await.unwrap().receipt();
        let Claims { approved_by, allowed_by, .. } = claims(&gate, &receipt, "v4").await;
        assert_eq!((approved_by, allowed_by), (vec!["dana".to_owned()], vec![]));
        assert_eq!(tools.migrate("v4", &receipt).await.unwrap()["to"], "v4");
    }
}

#[tokio::test]
async fn a_receipt_of_a_pre_approval_names_it_and_the_reviewer_who_made_it() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let tools = Tools::start(&lab, &gate, "orders.db", &[]);
    let seen = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let wanted = json!({"condition": "true", "uses": 3, "seconds": 600, "reason": "tonight"});
    let (status, made) = gate.preapprove("dana", &id, &wanted).await;
    assert_eq!(status, 201, "{made}");
    let receipt = gate.check(migrate("alice", "v4", 2)).await.receipt();
    let Claims { approved_by, allowed_by, preapproval, .. } = claims(&gate, &receipt, "v4").await;
    assert_eq!((approved_by, allowed_by), (vec!["dana".to_owned()], vec![]));
    assert_eq!(preapproval.as_deref(), made["id"].as_str());
    assert_eq!(tools.migrate("v4", &receipt).await.unwrap()["to"], "v4");
    seen.abort();
}
