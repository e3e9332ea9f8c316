//! Addresses for `LoadBalancer` Services, out of the network that the nodes are in.
//!
//! Owns the arithmetic. Must never take an address that the network gives to nodes: those are handed
//! out from its beginning, so the pool lies at its end.

use std::net::{IpAddr, Ipv4Addr};

/// Most addresses that a pool takes.
const MOST: u32 = 50;

/// A network of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    first: u32,
    last: u32,
}

/// Why a network gives no pool.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPool {
    /// None of the networks is IPv4.
    #[error("the network of the nodes has no IPv4 subnet (it has: {0}); MetalLB's pool needs one")]
    NoIpv4(String),
    /// It has no room.
    #[error("{0} has no room for a pool of addresses; give kind a larger network")]
    TooSmall(String),
}

impl Subnet {
    /// Reads `ADDRESS/PREFIX`; none where it is not IPv4.
    fn read(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        let first = address.to_bits() & mask;
        Some(Self { first, last: first | !mask })
    }
}

/// The pool for a network with these subnets: `FIRST-LAST`, at the end of the first IPv4 one.
///
/// The last address is the broadcast one. Addresses of the nodes are left out, wherever they are.
///
/// # Errors
/// When there is no IPv4 subnet, or no room in it.
pub(crate) fn pool<Text: AsRef<str>>(subnets: &[Text], nodes: &[IpAddr]) -> Result<String, NoPool> {
    let named = || subnets.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    let mut all = subnets.iter().map(AsRef::as_ref);
    let Some(subnet) = all.find_map(Subnet::read) else { return Err(NoPool::NoIpv4(named())) };
    let size = subnet.last - subnet.first;
    // Half of a small network stays for the nodes.
    let wanted = MOST.min(size / 2);
    let taken = nodes.iter().filter_map(|node| match node {
        IpAddr::V4(node) => Some(node.to_bits()),
        IpAddr::V6(_) => None,
    });
    let last = subnet.last.saturating_sub(1);
    let begin = last.saturating_sub(wanted.saturating_sub(1));
    // Nodes count from the beginning; one that is far up nevertheless ends the pool above it.
    let above = taken.filter(|node| (begin..=last).contains(node)).max();
    let begin = above.map_or(begin, |node| node.saturating_add(1));
    if wanted < 2 || begin > last {
        return Err(NoPool::TooSmall(named()));
    }
    Ok(format!("{}-{}", Ipv4Addr::from_bits(begin), Ipv4Addr::from_bits(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_lies_at_the_end_of_the_first_ipv4_subnet_whatever_its_prefix() {
        let nodes = ["172.18.0.2".parse().unwrap()];
        for (subnets, expected) in [
            (&["172.18.0.0/16"][..], "172.18.255.205-172.18.255.254"),
            (&["fc00:f853:ccd:e793::/64", "172.19.0.0/16"], "172.19.255.205-172.19.255.254"),
            (&["10.89.0.0/24"], "10.89.0.205-10.89.0.254"),
            (&["192.168.148.0/22"], "192.168.151.205-192.168.151.254"),
            (&["192.168.7.16/28"], "192.168.7.24-192.168.7.30"),
            (&["10.0.0.0/8"], "10.255.255.205-10.255.255.254"),
        ] {
            assert_eq!(pool(subnets, &nodes).unwrap(), expected, "{subnets:?}");
        }
    }

    #[test]
    fn a_node_far_up_is_not_in_the_pool() {
        let nodes = ["10.89.0.230".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(pool(&["10.89.0.0/24"], &nodes).unwrap(), "10.89.0.231-10.89.0.254");
        let nodes = ["10.89.0.254".parse().unwrap()];
        pool(&["10.89.0.0/24"], &nodes).unwrap_err();
    }

    #[test]
    fn without_ipv4_or_room_it_says_so() {
        let error = pool(&["fc00::/64"], &[]).unwrap_err();
        assert_eq!(error, NoPool::NoIpv4("fc00::/64".into()));
        for small in ["10.0.0.0/30", "10.0.0.1/32", "10.0.0.0/31"] {
            let error = pool(&[small], &[]).unwrap_err();
            assert_eq!(error, NoPool::TooSmall(small.into()), "{small}");
        }
        pool::<&str>(&[], &[]).unwrap_err();
        pool(&["10.0.0.0/33"], &[]).unwrap_err();
    }
}
