//! Times on the wire: whole seconds since 1970 in claims, RFC 3339 in JSON answers, microseconds in the database.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment in UTC, in microseconds since 1970. What "now" is, is always passed in, so that state machines stay pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// This machine's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// From whole seconds since 1970.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This moment and `seconds` more.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// `2025-01-01T00:00:00Z`: UTC, whole seconds.
    #[must_use]
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_second(self.seconds()) {
            Ok(timestamp) => timestamp.to_string(),
            Err(_) => "9999-12-31T23:59:59Z".to_owned(),
        }
    }

    /// `2025-01-01T00:00:00.000123Z`: UTC, to the microsecond where there are any.
    #[must_use]
    pub fn rfc3339_exact(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).map_or_else(|_| self.rfc3339(), |at| at.to_string())
    }

    /// Reads any RFC 3339 time with an offset.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let timestamp: jiff::Timestamp = text.parse().ok()?;
        Some(Self(timestamp.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_whole_seconds_in_utc() {
        assert_eq!(Micros(1_735_689_600_999_999).rfc3339(), "2025-01-01T00:00:00Z");
    }

    #[test]
    fn reads_any_offset() {
        assert_eq!(Micros::parse_rfc3339("2025-01-01T08:00:00+08:00"), Some(Micros(1_735_689_600_000_000)));
        assert_eq!(Micros::parse_rfc3339("yesterday"), None);
    }
}
