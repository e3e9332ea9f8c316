//! The MCP side: one server type for both endpoints, which differ in the tools they have.
//!
//! Owns how a call becomes an answer: arguments are parsed strictly, a refusal is an `isError`
//! result with a sentence a model can use, and every call is logged, timed and counted. Must never
//! answer a domain refusal with a transport error: clients hide those from the model.

mod privileged;
mod public;

use std::{borrow::Cow, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt as _;

use hitl_service::telemetry;
use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
        ErrorCode, Implementation, JsonObject, ListToolsResult, PaginatedRequestParams,
        ProtocolVersion, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::{Instrument as _, Span};

pub use self::{privileged::Privileged, public::Public};
use crate::{
    database::{Caller, QueryError, ReadError, WriteError},
    guard::CallerGone,
    metrics::{Metrics, Outcome, ToolLabel},
    receipt::ReceiptError,
};

/// Header that names who asked, as the agent claims.
pub const REQUESTER_HEADER: &str = "x-user-id";

/// Why a tool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No tool has this name here.
    #[error("there is no tool {0:?} at this endpoint")]
    UnknownTool(String),
    /// The arguments are not the tool's.
    #[error("{tool}: {reason}")]
    Arguments {
        /// The tool.
        tool: &'static str,
        /// What is wrong, naming what is expected.
        reason: String,
    },
    /// The query has no answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The change did not happen.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The database could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The call is not covered by an approval.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The caller has gone.
    #[error("the caller left, and the call was stopped")]
    Left,
    /// A bug of ours.
    #[error("the server failed on this call; nothing is known of its effect, read /state")]
    Broken,
}

impl ToolError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::UnknownTool(_)
            | Self::Arguments { .. }
            | Self::Receipt(_)
            | Self::Left
            | Self::Write(WriteError::ReceiptUsed | WriteError::ReceiptExpired)
            | Self::Query(
                QueryError::NotReading(_)
                | QueryError::Empty
                | QueryError::Several
                | QueryError::Nul
                | QueryError::Placeholders
                | QueryError::TooSlow
                | QueryError::TooBig
                | QueryError::TooLong
                | QueryError::Names
                | QueryError::RowTooBig
                | QueryError::Busy
                | QueryError::Abandoned
                | QueryError::Sql(_),
            ) => Outcome::refused,
            Self::Query(QueryError::Database(_))
            | Self::Write(WriteError::Sqlite(_) | WriteError::Lost)
            | Self::Read(_)
            | Self::Broken => Outcome::failed,
        }
    }
}

/// One call, as it reached a tool.
pub struct Call<'a> {
    /// Name of the tool.
    pub tool: &'a str,
    /// Its arguments, as parsed from the body; what is digested is what runs.
    pub arguments: Option<JsonObject>,
    /// The HTTP request it came with.
    pub parts: &'a Parts,
}

impl Call<'_> {
    /// Who asked, as claimed.
    fn caller(&self) -> Caller {
        requester(self.parts)
    }

    /// The arguments as the tool's own type. Unknown members are refused: what a reviewer saw must
    /// be what has an effect.
    fn parse<T: DeserializeOwned>(&mut self, tool: &'static str) -> Result<T, ToolError> {
        let arguments = Value::Object(self.arguments.take().unwrap_or_default());
        hitl_core::json::typed(arguments)
            .map_err(|error| ToolError::Arguments { tool, reason: error.to_string() })
    }
}

/// The tools of one endpoint.
pub trait Toolset: Send + Sync + 'static {
    /// Name of the MCP server.
    const NAME: &'static str;
    /// What a model should know before it uses the tools.
    const INSTRUCTIONS: &'static str;

    /// What `tools/list` answers.
    fn tools(&self) -> &[Tool];

    /// Which of the tools a name means, as a label.
    fn label(tool: &str) -> ToolLabel;

    /// Runs a tool; the value is its structured result.
    fn call(&self, call: Call<'_>) -> impl Future<Output = Result<Value, ToolError>> + Send;
}

/// An MCP server over a set of tools; a cheap handle, made anew for every request.
pub struct Endpoint<T> {
    tools: Arc<T>,
    metrics: Arc<Metrics>,
}

impl<T> Endpoint<T> {
    /// Serves `tools` and counts calls in `metrics`.
    pub fn new(tools: Arc<T>, metrics: Arc<Metrics>) -> Self {
        Self { tools, metrics }
    }
}

impl<T: Toolset> ServerHandler for Endpoint<T> {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(T::NAME, env!("CARGO_PKG_VERSION")))
            .with_instructions(T::INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.tools().iter().find(|tool| tool.name == name).cloned()
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut result = ListToolsResult::with_all_items(self.tools.tools().to_vec());
        // Required of 2026-07-28: how long, and for whom, the list may be kept. It never changes
        // while the server runs.
        if context
            .protocol_version()
            .is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
        {
            result.ttl_ms = Some(60_000);
            result.cache_scope = Some(CacheScope::Public);
        }
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arrived = Instant::now();
        let parts = context.extensions.get::<Parts>().ok_or_else(|| {
            ErrorData::internal_error("the call came without its HTTP request", None)
        })?;
        let label = T::label(&request.name);
        let call = Call { tool: &request.name, arguments: request.arguments, parts };
        let span = span(label, parts);

        // rmcp runs this in a task of its own, which goes on when the caller has gone.
        let gone = async {
            match parts.extensions.get::<CallerGone>() {
                Some(CallerGone(gone)) => gone.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let work = AssertUnwindSafe(self.tools.call(call)).catch_unwind();
        let result = tokio::select! {
            // Most calls are answered at the first look; only then is it worth watching the caller.
            biased;
            result = work.instrument(span.clone()) => {
                result.unwrap_or(Err(ToolError::Broken))
            }
            () = gone => Err(ToolError::Left),
        };

        let outcome = result.as_ref().map_or_else(ToolError::outcome, |_| Outcome::ok);
        let took = arrived.elapsed();
        self.metrics.call(label, outcome, took);
        span.in_scope(|| {
            let took = took.as_micros();
            let requester = || requester(parts).requester.unwrap_or_else(|| "-".to_owned());
            match &result {
                // Reads are many and change nothing; the metrics count them.
                Ok(_) if label == ToolLabel::cluster_db_query => {
                    tracing::debug!(tool = ?label, %outcome, requester = requester(), took_us = took, "call");
                }
                Ok(_) => tracing::info!(tool = ?label, %outcome, requester = requester(), took_us = took, "call"),
                Err(why) => {
                    // As a quoted text: it may carry what the caller wrote, line breaks and all.
                    let why = why.to_string();
                    tracing::warn!(tool = ?label, %outcome, requester = requester(), took_us = took, why, "call");
                }
            }
        });
        match result {
            Ok(value) => {
                // Once more as text, for clients that do not read structured content.
                let mut result = CallToolResult::success(vec![ContentBlock::text(text(&value)?)]);
                result.structured_content = Some(value);
                Ok(result.into())
            }
            Err(unknown @ ToolError::UnknownTool(_)) => {
                Err(ErrorData::new(ErrorCode::INVALID_PARAMS, unknown.to_string(), None))
            }
            Err(error) => {
                Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into())
            }
        }
    }
}

/// Who asked, as the request claims. All names, if there are several: one alone would look like the
/// truth.
fn requester(parts: &Parts) -> Caller {
    let names = parts.headers.get_all(REQUESTER_HEADER).iter();
    let names: Vec<_> = names.map(|name| String::from_utf8_lossy(name.as_bytes())).collect();
    Caller::claimed(&names.join(", "))
}

/// The span of a call, as part of its caller's trace; none where traces go nowhere.
fn span(label: ToolLabel, parts: &Parts) -> Span {
    if !telemetry::traces_are_exported() {
        return Span::none();
    }
    let span = tracing::info_span!(
        "tools/call",
        otel.name = format_args!("tools/call {label:?}"),
        otel.kind = "server",
        tool = ?label,
    );
    telemetry::continue_trace(&span, &parts.headers);
    span
}

fn text(value: &Value) -> Result<String, ErrorData> {
    serde_json::to_string(value).map_err(|error| {
        ErrorData::internal_error(format!("the answer is not JSON: {error}"), None)
    })
}

/// What `tools/list` says about one tool.
struct Description {
    name: &'static str,
    title: &'static str,
    text: &'static str,
    annotations: ToolAnnotations,
}

impl Description {
    fn tool<Input, Output>(self) -> Tool
    where
        Input: schemars::JsonSchema + 'static,
        Output: schemars::JsonSchema + 'static,
    {
        use rmcp::handler::server::tool::{schema_for_output, schema_for_type};
        Tool::new_with_raw(self.name, Some(Cow::Borrowed(self.text)), schema_for_type::<Input>())
            .with_title(self.title)
            .with_raw_output_schema(schema_for_output::<Output>())
            .with_annotations(self.annotations.open_world(false))
    }
}

/// A result as the value that goes into `structuredContent`.
fn structured(result: &impl Serialize) -> Result<Value, ToolError> {
    serde_json::to_value(result).map_err(|error| {
        ToolError::Query(QueryError::Sql(format!("the answer is not JSON: {error}")))
    })
}
