//! A bare tonic server that allows everything at once: the limit for any gate.
//!
//! Must be configured exactly as ours is, so that the difference is what our code costs.

use envoy_types::{
    ext_authz::v3::{CheckResponseExt as _, OkHttpResponseBuilder},
    pb::envoy::service::auth::v3::{
        CheckRequest, CheckResponse,
        authorization_server::{Authorization, AuthorizationServer},
    },
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// A body that is never answered, to see what waiting alone costs.
pub(crate) const WAIT: &str = "wait";

struct Allow;

#[tonic::async_trait]
impl Authorization for Allow {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes;
        let http = attributes.and_then(|attributes| attributes.request?.http).unwrap_or_default();
        if http.raw_body == format!("{WAIT:?}").as_bytes() {
            std::future::pending::<()>().await;
        }
        let mut response = CheckResponse::with_status(Status::ok("allowed"));
        response.set_http_response(OkHttpResponseBuilder::new());
        Ok(Response::new(response))
    }
}

/// Serves until it is killed; prints its address as the first line.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    println!("listening grpc={}", incoming.local_addr()?);
    Server::builder()
        .tcp_nodelay(true)
        .add_service(AuthorizationServer::new(Allow))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
