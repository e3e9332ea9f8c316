//! Names under which something is asked, and whether somebody else may have made them up.
//!
//! For what asks nobody who they are: a page in a browser may have a name of its own that leads to another
//! machine by now, to this one (DNS rebinding), and is taken for a page of ours. Must never be taken for proof
//! of anybody.

use std::net::IpAddr;

use http::uri::Authority;

/// Ends of names that nobody can register: this machine's (RFC 6761), local networks' (RFC 6762 and ICANN's
/// `internal`), and services of a cluster.
const RESERVED: [&str; 4] = ["localhost", "local", "internal", "svc"];

/// Whether a `Host` is this very machine's, by its own name or an address of its own.
pub fn is_this_machine(host: &str) -> bool {
    name(host).is_some_and(|name| {
        name.eq_ignore_ascii_case("localhost")
            || address(&name).is_some_and(|address| address.is_loopback())
    })
}

/// Whether nobody on the internet can have made a `Host` lead here: an address, a name without a dot, or one
/// that cannot be registered.
pub fn is_private(host: &str) -> bool {
    name(host).is_some_and(|name| {
        let last = name.rsplit('.').next().unwrap_or_default();
        address(&name).is_some()
            || !name.contains('.')
            || RESERVED.iter().any(|reserved| last.eq_ignore_ascii_case(reserved))
    })
}

/// Whether a `Host` is an address of loopback, written as an address.
pub fn is_loopback_address(host: &str) -> bool {
    name(host).and_then(|name| address(&name)).is_some_and(|address| address.is_loopback())
}

/// Returns the name or address in a `Host`, in lower case and without its port.
pub fn name(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    // A dot at the end says no more than that the name is whole.
    let name = authority.host().trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_else_may_have_made_is_not_this_machines() {
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "[::1]:8081", "127.9.9.9"] {
            assert!(is_this_machine(host) && is_private(host), "{host}");
        }
        for host in
            ["evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::"]
        {
            assert!(!is_this_machine(host) && !is_private(host), "{host}");
        }
    }

    #[test]
    fn a_loopback_address_is_not_a_name_of_it() {
        for host in ["127.0.0.1:8090", "127.0.0.2", "[::1]:8090"] {
            assert!(is_loopback_address(host), "{host}");
        }
        for host in ["localhost:8090", "queue.localhost", "10.0.0.7", "127.0.0.1.nip.io", ""] {
            assert!(!is_loopback_address(host), "{host}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_registered_is_private() {
        for host in [
            "10.0.0.7:8090",
            "[fd00::7]:8090",
            "hitl-ui",
            "hitl-ui:8090",
            "hitl-ui.hitl.svc",
            "hitl-ui.hitl.svc.cluster.local.:80",
            "laptop.local",
            "queue.corp.INTERNAL",
            "queue.localhost",
        ] {
            assert!(is_private(host), "{host}");
        }
        for host in
            ["queue.example.com", "svc.example", "10.0.0.7.nip.io", "local.evil.example", "."]
        {
            assert!(!is_private(host), "{host}");
        }
    }
}
