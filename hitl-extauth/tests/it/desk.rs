//! A reviewer's command line against the real gate.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::{self, Gate, Lab, migrate, post};

fn command(gate: &Gate, token: &str, args: &[&str]) -> Command {
    let mut command = support::command();
    let (_, admin, _) = gate.doors();
    command.args(args).args(["--admin", &admin]).env("HITL_REVIEWER_TOKEN", token);
    command
}

async fn run(gate: &Gate, token: &str, args: &[&str]) -> Output {
    let mut command = command(gate, token, args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> (bool, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_reviewer_lists_approves_and_rejects_on_the_command_line() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let (good, text) = said(&run(&gate, "dana-token", &["pending"]).await);
    assert!(good && text == "Nothing waits for a decision.\n", "{text}");

    let first = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let (good, text) = said(&run(&gate, "dana-token", &["pending"]).await);
    assert!(good, "{text}");
    for shown in [
        &format!("{id}  run_migration\n"),
        "for alice (as they claim), at gateway.example:8080/privileged/mcp, on mcp-ops-tools\n",
        "expires in 23 h; the caller waits\n",
        "    version: \"v3\"\n",
    ] {
        assert!(text.contains(shown), "{shown:?} in\n{text}");
    }
    let output = run(&gate, "dana-token", &["pending", "--json"]).await;
    let request: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(request["id"], json!(id));

    let (good, text) = said(&run(&gate, "dana-token", &["approve", &id]).await);
    assert!(good && text == format!("{id} is spent\n"), "{text}");
    assert!(first.await.unwrap().is_allowed());
    let again = run(&gate, "lee-token", &["reject", &id, "--reason", "no"]).await;
    let (good, text) = said(&again);
    assert!(!good && text.contains("settled already: spent"), "{text}");

    let second = gate.hold(migrate("alice", "v4", 2)).await;
    let id = gate.waiting_one().await;
    let (good, text) = said(&run(&gate, "dana-token", &["reject", &id, "--reason", "no"]).await);
    assert!(good && text == format!("{id} is denied\n"), "{text}");
    assert!(second.await.unwrap().denial().0.contains("Reason: no"));
}

#[tokio::test]
async fn what_goes_wrong_on_the_command_line_is_said_in_words() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let (good, text) = said(&run(&gate, "wrong", &["pending"]).await);
    assert!(!good && text.contains("nobody here knows this token"), "{text}");
    let missing = lab.path("none").display().to_string();
    let (good, text) = said(&run(&gate, "", &["pending", "--token-file", &missing]).await);
    assert!(!good && text.contains("--token-file") && text.contains(&missing), "{text}");
    let (good, text) = said(&run(&gate, "dana-token", &["approve", "v3"]).await);
    assert!(!good && text.contains("not the id of a request"), "{text}");
    let mut gone = command(&gate, "dana-token", &["pending"]);
    gate.kill();
    let output = tokio::task::spawn_blocking(move || gone.output().unwrap()).await.unwrap();
    let (good, text) = said(&output);
    assert!(!good && text.contains("does not answer at http://127.0.0.1:"), "{text}");
    assert!(!text.contains("dana-token"));
}

#[tokio::test]
async fn nothing_in_a_callers_text_reaches_the_terminal_hidden() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let arguments = json!({"sql": "DROP \u{202e}x\u{1b}[2K\nTABLE", "\u{200b}k": "\u{e0041}"});
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "run\u{2066}_migration", "arguments": arguments},
    });
    gate.check(post(&body.to_string(), &[("x-user-id", "al\u{200d}ice")])).await.denial();
    let (good, text) = said(&run(&gate, "dana-token", &["pending"]).await);
    assert!(good, "{text}");
    for shown in ["run⟨U+2066⟩_migration", "for al⟨U+200D⟩ice", "DROP ⟨U+202E⟩x", "⟨U+200B⟩k: "]
    {
        assert!(text.contains(shown), "{shown} in\n{text}");
    }
    let (good, json) = said(&run(&gate, "dana-token", &["pending", "--json"]).await);
    assert!(good && serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    for text in [text, json] {
        let odd = |letter: &char| letter.is_control() && *letter != '\n';
        assert_eq!(text.chars().find(odd), None, "{text}");
        assert!(!text.contains(['\u{202e}', '\u{200b}', '\u{e0041}']), "{text}");
    }
}

#[tokio::test]
async fn watching_shows_what_happens_as_it_happens_through_a_restart_of_the_gate() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let (_, admin, _) = gate.doors();
    let mut watch = command(&gate, "dana-token", &["watch", "--after", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (lines, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let output = BufReader::new(watch.stdout.take().unwrap());
    std::thread::spawn(move || {
        output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let mut next = async || {
        let line = tokio::time::timeout(crate::support::PATIENCE, shown.recv()).await;
        line.unwrap().expect("the command to go on")
    };
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let line = next().await;
    assert!(
        line.ends_with(&format!("{id} received run_migration {{\"version\":\"v3\"}} for alice"))
    );
    gate.kill();
    assert!(call.await.is_err());

    let listen = admin.trim_start_matches("http://").to_owned();
    let gate = lab.start(&["--http-port", listen.rsplit(':').next().unwrap()]);
    gate.decide("dana", &id, false, "not today").await;
    let line = next().await;
    assert!(line.ends_with(&format!("{id} denied by dana: not today")), "{line}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
