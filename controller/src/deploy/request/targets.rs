//! Whom a deployment is for: each of `targets`.

use std::collections::HashMap;

use serde_json::{Map, Value};
use signet_common::Hostname;

use super::super::secrets::{Auth, Login};
use super::texts::{host, user};
use super::{Asked, Problems, text, whole};
use crate::http::dialect::REQUIRED;
use crate::limits::{JOB_TARGETS_MAX, SSH_SECRET_BYTES_MAX};
use crate::settings::Secret;

pub(super) fn targets(object: &Map<String, Value>, problems: &mut Problems) -> Vec<(usize, Asked)> {
    let found = match object.get("targets") {
        None | Some(Value::Null) => return missing(problems, REQUIRED),
        Some(Value::Array(found)) if found.is_empty() => {
            return missing(problems, "must name at least one host");
        }
        Some(Value::Array(found)) if found.len() > JOB_TARGETS_MAX => {
            return missing(problems, &format!("must name at most {JOB_TARGETS_MAX} hosts"));
        }
        Some(Value::Array(found)) => found,
        Some(_) => return missing(problems, "must be a list"),
    };
    let mut seen: HashMap<(String, u16), usize> = HashMap::new();
    let mut good = Vec::new();
    for (index, one) in found.iter().enumerate() {
        if let Some(enrolled) = enrolled(one, index, problems) {
            good.extend(enrolled.map(|asked| (index, asked)));
            continue;
        }
        let Some(login) = target(one, index, problems) else { continue };
        match seen.get(&(login.host.to_ascii_lowercase(), login.port)) {
            Some(first) => {
                problems.add(
                    format!("targets[{index}].host"),
                    format!("the same host and port as targets[{first}]"),
                );
            }
            None => {
                seen.insert((login.host.to_ascii_lowercase(), login.port), index);
                good.push((index, Asked::Ssh(login)));
            }
        }
    }
    good
}

/// A target that its agent reaches: a host or a group with nothing to log in. `None` when it is another kind.
fn enrolled(value: &Value, index: usize, problems: &mut Problems) -> Option<Option<Asked>> {
    let object = value.as_object()?;
    let has = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    if ["auth", "username", "port"].into_iter().any(has) || !(has("host") || has("group")) {
        return None;
    }
    let name = |field: &str| format!("targets[{index}].{field}");
    if has("group") {
        if has("host") {
            problems.add(name("group"), "give either host or group, not both");
        }
        return Some(
            problems.must(name("group"), text(object, "group")).map(|group| Asked::Group(group.to_owned())),
        );
    }
    let host = problems.must(name("host"), text(object, "host"))?;
    match host.parse::<Hostname>() {
        Ok(host) => Some(Some(Asked::Host(host))),
        Err(_) => {
            problems.add(name("auth"), REQUIRED);
            Some(None)
        }
    }
}

fn missing(problems: &mut Problems, why: &str) -> Vec<(usize, Asked)> {
    problems.add("targets", why);
    Vec::new()
}

fn target(value: &Value, index: usize, problems: &mut Problems) -> Option<Login> {
    let name = |field: &str| format!("targets[{index}].{field}");
    let Some(object) = value.as_object() else {
        problems.add(format!("targets[{index}]"), "must be an object");
        return None;
    };
    let host = problems.must(name("host"), text(object, "host").and_then(|t| t.map(host).transpose()));
    let port = problems.take(name("port"), whole(object, "port", 1, u32::from(u16::MAX)));
    let user =
        problems.must(name("username"), text(object, "username").and_then(|t| t.map(user).transpose()));
    let auth = match object.get("auth") {
        None | Some(Value::Null) => {
            problems.add(name("auth"), REQUIRED);
            None
        }
        Some(Value::Object(auth)) => self::auth(auth, &name("auth"), problems),
        Some(_) => {
            problems.add(name("auth"), "must be an object");
            None
        }
    };
    let port = u16::try_from(port.unwrap_or(SSH_PORT)).unwrap_or(u16::MAX);
    Some(Login { host: host?, port, username: user?, auth: auth? })
}

const SSH_PORT: u32 = 22;

fn auth(object: &Map<String, Value>, at: &str, problems: &mut Problems) -> Option<Auth> {
    let field = |name: &str| format!("{at}.{name}");
    // A secret with a line's end can't be typed; one that is longer than any true one is none.
    let secret = |name: &str| match object.get(name) {
        Some(Value::String(text)) if text.contains(['\n', '\r', '\0']) => Err("must be one line".to_owned()),
        _ => bounded(text(object, name)?),
    };
    match problems.must(field("type"), text(object, "type"))? {
        "password" => {
            let password = problems.must(field("password"), secret("password"))?;
            Some(Auth::Password { password: Secret::new(password) })
        }
        "private_key" => {
            let key = text(object, "private_key").and_then(|t| bounded(t)?.map(private_key).transpose());
            let key = problems.must(field("private_key"), key);
            let passphrase = problems.take(field("passphrase"), secret("passphrase"));
            Some(Auth::PrivateKey { private_key: Secret::new(key?), passphrase: passphrase.map(Secret::new) })
        }
        _ => {
            problems.add(field("type"), "must be private_key or password");
            None
        }
    }
}

fn bounded(text: Option<&str>) -> Result<Option<&str>, String> {
    match text {
        Some(text) if text.len() > SSH_SECRET_BYTES_MAX => {
            Err(format!("must have at most {SSH_SECRET_BYTES_MAX} bytes"))
        }
        text => Ok(text),
    }
}

/// A key with the line ends that OpenSSH asks for.
fn private_key(text: &str) -> Result<String, String> {
    let text = text.replace("\r\n", "\n");
    let text = text.trim();
    let good = text.starts_with("-----BEGIN ")
        && text.lines().next().is_some_and(|line| line.ends_with("PRIVATE KEY-----"))
        && text.lines().last().is_some_and(|line| line.starts_with("-----END "));
    if good && !text.contains('\0') {
        Ok(format!("{text}\n"))
    } else {
        Err("must be a private key in OpenSSH's form".into())
    }
}
