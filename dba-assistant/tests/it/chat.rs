//! The chat page as a browser without scripts sees it, and who may not use it.

use reqwest::{Client, RequestBuilder, StatusCode, header, redirect::Policy};

use crate::support::{Lab, PATIENCE};

fn browser() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

fn form(request: RequestBuilder, body: &'static str) -> RequestBuilder {
    request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

async fn text(request: RequestBuilder) -> String {
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn what_is_said_is_shown_and_what_tools_write_is_text() {
    let lab = Lab::start().await;
    let (http, url) = (browser(), lab.address());
    let said = form(
        http.post(format!("{url}/say")),
        "text=run+%60SELECT+'%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE'+AS+x%60",
    );
    let answer = said.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let place = format!("{url}{}", answer.headers()[header::LOCATION].to_str().unwrap());
    let shown = async {
        loop {
            let page = text(http.get(&place)).await;
            if !page.contains("data-working=\"true\"") {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    let page = tokio::time::timeout(PATIENCE, shown).await.unwrap();
    assert!(!page.contains("<script>alert") && page.contains("&#60;script&#62;alert"), "{page}");
    assert!(page.contains("⟨U+202E⟩"), "{page}");
    assert!(page.contains("Model: claude-haiku-4-5"), "{page}");
    // It is alice's, who it is by default.
    let other = http.get(&place).header(header::COOKIE, "dba-user=bob");
    assert_eq!(status(other).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_sites_neither_send_forms_nor_speak_to_the_agent() {
    let lab = Lab::start().await;
    let (http, url) = (browser(), lab.address());
    for path in ["/say", "/user", "/"] {
        for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]
        {
            let request = form(http.post(format!("{url}{path}")), "text=x").header(name, value);
            assert_eq!(status(request).await, StatusCode::FORBIDDEN, "{path} {name}");
        }
    }
    // Under a name of elsewhere a page of elsewhere could read what is here.
    for request in [http.get(&url), http.post(&url).body("{}")] {
        let rebound = request.header(header::HOST, "evil.example");
        assert_eq!(status(rebound).await, StatusCode::FORBIDDEN);
    }
    let answer = http.get(&url).send().await.unwrap();
    let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    for (body, expected) in [
        ("name=bob%40example.com", StatusCode::SEE_OTHER),
        ("name=", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=a%0d%0ab", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=a%3b+Path", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(status(form(http.post(format!("{url}/user")), body)).await, expected, "{body}");
    }
}
