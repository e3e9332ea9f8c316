//! Logs to standard error, and OpenTelemetry traces when a collector is configured.
//!
//! Owns the process-wide subscriber. Must never make a service fail because a collector is away:
//! spans are then dropped by the exporter, and the service goes on.

mod filter;

use std::{
    env,
    io::IsTerminal as _,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::{Args, ValueEnum};
use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use self::filter::{LogFilter, NotAFilter};
use crate::given::url::{BaseUrl, NotAUrl};

/// Environment variable of the OpenTelemetry specification that switches traces on.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The one for traces alone, which counts more.
const OTLP_TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// And the one that chooses how; `grpc` is what there is.
const OTLP_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// Set once, by [`init`].
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// How the service logs. Traces are configured by the standard `OTEL_*` variables alone.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Form of the log lines on standard error
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Human, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: a level, or `target=level` pairs separated by commas
    ///
    /// Levels are off, error, warn, info, debug and trace. `RUST_LOG` means the same and is read when
    /// this is not given.
    #[arg(long, env = filter::LOG_LEVEL, value_name = "FILTER")]
    pub log_level: Option<LogFilter>,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event
    Human,
    /// One JSON object an event
    Json,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` does not say what is logged.
    #[error("RUST_LOG cannot be used: {0}")]
    Filter(#[from] NotAFilter),
    /// Another protocol than ours.
    #[error(
        "{OTLP_PROTOCOL}={0:?} is not supported; traces are exported by grpc only, leave it out"
    )]
    Protocol(String),
    /// Its address cannot be one, or says who asks.
    #[error("{0} cannot be used: {1}")]
    Endpoint(&'static str, NotAUrl),
    /// The exporter's settings are not usable.
    #[error("traces cannot be exported to {0}: {1}")]
    Exporter(BaseUrl, String),
}

/// Keeps telemetry alive; spans still buffered are sent when it is dropped.
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Installs the process's logs and traces. Call once, within a tokio runtime.
///
/// Traces go by OTLP over gRPC to `OTEL_EXPORTER_OTLP_ENDPOINT` when that is set; `service` names
/// the process in them unless `OTEL_SERVICE_NAME` does.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(service: &'static str, args: &TelemetryArgs) -> Result<Telemetry, TelemetryError> {
    let filter = match &args.log_level {
        Some(filter) => filter.clone(),
        None => LogFilter::of_rust()?,
    };
    let filter = filter.env_filter()?;
    let log = match args.log_format {
        LogFormat::Human => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    };
    let provider = provider(service)?;
    let mut layers = vec![log];
    if let Some(provider) = &provider {
        // Traces do not depend on how much is logged. Ours only: libraries have spans of their own.
        let ours = Targets::new().with_target(service.replace('-', "_"), Level::INFO);
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
        layers.push(traces.with_filter(ours).boxed());
    }
    // Not an `Option` of a layer: an absent one keeps every event of every library alive.
    tracing_subscriber::registry().with(layers).init();
    Ok(Telemetry { provider })
}

/// Whether traces go anywhere. Where they do not, a span is not worth making.
pub fn traces_are_exported() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// Makes `span` a child of the trace that the request's `traceparent` header names, if any.
pub fn continue_trace(span: &Span, headers: &http::HeaderMap) {
    if !headers.contains_key("traceparent") {
        return;
    }
    let parent =
        global::get_text_map_propagator(|propagator| propagator.extract(&HeaderExtractor(headers)));
    // Fails only for a span that is switched off, which has no parent either.
    let _ = span.set_parent(parent);
}

fn provider(service: &'static str) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let Some(endpoint) = set(OTLP_ENDPOINT) else { return Ok(None) };
    let url = |name, text: String| {
        text.parse::<BaseUrl>().map_err(|error| TelemetryError::Endpoint(name, error))
    };
    // The exporter repeats what it cannot use.
    let mut endpoint = url(OTLP_ENDPOINT, endpoint)?;
    if let Some(traces) = set(OTLP_TRACES_ENDPOINT) {
        endpoint = url(OTLP_TRACES_ENDPOINT, traces)?;
    }
    let protocol = env::var(OTLP_PROTOCOL).ok().filter(|value| !value.is_empty());
    if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
        return Err(TelemetryError::Protocol(protocol));
    }
    EXPORTING.store(true, Ordering::Relaxed);
    global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter = SpanExporter::builder()
        .with_tonic()
        .build()
        .map_err(|error| TelemetryError::Exporter(endpoint, error.to_string()))?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    Ok(Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build(),
    ))
}
