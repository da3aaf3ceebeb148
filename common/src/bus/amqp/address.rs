//! A broker's URL taken apart.

use std::fmt;

use lapin::uri::AMQPUri;

use super::BadOptions;

/// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. Never printed: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(AMQPUri);

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokerUrl")
    }
}

impl BrokerUrl {
    /// Checks a URL.
    ///
    /// # Errors
    /// [`BadOptions::Url`].
    pub fn parse(url: &str) -> Result<Self, BadOptions> {
        // What the library says may repeat the URL.
        url.parse().map(Self).map_err(|_| BadOptions::Url("not amqp://user:password@host:port/vhost".into()))
    }

    /// The vhost, decoded.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// The same broker and vhost as another user.
    #[must_use]
    pub fn as_user(&self, name: &str, password: &str) -> String {
        let mut uri = self.0.clone();
        uri.authority.userinfo.username = name.into();
        uri.authority.userinfo.password = password.into();
        uri.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_goes_to_the_same_place() {
        let url = BrokerUrl::parse("amqps://a:b@rabbit.example:5671/%2fsig%20net?heartbeat=7").unwrap();
        assert_eq!(url.vhost(), "/sig net");
        let other = BrokerUrl::parse(&url.as_user("signet.agent.1", "p@s/s")).unwrap();
        assert_eq!((other.vhost(), &other.0.query), (url.vhost(), &url.0.query));
        let user = &other.0.authority.userinfo;
        assert_eq!((user.username.as_str(), user.password.as_str()), ("signet.agent.1", "p@s/s"));
        assert_eq!((other.0.authority.host.as_str(), other.0.authority.port), ("rabbit.example", 5671));
    }

    #[test]
    fn a_url_is_never_printed() {
        assert!(!format!("{:?}", BrokerUrl::parse("amqp://a:s3cret@b/").unwrap()).contains("s3cret"));
        let error = BrokerUrl::parse("ampq://a:s3cret@b/").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
