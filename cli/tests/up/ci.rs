//! The shell steps of `docs/ci.md`, as they stand there, with the variables that a CI sets.

use std::path::Path;
use std::process::{Command, Output};

use super::approvals::person;
use super::code;
use super::deploys::{Site, git};

const DOCUMENT: &str = include_str!("../../../docs/ci.md");

/// The blocks of the document in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    DOCUMENT.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The lines that are deeper than the one that ends so, without their indentation.
fn literal(block: &str, opening: &str) -> String {
    let mut lines = block.lines().skip_while(|line| !line.ends_with(opening));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let outer = indent(lines.next().expect("a step"));
    let step: Vec<&str> = lines.take_while(|line| line.is_empty() || indent(line) > outer).collect();
    let inner = step.iter().filter(|line| !line.is_empty()).map(|line| indent(line)).min().unwrap();
    step.iter().map(|line| line.get(inner..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Each step with the name of its CI.
fn steps() -> Vec<(&'static str, String)> {
    let mut steps = Vec::new();
    for block in blocks("yaml") {
        if block.contains("runs-on:") {
            steps.push(("github", literal(block, "run: |")));
        } else {
            steps.push(("gitlab", literal(block, "- |")));
        }
    }
    for block in blocks("groovy") {
        let text = block.split("'''").nth(1).unwrap();
        assert!(!text.contains('\\'), "Groovy would read it: {text}");
        steps.push(("jenkins", text.to_owned()));
    }
    steps
}

struct Ci {
    site: Site,
    token: String,
}

impl Ci {
    fn start() -> Self {
        let site = Site::start();
        let login = person(&site.home, &site.up, "ci");
        // The token is made as the document says, for this test's repository.
        let script = blocks("sh")[0].replace("https://git.example.com/org/app", &site.url());
        let script = script.replace("/srv/app", site.home.0.path().join("srv").to_str().unwrap());
        let made = Command::new("sh")
            .args(["-c", &script])
            .env("SIGNET_URL", &site.up.url)
            .env("LOGIN", login)
            .output()
            .unwrap();
        let (exit, made, why) = code(&made);
        assert_eq!(exit, 0, "{made}{why}");
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        Self { site, token }
    }

    /// Runs a step as its CI does, for this commit and path.
    fn run(&self, name: &str, step: &str, commit: &str, path: &Path) -> Output {
        let step = step.replace("/srv/app", path.to_str().unwrap());
        let programs = Path::new(env!("CARGO_BIN_EXE_signet")).parent().unwrap();
        let search = std::env::var("PATH").unwrap();
        let root = self.site.repo().parent().unwrap().parent().unwrap().display().to_string();
        let mut shell = match name {
            "jenkins" => Command::new("sh"),
            _ => Command::new("bash"),
        };
        let options: &[&str] = match name {
            "github" => &["--noprofile", "--norc", "-e", "-o", "pipefail", "-c"],
            "gitlab" => &["-e", "-o", "pipefail", "-c"],
            _ => &["-xe", "-c"],
        };
        shell.args(options).arg(step).env_clear();
        shell.env("PATH", format!("{}:{search}", programs.display())).env("HOME", self.site.home.0.path());
        shell.env("SIGNET_URL", &self.site.up.url).env("SIGNET_TOKEN", &self.token);
        match name {
            "github" => shell
                .env("GITHUB_SERVER_URL", format!("file://{root}"))
                .env("GITHUB_REPOSITORY", "org/app.git")
                .env("GITHUB_SHA", commit),
            "gitlab" => {
                shell.env("CI_PROJECT_URL", format!("file://{root}/org/app")).env("CI_COMMIT_SHA", commit)
            }
            _ => shell.env("GIT_URL", self.site.url()).env("GIT_COMMIT", commit),
        };
        shell.output().unwrap()
    }
}

#[test]
fn each_pipeline_deploys_its_commit_and_fails_with_the_log() {
    let ci = Ci::start();
    let commit = git(&ci.site.repo(), &["rev-parse", "HEAD"]);
    let steps = steps();
    assert_eq!(steps.len(), 6);
    for (at, (name, step)) in steps.iter().enumerate() {
        let path = ci.site.home.0.path().join(format!("srv/app{at}"));
        let (exit, log, why) = code(&ci.run(name, step, &commit, &path));
        assert_eq!(exit, 0, "{name}: {log}{why}");
        assert!(log.contains("changed: [box]") && log.contains(&commit), "{name}: {log}{why}");
        assert!(path.join("current/file").exists(), "{name}");
        assert!(format!("{log}{why}").contains("SUCCESS"), "{name}: {log}{why}");
        // A commit that the repository does not have.
        let nowhere = "0123456789abcdef0123456789abcdef01234567";
        let (exit, log, why) = code(&ci.run(name, step, nowhere, &path));
        assert_ne!(exit, 0, "{name}: {log}{why}");
        assert!(log.contains("fatal: [box]: FAILED!"), "{name}: {log}{why}");
    }
    // The token is good for nothing else.
    let signet =
        |args: &[&str]| code(&ci.site.up.signet(&ci.site.home, &[&["--token", &ci.token], args].concat()));
    let (refused, _, why) =
        signet(&["deploy", "https://git.example.com/other", "--to", "box", "--path", "/srv/x"]);
    assert!(refused == 3 && why.contains("may not deploy this repository"), "{why}");
    let url = ci.site.url();
    let (refused, _, why) = signet(&["deploy", &url, "--to", "@web", "--path", "/srv/x"]);
    assert!(refused == 3 && why.contains("may not deploy to /srv/x"), "{why}");
    let (refused, _, why) = signet(&["run", "box", "--", "true"]);
    assert!(refused == 3 && why.contains("403"), "{why}");
}
