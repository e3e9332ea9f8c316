//! Approving calls before they come, with a form.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Lab, between};

/// What is sent twice is made once.
const ID: &str = "0199aaaa-0000-7000-8000-00000000000a";

#[tokio::test]
async fn calls_are_approved_beforehand_by_form_shown_above_the_queue_and_ended() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let call = lab.call("al\u{202e}ice", json!({"version": "v3"})).await;
    let id = dana.first().await;
    let page = dana.page(&format!("/requests/{id}")).await;
    assert!(
        page.contains("arguments.version == &#34;v3&#34; &#38;&#38; size(arguments) == 1"),
        "{page}"
    );
    assert!(page.contains("a caller may claim any name"), "{page}");
    let token = dana.form_token().await;
    let path = format!("/requests/{id}/preapprove");
    let form = |token: &str, condition: &str| {
        ["form_token", "condition", "uses", "seconds", "reason", "id"]
            .into_iter()
            .zip([token, condition, "2", "3600", "night", ID].map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let foreign = dana.post(&path, &form("other", "true")).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let site = [("sec-fetch-site", "cross-site")];
    let foreign = dana.post_from(&path, &form(&token, "true"), &site).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let wrong = dana.post(&path, &form(&token, "tool == 'x'")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let wrong = wrong.text().await.unwrap();
    assert!(wrong.contains("`arguments` alone") && wrong.contains(&id), "{wrong}");
    assert!(!dana.page("/queue").await.contains("night"));

    let made = dana.post(&path, &form(&token, "arguments.version != '<b>'")).await;
    assert_eq!(made.status(), StatusCode::SEE_OTHER);
    let again = dana.post(&path, &form(&token, "arguments.version != '<b>'")).await;
    assert_eq!(again.status(), StatusCode::SEE_OTHER);
    let lee = lab.signed_in("lee").await;
    let page = lee.page("/queue").await;
    for shown in [
        "arguments.version != &#39;&lt;b&gt;&#39;",
        "al<mark class=\"unseen\">U+202E</mark>ice",
        "used 0 of 2",
        "“night”",
        "59 min",
    ] {
        let list = between(&page, "data-beforehand", "</section>");
        assert!(list.contains(shown), "{shown} in\n{list}");
    }
    let (passed, _) = lab.call("al\u{202e}ice", json!({"version": "v4"})).await.await.unwrap();
    assert!(passed);
    let history = lee.page("/history?state=spent").await;
    assert!(history.contains("approved beforehand by dana, released"), "{history}");
    let list = lee.page("/queue/beforehand").await;
    assert!(list.contains("used 1 of 2"), "{list}");
    let preapproval = between(&list, "data-id=\"", "\"");
    let token = lee.form_token().await;
    let path = format!("/preapprovals/{preapproval}/end");
    assert_eq!(lee.post(&path, &[("form_token", "x")]).await.status(), StatusCode::FORBIDDEN);
    let ended = lee.post(&path, &[("form_token", token.as_str())]).await;
    assert_eq!(ended.status(), StatusCode::SEE_OTHER);
    assert!(!lee.page("/queue").await.contains("used 1 of 2"));
    call.abort();
}
