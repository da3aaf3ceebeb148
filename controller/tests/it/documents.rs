//! What the documents list is what there is: settings, metrics, links, and both languages of the README.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use signet_agent::config::CommandLine;
use signet_controller::settings::sources::VARIABLES;

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A chapter, without its heading.
fn chapter(heading: &str) -> &'static str {
    let (_, rest) =
        OPERATIONS.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    rest.split("\n## ").next().unwrap()
}

/// The variables in the first column of a chapter's table.
fn listed(chapter: &'static str) -> BTreeSet<&'static str> {
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    let first = rows.filter_map(|row| row.split('|').nth(1));
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_setting_is_listed_and_nothing_else() {
    let controller: BTreeSet<&str> = VARIABLES.iter().copied().collect();
    assert_eq!(listed(chapter("Settings of the controller")), controller);
    let command = CommandLine::command();
    let agent: BTreeSet<&str> = command.get_arguments().filter_map(|a| a.get_env()?.to_str()).collect();
    assert_eq!(listed(chapter("Settings of the agent")), agent);
}

#[test]
fn every_metric_is_listed_and_nothing_else() {
    let source = include_str!("../../src/http/metrics.rs");
    let described = source.split("describe_").skip(1).filter_map(|call| call.split('"').nth(1));
    let described: BTreeSet<&str> = described.filter(|name| name.starts_with("signet_")).collect();
    let listed = listed(chapter("Metrics")).into_iter().map(|name| name.split('{').next().unwrap());
    assert_eq!(listed.collect::<BTreeSet<_>>(), described);
}

/// A page's headings as they stand in links.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    titles.map(|title| title.to_lowercase().replace(' ', "-"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut files = vec!["README.md", "README.zh-CN.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    files.extend([
        "docs/architecture.md",
        "docs/benchmarks.md",
        "docs/wire-format.md",
        "docs/security.md",
        "docs/operations.md",
    ]);
    for file in files {
        let path = root().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let there = match target.strip_prefix('#') {
                Some(heading) => headings(&text).any(|h| h == heading),
                None => target.contains("://") || path.parent().unwrap().join(target).exists(),
            };
            assert!(there, "{file} leads to {target}");
        }
    }
}

#[test]
fn both_readmes_say_the_same() {
    let [english, chinese] =
        ["README.md", "README.zh-CN.md"].map(|f| std::fs::read_to_string(root().join(f)).unwrap());
    let blocks = |text: &str| text.split("```").skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(blocks(&english), blocks(&chinese));
    let headings = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
    assert_eq!(headings(&english), headings(&chinese));
    let links = |text: &str| {
        let all = text.split("](").skip(1).filter_map(|rest| Some(rest.split(')').next()?.to_owned()));
        all.filter(|link| !link.starts_with("README")).collect::<Vec<_>>()
    };
    assert_eq!(links(&english), links(&chinese));
    // What the README shows first is what continuous integration runs.
    assert!(english.contains("scripts/test") && english.contains("cargo run --release -- up"));
}
