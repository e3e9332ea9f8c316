//! Tools, by MCP at the gateway, in the name of whoever asks.
//!
//! Owns the connections: anew for each turn, so that the agent starts before the gateway is up and
//! goes on when it has been away. Must never call a tool in another user's name.

mod failure;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
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
        StreamableHttpClientTransport, common::client_side_sse::NeverRetry,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::time::{sleep, timeout};

use self::failure::{Failure, unconnected};
use crate::{approval::Call, model::Offered, notice};

/// Longest a server may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest that a gateway may be away after a connection was lost, and how often it is tried.
const RETURN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(250);

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

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// It was answered, or what became of it is said.
    Answered(Answer),
    /// Nothing was sent; says why.
    NotMade(String),
    /// The connection ended before an answer began.
    Lost,
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
    address: ServerAddress,
}

/// Connections of one turn.
pub struct Toolbox {
    servers: Vec<Connected>,
    /// What could not be reached, and why.
    pub away: Vec<String>,
    /// What it was opened with, and for whom.
    from: Servers,
    user: String,
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
        let (from, user_name) = (self.clone(), user.to_owned());
        let mut toolbox = Toolbox { servers: Vec::new(), away: Vec::new(), from, user: user_name };
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
        toolbox.servers.sort_by_key(|server| !server.address.reviewed);
        toolbox
    }

    async fn connect(&self, address: &ServerAddress, user: &str) -> Result<Connected, String> {
        let user =
            HeaderValue::try_from(user).map_err(|_| "the user's name is no header".to_owned())?;
        let mut config = StreamableHttpClientTransportConfig::with_uri(address.url.as_str())
            .custom_headers(HashMap::from([(USER, user)]));
        // An answer that breaks off and cannot be taken up again is told at once, not waited for.
        config.retry_config = Arc::new(NeverRetry::default());
        let transport = StreamableHttpClientTransport::with_client(self.http.clone(), config);
        let connect = async {
            let client = ClientConfig::default().serve(transport).await.map_err(|error| {
                tracing::debug!(server = %address.name, %error, "no connection");
                unconnected(&error)
            })?;
            let mut tools = client.list_all_tools().await.map_err(|error| {
                tracing::debug!(server = %address.name, %error, "no list of tools");
                Failure::of(&error).words()
            })?;
            // What may not be called is not there, neither for the model nor for a call.
            tools.retain(|tool| {
                let placed = format!("{}/{}", address.name, tool.name);
                let is = |name: &String| *name == tool.name || *name == placed;
                self.allowed.is_empty() || self.allowed.iter().any(is)
            });
            Ok(Connected { client, tools, address: address.clone() })
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
        self.server(tool).is_some_and(|server| server.address.reviewed)
    }

    /// Calls a tool. Whatever comes is an answer for the model, word for word.
    pub async fn call(&self, call: &Call) -> Called {
        let wrong = |text: String| Called::Answered(Answer { text, is_error: true });
        let Some(server) = self.server(&call.name) else {
            return wrong(format!("There is no tool {}.", call.name));
        };
        let params =
            CallToolRequestParams::new(call.name.clone()).with_arguments(call.args.clone());
        match timeout(self.from.limit, server.client.call_tool(params)).await {
            Ok(Ok(result)) => {
                let texts = result.content.iter().filter_map(|content| content.as_text());
                let texts: Vec<_> = texts.map(|text| text.text.as_str()).collect();
                let text = match (&result.structured_content, texts.as_slice()) {
                    (Some(structured), []) => structured.to_string(),
                    _ => texts.join("\n"),
                };
                Called::Answered(Answer { text, is_error: result.is_error == Some(true) })
            }
            Ok(Err(error)) => {
                let url = &server.address.url;
                let log = without_query(&error.to_string(), url);
                tracing::warn!(tool = %call.name, error = %log, "a call failed");
                match Failure::of(&error) {
                    Failure::Unsent(why) => {
                        Called::NotMade(format!("{} ({why})", server.address.name))
                    }
                    Failure::Lost => Called::Lost,
                    Failure::BrokenOff => wrong(notice::broken_off(&call.name)),
                    Failure::Refused(why) => {
                        let why = without_query(&why, url);
                        wrong(format!("The call of {} failed: {why}", call.name))
                    }
                }
            }
            Err(_) => wrong(format!(
                "The call of {} was given up after {} s. Whether it has run is not known.",
                call.name,
                self.from.limit.as_secs()
            )),
        }
    }

    /// Connects again to the server that has a tool. A gateway that is just being replaced is waited for.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn reconnect(&mut self, tool: &str) -> Result<(), String> {
        let at = self.servers.iter().position(|server| server.tools.iter().any(|t| t.name == tool));
        let missing = || format!("there is no tool {tool}");
        let server = at.and_then(|at| self.servers.get_mut(at)).ok_or_else(missing)?;
        let mut why = String::new();
        let trying = async {
            loop {
                match self.from.connect(&server.address, &self.user).await {
                    Ok(connected) => return connected,
                    Err(error) => why = error,
                }
                sleep(AGAIN).await;
            }
        };
        let connected = timeout(RETURN, trying).await;
        *server = connected.map_err(|_| without_query(&why, &server.address.url))?;
        Ok(())
    }
}
