//! Tokens that an identity provider has signed: `OpenID` Connect, and service accounts of Kubernetes.
//!
//! Owns what makes a token somebody's: who signed it, for whom, for how long, and which claims say who it
//! is. Must never take a claim for a person's that the provider does not vouch for.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hitl_client::provider::{http, reachable};
use hitl_service::given::url::Issuer;
use jiff::Timestamp;
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use reqwest::Url;
use serde_json::{Map, Value};

use super::{
    Role,
    keys::{Keys, NoKey},
};

/// Longest token, in bytes.
const LONGEST: usize = 16 * 1024;

/// Longest name, in bytes.
const LONGEST_NAME: usize = 256;

/// Groups of one person that are looked at.
const MOST_GROUPS: usize = 1000;

/// Longest that a provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom a provider's tokens are for, and what they say.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// The provider, exactly as `iss` has it.
    pub issuer: Issuer,
    /// Where its keys are; asked of the provider itself unless given.
    pub jwks: Option<Url>,
    /// Whom tokens must be for (`aud`).
    pub audience: String,
    /// Claim with the name.
    pub name_claim: String,
    /// Claim with the groups.
    pub groups_claim: String,
    /// Claims with other names of the same person.
    pub person_claims: Vec<String>,
    /// Groups whose members may decide.
    pub reviewer_groups: Vec<String>,
    /// Groups whose members may read.
    pub viewer_groups: Vec<String>,
    /// How much clocks may differ, in seconds.
    pub leeway: u32,
    /// Certificates (PEM) of those who vouch for the provider, in place of the system's.
    pub ca: Option<PathBuf>,
}

/// Why a token is nobody's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// There is none.
    #[error("send your token: `Authorization: Bearer …`")]
    NoToken,
    /// Nobody knows it.
    #[error(
        "nobody here knows this token: sign in again, or ask whoever keeps the list of reviewers"
    )]
    Unknown,
    /// It is known whose it should be, and it is not good.
    #[error("this token does not count: {0}; sign in again")]
    Bad(String),
    /// It is good, and they may not be here.
    #[error("you are {0}, and in none of the groups that may see or decide: {1}")]
    NotHere(String, String),
    /// The provider cannot be asked.
    #[error("the identity provider does not answer, so nobody new can be let in: {0}")]
    Away(String),
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The address cannot be asked.
    #[error("{0}")]
    Address(String),
    /// There is no HTTP client, or the certificates cannot be read.
    #[error("{0}")]
    Http(String),
}

/// Somebody whom a provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) also: Vec<String>,
    /// The names that nobody can give themselves.
    pub(super) proven: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) role: Role,
    pub(super) until: Timestamp,
}

/// Somebody who signs people in; a cheap handle.
#[derive(Clone, Debug)]
pub struct Provider {
    settings: Arc<ProviderSettings>,
    keys: Arc<Keys>,
}

/// Who a token says has signed it. That is a claim, and nothing more.
pub(super) fn issuer(token: &str) -> Option<String> {
    if token.len() > LONGEST {
        return None;
    }
    let mut parts = token.split('.');
    let (_, payload) = (parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let payload: Value = hitl_core::json::read(&payload).ok()?;
    Some(payload.get("iss")?.as_str()?.to_owned())
}

impl Provider {
    /// A provider. Nothing is asked of it yet: the gate starts whether or not it answers.
    ///
    /// # Errors
    /// See [`ProviderError`].
    pub fn new(settings: ProviderSettings) -> Result<Self, ProviderError> {
        for url in std::iter::once(settings.issuer.url()).chain(&settings.jwks) {
            reachable(url).map_err(ProviderError::Address)?;
        }
        let http = http(settings.ca.as_deref(), PATIENCE).map_err(ProviderError::Http)?;
        let keys = Keys::new(settings.issuer.to_string(), settings.jwks.clone(), http);
        Ok(Self { settings: Arc::new(settings), keys: Arc::new(keys) })
    }

    /// The provider, as `iss` has it.
    pub fn issuer(&self) -> &str {
        self.settings.issuer.as_str()
    }

    /// Whose token this is.
    pub(super) async fn verify(&self, token: &str) -> Result<Person, Unproven> {
        let bad = |what: &str| Unproven::Bad(what.to_owned());
        let header = decode_header(token).map_err(|_| bad("it cannot be read"))?;
        if header.typ.as_ref().is_some_and(|typ| {
            !["jwt", "at+jwt", "application/at+jwt"].contains(&typ.to_ascii_lowercase().as_str())
        }) {
            return Err(bad("it is a token for something else"));
        }
        if critical(token) {
            return Err(bad("it asks for something that is not understood here"));
        }
        let keys = match self.keys.find(header.kid.as_deref(), header.alg).await {
            Ok(keys) => keys,
            Err(NoKey::Unknown) => {
                return Err(bad("it is signed by a key that the provider does not have"));
            }
            Err(NoKey::Away(why)) => return Err(Unproven::Away(why)),
        };
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[self.settings.issuer.as_str()]);
        validation.set_audience(&[&self.settings.audience]);
        validation.leeway = self.settings.leeway.into();
        validation.validate_nbf = true;
        let mut why = bad("its signature is not good");
        for key in keys {
            match decode::<Map<String, Value>>(token, &key.verifies, &validation) {
                Ok(decoded) => return self.person(&decoded.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::ExpiredSignature => why = bad("it has run out"),
                    ErrorKind::ImmatureSignature => why = bad("it does not count yet"),
                    ErrorKind::InvalidAudience => {
                        why = bad(&format!("it is not for {:?}", self.settings.audience));
                    }
                    ErrorKind::MissingRequiredClaim(claim) => {
                        why = bad(&format!("it has no {claim:?}"));
                    }
                    _ => why = bad("it cannot be verified"),
                },
            }
        }
        Err(why)
    }

    /// Who the claims are about.
    fn person(&self, claims: &Map<String, Value>) -> Result<Person, Unproven> {
        let settings = &self.settings;
        let bad = |what: String| Unproven::Bad(what);
        if claims.contains_key("events") {
            // A logout token, or another notice: nobody signs in with one.
            return Err(bad("it is a token for something else".to_owned()));
        }
        if claims.get("iss").and_then(Value::as_str) != Some(settings.issuer.as_str()) {
            return Err(bad("it names more than one issuer".to_owned()));
        }
        let names = texts(at(claims, &settings.name_claim));
        let name =
            names.first().ok_or_else(|| bad(format!("it has no {:?}", settings.name_claim)))?;
        if !vouched(claims, &settings.name_claim) {
            return Err(bad("the provider has not verified your e-mail address".to_owned()));
        }
        let mut also: Vec<String> = settings
            .person_claims
            .iter()
            // Unverified ones, too: they make somebody the same person, and let them do nothing.
            .flat_map(|claim| texts(at(claims, claim)))
            .filter(|other| other != name)
            .map(str::to_owned)
            .collect();
        also.sort();
        also.dedup();
        let groups = texts(at(claims, &settings.groups_claim)).into_iter().take(MOST_GROUPS);
        let groups: Vec<String> = groups.map(str::to_owned).collect();
        let within = |of: &[String]| of.iter().any(|group| group == "*" || groups.contains(group));
        let role = if within(&settings.reviewer_groups) {
            Role::Decide
        } else if within(&settings.viewer_groups) {
            Role::See
        } else {
            let known = [&settings.reviewer_groups[..], &settings.viewer_groups].concat();
            return Err(Unproven::NotHere((*name).to_owned(), known.join(", ")));
        };
        let until = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, reason = "seconds")]
        let until = Timestamp::from_second(until as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let proven = vec![(*name).to_owned(), subject.to_owned()];
        Ok(Person { name: (*name).to_owned(), also, proven, groups, role, until })
    }
}

/// Whether a token says that parts of its header must be understood (RFC 7515, 4.1.11). None are here.
fn critical(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|bytes| hitl_core::json::read::<Map<String, Value>>(&bytes).ok());
    header.is_none_or(|header| header.contains_key("crit"))
}

/// A claim: by its name, or member by member where that has dots.
fn at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// The texts of a claim: one, or a list of them.
fn texts(claim: Option<&Value>) -> Vec<&str> {
    let all = match claim {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let plain = |text: &&str| {
        !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains(char::is_control)
    };
    all.into_iter().map(str::trim).filter(plain).collect()
}

/// Whether the provider vouches for a claim. An e-mail address is only a text until it was verified.
fn vouched(claims: &Map<String, Value>, claim: &str) -> bool {
    claim != "email" || claims.get("email_verified").is_none_or(|verified| *verified == true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider() -> Provider {
        Provider::new(ProviderSettings {
            issuer: "https://id.example.com".parse().unwrap(),
            jwks: None,
            audience: "gate".into(),
            name_claim: "email".into(),
            groups_claim: "realm.groups".into(),
            person_claims: vec!["sub".into(), "email".into(), "accounts".into()],
            reviewer_groups: vec!["dba".into()],
            viewer_groups: vec!["support".into()],
            leeway: 30,
            ca: None,
        })
        .unwrap()
    }

    fn person(claims: &Value) -> Result<Person, Unproven> {
        let mut claims = claims.as_object().unwrap().clone();
        claims.entry("iss").or_insert(json!("https://id.example.com"));
        claims.entry("exp").or_insert(json!(2_000_000_000));
        provider().person(&claims)
    }

    #[test]
    fn a_person_is_who_verified_claims_say_with_all_their_names() {
        let dana = person(&json!({
            "sub": "u-1", "email": "dana@example.com", "email_verified": true,
            "accounts": ["dana-admin", "", 7], "realm": {"groups": ["dba", "web"]},
        }))
        .unwrap();
        assert_eq!(dana.name, "dana@example.com");
        assert_eq!(dana.also, ["dana-admin", "u-1"]);
        assert_eq!(
            (dana.role, &dana.groups[..]),
            (Role::Decide, &["dba".into(), "web".into()][..])
        );
        let viewer = json!({"sub": "u", "email": "v@x", "realm": {"groups": "support"}});
        assert_eq!(person(&viewer).unwrap().role, Role::See);
    }

    #[test]
    fn whoever_is_not_vouched_for_or_in_no_group_is_nobody() {
        let groups = json!({"groups": ["dba"]});
        for (claims, why) in [
            (
                json!({"sub": "u", "email": "d@x", "email_verified": false, "realm": groups}),
                "verified",
            ),
            (json!({"sub": "u", "realm": groups}), "no \"email\""),
            (json!({"sub": "u", "email": "d\n@x", "realm": groups}), "no \"email\""),
            (
                json!({"sub": "u", "email": "d@x", "realm": groups, "iss": ["https://id.example.com"]}),
                "issuer",
            ),
            (json!({"sub": "u", "email": "d@x", "groups": ["dba"]}), "none of the groups"),
        ] {
            let said = person(&claims).unwrap_err().to_string();
            assert!(said.contains(why), "{claims}: {said}");
        }
    }
}
