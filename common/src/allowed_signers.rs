//! Who may sign with which key: OpenSSH's `allowed_signers` (ssh-keygen(1)), as far as approvals need it.
//!
//! ```text
//! # one person per line, named as in Signet's accounts
//! alice ssh-ed25519 AAAA… alice's laptop
//! bob valid-before="20270101Z",namespaces="signet-approval" sk-ssh-ed25519@openssh.com AAAA…
//! ```
//! People are counted, so a line must say who its key belongs to: exactly one principal without wildcards, and a key
//! belongs to one person only. What can't be obeyed is refused instead of ignored: certificate authorities, unknown
//! options, keys for other namespaces only, and times that are not in UTC (the host's time zone could change).

use std::fmt;

use crate::glob;
use crate::limits::ALLOWED_SIGNERS_MAX;
use crate::sshsig::SshPublicKey;

/// A line that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadSigners {
    /// Which, counted from 1.
    pub line: usize,
    /// Why, for a person.
    pub why: String,
}

/// One person, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(String);

impl Principal {
    /// As the file names it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an account may be this person's: names are compared without case, and up to an `@`, so that `alice` and
    /// `Alice@example.com` count as one. In doubt someone counts as the requester, who can't approve.
    #[must_use]
    pub fn may_be(&self, account: &str) -> bool {
        fn person(name: &str) -> &str {
            name.split_once('@').map_or(name, |(person, _)| person)
        }
        person(&self.0).to_lowercase() == person(account).to_lowercase()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signer {
    principal: Principal,
    key: SshPublicKey,
    /// First and last second in which the key counts.
    valid: (i64, i64),
}

/// People and their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSigners(Vec<Signer>);

impl AllowedSigners {
    /// Reads a file's text. Every key must be for `namespace`, or for any.
    ///
    /// # Errors
    /// [`BadSigners`] for the first line that can't be used.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, BadSigners> {
        let mut signers: Vec<Signer> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |why: String| BadSigners { line: at + 1, why };
            let signer = signer(line, namespace).map_err(bad)?;
            let known = signers.iter().find(|s| s.key == signer.key);
            let alike = signers
                .iter()
                .find(|s| s.principal != signer.principal && s.principal.may_be(signer.principal.as_str()));
            if let Some(other) = alike {
                return Err(bad(format!("this may be {} again: one person needs one name", other.principal)));
            }
            if let Some(other) = known.filter(|s| s.principal != signer.principal) {
                return Err(bad(format!("this key belongs to {} already", other.principal)));
            }
            if signers.len() == ALLOWED_SIGNERS_MAX {
                return Err(bad(format!("more than {ALLOWED_SIGNERS_MAX} keys")));
            }
            signers.push(signer);
        }
        Ok(Self(signers))
    }

    /// Whose key this is at `now` (seconds since 1970); `None` when it is not listed, or not at this time.
    #[must_use]
    pub fn signer(&self, key: &SshPublicKey, now: i64) -> Option<&Principal> {
        let valid = |s: &&Signer| s.key == *key && (s.valid.0..=s.valid.1).contains(&now);
        self.0.iter().find(valid).map(|s| &s.principal)
    }

    /// Everybody who is named, sorted, each once.
    #[must_use]
    pub fn people(&self) -> Vec<&Principal> {
        let mut people: Vec<&Principal> = self.0.iter().map(|s| &s.principal).collect();
        people.sort();
        people.dedup();
        people
    }
}

fn signer(line: &str, namespace: &str) -> Result<Signer, String> {
    let (name, rest) = field(line)?;
    let name = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => quoted,
        None => name,
    };
    if name.is_empty() || name.contains(['*', '?', '!', ',', '"']) {
        return Err("exactly one person is needed, without wildcards".into());
    }
    // As ssh-keygen does it: options are what stands there and is not a key.
    let (options, key) = match rest.parse::<SshPublicKey>() {
        Ok(key) => (Options::default(), key),
        Err(error) => {
            let (options, key) = field(rest)?;
            if key.is_empty() || is_key_type(options) {
                return Err(error.to_string());
            }
            (Options::parse(options, namespace)?, key.parse::<SshPublicKey>().map_err(|e| e.to_string())?)
        }
    };
    let valid = (options.valid_after.unwrap_or(i64::MIN), options.valid_before.unwrap_or(i64::MAX));
    Ok(Signer { principal: Principal(name.to_owned()), key, valid })
}

fn is_key_type(field: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| field.starts_with(prefix))
}

/// The text up to the first space that is not inside quotes, and what follows.
fn field(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok((&text[..at], text[at..].trim_start())),
            _ => {}
        }
    }
    if quoted { Err("a quote is not closed".into()) } else { Ok((text, "")) }
}

#[derive(Debug, Default)]
struct Options {
    valid_after: Option<i64>,
    valid_before: Option<i64>,
}

impl Options {
    fn parse(mut text: &str, namespace: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let mut namespaces = false;
        loop {
            let Some((name, rest)) = text.split_once('=') else {
                return Err(unsupported(text));
            };
            let value = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let (value, rest) = value.ok_or_else(|| unsupported(name))?;
            let twice = match name.to_ascii_lowercase().as_str() {
                "valid-after" => options.valid_after.replace(time(value)?).is_some(),
                "valid-before" => options.valid_before.replace(time(value)?).is_some(),
                "namespaces" => {
                    includes(value, namespace)?;
                    std::mem::replace(&mut namespaces, true)
                }
                _ => return Err(unsupported(name)),
            };
            if twice {
                return Err(format!("{name} stands there twice"));
            }
            match rest.strip_prefix(',') {
                Some(more) => text = more,
                None if rest.is_empty() => return Ok(options),
                None => return Err("options must be separated by commas".into()),
            }
        }
    }
}

fn unsupported(option: &str) -> String {
    let name = option.split(',').next().unwrap_or(option);
    if name.eq_ignore_ascii_case("cert-authority") {
        "certificate authorities are not supported: list each person's own key".into()
    } else {
        format!("the option {name:?} is not supported")
    }
}

fn includes(patterns: &str, namespace: &str) -> Result<(), String> {
    if patterns.contains(['!', '?']) {
        return Err("namespaces: ! and ? are not supported".into());
    }
    if patterns.split(',').any(|pattern| glob::matches(pattern, namespace)) {
        return Ok(());
    }
    Err(format!("this key is not for the namespace {namespace}"))
}

/// `YYYYMMDDZ` or `YYYYMMDDHHMM[SS]Z`.
fn time(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a time in UTC: YYYYMMDDZ or YYYYMMDDHHMM[SS]Z");
    let digits = text.strip_suffix('Z').ok_or_else(bad)?;
    if ![8, 12, 14].contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let part = |at: usize| digits.get(at..at + 2).map_or(Ok(0), |d| d.parse::<i8>().map_err(|_| bad()));
    let year = digits[..4].parse::<i16>().map_err(|_| bad())?;
    let moment = jiff::civil::DateTime::new(year, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?, 0)
        .and_then(|moment| jiff::tz::TimeZone::UTC.to_timestamp(moment))
        .map_err(|_| bad())?;
    Ok(moment.as_second())
}
