//! What the servers behind the gate say of their tools: titles, descriptions, hints.
//!
//! It is what a server says about itself, and is shown as that. Must never keep a page waiting for
//! long, and never make a tool look harmless because nobody answered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hitl_api::Request;
use reqwest::Url;
use rmcp::{
    ServiceExt as _,
    model::{ClientConfig, Tool},
    transport::StreamableHttpClientTransport,
};
use tokio::time::timeout;

/// Longest a server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer is good for.
const FRESH: Duration = Duration::from_mins(1);

/// How long a server that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);

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
            title: titled.filter(|title| !title.is_empty()),
            description: tool.description.as_ref().map(ToString::to_string),
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
pub type Catalog = HashMap<String, Described>;

/// An answer, or that there was none, and until when that counts.
#[derive(Clone, Debug)]
struct Kept {
    catalog: Option<Arc<Catalog>>,
    until: Instant,
}

/// Asks servers for their tools; a cheap handle.
#[derive(Clone, Debug)]
pub struct Tools {
    servers: Arc<HashMap<String, Url>>,
    kept: Arc<Mutex<HashMap<String, Kept>>>,
}

impl Tools {
    /// Asks the servers that are named here, at their MCP endpoints.
    pub fn new(servers: impl IntoIterator<Item = (String, Url)>) -> Self {
        Self { servers: Arc::new(servers.into_iter().collect()), kept: Arc::default() }
    }

    /// What a server says; nothing when it is not one of those named, or does not answer.
    pub async fn of(&self, server: &str) -> Option<Arc<Catalog>> {
        let url = self.servers.get(server)?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned();
        if let Some(kept) = kept
            && kept.until > Instant::now()
        {
            return kept.catalog;
        }
        let catalog = match timeout(PATIENCE, ask(url)).await {
            Ok(Ok(catalog)) => Some(Arc::new(catalog)),
            Ok(Err(error)) => {
                tracing::warn!(server, %error, "a server does not say what its tools do");
                None
            }
            Err(_) => {
                tracing::warn!(server, "a server does not say in time what its tools do");
                None
            }
        };
        let good = if catalog.is_some() { FRESH } else { LEFT_ALONE };
        let kept = Kept { catalog: catalog.clone(), until: Instant::now() + good };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), kept);
        catalog
    }

    /// What the servers of all these requests say, by server.
    pub async fn of_all(&self, requests: &[Request]) -> HashMap<String, Arc<Catalog>> {
        let mut all = HashMap::new();
        for request in requests {
            if !all.contains_key(&request.server)
                && let Some(catalog) = self.of(&request.server).await
            {
                all.insert(request.server.clone(), catalog);
            }
        }
        all
    }
}

async fn ask(url: &Url) -> Result<Catalog, Box<dyn std::error::Error + Send + Sync>> {
    let transport = StreamableHttpClientTransport::from_uri(url.as_str());
    let client = ClientConfig::default().serve(transport).await?;
    let tools = client.list_all_tools().await;
    client.cancel().await?;
    Ok(tools?.iter().map(|tool| (tool.name.to_string(), Described::of(tool))).collect())
}
