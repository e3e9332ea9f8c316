//! Asking the gate, and reading what it answers.
//!
//! Must never read anything but a status of 0 as allowed.

use std::{collections::HashMap, net::SocketAddr};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use envoy_types::pb::envoy::{
    config::core::v3::{
        Address, HeaderValueOption, SocketAddress, address,
        header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
    },
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use tonic::transport::{Channel, Endpoint};

use super::Whole;

/// The gate; a cheap handle. Connects when it is first asked.
#[derive(Clone, Debug)]
pub struct Gate(AuthorizationClient<Channel>);

/// What the gate says of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It may pass, changed so.
    Allowed {
        /// Headers to set, and whether beside those that are there.
        set: Vec<(HeaderName, HeaderValue, bool)>,
        /// Headers to take off first.
        remove: Vec<HeaderName>,
    },
    /// It may not; this is what its caller gets.
    Denied(Box<Response>),
}

impl Gate {
    /// The gate at this address (`http://HOST:PORT`).
    ///
    /// # Errors
    /// When it is no address.
    pub fn new(address: String) -> Result<Self, tonic::transport::Error> {
        Ok(Self(AuthorizationClient::new(Endpoint::from_shared(address)?.connect_lazy())))
    }

    /// Asks about a request. A gate that is away denies.
    pub async fn ask(&self, parts: &Parts, body: &Whole) -> Verdict {
        match self.0.clone().check(check(parts, body)).await {
            Ok(answer) => verdict(answer.into_inner()),
            Err(status) => {
                tracing::warn!(%status, "the gate does not answer");
                denied(StatusCode::FORBIDDEN, "external authorization failed")
            }
        }
    }
}

/// A request as the gate is asked about it.
fn check(parts: &Parts, body: &Whole) -> CheckRequest {
    let text = |name: HeaderName| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let http = HttpRequest {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: parts.uri.host().map_or_else(|| text(header::HOST), str::to_owned),
        scheme: "http".to_owned(),
        protocol: format!("{:?}", parts.version),
        headers: joined(&parts.headers),
        size: i64::try_from(body.len()).unwrap_or(i64::MAX),
        raw_body: body.to_vec(),
        ..HttpRequest::default()
    };
    let request = Request { http: Some(http), ..Request::default() };
    let attributes = AttributeContext {
        source: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(at)| peer(*at)),
        request: Some(request),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }
}

/// Who is at the other end, by address.
fn peer(at: SocketAddr) -> Peer {
    let socket = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    Peer { address: Some(address), ..Peer::default() }
}

/// Several headers of one name are one, joined by commas.
fn joined(headers: &HeaderMap) -> HashMap<String, String> {
    let mut joined: HashMap<String, String> = HashMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let all = joined.entry(name.to_string()).or_default();
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(&value);
    }
    joined
}

fn verdict(answer: CheckResponse) -> Verdict {
    let allowed = answer.status.as_ref().is_some_and(|status| status.code == 0);
    match (allowed, answer.http_response) {
        (true, Some(HttpResponse::OkResponse(ok))) => {
            let remove = ok.headers_to_remove.iter().filter_map(|name| name.parse().ok());
            Verdict::Allowed { set: options(ok.headers), remove: remove.collect() }
        }
        (true, None) => Verdict::Allowed { set: Vec::new(), remove: Vec::new() },
        (false, Some(HttpResponse::DeniedResponse(denial))) => {
            let code = denial.status.map_or(0, |status| status.code);
            let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            let mut response = Response::new(Body::from(denial.body));
            *response.status_mut() = status.unwrap_or(StatusCode::FORBIDDEN);
            for (name, value, append) in options(denial.headers) {
                if append {
                    response.headers_mut().append(name, value);
                } else {
                    response.headers_mut().insert(name, value);
                }
            }
            Verdict::Denied(Box::new(response))
        }
        // Anything else contradicts itself.
        _ => denied(StatusCode::FORBIDDEN, "external authorization failed"),
    }
}

fn denied(status: StatusCode, text: &'static str) -> Verdict {
    Verdict::Denied(Box::new((status, text).into_response()))
}

/// Headers as they are set; what is no header is left out.
fn options(options: Vec<HeaderValueOption>) -> Vec<(HeaderName, HeaderValue, bool)> {
    let read = |option: HeaderValueOption| {
        let append = option.append_action == i32::from(HeaderAppendAction::AppendIfExistsOrAdd);
        let header = option.header?;
        let value = if header.value.is_empty() {
            HeaderValue::from_bytes(&header.raw_value)
        } else {
            HeaderValue::try_from(header.value)
        };
        Some((header.key.parse().ok()?, value.ok()?, append))
    };
    options.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::{
        envoy::{
            service::auth::v3::{DeniedHttpResponse, OkHttpResponse},
            r#type::v3::HttpStatus,
        },
        google::rpc::Status,
    };

    use super::*;

    fn answer(code: Option<i32>, http_response: Option<HttpResponse>) -> CheckResponse {
        let status = code.map(|code| Status { code, ..Status::default() });
        CheckResponse { status, http_response, ..CheckResponse::default() }
    }

    #[test]
    fn nothing_but_a_status_of_zero_allows() {
        let ok = || Some(HttpResponse::OkResponse(OkHttpResponse::default()));
        let denial = || Some(HttpResponse::DeniedResponse(DeniedHttpResponse::default()));
        assert!(matches!(verdict(answer(Some(0), ok())), Verdict::Allowed { .. }));
        assert!(matches!(verdict(answer(Some(0), None)), Verdict::Allowed { .. }));
        for (code, response) in [
            (None, ok()),
            (None, None),
            (None, denial()),
            (Some(0), denial()),
            (Some(7), ok()),
            (Some(7), None),
            (Some(-1), ok()),
        ] {
            assert!(matches!(verdict(answer(code, response)), Verdict::Denied(_)), "{code:?}");
        }
    }

    #[test]
    fn a_denial_is_passed_on_as_it_is() {
        let status = Some(HttpStatus { code: 200 });
        let denial = DeniedHttpResponse { status, body: "{}".into(), ..Default::default() };
        let Verdict::Denied(response) =
            verdict(answer(Some(7), Some(HttpResponse::DeniedResponse(denial))))
        else {
            panic!("allowed");
        };
        assert_eq!(response.status(), StatusCode::OK);
    }
}
