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

/// Whether to ask instead of serving.
#[derive(Args, Clone, Debug, Default)]
pub struct HealthcheckArgs {
    /// Ask this address (http://…) once and end: with success if it answers 2xx
    ///
    /// For health checks of containers and tests of charts; nothing is served.
    #[arg(long, value_name = "URL")]
    pub healthcheck: Option<EndpointUrl>,
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
        let result = uri.map_err(|_| Unhealthy::Address(url.to_string())).and_then(|uri| ask(&uri));
        Some(crate::serve::exit_code(service, result))
    }
}

/// Asks an address once.
///
/// # Errors
/// What is wrong with it.
pub fn ask(uri: &Uri) -> Result<(), Unhealthy> {
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
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        // "HTTP/1.1 200 OK": the first line is all that counts.
        let mut begin = Vec::new();
        stream.take(64).read_to_end(&mut begin)?;
        let begin = String::from_utf8_lossy(&begin).into_owned();
        Ok(begin.lines().next().unwrap_or_default().to_owned())
    };
    let line = asked().map_err(|error| Unhealthy::Silent { address: shown.clone(), error })?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        _ => Err(Unhealthy::Answer { address: shown, line }),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn answering(answer: &'static str) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            // All of it: what is left unread when a socket closes resets the connection.
            while !request.ends_with(b"\r\n\r\n") {
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
        ask(&answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).unwrap();
        let error = ask(&answering("HTTP/1.1 503 Service Unavailable\r\n\r\n")).unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        let error = ask(&answering("")).unwrap_err();
        assert!(matches!(error, Unhealthy::Answer { .. }), "{error}");
    }

    #[test]
    fn nobody_there_and_other_schemes_are_unhealthy() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(&format!("http://{closed}/").parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
        let error = ask(&"https://localhost/".parse().unwrap()).unwrap_err();
        assert!(matches!(error, Unhealthy::Address(_)), "{error}");
    }
}
