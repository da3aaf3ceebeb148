//! Whose request it really is, when a trusted proxy passes it on.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use crate::limits::FORWARDED_HOPS_MAX;

/// The address that the socket names, or the one that trusted proxies name in `X-Forwarded-For`, read from the right:
/// only what a trusted hop wrote is believed. The second answer says whether a header was left unbelieved.
pub(super) fn peer(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> (IpAddr, bool) {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut peer = socket.to_canonical();
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut hops =
        lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim).take(FORWARDED_HOPS_MAX);
    while is_trusted(&peer) {
        match hops.next().map(address) {
            Some(Some(ip)) => peer = ip,
            // A hop that is no address ends the chain at the proxy that wrote it.
            Some(None) | None => break,
        }
    }
    (peer, hops.next().is_some() || headers.contains_key("forwarded"))
}

/// An address, with or without a port.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    bare.or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|a| a.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(socket: &str, forwarded: &[&str], trusted: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        let (ip, unbelieved) = peer(socket.parse().unwrap(), &headers, &trusted);
        (ip.to_string(), unbelieved)
    }

    #[test]
    fn only_trusted_hops_are_believed() {
        let any = ["10.0.0.0/8"];
        assert_eq!(seen("192.0.2.1", &["1.2.3.4"], &any), ("192.0.2.1".into(), true));
        assert_eq!(seen("10.0.0.1", &["1.2.3.4"], &any), ("1.2.3.4".into(), false));
        assert_eq!(seen("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], &any), ("1.2.3.4".into(), true));
        assert_eq!(seen("10.0.0.1", &["6.6.6.6", "1.2.3.4"], &any), ("1.2.3.4".into(), true));
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:443"], &any), ("2001:db8::1".into(), false));
        assert_eq!(seen("10.0.0.1", &["nonsense"], &any), ("10.0.0.1".into(), false));
        assert_eq!(seen("::ffff:10.0.0.1", &[], &any), ("10.0.0.1".into(), false));
        assert_eq!(seen("127.0.0.1", &["127.0.0.1"], &[]), ("127.0.0.1".into(), true));
    }
}
