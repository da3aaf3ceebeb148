//! What may go over the wire in plain.

use super::sources::Raw;
use super::values::{SettingError, list, wrong};
use super::{BusSettings, Settings};

/// What may go over the wire in plain beyond this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllowPlain {
    /// Requests to this controller.
    pub http: bool,
    /// What goes to the broker and its management API.
    pub amqp: bool,
}

impl AllowPlain {
    pub(super) fn parse(raw: &Raw) -> Result<Self, SettingError> {
        // This variable has always meant plain HTTP on every address; who sets it wants that.
        let mut allowed = Self { http: raw.listen.is_none() && raw.port.is_some(), amqp: false };
        let unknown =
            |other: &str| wrong("SIGNET_ALLOW_PLAIN", format!("'{other}' is neither http nor amqp"));
        for what in list(raw.allow_plain.as_deref().unwrap_or_default(), |part| Ok(part.to_owned()))? {
            match what.as_str() {
                "http" => allowed.http = true,
                "amqp" => allowed.amqp = true,
                other => return Err(unknown(other)),
            }
        }
        Ok(allowed)
    }
}

/// What would go over the wire in plain beyond this machine must be allowed by name.
pub(super) fn refuse(settings: &Settings) -> Result<(), SettingError> {
    let beyond = settings.listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None, false) = (beyond, &settings.tls, settings.allow_plain.http) {
        let why = format!(
            "{address} would speak plain HTTP beyond this machine: set SIGNET_TLS_CERT and SIGNET_TLS_KEY, or allow it \
             with SIGNET_ALLOW_PLAIN=http"
        );
        return Err(wrong("SIGNET_LISTEN", why));
    }
    let BusSettings::Amqp { url, agent_url, management_url } = &settings.bus else { return Ok(()) };
    let amqp = [("SIGNET_AMQP_URL", Some(url)), ("SIGNET_AGENT_AMQP_URL", agent_url.as_ref())];
    let all = amqp.into_iter().chain([("SIGNET_AMQP_MANAGEMENT_URL", management_url.as_ref())]);
    for (name, url) in all.filter_map(|(name, url)| Some((name, url?))) {
        let url = reqwest::Url::parse(url.reveal()).map_err(|error| wrong(name, error))?;
        if !settings.allow_plain.amqp && !is_protected(&url) {
            let why = "a password would go over the wire in plain beyond this machine: use amqps:// (https:// for the \
                       management API), or allow it with SIGNET_ALLOW_PLAIN=amqp";
            return Err(wrong(name, why));
        }
    }
    Ok(())
}

/// Whether nobody can sit in between: TLS, or the same machine.
fn is_protected(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    matches!(url.scheme(), "amqps" | "https")
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::sources::from;

    #[test]
    fn plain_beyond_this_machine_is_allowed_by_name() {
        let local = "amqp://a:b@127.0.0.1/x";
        let cases: &[(&[&str], &str, &str)] = &[
            (&["--listen", "127.0.0.1:1,0.0.0.0:2"], "SIGNET_LISTEN", "http"),
            (&["--listen", "[::]:1"], "SIGNET_LISTEN", "http"),
            (&["--amqp-url", "amqp://a:s3cret@rabbit/x"], "SIGNET_AMQP_URL", "amqp"),
            (&["--amqp-url", "amqp://a:s3cret@localhost.example/x"], "SIGNET_AMQP_URL", "amqp"),
            (&["--amqp-url", local, "--agent-amqp-url", "amqp://10.0.0.1"], "SIGNET_AGENT_AMQP_URL", "amqp"),
            (
                &["--amqp-url", local, "--amqp-management-url", "http://a:s3cret@rabbit:1"],
                "SIGNET_AMQP_MANAGEMENT_URL",
                "amqp",
            ),
        ];
        for (args, name, allow) in cases {
            let error = from(args).unwrap_err();
            assert_eq!(error.name, *name, "{args:?}");
            assert!(error.why.contains(&format!("SIGNET_ALLOW_PLAIN={allow}")), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
            assert!(from(&[args, &["--allow-plain", allow][..]].concat()).is_ok(), "{args:?}");
            let other = if *allow == "http" { "amqp" } else { "http" };
            assert!(from(&[args, &["--allow-plain", other][..]].concat()).is_err(), "{args:?}");
        }
        for fine in [
            &["--listen", "127.0.0.1:1,[::1]:2"][..],
            &["--listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k"],
            &["--amqp-url", "amqps://rabbit/x", "--amqp-management-url", "https://a:b@rabbit"],
            &["--amqp-url", "amqp://[::1]:5672/x", "--amqp-management-url", "http://a:b@localhost:1"],
        ] {
            assert!(from(fine).is_ok(), "{fine:?}");
        }
        // A contract since before this setting: PORT alone means plain HTTP on every address.
        assert!(from(&["--port", "81"]).unwrap().allow_plain.http);
    }
}
