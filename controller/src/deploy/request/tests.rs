use super::*;
use serde_json::json;

type Good = (Plan, Vec<(usize, Asked)>);

fn checked(body: &Value) -> Result<Good, Vec<(String, String)>> {
    let protocols = ["https", "ssh"].map(str::to_owned).into();
    match check(body, &Rules { protocols: &protocols, host_keys: HostKeyPolicy::Pin }) {
        Ok(Checked { plan, targets, .. }) => plan.map(|plan| (plan, targets)),
        Err(Error::Invalid { field, message }) => Err(vec![(field, message)]),
        Err(other) => panic!("{other}"),
    }
}

fn with(field: &str, value: Value) -> Value {
    let auth = json!({ "type": "password", "password": "x" });
    let mut body = json!({ "git_repo": "git@github.com:org/repo.git", "dest_path": "/srv/app",
        "targets": [{ "host": "192.0.2.1", "username": "u", "auth": auth }] });
    body[field] = value;
    body
}

#[test]
fn the_documented_body_is_good() {
    let document = include_str!("../../../../docs/operations.md");
    let jobs = document.split("\n## Jobs\n").nth(1).unwrap();
    let body = jobs.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let (_, targets) = checked(&body).unwrap();
    assert_eq!(targets.len(), 2);
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
        "-x", "a..b", "a b", "a~1", "a^", "a:b", "x.lock", "/a", "a/", "a//b", "@{u}", "@", "{{x}}", "a\u{7}",
    ] {
        assert_eq!(checked(&with("git_branch", name.into())).unwrap_err()[0].0, "git_branch", "{name}");
    }
    for (given, kept) in [("/srv/app", "/srv/app"), ("//srv/./app//", "/srv/app"), ("/a b", "/a b")] {
        assert_eq!(checked(&with("dest_path", given.into())).unwrap().0.dest_path, kept);
    }
    for path in ["app", "/", "//", "/srv/../etc", "/srv/{{ x }}", "/srv/a\nb", "~/app"] {
        assert_eq!(checked(&with("dest_path", path.into())).unwrap_err()[0].0, "dest_path", "{path}");
    }
}

#[test]
fn what_nobody_would_heed_is_refused() {
    let over_ssh = [
        ("user", json!("www-data")),
        ("keep", json!(3)),
        ("shared", json!(["a"])),
        ("build", json!(["make"])),
        ("activate", json!(["true"])),
        ("health", json!({ "probe": { "command": "true" } })),
    ];
    let by_agents = |mut body: Value| {
        body["targets"] = json!([{ "group": "web" }]);
        body
    };
    for (field, value) in &over_ssh {
        let body = with(field, value.clone());
        let wrong = checked(&body).unwrap_err();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].0 == *field && wrong[0].1.contains("over SSH"), "{wrong:?}");
        let mut mixed = body.clone();
        mixed["targets"].as_array_mut().unwrap().push(json!({ "host": "web1" }));
        assert_eq!(checked(&mixed).unwrap_err(), wrong);
        let found = checked(&by_agents(body));
        if *field == "user" {
            assert!(found.is_ok(), "{found:?}");
            continue;
        }
        let why = "is heeded only with \"strategy\": \"releases\"";
        assert_eq!(found.unwrap_err(), [((*field).to_owned(), why.to_owned())]);
        let mut in_place = by_agents(with(field, value.clone()));
        in_place["strategy"] = "in_place".into();
        assert_eq!(checked(&in_place).unwrap_err()[0].0, *field);
    }
    for (field, nothing) in
        [("build", json!([])), ("build", Value::Null), ("user", json!("")), ("filters", false.into())]
    {
        assert!(checked(&with(field, nothing.clone())).is_ok(), "{field}: {nothing} asks for nothing");
    }
}

#[test]
fn what_is_not_known_is_named() {
    let mut body = with("canry", json!(1));
    body["Strategy"] = "releases".into();
    body["targets"][0]["hostt"] = "a".into();
    body["targets"][0]["auth"]["pasword"] = "s3cret-pw".into();
    let protocols = ["ssh"].map(str::to_owned).into();
    let found = check(&body, &Rules { protocols: &protocols, host_keys: HostKeyPolicy::Pin }).unwrap();
    assert!(found.plan.is_ok());
    let names = found.unknown.shown().unwrap();
    for name in ["canry", "Strategy", "targets[0].hostt", "targets[0].auth.pasword"] {
        assert!(names.split(", ").any(|one| one == name), "{names}");
    }
    assert!(!names.contains("s3cret"));
}

#[test]
fn every_field_that_is_read_is_described() {
    let every = json!({ "git_repo": "https://h/x", "git_branch": "main", "dest_path": "/srv/app", "run_mode": "serial",
        "targets": [{ "host": "192.0.2.1", "group": null, "port": 22, "username": "u",
            "auth": { "type": "private_key", "private_key": "x", "passphrase": "x", "password": "x" } }],
        "timeout": 1, "host_key_policy": "pin", "force": true, "strategy": "releases", "keep": 1, "shared": [], "build": [],
        "activate": [], "health": { "probe": { "http": { "url": "x" } } }, "batch": "20%", "max_failures": 1,
        "canary": ["a"], "pause": 1, "order": "name", "user": "u", "submodules": true, "filters": true,
        "allowed_signers": "x", "credential": { "kind": "deploy_key", "private_key": "x", "known_hosts": "x",
            "token": "x", "username": "x" } });
    assert_eq!(Unknown::in_body::<JobRequest>(&every).shown(), None);
}

#[test]
fn nothing_secret_is_printed() {
    let body = with("git_branch", Value::Null);
    let mut body = body;
    body["targets"][0]["auth"]["password"] = "s3cret-pw".into();
    assert!(!format!("{:?}", checked(&body).unwrap()).contains("s3cret-pw"));
}
