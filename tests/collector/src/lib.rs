//! An OpenTelemetry collector for tests: takes spans over OTLP, and hands them to the test.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

pub use opentelemetry_proto::tonic::trace::v1::Span;

/// A `traceparent` for a request, and what its trace and its span are called.
pub const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The environment variable that tells a service where the collector is.
pub const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

const TRACE_ID: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
const SPAN_ID: u64 = 0xb7ad_6b71_6920_3331;

/// A running collector; it ends with the test's runtime.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens, for [`ENDPOINT`].
    pub endpoint: String,
    spans: mpsc::UnboundedReceiver<Span>,
}

impl Collector {
    /// Begins to listen on loopback.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let (send, spans) = mpsc::unbounded_channel();
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
        let endpoint = format!("http://{}", incoming.local_addr()?);
        let service = TraceServiceServer::new(Taker(send));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(Self { endpoint, spans })
    }

    /// The next span; never `None` while the test runs.
    pub async fn next(&mut self) -> Option<Span> {
        self.spans.recv().await
    }
}

/// Whether a span is a child of [`PARENT`].
pub fn is_child_of_parent(span: &Span) -> bool {
    span.trace_id == TRACE_ID.to_be_bytes() && span.parent_span_id == SPAN_ID.to_be_bytes()
}

/// A text that a span carries under a name.
pub fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

struct Taker(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        for span in resources.flat_map(|r| r.scope_spans).flat_map(|scope| scope.spans) {
            // The test may have seen enough.
            let _ = self.0.send(span);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
