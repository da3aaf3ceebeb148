//! How one setting's text becomes a value, and what is said when it makes no sense.

use std::fmt::Display;

/// A setting that makes no sense, by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {name}: {why}")]
pub struct SettingError {
    /// The variable's name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

pub(super) fn wrong(name: &str, why: impl Display) -> SettingError {
    SettingError { name: name.to_owned(), why: why.to_string() }
}

/// A whole number above 0.
pub(super) fn positive(name: &str, text: Option<&str>, default: u32) -> Result<u32, SettingError> {
    match number(name, text, default)? {
        0 => Err(wrong(name, "must be above 0")),
        number => Ok(number),
    }
}

/// A whole number, 0 included.
pub(super) fn number(name: &str, text: Option<&str>, default: u32) -> Result<u32, SettingError> {
    text.map_or(Ok(default), |text| text.parse().map_err(|_| wrong(name, "not a whole number")))
}

/// One of a few words; `None` unless it is set.
pub(super) fn word<T: Copy>(
    name: &str,
    text: Option<&str>,
    words: &[(&str, T)],
) -> Result<Option<T>, SettingError> {
    let Some(text) = text else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == text);
    let names = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    found
        .map(|(_, value)| Some(*value))
        .ok_or_else(|| wrong(name, format!("must be {}", names().join(" or "))))
}

/// Values between commas.
pub(super) fn list<T>(
    text: &str,
    one: impl Fn(&str) -> Result<T, SettingError>,
) -> Result<Vec<T>, SettingError> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

/// An address with one of these schemes, without a final slash.
pub(super) fn url_of(name: &str, text: &str, schemes: &[&str]) -> Result<String, SettingError> {
    let text = text.trim_end_matches('/');
    let good =
        text.split_once("://").is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty());
    if good {
        Ok(text.to_owned())
    } else {
        Err(wrong(name, format!("must begin with {}://", schemes.join(":// or "))))
    }
}
