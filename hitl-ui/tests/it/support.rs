//! Starts the real gate and the real queue, and reads pages as a browser without scripts does.

use std::{collections::HashMap, path::Path, time::Duration};

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest,
    attribute_context::{HttpRequest, Request},
    authorization_client::AuthorizationClient,
};
use hitl_process::{Process, beside};
use reqwest::{Response, StatusCode, header, redirect::Policy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub(crate) use hitl_process::PATIENCE;

/// The queue's program.
const QUEUE: &str = env!("CARGO_BIN_EXE_hitl-ui");

/// A gate and a queue in front of it.
pub(crate) struct Lab {
    folder: TempDir,
    pub(crate) gate: Option<Process>,
    queue: Process,
}

impl Lab {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more settings for the queue.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut reviewers = "reviewers:\n".to_owned();
        for name in ["dana", "lee"] {
            let digest = sha256(&format!("{name}-token"));
            reviewers.extend([
                "- {name: ",
                name,
                ", groups: [dba], token_sha256: ",
                &digest,
                "}\n",
            ]);
        }
        std::fs::write(folder.path().join("reviewers.yaml"), reviewers).unwrap();
        let gate = Self::gate(folder.path(), &[]);
        let admin = gate.url("admin");
        let mut args = vec!["--listen=127.0.0.1:0", "--gate", &admin];
        args.extend(settings);
        let queue = Process::start(hitl_process::command(QUEUE).args(args));
        Self { folder, gate: Some(gate), queue }
    }

    fn gate(folder: &Path, args: &[&str]) -> Process {
        let path = |name: &str| folder.join(name).display().to_string();
        let (database, reviewers) = (path("gate.db"), path("reviewers.yaml"));
        let mut all = vec!["--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
        all.extend(["--database", &database, "--reviewers", &reviewers]);
        all.extend(args);
        Process::start(hitl_process::command(beside(QUEUE, "hitl-extauth")).args(all))
    }

    /// A gate that asks nobody who they are.
    pub(crate) fn open_gate(folder: &Path) -> Process {
        let database = folder.join("gate.db").display().to_string();
        Process::start(hitl_process::command(beside(QUEUE, "hitl-extauth")).args([
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--insecure-no-reviewer-auth",
            "--database",
            &database,
        ]))
    }

    /// Kills the gate; gives what starts it again where it was.
    pub(crate) fn kill_gate(&mut self) -> String {
        let admin = self.gate.take().unwrap().url("admin");
        admin.rsplit(':').next().unwrap().to_owned()
    }

    pub(crate) fn start_gate(&mut self, port: &str) {
        self.gate = Some(Self::gate(self.folder.path(), &["--http-port", port]));
    }

    /// Kills the gate, and forgets everything that it knew.
    pub(crate) fn forget(&mut self) -> String {
        let port = self.kill_gate();
        for suffix in ["", "-wal", "-shm"] {
            let file = self.folder.path().join(format!("gate.db{suffix}"));
            // One that is not there needs no removing.
            let _ = std::fs::remove_file(file);
        }
        port
    }

    /// Another of our services, with settings that let it choose its port; and its address.
    pub(crate) fn service(name: &str, args: &[&str]) -> (Process, String) {
        let process = Process::start(hitl_process::command(beside(QUEUE, name)).args(args));
        let url = process.url("address");
        (process, url)
    }

    /// A migration at the gate: whether it passes.
    pub(crate) async fn call(&self, user: &str, arguments: Value) -> JoinHandle<(bool, String)> {
        self.call_tool(user, "run_migration", arguments).await
    }

    /// A call at the gate: whether it passes.
    pub(crate) async fn call_tool(
        &self,
        user: &str,
        tool: &str,
        arguments: Value,
    ) -> JoinHandle<(bool, String)> {
        let mut gate = self.checks().await;
        let check = check(user, tool, &arguments);
        tokio::spawn(async move {
            let answer = gate.check(check).await.unwrap().into_inner();
            (answer.status.clone().unwrap().code == 0, format!("{answer:?}"))
        })
    }

    /// A connection to ask the gate over.
    pub(crate) async fn checks(&self) -> AuthorizationClient<Channel> {
        AuthorizationClient::connect(self.gate.as_ref().unwrap().url("grpc")).await.unwrap()
    }

    pub(crate) fn browser(&self) -> Browser {
        // An error means that another test has done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Browser { http, base: self.queue.url("address"), cookie: String::new() }
    }

    /// A browser at another queue.
    pub(crate) fn browser_at(&self, url: &str) -> Browser {
        Browser { base: url.to_owned(), ..self.browser() }
    }

    /// Changes what the gate has stored, past the gate.
    pub(crate) fn sql(&self, statements: &str) {
        let file = rusqlite::Connection::open(self.folder.path().join("gate.db")).unwrap();
        file.busy_timeout(PATIENCE).unwrap();
        file.execute_batch(statements).unwrap();
    }

    /// The ids of pending requests by requester, once there are this many.
    pub(crate) async fn pending(&self, number: usize) -> HashMap<String, String> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let found = async {
            loop {
                let request = http.get(format!("{}/pending", self.gate_url()));
                let answer = request.bearer_auth("dana-token").send().await.unwrap();
                let all: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
                let all = all["pending"].as_array().unwrap();
                if all.len() == number {
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    let of = |r: &Value| (text(&r["requester"]["name"]), text(&r["id"]));
                    return all.iter().map(of).collect();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    /// The gate's admin API.
    pub(crate) fn gate_url(&self) -> String {
        self.gate.as_ref().unwrap().url("admin")
    }

    pub(crate) async fn signed_in(&self, name: &str) -> Browser {
        let mut browser = self.browser();
        browser.sign_in(name).await;
        browser
    }
}

/// A call of a tool, as a gateway asks about it.
pub(crate) fn check(user: &str, tool: &str, arguments: &Value) -> CheckRequest {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    })
    .to_string();
    let headers = [("content-type", "application/json"), ("x-user-id", user)];
    let http = HttpRequest {
        method: "POST".into(),
        path: "/privileged/mcp".into(),
        host: "gateway.example".into(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        size: i64::try_from(body.len()).unwrap(),
        raw_body: body.into_bytes(),
        ..HttpRequest::default()
    };
    let request = Request { http: Some(http), ..Request::default() };
    let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
    CheckRequest { attributes: Some(attributes) }
}

fn sha256(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    hitl_api::hex(&Sha256::digest(text))
}

/// A browser without scripts.
#[derive(Clone)]
pub(crate) struct Browser {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

impl Browser {
    pub(crate) async fn sign_in(&mut self, name: &str) {
        let form = [("token", format!("{name}-token")), ("next", "/queue".to_owned())];
        let answer = self.post("/login", &form).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        self.keep_cookie(&answer);
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&'static str, &str)]) -> Response {
        let mut request = self.http.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.header(header::COOKIE, &self.cookie).send().await.unwrap()
    }

    /// A page that there must be.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub(crate) async fn post<V: AsRef<str>>(&self, path: &str, form: &[(&str, V)]) -> Response {
        self.post_from(path, form, &[]).await
    }

    pub(crate) async fn post_from<V: AsRef<str>>(
        &self,
        path: &str,
        form: &[(&str, V)],
        headers: &[(&'static str, &str)],
    ) -> Response {
        let mut url = reqwest::Url::parse("http://x/").unwrap();
        url.query_pairs_mut().extend_pairs(form.iter().map(|(name, value)| (name, value.as_ref())));
        let mut request = self
            .http
            .post(format!("{}{path}", self.base))
            .header(header::COOKIE, &self.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(url.query().unwrap_or_default().to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub(crate) fn keep_cookie(&mut self, answer: &Response) {
        let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
        cookie.split(';').next().unwrap().clone_into(&mut self.cookie);
    }

    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The token in the forms of this session.
    pub(crate) async fn form_token(&self) -> String {
        let page = self.page("/history").await;
        between(&page, "name=\"form_token\" value=\"", "\"")
    }

    /// The id of the request that is open on the first page, once there is one.
    pub(crate) async fn first(&self) -> String {
        let found = async {
            loop {
                let page = self.page("/queue").await;
                if page.contains("data-shown=") {
                    return between(&page, "data-shown=\"", "\"");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }
}

pub(crate) fn between(text: &str, before: &str, after: &str) -> String {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
    rest.split_once(after).unwrap().0.to_owned()
}
