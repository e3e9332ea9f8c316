//! What cannot be read: a stored request is shown as that, an answer with two meanings is none.

use axum::{Router, routing::get};
use hitl_client::{Client, ClientError, Query};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::Lab;

#[tokio::test]
async fn a_request_that_cannot_be_read_is_shown_as_that_and_can_only_be_rejected() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let calls = [
        lab.call("mallory", json!({"version": "v3"})).await,
        lab.call("alice", json!({"version": "v4"})).await,
    ];
    let ids = lab.pending(2).await;
    let (bad, good) = (&ids["mallory"], &ids["alice"]);
    lab.sql(&format!(
        r#"UPDATE requests SET arguments = '{{"$serde_json::private::RawValue":"no JSON"}}' WHERE id = '{bad}'"#
    ));
    let list = dana.page("/queue").await;
    assert!(list.contains("cannot be read") && list.contains(good.as_str()), "{list}");
    let page = dana.page(&format!("/requests/{bad}")).await;
    assert!(page.contains("This request cannot be read") && page.contains("private meaning"));
    assert!(!page.contains("value=\"approve\""), "{page}");
    assert!(page.contains("Unknown: the stored request") && !page.contains("What will run"));
    assert!(dana.page(&format!("/requests/{good}")).await.contains("value=\"approve\""));

    let token = dana.form_token().await;
    for (id, decision) in [(bad, "reject"), (good, "approve")] {
        let form = [("form_token", token.as_str()), ("decision", decision)];
        let answer = dana.post(&format!("/requests/{id}/decide"), &form).await;
        assert_eq!(answer.status(), reqwest::StatusCode::SEE_OTHER, "{decision}");
    }
    let [denied, passed] = calls;
    assert!(!denied.await.unwrap().0 && passed.await.unwrap().0);
    for page in ["/history", "/queue", "/insights"] {
        dana.page(page).await;
    }
}

#[tokio::test]
async fn an_answer_with_a_second_meaning_is_no_answer_of_a_gate() {
    let request = r#"{"pending":[{"$serde_json::private::RawValue":"{}"}],"total":1}"#;
    let app = Router::new().route("/pending", get(async move || request));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let served = tokio::spawn(async move { axum::serve(listener, app).await });
    let answer = Client::new(url, None).unwrap().pending(&Query::default()).await;
    let Err(ClientError::Foreign { why, .. }) = answer else { panic!("{answer:?}") };
    assert!(why.contains("private meaning"), "{why}");
    served.abort();
}
