//! Webhooks of a running gate, at receivers that fail, are slow, send elsewhere and lie.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hitl_service::Json;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{Gate, Lab, PATIENCE, command, id_of, migrate};

const SECRET: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// What came, and what is answered.
#[derive(Clone, Debug)]
struct Came {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Value,
    raw: Bytes,
}

type Answer = Arc<dyn Fn(usize, &Came) -> Response + Send + Sync>;

/// A receiver on this machine.
#[derive(Clone)]
struct Receiver {
    url: String,
    came: Arc<Mutex<Vec<Came>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Answer = Arc::new(|_, _| "ok".into_response());
        let receiver = Self { url, came: Arc::default(), answer: Arc::new(Mutex::new(answer)) };
        let app = Router::new().fallback(Self::take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        receiver
    }

    async fn take(
        State(receiver): State<Self>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        raw: Bytes,
    ) -> Response {
        let body = serde_json::from_slice(&raw).unwrap_or_default();
        let came = Came { method, uri: uri.to_string(), headers, body, raw };
        let number = {
            let mut all = receiver.came.lock().unwrap();
            all.push(came.clone());
            all.len()
        };
        let answer = Arc::clone(&receiver.answer.lock().unwrap());
        // As slow as one that is far away.
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer(number, &came)
    }

    fn answers(&self, answer: impl Fn(usize, &Came) -> Response + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    fn all(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// What came, once this is so.
    async fn until(&self, so: impl Fn(&[Came]) -> bool) -> Vec<Came> {
        let found = async {
            loop {
                let all = self.all();
                if so(&all) {
                    return all;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| {
            panic!("{:#?}", self.all().iter().map(|c| &c.body).collect::<Vec<_>>())
        })
    }
}

fn types(all: &[Came]) -> Vec<String> {
    all.iter().map(|came| came.body["type"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A file of webhooks, and what stands in the files it names.
fn write(lab: &Lab, hooks: &str) -> String {
    fs::write(lab.path("secret"), format!("whsec_{SECRET}\n")).unwrap();
    fs::write(lab.path("token"), "s3cret-token\n").unwrap();
    let hooks = hooks
        .replace("SECRET", &format!("secretFile: {}", lab.path("secret").display()))
        .replace("TOKEN", &format!("tokenFile: {}", lab.path("token").display()));
    let path = lab.path("webhooks.yaml");
    fs::write(&path, format!("queue: https://queue.example.com\nwebhooks:\n{hooks}")).unwrap();
    path.display().to_string()
}

fn standard(lab: &Lab, receiver: &Receiver) -> String {
    write(
        lab,
        &format!("- {{name: ops, url: {}/hook, privateAddresses: true, SECRET}}\n", receiver.url),
    )
}

fn start(lab: &Lab, webhooks: &str, more: &[&str]) -> Gate {
    lab.start(&[&["--webhooks", webhooks], more].concat())
}

#[tokio::test]
async fn what_happens_is_told_signed_once_and_without_arguments() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    let gate = start(&lab, &standard(&lab, &receiver), &[]);
    // One that is new hears of what happens from now on.
    receiver.until(<[Came]>::is_empty).await;
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    receiver.until(|all| types(all) == ["request.requested"]).await;
    assert_eq!(gate.decide("dana", &id, true, "go ahead").await.0, 204);
    assert!(call.await.unwrap().is_allowed());
    let all = receiver.until(|all| all.len() == 3).await;
    let mut kinds = types(&all);
    kinds.sort();
    assert_eq!(kinds, ["request.decided", "request.requested", "request.spent"]);
    for came in &all {
        let header = |name: &str| came.headers[name].to_str().unwrap().to_owned();
        let (id, moment) = (header("webhook-id"), header("webhook-timestamp"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
        let content = [format!("{id}.{moment}.").as_bytes(), &came.raw].concat();
        let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap());
        hmac::verify(&key, &content, &signature.unwrap()).unwrap();
        let late = jiff::Timestamp::now().as_second() - moment.parse::<i64>().unwrap();
        assert!((0..60).contains(&late), "{late}");
        assert!(!String::from_utf8_lossy(&came.raw).contains("v3"), "arguments were told");
    }
    let decided = all.iter().find(|came| came.body["type"] == "request.decided").unwrap();
    let data = &decided.body["data"];
    assert_eq!((&data["tool"], &data["requester"]), (&json!("run_migration"), &json!("alice")));
    assert_eq!(data["link"], format!("https://queue.example.com/requests/{id}"));
    assert_eq!(data["votes"][0]["reason"], "go ahead");
}

#[tokio::test]
async fn what_was_decided_is_told_though_the_gate_is_killed_before_it_could() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    receiver.answers(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let file = standard(&lab, &receiver);
    for round in 0..3 {
        let gate = start(&lab, &file, &[]);
        let call = gate.hold(migrate("alice", &format!("v{round}"), round)).await;
        let id = gate.waiting_one().await;
        assert_eq!(gate.decide("dana", &id, false, &format!("no {round}")).await.0, 204);
        gate.kill();
        call.abort();
    }
    receiver.answers(|_, _| "ok".into_response());
    let _gate = start(&lab, &file, &[]);
    let told = |all: &[Came]| {
        (0..3).all(|round| {
            all.iter().any(|came| {
                came.body["type"] == "request.decided"
                    && came.body["data"]["votes"][0]["reason"] == format!("no {round}")
            })
        })
    };
    receiver.until(told).await;
}

#[tokio::test]
async fn what_happens_after_a_restore_is_no_message_of_before_it() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    let file = standard(&lab, &receiver);
    let [database, backup] = ["gate.db", "backup.db"].map(|name| lab.path(name));
    let run = |verb: &str, args: &[&str]| {
        let mut command = command();
        command.arg(verb).arg("--database").arg(&database).args(args).arg(&backup);
        assert!(command.output().unwrap().status.success());
    };
    let gate = start(&lab, &file, &["--hold", "0"]);
    gate.check(migrate("alice", "v3", 1)).await;
    let id = id_of(&gate.pending().await[0]);
    run("backup", &[]);
    let decided = |all: &[Came], times: usize| {
        types(all).iter().filter(|kind| *kind == "request.decided").count() == times
    };
    assert_eq!(gate.decide("dana", &id, false, "no").await.0, 204);
    receiver.until(|all| decided(all, 1)).await;
    gate.kill();
    run("restore", &["--replace"]);
    // At the same place of the audit, and something else.
    let gate = start(&lab, &file, &["--hold", "0"]);
    assert_eq!(gate.decide("lee", &id, false, "not now").await.0, 204);
    let all = receiver.until(|all| decided(all, 2)).await;
    let ids = |kind: &str| -> Vec<_> {
        let of_kind = all.iter().filter(|came| came.body["type"] == kind);
        of_kind.map(|came| came.headers["webhook-id"].clone()).collect()
    };
    let decided = ids("request.decided");
    assert_ne!(decided[0], decided[1]);
    // What is told once more is the same as before.
    let requested = ids("request.requested");
    assert!(requested.iter().all(|id| *id == requested[0]), "{requested:?}");
}

#[tokio::test]
async fn a_receiver_that_fails_hears_the_same_message_again_when_it_asks_to() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    receiver.answers(|number, _| match number {
        1 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "slow down")
            .into_response(),
        2 => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response(),
        _ => "ok".into_response(),
    });
    let gate = start(&lab, &standard(&lab, &receiver), &[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let all = receiver.until(|all| all.len() == 3).await;
    let ids: Vec<_> = all.iter().map(|came| came.headers["webhook-id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let moments: Vec<_> =
        all.iter().map(|came| came.headers["webhook-timestamp"].clone()).collect();
    assert_ne!(moments[0], moments[2], "signed anew each time");
    call.abort();
}

#[tokio::test]
async fn a_receiver_that_is_gone_gets_a_dead_letter_that_can_be_sent_again() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    receiver.answers(|_, _| (StatusCode::GONE, "moved\u{7} away").into_response());
    let gate = start(&lab, &standard(&lab, &receiver), &[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let dead = async {
        loop {
            let letters = gate.json("/webhooks/dead").await["letters"].clone();
            if letters.as_array().unwrap().len() == 1 {
                return letters[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let dead = tokio::time::timeout(PATIENCE, dead).await.unwrap();
    assert!(dead["error"].as_str().unwrap().contains("410 Gone moved away"), "{dead}");
    receiver.answers(|_, _| "ok".into_response());
    let (_, admin, http) = gate.doors();
    let again = http.post(format!("{admin}/webhooks/redeliver")).bearer_auth("dana-token");
    let again = again.header("content-type", "application/json");
    let again = again.body(json!({"id": dead["id"]}).to_string()).send().await.unwrap();
    assert_eq!(again.json::<Value>().await.unwrap(), json!({"messages": 1}));
    receiver.until(|all| all.len() == 2).await;
    let none = async {
        while !gate.json("/webhooks/dead").await["letters"].as_array().unwrap().is_empty() {}
    };
    tokio::time::timeout(PATIENCE, none).await.unwrap();
    call.abort();
}

#[tokio::test]
async fn nobody_is_followed_elsewhere_and_no_private_address_is_reached() {
    let (lab, receiver, other) = (Lab::new(), Receiver::start().await, Receiver::start().await);
    let elsewhere = other.url.clone();
    receiver.answers(move |_, _| {
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, elsewhere.clone())]).into_response()
    });
    // A name of this machine's, which only looks like one of the world's.
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    let file = write(
        &lab,
        &format!(
            "- {{name: redirects, url: {}, privateAddresses: true, SECRET}}\n\
             - {{name: inward, url: 'https://localhost:{port}/inward', SECRET}}\n",
            receiver.url
        ),
    );
    let gate = start(&lab, &file, &[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    receiver.until(|all| !all.is_empty()).await;
    let refused = async {
        while !gate
            .get("/metrics")
            .await
            .1
            .contains("hitl_webhook_messages_total{template=\"standard\",word=\"again\"} 2")
        {
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(other.all().is_empty());
    assert!(receiver.all().iter().all(|came| came.uri != "/inward"));
    call.abort();
}

#[tokio::test]
async fn who_is_asked_is_reminded_and_told_when_nobody_decided_and_not_what_rules_settle() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    let rules = lab.path("rules.yaml");
    fs::write(&rules, "rules:\n- {name: open, when: \"arguments.version == 'v1'\", allow: true}\n")
        .unwrap();
    let rules = rules.display().to_string();
    let gate = start(
        &lab,
        &standard(&lab, &receiver),
        &["--expire-after", "2", "--hold", "1", "--rules", &rules],
    );
    assert!(gate.check(migrate("alice", "v1", 1)).await.is_allowed());
    gate.check(migrate("alice", "v3", 2)).await.denial();
    let all = receiver.until(|all| types(all).contains(&"request.lapsed".to_owned())).await;
    let of = |version: &str| {
        // Which of the two: the one that passed is spent.
        let passed = version == "v1";
        let mine = all.iter().filter(|came| (came.body["data"]["state"] == "spent") == passed);
        types(&mine.cloned().collect::<Vec<_>>())
    };
    assert_eq!(of("v1"), ["request.spent"]);
    let told = of("v3");
    assert_eq!(told.first().unwrap(), "request.requested");
    assert!(told.iter().filter(|kind| *kind == "request.reminder").count() >= 1, "{told:?}");
    assert_eq!(told.last().unwrap(), "request.lapsed");
}

#[tokio::test]
async fn slack_backstage_and_servicenow_get_what_they_expect() {
    let (lab, receiver) = (Lab::new(), Receiver::start().await);
    let row = "0123456789abcdef0123456789abcdef";
    let known = Arc::new(Mutex::new(None::<String>));
    receiver.answers(move |_, came| {
        let mut known = known.lock().unwrap();
        match (&came.method, came.uri.split('?').next().unwrap()) {
            (_, "/slack") => "ok".into_response(),
            (_, "/portal/api/notifications/notifications") => {
                Json(json!([{"id": "1"}])).into_response()
            }
            (&Method::GET, _) => {
                // A row of somebody else where there is none: what a query that was not understood gives.
                let id = known.clone().unwrap_or_else(|| "other".to_owned());
                Json(json!({"result": [{"sys_id": row, "correlation_id": id}]})).into_response()
            }
            (&Method::POST, "/now/api/now/table/change_request") => {
                *known = came.body["correlation_id"].as_str().map(str::to_owned);
                (StatusCode::CREATED, Json(json!({"result": {"sys_id": row}}))).into_response()
            }
            (&Method::PATCH, _) => Json(json!({"result": {}})).into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    });
    let url = &receiver.url;
    let file = write(
        &lab,
        &format!(
            "- {{name: chat, as: slack, url: {url}/slack, privateAddresses: true, arguments: true}}\n\
             - {{name: portal, as: backstage, url: {url}/portal, privateAddresses: true, TOKEN}}\n\
             - {{name: changes, as: servicenow, url: {url}/now, privateAddresses: true, TOKEN, events: [requested, decided]}}\n"
        ),
    );
    let gate = start(&lab, &file, &["--denial-cooldown", "0"]);
    let call = gate.hold(migrate("<!channel>\u{202e}& *eve*", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let to = |all: &[Came], path: &str| {
        all.iter().filter(|c| c.uri.starts_with(path)).cloned().collect::<Vec<_>>()
    };
    receiver
        .until(|all| {
            let posted = all.iter().any(|c| c.method == Method::POST && c.uri.starts_with("/now"));
            !to(all, "/slack").is_empty() && !to(all, "/portal").is_empty() && posted
        })
        .await;
    assert_eq!(gate.decide("dana", &id, false, "not on a Friday").await.0, 204);
    call.await.unwrap().denial();
    let all = receiver
        .until(|all| {
            all.iter().any(|c| c.method == Method::PATCH)
                && to(all, "/slack").len() >= 2
                && to(all, "/portal").len() >= 2
        })
        .await;

    let slack = &to(&all, "/slack")[0].body;
    assert_eq!(slack["unfurl_links"], false);
    assert!(!slack["text"].as_str().unwrap().contains("eve"), "{slack}");
    let fields = slack["blocks"][1]["fields"].as_array().unwrap();
    assert!(fields.iter().all(|field| field["type"] == "plain_text" && field["emoji"] == false));
    let text = slack["blocks"][1].to_string();
    assert!(text.contains("<!channel>") && !text.contains('\u{202e}'), "{text}");
    assert!(text.contains("version"), "its arguments were asked for: {text}");
    let link = slack["blocks"][2]["text"]["text"].as_str().unwrap();
    assert_eq!(link, format!("<https://queue.example.com/requests/{id}|Open it in the queue>"));

    let portal = to(&all, "/portal");
    assert_eq!(portal[0].headers["authorization"], "Bearer s3cret-token");
    assert_eq!(portal[0].body["recipients"]["type"], "broadcast");
    let scopes: Vec<_> = portal.iter().map(|came| came.body["payload"]["scope"].clone()).collect();
    assert!(scopes.iter().all(|scope| *scope == format!("hitl-{id}")), "{scopes:?}");
    assert!(
        portal.iter().all(|came| came.body["payload"]["link"].as_str().unwrap().ends_with(&id))
    );

    let posts = all.iter().filter(|c| c.method == Method::POST && c.uri.starts_with("/now"));
    let posts: Vec<_> = posts.collect();
    assert_eq!(posts.len(), 1, "one change for one request");
    let change = &posts[0].body;
    assert_eq!((&change["correlation_id"], &change["type"]), (&json!(id), &json!("normal")));
    assert!(change["short_description"].as_str().unwrap().starts_with("Approve run_migration of "));
    let patch = all.iter().find(|c| c.method == Method::PATCH).unwrap();
    assert_eq!(patch.uri, format!("/now/api/now/table/change_request/{row}"));
    assert!(
        patch.body["work_notes"].as_str().unwrap().contains("not on a Friday"),
        "{:?}",
        patch.body
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_meant_does_not_start_the_gate() {
    let lab = Lab::new();
    let path = write(&lab, "- {name: ops, url: http://example.com, SECRET}\n");
    let output =
        command().args(["--insecure-no-reviewer-auth", "--webhooks", &path]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("must be https"), "{said}");
}
