//! The queue's own host: where sessions begin and count.
//!
//! Browsers send the cookies of a host to every port of it, so on a host that the queue shares with an agent's page
//! the agent is sent the reviewer's session. Invariant: no session begins or counts on a host that is not the
//! queue's own: that of `--url`, or an address of loopback.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use hitl_service::{given::url::SiteUrl, hosts};

use crate::routes::App;

/// The queue's own name where `--url` gives none. Browsers resolve it to loopback (RFC 6761), and no other page of
/// the machine has its cookies.
const NAME: &str = "queue.localhost";

/// The end of names that browsers resolve to loopback.
const LOOPBACK: &str = ".localhost";

/// The name of loopback that every page of a machine shares.
const SHARED: &str = "localhost";

/// Where people open the queue.
#[derive(Clone, Debug)]
pub struct Home(Option<SiteUrl>);

/// A request came to a host that is not the queue's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignHost {
    /// The queue's own host is on this machine.
    #[error(
        "no sign-in at {asked}: browsers would send the session to every other port of this host, an agent's page \
         among them; open {url}, or {address} where that name does not resolve"
    )]
    Local {
        /// The host that was asked.
        asked: String,
        /// The queue's own address.
        url: String,
        /// The same by an address of loopback.
        address: String,
    },
    /// `--url` names another host.
    #[error(
        "no sign-in at {asked}: the queue's own address is {url}; open that one. If you did, have the proxy in \
         front of the queue pass the Host header on"
    )]
    Other {
        /// The host that was asked.
        asked: String,
        /// The queue's own address.
        url: String,
    },
    /// There is no `--url`.
    #[error(
        "no sign-in at {0}: the queue does not know this host as its own; start it with --url (the address that \
         people open it at, on a host that no agent's page shares)"
    )]
    Unknown(String),
}

impl ForeignHost {
    /// The address to open instead, where it is known.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::Local { url, .. } | Self::Other { url, .. } => Some(url),
            Self::Unknown(_) => None,
        }
    }
}

impl Home {
    /// The queue at this address, or at its name on this machine.
    pub fn new(url: Option<SiteUrl>) -> Self {
        Self(url)
    }

    /// Returns the queue's address for people, where the queue listens on this port of loopback.
    pub fn address(&self, port: u16) -> String {
        match &self.0 {
            Some(url) => url.to_string().trim_end_matches('/').to_owned(),
            None => format!("http://{NAME}:{port}"),
        }
    }

    /// Whether pages of the queue's host are open to every other page of the machine.
    pub fn is_shared(&self) -> bool {
        self.name() == SHARED
    }

    /// Checks that a request came to the queue's own host. One that names no host (HTTP/1.0) is a program's: browsers
    /// name one.
    ///
    /// # Errors
    /// See [`ForeignHost`].
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ForeignHost> {
        if !headers.contains_key(header::HOST) {
            return Ok(());
        }
        let asked = host(headers);
        let name = hosts::name(asked);
        if hosts::is_loopback_address(asked) || name.as_deref() == Some(&*self.name()) {
            return Ok(());
        }
        let is_shared = name.as_deref() == Some(SHARED);
        let asked = asked.to_owned();
        let authority = asked.parse::<Authority>().ok();
        let port = authority.and_then(|authority| authority.port_u16()).unwrap_or(80);
        let url = self.address(port);
        Err(match &self.0 {
            Some(home) if self.is_local() => {
                let port = home.url().port_or_known_default().unwrap_or(port);
                ForeignHost::Local { asked, url, address: format!("http://127.0.0.1:{port}") }
            }
            None if is_shared => {
                ForeignHost::Local { asked, url, address: format!("http://127.0.0.1:{port}") }
            }
            Some(_) => ForeignHost::Other { asked, url },
            None => ForeignHost::Unknown(asked),
        })
    }

    /// Returns the same path at `--url`, for a page on `localhost` where `--url` is another name of loopback. A proxy
    /// may ask for `localhost` in the name of another host: with any other `--url` this would never end.
    fn elsewhere(&self, request: &Request) -> Option<String> {
        let home = self.0.as_ref().filter(|_| self.is_local())?;
        let accepts = request.headers().get(header::ACCEPT)?.to_str().ok()?;
        let is_page = request.method() == Method::GET && accepts.contains("text/html");
        let is_shared = hosts::name(host(request.headers())).as_deref() == Some(SHARED);
        if !is_page || !is_shared {
            return None;
        }
        let mut url = home.url().clone();
        url.set_path(request.uri().path());
        url.set_query(request.uri().query());
        Some(url.into())
    }

    /// Whether the queue's own name is one of loopback alone.
    fn is_local(&self) -> bool {
        self.name().ends_with(LOOPBACK)
    }

    fn name(&self) -> String {
        let given = self.0.as_ref().and_then(|url| url.url().host_str());
        given.and_then(hosts::name).unwrap_or_else(|| NAME.to_owned())
    }
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// Leads a person who opens a page on `localhost` to the same page on the queue's own name.
pub(crate) async fn lead(State(app): State<App>, request: Request, next: Next) -> Response {
    match app.home.elsewhere(&request) {
        Some(url) => Redirect::temporary(&url).into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::HeaderValue};

    use super::*;

    fn home(url: &str) -> Home {
        Home::new((!url.is_empty()).then(|| url.parse().unwrap()))
    }

    fn check(url: &str, host: &str) -> Result<(), ForeignHost> {
        let headers = [(header::HOST, HeaderValue::from_str(host).unwrap())];
        home(url).check(&headers.into_iter().collect())
    }

    #[test]
    fn the_queues_own_host_is_that_of_its_url_or_an_address_of_loopback() {
        let lab = "http://queue.localhost:8090";
        let away = "https://Queue.example.com";
        for url in ["", lab, away] {
            assert_eq!(home(url).check(&HeaderMap::new()), Ok(()), "{url}");
            for host in ["127.0.0.1:8090", "127.0.0.1", "[::1]:8090"] {
                assert_eq!(check(url, host), Ok(()), "{url} {host}");
            }
            for host in [
                "localhost:8090",
                "LOCALHOST",
                "localhost.:8090",
                "localhost6:8090",
                "chat.localhost:8090",
                "queue.localhost.evil.example",
                "evil.example",
                "10.0.0.7:8090",
                "0.0.0.0:8090",
                "",
                "[::",
            ] {
                assert!(check(url, host).is_err(), "{url} {host}");
            }
        }
        for (url, host, own) in [
            ("", "queue.localhost:8090", true),
            ("", "Queue.Localhost.:9999", true),
            (lab, "queue.localhost", true),
            (lab, "queue.example.com", false),
            (away, "queue.example.com:443", true),
            (away, "queue.localhost:8090", false),
            ("http://10.0.0.7:8090", "10.0.0.7:8090", true),
            ("http://[fd00::7]:8090", "[fd00::7]:8090", true),
        ] {
            assert_eq!(check(url, host).is_ok(), own, "{url} {host}");
        }
    }

    #[test]
    fn a_foreign_host_is_told_the_address_to_open() {
        let says = |url: &str, host: &str| check(url, host).unwrap_err().to_string();
        let lab = says("http://queue.localhost:8090", "localhost:8090");
        assert!(lab.contains("open http://queue.localhost:8090, or http://127.0.0.1:8090 where"));
        // By whatever port it was forwarded to.
        let plain = says("", "localhost:9999");
        assert!(plain.contains("open http://queue.localhost:9999, or http://127.0.0.1:9999 where"));
        let away = says("https://queue.example.com", "localhost:8090");
        assert!(away.contains("https://queue.example.com; open") && away.contains("Host header"));
        assert!(says("", "queue.corp:8090").contains("start it with --url"));
    }

    #[test]
    fn only_a_page_on_localhost_is_led_to_another_name_of_loopback() {
        let led = |url: &str, method: Method, uri: &str, host: &str, accept: &str| {
            let request = Request::builder().method(method).uri(uri);
            let request = request.header(header::HOST, host).header(header::ACCEPT, accept);
            home(url).elsewhere(&request.body(Body::empty()).unwrap())
        };
        let lab = "http://queue.localhost:8090";
        let page = "text/html,application/xhtml+xml,*/*;q=0.8";
        for (uri, to) in [
            ("/requests/1?x=y", "http://queue.localhost:8090/requests/1?x=y"),
            // Never to another site.
            ("//evil.example/", "http://queue.localhost:8090//evil.example/"),
        ] {
            assert_eq!(led(lab, Method::GET, uri, "localhost:8090", page).as_deref(), Some(to));
        }
        for (url, method, host, accept) in [
            (lab, Method::GET, "localhost:8090", "*/*"),
            (lab, Method::POST, "localhost:8090", page),
            (lab, Method::GET, "queue.localhost:8090", page),
            (lab, Method::GET, "127.0.0.1:8090", page),
            (lab, Method::GET, "evil.example", page),
            // What a proxy in front may ask.
            ("https://queue.example.com", Method::GET, "localhost:8090", page),
            ("http://localhost:8090", Method::GET, "localhost:8090", page),
            ("", Method::GET, "localhost:8090", page),
        ] {
            assert_eq!(led(url, method, "/queue", host, accept), None, "{url} {host} {accept}");
        }
    }
}
