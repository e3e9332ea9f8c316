//! Starts the gate: settings, telemetry, store, listeners, in that order, and leaves in order.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use hitl_extauth::{
    admin::{Admin, Leaving},
    check::CheckService,
    config::{Command, Config},
    desk,
    gate::Gate,
    hooks::Telling,
    incoming::incoming,
    metrics::Metrics,
    offline,
    parking::Parking,
    people::People,
    receipt::{ReceiptError, Receipts},
    rules::book::RuleBook,
    store::{SharedStore, database::Database, postgres::PostgresStore, sqlite::SqliteStore},
    trial,
};
use hitl_service::{
    given::secrets,
    serve::{self, DRAIN_DEADLINE},
    telemetry,
};
use tokio::{sync::oneshot, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// How often the gate looks for what has run out.
const LOOK: Duration = Duration::from_millis(500);

/// How long a database may take to answer when the gate starts, and how soon it is asked again.
const WAIT_FOR_DATABASE: Duration = Duration::from_mins(1);
const AGAIN: Duration = Duration::from_secs(1);

/// How long a gate that stops takes leave of the other replicas.
const FAREWELL: Duration = Duration::from_secs(2);

/// How soon a frozen gateway is noticed: a ping this often, answered within that.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);

/// Streams on one connection of the gateway. Gateways plan for a hundred; fewer would strand calls.
const STREAMS: u32 = 1000;

/// Headers of one check's own request, in bytes; those it asks about are in its body.
const LARGEST_METADATA: u32 = 16 * 1024;

/// Largest check, in bytes: body and headers, with room for the largest body a gateway forwards.
const LARGEST_CHECK: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    let config = secrets::parse::<Config>();
    if let Some(code) = config.healthcheck.run("hitl-extauth") {
        return code;
    }
    let result = match &config.command {
        Some(Command::Audit(command)) => offline::run(command).await.map_err(Into::into),
        Some(Command::Migrate { from, to, postgres }) => {
            offline::migrate(from, to, postgres).await.map_err(Into::into)
        }
        Some(Command::Backup { database, to }) => {
            offline::backup(&database.database, to).map_err(Into::into)
        }
        Some(Command::Restore { database, replace, head, from }) => {
            let restored = offline::restore(from, &database.database, *replace, head.as_ref());
            restored.map_err(Into::into)
        }
        Some(Command::Recall { database, postgres }) => {
            offline::recall(&database.database, postgres).await.map_err(Into::into)
        }
        Some(Command::PublicKey { file }) => offline::public_key(file).map_err(Into::into),
        Some(Command::Rules(command)) => trial::run(command).await.map_err(Into::into),
        Some(Command::Review(command)) => desk::run(command).await.map_err(Into::into),
        None => Box::pin(run(&config)).await,
    };
    serve::exit_code("hitl-extauth", result)
}

async fn run(config: &Config) -> anyhow::Result<()> {
    config.check()?;
    let _telemetry = telemetry::init("hitl-extauth", &config.telemetry)?;
    let people = Arc::new(people(config)?);
    let receipts = Arc::new(receipts(config)?);
    let metrics = Arc::new(Metrics::default());
    let rules = rules(config, &metrics)?;
    let telling = telling(config, &metrics)?;
    let store = open(config, &metrics, telling.as_deref()).await?;
    let (parking, notices) = Parking::new(config.limits());
    let gate = Gate::new(store, parking, rules, config.settings());
    let checks = CheckService::new(
        gate.clone(),
        config.harmless(),
        Arc::clone(&receipts),
        Arc::clone(&metrics),
        config.denial_form,
    );

    let stop = serve::stop_signal().context("signal handlers cannot be installed")?;
    let grpc = serve::bind(config.grpc_listen()).await?;
    let http = serve::bind(config.admin_listen()).await?;
    let (grpc_address, http_address) = (grpc.local_addr()?, http.local_addr()?);
    tracing::info!(grpc = %grpc_address, admin = %http_address, database = %config.database, "hitl-extauth is listening");

    let leaving = Leaving::default();
    let stopping = leaving.stopping.clone();
    // Held by the checks' server: dropped when that ends, whyever.
    let (checks_served, checks_end) = oneshot::channel::<()>();
    let writing = tokio::spawn({
        let gate = gate.clone();
        async move { gate.write_down(notices).await }
    });
    tokio::spawn(age(gate.clone(), stopping.clone()));
    tokio::spawn(gate.follow());
    gate.ask(Arc::clone(&people));
    tokio::spawn(gate.keep_preapprovals());
    if let Some(telling) = telling {
        tokio::spawn(telling.run(Arc::clone(gate.store()), stopping.clone()));
    }
    let (health, healthy) = tonic_health::server::health_reporter();
    health.set_serving::<AuthorizationServer<CheckService>>().await;
    let serving = tokio::spawn({
        let stopped = stopping.clone().cancelled_owned();
        let checks = AuthorizationServer::new(checks).max_decoding_message_size(LARGEST_CHECK);
        let server = Server::builder()
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PONG))
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(LARGEST_METADATA)
            .add_service(healthy)
            .add_service(checks)
            .serve_with_incoming_shutdown(incoming(grpc), stopped);
        async move {
            let _serving = checks_served;
            server.await
        }
    });
    let admin = Admin::new(gate.clone(), people, receipts, metrics, leaving.clone());
    let _status = match config.status_listen {
        Some(address) => Some(serve::beside(address, admin.status()).await?),
        None => None,
    };
    let admin = admin.router(http_address);
    let (parking, replica) = (gate.parking().clone(), Arc::clone(gate.store()));
    let mut latest = gate.store().latest();
    let mut store = latest.clone();
    let drain = Duration::from_secs(config.drain.into());
    let stop = async move {
        // Without one of its parts the gate is no gate: whoever runs it starts it anew.
        let signal = tokio::select! {
            signal = stop => signal,
            _ = checks_end => "checks are served no more",
            () = async { while store.changed().await.is_ok() {} } => "the store has ended",
        };
        leaving.announced.cancel();
        health.set_not_serving::<AuthorizationServer<CheckService>>().await;
        // Whoever asks meanwhile is served as ever.
        tokio::time::sleep(drain).await;
        // Held calls get an answer, not an error; then there is nothing left to wait for.
        gate.parking().stop();
        stopping.cancel();
        signal
    };
    serve::serve(http, admin, stop, DRAIN_DEADLINE).await?;
    if let Ok(served) = tokio::time::timeout(DRAIN_DEADLINE, serving).await {
        served.context("serving checks has ended by itself")??;
    } else {
        tracing::warn!("checks still in flight were cut");
    }
    // What nobody took must be a grant again before the process goes.
    if tokio::time::timeout(DRAIN_DEADLINE, parking.flush()).await.is_err() {
        tracing::warn!("not everything that happened to held calls could be written down");
    }
    // Nobody waits here any more, whatever the others read.
    if tokio::time::timeout(FAREWELL, replica.leave()).await.is_err() {
        tracing::debug!("the other replicas will notice by themselves");
    }
    writing.abort();
    latest.borrow_and_update();
    if latest.has_changed().is_err() {
        anyhow::bail!("the store has ended by itself; the log says why");
    }
    tracing::info!("hitl-extauth has stopped");
    Ok(())
}

fn receipts(config: &Config) -> Result<Receipts, ReceiptError> {
    let receipts = Receipts::new(config.receipt_key.as_deref(), config.receipt_issuer.as_str())?;
    match &config.published_keys {
        Some(file) => receipts.with_published(file),
        None => Ok(receipts),
    }
}

fn people(config: &Config) -> anyhow::Result<People> {
    let people = config.people.people()?;
    if people.anybody {
        tracing::warn!(
            "reviewers are NOT asked who they are: whoever reaches the admin port can approve"
        );
    }
    Ok(people)
}

fn rules(config: &Config, metrics: &Metrics) -> anyhow::Result<Arc<RuleBook>> {
    let (enforced, shadow) = (config.rules.as_deref(), config.shadow_rules.as_deref());
    Ok(Arc::new(RuleBook::open(enforced, shadow, metrics.rules())?))
}

fn telling(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Arc<Telling>>> {
    let telling = config.webhooks.as_deref().map(|path| Telling::open(path, metrics.hooks()));
    Ok(telling.transpose().map_err(anyhow::Error::msg)?.map(Arc::new))
}

/// Opens the database. One that does not answer yet is waited for: replicas and their database may
/// start together.
async fn open(
    config: &Config,
    metrics: &Metrics,
    telling: Option<&Telling>,
) -> anyhow::Result<SharedStore> {
    let store = connect(config, metrics).await?;
    if let Some(telling) = telling {
        telling.begin(&store).await;
    }
    Ok(store)
}

async fn connect(config: &Config, metrics: &Metrics) -> anyhow::Result<SharedStore> {
    let url = match &config.database {
        Database::Sqlite(path) => return Ok(Arc::new(SqliteStore::open(path, metrics.store())?)),
        Database::Postgres(url) => url,
    };
    let begun = Instant::now();
    loop {
        match Box::pin(PostgresStore::open(url, &config.postgres, metrics.store())).await {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error) if error.is_transient() && begun.elapsed() < WAIT_FOR_DATABASE => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn age(gate: Gate, stopping: CancellationToken) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    while stopping.run_until_cancelled(look.tick()).await.is_some() {
        let looked = gate.age().await;
        match &looked {
            Ok(()) if failing => tracing::info!("the database is back"),
            Err(error) if !failing => {
                tracing::error!(%error, "the database does not answer; looking on");
            }
            _ => {}
        }
        failing = looked.is_err();
    }
}
