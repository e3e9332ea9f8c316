//! Starts the queue: settings, telemetry, listener, in that order.

use std::process::ExitCode;

use anyhow::Context as _;
use hitl_service::{
    given::secrets,
    serve::{self, DRAIN_DEADLINE},
    telemetry,
};
use hitl_ui::{config::Config, home::Home, routes};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let config = secrets::parse::<Config>();
    if let Some(code) = config.healthcheck.run("hitl-ui") {
        return code;
    }
    serve::exit_code("hitl-ui", run(&config).await)
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("hitl-ui", &config.telemetry)?;
    let stop = serve::stop_signal().context("signal handlers cannot be installed")?;
    let listener = serve::bind(config.listen()).await?;
    let stopping = CancellationToken::new();
    let app = routes::router(config, stopping.clone())?;
    let address = listener.local_addr()?;
    let home = Home::new(config.oidc.url.clone());
    let url = home.address(address.port());
    tracing::info!(%address, gate = %config.gate, %url, "hitl-ui is listening");
    if home.is_shared() {
        tracing::warn!(%url, "browsers send sessions to every port of this host: give --url a name of the queue's own");
    }
    let stop = async move {
        let signal = stop.await;
        // Open pages hold streams that would never end by themselves.
        stopping.cancel();
        signal
    };
    serve::serve(listener, app, stop, DRAIN_DEADLINE).await?;
    Ok(())
}
