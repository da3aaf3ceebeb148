//! Where the controller listens, whose word it takes for who asks, and how much it answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use signet_common::tls::{Identity, TlsFiles};

use super::sources::Raw;
use super::values::{SettingError, list, number, wrong};
use crate::limits::{ADDRESS_REQUESTS_PER_SECOND, REQUESTS_PER_SECOND};

/// How many requests are answered each second, with bursts of two seconds' worth; 0 = any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of one token or log-in.
    pub caller: u32,
    /// From one address.
    pub address: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { caller: REQUESTS_PER_SECOND, address: ADDRESS_REQUESTS_PER_SECOND }
    }
}

impl Rates {
    pub(super) fn parse(raw: &Raw) -> Result<Self, SettingError> {
        let (caller, address) = (&raw.requests_per_second, &raw.address_requests_per_second);
        Ok(Self {
            caller: number("SIGNET_REQUESTS_PER_SECOND", caller.as_deref(), REQUESTS_PER_SECOND)?,
            address: number(
                "SIGNET_ADDRESS_REQUESTS_PER_SECOND",
                address.as_deref(),
                ADDRESS_REQUESTS_PER_SECOND,
            )?,
        })
    }
}

/// Where to listen; `None` unless that is set.
pub(super) fn listen(raw: &Raw) -> Result<Option<Vec<SocketAddr>>, SettingError> {
    let bad = |part: &str| wrong("SIGNET_LISTEN", format!("'{part}' is not an address with a port"));
    match (&raw.listen, &raw.port) {
        (Some(text), _) => match list(text, |part| part.parse().map_err(|_| bad(part)))? {
            none if none.is_empty() => Err(wrong("SIGNET_LISTEN", "names no address")),
            some => Ok(Some(some)),
        },
        (None, Some(port)) => {
            let port: u16 = port.parse().map_err(|_| wrong("PORT", "not a port"))?;
            Ok(Some(vec![(Ipv4Addr::UNSPECIFIED, port).into()]))
        }
        (None, None) => Ok(None),
    }
}

/// The certificate that is shown there.
pub(super) fn tls(raw: &Raw) -> Result<Option<Identity>, SettingError> {
    identity(("SIGNET_TLS_CERT", &raw.tls_cert), ("SIGNET_TLS_KEY", &raw.tls_key))
}

/// How TLS to the broker is set up.
pub(super) fn broker_tls(raw: &Raw) -> Result<TlsFiles, SettingError> {
    let cert = ("SIGNET_AMQP_CLIENT_CERT", &raw.amqp_client_cert);
    let key = ("SIGNET_AMQP_CLIENT_KEY", &raw.amqp_client_key);
    Ok(TlsFiles { ca: raw.amqp_ca.as_ref().map(PathBuf::from), identity: identity(cert, key)? })
}

/// A setting's name, and its text if it is set.
type Named<'a> = (&'a str, &'a Option<String>);

/// A certificate needs its key, and a key its certificate.
fn identity(
    (cert_name, cert): Named<'_>,
    (key_name, key): Named<'_>,
) -> Result<Option<Identity>, SettingError> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(Identity { cert: cert.into(), key: key.into() })),
        (Some(_), None) => Err(wrong(key_name, format!("must be set with {cert_name}"))),
        (None, Some(_)) => Err(wrong(cert_name, format!("must be set with {key_name}"))),
    }
}

/// Whose `X-Forwarded-For` is believed.
pub(super) fn trusted_proxies(raw: &Raw) -> Result<Vec<IpNet>, SettingError> {
    let bad =
        |part: &str| wrong("SIGNET_TRUSTED_PROXIES", format!("'{part}' is neither an address nor a network"));
    list(raw.trusted_proxies.as_deref().unwrap_or_default(), |part| {
        let single = part.parse::<IpAddr>().map(Into::into);
        single.or_else(|_| part.parse()).map_err(|_| bad(part))
    })
}

#[cfg(test)]
mod tests {
    use super::super::sources::from;

    #[test]
    fn port_counts_only_without_listen() {
        assert_eq!(from(&["--port", "81"]).unwrap().listen, ["0.0.0.0:81".parse().unwrap()]);
        let both = from(&["--port", "81", "--listen", "127.0.0.1:82"]).unwrap();
        assert_eq!(both.listen, ["127.0.0.1:82".parse().unwrap()]);
    }
}
