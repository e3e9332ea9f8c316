//! Seeing what waits, deciding, and what is shown when something goes wrong.

use std::time::Duration;

use reqwest::{StatusCode, header};
use serde_json::json;

use crate::support::{Browser, Lab, PATIENCE};

#[tokio::test]
async fn a_reviewer_reads_approves_and_sees_what_became_of_it() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let call = lab.call("alice", json!({"version": "v3"})).await;
    let id = dana.first().await;
    let page = dana.page("/queue").await;
    for shown in [
        "run_migration",
        "alice",
        "claimed",
        "A caller is waiting",
        "string, 2 characters",
        "could not be read: no tool server is configured",
        "caller waiting",
        "After that an approval is kept 15 min for its retry",
    ] {
        assert!(page.contains(shown), "{shown} in\n{page}");
    }
    let path = format!("/requests/{id}/decide");
    let token = dana.form_token().await;
    let form =
        [("form_token", token.as_str()), ("decision", "approve"), ("reason", "go\r\nahead ")];
    let decided = dana.post(&path, &form).await;
    assert_eq!(decided.headers()[header::LOCATION], format!("/requests/{id}"));
    assert!(call.await.unwrap().0);
    let page = dana.page(&format!("/requests/{id}")).await;
    assert!(page.contains("This request is approved by dana, released</b>, just now."), "{page}");
    assert!(page.contains("the call passed at once"), "{page}");
    assert!(!page.contains("data-decide"));

    // Somebody else is a moment later.
    let lee = lab.signed_in("lee").await;
    let token = lee.form_token().await;
    let late = lee.post(&path, &[("form_token", token.as_str()), ("decision", "reject")]).await;
    assert_eq!(late.status(), StatusCode::CONFLICT);
    let late = late.text().await.unwrap();
    assert!(late.contains("settled already: spent"));
    assert!(late.contains(&format!("href=\"/requests/{id}\"")), "{late}");
    // The same form sent twice by the same hand is no error.
    let again = dana.post(&path, &form_of(&dana, "approve").await).await;
    assert_eq!(again.headers()[header::LOCATION], format!("/requests/{id}"));
    let other = dana.post(&path, &form_of(&dana, "reject").await).await;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    let history = lee.page("/history?state=spent&reviewer=dana").await;
    assert!(history.contains(&id) && history.contains("approved by dana, released"));
    assert!(!lee.page("/history?state=denied").await.contains(&id));
}

async fn form_of(browser: &Browser, decision: &str) -> [(&'static str, String); 2] {
    [("form_token", browser.form_token().await), ("decision", decision.to_owned())]
}

#[tokio::test]
async fn a_rejection_reaches_the_agent_with_its_reason() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let call = lab.call("alice", json!({"version": "v3"})).await;
    let id = dana.first().await;
    let token = dana.form_token().await;
    let form = [
        ("form_token", token.as_str()),
        ("decision", "reject"),
        ("ready", "Schema freeze"),
        ("reason", " until\r\nMonday "),
    ];
    dana.post(&format!("/requests/{id}/decide"), &form).await;
    let (passed, answer) = call.await.unwrap();
    assert!(!passed && answer.contains("Reason: Schema freeze: until\\nMonday"), "{answer}");
    assert!(dana.page(&format!("/requests/{id}")).await.contains("rejected by dana"));
    // The card that is left in the list says the same.
    let card = dana.page(&format!("/queue/cards?ids={id}")).await;
    assert!(card.contains("rejected by dana") && !card.contains("you have approved"), "{card}");
}

#[tokio::test]
async fn only_a_form_of_this_session_from_this_site_decides() {
    let lab = Lab::start();
    let (dana, lee) = (lab.signed_in("dana").await, lab.signed_in("lee").await);
    let call = lab.call("alice", json!({"version": "v3"})).await;
    let id = dana.first().await;
    let path = format!("/requests/{id}/decide");
    let (own, others) = (dana.form_token().await, lee.form_token().await);
    for token in ["", "guessed", &others] {
        let form = [("form_token", token), ("decision", "approve")];
        assert_eq!(dana.post(&path, &form).await.status(), StatusCode::FORBIDDEN, "{token}");
    }
    let form = [("form_token", own.as_str()), ("decision", "approve")];
    for foreign in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        let answer = dana.post_from(&path, &form, &[foreign]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{foreign:?}");
    }
    let nobody = lab.browser().post(&path, &form).await;
    assert_eq!(nobody.status(), StatusCode::SEE_OTHER);
    let neither = dana.post(&path, &[("form_token", own.as_str()), ("decision", "maybe")]).await;
    assert_eq!(neither.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(dana.page("/queue").await.contains(&id));
    let ours = [("origin", dana.base()), ("sec-fetch-site", "same-origin")];
    assert_eq!(dana.post_from(&path, &form, &ours).await.status(), StatusCode::SEE_OTHER);
    assert!(call.await.unwrap().0);
}

#[tokio::test]
async fn what_a_caller_writes_is_text_and_what_is_long_is_looked_at_on_purpose() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let arguments = json!({
        "version": "</code><script>alert(1)</script>\u{202e}\n",
        "long": "y".repeat(200_000),
        "many": vec![1; 10_000],
    });
    let call = lab.call("<b>eve</b>", arguments).await;
    let id = dana.first().await;
    let page = dana.page(&format!("/requests/{id}")).await;
    assert!(
        !page.contains("<script>alert") && !page.contains("<b>eve") && !page.contains('\u{202e}')
    );
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains(">U+202E<"), "hidden");
    assert!(page.contains(&"y".repeat(200_000)), "a long value is cut");
    assert!(page.contains("string, 200000 characters") && page.contains("list, 10000 items"));
    let (before, _) = page.split_once(" more lines are not on this page").unwrap();
    let left_out: usize = before.rsplit(' ').next().unwrap().parse().unwrap();
    let shown = page.matches("<li class=\"depth-").count();
    assert_eq!(shown + left_out, 10_003);
    let all = dana.page(&format!("/requests/{id}/arguments")).await;
    assert!(all.lines().count() > 10_000 && all.contains("⟨U+202E⟩"));

    let token = dana.form_token().await;
    let path = format!("/requests/{id}/decide");
    let unseen = [("form_token", token.as_str()), ("decision", "approve")];
    let answer = dana.post(&path, &unseen).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().await.unwrap().contains("Nothing has been decided"));
    let seen = [("form_token", token.as_str()), ("decision", "approve"), ("looked", "yes")];
    assert_eq!(dana.post(&path, &seen).await.status(), StatusCode::SEE_OTHER);
    assert!(call.await.unwrap().0);
}

#[tokio::test]
async fn ones_own_request_is_for_somebody_else() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let call = lab.call("dana", json!({"version": "v3"})).await;
    let id = dana.first().await;
    let page = dana.page("/queue").await;
    assert!(page.contains("yours: somebody else must decide") && !page.contains("data-decide"));
    let token = dana.form_token().await;
    let form = [("form_token", token.as_str()), ("decision", "approve")];
    let answer = dana.post(&format!("/requests/{id}/decide"), &form).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    call.abort();
}

#[tokio::test]
async fn while_the_gate_is_away_the_page_says_so_and_comes_back_by_itself() {
    let mut lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let token = dana.form_token().await;
    let port = lab.kill_gate();
    let away = dana.get("/queue").await;
    assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = away.text().await.unwrap();
    assert!(text.contains("The gate does not answer") && text.contains("http-equiv=\"refresh\""));
    // Looking again after a decision that may not have arrived sends no form again.
    let id = "01a208b2-091c-75b6-95d5-b80f286f015f";
    let form = [("form_token", token.as_str()), ("decision", "reject")];
    let undecided = dana.post(&format!("/requests/{id}/decide"), &form).await;
    assert_eq!(undecided.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = undecided.text().await.unwrap();
    assert!(text.contains(&format!("content=\"20; url=/requests/{id}\"")), "{text}");
    lab.start_gate(&port);
    let back = async { while dana.get("/queue").await.status() != StatusCode::OK {} };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
}

#[tokio::test]
async fn an_open_page_is_told_what_changes_within_a_second() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let mut live = dana.get("/live").await;
    let mut text = String::new();
    let mut until = async |wanted: String| {
        let told = async {
            while !text.contains(&wanted) {
                text += std::str::from_utf8(&live.chunk().await.unwrap().unwrap()).unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
    };
    until("event: hello".to_owned()).await;
    let call = lab.call("alice", json!({"version": "v3"})).await;
    let began = std::time::Instant::now();
    until("event: change".to_owned()).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let id = dana.first().await;
    until(format!("data: {id}")).await;
    let list = dana.page("/queue/list").await;
    assert!(list.contains(&id) && list.contains("data-total=\"1\""), "{list}");
    assert!(dana.page(&format!("/requests/{id}/detail")).await.starts_with("<article"));
    call.abort();
}
