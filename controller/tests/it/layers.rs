//! `docs/architecture.md` against the source: what each folder may import, and that every file it names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCUMENT: &str = include_str!("../../../docs/architecture.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands in backticks.
fn names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table that begins with this line, by the name in the first column.
fn table(head: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let (_, rest) = DOCUMENT.split_once(&format!("\n{head}\n")).unwrap_or_else(|| panic!("no table {head}"));
    let rows = rest.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let all = names(row);
        (*all.first().unwrap_or_else(|| panic!("{row}")), all[1..].to_vec())
    })
    .collect()
}

/// Every Rust file below a folder or beside it under its name, or the file itself, with its code: no comments.
fn sources(path: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(path), root().join(format!("{path}.rs"))];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") && path.exists() {
            let text = std::fs::read_to_string(&path).unwrap();
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push((name, code.join("\n")));
        }
    }
    found
}

/// The modules of its own crate that some code names.
fn imports(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let joined =
            code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
        let name = word(&code[at + "crate::".len()..]);
        assert!(joined || !name.is_empty(), "import one module per line: {}", &code[at..at + 20]);
        // `crate::Name` is the crate's own root, and a macro's `$crate` is another crate.
        if !joined && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.insert(name);
        }
    }
    found
}

/// Whether code names a library: `sqlx::` or `use sqlx`, but not `my_sqlx::`.
fn uses(code: &str, library: &str) -> bool {
    code.match_indices(&format!("{library}::")).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn folders_import_what_their_row_allows() {
    let allowed = table("| folder | may import |\n| --- | --- |");
    for krate in ["controller/src", "agent/src"] {
        for entry in std::fs::read_dir(root().join(krate)).unwrap() {
            let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
            let folder = format!("{krate}/{name}");
            let listed = allowed.contains_key(folder.as_str());
            assert!(listed || !entry.unwrap().path().is_dir(), "{folder} has no row in docs/architecture.md");
        }
    }
    for (folder, modules) in &allowed {
        let own = folder.rsplit('/').next().unwrap();
        let files = sources(folder);
        assert!(!files.is_empty(), "{folder} is in docs/architecture.md, but not there");
        for (file, code) in files {
            for module in imports(&code) {
                let good = module == own || modules.contains(&module.as_str());
                assert!(good, "{file} imports {module}, which {folder} may not");
            }
        }
    }
}

#[test]
fn libraries_are_used_where_their_row_says() {
    let allowed = table("| library | only in |\n| --- | --- |");
    let mut seen = BTreeSet::new();
    for krate in ["agent/src", "cli/src", "common/src", "controller/src", "testkit/src"] {
        for (file, code) in sources(krate) {
            for (library, places) in allowed.iter().filter(|(library, _)| uses(&code, library)) {
                let good = places.iter().any(|p| file == *p || file.starts_with(&format!("{p}/")));
                assert!(good, "{file} uses {library}, which docs/architecture.md does not allow");
                seen.insert(*library);
            }
        }
    }
    assert_eq!(seen.len(), allowed.len(), "a library in docs/architecture.md is used nowhere");
}

/// What a pure file names nothing of.
const IMPURE: [&str; 8] =
    ["tokio", "axum", "sqlx", "lapin", "signet_common::bus", "std::fs", "std::net", "std::process"];

#[test]
fn pure_files_are_pure() {
    let pure = table("| pure |\n| --- |");
    assert!(pure.len() > 8);
    for file in pure.keys() {
        let files = sources(file.trim_end_matches(".rs"));
        assert!(!files.is_empty(), "{file}");
        for (name, text) in files {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for impure in IMPURE {
                assert!(!uses(code, impure), "{name} uses {impure}");
            }
            for clock in ["Micros::now", "SystemTime::now", "Instant::now"] {
                assert!(!code.contains(clock), "{name} looks at the clock");
            }
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let paths =
        names(DOCUMENT).into_iter().filter(|name| name.contains('/') && !name.contains([' ', '{', '\n']));
    let mut count = 0;
    for path in paths {
        assert!(root().join(path).exists(), "docs/architecture.md names {path}");
        count += 1;
    }
    assert!(count > 50, "only {count} paths were found");
}

#[test]
fn the_agent_stays_small() {
    let arguments = [
        "tree",
        "--package",
        "signet-agent",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--offline",
        "--locked",
    ];
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains("signet-common"), "{tree}");
    let (_, none) = DOCUMENT.split_once("in no agent at all").unwrap();
    for library in names(none.split_once('\n').unwrap().0) {
        assert!(!packages.contains(library), "the agent depends on {library}");
    }
}

#[test]
fn imports_are_found_in_code() {
    let code =
        "use crate::store::Tx;\nlet x = crate::hosts::f(); $crate::limits::A; use crate::App; mycrate::b";
    assert_eq!(imports(code), ["hosts", "store"].map(str::to_owned).into());
    assert!(uses("use sqlx::Row;", "sqlx") && uses("x(sqlx::query())", "sqlx"));
    assert!(!uses("my_sqlx::a; a::sqlx::b", "sqlx"));
}
