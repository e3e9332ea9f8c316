//! Who is signed in.
//!
//! A session is what the browser keeps: encrypted, so that nobody reads it or makes one, and nothing of it
//! is in this process but which ones have been ended. Owns when a session is over, and when its token is
//! changed for a new one. Must never put a reviewer's token into a page, a cookie that can be read, or a
//! log.

mod sealed;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use hitl_api::Me;
use hitl_client::{Client, Token};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::sealed::SealError;
pub(crate) use self::sealed::secret;
use self::sealed::{Cookie, Keys};
use crate::{
    config::Config,
    oidc::{Oidc, Tokens},
    problem::Problem,
    routes::App,
};

/// How long a session lasts, in seconds.
const LIFETIME: i64 = 12 * 3600;

/// How long somebody may take to sign in elsewhere, in seconds.
const SIGNING_IN: u64 = 15 * 60;

/// How long before its end a token is changed for a new one, in seconds.
const EARLY: i64 = 60;

/// How long the gate's word on a token counts.
const KNOWN: Duration = Duration::from_secs(30);

/// How long those who come with a token that was just changed are given the new one.
const CHANGED: Duration = Duration::from_mins(2);

/// Entries of each memory, at most.
const MOST: usize = 20_000;

/// A session, as the browser keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    id: String,
    /// When it began: seconds of the Unix epoch.
    begun: i64,
    tokens: Tokens,
    /// Stands in every form of this session, and in no other's.
    form: String,
}

/// What is kept while somebody signs in elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SigningIn {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
    pub(crate) next: String,
}

/// A reviewer who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    id: String,
    begun: i64,
    tokens: Tokens,
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
        let rest = u64::try_from(self.begun + LIFETIME - now()).unwrap_or_default();
        // An error means that its time is over.
        let _ = timeout(Duration::from_secs(rest), self.ended.cancelled()).await;
    }

    /// The tokens of whoever it is.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

/// What this process remembers of sessions; a cheap handle.
#[derive(Clone, Debug)]
pub struct Sessions {
    keys: Arc<Keys>,
    session: Cookie,
    signing_in: Cookie,
    memory: Arc<Mutex<Memory>>,
    changing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Told when a session ends, of those that somebody listens in.
    ends: HashMap<String, (i64, CancellationToken)>,
    /// Sessions that are over, though their cookies are not.
    over: HashMap<String, i64>,
    /// What the gate has said of a token, by its digest.
    known: HashMap<Vec<u8>, (Instant, Me)>,
    /// Tokens that were changed a moment ago, by the digest of what they were changed by.
    changed: HashMap<Vec<u8>, (Instant, Tokens)>,
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

fn sha256(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl Sessions {
    /// Sessions with the keys that are set, or with one of this process.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn new(config: &Config) -> Result<Self, SealError> {
        let keys = match &config.session_keys {
            Some(path) => Keys::read(path)?,
            None => Keys::new()?,
        };
        let secure = config.secure_cookies;
        let lifetime = LIFETIME.unsigned_abs();
        Ok(Self {
            keys: Arc::new(keys),
            session: Cookie { name: "hitl-session", secure, lifetime },
            signing_in: Cookie { name: "hitl-signing-in", secure, lifetime: SIGNING_IN },
            memory: Arc::default(),
            changing: Arc::default(),
        })
    }

    /// Begins a session; gives its cookies.
    ///
    /// # Errors
    /// See [`SealError`].
    pub(crate) fn begin(&self, tokens: Tokens, me: Me) -> Result<Vec<HeaderValue>, SealError> {
        let kept = Kept { id: secret()?, begun: now(), tokens, form: secret()? };
        self.know(&kept.tokens.bearer, me);
        self.session.keep(&self.keys, &kept)
    }

    /// Ends a session; gives the cookies that take its cookies away.
    pub fn end(&self, session: &Session) -> Vec<HeaderValue> {
        self.over(&session.id, session.begun);
        self.session.forget()
    }

    /// Ends the session that a request belongs to, if it does to one.
    pub fn end_of(&self, headers: &HeaderMap) {
        if let Some(kept) = self.session.read::<Kept>(&self.keys, headers) {
            self.over(&kept.id, kept.begun);
        }
    }

    /// Keeps what belongs together while somebody signs in elsewhere.
    pub(crate) fn sign_in(&self, begun: &SigningIn) -> Result<Vec<HeaderValue>, SealError> {
        self.signing_in.keep(&self.keys, begun)
    }

    /// What was kept when they went; and the cookies that take it away.
    pub(crate) fn signed_in(&self, headers: &HeaderMap) -> (Option<SigningIn>, Vec<HeaderValue>) {
        (self.signing_in.read(&self.keys, headers), self.signing_in.forget())
    }

    fn over(&self, id: &str, begun: i64) {
        let mut memory = self.lock();
        memory.over.insert(id.to_owned(), begun);
        if let Some((_, ended)) = memory.ends.remove(id) {
            ended.cancel();
        }
    }

    fn know(&self, bearer: &str, me: Me) {
        self.lock().known.insert(sha256(bearer), (Instant::now(), me));
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget_what_is_over();
        memory
    }

    /// The session of a request, and new cookies where its token was changed.
    async fn find(
        &self,
        app: &App,
        headers: &HeaderMap,
    ) -> Result<Option<(Session, Vec<HeaderValue>)>, Problem> {
        let Some(mut kept) = self.session.read::<Kept>(&self.keys, headers) else {
            return Ok(None);
        };
        let is_over = self.lock().over.contains_key(&kept.id);
        if is_over || now() >= kept.begun + LIFETIME {
            return Ok(None);
        }
        let mut cookies = Vec::new();
        if let Some(oidc) = &app.oidc
            && kept.tokens.until.is_some_and(|until| now() >= until - EARLY)
        {
            match self.change(oidc, &kept.tokens).await {
                Some(tokens) if tokens != kept.tokens => {
                    kept.tokens = tokens;
                    cookies = self.session.keep(&self.keys, &kept)?;
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        let gate = app.gate.as_reviewer(Token::new(kept.tokens.bearer.clone()));
        let Some(me) = self.me(&gate, &kept.tokens.bearer).await? else { return Ok(None) };
        let ended = {
            let mut memory = self.lock();
            let begun = kept.begun;
            let ends = memory.ends.entry(kept.id.clone());
            ends.or_insert_with(|| (begun, CancellationToken::new())).1.clone()
        };
        let Kept { id, begun, tokens, form } = kept;
        Ok(Some((Session { id, begun, tokens, me, gate, form_token: form, ended }, cookies)))
    }

    /// Whose token it is; nobody's, where the gate does not know it any more.
    async fn me(&self, gate: &Client, bearer: &str) -> Result<Option<Me>, Problem> {
        let digest = sha256(bearer);
        if let Some((at, me)) = self.lock().known.get(&digest)
            && at.elapsed() < KNOWN
        {
            return Ok(Some(me.clone()));
        }
        match gate.me().await {
            Ok(me) => {
                self.know(bearer, me.clone());
                Ok(Some(me))
            }
            Err(error) if error.status() == Some(401) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// New tokens for those that end soon: the same ones while that does not work and they are still good,
    /// none when they are not.
    async fn change(&self, oidc: &Oidc, tokens: &Tokens) -> Option<Tokens> {
        let good = || tokens.until.is_none_or(|until| now() < until).then(|| tokens.clone());
        let Some(refresh) = &tokens.refresh else { return good() };
        let digest = sha256(refresh);
        let changed = |memory: &Memory| memory.changed.get(&digest).map(|(_, new)| new.clone());
        if let Some(new) = changed(&self.lock()) {
            return Some(new);
        }
        // One at a time: a provider may take a second use of the same one for a theft.
        let _one = self.changing.lock().await;
        if let Some(new) = changed(&self.lock()) {
            return Some(new);
        }
        match oidc.refresh(refresh).await {
            Ok(new) => {
                self.lock().changed.insert(digest, (Instant::now(), new.clone()));
                Some(new)
            }
            Err(error) => {
                tracing::warn!(%error, "a token was not changed for a new one");
                good()
            }
        }
    }
}

impl Memory {
    fn forget_what_is_over(&mut self) {
        if self.over.len() + self.ends.len() + self.known.len() + self.changed.len() < MOST / 100 {
            return;
        }
        let now = now();
        self.over.retain(|_, begun| now < *begun + LIFETIME);
        self.ends.retain(|_, (begun, _)| now < *begun + LIFETIME);
        self.known.retain(|_, (at, _)| at.elapsed() < KNOWN);
        self.changed.retain(|_, (at, _)| at.elapsed() < CHANGED);
        // What is lost then is asked again. Those that are over are never forgotten early.
        if self.ends.len() > MOST {
            self.ends.clear();
        }
        if self.known.len() > MOST {
            self.known.clear();
        }
    }
}

/// New cookies of a request, put into its answer.
#[derive(Clone, Debug, Default)]
struct NewCookies(Arc<Mutex<Vec<HeaderValue>>>);

/// Puts the cookies of tokens that were changed into the answer.
pub(crate) async fn renew(mut request: Request, next: Next) -> Response {
    let cookies = NewCookies::default();
    request.extensions_mut().insert(cookies.clone());
    let mut response = next.run(request).await;
    let cookies = std::mem::take(&mut *cookies.0.lock().unwrap_or_else(PoisonError::into_inner));
    // Whoever signs in or out has said all about cookies.
    if !response.headers().contains_key(header::SET_COOKIE) {
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// The session of a request. Without one, the way leads to signing in and back.
#[derive(Clone, Debug)]
pub struct Signed(pub Arc<Session>);

impl FromRequestParts<App> for Signed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        // Boxed: pages wait in it, and most of the time it is nothing.
        let found = Box::pin(app.sessions.find(app, &parts.headers)).await;
        match found {
            Ok(Some((session, new))) => {
                if let Some(cookies) = parts.extensions.get::<NewCookies>() {
                    *cookies.0.lock().unwrap_or_else(PoisonError::into_inner) = new;
                }
                Ok(Self(Arc::new(session)))
            }
            Ok(None) => {
                let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
                // A form cannot be sent again from there; what it was about can be looked at.
                let path = match parts.method {
                    Method::GET => path,
                    _ => path.trim_end_matches("/decide"),
                };
                let url = reqwest::Url::parse_with_params("http://x/login", [("next", path)]);
                let query = url.as_ref().ok().and_then(|url| url.query()).unwrap_or_default();
                Err(Redirect::to(&format!("/login?{query}")).into_response())
            }
            Err(problem) => Err(problem.into_response()),
        }
    }
}

/// Whether a form was made by this session: compared without saying how far it agrees.
pub fn is_own_form(session: &Session, token: &str) -> bool {
    let (ours, theirs) = (session.form_token.as_bytes(), token.as_bytes());
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
