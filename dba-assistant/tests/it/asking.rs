//! What is asked, who may decide it, and what becomes of it.

use serde_json::{Value, json};

use crate::support::{Lab, asked, decision, made, rpc, states, stream};

const APPROVE: &str = "approve";

fn all(decision: &str) -> Value {
    json!({"decision_type": decision})
}

#[tokio::test]
async fn a_read_needs_nobody_and_its_result_comes_back() {
    let lab = Lab::start().await;
    let events = lab.say("alice", "what's in the orders table?", None).await;
    assert_eq!(states(&events), ["submitted", "working", "completed"]);
    assert_eq!(events.last().unwrap()["final"], true);
    assert!(made(&events).contains("at schema v2"), "{}", made(&events));
    let called = events.iter().find(|event| {
        event["status"]["message"]["parts"][1]["metadata"]["adk_type"] == "function_call"
    });
    let part = &called.unwrap()["status"]["message"]["parts"][1]["data"];
    assert_eq!(part["args"], json!({"sql": "SELECT * FROM orders"}));
    assert!(lab.done().await.is_empty());
}

#[tokio::test]
async fn a_truncate_waits_for_its_asker_and_runs_once_when_approved() {
    let lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    assert_eq!(states(&events), ["submitted", "working", "input-required"]);
    let paused = events.last().unwrap();
    assert_eq!(asked(paused).len(), 1);
    assert!(lab.done().await.is_empty(), "it ran before it was approved");
    let events = lab.decide("alice", paused, all(APPROVE)).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert!(made(&events).contains("is empty now"), "{}", made(&events));
    assert_eq!(lab.done().await, ["truncate \"alice\""]);
    let again = lab.decide("alice", paused, all(APPROVE)).await;
    assert_eq!(again[0]["error"]["code"], -32602);
    assert!(again[0]["error"]["message"].as_str().unwrap().contains("terminal state"), "{again:?}");
    assert_eq!(lab.done().await.len(), 1);
    // The conversation goes on, and knows what was said.
    let context = paused["contextId"].as_str().unwrap();
    let events = lab.say("alice", "how many orders?", Some(context)).await;
    assert!(made(&events).contains("| 0 |"), "{}", made(&events));
}

#[tokio::test]
async fn the_reason_of_a_rejection_reaches_the_model_word_for_word() {
    let lab = Lab::start().await;
    let reason = "month end freeze – “ask Omar”";
    for (data, told) in [
        (json!({"decision_type": "reject"}), "Tool call was rejected by user.".to_owned()),
        (
            json!({"decision_type": "reject", "rejection_reason": reason}),
            format!("Tool call was rejected by user. Reason: {reason}"),
        ),
        (
            json!({"decision_type": "batch", "decisions": {"ID": "reject"}, "rejection_reasons": {"ID": reason}}),
            format!("Tool call was rejected by user. Reason: {reason}"),
        ),
    ] {
        let events = lab.say("alice", "truncate orders", None).await;
        let paused = events.last().unwrap();
        let data = data.to_string().replace("ID", &asked(paused)[0]);
        let events = lab.decide("alice", paused, serde_json::from_str(&data).unwrap()).await;
        assert!(made(&events).ends_with(&told), "{}", made(&events));
    }
    assert!(lab.done().await.is_empty());
}

#[tokio::test]
async fn two_calls_are_one_question_and_one_that_is_not_named_does_not_run() {
    let lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders and customers", None).await;
    let paused = events.last().unwrap();
    let ids = asked(paused);
    assert_eq!(ids.len(), 2);
    let data = json!({"decision_type": "batch", "decisions": {ids[1].clone(): "approve", "made-up": "approve"}});
    let events = lab.decide("alice", paused, data).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert!(made(&events).contains("rejected by user"), "{}", made(&events));
    assert_eq!(lab.done().await, ["truncate \"alice\""]);
}

#[tokio::test]
async fn nobody_else_sees_decides_or_cancels_it() {
    let lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let paused = events.last().unwrap();
    let id = paused["taskId"].clone();
    let theirs = lab.decide("bob", paused, all(APPROVE)).await;
    assert_eq!(theirs[0]["error"]["code"], -32001, "{theirs:?}");
    for method in ["tasks/get", "tasks/cancel", "tasks/resubscribe"] {
        let answer = lab.rpc("bob", method, json!({"id": id})).await;
        assert_eq!(answer["error"]["code"], -32001, "{method}: {answer}");
    }
    assert!(lab.done().await.is_empty());
    let task = lab.rpc("alice", "tasks/get", json!({"id": id})).await;
    assert_eq!(task["result"]["status"]["state"], "input-required");
    let events = lab.decide("alice", paused, all(APPROVE)).await;
    assert_eq!(states(&events), ["working", "completed"]);
}

#[tokio::test]
async fn a_decision_that_does_not_say_what_it_decides_decides_nothing() {
    let lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let paused = events.last().unwrap();
    let mut without = decision(paused, &all(APPROVE));
    without.as_object_mut().unwrap().remove("taskId");
    let mut elsewhere = decision(paused, &all(APPROVE));
    elsewhere["contextId"] = json!("another");
    let unknown = decision(paused, &all("sure"));
    for message in [without, elsewhere, unknown] {
        let answer = lab.stream("alice", message.clone()).await;
        assert_eq!(answer[0]["error"]["code"], -32602, "{message}");
    }
    assert!(lab.done().await.is_empty());
    // Text, to the task or to the conversation, asks the same again.
    let context = paused["contextId"].as_str().unwrap();
    let mut text = decision(paused, &json!({}));
    text["parts"] = json!([{"kind": "text", "text": "yes, go ahead"}]);
    let to_task = lab.stream("alice", text).await;
    let to_context = lab.say("alice", "hello?", Some(context)).await;
    for told in [to_task, to_context] {
        assert_eq!(asked(&told[0]), asked(paused));
        assert_eq!(told.len(), 1);
    }
    let events = lab.decide("alice", paused, all(APPROVE)).await;
    assert_eq!(states(&events), ["working", "completed"]);
}

#[tokio::test]
async fn of_eight_approvals_at_once_one_counts_and_the_tool_runs_once() {
    let lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let message = decision(events.last().unwrap(), &all(APPROVE));
    let deciding = (0..8).map(|_| {
        let (url, message) = (lab.address(), message.clone());
        async move { stream(&url, "alice", "message/stream", &json!({"message": message})).await }
    });
    let answers = futures_util::future::join_all(deciding).await;
    let counted = answers.iter().filter(|events| states(events).contains(&"completed")).count();
    assert_eq!(counted, 1, "{answers:#?}");
    assert_eq!(lab.done().await.len(), 1);
}

#[tokio::test]
async fn a_task_is_sent_cancelled_and_followed_by_its_asker() {
    let lab = Lab::start().await;
    let message = |text: &str| json!({"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": text}]});
    let task =
        lab.rpc("alice", "message/send", json!({"message": message("truncate orders")})).await;
    let task = &task["result"];
    assert_eq!(
        (&task["kind"], &task["status"]["state"]),
        (&json!("task"), &json!("input-required"))
    );
    let followed =
        stream(&lab.address(), "alice", "tasks/resubscribe", &json!({"id": task["id"]})).await;
    assert_eq!(asked(&followed[0]).len(), 1);
    let cancelled = lab.rpc("alice", "tasks/cancel", json!({"id": task["id"]})).await;
    assert_eq!(cancelled["result"]["status"]["state"], "canceled");
    let paused = json!({"taskId": task["id"], "contextId": task["contextId"]});
    let late = lab.decide("alice", &paused, all(APPROVE)).await;
    assert_eq!(late[0]["error"]["code"], -32602);
    assert!(lab.done().await.is_empty());
    // The conversation goes on after that.
    let mut next = message("truncate customers");
    next["contextId"] = task["contextId"].clone();
    let next = lab.rpc("alice", "message/send", json!({"message": next})).await;
    assert_eq!(next["result"]["status"]["state"], "input-required", "{next:#}");
    let short = json!({"id": next["result"]["id"], "historyLength": 1});
    let short = lab.rpc("alice", "tasks/get", short).await;
    assert_eq!(short["result"]["history"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_request_is_an_error_of_json_rpc() {
    let lab = Lab::start().await;
    for (method, params, code) in [
        ("tasks/list", json!({}), -32601),
        ("message/stream", json!({}), -32602),
        ("message/stream", json!({"message": {"role": "user", "parts": []}}), -32602),
        ("tasks/get", json!({"id": "none"}), -32001),
    ] {
        let answer = rpc(&lab.address(), "alice", method, &params).await;
        assert_eq!(answer["error"]["code"], code, "{method} {params}: {answer}");
        assert_eq!(answer["id"], "r");
    }
    // What another program could read differently is no message.
    let raw = async |body: &'static str| {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.post(lab.address()).body(body).send().await.unwrap();
        serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()
    };
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"$serde_json::private::RawValue":"{}"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","method":"tasks/cancel"}"#,
    ] {
        assert_eq!(raw(body).await["error"]["code"], -32700, "{body}");
    }
    // kagent's controller reads nothing but events where it asked for a stream.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {}});
    let answer = http.post(lab.address()).body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let card =
        reqwest::get(format!("{}/.well-known/agent-card.json", lab.address())).await.unwrap();
    let card: Value = serde_json::from_slice(&card.bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&card["protocolVersion"], &card["capabilities"]["streaming"]),
        (&json!("0.3.0"), &json!(true))
    );
    assert_eq!(card["url"], lab.address());
}

#[tokio::test]
async fn a_cancel_that_races_an_approval_says_what_came_of_it() {
    let lab = Lab::start().await;
    for round in 0..12 {
        let events = lab.say("alice", "truncate orders", None).await;
        let paused = events.last().unwrap().clone();
        let before = lab.done().await.len();
        let (url, message) = (lab.address(), decision(&paused, &all(APPROVE)));
        let approving = tokio::spawn(async move {
            stream(&url, "alice", "message/stream", &json!({"message": message})).await
        });
        tokio::time::sleep(std::time::Duration::from_millis(round)).await;
        let cancelled = lab.rpc("alice", "tasks/cancel", json!({"id": paused["taskId"]})).await;
        approving.await.unwrap();
        let task = lab.rpc("alice", "tasks/get", json!({"id": paused["taskId"]})).await;
        let state = &task["result"]["status"]["state"];
        let ran = lab.done().await.len() - before;
        if cancelled["result"]["status"]["state"] == "canceled" {
            assert_eq!(state, "canceled", "round {round}");
        } else {
            assert_eq!(cancelled["error"]["code"], -32002, "round {round}: {cancelled}");
            assert_eq!((state, ran), (&json!("completed"), 1), "round {round}: {task}");
        }
        assert!(ran <= 1, "round {round}: it ran {ran} times");
    }
}

#[tokio::test]
async fn a_decision_whose_user_hangs_up_is_worked_on_and_never_seen_as_left() {
    use std::io::Write as _;
    let lab = Lab::start().await;
    for round in 0..12_u64 {
        let events = lab.say("alice", "truncate orders", None).await;
        let paused = events.last().unwrap();
        let params = json!({"message": decision(paused, &all(APPROVE))});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": params});
        let body = body.to_string();
        let address = lab.address().trim_start_matches("http://").to_owned();
        let mut socket = std::net::TcpStream::connect(&address).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\nx-user-id: alice\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(round % 6)).await;
        drop(socket);
        // Heard or not, it can be decided once, and is never seen as left behind.
        let before = lab.done().await.len();
        let over = async {
            loop {
                let task = lab.rpc("alice", "tasks/get", json!({"id": paused["taskId"]})).await;
                match task["result"]["status"]["state"].as_str().unwrap() {
                    "completed" => return,
                    "input-required" => drop(lab.decide("alice", paused, all(APPROVE)).await),
                    "working" => tokio::task::yield_now().await,
                    other => panic!("round {round}: {other}"),
                }
            }
        };
        tokio::time::timeout(crate::support::PATIENCE, over).await.unwrap();
        assert!(lab.done().await.len() <= before + 1, "round {round}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_read_is_nobody_elses() {
    let lab = Lab::start().await;
    let events = lab.say("admin@kagent.dev", "truncate orders", None).await;
    let id = events.last().unwrap()["taskId"].clone();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": id}});
    let ask = || http.post(lab.address()).body(body.to_string());
    let twice = ask().header("x-user-id", "admin@kagent.dev").header("x-user-id", "bob");
    let other = reqwest::header::HeaderValue::from_bytes("müller".as_bytes()).unwrap();
    for request in [ask().header("x-user-id", other), ask().header("x-user-id", " "), twice] {
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
    }
    // Nobody at all is the dashboard's own user.
    let answer = ask().send().await.unwrap().bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["result"]["status"]["state"], "input-required");
}

#[tokio::test]
async fn a_tool_that_is_described_at_one_endpoint_is_called_there_and_nowhere_else() {
    let settings = ["--tools=privileged/truncate_table,public/cluster_db_query".to_owned()];
    let lab = Lab::start_with(&settings).await;
    let events = lab.say("alice", "truncate orders", None).await;
    assert!(made(&events).contains("no tool truncate_table"), "{}", made(&events));
    let events = lab.say("alice", "how many orders?", None).await;
    assert!(made(&events).contains("| 3 |"), "{}", made(&events));
    assert!(lab.done().await.is_empty());
}
