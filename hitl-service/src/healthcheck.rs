//! One question to a service, for images that hold no other program: container health checks and
//! `helm test` ask with it.
//!
//! Must never ask anything but plain HTTP: it stands in for a probe inside a cluster, not for a client.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use http::Uri;

use crate::given::url::EndpointUrl;

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of an answer is read: its first line, and what is said in its body where one was sent.
const FIRST_LINE: u64 = 64;
const WITH_BODY: u64 = 1024;

/// Whether to ask instead of serving.
#[derive(Args, Clone, Debug, Default)]
pub struct HealthcheckArgs {
    /// Ask this address (http://…) once and end: with success if it answers 2xx
    ///
    /// For health checks of containers and tests of charts; nothing is served.
    #[arg(long, value_name = "URL")]
    pub healthcheck: Option<EndpointUrl>,

    /// Send this JSON by POST instead, and show the body of an answer that is not 2xx
    ///
    /// For `cargo xtask doctor`, which tries an API from a pod.
    #[arg(long, value_name = "JSON", requires = "healthcheck", hide = true)]
    pub healthcheck_post: Option<String>,
}

/// Why an address does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It is no address that can be asked.
    #[error("{0} is not http://HOST[:PORT]/PATH")]
    Address(String),
    /// It does not answer.
    #[error("{address} does not answer: {error}")]
    Silent {
        /// What was asked.
        address: String,
        /// What happened.
        error: io::Error,
    },
    /// It answers something else than success.
    #[error("{address} answers {line:?}")]
    Answer {
        /// What was asked.
        address: String,
        /// The first line of the answer.
        line: String,
    },
}

impl HealthcheckArgs {
    /// Asks, where that was asked for.
    pub fn run(&self, service: &str) -> Option<ExitCode> {
        let url = self.healthcheck.as_ref()?;
        let uri = url.url().as_str().parse();
        let body = self.healthcheck_post.as_deref();
        let result =
            uri.map_err(|_| Unhealthy::Address(url.to_string())).and_then(|uri| ask(&uri, body));
        Some(crate::serve::exit_code(service, result))
    }
}

/// Asks an address once: by GET, or by POST where there is a body, which is JSON.
///
/// # Errors
/// What is wrong with it.
pub fn ask(uri: &Uri, body: Option<&str>) -> Result<(), Unhealthy> {
    // Without user name, password and query, which may be secret.
    let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    let shown = format!("{scheme}://{host}{port}{}", uri.path());
    let wrong = || Unhealthy::Address(shown.clone());
    if uri.scheme_str() != Some("http") {
        return Err(wrong());
    }
    let host = uri.host().ok_or_else(wrong)?;
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().ok_or_else(wrong)?;
    let asked = || -> io::Result<String> {
        let none = || io::Error::other("the name has no address");
        let resolved = address.to_socket_addrs()?.next().ok_or_else(none)?;
        let mut stream = TcpStream::connect_timeout(&resolved, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request(path, authority.as_str(), body).as_bytes())?;
        // "HTTP/1.1 200 OK": the first line is all that counts.
        let mut begin = Vec::new();
        stream.take(if body.is_some() { WITH_BODY } else { FIRST_LINE }).read_to_end(&mut begin)?;
        Ok(String::from_utf8_lossy(&begin).into_owned())
    };
    let answer = asked().map_err(|error| Unhealthy::Silent { address: shown.clone(), error })?;
    let mut line = answer.lines().next().unwrap_or_default().to_owned();
    if let (Some(_), Some((_, said))) = (body, answer.split_once("\r\n\r\n")) {
        line = format!("{line} {}", said.trim());
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        _ => Err(Unhealthy::Answer { address: shown, line }),
    }
}

fn request(path: &str, authority: &str, body: Option<&str>) -> String {
    let close = format!("HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n");
    match body {
        None => format!("GET {path} {close}\r\n"),
        Some(body) => format!(
            "POST {path} {close}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Takes one request, which must end so.
    fn answering(end: &'static str, answer: &'static str) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            // All of it: what is left unread when a socket closes resets the connection.
            while !request.ends_with(end.as_bytes()) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        format!("http://{address}/healthz").parse().unwrap()
    }

    #[test]
    fn success_is_healthy_and_everything_else_is_said() {
        let end = "\r\n\r\n";
        ask(&answering(end, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), None).unwrap();
        let busy = answering(end, "HTTP/1.1 503 Service Unavailable\r\n\r\nsecret");
        let error = ask(&busy, None).unwrap_err();
        assert!(
            error.to_string().ends_with("answers \"HTTP/1.1 503 Service Unavailable\""),
            "{error}"
        );
        let error = ask(&answering(end, ""), None).unwrap_err();
        assert!(matches!(error, Unhealthy::Answer { .. }), "{error}");
    }

    #[test]
    fn a_body_is_posted_whole_and_what_is_said_to_it_is_shown() {
        let end = "content-length: 7\r\n\r\n{\"a\":1}";
        ask(&answering(end, "HTTP/1.1 201 Created\r\n\r\n{}"), Some("{\"a\":1}")).unwrap();
        let refused = answering(end, "HTTP/1.1 400 Bad Request\r\nx: y\r\n\r\nit is there\n");
        let error = ask(&refused, Some("{\"a\":1}")).unwrap_err();
        assert!(error.to_string().ends_with("\"HTTP/1.1 400 Bad Request it is there\""), "{error}");
    }

    #[test]
    fn nobody_there_and_other_schemes_are_unhealthy() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(&format!("http://{closed}/").parse().unwrap(), None).unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
        let error = ask(&"https://localhost/".parse().unwrap(), None).unwrap_err();
        assert!(matches!(error, Unhealthy::Address(_)), "{error}");
    }
}
