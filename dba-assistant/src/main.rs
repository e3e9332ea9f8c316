//! Starts the agent: settings, telemetry, store, listener, in that order.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use dba_assistant::{
    agent::Agent,
    chat,
    config::Config,
    model::Model,
    routes,
    store::{KagentTasks, SharedTasks, SqliteTasks},
    tools::Servers,
};
use hitl_service::{
    given::secrets,
    serve::{self, DRAIN_DEADLINE},
    telemetry,
};

#[tokio::main]
async fn main() -> ExitCode {
    let config = secrets::parse::<Config>();
    if let Some(code) = config.healthcheck.run("dba-assistant") {
        return code;
    }
    serve::exit_code("dba-assistant", run(&config).await)
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("dba-assistant", &config.telemetry)?;
    config.check()?;
    if config.require_approval().is_empty() {
        tracing::warn!("no call waits for the approval of its user: --require-approval is empty");
    }
    let stop = serve::stop_signal().context("signal handlers cannot be installed")?;
    let tasks: SharedTasks = match &config.kagent_url {
        Some(url) => Arc::new(KagentTasks::new(
            url.url().clone(),
            config.kagent_namespace.as_str(),
            config.kagent_name.as_str(),
            config.kagent_token.clone(),
        )?),
        None => Arc::new(SqliteTasks::open(config.database.as_deref())?),
    };
    let model = Model::new(
        config.model_url.url().clone(),
        config.key(),
        config.model.clone().into(),
        config.system.clone(),
    )?;
    let servers = Servers::new(config.servers(), config.tools(), config.call_limit())?;
    let agent = Agent::new(model, servers, tasks, config.require_approval());
    let listener = serve::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let url = config.url.as_ref().map_or_else(|| format!("http://{address}"), ToString::to_string);
    tracing::info!(%address, model = %config.model, "dba-assistant is listening");
    let ending = agent.clone();
    let mut router = routes::router(agent.clone(), &url, config.name.as_str(), &config.description);
    if config.kagent_url.is_none() {
        // Where there is no dashboard, it has pages of its own.
        router = router.merge(chat::router(agent));
        router = chat::known_by(router, config.allowed_hosts());
    }
    let stop = async move {
        let signal = stop.await;
        // What is under way is kept as interrupted, and whoever listens is told.
        ending.stop().await;
        signal
    };
    serve::serve(listener, chat::guarded(router), stop, DRAIN_DEADLINE).await?;
    Ok(())
}
