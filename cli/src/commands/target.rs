//! Which hosts, as it is written on the command line.

use std::fmt;
use std::str::FromStr;

use signet_common::Hostname;

/// `HOST`, `@GROUP`, `all` or `label:NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The API's `target_type`.
    pub kind: &'static str,
    /// The API's `target`.
    pub text: Option<String>,
}

/// As it is written on the command line.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.as_deref().unwrap_or_default();
        match self.kind {
            "group" => write!(f, "@{text}"),
            "label" => write!(f, "label:{text}"),
            "all" => f.write_str("all"),
            _ => f.write_str(text),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target = |kind, text: &str| Self { kind, text: Some(text.to_owned()) };
        if text == "all" {
            return Ok(Self { kind: "all", text: None });
        }
        if let Some(group) = text.strip_prefix('@') {
            return if group.is_empty() {
                Err("a group is written @NAME".into())
            } else {
                Ok(target("group", group))
            };
        }
        if let Some(label) = text.strip_prefix("label:") {
            let named = label.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            return if named {
                Ok(target("label", label))
            } else {
                Err("a label is written label:NAME=VALUE".into())
            };
        }
        match text.parse::<Hostname>() {
            Ok(host) => Ok(target("node", host.as_str())),
            Err(_) => Err("neither a hostname nor @GROUP, label:NAME=VALUE or all".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_ways() {
        let parsed = |text: &str| text.parse::<Target>().map(|t| (t.kind, t.text.unwrap_or_default()));
        assert_eq!(parsed("Web1").unwrap(), ("node", "web1".into()));
        assert_eq!(parsed("@web").unwrap(), ("group", "web".into()));
        assert_eq!(parsed("all").unwrap(), ("all", String::new()));
        assert_eq!(parsed("label:zone=a=b").unwrap(), ("label", "zone=a=b".into()));
        for text in ["web1", "@web", "all", "label:zone=a=b"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for bad in ["", "@", "label:", "label:zone", "label:=x", "a b", "-x"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
