//! What outlives the agent, and where it is kept.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use hitl_conversations::controller::Controller;
use hitl_process::{Process, command_with_umask, open_to_others};
use serde_json::{Value, json};

use crate::support::{Lab, asked, made, states};

#[tokio::test]
async fn killed_while_it_waits_for_its_user_it_goes_on() {
    let mut lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let paused = events.last().unwrap();
    lab.kill_agent();
    let task = lab.rpc("alice", "tasks/get", json!({"id": paused["taskId"]})).await;
    assert_eq!(task["result"]["status"]["state"], "input-required");
    let events = lab.decide("alice", paused, json!({"decision_type": "approve"})).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert_eq!(lab.done().await.len(), 1);
    // And once more: what is over stays over.
    lab.kill_agent();
    let again = lab.decide("alice", paused, json!({"decision_type": "approve"})).await;
    assert_eq!(again[0]["error"]["code"], -32602);
    assert_eq!(lab.done().await.len(), 1);
}

#[test]
fn tasks_are_private_under_every_umask_and_an_older_file_becomes_so() {
    for umask in ["0", "077", "0277"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tasks.db");
        let start = || {
            let mut command = command_with_umask(umask, env!("CARGO_BIN_EXE_dba-assistant"));
            Process::start(command.arg("--listen=127.0.0.1:0").arg("--database").arg(&file))
        };
        let mut agent = start();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "under umask {umask}");
        assert_eq!(open_to_others(folder.path()), []);
        agent.kill();
        for left in fs::read_dir(folder.path()).unwrap().flatten() {
            fs::set_permissions(left.path(), Permissions::from_mode(0o644)).unwrap();
        }
        let _agent = start();
        assert_eq!(open_to_others(folder.path()), []);
    }
}

#[tokio::test]
async fn it_starts_before_its_tools_and_says_what_is_missing_until_they_are_up() {
    let mut lab = Lab::before(&[]).await;
    lab.start_agent();
    let events = lab.say("alice", "what's in the orders table?", None).await;
    assert_eq!(states(&events), ["submitted", "working", "failed"]);
    let text = events.last().unwrap()["status"]["message"]["parts"][0]["text"].to_string();
    let expected =
        "No tools can be reached: public (it cannot be reached), privileged (it cannot be reached)";
    assert!(text.contains(expected), "{text}");
    lab.start_tools();
    let context = events[0]["contextId"].as_str().unwrap();
    let events = lab.say("alice", "what's in the orders table?", Some(context)).await;
    assert!(made(&events).contains("at schema v2"));
}

#[tokio::test]
async fn at_kagent_the_dashboard_finds_the_question_and_the_agent_its_task() {
    let controller = Controller::default();
    let router = controller.router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--kagent-url=http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let mut lab = Lab::start_with(&[url]).await;
    let events = lab.say("alice", "truncate orders", Some("session-1")).await;
    let paused = events.last().unwrap();
    let id = paused["taskId"].as_str().unwrap().to_owned();
    let (owner, stored) = controller.task(&id).unwrap();
    // As the dashboard wants it, or its button sends nothing.
    assert_eq!(owner, "alice");
    let said = |status: &Value| (status["state"].clone(), status["message"]["parts"].clone());
    assert_eq!(said(&stored["status"]), said(&paused["status"]));
    // The agent makes the conversation known, under a name as the dashboard gives it.
    assert_eq!(controller.session("alice", "session-1").unwrap()["name"], "truncate orders");
    assert_eq!(asked(paused).len(), 1);
    lab.kill_agent();
    let events = lab.decide("alice", paused, json!({"decision_type": "approve"})).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert_eq!(lab.done().await, ["truncate \"alice\""]);
    let events = lab.say("alice", "how many orders?", Some("session-1")).await;
    assert!(made(&events).contains("| 0 |"));
    let agents = controller.agents();
    assert!(!agents.is_empty());
    assert!(agents.iter().all(|agent| agent == "kagent__NS__dba_assistant"), "{agents:?}");
}

#[tokio::test]
async fn an_approval_given_while_the_tools_are_away_is_asked_for_again() {
    let mut lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let paused = events.last().unwrap().clone();
    lab.stop_tools();
    let events = lab.decide("alice", &paused, json!({"decision_type": "approve"})).await;
    let [.., why, again] = events.as_slice() else { panic!("{events:#?}") };
    // Before the question: kagent's page shows no text beside one.
    let text = why["status"]["message"]["parts"][0]["text"].as_str().unwrap();
    assert!(text.contains("cannot be reached") && text.contains("Nothing has run"), "{text}");
    assert_eq!(again["status"]["state"], "input-required");
    lab.start_tools();
    let events = lab.decide("alice", again, json!({"decision_type": "approve"})).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert_eq!(lab.done().await, ["truncate \"alice\""]);
}
