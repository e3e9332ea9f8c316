//! Which addresses may be reached by whoever writes one down.
//!
//! Must never lead a message to this machine or into its network, whatever a name resolves to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Resolves names to public addresses alone. What is connected to is what was looked at.
#[derive(Debug)]
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                let text =
                    "it has no public address; set privateAddresses for a receiver of your own";
                return Err(text.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address that is written as a number may be reached. Names are looked at when they are
/// resolved.
pub(super) fn may_be_reached(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => is_public(address.into()),
        Some(url::Host::Ipv6(address)) => is_public(address.into()),
        Some(url::Host::Domain(_)) => true,
        None => false,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Carriers' own networks, protocols' own addresses, tests of performance.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Those that stand for one of version 4.
    let [a, b, c, d, ..] = address.segments();
    let embedded = |at: usize| {
        let octets = address.octets();
        let part = octets.get(at..at + 4).and_then(|part| <[u8; 4]>::try_from(part).ok());
        part.is_some_and(|part| is_public_v4(part.into()))
    };
    if address.to_ipv4_mapped().is_some() || (a == 0 && b == 0 && c == 0 && d == 0) {
        return embedded(12) && address.to_ipv4_mapped().is_some();
    }
    if a == 0x64 && b == 0xff9b {
        return embedded(12) && c == 0;
    }
    if a == 0x2002 {
        return embedded(2);
    }
    // Only what is given out to the world.
    (a & 0xe000) == 0x2000 && !(a == 0x2001 && (b == 0xdb8 || b < 0x200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_out_to_the_world_is_reached() {
        for address in [
            "1.1.1.1",
            "203.0.114.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for (url, reached) in [
            ("https://example.com/x", true),
            ("https://1.1.1.1/x", true),
            ("https://127.1/x", false),
            ("https://0x7f000001/x", false),
            ("https://[::ffff:127.0.0.1]/x", false),
            ("https://169.254.169.254/latest", false),
        ] {
            assert_eq!(may_be_reached(&url.parse().unwrap()), reached, "{url}");
        }
    }
}
