//! With a collector configured, a call continues its caller's trace.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::support::{PATIENCE, Server};

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            for scope in resource.scope_spans {
                for span in scope.spans {
                    self.0.send(span).unwrap();
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_call_is_a_span_of_its_callers_trace() {
    let (send, mut spans) = mpsc::unbounded_channel();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", incoming.local_addr().unwrap());
    let collector = TraceServiceServer::new(Collector(send));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(collector).serve_with_incoming(incoming),
    );
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let server = Server::start_with(&[], &environment).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", parent)];
    server.call_with("cluster_db_query", json!({"sql": "SELECT 1"}), &headers).await.structured();
    // What is buffered is sent before the process leaves.
    server.terminate();
    assert!(server.exited().await.success());
    let span = tokio::time::timeout(PATIENCE, spans.recv()).await.unwrap().unwrap();
    assert_eq!(span.name, "tools/call cluster_db_query");
    let bytes = |hex: u128, length: usize| hex.to_be_bytes()[16 - length..].to_vec();
    assert_eq!(span.trace_id, bytes(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 16));
    assert_eq!(span.parent_span_id, bytes(0xb7ad_6b71_6920_3331, 8));
}

#[tokio::test]
async fn a_collector_that_is_away_harms_nobody() {
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")];
    let server = Server::start_with(&[], &environment).await;
    assert_eq!(server.rows("SELECT 1 AS one").await, json!([{"one": 1}]));
    server.terminate();
    assert!(server.exited().await.success());
}
