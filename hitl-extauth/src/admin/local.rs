//! Who may ask where nobody is asked who they are.
//!
//! Owns one check: a page in the browser must not reach the gate under a name of its own that leads here (DNS
//! rebinding). Must never be taken for proof of anybody.

use std::net::IpAddr;

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use hitl_service::hosts;

use super::Problem;

/// Lets in what asks a gate at this address by a name that nobody else can have made: where it is this
/// machine's alone, only by its own.
pub(super) fn only_private(router: Router, at: IpAddr) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| check(at, request, next)))
}

async fn check(at: IpAddr, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let (is_known, text) = if at.is_loopback() {
        let text = "nobody is asked who they are here, so only this machine is answered: ask localhost, or \
                    start the gate with --reviewers or --oidc-issuer";
        (hosts::is_this_machine as fn(&str) -> bool, text)
    } else {
        let text = "nobody is asked who they are here, so nothing is answered under a name that anybody may \
                    register: ask by address or by the whole name inside the cluster (NAME.NAMESPACE.svc), or \
                    start the gate with --reviewers or --oidc-issuer";
        (hosts::is_private as fn(&str) -> bool, text)
    };
    if host.is_some_and(is_known) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::FORBIDDEN, text).into_response()
}
