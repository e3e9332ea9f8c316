//! Who is signed in.
//!
//! Owns the sessions, which live in this process alone: a restart signs everybody out and loses
//! nothing else. Must never put a reviewer's token into a page, a cookie or a log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    response::Redirect,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hitl_api::Me;
use hitl_client::Client;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::routes::App;

/// How long a session lasts.
const LIFETIME: Duration = Duration::from_hours(12);

/// Sessions kept at most, and of one reviewer; of those the oldest goes first.
const MOST: usize = 10_000;
const MOST_OF_ONE: usize = 50;

/// A reviewer who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    id: String,
    begun: Instant,
    /// Whose it is, and how the gate is set.
    pub me: Me,
    /// The gate, as this reviewer.
    pub gate: Client,
    /// Stands in every form of this session, and in no other's.
    pub form_token: String,
    ended: CancellationToken,
}

impl Session {
    /// Completes when the reviewer has signed out, or the session has lasted its time.
    pub async fn ended(&self) {
        let rest = LIFETIME.saturating_sub(self.begun.elapsed());
        // An error means that its time is over.
        let _ = timeout(rest, self.ended.cancelled()).await;
    }
}

/// There is no randomness to make a session from.
#[derive(Debug, thiserror::Error)]
#[error("no randomness for a session: {0}")]
pub struct NoRandomness(String);

/// All sessions; a cheap handle.
#[derive(Clone, Debug)]
pub struct Sessions {
    by_id: Arc<Mutex<HashMap<String, Arc<Session>>>>,
    secure: bool,
}

impl Sessions {
    /// No sessions yet. `secure` cookies travel over TLS alone.
    pub fn new(secure: bool) -> Self {
        Self { by_id: Arc::default(), secure }
    }

    /// Begins a session; gives its cookie.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn begin(&self, me: Me, gate: Client) -> Result<HeaderValue, NoRandomness> {
        let session = Session {
            id: random()?,
            begun: Instant::now(),
            me,
            gate,
            form_token: random()?,
            ended: CancellationToken::new(),
        };
        let cookie = self.cookie(&session.id, LIFETIME.as_secs());
        let mut by_id = self.lock();
        by_id.retain(|_, session| session.begun.elapsed() < LIFETIME);
        let own = by_id.values().filter(|other| other.me.name == session.me.name);
        let (own, oldest_own) =
            (own.clone().count(), own.min_by_key(|session| session.begun).cloned());
        let oldest = if own >= MOST_OF_ONE {
            oldest_own
        } else if by_id.len() >= MOST {
            by_id.values().min_by_key(|session| session.begun).cloned()
        } else {
            None
        };
        if let Some(oldest) = oldest {
            oldest.ended.cancel();
            by_id.remove(&oldest.id);
        }
        by_id.insert(session.id.clone(), Arc::new(session));
        Ok(cookie)
    }

    /// Ends a session; gives the cookie that takes its cookie away.
    pub fn end(&self, session: &Session) -> HeaderValue {
        session.ended.cancel();
        self.lock().remove(&session.id);
        self.cookie("", 0)
    }

    /// Ends the session that a request belongs to, if it does to one.
    pub fn end_of(&self, headers: &HeaderMap) {
        if let Some(session) = self.find(headers) {
            self.end(&session);
        }
    }

    fn find(&self, headers: &HeaderMap) -> Option<Arc<Session>> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok());
        let pairs = cookies.flat_map(|cookies| cookies.split(';'));
        let mut ids = pairs.filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.name()).then_some(value)
        });
        let by_id = self.lock();
        let session = ids.find_map(|id| by_id.get(id))?;
        (session.begun.elapsed() < LIFETIME).then(|| Arc::clone(session))
    }

    /// With this prefix browsers insist on TLS, on the path and on this very host.
    fn name(&self) -> &'static str {
        if self.secure { "__Host-hitl-session" } else { "hitl-session" }
    }

    fn cookie(&self, value: &str, seconds: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = self.name();
        let cookie =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        // Letters of base64 and ours: always a header.
        HeaderValue::try_from(cookie).unwrap_or(HeaderValue::from_static(""))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| NoRandomness(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The session of a request. Without one, the way leads to signing in and back.
#[derive(Clone, Debug)]
pub struct Signed(pub Arc<Session>);

impl FromRequestParts<App> for Signed {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Redirect> {
        app.sessions.find(&parts.headers).map(Self).ok_or_else(|| {
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            // A form cannot be sent again from there; what it was about can be looked at.
            let path = match parts.method {
                Method::GET => path,
                _ => path.trim_end_matches("/decide"),
            };
            let url = reqwest::Url::parse_with_params("http://x/login", [("next", path)]);
            let query = url.as_ref().ok().and_then(|url| url.query()).unwrap_or_default();
            Redirect::to(&format!("/login?{query}"))
        })
    }
}

/// Whether a form was made by this session: compared without saying how far it agrees.
pub fn is_own_form(session: &Session, token: &str) -> bool {
    let (ours, theirs) = (session.form_token.as_bytes(), token.as_bytes());
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
