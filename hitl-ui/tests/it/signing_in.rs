//! Who gets in, what every page carries, and where forms may come from.

use reqwest::{StatusCode, header};

use crate::support::{Lab, PATIENCE};

#[tokio::test]
async fn a_token_opens_the_queue_and_nothing_else_does() {
    let lab = Lab::start();
    let mut browser = lab.browser();
    let asked = browser.get("/requests/1?x=y").await;
    assert_eq!(asked.status(), StatusCode::SEE_OTHER);
    assert_eq!(asked.headers()[header::LOCATION], "/login?next=%2Frequests%2F1%3Fx%3Dy");

    let wrong = browser.post("/login", &[("token", "wrong"), ("next", "/history")]).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers().get(header::SET_COOKIE).is_none());
    assert!(wrong.text().await.unwrap().contains("does not know this token"));

    let right = browser.post("/login", &[("token", " dana-token "), ("next", "/history")]).await;
    assert_eq!(right.headers()[header::LOCATION], "/history");
    let cookie = right.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("dana"), "{cookie}");
    browser.keep_cookie(&right);
    let page = browser.page("/queue").await;
    assert!(page.contains("dana · dba") && !page.contains("dana-token"), "{page}");
    assert!(page.contains("Nothing waits for a decision"));

    let away = browser.post("/login", &[("token", "dana-token"), ("next", "//evil.example")]).await;
    assert_eq!(away.headers()[header::LOCATION], "/queue");
}

#[tokio::test]
async fn where_nobody_is_asked_who_they_are_a_page_of_another_name_does_not_sign_itself_in() {
    let lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let gate = Lab::open_gate(folder.path());
    let queue = |more: &'static str| {
        Lab::service("hitl-ui", &["--listen=127.0.0.1:0", "--gate", &gate.url("admin"), more])
    };
    let (_plain, plain) = queue("--reason=because");
    let (_named, named) = queue("--url=https://queue.example.com");
    for (url, host, signed_in) in [
        (&plain, "queue.localhost:8090", true),
        (&plain, "127.0.0.1:8090", true),
        (&plain, "localhost:8090", false),
        (&plain, "10.0.0.7", false),
        (&plain, "evil.example:8090", false),
        (&plain, "queue.example.com", false),
        (&named, "Queue.example.com", true),
        (&named, "evil.example", false),
    ] {
        // As the page itself sends it, to where its name leads by now.
        let origin = format!("http://{host}");
        let from = [("host", host), ("origin", origin.as_str()), ("sec-fetch-site", "same-origin")];
        let browser = lab.browser_at(url);
        let answer =
            browser.post_from("/login", &[("token", "any"), ("next", "/queue")], &from).await;
        let kept = answer.headers().get(header::SET_COOKIE).is_some();
        let expected = if signed_in { StatusCode::SEE_OTHER } else { StatusCode::FORBIDDEN };
        assert_eq!((answer.status(), kept), (expected, signed_in), "{host}");
        if !signed_in {
            assert!(answer.text().await.unwrap().contains("no sign-in at"), "{host}");
        }
    }
}

#[tokio::test]
async fn a_session_begins_and_counts_on_the_queues_own_host_alone() {
    let lab = Lab::start_with(&["--url=http://queue.localhost:8090"]);
    let mut browser = lab.browser();
    let form = [("token", "dana-token"), ("next", "/queue")];
    for host in ["localhost:8090", "LOCALHOST.:8090", "chat.localhost:8080", "10.0.0.7:8090"] {
        let login = browser.get_with("/login", &[("host", host)]).await;
        assert_eq!(login.status(), StatusCode::FORBIDDEN, "{host}");
        let answer = browser.post_from("/login", &form, &[("host", host)]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{host}");
        assert!(answer.headers().get(header::SET_COOKIE).is_none(), "{host}");
        let page = answer.text().await.unwrap();
        let names = "open http://queue.localhost:8090, or http://127.0.0.1:8090";
        assert!(page.contains(names), "{host}: {page}");
        assert!(page.contains("href=\"http://queue.localhost:8090/queue\""), "{host}: {page}");
    }
    for host in ["queue.localhost:8090", "Queue.Localhost", "127.0.0.1:8090", "[::1]:8090"] {
        let from = [("host", host), ("origin", &format!("http://{host}"))];
        let answer = browser.post_from("/login", &form, &from).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{host}");
        let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
        assert!(!cookie.to_ascii_lowercase().contains("domain"), "{host}: {cookie}");
        browser.keep_cookie(&answer);
        let queue = browser.get_with("/queue", &[("host", host)]).await;
        assert_eq!(queue.status(), StatusCode::OK, "{host}");
        let live = browser.get_with("/live", &[("host", host)]).await;
        assert_eq!(live.status(), StatusCode::OK, "{host}");
        // A session that somebody carries to another host is none there.
        let carried = browser.get_with("/queue", &[("host", "localhost:8090")]).await;
        assert_eq!(carried.status(), StatusCode::SEE_OTHER, "{host}");
        assert!(carried.headers().get(header::SET_COOKIE).is_none(), "{host}");
    }
}

#[tokio::test]
async fn a_page_on_localhost_leads_to_the_queues_own_name_and_programs_are_answered_there() {
    let lab = Lab::start_with(&["--url=http://queue.localhost:8090"]);
    let browser = lab.browser();
    let page = [("host", "localhost:8090"), ("accept", "text/html,*/*;q=0.8")];
    for path in ["/queue", "/login?next=%2Fhistory", "/requests/1?x=y"] {
        let answer = browser.get_with(path, &page).await;
        assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT, "{path}");
        let to = answer.headers()[header::LOCATION].to_str().unwrap();
        assert_eq!(to, format!("http://queue.localhost:8090{path}"));
    }
    for host in ["localhost:8090", "10.0.0.7:8090", "hitl-ui:8090"] {
        for (path, accept) in
            [("/healthz", "*/*"), ("/healthz", "text/html"), ("/assets/icon.svg", "*/*")]
        {
            let answer = browser.get_with(path, &[("host", host), ("accept", accept)]).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path} {host}");
        }
        let program = browser.get_with("/queue", &[("host", host), ("accept", "*/*")]).await;
        assert_eq!(program.headers()[header::LOCATION], "/login?next=%2Fqueue", "{host}");
    }
}

#[tokio::test]
async fn signing_out_ends_the_session_and_needs_a_form_of_ones_own() {
    let lab = Lab::start();
    let browser = lab.signed_in("dana").await;
    let foreign = browser.post("/logout", &[("form_token", "guessed")]).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let token = browser.form_token().await;
    let out = browser.post("/logout", &[("form_token", &token)]).await;
    assert_eq!(out.headers()[header::LOCATION], "/login");
    assert!(out.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    // The cookie is worth nothing any more, whoever has kept it.
    assert_eq!(browser.get("/queue").await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn an_open_stream_ends_with_its_session() {
    let lab = Lab::start();
    let browser = lab.signed_in("dana").await;
    let mut live = browser.get("/live").await;
    assert!(live.chunk().await.unwrap().is_some());
    let token = browser.form_token().await;
    browser.post("/logout", &[("form_token", &token)]).await;
    let ended = async { while live.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn behind_tls_the_cookie_belongs_to_this_host_and_to_tls_alone() {
    let lab = Lab::start_with(&["--secure-cookies"]);
    let mut browser = lab.signed_in("dana").await;
    let before = browser.clone();
    let form = [("token", "dana-token")];
    let answer = browser.post("/login", &form).await;
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-hitl-session="), "{cookie}");
    assert!(cookie.contains("; Path=/; ") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(!cookie.contains("Domain"), "{cookie}");
    browser.keep_cookie(&answer);
    assert!(browser.page("/queue").await.contains("dana"));
    // Signed in anew, the session of before is over.
    assert_eq!(before.get("/queue").await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn every_answer_says_that_nothing_from_elsewhere_runs_and_nobody_frames_it() {
    let lab = Lab::start();
    let browser = lab.signed_in("dana").await;
    let paths = [
        "/queue",
        "/history",
        "/insights",
        "/login",
        "/history.csv",
        "/nothing",
        "/assets/queue.js",
        "/requests/x",
        "/healthz",
    ];
    for path in paths {
        let answer = browser.get(path).await;
        let headers = answer.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::REFERRER_POLICY], "same-origin", "{path}");
        assert!(headers.contains_key(header::CACHE_CONTROL), "{path}");
        let text = answer.text().await.unwrap();
        // What the policy would stop is not there in the first place.
        for inline in ["<style", "style=\"", "onclick", "javascript:"] {
            assert!(!text.contains(inline) || path.starts_with("/assets"), "{inline} in {path}");
        }
    }
}
