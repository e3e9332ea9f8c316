//! Starts the server: settings, telemetry, database, listener, in that order, and leaves in order.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use hitl_service::{
    serve::{self, DRAIN_DEADLINE},
    telemetry,
};
use mcp_ops_tools::{
    config::Config,
    database::{Database, Location},
    guard::Guard,
    receipt::Receipts,
    routes,
};

/// How long a statement that is still running may keep the process after the drain.
const LAST_STATEMENT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let config = Config::read();
    if let Some(code) = config.healthcheck.run("mcp-ops-tools") {
        return code;
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .and_then(|runtime| {
            let result = runtime.block_on(run(&config));
            runtime.shutdown_timeout(LAST_STATEMENT);
            result
        });
    serve::exit_code("mcp-ops-tools", result)
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("mcp-ops-tools", &config.telemetry)?;
    let location = config.location();
    let receipts = receipts(config, &location)?;
    let database = Database::open(&location)?;
    let stop = serve::stop_signal().context("signal handlers cannot be installed")?;
    let listener = serve::bind(config.listen()).await?;
    let address = listener.local_addr().context("the listener has no address")?;
    let server = routes::Server::new(&database, Guard::new(config.allowed_hosts()));
    let _status = match config.status_listen {
        Some(address) => Some(serve::beside(address, server.status()).await?),
        None => None,
    };
    let app = server.tools(receipts);
    tracing::info!(%address, database = ?location, "mcp-ops-tools is listening");
    serve::serve(listener, app, stop, DRAIN_DEADLINE).await?;
    tracing::info!("mcp-ops-tools has stopped");
    Ok(())
}

fn receipts(config: &Config, location: &Location) -> anyhow::Result<Option<Arc<Receipts>>> {
    let Some(wanted) = config.receipts() else {
        tracing::warn!(
            "run_migration runs WITHOUT an approval receipt: whoever reaches this port can migrate \
             the schema. Give the gate's public keys with --receipt-keys"
        );
        return Ok(None);
    };
    let remembers = *location != Location::Memory;
    if !remembers {
        tracing::warn!(
            "used receipts are remembered in memory only; receipts from before a restart are \
             refused. Keep the database with --database"
        );
    }
    tracing::info!(keys = %wanted.keys, "run_migration runs only with an approval receipt");
    Ok(Some(Arc::new(Receipts::new(&wanted, remembers)?)))
}
