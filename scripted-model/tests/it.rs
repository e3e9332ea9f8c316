//! The API over a real socket.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

async fn start() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, scripted_model::routes::router()).await.unwrap() });
    format!("http://{address}")
}

async fn post(base: &str, path: &str, body: impl Into<String>) -> Response {
    // An error means that another test has done so already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.post(format!("{base}{path}")).body(body.into()).send().await.unwrap()
}

fn asked(text: &str) -> Value {
    json!({
        "model": "claude-haiku-4-5",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": text}],
        "tools": [{"name": "truncate_table", "input_schema": {"type": "object"}}],
    })
}

#[tokio::test]
async fn a_prompt_is_answered_with_a_call_and_an_event_stream_says_the_same() {
    let base = start().await;
    let mut request = asked("truncate orders");
    let answer = post(&base, "/v1/messages", request.to_string()).await;
    assert!(answer.headers().contains_key("request-id"));
    let whole: Value = answer.json().await.unwrap();
    assert_eq!((&whole["type"], &whole["stop_reason"]), (&json!("message"), &json!("tool_use")));
    assert_eq!(whole["content"][1]["input"], json!({"table": "orders"}));
    request["stream"] = json!(true);
    let answer = post(&base, "/v1/messages", request.to_string()).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("message_start", "message_stop"));
    assert!(text.contains("\"partial_json\":\"{\\\"table\\\":\\\"orders\\\"}\""), "{text}");
    request["tool_choice"] = json!({"type": "none"});
    request["stream"] = json!(false);
    let answer = post(&base, "/v1/messages", request.to_string()).await;
    assert_eq!(answer.json::<Value>().await.unwrap()["stop_reason"], "end_turn");
}

#[tokio::test]
async fn what_is_no_request_is_answered_in_the_apis_own_form() {
    let base = start().await;
    let mut without = asked("x");
    without.as_object_mut().unwrap().remove("max_tokens");
    let mut empty = asked("x");
    empty["messages"] = json!([]);
    let mut assistant = asked("x");
    assistant["messages"][0]["role"] = json!("assistant");
    for (body, says) in [
        ("{".to_owned(), "EOF"),
        ("{}".to_owned(), "missing field"),
        (without.to_string(), "max_tokens"),
        (empty.to_string(), "at least one message"),
        (assistant.to_string(), "first message"),
    ] {
        let answer = post(&base, "/v1/messages", body.clone()).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        let id = answer.headers()["request-id"].to_str().unwrap().to_owned();
        let error: Value = answer.json().await.unwrap();
        assert_eq!((&error["type"], &error["request_id"]), (&json!("error"), &json!(id)));
        assert_eq!(error["error"]["type"], "invalid_request_error");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
    let large = post(&base, "/v1/messages", " ".repeat(33 * 1024 * 1024)).await;
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let nowhere = post(&base, "/v1/complete", "{}").await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(nowhere.json::<Value>().await.unwrap()["error"]["type"], "not_found_error");
    let counted = post(&base, "/v1/messages/count_tokens", asked("12345678").to_string()).await;
    assert_eq!(counted.json::<Value>().await.unwrap(), json!({"input_tokens": 2}));
}
