//! MCP servers that are not ours: fed with cases, and asked what they have executed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, bail};
use hitl_adversarial::case::Case;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::JoinSet};

/// Connections to each endpoint.
const AT_ONCE: usize = 4;

/// Numbers of cases at one endpoint begin this far from those at another, since endpoints of one
/// process share what they note.
const APART: usize = 10_000_000;

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

/// A call as a server has executed it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Executed {
    case: usize,
    /// The tool's name.
    pub(crate) tool: String,
    /// Its arguments, as JSON.
    pub(crate) arguments: String,
}

/// What was executed, by number of the case.
pub(crate) type ByCase = HashMap<usize, Vec<Executed>>;

/// Feeds every case to one endpoint of each kind; gives what each kind has executed.
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
                    endpoint,
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
        let mut executed = ByCase::new();
        for (endpoint, server) in endpoints.iter().enumerate() {
            for call in executed_by(server).await? {
                if call.case / APART == endpoint {
                    executed.entry(call.case % APART).or_default().push(call);
                }
            }
        }
        all.push((kind.clone(), executed));
    }
    Ok(all)
}

struct Feeder {
    server: Server,
    endpoint: usize,
    step: usize,
    next: Arc<AtomicUsize>,
    cases: Arc<Vec<Case>>,
}

impl Feeder {
    async fn feed(self) -> anyhow::Result<()> {
        let mut connection = connect(&self.server).await?;
        loop {
            let number = self.next.fetch_add(self.step, Ordering::Relaxed);
            let Some(case) = self.cases.get(number) else { return Ok(()) };
            if connection.ready().await.is_err() {
                connection = connect(&self.server).await?;
            }
            let answer = connection.send_request(self.request(number, case)?).await;
            // Whatever it answers, and even when it hangs up: what it executed it has noted.
            match answer {
                Ok(answer) => drop(answer.into_body().collect().await),
                Err(_) => connection = connect(&self.server).await?,
            }
        }
    }

    fn request(&self, number: usize, case: &Case) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(&self.server.path)
            .header("host", self.server.address.to_string())
            .header("accept", "application/json, text/event-stream")
            .header("x-case", (self.endpoint * APART + number).to_string());
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(case.body.clone().into())).context("a header that is none")
    }
}

async fn connect(server: &Server) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(server.address)
        .await
        .with_context(|| format!("{} does not answer", server.kind))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn executed_by(server: &Server) -> anyhow::Result<Vec<Executed>> {
    let mut connection = connect(server).await?;
    let request = Request::get("/executed").header("host", server.address.to_string());
    let answer = connection.send_request(request.body(Full::default())?).await?;
    if !answer.status().is_success() {
        bail!("{} does not say what it executed: {}", server.kind, answer.status());
    }
    let body = answer.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).with_context(|| format!("what {} executed", server.kind))
}
