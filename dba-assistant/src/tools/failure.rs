//! Why a call or a connection failed, in plain words.
//!
//! Owns the reading of the MCP client's errors. Invariant: names of its types reach the log alone.

use rmcp::{
    service::{ClientInitializeError, ServiceError},
    transport::{DynamicTransportError, streamable_http_client::StreamableHttpError},
};

/// How a request failed, as far as it decides what is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing was sent; says why.
    Unsent(String),
    /// The connection ended before an answer began.
    Lost,
    /// The connection ended, and an answer may have begun.
    BrokenOff,
    /// It was answered with this.
    Refused(String),
}

/// What is said of a server that nothing can be sent to.
const AWAY: &str = "it cannot be reached";

impl Failure {
    /// How a request failed on a connection that is up.
    pub(super) fn of(error: &ServiceError) -> Self {
        match error {
            ServiceError::McpError(error) => Self::Refused(error.message.to_string()),
            ServiceError::TransportSend(error) => Self::of_transport(error),
            ServiceError::TransportClosed => Self::BrokenOff,
            _ => Self::Refused("its answer cannot be understood".to_owned()),
        }
    }

    fn of_transport(error: &DynamicTransportError) -> Self {
        let error = error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>();
        let told = |text: &str| Self::Refused(text.to_owned());
        match error {
            Some(StreamableHttpError::Client(error)) if error.is_connect() => {
                Self::Unsent(AWAY.to_owned())
            }
            // Of the request, not of the answer's body: not even its head had come.
            Some(StreamableHttpError::Client(error)) if error.is_request() => Self::Lost,
            Some(StreamableHttpError::HttpStatus(error)) => {
                Self::Refused(format!("it answers HTTP {}", error.status))
            }
            Some(StreamableHttpError::UnexpectedServerResponse(text)) => {
                Self::Refused(text.to_string())
            }
            Some(StreamableHttpError::UnexpectedContentType(_)) => {
                told("its answer is neither JSON nor a stream of events")
            }
            Some(StreamableHttpError::ResponseBodyTooLarge { .. }) => {
                told("its answer is too large")
            }
            Some(StreamableHttpError::SessionExpired) => {
                told("it does not know the session any more")
            }
            Some(
                StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_),
            ) => told("it wants credentials"),
            _ => Self::BrokenOff,
        }
    }

    /// In words, of a server.
    pub(super) fn words(self) -> String {
        match self {
            Self::Unsent(text) | Self::Refused(text) => text,
            Self::Lost | Self::BrokenOff => "the connection was lost".to_owned(),
        }
    }
}

/// Why there is no connection, in words.
pub(super) fn unconnected(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => Failure::of_transport(error).words(),
        ClientInitializeError::JsonRpcError(error) => error.message.to_string(),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => unconnected(fallback),
        ClientInitializeError::ConnectionClosed(_) => "the connection was lost".to_owned(),
        _ => "it does not speak MCP as this agent does".to_owned(),
    }
}
