//! The headers that decide whether a request is one message, how its body is read, or that repeat what it
//! says.
//!
//! Invariant: a header is read by its exact name, and a spelling that some server folds into it is refused.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Refusal, Subject, short};

/// A request's headers: names in lower case, every value of its own where the gateway kept them
/// apart. Gateways that join repeated headers give one value with a comma in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Adds a value.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let mut name = name.into();
        name.make_ascii_lowercase();
        self.0.push((name, value.into()));
    }

    /// Every value of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Self::default();
        for (name, value) in headers {
            all.push(name, value);
        }
        // Some are kept for as long as a call is held.
        all.0.shrink_to_fit();
        all
    }
}

/// Envoy's word on whether it gave the whole body.
pub(crate) const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Headers that turn a request into a tunnel, whose contents no gateway asks about.
const TUNNELS: [&str; 3] = ["upgrade", "http2-settings", ":protocol"];

/// Headers that decide how a body is read, where it ends, or what it is said to be.
const DECISIVE: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "http2-settings",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "transfer-encoding",
];

/// A header's name as the most lenient server reads it: CGI, WSGI and their like make one sign of `-`, `_`
/// and of what else is no letter or digit.
pub(crate) fn folded(name: &str) -> String {
    fold(name).collect()
}

/// Whether the most lenient server takes a header for one whose name begins like this.
pub(crate) fn begins_as(name: &str, beginning: &str) -> bool {
    let mut read = fold(name);
    beginning.chars().all(|sign| read.next() == Some(sign))
}

fn fold(name: &str) -> impl Iterator<Item = char> {
    let fold = |sign: char| if sign.is_ascii_alphanumeric() { sign } else { '-' };
    name.chars().map(move |sign| fold(sign).to_ascii_lowercase())
}

/// Whether folding would not change a name. Nearly all names are like this.
fn is_folded(name: &str) -> bool {
    name.bytes().all(|sign| matches!(sign, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Refuses a request that may become a tunnel. Everything after its head would reach the server unseen.
pub(super) fn no_tunnel(headers: &Headers) -> Result<(), Refusal> {
    if let Some(name) = TUNNELS.iter().find(|name| headers.all(name).next().is_some()) {
        return Err(Refusal::Tunnel(name));
    }
    let mut tokens = headers.all("connection").flat_map(|value| value.split(',')).map(str::trim);
    let upgrades = tokens.any(|token| TUNNELS.iter().any(|name| token.eq_ignore_ascii_case(name)));
    if upgrades { Err(Refusal::Tunnel("connection")) } else { Ok(()) }
}

/// Refuses another spelling of a header that decides how the body is read: some servers take it for that
/// header.
pub(super) fn exact_names(headers: &Headers) -> Result<(), Refusal> {
    for (name, _) in headers.iter() {
        if !is_folded(name)
            && let Some(known) = DECISIVE.iter().find(|known| fold(name).eq(known.chars()))
        {
            return Err(Refusal::FoldedHeader(short(name), known));
        }
    }
    Ok(())
}

/// Refuses a body that the gateway did not show, with a method that has none.
pub(super) fn no_body(subject: &Subject<'_>) -> Result<(), Refusal> {
    let announced = subject.headers.all("transfer-encoding").next().is_some();
    if announced || !subject.body.is_empty() {
        return Err(Refusal::UnexpectedBody(subject.method.to_owned()));
    }
    Ok(())
}

/// Refuses a body that is not whole, or not the one that was announced.
pub(super) fn whole_body(subject: &Subject<'_>) -> Result<(), Refusal> {
    let arrived = subject.body.len();
    if subject.stated_size < 0 || subject.headers.all(PARTIAL_BODY).any(|value| value != "false") {
        return Err(Refusal::Truncated(arrived));
    }
    if usize::try_from(subject.stated_size) != Ok(arrived) {
        return Err(Refusal::Size { stated: subject.stated_size, arrived });
    }
    for length in subject.headers.all("content-length") {
        // `parse` takes a sign, too.
        let digits = length.bytes().all(|sign| sign.is_ascii_digit());
        if !digits || length.parse() != Ok(arrived) {
            return Err(Refusal::Size { stated: length.parse().unwrap_or(-1), arrived });
        }
    }
    Ok(())
}

/// Refuses a body that may be read as something else than the JSON it looks like.
pub(super) fn plain_json(headers: &Headers) -> Result<(), Refusal> {
    let refuse =
        |name: &'static str, value: &str| Err(Refusal::Encoding { name, value: short(value) });
    for value in headers.all("content-encoding") {
        if !value.trim().eq_ignore_ascii_case("identity") {
            return refuse("content-encoding", value);
        }
    }
    for value in headers.all("transfer-encoding") {
        if !value.trim().eq_ignore_ascii_case("chunked") {
            return refuse("transfer-encoding", value);
        }
    }
    let mut types = headers.all("content-type");
    match (types.next(), types.next()) {
        (Some(value), None) if is_json_in_utf8(value) => Ok(()),
        (None, _) => refuse("content-type", ""),
        (Some(value), _) => refuse("content-type", value),
    }
}

fn is_json_in_utf8(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            name.eq_ignore_ascii_case("charset")
                && (value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8"))
        })
}

/// Refuses `Mcp-Method` and `Mcp-Name` that say something else than the body: somebody on the way
/// may have routed by them.
pub(super) fn mirrors(
    headers: &Headers,
    method: Option<&str>,
    name: Option<&str>,
) -> Result<(), Refusal> {
    for (header, body) in [("mcp-method", method), ("mcp-name", name)] {
        let mut values = headers.all(header);
        let agrees = match (values.next(), values.next()) {
            (None, _) => true,
            (Some(value), None) => decoded(value).as_deref() == body && body.is_some(),
            (Some(_), Some(_)) => false,
        };
        if !agrees {
            return Err(Refusal::Mirror(if header == "mcp-method" {
                "Mcp-Method"
            } else {
                "Mcp-Name"
            }));
        }
    }
    Ok(())
}

/// A mirrored value: as it is, or wrapped as `=?base64?…?=` when it could not travel plainly.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let Some(wrapped) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="))
    else {
        return Some(Cow::Borrowed(value));
    };
    String::from_utf8(STANDARD.decode(wrapped).ok()?).ok().map(Cow::Owned)
}
