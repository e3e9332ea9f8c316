//! A provider that answers another question than the one that was asked: nobody is signed in by it.

use std::{
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State, routing};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hitl_service::Json;
use reqwest::{StatusCode, Url, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Browser, Lab};

/// What the provider says of whoever comes, and how often it was asked.
#[derive(Clone, Default)]
struct Provider {
    url: String,
    claims: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = Self { url, ..Self::default() };
        let app = Router::new()
            .route("/.well-known/openid-configuration", routing::get(Self::about))
            .route("/token", routing::post(Self::token))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        provider
    }

    fn about(State(Self { url, .. }): State<Self>) -> Ready<Json<Value>> {
        let at = |path: &str| format!("{url}{path}");
        ready(Json(json!({
            "issuer": url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        })))
    }

    fn token(State(provider): State<Self>) -> Ready<Json<Value>> {
        provider.asked.fetch_add(1, Ordering::SeqCst);
        let claims = provider.claims.lock().unwrap().to_string();
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(&claims), part("signed"));
        ready(Json(json!({"id_token": token, "access_token": "x", "token_type": "Bearer"})))
    }

    /// Begins to sign in: what the queue asks for.
    async fn begin(&self, browser: &mut Browser) -> Question {
        let answer = browser.get("/login/begin?next=%2Fhistory").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        browser.keep_cookie(&answer);
        let location = answer.headers()[header::LOCATION].to_str().unwrap();
        assert!(location.starts_with(&format!("{}/authorize?", self.url)), "{location}");
        let url = Url::parse(location).unwrap();
        let of = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found.unwrap().1.into_owned()
        };
        Question { state: of("state"), nonce: of("nonce") }
    }

    /// Says this of whoever comes.
    fn says(&self, issuer: &str, nonce: Option<&str>) {
        let mut claims =
            json!({"iss": issuer, "aud": "hitl-ui", "sub": "dana", "exp": 4_102_444_800_i64});
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        *self.claims.lock().unwrap() = claims;
    }
}

struct Question {
    state: String,
    nonce: String,
}

/// Comes back with this; gives the status and the page.
async fn back(browser: &Browser, query: &str) -> (StatusCode, String) {
    let answer = browser.get(&format!("/callback?{query}")).await;
    let status = answer.status();
    (status, answer.text().await.unwrap())
}

const NOT_BEGUN: &str = "was not begun here";

#[tokio::test]
async fn the_way_to_the_provider_begins_and_ends_on_the_queues_own_host() {
    let provider = Provider::start().await;
    let issuer = format!("--oidc-issuer={}", provider.url);
    let lab = Lab::start_with(&[&issuer, "--url=http://queue.localhost:8090"]);
    let mut browser = lab.browser();
    for path in ["/login/begin?next=%2Fqueue", "/callback?code=c&state=s"] {
        let answer = browser.get_with(path, &[("host", "localhost:8090")]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(answer.headers().get(header::SET_COOKIE).is_none(), "{path}");
        let page = answer.text().await.unwrap();
        assert!(page.contains("open http://queue.localhost:8090"), "{path}: {page}");
    }
    // The page by an address of loopback leads to where the provider sends people back to.
    let page = browser.page("/login").await;
    assert!(page.contains("href=\"http://queue.localhost:8090/login/begin?next="), "{page}");
    let own = [("host", "queue.localhost:8090")];
    let begun = browser.get_with("/login/begin?next=%2Fqueue", &own).await;
    browser.keep_cookie(&begun);
    let url = Url::parse(begun.headers()[header::LOCATION].to_str().unwrap()).unwrap();
    let of = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    assert_eq!(of("redirect_uri"), "http://queue.localhost:8090/callback");
    provider.says(&provider.url, Some(&of("nonce")));
    let back = format!("/callback?code=c&state={}", of("state"));
    // The gate, which trusts no provider here, does not know the token: to be begun again, and not refused.
    let answer = browser.get_with(&back, &own).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_to_another_question_signs_nobody_in() {
    let provider = Provider::start().await;
    let issuer = format!("--oidc-issuer={}", provider.url);
    let lab = Lab::start_with(&[&issuer, "--url=http://localhost:8090"]);

    // The same way with nothing wrong about it leads to the gate, which knows no such token: to be begun
    // again, and not refused here.
    let mut browser = lab.browser();
    let Question { state, nonce } = provider.begin(&mut browser).await;
    provider.says(&provider.url, Some(&nonce));
    let (status, page) = back(&browser, &format!("code=c&state={state}")).await;
    let asked = provider.asked.load(Ordering::SeqCst);
    assert_eq!((status, asked), (StatusCode::SEE_OTHER, 1), "{page}");

    // An ID token that was made for somebody else's question, or for none.
    let mut other = lab.browser();
    let another = provider.begin(&mut other).await.nonce;
    for nonce in [Some(another.as_str()), Some(""), None] {
        let mut browser = lab.browser();
        let Question { state, .. } = provider.begin(&mut browser).await;
        provider.says(&provider.url, nonce);
        let (status, page) = back(&browser, &format!("code=c&state={state}")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{nonce:?}");
        assert!(page.contains(NOT_BEGUN), "{nonce:?}: {page}");
        assert_eq!(browser.get("/queue").await.status(), StatusCode::SEE_OTHER);
    }

    // One that says it is another issuer's.
    let mut browser = lab.browser();
    let Question { state, nonce } = provider.begin(&mut browser).await;
    provider.says("https://login.example", Some(&nonce));
    let (status, page) = back(&browser, &format!("code=c&state={state}")).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(page.contains("another issuer"), "{page}");

    // Whoever comes back from another provider, or with another's state, or without having gone, brings
    // no code to ours.
    let asked = provider.asked.load(Ordering::SeqCst);
    let mut browser = lab.browser();
    let Question { state, nonce } = provider.begin(&mut browser).await;
    provider.says(&provider.url, Some(&nonce));
    let elsewhere = format!("code=c&state={state}&iss=https%3A%2F%2Flogin.example");
    for (browser, query) in [
        (&browser, elsewhere.as_str()),
        (&browser, "code=c&state="),
        (&browser, "code=c"),
        (&other, &format!("code=c&state={state}")),
        (&lab.browser(), &format!("code=c&state={state}")),
    ] {
        let (status, page) = back(browser, query).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{query}");
        assert!(page.contains(NOT_BEGUN), "{query}: {page}");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), asked);
}
