//! Signing in at an identity provider: the authorization code flow with PKCE, and back out.
//!
//! Owns the way there and back. Who somebody is, and whether their token is good, the gate says; here it
//! only matters that the answer belongs to the question. Must never take an answer that this browser did
//! not ask for, and never send a token anywhere but to the provider.

use std::{
    fs,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hitl_client::provider::{http, reachable};
use hitl_service::given::url::{Issuer, SiteUrl};
use reqwest::{RequestBuilder, Url};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    config::OidcArgs,
    session::{SealError, SigningIn, secret},
};

/// Longest that the provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long what the provider says of itself counts.
const FRESH: Duration = Duration::from_hours(1);

/// How soon it is asked again that did not answer.
const FAILED: Duration = Duration::from_secs(10);

/// Largest answer, in bytes.
const LARGEST: usize = 256 * 1024;

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The provider does not answer, or not as it should.
    #[error("the identity provider: {0}")]
    Provider(String),
    /// It says no.
    #[error("the identity provider says no: {0}")]
    Refused(String),
    /// The answer belongs to no question of this browser.
    #[error("this way of signing in was not begun here, or too long ago; begin again")]
    NotBegun,
    /// Nothing can be kept.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What proves who somebody is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    /// Shown to the gate.
    pub(crate) bearer: String,
    /// Changed for a new one when that ends.
    pub(crate) refresh: Option<String>,
    /// When the bearer ends: seconds of the Unix epoch.
    pub(crate) until: Option<i64>,
}

impl Tokens {
    /// A token of the list, which does not end.
    pub(crate) fn listed(token: &str) -> Self {
        Self { bearer: token.to_owned(), refresh: None, until: None }
    }
}

/// What the provider says of itself.
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    end_session_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
}

/// The answer of the token endpoint.
#[derive(Deserialize)]
struct Answer {
    id_token: String,
    refresh_token: Option<String>,
}

/// Somebody who signs people in; a cheap handle.
#[derive(Clone, Debug)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    client: String,
    secret: Option<String>,
    scopes: String,
    home: SiteUrl,
    http: reqwest::Client,
    metadata: RwLock<Option<(Instant, Metadata)>>,
    /// One asks; and why that failed a moment ago.
    asking: Mutex<Option<(Instant, String)>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.issuer.as_str()).finish_non_exhaustive()
    }
}

/// How somebody comes back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Back {
    code: String,
    state: String,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What an ID token says, of which only that it belongs to the question is looked at here.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    nonce: Option<String>,
    exp: i64,
}

impl Oidc {
    /// The provider that is set, if one is.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub fn of(args: &OidcArgs) -> Result<Option<Self>, OidcError> {
        let Some(issuer) = args.oidc_issuer.clone() else { return Ok(None) };
        let wrong = OidcError::Setting;
        reachable(issuer.url()).map_err(|error| wrong(format!("--oidc-issuer: {error}")))?;
        let home = args.url.clone().ok_or_else(|| {
            wrong("--oidc-issuer needs --url, the address that people open this at".to_owned())
        })?;
        let secret = args.oidc_client_secret_file.as_ref().map(|path| {
            let text = fs::read_to_string(path);
            text.map(|text| text.trim().to_owned()).map_err(|error| {
                wrong(format!("--oidc-client-secret-file {}: {error}", path.display()))
            })
        });
        let http = http(args.oidc_ca.as_deref(), PATIENCE).map_err(wrong)?;
        Ok(Some(Self(Arc::new(Inner {
            issuer,
            client: args.oidc_client_id.clone().into(),
            secret: secret.transpose()?,
            scopes: args.oidc_scopes.clone().into(),
            home,
            http,
            metadata: RwLock::default(),
            asking: Mutex::default(),
        }))))
    }

    /// Where people sign in, for a page.
    pub(crate) fn host(&self) -> &str {
        self.0.issuer.url().host_str().unwrap_or_default()
    }

    /// Returns a path of the queue at the address that the provider sends people back to.
    pub(crate) fn at_home(&self, path: &str) -> Option<String> {
        self.0.home.url().join(path).ok().map(String::from)
    }

    fn callback(&self) -> Result<String, OidcError> {
        let url = self.0.home.url().join("/callback");
        Ok(url.map_err(|error| OidcError::Setting(error.to_string()))?.into())
    }

    /// The way to the provider, and what to keep until somebody comes back.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub(crate) async fn begin(&self, next: &str) -> Result<(Url, SigningIn), OidcError> {
        let metadata = self.metadata().await?;
        let begun = SigningIn {
            state: secret()?,
            nonce: secret()?,
            verifier: secret()?,
            next: next.to_owned(),
        };
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, begun.verifier.as_bytes()));
        let mut url = metadata.authorization_endpoint;
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.0.client),
            ("redirect_uri", &self.callback()?),
            ("scope", &self.0.scopes),
            ("state", &begun.state),
            ("nonce", &begun.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        Ok((url, begun))
    }

    /// Takes somebody in who comes back.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub(crate) async fn finish(
        &self,
        back: Back,
        begun: Option<&SigningIn>,
    ) -> Result<Tokens, OidcError> {
        let begun = begun.filter(|begun| begun.state == back.state).ok_or(OidcError::NotBegun)?;
        let metadata = self.metadata().await?;
        // RFC 9207: the answer is of the provider that was asked.
        if back.iss.is_some_and(|iss| iss != metadata.issuer) {
            return Err(OidcError::NotBegun);
        }
        if let Some(error) = back.error {
            let more = back.error_description.unwrap_or_default();
            return Err(OidcError::Refused(format!("{error} {more}").trim().to_owned()));
        }
        let (callback, verifier) = (self.callback()?, begun.verifier.as_str());
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &back.code),
            ("redirect_uri", &callback),
            ("code_verifier", verifier),
        ];
        let answer = self.ask(&metadata.token_endpoint, &form).await?;
        let claims = self.claims(&answer.id_token)?;
        if claims.nonce.as_ref() != Some(&begun.nonce) {
            return Err(OidcError::NotBegun);
        }
        Ok(Tokens {
            bearer: answer.id_token,
            refresh: answer.refresh_token,
            until: Some(claims.exp),
        })
    }

    /// New tokens.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub(crate) async fn refresh(&self, refresh: &str) -> Result<Tokens, OidcError> {
        let metadata = self.metadata().await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        let answer = self.ask(&metadata.token_endpoint, &form).await?;
        let claims = self.claims(&answer.id_token)?;
        Ok(Tokens {
            bearer: answer.id_token,
            // Where it is not changed, the old one goes on.
            refresh: answer.refresh_token.or_else(|| Some(refresh.to_owned())),
            until: Some(claims.exp),
        })
    }

    /// Takes the tokens back, and says where one signs out of the provider, too.
    pub(crate) async fn leave(&self, tokens: &Tokens) -> Option<Url> {
        let metadata = self.metadata().await.ok()?;
        if let (Some(url), Some(refresh)) = (&metadata.revocation_endpoint, &tokens.refresh) {
            let form = [("token", refresh.as_str()), ("token_type_hint", "refresh_token")];
            let revoked = self.form(url, &form).send().await;
            if let Err(error) = revoked.and_then(reqwest::Response::error_for_status) {
                let error = error.without_url();
                tracing::warn!(%error, "a refresh token was not revoked");
            }
        }
        let mut url = metadata.end_session_endpoint?;
        let home = self.0.home.url().join("/login").ok()?;
        url.query_pairs_mut().extend_pairs([
            ("client_id", self.0.client.as_str()),
            // Not the token itself, which the gate would take: addresses are kept in many places.
            ("post_logout_redirect_uri", home.as_str()),
        ]);
        Some(url)
    }

    fn claims(&self, token: &str) -> Result<Claims, OidcError> {
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims = payload.and_then(|bytes| hitl_core::json::read::<Claims>(&bytes).ok());
        let claims =
            claims.ok_or_else(|| OidcError::Provider("its ID token cannot be read".to_owned()))?;
        if claims.iss != self.0.issuer.as_str() {
            return Err(OidcError::Provider("its ID token is another issuer's".to_owned()));
        }
        Ok(claims)
    }

    /// A form for the provider, in the name of the queue.
    fn form(&self, url: &Url, form: &[(&str, &str)]) -> RequestBuilder {
        let mut form = form.to_vec();
        let request = self.0.http.post(url.clone());
        if let Some(secret) = &self.0.secret {
            // RFC 6749, 2.3.1: form-encoded before it is put together.
            let request = request.basic_auth(encoded(&self.0.client), Some(encoded(secret)));
            return request.form(&form);
        }
        form.push(("client_id", &self.0.client));
        request.form(&form)
    }

    async fn ask(&self, url: &Url, form: &[(&str, &str)]) -> Result<Answer, OidcError> {
        let (status, body) = self.fetch(self.form(url, form)).await?;
        if !status.is_success() {
            let said: Value = hitl_core::json::read(&body).unwrap_or_default();
            let error = said.get("error").and_then(Value::as_str).unwrap_or("no reason");
            return Err(OidcError::Refused(format!("{error} ({status})")));
        }
        hitl_core::json::read(&body).map_err(|_| {
            let text = "it gives no ID token; is openid among the scopes, also after a refresh?";
            OidcError::Provider(text.to_owned())
        })
    }

    /// What the provider says of itself; what it said before, while it does not answer.
    async fn metadata(&self) -> Result<Metadata, OidcError> {
        let known = {
            let known = self.0.metadata.read().unwrap_or_else(PoisonError::into_inner);
            known.clone()
        };
        if let Some((at, metadata)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(metadata.clone());
        }
        // Whoever can go on with what is known waits for nobody.
        let mut asking = match &known {
            Some((_, metadata)) => match self.0.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(metadata.clone()),
            },
            None => self.0.asking.lock().await,
        };
        let failed = asking.as_ref().filter(|(at, _)| at.elapsed() < FAILED);
        let asked = match failed {
            Some((_, why)) => Err(OidcError::Provider(why.clone())),
            None => self.discover().await,
        };
        match (asked, known) {
            (Ok(metadata), _) => {
                *asking = None;
                let mut kept = self.0.metadata.write().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((Instant::now(), metadata.clone()));
                Ok(metadata)
            }
            (Err(error), known) => {
                if failed.is_none() {
                    tracing::warn!(%error, "the provider does not say where it is");
                    let why = match &error {
                        OidcError::Provider(why) => why.clone(),
                        other => other.to_string(),
                    };
                    *asking = Some((Instant::now(), why));
                }
                known.map(|(_, metadata)| metadata).ok_or(error)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, OidcError> {
        let base = self.0.issuer.as_str().trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let (status, body) = self.fetch(self.0.http.get(&url)).await?;
        if !status.is_success() {
            return Err(OidcError::Provider(format!("{url} answers {status}")));
        }
        let metadata: Metadata = hitl_core::json::read(&body)
            .map_err(|error| OidcError::Provider(format!("{url}: {error}")))?;
        if metadata.issuer != self.0.issuer.as_str() {
            return Err(OidcError::Provider(format!("{url} speaks of another issuer")));
        }
        let others = [&metadata.end_session_endpoint, &metadata.revocation_endpoint];
        let all = [&metadata.authorization_endpoint, &metadata.token_endpoint];
        for endpoint in all.into_iter().chain(others.into_iter().flatten()) {
            reachable(endpoint).map_err(OidcError::Provider)?;
        }
        Ok(metadata)
    }

    async fn fetch(
        &self,
        request: RequestBuilder,
    ) -> Result<(reqwest::StatusCode, Vec<u8>), OidcError> {
        let failed = |error: reqwest::Error| OidcError::Provider(error.without_url().to_string());
        let mut answer = request.send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(OidcError::Provider("it answers too much".to_owned()));
            }
        }
        Ok((answer.status(), body))
    }
}

/// A text as it stands in a form.
fn encoded(text: &str) -> String {
    let url = Url::parse_with_params("http://x/", [("x", text)]).ok();
    let query = url.as_ref().and_then(Url::query).and_then(|query| query.strip_prefix("x="));
    query.unwrap_or_default().to_owned()
}
