//! Addresses as far as they tell people apart.

use std::net::{IpAddr, Ipv6Addr};

/// Who stands behind an address. Networks of IPv6 are given out as /64 at least: who has one has all its addresses.
#[must_use]
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}
