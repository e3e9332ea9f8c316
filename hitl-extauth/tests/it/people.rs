//! People whom an identity provider vouches for, at a running gate. The provider here is as small as it can
//! be, so that it can lie; a real one signs in through the browser in the suite `browser`.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey as _};
use hitl_service::Json;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::{Gate, Lab, migrate};

/// A provider: its keys by id, and whether it answers.
#[derive(Clone)]
struct Provider {
    issuer: String,
    keys: Arc<Mutex<BTreeMap<String, SigningKey>>>,
    answers: Arc<Mutex<bool>>,
    asked: Arc<Mutex<u32>>,
}

impl Provider {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let provider = Self {
            issuer,
            keys: Arc::default(),
            answers: Arc::new(Mutex::new(true)),
            asked: Arc::default(),
        };
        provider.rotate("one");
        let app = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async |State(it): State<Self>| it.configuration()),
            )
            .route("/jwks", get(async |State(it): State<Self>| it.jwks()))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        provider
    }

    fn configuration(&self) -> Result<Json<Value>, StatusCode> {
        self.answer(json!({
            "issuer": self.issuer, "jwks_uri": format!("{}/jwks", self.issuer),
        }))
    }

    fn jwks(&self) -> Result<Json<Value>, StatusCode> {
        *self.asked.lock().unwrap() += 1;
        let keys = self.keys.lock().unwrap();
        let keys = keys.iter().map(|(id, key)| {
            let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x, "use": "sig", "alg": "EdDSA"})
        });
        // Others' mistakes are no reason to do without the good ones.
        let wrong = json!({"kty": "OKP", "crv": "Ed25519", "kid": "short", "x": "AAAA"});
        let keys: Vec<_> =
            keys.chain([wrong, json!({"kty": "oct", "k": "c2VjcmV0", "kid": "shared"})]).collect();
        self.answer(json!({"keys": keys}))
    }

    fn answer(&self, said: Value) -> Result<Json<Value>, StatusCode> {
        let answers = *self.answers.lock().unwrap();
        if answers { Ok(Json(said)) } else { Err(StatusCode::BAD_GATEWAY) }
    }

    /// A new key in the place of all others.
    fn rotate(&self, id: &str) {
        let mut bytes = [7; 32];
        bytes[..id.len()].copy_from_slice(id.as_bytes());
        *self.keys.lock().unwrap() =
            BTreeMap::from([(id.to_owned(), SigningKey::from_bytes(&bytes))]);
    }

    /// A token of somebody, with claims changed (`null` takes one away).
    fn token(&self, name: &str, groups: &[&str], changed: &Value) -> String {
        let (id, key) =
            self.keys.lock().unwrap().iter().next().map(|(i, k)| (i.clone(), k.clone())).unwrap();
        let header = Header { kid: Some(id), ..Header::new(Algorithm::EdDSA) };
        sign(&key, &header, &self.claims(name, groups, changed))
    }

    fn claims(&self, name: &str, groups: &[&str], changed: &Value) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": self.issuer, "aud": "gate", "sub": format!("id-of-{name}"), "iat": now,
            "exp": now + 300, "email": format!("{name}@example.com"), "email_verified": true,
            "groups": groups,
        });
        for (name, value) in changed.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn gate(&self, lab: &Lab, more: &[&str]) -> Gate {
        let settings = [
            "--oidc-issuer",
            &self.issuer,
            "--oidc-audience",
            "gate",
            "--oidc-reviewer-groups",
            "dba,sec",
            "--oidc-viewer-groups",
            "support",
        ];
        lab.start(&[&settings, more].concat())
    }
}

fn sign(key: &SigningKey, header: &Header, claims: &Value) -> String {
    let der = key.to_pkcs8_der().unwrap();
    encode(header, claims, &EncodingKey::from_ed_der(der.as_bytes())).unwrap()
}

async fn me(gate: &Gate, token: &str) -> (u16, Value) {
    let (_, admin, http) = gate.doors();
    let answer = http.get(format!("{admin}/me")).bearer_auth(token).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn decide(gate: &Gate, token: &str, id: &str) -> (u16, Value) {
    gate.decide_raw(Some(token), id, json!({"approved": true}).to_string()).await
}

#[tokio::test]
async fn a_token_of_the_provider_says_who_somebody_is_and_what_they_may_do() {
    let (lab, provider) = (Lab::new(), Provider::start().await);
    let gate = provider.gate(&lab, &[]);
    let dana = provider.token("dana", &["dba"], &json!({}));
    let (status, said) = me(&gate, &dana).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["name"], "dana@example.com");
    assert_eq!(said["also"], json!(["id-of-dana"]));
    assert_eq!((&said["mayDecide"], &said["breakGlass"]), (&json!(true), &json!(false)));
    let viewer = provider.token("vic", &["support"], &json!({}));
    assert_eq!(me(&gate, &viewer).await.1["mayDecide"], false);

    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    assert_eq!(decide(&gate, &viewer, &id).await.0, 403);
    // Nor anything else that changes something.
    let (_, admin, http) = gate.doors();
    let like = json!({"condition": "true", "uses": 1, "seconds": 60, "reason": "all of them"});
    let changes = [
        (format!("requests/{id}/preapprove"), like.to_string()),
        ("webhooks/redeliver".to_owned(), "{}".to_owned()),
    ];
    for (path, body) in changes {
        let request = http.post(format!("{admin}/{path}")).bearer_auth(&viewer);
        let request = request.header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.unwrap().status(), 403, "{path}");
    }
    assert_eq!(decide(&gate, &dana, &id).await.0, 204);
    assert!(call.await.unwrap().is_allowed());
    let request = gate.json(&format!("/requests/{id}")).await;
    assert_eq!(request["votes"][0]["reviewer"], "dana@example.com");
    let stranger = provider.token("sam", &["web"], &json!({}));
    let (status, said) = me(&gate, &stranger).await;
    assert_eq!(status, 403, "{said}");
    assert!(said["error"].as_str().unwrap().contains("sam@example.com"), "{said}");
}

#[tokio::test]
async fn tokens_that_are_not_good_are_nobodys() {
    let (lab, provider) = (Lab::new(), Provider::start().await);
    let gate = provider.gate(&lab, &[]);
    let now = jiff::Timestamp::now().as_second();
    for (changed, why) in [
        (json!({"exp": now - 60}), "run out"),
        (json!({"exp": null}), "exp"),
        (json!({"nbf": now + 600}), "not count yet"),
        (json!({"aud": "other"}), "not for"),
        (json!({"aud": null}), "aud"),
        (json!({"aud": ["other", "more"]}), "not for"),
        (json!({"sub": null}), "sub"),
        (json!({"iss": "https://id.example.com"}), "nobody here knows"),
        (json!({"email_verified": false}), "not verified"),
        (json!({"email": null}), "email"),
        (json!({"email": "\u{7}bell"}), "email"),
    ] {
        let (status, said) = me(&gate, &provider.token("dana", &["dba"], &changed)).await;
        assert_eq!(status, 401, "{changed}: {said}");
        assert!(said["error"].as_str().unwrap().contains(why), "{changed}: {said}");
    }
    // Signed by somebody else, by nobody, or by what everybody knows.
    let claims = provider.claims("dana", &["dba"], &json!({}));
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::EdDSA) };
    let foreign = sign(&SigningKey::from_bytes(&[1; 32]), &header, &claims);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims));
    let shared = |kid: &str, secret: &[u8]| {
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let public = *provider.keys.lock().unwrap()["one"].verifying_key().as_bytes();
    let good = provider.token("dana", &["dba"], &json!({}));
    let (_, rest) = good.split_once('.').unwrap();
    let critical = json!({"alg": "EdDSA", "kid": "one", "crit": ["b64"], "b64": false});
    let other = json!({"alg": "EdDSA", "kid": "one", "typ": "logout+jwt"});
    let wrong = json!({"alg": "EdDSA", "kid": "short"});
    for token in [
        foreign,
        none,
        shared("shared", b"secret"),
        shared("one", &public),
        format!("{}.{rest}", part(&critical)),
        format!("{}.{rest}", part(&other)),
        format!("{}.{rest}", part(&wrong)),
        format!("{good}x"),
        "a.b.c".to_owned(),
        format!("{}.{}.x", "A".repeat(9000), "B".repeat(9000)),
    ] {
        let (status, said) = me(&gate, &token).await;
        assert_eq!(status, 401, "{token}: {said}");
    }
    assert_eq!(me(&gate, &good).await.0, 200);
}

#[tokio::test]
async fn new_keys_are_asked_for_and_a_provider_that_is_away_keeps_nobody_out_whom_it_has_let_in() {
    let (lab, provider) = (Lab::new(), Provider::start().await);
    *provider.answers.lock().unwrap() = false;
    // The gate starts, and says what it waits for.
    let gate = provider.gate(&lab, &[]);
    let dana = provider.token("dana", &["dba"], &json!({}));
    let (status, said) = me(&gate, &dana).await;
    assert_eq!(status, 503, "{said}");
    assert!(said["error"].as_str().unwrap().contains("does not answer"), "{said}");
    *provider.answers.lock().unwrap() = true;
    let let_in = async { while me(&gate, &dana).await.0 != 200 {} };
    tokio::time::timeout(Duration::from_secs(30), let_in).await.unwrap();

    provider.rotate("two");
    let lee = provider.token("lee", &["sec"], &json!({}));
    let let_in = async { while me(&gate, &lee).await.0 != 200 {} };
    tokio::time::timeout(Duration::from_secs(30), let_in).await.unwrap();
    // What the old key has signed is nothing any more.
    assert_eq!(me(&gate, &dana).await.0, 401);

    *provider.answers.lock().unwrap() = false;
    assert_eq!(me(&gate, &lee).await.0, 200);
    // Whoever makes keys up does not make the gate ask for each of them.
    let before = *provider.asked.lock().unwrap();
    for number in 0..50 {
        let header =
            Header { kid: Some(format!("made up {number}")), ..Header::new(Algorithm::EdDSA) };
        let claims = provider.claims("dana", &["dba"], &json!({}));
        let token = sign(&SigningKey::from_bytes(&[1; 32]), &header, &claims);
        assert_ne!(me(&gate, &token).await.0, 200);
    }
    assert!(*provider.asked.lock().unwrap() <= before + 2);
}

#[tokio::test]
async fn tokens_of_the_list_are_for_emergencies_and_the_audit_says_so() {
    let (lab, provider) = (Lab::new(), Provider::start().await);
    let gate = provider.gate(&lab, &[]);
    *provider.answers.lock().unwrap() = false;
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    assert_eq!(me(&gate, "dana-token").await.1["breakGlass"], true);
    assert_eq!(decide(&gate, "dana-token", &id).await.0, 204);
    assert!(call.await.unwrap().is_allowed());
    let request = gate.json(&format!("/requests/{id}")).await;
    assert_eq!(request["votes"][0]["breakGlass"], Value::Null);
    assert_eq!(request["votes"][0]["break_glass"], true);
    let approved = request["events"].as_array().unwrap().iter().find(|e| e["kind"] == "approved");
    assert_eq!(approved.unwrap()["data"]["breakGlass"], true);
}

#[tokio::test]
async fn nobody_decides_about_their_own_request_by_another_of_their_names() {
    let (lab, provider) = (Lab::new(), Provider::start().await);
    let rules = lab.path("rules.yaml");
    fs::write(&rules, "rules:\n- name: two\n  require: {approvals: 2}\n").unwrap();
    let gate = provider.gate(&lab, &["--rules", rules.to_str().unwrap()]);
    // The gateway knows them by their subject, the provider by their e-mail.
    let call = gate.hold(migrate("ID-of-Dana", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let dana = provider.token("dana", &["dba"], &json!({}));
    let (status, said) = decide(&gate, &dana, &id).await;
    assert_eq!(status, 403, "{said}");
    assert!(said["error"].as_str().unwrap().contains("your own request"), "{said}");
    // Two accounts of one person are one vote, where the provider says that they are one person's.
    let lee = provider.token("lee", &["sec"], &json!({}));
    let other = json!({"email": "lee-admin@example.com", "preferred_username": "Lee@example.com"});
    let admin = provider.token("lee-admin", &["dba"], &other);
    assert_eq!(decide(&gate, &lee, &id).await.0, 204);
    assert_eq!(decide(&gate, &admin, &id).await.0, 409);
    let kim = provider.token("kim", &["dba"], &json!({}));
    assert_eq!(decide(&gate, &kim, &id).await.0, 204);
    assert!(call.await.unwrap().is_allowed());
}

#[tokio::test]
async fn programs_may_read_with_tokens_of_theirs_and_never_decide() {
    let (lab, people, cluster) = (Lab::new(), Provider::start().await, Provider::start().await);
    let gate =
        people.gate(&lab, &["--machines-issuer", &cluster.issuer, "--machines-audience", "hitl"]);
    let account = "system:serviceaccount:monitoring:exporter";
    let claims = json!({"sub": account, "aud": ["hitl"], "email": null, "groups": ["dba"]});
    let token = cluster.token("x", &[], &claims);
    let (status, said) = me(&gate, &token).await;
    assert_eq!((status, &said["name"]), (200, &json!(account)), "{said}");
    assert_eq!(said["mayDecide"], false);
    let call = gate.hold(migrate(account, "v3", 1)).await;
    let id = gate.waiting_one().await;
    assert_eq!(decide(&gate, &token, &id).await.0, 403);
    let (_, admin, http) = gate.doors();
    let withdraw = http.post(format!("{admin}/withdraw/{id}")).bearer_auth(&token);
    let withdraw = withdraw.header("content-type", "application/json").body("{}");
    assert_eq!(withdraw.send().await.unwrap().status(), 403);
    // What the one signs is nothing to the other.
    assert_eq!(me(&gate, &people.token("x", &[], &claims)).await.0, 401);
    call.abort();
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_token_it_was_opened_by() {
    let (lab, provider) = (Lab::new(), Provider::start().await);
    let gate = provider.gate(&lab, &["--oidc-leeway", "0"]);
    let soon = json!({"exp": jiff::Timestamp::now().as_second() + 3});
    let token = provider.token("dana", &["dba"], &soon);
    let (_, admin, http) = gate.doors();
    let stream = http.get(format!("{admin}/events")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    tokio::time::timeout(Duration::from_secs(30), stream.bytes()).await.unwrap().unwrap();
    assert_eq!(me(&gate, &token).await.0, 401);
}
