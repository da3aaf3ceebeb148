use std::str::FromStr;

use super::*;
use crate::limits::DEPLOY_URL_BYTES_MAX;

fn why<T: FromStr<Err = BadDeploy>>(text: &str) -> Option<&'static str> {
    text.parse::<T>().err().map(|bad| bad.why)
}

#[test]
fn addresses_that_git_may_see() {
    let good = [
        ("https://example.com/team/app.git", Protocol::Https),
        ("https://example.com:8443/app", Protocol::Https),
        ("ssh://git@example.com:2222/team/app.git", Protocol::Ssh),
        ("ssh://example.com/~git/app", Protocol::Ssh),
        ("git@example.com:team/app.git", Protocol::Ssh),
        ("http://127.0.0.1:8080/app.git", Protocol::Http),
        ("http://[::1]:8080/app.git", Protocol::Http),
        ("git://example.com/app", Protocol::Git),
        ("file:///srv/git/app.git", Protocol::File),
    ];
    for (url, protocol) in good {
        assert_eq!(url.parse::<GitUrl>().unwrap().protocol(), protocol, "{url}");
    }
    assert_eq!("https://h:1/a".parse::<GitUrl>().unwrap().origin(), Some("https://h:1"));
    assert!("http://[::1]:8080/a".parse::<GitUrl>().unwrap().is_loopback());
    assert!(!"http://127.0.0.1.evil.example/a".parse::<GitUrl>().unwrap().is_loopback());
}

#[test]
fn addresses_that_git_must_not_see() {
    let bad = [
        "",
        "-uhttps://example.com/a",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "fd::17",
        "https::https://example.com/a",
        "a@b::c",
        "ssh://-oProxyCommand=id/a",
        "ssh://-x@host/a",
        "git@-oProxyCommand=id:a",
        "-x@host:a",
        "git@host:-a",
        "git@host:",
        "git@host:::x",
        "host:path",
        "https://user:secret@example.com/a",
        "https://token@example.com/a",
        "ssh://git:pw@example.com/a",
        "https://example.com",
        "https://example.com/",
        "https:///a",
        "https://example.com:0/a",
        "https://example.com:99999/a",
        "https://exa mple.com/a",
        "https://example.com/a\nb",
        "https://example.com/a\u{1b}[2J",
        "https://example.com/a?token=x",
        "https://example.com/a#b",
        "file://host/a",
        "file:///",
        "ftp://example.com/a",
        "/srv/git/app.git",
        "../app",
        "C:\\app",
        "https://[::1/a",
        "https://[nonsense]/a",
        "https://example.com/$(id)`id`",
        "javascript://x/y",
    ];
    for url in bad {
        assert!(url.parse::<GitUrl>().is_err(), "{url}");
    }
    assert!(("https://h/".to_owned() + &"a".repeat(DEPLOY_URL_BYTES_MAX)).parse::<GitUrl>().is_err());
    let secret = "https://user:hunter2@example.com/a".parse::<GitUrl>().unwrap_err().to_string();
    assert!(!secret.contains("hunter2"), "{secret}");
}

#[test]
fn references_by_gits_own_rules() {
    for good in ["main", "release/1.2", "v1.0.0", "refs/tags/v1", "feature-x", "@x", "ü"] {
        assert_eq!(why::<GitRef>(good), None, "{good}");
    }
    let bad = [
        "",
        "-b",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "a@{1}",
        "@",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "a\nb",
        "a\0b",
        "a\u{7f}",
    ];
    for bad in bad {
        assert!(why::<GitRef>(bad).is_some(), "{bad:?}");
    }
    for short in ["84a7128", "84A7128C", &"a".repeat(39)] {
        assert_eq!(GitRef::hint(short), "; a commit needs its whole id", "{short}");
    }
    for other in ["84a712", "84a7128x", "main", &"a".repeat(40)] {
        assert_eq!(GitRef::hint(other), "", "{other}");
    }
}

#[test]
fn paths_in_their_plain_form() {
    assert_eq!(why::<DeployPath>("/srv/app"), None);
    assert_eq!(why::<SharedPath>("var/log"), None);
    let bad = [
        "",
        "/",
        "srv",
        "/srv/",
        "/srv//app",
        "/srv/../etc",
        "/srv/./app",
        "/home/x/.ssh",
        "/srv/app/.git",
        "/srv/app/.GIT/hooks",
        "-/x",
        "/srv/a\nb",
        "/srv/\u{1b}[0m",
    ];
    for bad in bad {
        assert!(why::<DeployPath>(bad).is_some(), "{bad:?}");
    }
    for bad in ["/etc", "../x", "a/../../x", ".git/config", "a/", "~\0"] {
        assert!(why::<SharedPath>(bad).is_some(), "{bad:?}");
    }
}

#[test]
fn commits_are_whole() {
    assert_eq!(why::<CommitId>(&"a1".repeat(20)), None);
    assert_eq!(why::<CommitId>(&"a1".repeat(32)), None);
    for bad in ["", "HEAD", "abc1234", &"A1".repeat(20), &"g1".repeat(20), &format!("-{}", "a".repeat(39))] {
        assert!(why::<CommitId>(bad).is_some(), "{bad}");
    }
}

fn deploy(change: serde_json::Value) -> Result<Deploy, String> {
    let mut body = serde_json::json!({
        "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": 2, "jti": Jti::generate(), "task_id": "t",
        "phase": "deploy", "repository": "https://example.com/a", "commit": "b".repeat(40), "path": "/srv/app",
        "protocols": ["https", "ssh"], "timeout": 60,
    });
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    let deploy: Deploy = serde_json::from_value(body).map_err(|e| e.to_string())?;
    deploy.check().map_err(|e| e.to_string()).map(|()| deploy)
}

#[test]
fn a_message_is_checked_as_a_whole() {
    use serde_json::json;
    let sealed = json!({"enc": "AA==", "ct": "AA=="});
    let token = json!({"kind": "https_token", "sealed": sealed});
    let key = json!({"kind": "deploy_key", "sealed": sealed});
    let two = json!(["a".repeat(40), "b".repeat(40)]);
    let good = [
        json!({}),
        json!({"phase": "resolve", "commit": null}),
        json!({"credential": token}),
        json!({"credential": key, "repository": "git@example.com:a"}),
        json!({"strategy": {"releases": {"shared": ["log", "log2"], "health": {"probe": {"command": "true"},
               "timeout": 1, "attempts": 1}}}}),
    ];
    for good in good {
        deploy(good.clone()).unwrap_or_else(|why| panic!("{good}: {why}"));
    }
    let bad = [
        json!({"commit": null}),
        json!({"phase": "preflight", "commit": null}),
        json!({"repository": "http://example.com/a"}),
        json!({"repository": "http://example.com/a", "protocols": ["http"], "credential": token}),
        json!({"credential": key}),
        json!({"credential": token, "aud": two}),
        json!({"credential": {"kind": "https_token", "username": "a\nb", "sealed": sealed}}),
        json!({"strategy": {"releases": {"keep": 0}}}),
        json!({"strategy": {"releases": {"keep": 101}}}),
        json!({"strategy": {"releases": {"shared": ["log", "log/x"]}}}),
        json!({"strategy": {"releases": {"build": [""]}}}),
        json!({"strategy": {"releases": {"unknown": 1}}}),
        json!({"strategy": {"releases": {"health": {"probe": {"http": {"url": "file:///etc/passwd"}},
               "timeout": 1, "attempts": 1}}}}),
        json!({"unknown": 1}),
    ];
    for bad in bad {
        assert!(deploy(bad.clone()).is_err(), "{bad}");
    }
}
