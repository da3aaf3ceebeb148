//! The rules, as a table.

use super::*;
use serde_json::json;

fn command(change: serde_json::Value) -> Command {
    let mut base = json!({
        "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": 2, "timeout": 30, "task_id": "t",
        "jti": signet_common::Jti::generate(),
    });
    base.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    serde_json::from_value(base).unwrap()
}

fn me() -> AgentId {
    "a".repeat(40).parse().unwrap()
}

fn here(me: &AgentId, now: i64) -> Here<'_> {
    Here { me, user: "me", now, log_began: 0 }
}

fn policy(text: &str) -> Policy {
    Policy::default().narrowed_by_text(text).unwrap()
}

#[test]
fn the_table() {
    let shell = |text: &str| json!({ "command": text });
    let argv = |args: &[&str]| json!({ "argv": args });
    let with = |mut base: serde_json::Value, key: &str, value: serde_json::Value| {
        base[key] = value;
        base
    };
    let list = r#"shell = ["uptime", "df -h"]"#;
    let units = r#"shell = "off"
        argv = [["systemctl", "restart", "app-*"], ["journalctl", "**"]]"#;
    let cases = [
        ("", shell("rm -rf /"), true),
        ("", argv(&["rm"]), true),
        ("", with(shell("x"), "user", json!("anyone")), true),
        (r#"users = ["deploy"]"#, with(shell("x"), "user", json!("deploy")), true),
        (r#"users = ["deploy"]"#, with(shell("x"), "user", json!("root")), false),
        (r#"users = ["deploy"]"#, shell("x"), false),
        (r#"users = ["me"]"#, shell("x"), true),
        (r#"users = []"#, shell("x"), false),
        (r#"shell = "off""#, shell("x"), false),
        (r#"shell = "off""#, argv(&["sh", "-c", "x"]), false),
        (r#"shell = "any""#, argv(&["sh", "-c", "x"]), true),
        (list, shell("uptime"), true),
        (list, shell("uptime "), false),
        (list, argv(&["uptime"]), false),
        (list, with(shell("uptime"), "env", json!({"PATH": "/tmp"})), false),
        (list, with(shell("uptime"), "cwd", json!("/tmp")), false),
        (list, with(shell("uptime"), "stdin", json!("x")), false),
        (units, argv(&["systemctl", "restart", "app-1"]), true),
        (units, argv(&["systemctl", "restart", "sshd"]), false),
        (units, argv(&["systemctl", "restart"]), false),
        (units, argv(&["systemctl", "restart", "app-1", "sshd"]), false),
        (units, argv(&["journalctl"]), true),
        (units, argv(&["journalctl", "-u", "x"]), true),
        (units, with(argv(&["journalctl"]), "env", json!({"A": "b"})), false),
        (r#"argv = [["ls"]]"#, argv(&["rm"]), false),
        (r#"argv = [["ls"]]"#, shell("rm"), true),
    ];
    for (text, change, expected) in cases {
        let allowed = policy(text).allows(&command(change.clone()), &here(&me(), 1));
        assert_eq!(allowed.is_ok(), expected, "{text:?} {change} {allowed:?}");
    }
}

#[test]
fn bad_files_are_refused() {
    for bad in [
        "user = []",
        r#"shell = "on""#,
        "shell = 1",
        "argv = [[]]",
        r#"deploy_roots = ["/"]"#,
        r#"deploy_roots = ["/etc"]"#,
        r#"deploy_roots = ["/etc/"]"#,
        r#"deploy_roots = ["/usr/local/app"]"#,
        r#"deploy_roots = ["/srv", "/proc/1/cwd"]"#,
        r#"deploy_roots = ["/home/me/.ssh/keys"]"#,
        r#"deploy_roots = ["/srv/../etc"]"#,
        r#"deploy_roots = ["srv"]"#,
        r#"deploy_roots = ["/home/me/.ssh"]"#,
        "[approvers]\ncount = 0\nallowed_signers = \"x\"",
        "[approvers]\ncount = 1",
        "[approvers]\ncount = 1\nallowed_signers = \"\"",
        "[approvers]\ncount = 1\nallowed_signers = \"a ssh-ed25519 A\"",
        "=",
    ] {
        assert!(Policy::default().narrowed_by_text(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_file_narrows_and_absent_keys_stay() {
    assert!(!Policy::default().is_narrowed());
    let narrowed = Policy::for_user("me").narrowed_by_text(r#"shell = "off""#).unwrap();
    assert!(narrowed.is_narrowed());
    assert_eq!(narrowed.deploy_roots(), &DeployRoots::Own);
    assert!(narrowed.allows(&command(json!({"argv": ["x"], "user": "you"})), &here(&me(), 1)).is_err());
}

#[test]
fn an_explicit_file_must_exist_and_the_data_directory_is_searched() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Policy::default().find(Some(&dir.path().join("none")), dir.path()).is_err());
    assert_eq!(Policy::default().find(None, dir.path()).unwrap(), Policy::default());
    fs::write(dir.path().join("policy.toml"), r#"shell = "off""#).unwrap();
    assert!(Policy::default().find(None, dir.path()).unwrap().is_narrowed());
    fs::write(dir.path().join("policy.toml"), "nonsense").unwrap();
    assert!(Policy::default().find(None, dir.path()).is_err());
}

#[test]
fn a_question_is_answered_by_the_rules_of_a_real_command() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    fs::write(&file, r#"shell = ["uptime"]"#).unwrap();
    let policy = Policy::default().find(None, dir.path()).unwrap();
    let shell = |text: &str| Question { command: Some(text.into()), ..Question::default() };
    let answer = policy.check(shell("uptime"), "me");
    assert_eq!((answer.allowed, answer.user.as_str(), answer.file.as_ref()), (true, "me", Some(&file)));
    assert_eq!(answer.to_string(), format!("allowed as me\npolicy: {}", file.display()));
    let refused = policy.check(Question { user: Some("you".into()), ..shell("reboot") }, "me");
    assert_eq!(
        serde_json::to_value(&refused).unwrap(),
        json!({
            "allowed": false, "reason": "this shell command is not on this host's list", "user": "you",
            "file": file, "approvals": 0
        })
    );
    let free =
        Policy::default().check(Question { argv: Some(vec!["ls".into()]), ..Question::default() }, "me");
    assert!(free.allowed && free.to_string().contains("any command may run"));
}

#[test]
fn a_deployment_is_asked_about_as_a_command_is() {
    let dir = tempfile::tempdir().unwrap();
    let (root, file) = (dir.path().canonicalize().unwrap(), dir.path().join("policy.toml"));
    fs::write(&file, format!("deploy_roots = [{root:?}]")).unwrap();
    let policy = Policy::default().find(None, dir.path()).unwrap();
    let question = |path: &str| DeployQuestion {
        repository: "git@git.example.com:app".parse().unwrap(),
        path: root.join(path).to_str().unwrap().parse().unwrap(),
        releases: false,
        build: Vec::new(),
        activate: Vec::new(),
        health_command: None,
        health_url: None,
        filters: false,
        user: None,
    };
    let answer = policy.check_deploy(question("app"), "me");
    assert_eq!(answer.to_string(), format!("allowed as me\npolicy: {}", file.display()));
    let outside = tempfile::tempdir().unwrap();
    let hostile = outside.path().join("\u{1b}[2J");
    fs::create_dir(&hostile).unwrap();
    std::os::unix::fs::symlink(&hostile, root.join("out")).unwrap();
    let refused = policy.check_deploy(question("out/app"), "me");
    assert!(refused.to_string().contains("which leads to /"), "{refused}");
    assert!(!refused.to_string().contains('\u{1b}'), "a terminal is not asked to do anything");
    fs::remove_dir(&hostile).unwrap();
    let refused = policy.check_deploy(question("out/app"), "me");
    assert!(refused.to_string().contains("can't be followed"), "{refused}");
}
