//! When the gate does not answer, or says no: a page that says so in words.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
};
use hitl_api::RequestId;
use hitl_client::ClientError;

use crate::{home::ForeignHost, oidc::OidcError, session::SealError};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The gate did not do it.
    #[error("{0}")]
    Gate(Box<ClientError>),
    /// The gate did not take a decision.
    #[error("{1}")]
    Undecided(RequestId, Box<ClientError>),
    /// A form that this session has not made.
    #[error("this form is not one of yours any more; go back, reload the page, and send it again")]
    ForeignForm,
    /// Neither of the two buttons.
    #[error("say whether to approve or to reject")]
    NoDecision(RequestId),
    /// Approved without having looked at what is long.
    #[error(
        "this call has long or many arguments: look at all of them, say so by the box above the \
         buttons, and decide again. Nothing has been decided"
    )]
    NotLooked(RequestId),
    /// Something in an address cannot be what it stands for.
    #[error("{0}")]
    BadQuery(String),
    /// There is nothing here.
    #[error("there is nothing at this address")]
    NotFound,
    /// No session can be kept.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Nobody was signed in.
    #[error("{0}")]
    SigningIn(#[from] OidcError),
    /// A host that is not the queue's own.
    #[error(transparent)]
    Host(#[from] ForeignHost),
    /// A page could not be written.
    #[error("this page could not be written: {0}")]
    Template(#[from] askama::Error),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        Self::Gate(Box::new(error))
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Page {
    title: &'static str,
    text: String,
    /// Whether looking again may help.
    again: bool,
    /// The request it is about.
    request: Option<RequestId>,
    /// The queue, from this page.
    queue: String,
}

impl Page {
    /// Where looking again leads: never to sending a form again.
    fn refresh(&self) -> String {
        match self.request {
            Some(_) => format!("20; url={}", self.target()),
            None => "20".to_owned(),
        }
    }

    /// What is looked at again; the same address where it is empty.
    fn target(&self) -> String {
        self.request.map(|id| format!("/requests/{id}")).unwrap_or_default()
    }
}

impl Problem {
    fn request(&self) -> Option<RequestId> {
        match self {
            Self::Undecided(id, _) | Self::NoDecision(id) | Self::NotLooked(id) => Some(*id),
            _ => None,
        }
    }

    /// The site where the queue is, where it is another one than that of this page.
    fn elsewhere(&self) -> Option<&str> {
        match self {
            Self::Host(foreign) => foreign.url(),
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, title, again) = match &self {
            Self::Gate(error) | Self::Undecided(_, error) if error.status() == Some(401) => {
                // The token was taken off the list.
                return Redirect::to("/login").into_response();
            }
            // Once more would take as long.
            Self::Gate(error) if error.status() == Some(504) => {
                (StatusCode::GATEWAY_TIMEOUT, "The search took too long", false)
            }
            Self::Gate(error) | Self::Undecided(_, error) if error.is_transient() => {
                (StatusCode::SERVICE_UNAVAILABLE, "The gate does not answer", true)
            }
            Self::Gate(error) | Self::Undecided(_, error) => {
                let status = error.status().and_then(|status| StatusCode::from_u16(status).ok());
                (status.unwrap_or(StatusCode::BAD_GATEWAY), "The gate says no", false)
            }
            Self::ForeignForm => (StatusCode::FORBIDDEN, "Not sent", false),
            Self::NoDecision(_) | Self::NotLooked(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "Nothing decided", false)
            }
            Self::BadQuery(_) => (StatusCode::BAD_REQUEST, "Not understood", false),
            Self::NotFound => (StatusCode::NOT_FOUND, "Nothing here", false),
            Self::SigningIn(OidcError::Provider(_)) => {
                (StatusCode::BAD_GATEWAY, "Not signed in", false)
            }
            Self::SigningIn(_) | Self::Host(_) => (StatusCode::FORBIDDEN, "Not signed in", false),
            Self::Seal(_) | Self::Template(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "This did not work", false)
            }
        };
        tracing::warn!(%status, error = %self, "no page");
        let text = match &self {
            // Where the gate is looked for is for the log.
            Self::Gate(_) | Self::Undecided(..) if again => "It may be restarting.".to_owned(),
            _ => self.to_string(),
        };
        let queue = format!("{}/queue", self.elsewhere().unwrap_or_default());
        let page = Page { title, text, again, request: self.request(), queue }.render();
        (status, Html(page.unwrap_or_else(|error| error.to_string()))).into_response()
    }
}
