//! With a collector configured, a call continues its caller's trace.

use hitl_collector::{Collector, ENDPOINT, PARENT, is_child_of_parent};
use serde_json::json;

use crate::support::{PATIENCE, Server};

#[tokio::test]
async fn a_call_is_a_span_of_its_callers_trace() {
    let mut collector = Collector::start().unwrap();
    let environment = [(ENDPOINT, collector.endpoint.as_str())];
    let server = Server::start_with(&[], &environment).await;
    let headers = [("traceparent", PARENT)];
    server.call_with("cluster_db_query", json!({"sql": "SELECT 1"}), &headers).await.structured();
    // What is buffered is sent before the process leaves.
    server.terminate();
    assert!(server.exited().await.success());
    let span = tokio::time::timeout(PATIENCE, collector.next()).await.unwrap().unwrap();
    assert_eq!(span.name, "tools/call cluster_db_query");
    assert!(is_child_of_parent(&span), "{span:?}");
}

#[tokio::test]
async fn a_collector_that_is_away_harms_nobody() {
    let environment = [(ENDPOINT, "http://127.0.0.1:9")];
    let server = Server::start_with(&[], &environment).await;
    assert_eq!(server.rows("SELECT 1 AS one").await, json!([{"one": 1}]));
    server.terminate();
    assert!(server.exited().await.success());
}
