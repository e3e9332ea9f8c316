//! Rules over a running gate: who must approve what, and what a change of rules does to what waits.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Gate, Lab, command, id_of, migrate};

/// A lab whose reviewers are in groups: dana and kim in dba, lee in sec, alice in none.
fn lab(rules: &str) -> Lab {
    let lab = Lab::new();
    let path = lab.path("reviewers.yaml");
    let mut reviewers = fs::read_to_string(&path).unwrap();
    for (name, group) in [("dana", "dba"), ("lee", "sec")] {
        reviewers = reviewers
            .replace(&format!("{{name: {name},"), &format!("{{name: {name}, groups: [{group}],"));
    }
    fs::write(&path, reviewers).unwrap();
    write(&lab, rules);
    lab
}

fn write(lab: &Lab, rules: &str) {
    // As an editor or a ConfigMap does: the file is whole at every moment.
    let (new, path) = (lab.path("rules.new"), lab.path("rules.yaml"));
    fs::write(&new, rules).unwrap();
    fs::rename(new, path).unwrap();
}

fn start(lab: &Lab) -> Gate {
    lab.start(&["--rules", lab.path("rules.yaml").to_str().unwrap()])
}

const TWO: &str = "
rules:
- name: two-people
  when: arguments.version in ['v3', 'v4']
  require: {approvals: 2, risk: high, note: Look twice}
";

#[tokio::test]
async fn two_people_must_approve_where_a_rule_says_so_and_the_first_rejection_settles_it() {
    let lab = lab(TWO);
    let gate = start(&lab);
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let waiting = gate.waiting(1).await[0].clone();
    let id = id_of(&waiting);
    assert_eq!(waiting["missing"], json!([{"approvals": 2}]));
    assert_eq!(waiting["ruling"]["rules"], json!([{"name": "two-people", "outcome": "require"}]));
    assert_eq!(waiting["ruling"]["risk"], "high");
    assert_eq!(gate.decide("dana", &id, true, "looks good").await.0, 204);
    let half = gate.json(&format!("/requests/{id}")).await;
    assert_eq!((&half["state"], &half["missing"]), (&json!("pending"), &json!([{"approvals": 1}])));
    assert_eq!(half["votes"][0]["groups"], json!(["dba"]));
    let again = gate.decide("dana", &id, true, "again").await;
    assert_eq!(again.0, 409, "{again:?}");
    assert_eq!(gate.decide("lee", &id, true, "").await.0, 204);
    assert!(call.await.unwrap().is_allowed());

    let call = gate.hold(migrate("bob", "v4", 2)).await;
    let id = gate.waiting_one().await;
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    assert_eq!(gate.decide("lee", &id, false, "not today").await.0, 204);
    assert!(call.await.unwrap().denial().0.contains("not today"));
}

#[tokio::test]
async fn who_is_in_none_of_the_groups_cannot_decide_and_a_reason_is_asked_for() {
    let lab = lab("
rules:
- name: by-the-dba
  require: {groups: [dba], reason: true}
");
    let gate = start(&lab);
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    for approved in [true, false] {
        let (status, body) = gate.decide("lee", &id, approved, "why not").await;
        assert_eq!(status, 403, "{body}");
        assert!(body["error"].as_str().unwrap().contains("1 approval from dba"), "{body}");
    }
    let (status, body) = gate.decide("dana", &id, true, " ").await;
    assert_eq!(status, 422, "{body}");
    assert_eq!(gate.decide("dana", &id, true, "planned").await.0, 204);
    assert!(call.await.unwrap().is_allowed());
}

#[tokio::test]
async fn it_is_said_when_nobody_is_there_who_may_decide() {
    let lab = lab("
rules:
- name: by-the-dba
  require: {groups: [dba]}
");
    let gate = start(&lab);
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    assert_eq!(gate.waiting(1).await[0]["nobodyPresent"], true);
    let (_, admin, http) = gate.doors();
    let listen = |token| http.get(format!("{admin}/events")).bearer_auth(token).send();
    let lee = listen("lee-token").await.unwrap();
    assert_eq!(gate.waiting(1).await[0]["nobodyPresent"], true);
    let dana = listen("dana-token").await.unwrap();
    assert_eq!(gate.waiting(1).await[0]["nobodyPresent"], Value::Null);
    drop((dana, lee));
    let gone = async { while gate.waiting(1).await[0]["nobodyPresent"] != true {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.unwrap();
    call.abort();
}

#[tokio::test]
async fn what_rules_deny_nobody_is_asked_about_and_what_they_allow_passes_with_a_receipt() {
    let lab = lab("
rules:
- name: never
  when: arguments.version == 'v4'
  deny: v4 is not for agents
- name: rehearsed
  when: arguments.version == 'v1'
  allow: true
");
    let gate = start(&lab);
    let (text, particulars) = gate.check(migrate("bob", "v4", 1)).await.denial();
    assert!(
        text.contains("nobody can approve it") && text.contains("v4 is not for agents"),
        "{text}"
    );
    assert_eq!(particulars["disposition"], "denied");
    let denied = gate.json("/requests?state=denied").await["requests"][0].clone();
    assert_eq!(denied["ruling"]["denied"], "v4 is not for agents");
    assert_eq!(gate.decide("dana", &id_of(&denied), true, "").await.0, 409);

    let passed = gate.check(migrate("bob", "v1", 2)).await;
    assert!(!passed.receipt().is_empty());
    let request = gate.json(&format!("/requests/{}", passed.approval().unwrap())).await;
    let kinds: Vec<_> =
        request["events"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["received", "allowed"]);
    assert_eq!(request["events"][1]["data"]["rules"], json!(["rehearsed"]));
    // Each such call is one request, and one receipt.
    assert_ne!(gate.check(migrate("bob", "v1", 3)).await.approval(), passed.approval());
    assert_eq!(gate.pending().await.len(), 0);
}

#[tokio::test]
async fn a_condition_that_cannot_be_evaluated_asks_for_an_approval() {
    let lab = lab("
rules:
- name: staging
  when: arguments.environment == 'staging'
  allow: true
");
    let gate = start(&lab);
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let waiting = gate.waiting(1).await[0].clone();
    let rule = &waiting["ruling"]["rules"][0];
    assert!(rule["failed"].as_str().unwrap().contains("environment"), "{rule}");
    assert_eq!(gate.decide("lee", &id_of(&waiting), true, "").await.0, 204);
    assert!(call.await.unwrap().is_allowed());
    let metrics = gate.get("/metrics").await.1;
    assert!(
        metrics.contains("hitl_rule_failures_total 2")
            || metrics.contains("hitl_rule_failures_total 1")
    );
    assert!(metrics.contains("hitl_rulings_total{word=\"require\"} 1"), "{metrics}");
}

#[tokio::test]
async fn rules_that_change_count_for_what_waits_and_for_approvals_that_are_kept() {
    let lab = lab("rules: []");
    let gate = lab.start(&["--rules", lab.path("rules.yaml").to_str().unwrap(), "--hold", "1"]);
    // An approval that nobody waits for, under rules that ask for one.
    gate.check(migrate("bob", "v3", 1)).await.denial();
    let kept = id_of(&gate.pending().await[0]);
    assert_eq!(gate.decide("dana", &kept, true, "").await.0, 204);
    // One that still waits.
    gate.check(migrate("bob", "v4", 2)).await.denial();
    let waits = id_of(&gate.pending().await[0]);
    write(&lab, TWO);
    let shown = gate.json(&format!("/requests/{waits}")).await;
    assert_eq!(shown["missing"], json!([{"approvals": 2}]));
    assert_eq!(gate.decide("dana", &waits, true, "").await.0, 204);
    assert_eq!(gate.json(&format!("/requests/{waits}")).await["state"], "pending");
    // What is no longer enough lapses, and the same call asks again.
    gate.check(migrate("bob", "v3", 3)).await.denial();
    let lapsed = gate.json(&format!("/requests/{kept}")).await;
    assert_eq!(lapsed["state"], "lapsed");
    assert_eq!(lapsed["events"].as_array().unwrap().last().unwrap()["kind"], "revoked");
    let pending = gate.pending().await;
    let anew = pending.iter().find(|request| request["toolArgs"]["version"] == "v3").unwrap();
    assert_eq!(anew["missing"], json!([{"approvals": 2}]));
    // What they deny by now, an approval does not help.
    write(&lab, "rules:\n- name: freeze\n  deny: the schema is frozen\n");
    let (status, body) = gate.decide("lee", &waits, true, "").await;
    assert_eq!((status, &body["state"]), (409, &json!("denied")), "{body}");
    // What they allow by now passes when it comes again.
    write(&lab, "rules:\n- name: open\n  allow: true\n");
    let passed = gate.check(migrate("bob", "v3", 4)).await;
    assert_eq!(passed.approval().unwrap(), id_of(anew));
}

#[tokio::test]
async fn a_held_call_is_told_when_the_rules_deny_or_allow_it_by_now() {
    let lab = lab("rules: []");
    let gate = start(&lab);
    let held = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    write(&lab, "rules:\n- name: freeze\n  deny: the schema is frozen\n");
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 409);
    assert!(held.await.unwrap().denial().0.contains("the schema is frozen"));
    write(&lab, "rules: []\n");
    let held = gate.hold(migrate("bob", "v2", 2)).await;
    gate.waiting_one().await;
    write(&lab, "rules:\n- name: open\n  allow: true\n");
    assert!(gate.check(migrate("bob", "v2", 3)).await.is_allowed());
    assert!(held.await.unwrap().denial().0.contains("superseded"));
}

#[tokio::test]
async fn a_file_that_breaks_changes_nothing_and_is_reported_and_a_broken_one_does_not_start() {
    let lab = lab(TWO);
    let gate = start(&lab);
    let digest = gate.json("/rules").await["enforced"]["digest"].clone();
    write(&lab, "rules:\n- name: open\n  wen: 'true'\n  allow: true\n");
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    assert_eq!(gate.waiting(1).await[0]["missing"], json!([{"approvals": 2}]));
    let standing = gate.json("/rules").await["enforced"].clone();
    assert_eq!(standing["digest"], digest);
    assert!(standing["broken"].as_str().unwrap().contains("wen"), "{standing}");
    call.abort();
    drop(gate);
    let output = command()
        .args(["--insecure-no-reviewer-auth", "--rules"])
        .arg(lab.path("rules.yaml"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("wen"), "{output:?}");
}

#[tokio::test]
async fn rules_that_are_tried_change_nothing_and_are_counted() {
    let lab = lab(TWO);
    let path = lab.path("shadow.yaml");
    fs::write(&path, "rules:\n- name: never\n  deny: never\n").unwrap();
    let gate = lab.start(&["--shadow-rules", path.to_str().unwrap()]);
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    assert_eq!(gate.decide("lee", &id, true, "").await.0, 204);
    assert!(call.await.unwrap().is_allowed());
    let metrics = gate.get("/metrics").await.1;
    let counted = "hitl_tried_rulings_total{enforced=\"require\",tried=\"deny\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

/// What `rules …` prints, and whether it succeeds.
fn rules(gate: Option<&Gate>, args: &[&str]) -> (bool, String) {
    let mut command = command();
    command.arg("rules").args(args).env("HITL_REVIEWER_TOKEN", "dana-token");
    if let Some(gate) = gate {
        command.env("HITL_ADMIN_URL", gate.doors().1);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_checked_explained_and_tried_on_the_past() {
    let lab = lab(TWO);
    let path = lab.path("rules.yaml");
    let file = path.to_str().unwrap();
    let (good, said) = rules(None, &["check", file]);
    assert!(good && said.contains("1 rule, all of them good"), "{said}");
    let written = lab.path("call.json");
    let call = json!({"tool": "run_migration", "arguments": {"version": "v3\u{202e}"}});
    fs::write(&written, call.to_string()).unwrap();
    let (good, said) =
        rules(None, &["explain", "--rules", file, "--call", written.to_str().unwrap()]);
    assert!(good && said.contains("two-people (require): does not match"), "{said}");
    assert!(said.contains("arguments.version = \"v3") && !said.contains('\u{202e}'), "{said}");

    // A gate without rules, and what these would have asked for.
    let gate = lab.start(&["--hold", "1"]);
    for (number, version) in ["v3", "v4", "v2"].into_iter().enumerate() {
        gate.check(migrate("bob", version, u32::try_from(number).unwrap())).await.denial();
    }
    let pending = gate.pending().await;
    let v3: &Value = pending.iter().find(|request| request["toolArgs"]["version"] == "v3").unwrap();
    let (good, said) = rules(Some(&gate), &["explain", "--rules", file, &id_of(v3)]);
    assert!(good && said.contains("two-people (require): matches"), "{said}");
    assert!(said.contains("So: require 2 approvals"), "{said}");
    let (good, said) = rules(Some(&gate), &["replay", file]);
    assert!(good && said.contains("Of 3 requests in 30 days 2 would have been"), "{said}");
    assert!(said.contains("require 1 approval -> require 2 approvals"), "{said}");
    assert!(said.contains("Approvals asked for: 3 -> 5 (2 more)."), "{said}");
}
