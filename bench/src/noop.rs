//! A bare rmcp server with one tool that answers at once: the limit for any tool of ours.
//!
//! Must be configured exactly as our servers are, so that the difference is what our code costs.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use hitl_service::serve::{self, DRAIN_DEADLINE};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};

struct Noop;

impl ServerHandler for Noop {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::text("ok")]).into())
    }
}

/// Serves until asked to stop; prints its address as the first line.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let service = StreamableHttpService::new(
        || Ok(Noop),
        Arc::new(NeverSessionManager::default()),
        StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true),
    );
    let listener = serve::bind("127.0.0.1:0".parse()?).await?;
    println!("listening address={}", listener.local_addr()?);
    let stop = serve::stop_signal().context("signal handlers")?;
    let app = Router::new().route_service("/public/mcp", service);
    serve::serve(listener, app, stop, DRAIN_DEADLINE).await?;
    Ok(())
}
