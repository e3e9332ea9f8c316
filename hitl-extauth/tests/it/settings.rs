//! What is set and cannot be meant: the gate says so before it listens, and touches nothing.

use hitl_process::Process;

use crate::support::{Lab, command, migrate};

/// What the gate says, that keeps its database in the lab's folder.
fn refused(lab: &Lab, words: &[&str]) -> String {
    let mut command = command();
    command.args(["--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    let said = Process::refused(command.current_dir(lab.path("")).args(words));
    assert!(!lab.path("hitl.db").exists(), "{words:?}");
    said
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_what_to_write() {
    let lab = Lab::new();
    let provider = ["--oidc-issuer=https://id.example.com", "--oidc-audience=gate"];
    let provider = [&provider[..], &["--oidc-reviewer-groups=dba"]].concat();
    let empty = "cannot be used: it is empty";
    for (wrong, says) in [
        (
            "--log-level=loud",
            "--log-level <FILTER> (LOG_LEVEL) cannot be used: \"loud\" is not a level",
        ),
        ("--log-level=hitl_extauth=loud", "off, error, warn, info, debug and trace"),
        ("--log-level=", empty),
        ("--receipt-issuer=", empty),
        ("--receipt-audience= ", empty),
        ("--requester-groups=", empty),
        ("--oidc-name-claim=", empty),
        ("--oidc-groups-claim=", empty),
        ("--oidc-jwks=ftp://id.example.com/keys", "neither http nor https"),
        ("--max-pending=0", "--max-pending"),
        ("--max-pending-per-requester=0", "--max-pending-per-requester"),
        ("--status-listen=8083", "the IP address is missing; write an IP address and a port"),
        ("--database-ca=ca.pem", "--database postgres://USER@HOST/NAME"),
        ("--database-password-file=password", "HITL_DATABASE_PASSWORD_FILE"),
    ] {
        let said = refused(&lab, &[&provider[..], &[wrong]].concat());
        assert!(said.contains(says), "{wrong}: {said}");
    }
}

#[test]
fn a_provider_is_named_by_a_whole_address_and_its_tokens_by_whom_they_are_for() {
    let lab = Lab::new();
    let people = |issuer: &str, audience: &str, groups: &str| {
        refused(
            &lab,
            &[
                &format!("--oidc-issuer={issuer}"),
                &format!("--oidc-audience={audience}"),
                &format!("--oidc-reviewer-groups={groups}"),
            ],
        )
    };
    let issuer = "https://id.example.com";
    for (said, says) in [
        (people("id.example.com", "gate", "dba"), "put http:// or https:// in front"),
        (people("http://id.example.com", "gate", "dba"), "must be https"),
        (people(issuer, "", "dba"), "HITL_OIDC_AUDIENCE"),
        (people(issuer, "gate", ""), "HITL_OIDC_REVIEWER_GROUPS"),
        (people(issuer, "gate", "dba,,web"), "it is empty"),
        (people(issuer, "gate", "dba, web"), "begins or ends with white space"),
    ] {
        assert!(said.contains(says), "{said}");
    }
    let said = people("https://me:s3cret@id.example.com", "gate", "dba");
    assert!(said.contains("leave them out") && !said.contains("s3cret"), "{said}");
    let machines =
        ["--insecure-no-reviewer-auth", "--machines-issuer=https://k", "--machines-audience="];
    assert!(refused(&lab, &machines).contains("HITL_MACHINES_AUDIENCE"));
    assert!(refused(&lab, &["--oidc-ca=ca.pem"]).contains("--oidc-issuer"));
}

#[test]
fn a_key_that_is_none_is_named_by_its_file() {
    let lab = Lab::new();
    std::fs::write(lab.path("receipts.pem"), "-----BEGIN NOTHING-----").unwrap();
    let said = refused(&lab, &["--insecure-no-reviewer-auth", "--receipt-key=receipts.pem"]);
    assert!(said.contains("--receipt-key receipts.pem: not an Ed25519 private key"), "{said}");
}

#[test]
fn a_variable_that_is_empty_leaves_the_log_as_it_is_and_a_list_without_anybody() {
    let lab = Lab::new();
    lab.start_with("LOG_LEVEL", "");
    lab.start_with("RUST_LOG", "");
    let provider = ["--oidc-issuer=https://id.example.com", "--oidc-audience=gate"];
    let lists = ["--oidc-reviewer-groups=dba", "--oidc-viewer-groups="];
    lab.start(&[&provider[..], &lists].concat());
    let said =
        Process::refused(command().arg("--insecure-no-reviewer-auth").env("RUST_LOG", "loud"));
    assert!(said.contains("RUST_LOG cannot be used: \"loud\" is not a level"), "{said}");
}

#[test]
fn the_log_of_a_start_speaks_of_the_gate_and_not_of_what_it_is_made_with() {
    let lab = Lab::new();
    for _ in 0..2 {
        let gate = lab.start(&[]);
        let lines = gate.lines();
        assert!(!lines.iter().any(|line| line.contains("refinery")), "{lines:?}");
    }
}

#[tokio::test]
async fn where_no_call_is_held_each_is_asked_for_and_passes_when_it_comes_back() {
    for setting in ["--hold", "--max-held", "--max-held-per-requester"] {
        let lab = Lab::new();
        let gate = lab.start(&[setting, "0"]);
        let (text, particulars) = gate.check(migrate("alice", "v3", 1)).await.denial();
        assert_eq!(particulars["disposition"], "pending", "{setting}: {text}");
        let id = particulars["id"].as_str().unwrap();
        assert_eq!(gate.decide("dana", id, true, "").await.0, 204, "{setting}");
        assert!(gate.check(migrate("alice", "v3", 2)).await.is_allowed(), "{setting}");
    }
}
