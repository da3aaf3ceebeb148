//! `POST /api/v1/jobs`: parsed and checked at the edge, all fields at once.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::{Map, Value};
use signet_common::Hostname;
use signet_common::deploy::{DeployPath, GitRef, GitUrl, Releases};

use super::model::{HostKeyPolicy, Options, Plan, RunMode};
use super::secrets::{Auth, Login};
use crate::dispatch::BatchSize;
use crate::error::{Error, Result};
use crate::http::dialect::REQUIRED;
use crate::limits::{
    GIT_REF_BYTES_MAX, GIT_URL_BYTES_MAX, JOB_SECONDS, JOB_SECONDS_MAX, JOB_TARGETS_MAX, PATH_BYTES_MAX,
    SSH_SECRET_BYTES_MAX, SSH_USER_BYTES_MAX,
};
use crate::settings::Secret;

/// What the operator allows and presumes.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    /// Transports that a repository's address may name, as `https`.
    pub(super) protocols: &'a BTreeSet<String>,
    /// Unless the request says otherwise.
    pub(super) host_keys: HostKeyPolicy,
}

/// A request that makes sense.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) plan: Plan,
    /// In the order of the request, each with its place there.
    pub(super) targets: Vec<(usize, Asked)>,
}

/// Whom a deployment is for.
#[derive(Debug)]
pub(super) enum Asked {
    /// A host over SSH.
    Ssh(Login),
    /// An enrolled host.
    Host(Hostname),
    /// All enrolled hosts of a group.
    Group(String),
}

/// What is wrong, by field.
#[derive(Debug, Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.0.push((field.into(), why.into()));
    }

    /// The value, unless there is none or it is wrong; then that is written down.
    fn take<T>(&mut self, field: String, value: Result<Option<T>, String>) -> Option<T> {
        value.unwrap_or_else(|why| {
            self.add(field, why);
            None
        })
    }

    fn must<T>(&mut self, field: String, value: Result<Option<T>, String>) -> Option<T> {
        self.take(field, value.and_then(|found| found.map(Some).ok_or_else(|| REQUIRED.to_owned())))
    }
}

/// A field that is a text; `null` and, where it must be there, the empty text count as absent.
fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("must be a string".into()),
    }
}

fn whole(object: &Map<String, Value>, name: &str, min: u32, max: u32) -> Result<Option<u32>, String> {
    let bad = || format!("must be a whole number from {min} to {max}");
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.filter(|n| (min..=max).contains(n)).map(Some).ok_or_else(bad)
        }
    }
}

fn flag(object: &Map<String, Value>, name: &str) -> Result<Option<bool>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| "must be true or false".into()),
    }
}

/// Checks everything.
///
/// # Errors
/// [`Error::InvalidFields`], naming each field that is wrong.
pub(super) fn check(body: &Value, rules: &Rules<'_>) -> Result<Checked> {
    let Some(object) = body.as_object() else {
        return Err(Error::invalid("body", "must be a JSON object"));
    };
    let mut problems = Problems::default();
    let get = |name| text(object, name);
    let repo = get("git_repo").and_then(|t| t.map(|t| repository(t, rules.protocols)).transpose());
    let repo = problems.must("git_repo".into(), repo);
    let branch = get("git_branch").and_then(|t| t.map(reference).transpose());
    let branch = problems.take("git_branch".into(), branch);
    let path = problems.must("dest_path".into(), get("dest_path").and_then(|t| t.map(path).transpose()));
    let word = |name: &str, values: &str| format!("{name} must be {values}");
    let mode = get("run_mode").and_then(|t| {
        t.map(|t| RunMode::parse(t).ok_or_else(|| "must be parallel or serial".to_owned())).transpose()
    });
    let mode = problems.take("run_mode".into(), mode);
    let keys = get("host_key_policy").and_then(|t| {
        t.map(|t| HostKeyPolicy::parse(t).ok_or_else(|| word("it", "pin, strict or off"))).transpose()
    });
    let keys = problems.take("host_key_policy".into(), keys);
    let timeout = problems.take("timeout".into(), whole(object, "timeout", 1, JOB_SECONDS_MAX));
    let force = problems.take("force".into(), flag(object, "force"));
    let batch = problems.take("batch".into(), batch(object));
    let max_failures = problems.take("max_failures".into(), whole(object, "max_failures", 0, u32::MAX));
    let account = problems.take("user".into(), get("user").and_then(|t| t.map(user).transpose()));
    let releases = releases(object, &mut problems);
    let targets = targets(object, &mut problems);
    if releases.is_some() && targets.iter().any(|(_, target)| matches!(target, Asked::Ssh(_))) {
        problems.add("strategy", "releases are made by agents, not over SSH");
    }
    if targets.iter().any(|(_, target)| !matches!(target, Asked::Ssh(_))) {
        // As agents read them: what they would refuse is refused here.
        let parsed = |wrong: Option<String>, field: &str, problems: &mut Problems| {
            wrong.into_iter().for_each(|why| problems.add(field, why));
        };
        let why = |bad: signet_common::deploy::BadDeploy| bad.why.to_owned();
        let url = repo.as_ref().and_then(|t| t.parse::<GitUrl>().err()).map(why);
        parsed(url, "git_repo", &mut problems);
        let name = branch.as_ref().and_then(|t| t.parse::<GitRef>().err()).map(why);
        parsed(name, "git_branch", &mut problems);
        let place = path.as_ref().and_then(|t| t.parse::<DeployPath>().err()).map(why);
        parsed(place, "dest_path", &mut problems);
    }
    let (Some(git_repo), Some(dest_path), true) = (repo, path, problems.0.is_empty()) else {
        return Err(Error::InvalidFields(problems.0));
    };
    let options = Options {
        timeout: timeout.unwrap_or(JOB_SECONDS),
        host_key_policy: keys.unwrap_or(rules.host_keys),
        force: force.unwrap_or(false),
        releases,
        batch,
        max_failures,
        user: account,
    };
    let run_mode = mode.unwrap_or(RunMode::Parallel);
    Ok(Checked { plan: Plan { git_repo, git_branch: branch, dest_path, run_mode, options }, targets })
}

/// Hosts at a time: a number, or a share such as `"20%"`.
fn batch(object: &Map<String, Value>) -> Result<Option<String>, String> {
    let text = match object.get("batch") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => String::new(),
    };
    match batch_size(&text) {
        Some(_) => Ok(Some(text)),
        None => Err("must be a number of hosts from 1, or a share from \"1%\" to \"100%\"".into()),
    }
}

/// Reads what was stored as `batch`.
pub(super) fn batch_size(text: &str) -> Option<BatchSize> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().filter(|p| (1..=100).contains(p)).map(BatchSize::Percent);
    }
    text.parse().ok().filter(|n| *n > 0).map(BatchSize::Hosts)
}

/// With `"strategy": "releases"`: `keep`, `shared`, `build`, `activate` and `health`, as agents read them.
fn releases(object: &Map<String, Value>, problems: &mut Problems) -> Option<Releases> {
    match problems.take("strategy".into(), text(object, "strategy"))? {
        "in_place" => return None,
        "releases" => {}
        _ => {
            problems.add("strategy", "must be in_place or releases");
            return None;
        }
    }
    let names = ["keep", "shared", "build", "activate", "health"];
    let given = names.into_iter().filter_map(|name| Some((name.to_owned(), object.get(name)?.clone())));
    let given: Map<String, Value> = given.filter(|(_, value)| !value.is_null()).collect();
    match serde_path_to_error::deserialize::<_, Releases>(Value::Object(given)) {
        Ok(releases) => match releases.check() {
            Ok(()) => Some(releases),
            Err(bad) => {
                problems.add(bad.what, bad.why);
                None
            }
        },
        Err(error) => {
            problems.add(error.path().to_string(), error.inner().to_string());
            None
        }
    }
}

fn targets(object: &Map<String, Value>, problems: &mut Problems) -> Vec<(usize, Asked)> {
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

/// Nothing of a template language, and nothing that moves a cursor.
fn plain(text: &str) -> bool {
    !text.contains(char::is_control) && !["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// The address of a repository.
fn repository(url: &str, protocols: &BTreeSet<String>) -> Result<String, String> {
    if url.len() > GIT_URL_BYTES_MAX {
        return Err(format!("must have at most {GIT_URL_BYTES_MAX} bytes"));
    }
    if !plain(url) || url.contains(char::is_whitespace) || url.starts_with('-') {
        return Err("must be a URL for SSH or HTTPS".into());
    }
    let allowed = |scheme: &str| protocols.contains(scheme);
    let Some((scheme, rest)) = url.split_once("://") else {
        // git@host:path
        let parts = url.split_once(':').filter(|(_, path)| !path.is_empty() && !path.starts_with([':', '-']));
        let place = parts.and_then(|(place, _)| place.split_once('@'));
        let good = place.is_some_and(|(name, at)| user(name).is_ok() && host(at).is_ok()) && allowed("ssh");
        return if good { Ok(url.to_owned()) } else { Err("must be a URL for SSH or HTTPS".into()) };
    };
    if !allowed(scheme) {
        return Err(format!(
            "must be a URL for SSH or HTTPS: '{}' is not allowed here",
            scheme.escape_debug()
        ));
    }
    if scheme == "file" {
        return if rest.starts_with('/') {
            Ok(url.to_owned())
        } else {
            Err("must name an absolute path".into())
        };
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, place) = authority.rsplit_once('@').map_or((None, authority), |(u, p)| (Some(u), p));
    match userinfo {
        Some(_) if scheme != "ssh" => return Err("must not hold a credential".into()),
        Some(name) if name.contains(':') => return Err("must not hold a password".into()),
        Some(name) if user(name).is_err() => return Err("must be a URL for SSH or HTTPS".into()),
        _ => {}
    }
    let (name, port) = match place.rsplit_once(':').filter(|_| !place.ends_with(']')) {
        Some((name, port)) => (name, Some(port)),
        None => (place, None),
    };
    let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let good = host(name).is_ok() && port.is_none_or(|p| p.parse::<u16>().is_ok()) && !path.is_empty();
    if good { Ok(url.to_owned()) } else { Err("must be a URL for SSH or HTTPS".into()) }
}

/// A branch, tag or commit, by git's own rules for names (git-check-ref-format).
fn reference(text: &str) -> Result<String, String> {
    let parts = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let good = text.len() <= GIT_REF_BYTES_MAX
        && plain(text)
        && !text.starts_with('-')
        && !text.contains(|c: char| c.is_whitespace() || "~^:?*[\\".contains(c))
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && !text.ends_with('.')
        && text.split('/').all(parts);
    if good { Ok(text.to_owned()) } else { Err("must be the name of a branch or tag".into()) }
}

/// An absolute path, without what makes two names of one place.
fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("must be an absolute path".into());
    }
    if text.len() > PATH_BYTES_MAX || !plain(text) {
        return Err("must be a plain path".into());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("must not contain '..'".into());
    }
    if parts.is_empty() {
        return Err("must not be '/'".into());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// An address, or a name as DNS has it.
fn host(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<Hostname>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("must be an IP address or a DNS name".into())
    }
}

fn user(text: &str) -> Result<String, String> {
    let good = text.len() <= SSH_USER_BYTES_MAX
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@\\$".contains(&b));
    if good { Ok(text.to_owned()) } else { Err("must be the name of an account".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(body: &Value) -> Result<Checked, Vec<(String, String)>> {
        let protocols = ["https", "ssh"].map(str::to_owned).into();
        check(body, &Rules { protocols: &protocols, host_keys: HostKeyPolicy::Pin }).map_err(|e| match e {
            Error::InvalidFields(all) => all,
            Error::Invalid { field, message } => vec![(field, message)],
            other => panic!("{other}"),
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let auth = json!({ "type": "password", "password": "x" });
        let mut body = json!({ "git_repo": "git@github.com:org/repo.git", "dest_path": "/srv/app",
            "targets": [{ "host": "192.0.2.1", "username": "u", "auth": auth }] });
        body[field] = value;
        body
    }

    #[test]
    fn all_fields_are_named_at_once() {
        let body = json!({ "git_branch": 1, "dest_path": "srv", "run_mode": "x", "targets": [
            { "host": "a", "username": "u", "auth": { "type": "private_key" } },
            { "host": "b", "username": "u", "auth": { "type": "password" } },
            { "port": "22" },
            { "host": "h", "username": "u", "auth": { "type": "password", "password": "x" } },
            { "host": "H", "username": "v", "auth": { "type": "password", "password": "x" } },
        ] });
        let found: Vec<String> = checked(&body).unwrap_err().into_iter().map(|(field, _)| field).collect();
        let wanted = [
            "git_repo",
            "git_branch",
            "dest_path",
            "run_mode",
            "targets[0].auth.private_key",
            "targets[1].auth.password",
            "targets[2].host",
            "targets[2].port",
            "targets[2].username",
            "targets[2].auth",
            "targets[4].host",
        ];
        assert_eq!(found, wanted);
        assert_eq!(checked(&json!({})).unwrap_err().len(), 3);
        assert_eq!(checked(&with("targets", json!([]))).unwrap_err()[0].0, "targets");
        assert_eq!(checked(&json!([])).unwrap_err()[0].0, "body");
    }

    #[test]
    fn addresses_of_repositories() {
        let good = [
            "git@github.com:org/repo.git",
            "https://github.com/org/repo.git",
            "ssh://git@h:2222/org/repo",
            "ssh://[::1]:22/x",
            "https://h:8443/x",
        ];
        for url in good {
            assert!(checked(&with("git_repo", url.into())).is_ok(), "{url}");
        }
        let bad = [
            "ext::sh -c id",
            "ext::sh",
            "-oProxyCommand=id",
            "--upload-pack=id",
            "/srv/repo",
            "file:///srv/repo",
            "http://h/x",
            "git://h/x",
            "https://",
            "https://h",
            "https:///x",
            "https://user:pw@h/x",
            "https://token@h/x",
            "ssh://u:pw@h/x",
            "ssh://-oProxyCommand=id/x",
            "git@-oProxyCommand=id:x",
            "git@h:-x",
            "git@h",
            "https://h/{{ x }}",
            "https://h/{% x %}",
            "https://h/a b",
            "https://h/a\nb",
            "https://h/\u{1b}[31m",
        ];
        for url in bad {
            assert_eq!(checked(&with("git_repo", url.into())).unwrap_err()[0].0, "git_repo", "{url}");
        }
    }

    #[test]
    fn references_and_paths() {
        for name in ["main", "v1.2", "feature/x-y", "release@2", "1481d4b8ad5ce0ff"] {
            assert!(checked(&with("git_branch", name.into())).is_ok(), "{name}");
        }
        for name in [
            "-x", "a..b", "a b", "a~1", "a^", "a:b", "x.lock", "/a", "a/", "a//b", "@{u}", "@", "{{x}}",
            "a\u{7}",
        ] {
            assert_eq!(checked(&with("git_branch", name.into())).unwrap_err()[0].0, "git_branch", "{name}");
        }
        for (given, kept) in [("/srv/app", "/srv/app"), ("//srv/./app//", "/srv/app"), ("/a b", "/a b")] {
            assert_eq!(checked(&with("dest_path", given.into())).unwrap().plan.dest_path, kept);
        }
        for path in ["app", "/", "//", "/srv/../etc", "/srv/{{ x }}", "/srv/a\nb", "~/app"] {
            assert_eq!(checked(&with("dest_path", path.into())).unwrap_err()[0].0, "dest_path", "{path}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let body = with("git_branch", Value::Null);
        let mut body = body;
        body["targets"][0]["auth"]["password"] = "s3cret-pw".into();
        assert!(!format!("{:?}", checked(&body).unwrap()).contains("s3cret-pw"));
    }
}
