//! What the servers behind the gate say of their tools: titles, descriptions, hints.
//!
//! It is what a server says about itself, and is shown as that. Must never keep a page waiting for
//! long, and never make a tool look harmless because nobody answered.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use hitl_api::Request;
use hitl_service::given::url::without_query;
use reqwest::Url;
use rmcp::{
    ServiceExt as _,
    model::{ClientConfig, Tool},
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::{sync::Mutex, time::timeout};

/// Longest a server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer is good for.
const FRESH: Duration = Duration::from_mins(1);

/// How long a server that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Largest answer of a server, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Most tools of a server, and the longest text about one, in characters.
const MOST: usize = 1000;
const LONGEST: usize = 2000;

/// What a server says of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Its title.
    pub title: Option<String>,
    /// What it does, in the server's words.
    pub description: Option<String>,
    /// Whether it only reads, as far as the server says.
    pub reads_only: Option<bool>,
    /// Whether it may destroy something, as far as the server says.
    pub destroys: Option<bool>,
    /// Whether calling it twice does no more than calling it once.
    pub idempotent: Option<bool>,
    /// Whether it reaches beyond its server.
    pub open_world: Option<bool>,
}

impl Described {
    fn of(tool: &Tool) -> Self {
        let hints = tool.annotations.as_ref();
        let titled = tool.title.clone().or_else(|| hints.and_then(|hints| hints.title.clone()));
        Self {
            title: titled.filter(|title| !title.is_empty()).map(|title| cut(&title)),
            description: tool.description.as_ref().map(|text| cut(text)),
            reads_only: hints.and_then(|hints| hints.read_only_hint),
            destroys: hints.and_then(|hints| hints.destructive_hint),
            idempotent: hints.and_then(|hints| hints.idempotent_hint),
            open_world: hints.and_then(|hints| hints.open_world_hint),
        }
    }

    /// The hints, in words.
    pub fn hints(&self) -> Vec<&'static str> {
        let say = |hint, yes, no| match hint {
            Some(true) => Some(yes),
            Some(false) => Some(no),
            None => None,
        };
        [
            say(self.reads_only, "only reads", "changes things"),
            say(self.destroys, "may destroy", "destroys nothing"),
            say(self.idempotent, "twice is the same as once", "twice is not the same as once"),
            say(self.open_world, "reaches beyond its server", "stays within its server"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A server's tools, by name.
pub type Catalog = HashMap<String, Arc<Described>>;

/// An answer, or that there was none, and until when that counts.
#[derive(Debug)]
struct Kept {
    catalog: Option<Arc<Catalog>>,
    until: Instant,
}

/// A server, and what it said last. Whoever holds the lock asks; the others wait for what they hear.
#[derive(Debug)]
struct Server {
    url: Url,
    kept: Mutex<Option<Kept>>,
}

/// Asks servers for their tools; a cheap handle.
#[derive(Clone, Debug)]
pub struct Tools {
    http: reqwest::Client,
    servers: Arc<HashMap<String, Server>>,
}

impl Tools {
    /// Asks the servers that are named here, at their MCP endpoints.
    pub fn new(http: reqwest::Client, servers: impl IntoIterator<Item = (String, Url)>) -> Self {
        let server = |(name, url)| (name, Server { url, kept: Mutex::new(None) });
        Self { http, servers: Arc::new(servers.into_iter().map(server).collect()) }
    }

    /// What a server says; nothing when it is not one of those named, or does not answer.
    pub async fn of(&self, server: &str) -> Option<Arc<Catalog>> {
        let (name, server) = (server, self.servers.get(server)?);
        let mut kept = server.kept.lock().await;
        if let Some(kept) = kept.as_ref()
            && kept.until > Instant::now()
        {
            return kept.catalog.clone();
        }
        let catalog = match timeout(PATIENCE, self.ask(&server.url)).await {
            Ok(Ok(catalog)) => Some(Arc::new(catalog)),
            Ok(Err(error)) => {
                let error = without_query(&error.to_string(), &server.url);
                tracing::warn!(server = name, %error, "a server does not say what its tools do");
                None
            }
            Err(_) => {
                tracing::warn!(server = name, "a server does not say in time what its tools do");
                None
            }
        };
        let good = if catalog.is_some() { FRESH } else { LEFT_ALONE };
        *kept = Some(Kept { catalog: catalog.clone(), until: Instant::now() + good });
        catalog
    }

    /// What the servers of all these requests say, by server.
    pub async fn of_all(&self, requests: &[Request]) -> HashMap<String, Arc<Catalog>> {
        let names: BTreeSet<_> = requests.iter().map(|request| &request.server).collect();
        let asked = names.into_iter().map(|name| async move { (name, self.of(name).await) });
        let said = join_all(asked).await.into_iter();
        said.filter_map(|(name, catalog)| Some((name.clone(), catalog?))).collect()
    }

    async fn ask(&self, url: &Url) -> Result<Catalog, Box<dyn std::error::Error + Send + Sync>> {
        let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
            .max_json_response_size(LARGEST)
            .max_sse_event_size(LARGEST);
        let transport = StreamableHttpClientTransport::with_client(self.http.clone(), config);
        let client = ClientConfig::default().serve(transport).await?;
        let tools = client.list_all_tools().await;
        client.cancel().await?;
        let tools = tools?;
        let described = tools.iter().take(MOST);
        Ok(described.map(|tool| (tool.name.to_string(), Arc::new(Described::of(tool)))).collect())
    }
}

/// A text of a server, no longer than is read; says so when it was longer.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!(
            "{} … (and {} characters more)",
            text.get(..at).unwrap_or_default(),
            text.chars().count() - LONGEST
        ),
        None => text.to_owned(),
    }
}
