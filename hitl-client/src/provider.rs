//! How an identity provider is reached, by the gate and by the queue.
//!
//! Must never let a token or a key travel in the clear to another machine.

use std::{fs, path::Path, time::Duration};

use reqwest::{Certificate, Client, Url, redirect::Policy};

/// Whether tokens and keys may travel to an address: by TLS, or on this machine.
///
/// # Errors
/// Why not.
pub fn reachable(url: &Url) -> Result<(), String> {
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(()),
        "http" if local => Ok(()),
        // A name, a password or a query may be secret.
        scheme => {
            let host = url.host_str().unwrap_or_default();
            Err(format!("{scheme}://{host} must be https, unless it is on this machine"))
        }
    }
}

/// A client that follows nobody elsewhere. Certificates are verified against those in a file (PEM), or
/// against the system's.
///
/// # Errors
/// Why there is none.
pub fn http(ca: Option<&Path>, patience: Duration) -> Result<Client, String> {
    // An error means that the process has chosen how TLS is done already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = Client::builder().redirect(Policy::none()).timeout(patience);
    if let Some(path) = ca {
        let wrong = |what: String| format!("the certificates in {}: {what}", path.display());
        let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let all = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
        if all.is_empty() {
            return Err(wrong("there is none".to_owned()));
        }
        http = http.tls_certs_only(all);
    }
    http.build().map_err(|error| format!("no HTTP client can be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_reached_by_tls_or_on_this_machine() {
        for (url, good) in [
            ("https://id.example.com/realm", true),
            ("http://127.0.0.1:5556/dex", true),
            ("http://localhost", true),
            ("http://id.example.com", false),
            ("http://localhost.example.com", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(reachable(&url.parse().unwrap()).is_ok(), good, "{url}");
        }
    }
}
