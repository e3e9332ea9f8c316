//! Who may ask where nobody is asked who they are.
//!
//! Owns one check: on a machine of one's own, a page in the browser must not reach the gate under a name of
//! its own that leads here (DNS rebinding). Must never be taken for proof of anybody.

use std::net::IpAddr;

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};

use super::Problem;

/// Lets in what asks this machine by its own name or address, and nothing else.
pub(super) fn only_local(router: Router) -> Router {
    router.layer(from_fn(check))
}

async fn check(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_local) {
        return next.run(request).await;
    }
    let text = "nobody is asked who they are here, so only this machine is answered: ask localhost, or \
                start the gate with --reviewers or --oidc-issuer";
    Problem::new(StatusCode::FORBIDDEN, text).into_response()
}

fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn a_name_that_somebody_else_may_have_made_is_not_local() {
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "[::1]:8081", "127.9.9.9"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.example:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "10.0.0.7",
            "[::",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
