//! What a gateway says about a request, read alike from every gateway.
//!
//! Owns the differences between them: where the body is, how headers are carried, where a verified
//! token's claims are. Must never lose or repair anything on the way to [`crate::classify`].

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap, address::Address},
        service::auth::v3::CheckRequest,
    },
    google::protobuf::{Struct, Value as ProtoValue, value::Kind},
};
use serde_json::{Map, Value};
use std::collections::HashMap;

use crate::classify::{Headers, Subject};

/// Where gateways put the claims of a token they have verified.
const JWT_NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// The member of it that holds them.
const JWT_PAYLOAD: &str = "jwt_payload";

/// A request as it reached the gateway.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Authority.
    pub host: String,
    /// Headers, names in lower case; of the pseudo-headers only `:protocol`, which asks for a tunnel.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// Its length, as the gateway states it.
    pub stated_size: i64,
    /// The caller's address without its port, as the gateway saw it.
    pub address: Option<String>,
    /// The caller's identity by its client certificate.
    pub principal: Option<String>,
    /// Claims of a token that the gateway has verified.
    pub claims: Map<String, Value>,
    /// What the route is configured to say.
    pub extensions: HashMap<String, String>,
}

/// The pseudo-header of HTTP/2's and HTTP/3's extended CONNECT.
const PROTOCOL: &str = ":protocol";

/// Why a check cannot even be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not about an HTTP request.
    #[error("the check carries no HTTP request; is the gate configured for an HTTP route?")]
    NoHttp,
    /// Two bodies that differ.
    #[error("the check carries two bodies that differ")]
    TwoBodies,
}

impl Arrived {
    /// Reads a check.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(check: CheckRequest) -> Result<Self, Unreadable> {
        let attributes = check.attributes.ok_or(Unreadable::NoHttp)?;
        let http = attributes.request.and_then(|request| request.http).ok_or(Unreadable::NoHttp)?;
        let source = attributes.source.unwrap_or_default();
        let address = source.address.and_then(|address| match address.address {
            Some(Address::SocketAddress(socket)) if !socket.address.is_empty() => {
                Some(socket.address)
            }
            _ => None,
        });
        let claims = attributes
            .metadata_context
            .and_then(|mut metadata| metadata.filter_metadata.remove(JWT_NAMESPACE))
            .and_then(|mut namespace| namespace.fields.remove(JWT_PAYLOAD))
            .map(json);
        Ok(Self {
            body: body(http.body, http.raw_body)?,
            headers: headers(http.headers, http.header_map),
            stated_size: http.size,
            method: http.method,
            path: http.path,
            host: http.host,
            address,
            principal: Some(source.principal).filter(|principal| !principal.is_empty()),
            claims: match claims {
                Some(Value::Object(claims)) => claims,
                _ => Map::new(),
            },
            extensions: attributes.context_extensions,
        })
    }

    /// What the decision depends on.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            method: &self.method,
            headers: &self.headers,
            body: &self.body,
            stated_size: self.stated_size,
        }
    }

    /// Authority and path without query: what an approval is bound to.
    pub fn route(&self) -> String {
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        format!("{}{path}", self.host.to_ascii_lowercase())
    }
}

/// agentgateway gives the body as text, Envoy as bytes where it is told to.
fn body(text: String, raw: Vec<u8>) -> Result<Vec<u8>, Unreadable> {
    match (text.as_bytes(), raw.as_slice()) {
        (_, []) => Ok(text.into_bytes()),
        ([], _) => Ok(raw),
        (text, bytes) if text == bytes => Ok(raw),
        _ => Err(Unreadable::TwoBodies),
    }
}

/// A map with repeated headers joined, or a list where the gateway keeps them apart.
fn headers(map: HashMap<String, String>, list: Option<HeaderMap>) -> Headers {
    let list = list.unwrap_or_default().headers.into_iter().map(|header| {
        let value = if header.raw_value.is_empty() {
            header.value
        } else {
            String::from_utf8_lossy(&header.raw_value).into_owned()
        };
        (header.key, value)
    });
    let kept = |name: &str| !name.starts_with(':') || name.eq_ignore_ascii_case(PROTOCOL);
    map.into_iter().chain(list).filter(|(name, _)| kept(name)).collect()
}

fn json(value: ProtoValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(yes)) => yes.into(),
        Some(Kind::StructValue(Struct { fields })) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, json(value))).collect())
        }
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
    }
}
