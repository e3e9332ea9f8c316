//! Starts the scripted model: settings, telemetry, listener, in that order.

use std::process::ExitCode;

use anyhow::Context as _;
use hitl_service::{
    given::secrets,
    serve::{self, DRAIN_DEADLINE},
    telemetry,
};
use scripted_model::{config::Config, routes};

#[tokio::main]
async fn main() -> ExitCode {
    let config = secrets::parse::<Config>();
    if let Some(code) = config.healthcheck.run("scripted-model") {
        return code;
    }
    serve::exit_code("scripted-model", run(&config).await)
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("scripted-model", &config.telemetry)?;
    let stop = serve::stop_signal().context("signal handlers cannot be installed")?;
    let listener = serve::bind(config.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "scripted-model is listening");
    serve::serve(listener, routes::router(), stop, DRAIN_DEADLINE).await?;
    Ok(())
}
