//! Compares an answer with a document's example.

use serde_json::{Map, Value};

/// What an answer may have beyond the example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extras {
    /// Nothing.
    None,
    /// More fields, after the example's.
    Behind,
}

/// Lists where an answer differs from an example. Keys must have the example's order. Values must be the example's own,
/// but for what differs from run to run: times have the example's form, keys are PEM of the example's form, and the id
/// `abc123` stands for any.
pub(crate) fn differences(at: &str, example: &Value, live: &Value, extras: Extras) -> Vec<String> {
    match (example, live) {
        (Value::Object(wanted), Value::Object(found)) => objects(at, wanted, found, extras),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs.flat_map(|(i, (w, f))| differences(&format!("{at}[{i}]"), w, f, extras)).collect()
        }
        (Value::String(wanted), Value::String(found)) if same_text(wanted, found) => Vec::new(),
        (Value::Number(wanted), Value::Number(found)) if wanted == found => Vec::new(),
        (Value::Null, Value::Null) => Vec::new(),
        (Value::Bool(wanted), Value::Bool(found)) if wanted == found => Vec::new(),
        _ => vec![format!("{at}: {example} in the document, {live} in the answer")],
    }
}

fn objects(at: &str, wanted: &Map<String, Value>, found: &Map<String, Value>, extras: Extras) -> Vec<String> {
    let names: Vec<&String> = found.keys().collect();
    let first: Vec<&String> = wanted.keys().collect();
    if !names.starts_with(&first) || (extras == Extras::None && names.len() > first.len()) {
        return vec![format!("{at}: the fields {first:?} in the document, {names:?} in the answer")];
    }
    let fields = wanted.iter().zip(found.values());
    fields.flat_map(|((name, w), f)| differences(&format!("{at}.{name}"), w, f, extras)).collect()
}

fn same_text(wanted: &str, found: &str) -> bool {
    if is_time(wanted) {
        return is_time(found);
    }
    if wanted.starts_with("-----BEGIN") {
        return same_pem(wanted, found);
    }
    if wanted == "abc123" {
        return !found.is_empty() && found.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    }
    if uuid::Uuid::try_parse(wanted).is_ok() {
        return uuid::Uuid::try_parse(found).is_ok_and(|id| id.get_version_num() == 4);
    }
    if wanted.starts_with("eyJ") {
        return is_token(found);
    }
    wanted == found
}

/// Three parts of base64url, the first naming HS256 (RFC 7515, compact form).
fn is_token(text: &str) -> bool {
    use base64::Engine as _;
    let parts: Vec<Vec<u8>> = text
        .split('.')
        .filter_map(|part| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).ok())
        .collect();
    let header = parts.first().and_then(|head| serde_json::from_slice::<Value>(head).ok());
    parts.len() == 3 && header.is_some_and(|h| h["alg"] == "HS256" && h["typ"] == "JWT")
}

/// `2024-01-01T12:00:00Z`, and a time that exists.
pub(crate) fn is_time(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00T00:00:00Z" && signet_common::time::Micros::parse_rfc3339(text).is_some()
}

/// The example leaves out most of the key (`…AQEA...`): what it shows must be so, the rest must be 64 columns of base64.
fn same_pem(wanted: &str, found: &str) -> bool {
    let (wanted, found): (Vec<&str>, Vec<&str>) = (wanted.split('\n').collect(), found.split('\n').collect());
    let ([head, shown, tail], [first, body @ .., last]) = (&wanted[..], &found[..]) else { return false };
    let begins = body.first().is_some_and(|line| line.starts_with(shown.trim_end_matches('.')));
    let base64 = |line: &&str| line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    let columns = body.iter().rev().skip(1).all(|line| line.len() == 64)
        && body.last().is_some_and(|line| (1..=64).contains(&line.len()));
    head == first && tail == last && begins && columns && body.iter().all(base64)
}

/// Whether a value has the type that a model's table names. Any field may be null.
pub(crate) fn has_type(kind: &str, value: &Value) -> bool {
    match (kind, value) {
        (_, Value::Null) => true,
        ("string", Value::String(_)) => true,
        ("datetime", Value::String(text)) => is_time(text),
        ("int", Value::Number(number)) => number.is_i64(),
        ("float", Value::Number(number)) => number.is_f64(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_difference_is_found() {
        let example = json!({"id": "abc123", "n": 30, "f": 15.5, "at": "2024-01-01T12:00:00Z", "none": null});
        let good = r#"{"id":"0198-x","n":30,"f":15.5,"at":"2026-02-03T04:05:06Z","none":null,"more":1}"#;
        let check = |text: &str, extras| {
            let live = serde_json::from_str(text).unwrap();
            differences("", &example, &live, extras)
        };
        assert!(check(good, Extras::Behind).is_empty());
        assert_eq!(check(good, Extras::None).len(), 1);
        for (from, to) in [
            ("\"n\":30", "\"n\":\"30\""),
            ("\"n\":30", "\"n\":30.0"),
            ("\"n\":30,\"f\":15.5", "\"f\":15.5,\"n\":30"),
            ("\"none\":null,", ""),
            ("\"none\":null", "\"none\":\"\""),
            (":06Z", ":06.5Z"),
            (":06Z", ":06+00:00"),
            ("-02-03", "-02-31"),
            ("0198-x", ""),
        ] {
            assert_ne!(good.replace(from, to), good);
            assert_eq!(check(&good.replace(from, to), Extras::Behind).len(), 1, "{from} -> {to}");
        }
        assert_eq!(differences("", &json!([1]), &json!([1, 1]), Extras::Behind).len(), 1);
    }

    #[test]
    fn keys_have_the_documents_form() {
        let shown = "-----BEGIN PUBLIC KEY-----\nMIIBIjAN...\n-----END PUBLIC KEY-----";
        let line = format!("MIIBIjAN{}", "A".repeat(56));
        let good = format!("-----BEGIN PUBLIC KEY-----\n{line}\nAQAB==\n-----END PUBLIC KEY-----");
        assert!(same_pem(shown, &good));
        for bad in [
            format!("{good}\n"),
            good.replace("PUBLIC", "RSA PUBLIC"),
            good.replace("MIIB", "MIIC"),
            good.replace('\n', "\r\n"),
            good.replace("AAAA\n", "AAA\n"),
        ] {
            assert!(!same_pem(shown, &bad), "{bad}");
        }
    }
}
