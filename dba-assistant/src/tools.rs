//! Tools, by MCP at the gateway, in the name of whoever asks.
//!
//! Owns the connections: anew for each turn, so that the agent starts before the gateway is up and
//! goes on when it has been away. Must never call a tool in another user's name.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use hitl_service::given::url::{loggable, without_query};
use http::{HeaderName, HeaderValue};
use reqwest::Url;
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, ClientConfig, Tool},
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::time::timeout;

use crate::{approval::Call, model::Offered};

/// Longest a server may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// The header that says for whom.
const USER: HeaderName = HeaderName::from_static("x-user-id");

/// A server of tools.
#[derive(Clone, Debug)]
pub struct ServerAddress {
    /// Its name, for people.
    pub name: String,
    /// Its MCP endpoint.
    pub url: Url,
    /// Whether a platform reviewer may stand before it.
    pub reviewed: bool,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The words.
    pub text: String,
    /// Whether it went wrong.
    pub is_error: bool,
}

/// Where tools are looked for; a cheap handle.
#[derive(Clone, Debug)]
pub struct Servers {
    http: reqwest::Client,
    addresses: Vec<ServerAddress>,
    /// Tools that may be called; all of them when empty.
    allowed: Vec<String>,
    limit: Duration,
}

struct Connected {
    client: RunningService<RoleClient, ClientConfig>,
    tools: Vec<Tool>,
    reviewed: bool,
    url: Url,
}

/// Connections of one turn.
pub struct Toolbox {
    servers: Vec<Connected>,
    /// What could not be reached, and why.
    pub away: Vec<String>,
    limit: Duration,
}

impl Servers {
    /// These servers; a call takes `limit` at most. `allowed` names the tools that may be called, all
    /// of them when it is empty; `SERVER/TOOL` is a tool of that server alone.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        addresses: Vec<ServerAddress>,
        allowed: Vec<String>,
        limit: Duration,
    ) -> Result<Self, reqwest::Error> {
        // An error means that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No connection is kept: one that went stale would cost a call.
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, addresses, allowed, limit })
    }

    /// Longest that one call may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Connects to all that answer, for a user.
    pub async fn open(&self, user: &str) -> Toolbox {
        let mut toolbox = Toolbox { servers: Vec::new(), away: Vec::new(), limit: self.limit };
        let connecting = self.addresses.iter().map(|address| self.connect(address, user));
        let connected = futures_util::future::join_all(connecting).await;
        for (address, connected) in self.addresses.iter().zip(connected) {
            match connected {
                Ok(server) => toolbox.servers.push(server),
                Err(why) => {
                    let why = without_query(&why, &address.url);
                    let url = loggable(&address.url);
                    tracing::warn!(server = %address.name, url, %why, "no tools of this server");
                    toolbox.away.push(format!("{} ({why})", address.name));
                }
            }
        }
        // Where two have a tool of the same name, the one counts that a reviewer may stand before.
        toolbox.servers.sort_by_key(|server| !server.reviewed);
        toolbox
    }

    async fn connect(&self, address: &ServerAddress, user: &str) -> Result<Connected, String> {
        let user =
            HeaderValue::try_from(user).map_err(|_| "the user's name is no header".to_owned())?;
        let config = StreamableHttpClientTransportConfig::with_uri(address.url.as_str())
            .custom_headers(HashMap::from([(USER, user)]));
        let transport = StreamableHttpClientTransport::with_client(self.http.clone(), config);
        let connect = async {
            let client = ClientConfig::default()
                .serve(transport)
                .await
                .map_err(|error| error.to_string())?;
            let mut tools = client.list_all_tools().await.map_err(|error| error.to_string())?;
            // What may not be called is not there, neither for the model nor for a call.
            tools.retain(|tool| {
                let placed = format!("{}/{}", address.name, tool.name);
                let is = |name: &String| *name == tool.name || *name == placed;
                self.allowed.is_empty() || self.allowed.iter().any(is)
            });
            let url = address.url.clone();
            Ok(Connected { client, tools, reviewed: address.reviewed, url })
        };
        timeout(PATIENCE, connect)
            .await
            .unwrap_or_else(|_| Err("it does not answer in time".into()))
    }
}

impl Toolbox {
    /// What the model may call.
    pub fn offered(&self) -> Vec<Offered> {
        let mut names = HashSet::new();
        let tools = self.servers.iter().flat_map(|server| &server.tools);
        tools
            .filter(|tool| names.insert(tool.name.clone()))
            .map(|tool| Offered {
                name: tool.name.to_string(),
                description: tool.description.as_deref().unwrap_or_default().to_owned(),
                schema: (*tool.input_schema).clone(),
            })
            .collect()
    }

    fn server(&self, tool: &str) -> Option<&Connected> {
        self.servers.iter().find(|server| server.tools.iter().any(|known| known.name == tool))
    }

    /// Whether nobody who was reached has this tool.
    pub fn lacks(&self, tool: &str) -> bool {
        self.server(tool).is_none()
    }

    /// Whether a platform reviewer may have to approve calls of this tool.
    pub fn is_reviewed(&self, tool: &str) -> bool {
        self.server(tool).is_some_and(|server| server.reviewed)
    }

    /// Calls a tool. Whatever comes is an answer for the model, word for word.
    pub async fn call(&self, call: &Call) -> Answer {
        let wrong = |text: String| Answer { text, is_error: true };
        let Some(server) = self.server(&call.name) else {
            return wrong(format!("There is no tool {}.", call.name));
        };
        let params =
            CallToolRequestParams::new(call.name.clone()).with_arguments(call.args.clone());
        match timeout(self.limit, server.client.call_tool(params)).await {
            Ok(Ok(result)) => {
                let texts = result.content.iter().filter_map(|content| content.as_text());
                let texts: Vec<_> = texts.map(|text| text.text.as_str()).collect();
                let text = match (&result.structured_content, texts.as_slice()) {
                    (Some(structured), []) => structured.to_string(),
                    _ => texts.join("\n"),
                };
                Answer { text, is_error: result.is_error == Some(true) }
            }
            Ok(Err(error)) => {
                let error = without_query(&error.to_string(), &server.url);
                wrong(format!("The call of {} failed: {error}", call.name))
            }
            Err(_) => wrong(format!(
                "The call of {} was given up after {} s. Whether it has run is not known.",
                call.name,
                self.limit.as_secs()
            )),
        }
    }
}
