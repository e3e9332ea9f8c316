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
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
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

/// How soon a provider that gave none is asked again.
const FAILED: Duration = Duration::from_secs(10);

/// Entries of each memory, at most.
const MOST: usize = 20_000;

/// A session, as the browser keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    /// When it began: seconds of the Unix epoch.
    begun: i64,
    tokens: Tokens,
    /// Stands in every form of this session, and in no other's.
    form: String,
}

/// What is kept while somebody signs in elsewhere.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SigningIn {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
    pub(crate) next: String,
}

/// A reviewer who is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    begun: i64,
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
}

/// New tokens on their way; none where the provider gives none.
type Changing = Shared<BoxFuture<'static, Option<Tokens>>>;

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory(…)")
    }
}

/// What this process remembers of sessions; a cheap handle.
#[derive(Clone, Debug)]
pub struct Sessions {
    keys: Arc<Keys>,
    session: Cookie,
    signing_in: Cookie,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    /// Told when a session ends, of those that somebody listens in.
    ends: HashMap<String, (i64, CancellationToken)>,
    /// Sessions that are over, though their cookies are not.
    over: HashMap<String, i64>,
    /// What the gate has said of a token, by its digest.
    known: HashMap<Vec<u8>, (Instant, Me)>,
    /// Tokens that are changed, or were a moment ago, by their digest.
    changed: HashMap<Vec<u8>, (Instant, Changing)>,
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
        let https = config.oidc.url.as_ref().is_some_and(|url| url.url().scheme() == "https");
        let secure = config.secure_cookies || https;
        let lifetime = LIFETIME.unsigned_abs();
        Ok(Self {
            keys: Arc::new(keys),
            session: Cookie { name: "hitl-session", secure, lifetime },
            signing_in: Cookie { name: "hitl-signing-in", secure, lifetime: SIGNING_IN },
            memory: Arc::default(),
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

    /// Ends the session of a form that it has made, whatever the gate or the provider say of it: the cookies
    /// that take its cookies away, and its tokens. Nothing where the form is none of its own.
    pub(crate) fn end(
        &self,
        headers: &HeaderMap,
        form_token: &str,
    ) -> Option<(Vec<HeaderValue>, Option<Tokens>)> {
        let Some(kept) = self.session.read::<Kept>(&self.keys, headers) else {
            return Some((self.session.forget(), None));
        };
        if !is_same(&kept.form, form_token) {
            return None;
        }
        self.over(&kept.id, kept.begun);
        Some((self.session.forget(), Some(kept.tokens)))
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

    /// The session of a request; new cookies where its token was changed.
    async fn find(
        &self,
        app: &App,
        headers: &HeaderMap,
        cookies: &mut Vec<HeaderValue>,
    ) -> Result<Option<Session>, Problem> {
        // A cookie that reached another host may have reached an agent's page there.
        let own = app.home.check(headers).is_ok();
        let kept = self.session.read::<Kept>(&self.keys, headers).filter(|_| own);
        let Some(mut kept) = kept else { return Ok(None) };
        let is_over = self.lock().over.contains_key(&kept.id);
        if is_over || now() >= kept.begun + LIFETIME {
            return Ok(None);
        }
        if let Some(oidc) = app.oidc.as_ref().filter(|_| is_due(&kept.tokens)) {
            match self.change(oidc, &kept.tokens).await {
                Some(tokens) if tokens != kept.tokens => {
                    kept.tokens = tokens;
                    *cookies = self.session.keep(&self.keys, &kept)?;
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
        let Kept { form, .. } = kept;
        Ok(Some(Session { begun: kept.begun, me, gate, form_token: form, ended }))
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

    /// New tokens for those that end soon. While the old ones are good nobody waits for new ones; when they
    /// are not, and there are no new ones, there are none.
    async fn change(&self, oidc: &Oidc, tokens: &Tokens) -> Option<Tokens> {
        let good = tokens.until.is_none_or(|until| now() < until);
        let Some(refresh) = &tokens.refresh else { return good.then(|| tokens.clone()) };
        let changing = self.changing(oidc, tokens, refresh);
        if !good {
            return changing.await;
        }
        let new = changing.peek().cloned().flatten();
        Some(new.unwrap_or_else(|| tokens.clone()))
    }

    /// The change of tokens for new ones: one for all who come with them, and it goes on when they leave. A
    /// provider may take a second use of a refresh token for a theft.
    fn changing(&self, oidc: &Oidc, tokens: &Tokens, refresh: &str) -> Changing {
        let key = sha256(&format!("{}\n{refresh}", tokens.bearer));
        let mut memory = self.lock();
        if let Some((at, changing)) = memory.changed.get(&key) {
            let over = match changing.peek() {
                Some(Some(new)) => at.elapsed() >= CHANGED || is_due(new),
                Some(None) => at.elapsed() >= FAILED,
                None => false,
            };
            if !over {
                return changing.clone();
            }
        }
        let (oidc, refresh) = (oidc.clone(), refresh.to_owned());
        let changing = async move {
            let new = oidc.refresh(&refresh).await;
            new.map_err(|error| tracing::warn!(%error, "a token was not changed for a new one"))
                .ok()
        };
        let changing: Changing = changing.boxed().shared();
        tokio::spawn(changing.clone());
        memory.changed.insert(key, (Instant::now(), changing.clone()));
        changing
    }
}

/// Whether tokens are to be changed for new ones.
fn is_due(tokens: &Tokens) -> bool {
    tokens.until.is_some_and(|until| now() >= until - EARLY)
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
            // Those who listen come again.
            self.ends.drain().for_each(|(_, (_, ended))| ended.cancel());
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
        let mut new = Vec::new();
        let found = Box::pin(app.sessions.find(app, &parts.headers, &mut new)).await;
        if let Some(cookies) = parts.extensions.get::<NewCookies>() {
            *cookies.0.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
        match found {
            Ok(Some(session)) => Ok(Self(Arc::new(session))),
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

/// Whether a form was made by this session.
pub fn is_own_form(session: &Session, token: &str) -> bool {
    is_same(&session.form_token, token)
}

/// Whether two secrets are the same: compared without saying how far they agree.
fn is_same(one: &str, other: &str) -> bool {
    let (ours, theirs) = (one.as_bytes(), other.as_bytes());
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
