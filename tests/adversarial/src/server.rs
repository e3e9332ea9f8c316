//! MCP servers of other SDKs: fed with cases, and asked what they have run.
//!
//! Invariant: a case is fed once to each kind of server.

use std::{
    collections::HashMap,
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use hitl_adversarial::{case::Case, everything::folded};
use hitl_receipt::ArgsDigest;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// Longest that a server may take to answer; then its connection is closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections to each endpoint.
const AT_ONCE: usize = 8;

/// An endpoint of a server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) kind: String,
    address: SocketAddr,
    path: String,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(kind, url)| {
            let (address, path) = url.split_once('/')?;
            Some((kind, address.parse().ok()?, path))
        });
        let (kind, address, path) = parts.ok_or("write it as KIND=ADDRESS/PATH")?;
        Ok(Self { kind: kind.to_owned(), address, path: format!("/{path}") })
    }
}

/// A call as a server has run it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Executed {
    /// The number in the request's `x-case` header.
    pub(crate) case: usize,
    /// The tool's name.
    pub(crate) tool: String,
    /// Its arguments, as JSON.
    pub(crate) arguments: String,
    /// The field `version` that a typed handler gets, where the server's language ignores case.
    #[serde(default)]
    pub(crate) bound: Option<String>,
    /// The request target as it arrived.
    pub(crate) path: String,
    /// Headers as they arrived whose names a server may take for `x-hitl-…`.
    pub(crate) hitl: Vec<(String, String)>,
}

impl Executed {
    /// The arguments as an object.
    pub(crate) fn arguments(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(&self.arguments).ok()
    }

    /// How the call differs from one that was shown, if it does.
    pub(crate) fn differs_from(
        &self,
        tool: &str,
        arguments: &Map<String, Value>,
    ) -> Option<String> {
        let theirs = self.arguments().map(|arguments| ArgsDigest::of(Some(&arguments)).ok());
        let shown = ArgsDigest::of(Some(arguments)).ok();
        if self.tool != tool || theirs != Some(shown) {
            return Some("another tool or other arguments".to_owned());
        }
        let named = arguments.iter().filter(|(key, _)| folded(key) == "version");
        let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
        match (&self.bound, values.as_slice()) {
            (None, _) => None,
            (Some(bound), [Some(shown)]) if bound == shown => None,
            (Some(bound), _) => Some(format!("a typed handler gets the version {bound:?}")),
        }
    }
}

/// What was run, by number of the case.
pub(crate) type ByCase = HashMap<usize, Vec<Executed>>;

/// Feeds every case to one endpoint of each kind; gives what each kind has run of them.
pub(crate) async fn feed(
    kinds: &[(String, Vec<Server>)],
    cases: &Arc<Vec<Case>>,
) -> anyhow::Result<Vec<(String, ByCase)>> {
    let mut feeding = JoinSet::new();
    for (_, endpoints) in kinds {
        for (endpoint, server) in endpoints.iter().enumerate() {
            let next = Arc::new(AtomicUsize::new(endpoint));
            for _ in 0..AT_ONCE {
                let feeder = Feeder {
                    server: server.clone(),
                    step: endpoints.len(),
                    next: Arc::clone(&next),
                    cases: Arc::clone(cases),
                };
                feeding.spawn(feeder.feed());
            }
        }
    }
    while let Some(fed) = feeding.join_next().await {
        fed??;
    }
    let mut all = Vec::new();
    for (kind, endpoints) in kinds {
        let mut addresses: Vec<_> = endpoints.iter().map(|server| server.address).collect();
        addresses.dedup();
        let mut executed = ByCase::new();
        for address in addresses {
            for call in executed_by(address).await? {
                executed.entry(call.case).or_default().push(call);
            }
        }
        all.push((kind.clone(), executed));
    }
    Ok(all)
}

struct Feeder {
    server: Server,
    step: usize,
    next: Arc<AtomicUsize>,
    cases: Arc<Vec<Case>>,
}

impl Feeder {
    async fn feed(self) -> anyhow::Result<()> {
        let mut connection = connect(self.server.address).await?;
        loop {
            let number = self.next.fetch_add(self.step, Ordering::Relaxed);
            let Some(case) = self.cases.get(number) else { return Ok(()) };
            // MCP calls by POST alone.
            if case.method() != "POST" {
                continue;
            }
            if connection.ready().await.is_err() {
                connection = connect(self.server.address).await?;
            }
            let request = self.request(number, case)?;
            let exchange = async {
                let answer = connection.send_request(request).await?;
                answer.into_body().collect().await
            };
            // Whether it answers, hangs up or falls silent: it has recorded what it ran.
            let answered = timeout(PATIENCE, exchange).await;
            if answered.is_err() {
                println!("{}: no answer to {}", self.server.kind, case.write().escape_ascii());
            }
            if !matches!(answered, Ok(Ok(_))) {
                connection = connect(self.server.address).await?;
            }
        }
    }

    fn request(&self, number: usize, case: &Case) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(&self.server.path)
            .header("host", self.server.address.to_string())
            .header("accept", "application/json, text/event-stream")
            .header("x-case", number.to_string());
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(case.body.clone().into())).context("a header that is none")
    }
}

/// A connection to a server.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream =
        TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// What the server at an address has run since it was last asked.
pub(crate) async fn executed_by(address: SocketAddr) -> anyhow::Result<Vec<Executed>> {
    let mut connection = connect(address).await?;
    let request = Request::get("/executed").header("host", address.to_string());
    let answer = connection.send_request(request.body(Full::default())?).await?;
    if !answer.status().is_success() {
        bail!("{address} does not say what it ran: {}", answer.status());
    }
    let body = answer.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).with_context(|| format!("what {address} ran"))
}
