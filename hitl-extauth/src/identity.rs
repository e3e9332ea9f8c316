//! Who asks.
//!
//! Owns the order in which a requester is looked for, and how sure the gate is of what it finds.
//! Must never let a name that somebody merely claims stand for one that was verified: an approval
//! is bound to the name together with how it is known.

use std::{fmt, str::FromStr};

use hitl_api::{Assurance, Requester};
use serde_json::Value;

use crate::request::Arrived;

/// Longest name that is shown, in bytes; a longer one is cut, and says so.
const LONGEST: usize = 256;

/// Groups, and other names, of one requester that are kept.
const MOST_GROUPS: usize = 200;

/// One place to look for a requester.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A claim of a token that the gateway has verified.
    Jwt(String),
    /// A header, which any caller can write.
    Header(String),
    /// The identity in the client certificate.
    Mtls,
}

impl IdentitySource {
    /// How sure the gate is of whom it names.
    fn assurance(&self) -> Assurance {
        match self {
            Self::Jwt(_) | Self::Mtls => Assurance::Verified,
            Self::Header(_) => Assurance::Claimed,
        }
    }
}

/// A text is no identity source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place to look for a requester; write jwt:CLAIM, header:NAME or mtls")]
pub struct UnknownSource(String);

impl FromStr for IdentitySource {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("jwt", claim)) if !claim.is_empty() => Ok(Self::Jwt(claim.to_owned())),
            Some(("header", name)) if name.parse::<http::HeaderName>().is_ok() => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            None if text == "mtls" => Ok(Self::Mtls),
            _ => Err(UnknownSource(text.to_owned())),
        }
    }
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jwt(claim) => write!(f, "jwt:{claim}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Mtls => f.write_str("mtls"),
        }
    }
}

/// A requester, and what an approval is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who, and how the gate knows.
    pub requester: Requester,
    /// The same as one text that no other requester has.
    pub key: String,
    /// Length of the whole name, of which only so much is shown.
    pub bytes: usize,
}

impl Identity {
    /// Whether nothing at all is known, not even an address.
    pub fn is_nobody(&self) -> bool {
        self.key == NOBODY
    }
}

/// The key of a caller of whom nothing is known.
const NOBODY: &str = "addr:";

/// The name in a header. One that came twice says two names, and nobody's.
fn named<'a>(arrived: &'a Arrived, source: &'a IdentitySource) -> Option<&'a str> {
    let IdentitySource::Header(name) = source else { return None };
    let mut names = arrived.headers.all(name);
    names.next().filter(|_| names.next().is_none()).map(str::trim).filter(|name| !name.is_empty())
}

/// The first requester that the sources give; the caller's address when none does. Groups are those of the
/// verified token that names the requester, and nobody else's.
pub fn resolve(arrived: &Arrived, sources: &[IdentitySource], claims: &PersonClaims) -> Identity {
    for source in sources {
        let found = match source {
            IdentitySource::Jwt(claim) => arrived.claims.get(claim).and_then(Value::as_str),
            IdentitySource::Mtls => arrived.principal.as_deref(),
            IdentitySource::Header(_) => named(arrived, source),
        };
        let assurance = source.assurance();
        if let Some(name) = found.map(str::trim).filter(|name| !name.is_empty()) {
            // The whole name: two that begin alike are two.
            let (key, bytes) = (format!("{source}:{name}"), name.len());
            let name = cut(name);
            let groups = match source {
                IdentitySource::Jwt(_) => texts(arrived, &claims.groups),
                IdentitySource::Header(_) | IdentitySource::Mtls => Vec::new(),
            };
            let mut also = claims.others.iter().flat_map(|c| texts(arrived, c)).collect::<Vec<_>>();
            if matches!(source, IdentitySource::Mtls) {
                // Whoever asks by way of an agent's certificate may be a reviewer: whatever name comes with
                // the call is one that may not approve it. It gives nothing, so it need not be proven.
                also.extend(sources.iter().filter_map(|source| named(arrived, source)).map(cut));
            }
            also.retain(|other| *other != name);
            also.sort();
            also.dedup();
            return Identity { requester: Requester { name, assurance, groups, also }, key, bytes };
        }
    }
    let name = arrived.address.clone().unwrap_or_default();
    let (key, bytes) = (format!("addr:{name}"), name.len());
    let assurance = Assurance::Address;
    let requester = Requester { name, assurance, groups: Vec::new(), also: Vec::new() };
    Identity { requester, key, bytes }
}

/// As whom a call may have been bound whose requester is this one, whatever source has named them.
pub fn keys<'a>(
    requester: &'a Requester,
    sources: &'a [IdentitySource],
) -> impl Iterator<Item = String> + 'a {
    let sources = sources.iter().filter(|source| source.assurance() == requester.assurance);
    sources.map(|source| format!("{source}:{}", requester.name))
}

/// Which claims of a verified token say more of a person than their name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonClaims {
    /// Their groups.
    pub groups: String,
    /// Other names of theirs, or of whom they act for: `email`, `act.sub`.
    pub others: Vec<String>,
}

/// The texts in a claim: a list of them, or one. Dots lead into members.
fn texts(arrived: &Arrived, claim: &str) -> Vec<String> {
    let found = arrived.claims.get(claim).or_else(|| {
        let mut parts = claim.split('.');
        let first = arrived.claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    });
    let names = match found {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let names = names.into_iter().filter(|name| !name.is_empty() && name.len() <= LONGEST);
    names.take(MOST_GROUPS).map(str::to_owned).collect()
}

fn cut(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}… ({} bytes)", name.get(..end).unwrap_or_default(), name.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> PersonClaims {
        PersonClaims { groups: "groups".into(), others: vec!["email".into(), "act.sub".into()] }
    }

    fn sources() -> Vec<IdentitySource> {
        ["jwt:sub", "header:X-User-Id", "mtls"].map(|s| s.parse().unwrap()).to_vec()
    }

    #[test]
    fn the_first_source_that_knows_counts_and_says_how_sure_it_is() {
        let mut arrived = Arrived { address: Some("10.0.0.7".into()), ..Arrived::default() };
        let who = |arrived: &Arrived| {
            let identity = resolve(arrived, &sources(), &claims());
            (identity.requester.name, identity.requester.assurance, identity.key)
        };
        assert_eq!(who(&arrived), ("10.0.0.7".into(), Assurance::Address, "addr:10.0.0.7".into()));
        arrived.principal = Some("spiffe://lab/agent".into());
        assert_eq!(who(&arrived).1, Assurance::Verified);
        arrived.headers.push("x-user-id", " alice ");
        let claimed = ("alice".into(), Assurance::Claimed, "header:x-user-id:alice".into());
        assert_eq!(who(&arrived), claimed);
        arrived.claims.insert("sub".into(), json!("alice"));
        // The same name, verified, is somebody else.
        assert_eq!(who(&arrived), ("alice".into(), Assurance::Verified, "jwt:sub:alice".into()));
    }

    #[test]
    fn groups_are_those_of_the_verified_token_that_names_the_requester() {
        let mut arrived = Arrived::default();
        arrived.claims.insert("groups".into(), json!(["dba", 7, "", "web"]));
        arrived.headers.push("x-user-id", "alice");
        let groups = |arrived: &Arrived| resolve(arrived, &sources(), &claims()).requester.groups;
        assert!(groups(&arrived).is_empty());
        arrived.claims.insert("sub".into(), json!("alice"));
        assert_eq!(groups(&arrived), ["dba", "web"]);
        arrived.claims.insert("groups".into(), json!("dba"));
        assert_eq!(groups(&arrived), ["dba"]);
        // Whom an agent acts for, and by which other names they are known.
        arrived.claims.insert("act".into(), json!({"sub": "bob"}));
        arrived.claims.insert("email".into(), json!("Alice@example.com"));
        let requester = resolve(&arrived, &sources(), &claims()).requester;
        assert_eq!(requester.also, ["Alice@example.com", "bob"]);
        assert!(requester.is("BOB") && requester.is("alice@example.com") && requester.is("alice"));
    }

    #[test]
    fn whoever_asks_by_an_agents_certificate_is_kept_from_approving_what_they_ask_for() {
        let sources = ["mtls", "header:x-user-id"].map(|s| s.parse().unwrap());
        let mut arrived =
            Arrived { principal: Some("spiffe://lab/agent".into()), ..Arrived::default() };
        arrived.headers.push("x-user-id", " Alice ");
        let identity = resolve(&arrived, &sources, &claims());
        let Requester { name, assurance, also, .. } = &identity.requester;
        assert_eq!((name.as_str(), *assurance), ("spiffe://lab/agent", Assurance::Verified));
        assert_eq!(also, &["Alice"]);
        assert!(identity.requester.is("alice"));
        // What it is bound to is what is verified.
        assert_eq!(identity.key, "mtls:spiffe://lab/agent");
        // A token says itself whom somebody acts for.
        let sources = ["jwt:sub", "header:x-user-id"].map(|s| s.parse().unwrap());
        arrived.claims.insert("sub".into(), json!("bob"));
        assert!(resolve(&arrived, &sources, &claims()).requester.also.is_empty());
    }

    #[test]
    fn a_claimed_name_cannot_look_like_an_address_or_an_empty_one() {
        let mut arrived = Arrived { address: Some("10.0.0.7".into()), ..Arrived::default() };
        arrived.headers.push("x-user-id", "addr:10.0.0.7");
        let key = |arrived: &Arrived| resolve(arrived, &sources(), &claims()).key;
        assert_eq!(key(&arrived), "header:x-user-id:addr:10.0.0.7");
        arrived.headers.push("x-user-id", "alice");
        assert_eq!(key(&arrived), "addr:10.0.0.7");
        let mut arrived = Arrived::default();
        arrived.headers.push("x-user-id", "  ");
        assert_eq!(key(&arrived), NOBODY);
        let long = |end: &str| {
            let mut arrived = Arrived::default();
            arrived.headers.push("x-user-id", format!("{}{end}", "u".repeat(256)));
            resolve(&arrived, &sources(), &claims())
        };
        assert_ne!(long("AAAA").key, long("BBBB").key);
        assert!(long("AAAA").requester.name.ends_with("… (260 bytes)"));
        assert!("header:a b".parse::<IdentitySource>().is_err());
        assert!("jwt:".parse::<IdentitySource>().is_err());
    }
}
