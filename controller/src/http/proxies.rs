//! Whose request it really is, when a trusted proxy passes it on.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use crate::limits::FORWARDED_HOPS_MAX;

/// Other headers with which a proxy says that it passes something on. Nothing in them is believed.
const HINTS: [&str; 2] = ["forwarded", "x-real-ip"];

/// The address that the socket names, or the one that trusted proxies name in `X-Forwarded-For`, read from the right:
/// only what a trusted hop wrote is believed. The second answer says whether something was left unbelieved: then the
/// request came from further away than the address says.
pub(super) fn peer(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> (IpAddr, bool) {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    let mut peer = socket.to_canonical();
    // Bytes, because a line that is no text is a hop all the same.
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for _ in 0..FORWARDED_HOPS_MAX {
        if !is_trusted(&peer) {
            break;
        }
        match hops.next().map(address) {
            Some(Some(ip)) => peer = ip,
            // A hop that is no address ends the chain at the proxy that wrote it.
            Some(None) => return (peer, true),
            None => break,
        }
    }
    (peer, hops.next().is_some() || HINTS.iter().any(|name| headers.contains_key(*name)))
}

/// An address, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    bare.or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|a| a.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn seen(socket: &str, forwarded: &[&str], trusted: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(value.as_bytes()).unwrap());
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
        assert_eq!(seen("::ffff:10.0.0.1", &[], &any), ("10.0.0.1".into(), false));
        assert_eq!(seen("127.0.0.1", &["127.0.0.1"], &[]), ("127.0.0.1".into(), true));
    }

    #[test]
    fn what_cannot_be_read_is_never_loopback() {
        // "é" is a header's bytes, but no text to `to_str`.
        for hop in ["unknown", "unix:", "_hidden", "é", "", "1.2.3.4, unknown", "127.0.0.1, é"] {
            for trusted in [&[][..], &["127.0.0.0/8"]] {
                assert_eq!(seen("127.0.0.1", &[hop], trusted), ("127.0.0.1".into(), true), "{hop:?}");
            }
        }
        let endless = vec!["127.0.0.1"; FORWARDED_HOPS_MAX + 1].join(", ");
        assert!(seen("127.0.0.1", &[&endless], &["127.0.0.0/8"]).1);
        let mut headers = HeaderMap::new();
        headers.insert("x-real-ip", "1.2.3.4".parse().unwrap());
        assert!(peer("127.0.0.1".parse().unwrap(), &headers, &[]).1);
    }
}
