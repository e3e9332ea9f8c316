//! Starts the real gate, asks it as a gateway does, and decides as a reviewer does.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use envoy_types::pb::envoy::{
    config::core::v3::{Address, SocketAddress, address},
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use hitl_process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub(crate) use hitl_process::PATIENCE;

/// A gate's folder: its database, key and reviewers outlive its process.
pub(crate) struct Lab {
    folder: TempDir,
}

/// A running gate; killed when dropped.
pub(crate) struct Gate {
    process: Process,
    grpc: String,
    admin: String,
    http: reqwest::Client,
}

/// The gate's program, for whatever it does.
pub(crate) fn command() -> Command {
    hitl_process::command(env!("CARGO_BIN_EXE_hitl-extauth"))
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut reviewers = "reviewers:\n".to_owned();
        for name in ["dana", "lee", "alice"] {
            let digest = sha256(&format!("{name}-token"));
            reviewers.extend(["- {name: ", name, ", token_sha256: ", &digest, "}\n"]);
        }
        std::fs::write(folder.path().join("reviewers.yaml"), reviewers).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start(&self, args: &[&str]) -> Gate {
        Gate::start(self.folder.path(), command(), &self.database("gate.db"), args)
    }

    /// The same under a umask, in octal.
    pub(crate) fn start_with_umask(&self, umask: &str, args: &[&str]) -> Gate {
        let command = hitl_process::command_with_umask(umask, env!("CARGO_BIN_EXE_hitl-extauth"));
        Gate::start(self.folder.path(), command, &self.database("gate.db"), args)
    }

    /// The same as another user, for which the tests must be root's.
    pub(crate) fn start_as(&self, user: u32, program: &Path) -> Gate {
        let mut command = hitl_process::command("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
        command.arg("--clear-groups").arg(program);
        Gate::start(self.folder.path(), command, &self.database("gate.db"), &["--hold", "0"])
    }

    fn database(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// One of several gates over a database that they share.
    pub(crate) fn replica(&self, database: &str, args: &[&str]) -> Gate {
        Gate::start(self.folder.path(), command(), database, args)
    }

    /// The same with a clock that is this far off.
    pub(crate) fn replica_off(&self, database: &str, off: &str, args: &[&str]) -> Gate {
        let mut command = command();
        let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
        let libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
        let library = libraries.into_iter().find(|path| path.is_file());
        command.env("LD_PRELOAD", library.expect("apt install faketime"));
        command.env("FAKETIME", off).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Gate::start(self.folder.path(), command, database, args)
    }

    pub(crate) fn start_with(&self, name: &str, value: &str) -> Gate {
        let mut command = command();
        command.env(name, value);
        Gate::start(self.folder.path(), command, &self.database("gate.db"), &[])
    }

    /// A gate whose database is on a disk of its own with this many mebibytes, which goes with it.
    pub(crate) fn start_on_small_disk(&self, mebibytes: u32) -> (Gate, PathBuf) {
        let disk = self.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let mut command = hitl_process::command("unshare");
        // In a name space of its own; whoever is not root becomes root of that.
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mount = "size=$1; disk=$2; shift 2; \
                     mount -t tmpfs -o size=${size}m none \"$disk\" && exec \"$@\"";
        command.args(["--mount", "sh", "-c", mount, "sh", &mebibytes.to_string()]);
        command.arg(&disk).arg(env!("CARGO_BIN_EXE_hitl-extauth"));
        let gate = Gate::start(self.folder.path(), command, &self.database("disk/gate.db"), &[]);
        let root = PathBuf::from(format!("/proc/{}/root", gate.process.id()));
        let disk = root.join(disk.strip_prefix("/").unwrap());
        (gate, disk)
    }
}

fn sha256(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    hitl_api::hex(&Sha256::digest(text))
}

impl Gate {
    fn start(folder: &Path, mut command: Command, database: &str, args: &[&str]) -> Self {
        if !args.contains(&"--denial-cooldown") {
            command.args(["--denial-cooldown", "0"]);
        }
        for listen in ["--grpc-listen", "--admin-listen"] {
            if !args.contains(&listen) {
                command.args([listen, "127.0.0.1:0"]);
            }
        }
        command.arg("--database").arg(database);
        command.arg("--receipt-key").arg(folder.join("key.pem"));
        command.arg("--reviewers").arg(folder.join("reviewers.yaml"));
        let process = Process::start(command.args(args));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { grpc: process.url("grpc"), admin: process.url("admin"), process, http }
    }

    /// A connection of a gateway.
    pub(crate) async fn gateway(&self) -> AuthorizationClient<Channel> {
        AuthorizationClient::connect(self.grpc.clone()).await.unwrap()
    }

    /// Asks about a call and waits for the answer.
    pub(crate) async fn check(&self, check: CheckRequest) -> Verdict {
        Verdict::of(self.gateway().await.check(check).await.unwrap().into_inner())
    }

    /// Asks about a call on a connection of its own, and does not wait.
    pub(crate) async fn hold(&self, check: CheckRequest) -> JoinHandle<Verdict> {
        let mut gateway = self.gateway().await;
        tokio::spawn(async move { Verdict::of(gateway.check(check).await.unwrap().into_inner()) })
    }

    /// The same for a gate that may be killed meanwhile: `None` when no answer came.
    pub(crate) async fn try_check(grpc: String, check: CheckRequest) -> Option<Verdict> {
        let mut gateway = AuthorizationClient::connect(grpc).await.ok()?;
        Some(Verdict::of(gateway.check(check).await.ok()?.into_inner()))
    }

    /// A decision about whatever waits, for a gate that may be killed meanwhile: which request, and
    /// whether it was approved, when the gate has acknowledged it.
    pub(crate) async fn try_decide(
        http: reqwest::Client,
        admin: String,
        approved: bool,
    ) -> Option<(String, bool)> {
        Self::try_decide_but(http, admin, approved, "").await
    }

    /// The same about any but one.
    pub(crate) async fn try_decide_but(
        http: reqwest::Client,
        admin: String,
        approved: bool,
        keep: &str,
    ) -> Option<(String, bool)> {
        let request = http.get(format!("{admin}/pending?limit=2")).bearer_auth("dana-token");
        let pending: Value =
            serde_json::from_str(&request.send().await.ok()?.text().await.ok()?).ok()?;
        let mut ids = pending["pending"].as_array()?.iter().filter_map(|r| r["id"].as_str());
        let id = ids.find(|id| *id != keep)?.to_owned();
        let decision = json!({"approved": approved, "reason": "r"}).to_string();
        let request = http.post(format!("{admin}/decide/{id}")).bearer_auth("dana-token");
        let request = request.header("content-type", "application/json").body(decision);
        let acknowledged = request.send().await.ok()?.status() == 204;
        acknowledged.then_some((id, approved))
    }

    /// Where it is asked, as a gateway's settings have it.
    pub(crate) fn grpc_port(&self) -> u16 {
        self.grpc.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Where it is asked, where it is told, and a client for that.
    pub(crate) fn doors(&self) -> (String, String, reqwest::Client) {
        (self.grpc.clone(), self.admin.clone(), self.http.clone())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.get_as("dana", path).await
    }

    pub(crate) async fn get_as(&self, reviewer: &str, path: &str) -> (u16, String) {
        let request = self.http.get(format!("{}{path}", self.admin));
        let response = request.bearer_auth(format!("{reviewer}-token")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// An open stream of events.
    pub(crate) async fn events(&self, last: Option<u64>) -> reqwest::Response {
        let mut request = self.http.get(format!("{}/events", self.admin)).bearer_auth("dana-token");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn pending(&self) -> Vec<Value> {
        self.json("/pending").await["pending"].as_array().unwrap().clone()
    }

    /// The pending requests, when there are this many with somebody waiting.
    pub(crate) async fn waiting(&self, count: usize) -> Vec<Value> {
        let found = async {
            loop {
                let pending = self.pending().await;
                if pending.iter().filter(|request| request["waiting"] == true).count() == count {
                    return pending;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("requests to wait")
    }

    /// The id of the one request that is to be decided, whether or not its caller waits still.
    pub(crate) async fn pending_one(&self) -> String {
        let found = async {
            loop {
                if let [request] = &self.pending().await[..] {
                    return id_of(request);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("one request")
    }

    /// The id of the one request that waits.
    pub(crate) async fn waiting_one(&self) -> String {
        id_of(&self.waiting(1).await[0])
    }

    pub(crate) async fn decide(
        &self,
        reviewer: &str,
        id: &str,
        approved: bool,
        reason: &str,
    ) -> (u16, Value) {
        let decision = json!({"approved": approved, "reason": reason}).to_string();
        self.decide_raw(Some(&format!("{reviewer}-token")), id, decision).await
    }

    pub(crate) async fn decide_raw(
        &self,
        token: Option<&str>,
        id: &str,
        body: String,
    ) -> (u16, Value) {
        let mut request = self
            .http
            .post(format!("{}/decide/{id}", self.admin))
            .header("content-type", "application/json")
            .body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    /// Approves calls like a request beforehand.
    pub(crate) async fn preapprove(
        &self,
        reviewer: &str,
        id: &str,
        wanted: &Value,
    ) -> (u16, Value) {
        let url = format!("{}/requests/{id}/preapprove", self.admin);
        let request = self.http.post(url).header("content-type", "application/json");
        Self::told(request.body(wanted.to_string()), reviewer).await
    }

    /// Ends a pre-approval.
    pub(crate) async fn end_preapproval(&self, reviewer: &str, id: &str) -> (u16, Value) {
        let url = format!("{}/preapprovals/{id}", self.admin);
        Self::told(self.http.delete(url), reviewer).await
    }

    async fn told(request: reqwest::RequestBuilder, reviewer: &str) -> (u16, Value) {
        let request = request.bearer_auth(format!("{reviewer}-token"));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    /// Waits until the gate says that it is ready, or that it is not.
    pub(crate) async fn until_ready(&self, ready: bool) {
        let status = if ready { 200 } else { 503 };
        let so = async { while self.get_as("nobody", "/readyz").await.0 != status {} };
        tokio::time::timeout(PATIENCE, so).await.expect("readiness to change");
    }

    pub(crate) async fn withdraw(&self, requester: &str, id: &str) -> u16 {
        let request = self.http.post(format!("{}/withdraw/{id}", self.admin));
        let request = request.bearer_auth(format!("{requester}-token"));
        let request = request.header("content-type", "application/json").body("{}");
        request.send().await.unwrap().status().as_u16()
    }

    /// The state of a request, when it is this one.
    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        let found = async {
            loop {
                let request = self.json(&format!("/requests/{id}")).await;
                if request["state"] == state {
                    return request;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{id} to be {state}"))
    }

    /// What it has logged so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    pub(crate) async fn exited(self) -> ExitStatus {
        self.process.exited().await
    }
}

pub(crate) fn id_of(request: &Value) -> String {
    request["id"].as_str().unwrap().to_owned()
}

/// A check of a POST, as agentgateway sends it.
pub(crate) fn post(body: &str, headers: &[(&str, &str)]) -> CheckRequest {
    let mut all = HashMap::from([
        ("content-type".to_owned(), "application/json".to_owned()),
        ("authorization".to_owned(), "Bearer the-callers-secret".to_owned()),
        (":method".to_owned(), "POST".to_owned()),
    ]);
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let http = HttpRequest {
        method: "POST".into(),
        path: "/privileged/mcp?x=1".into(),
        host: "gateway.example:8080".into(),
        headers: all,
        body: body.into(),
        size: i64::try_from(body.len()).unwrap(),
        ..HttpRequest::default()
    };
    let address = Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "10.1.2.3".into(),
            ..SocketAddress::default()
        })),
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(address), ..Peer::default() }),
            request: Some(Request { http: Some(http), ..Request::default() }),
            ..AttributeContext::default()
        }),
    }
}

/// A check of `run_migration`, asked by a user.
pub(crate) fn migrate(user: &str, version: &str, id: u32) -> CheckRequest {
    let body = json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": "run_migration", "arguments": {"version": version}, "_meta": {"progressToken": id}},
    });
    post(&body.to_string(), &[("x-user-id", user), ("x-hitl-receipt", "forged")])
}

/// The same from somebody whose client certificate the gateway has verified.
pub(crate) fn verified(principal: &str, mut check: CheckRequest) -> CheckRequest {
    let attributes = check.attributes.as_mut().unwrap();
    principal.clone_into(&mut attributes.source.as_mut().unwrap().principal);
    check
}

/// What a gateway makes of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Passes on, with headers set and removed.
    Allowed { set: HashMap<String, String>, removed: Vec<String> },
    /// Answered by the gate.
    Denied { status: i32, body: Value },
}

impl Verdict {
    fn of(response: CheckResponse) -> Self {
        // As gateways decide: by the status alone. None at all would be "allow".
        let status = response.status.expect("every answer has a status");
        match (status.code, response.http_response) {
            (0, Some(HttpResponse::OkResponse(ok))) => Self::Allowed {
                set: ok
                    .headers
                    .into_iter()
                    .filter_map(|option| option.header.map(|header| (header.key, header.value)))
                    .collect(),
                removed: ok.headers_to_remove,
            },
            (7, Some(HttpResponse::DeniedResponse(denied))) => Self::Denied {
                status: denied.status.unwrap().code,
                body: serde_json::from_str(&denied.body).unwrap(),
            },
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// The approval a call has passed with.
    pub(crate) fn approval(&self) -> Option<String> {
        match self {
            Self::Allowed { set, .. } => set.get("x-hitl-approval-id").cloned(),
            Self::Denied { .. } => None,
        }
    }

    pub(crate) fn receipt(&self) -> String {
        match self {
            Self::Allowed { set, .. } => set["x-hitl-receipt"].clone(),
            Self::Denied { .. } => panic!("{self:?}"),
        }
    }

    /// Text and particulars of a denial that reaches the model.
    pub(crate) fn denial(&self) -> (String, Value) {
        match self {
            Self::Denied { status: 200, body } => {
                let result = &body["result"];
                assert_eq!(result["isError"], true);
                let text = result["content"][0]["text"].as_str().unwrap().to_owned();
                (text, result["structuredContent"].clone())
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A number from outside, so that every run kills at other moments.
pub(crate) fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish() % below
}
