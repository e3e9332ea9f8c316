//! What every request passes before anything else looks at it: an exact path, a known host.
//!
//! Owns the rules against two ways in that a gateway or a browser leaves open: paths that another
//! program would read as a different path (`/public/../privileged/mcp`), and names that somebody
//! else's DNS points here. Must never normalise anything: what is not written plainly is refused.

use std::{fmt, str::FromStr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hitl_service::given::HostName;
use http::{HeaderMap, StatusCode, Uri, header, uri::Authority};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Paths that probes and scrapers ask by address, and that say nothing worth protecting.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/metrics"];

/// A host name clients may use, with one port or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    name: String,
    port: Option<u16>,
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || {
            format!(
                "{text:?} is not a host name; write NAME or NAME:PORT, without http:// or a path"
            )
        };
        let authority: Authority = text.trim().parse().map_err(|_| malformed())?;
        if authority.as_str().contains('@') {
            return Err(malformed());
        }
        let port = port_of(&authority).map_err(|()| malformed())?;
        let name: HostName = without_dot(authority.host()).parse().map_err(|_| malformed())?;
        Ok(Self { name: name.as_str().to_owned(), port })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The guard's rules; a cheap handle.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Vec<AllowedHost>>);

impl Guard {
    /// Allows loopback names, and `more`.
    pub fn new<'a>(more: impl IntoIterator<Item = &'a AllowedHost>) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]"]
            .map(|name| AllowedHost { name: name.to_owned(), port: None });
        Self(Arc::new(loopback.into_iter().chain(more.into_iter().cloned()).collect()))
    }

    fn allows(&self, authority: &Authority) -> bool {
        let Ok(port) = port_of(authority) else {
            return false;
        };
        let name = without_dot(authority.host());
        self.0.iter().any(|allowed| {
            allowed.name.eq_ignore_ascii_case(name)
                && allowed.port.is_none_or(|wanted| port == Some(wanted))
        })
    }

    /// Refuses a request for another host, or from another site's page.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = asked_host(uri, headers)?;
        if !self.allows(&host) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "the host {:?} is not allowed here; start the server with --allowed-host {} \
                     if clients may use that name",
                    host.as_str(),
                    host.host(),
                ),
            ));
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if self.allows_origin(origin.as_bytes()) => Ok(()),
            (Some(origin), _) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "pages of the origin {:?} may not call this server; start it with \
                     --allowed-host and the host of that origin if they may",
                    String::from_utf8_lossy(origin.as_bytes()),
                ),
            )),
        }
    }

    fn allows_origin(&self, origin: &[u8]) -> bool {
        let Some(origin) = std::str::from_utf8(origin).ok() else {
            return false;
        };
        let (default_port, authority) = match origin.split_once("://") {
            Some(("http", authority)) => (80, authority),
            Some(("https", authority)) => (443, authority),
            _ => return false,
        };
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        // An origin that names no port means its scheme's.
        let named = match port_of(&authority) {
            Ok(Some(_)) => Ok(authority),
            Ok(None) => format!("{}:{default_port}", authority.host()).parse(),
            Err(()) => return false,
        };
        named.is_ok_and(|authority| self.allows(&authority))
    }
}

/// Cancelled when the caller of a request has gone, or has its answer. In the extensions of every
/// request, for work that is done in a task of its own.
#[derive(Clone, Debug)]
pub struct CallerGone(pub CancellationToken);

/// The middleware.
pub async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    // The connection drops this future, and with it the guard, when its client goes.
    let gone = CancellationToken::new();
    request.extensions_mut().insert(CallerGone(gone.clone()));
    let _gone = gone.drop_guard();
    let path = request.uri().path();
    if !is_plain(path) {
        return Problem::not_found(path).into_response();
    }
    if !OPEN_PATHS.contains(&path)
        && let Err(refused) = guard.check(request.uri(), request.headers())
    {
        return refused.into_response();
    }
    next.run(request).await
}

/// Whether nobody could read this path as another one: no dot segments, no parameters, nothing
/// doubled, nothing encoded. None of this server's paths needs any of it.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains("//")
        && !path.contains(['%', ';', '\\'])
        && !path.split('/').any(|segment| segment == "." || segment == "..")
}

fn asked_host(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    let bad = |text: &str| Problem::new(StatusCode::BAD_REQUEST, text.to_owned());
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .to_str()
            .ok()
            .filter(|host| !host.contains('@'))
            .and_then(|host| host.parse().ok())
            .ok_or_else(|| bad("the Host header is not a host name")),
        (Some(_), Some(_)) => Err(bad("the request has more than one Host header")),
        (None, _) => uri.authority().cloned().ok_or_else(|| bad("the request has no Host header")),
    }?;
    match uri.authority() {
        Some(target) if *target != named => Err(bad("the request names two different hosts")),
        _ => Ok(named),
    }
}

/// The port an authority names; an error when what follows the host is no port. Digits only: other
/// programs read `+80` and `080` differently.
fn port_of(authority: &Authority) -> Result<Option<u16>, ()> {
    let rest = authority.as_str().strip_prefix(authority.host()).ok_or(())?;
    let Some(port) = rest.strip_prefix(':') else {
        return if rest.is_empty() { Ok(None) } else { Err(()) };
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    if digits { port.parse().map(Some).map_err(|_| ()) } else { Err(()) }
}

/// A name is the same with and without the dot of the root.
fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(
        more: &[&str],
        headers: &[(header::HeaderName, &str)],
    ) -> Option<(StatusCode, String)> {
        let more: Vec<_> = more.iter().map(|host| host.parse().unwrap()).collect();
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let check = Guard::new(&more).check(&Uri::from_static("/state"), &headers);
        check.err().map(|problem| (problem.status(), problem.to_string()))
    }

    fn allows(more: &[&str], host: &str) -> bool {
        refused(more, &[(header::HOST, host)]).is_none()
    }

    #[test]
    fn loopback_is_allowed_with_any_port_and_other_names_when_named() {
        for host in ["localhost", "LOCALHOST:9", "127.0.0.1:8080", "[::1]:8080", "localhost."] {
            assert!(allows(&[], host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.7:8080"]
        {
            assert!(!allows(&[], host), "{host}");
        }
        let more = ["ops-tools", "ops-tools.lab.svc:8080", "172.18.255.200"];
        for host in ["ops-tools", "ops-tools:1", "Ops-Tools.lab.svc:8080", "172.18.255.200:8088"] {
            assert!(allows(&more, host), "{host}");
        }
        assert!(!allows(&more, "ops-tools.lab.svc:81"));
        assert!(!allows(&more, "ops-tools.lab.svc"));
        assert!(!allows(&more, "user@localhost:x"));
    }

    #[test]
    fn a_refusal_names_the_option() {
        let (status, text) = refused(&[], &[(header::HOST, "ops-tools:8080")]).unwrap();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(text.contains("--allowed-host ops-tools"), "{text}");
    }

    #[test]
    fn a_page_of_another_site_is_refused_and_so_is_an_opaque_origin() {
        let origin = |value| {
            refused(&["gate.example:443"], &[(header::HOST, "localhost"), (header::ORIGIN, value)])
        };
        for good in ["http://localhost:5173", "https://gate.example", "https://gate.example:443"] {
            assert_eq!(origin(good), None, "{good}");
        }
        for bad in ["null", "http://evil.example", "http://gate.example", "file://", "localhost"] {
            assert_eq!(origin(bad).unwrap().0, StatusCode::FORBIDDEN, "{bad}");
        }
    }

    #[test]
    fn two_hosts_or_none_are_malformed() {
        let two = [(header::HOST, "localhost"), (header::HOST, "evil.example")];
        assert_eq!(refused(&[], &two).unwrap().0, StatusCode::BAD_REQUEST);
        assert_eq!(refused(&[], &[]).unwrap().0, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn wildcards_urls_and_user_names_are_not_host_names() {
        for host in ["localhost:+80", "localhost:080", "localhost:", "[::1]x:80", "[::1]x"] {
            assert!(!allows(&[], host), "{host}");
        }
        for text in ["*", "*.example", "http://x", "x/y", "a@b", "", "x:99999", "x:", "a$b", "a..b"]
        {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_that_could_be_read_as_another_are_not_plain() {
        for path in ["/", "/public/mcp", "/migrations/v3", "/a..b", "/.well-known"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/public/../privileged/mcp",
            "/public/%2e%2e/privileged/mcp",
            "/public/..;/privileged/mcp",
            "/public/..%2fprivileged/mcp",
            "//privileged/mcp",
            "/privileged//mcp",
            "/privileged/./mcp",
            "/%70rivileged/mcp",
            "/public\\..\\privileged",
            "*",
            "/..",
            "/.",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn only_names_on_the_list_are_allowed(host in "[a-z0-9.:@\\[\\]-]{1,30}") {
            let Ok(value) = host.parse::<http::HeaderValue>() else { return Ok(()) };
            let headers = HeaderMap::from_iter([(header::HOST, value)]);
            if Guard::new([]).check(&Uri::from_static("/"), &headers).is_ok() {
                let known = ["localhost", "127.0.0.1", "[::1]"];
                prop_assert!(known.iter().any(|known| host.starts_with(known)), "{}", host);
            }
        }
    }
}
