//! `docs/permissions.md` against the running controller: a real request for every cell.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use signet_controller::http::permissions::ROUTES;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::visitor::Visitor;

on_both_pairs!(every_cell_is_true);

const TABLE: &str = include_str!("../../../docs/permissions.md");
const COLUMNS: [&str; 5] = ["nobody", "user", "viewer", "operator", "admin"];

/// Cells by method and path, in the order of [`COLUMNS`].
fn cells() -> BTreeMap<(String, String), Vec<String>> {
    let mut all = BTreeMap::new();
    for line in TABLE.lines().filter(|line| line.starts_with("| `")) {
        let row: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (method, path) = row[0].trim_matches('`').split_once(' ').expect("a method and a path");
        let cells: Vec<String> = row[1..].iter().map(|cell| (*cell).to_owned()).collect();
        assert_eq!(cells.len(), COLUMNS.len(), "{line}");
        assert!(all.insert((method.to_owned(), path.to_owned()), cells).is_none(), "twice: {line}");
    }
    all
}

#[test]
fn the_table_names_every_route_and_no_other() {
    let named: BTreeSet<(String, String)> = cells().into_keys().collect();
    let served: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned())).collect();
    let missing: Vec<_> = served.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&served).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not in the file: {missing:?}; not served: {unknown:?}"
    );
}

/// Whether a status says that the credential or its right is missing.
fn told(status: u16) -> &'static str {
    match status {
        401 => "401",
        403 => "403",
        _ => "yes",
    }
}

async fn every_cell_is_true(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut wrong = Vec::new();
    for (column, role) in COLUMNS.iter().enumerate() {
        let mut who = match *role {
            "nobody" => None,
            role => Some(Visitor::new(&app, &format!("the-{role}"), role).await),
        };
        for ((method, path), row) in cells() {
            let cell = row[column].as_str();
            let own = who.as_ref().map_or("0", |who| who.id.as_str());
            // For `own`, once as oneself and once as a stranger.
            for (id, expected) in match cell {
                "own" => vec![(own, "yes"), ("550e8400-e29b-41d4-a716-446655440000", "403")],
                "yes" | "401" | "403" | "loopback" => {
                    vec![(
                        "550e8400-e29b-41d4-a716-446655440000",
                        if cell == "loopback" { "yes" } else { cell },
                    )]
                }
                other => panic!("a cell says {other}"),
            } {
                let filled = fill(&path, id);
                let found = ask(&app, who.as_ref(), &method, &filled, false).await;
                if told(found) != expected {
                    wrong.push(format!("{method} {filled} as {role}: {found} instead of {expected}"));
                }
            }
            let refused = if who.is_some() { "403" } else { "401" };
            if cell == "loopback" && told(ask(&app, who.as_ref(), &method, &path, true).await) != refused {
                wrong.push(format!("{method} {path} as {role} from afar"));
            }
            // A log-out works.
            if path.ends_with("/logout") || (method == "DELETE" && path == "/api/session") {
                who = match who {
                    Some(who) => Some(who.again(&app).await),
                    None => None,
                };
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Puts something well-formed that is not there into each variable part.
fn fill(path: &str, id: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{id}" if path.starts_with("/api/join-tokens") => "no-such-token",
        "{id}" => id,
        "{hostname}" | "{host}" => "no-such-host",
        "{agent_id}" => "0000000000000000000000000000000000000000",
        "{task_id}" => "00000000-0000-7000-8000-000000000000",
        "{stream}" => "stdout",
        "{job_id}" => "job_1",
        "{*file}" => "index.css",
        part => {
            assert!(!part.starts_with('{'), "{path}: what stands for {part}?");
            part
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The status of a request that carries nothing but its credential.
async fn ask(app: &TestApp, who: Option<&Visitor>, method: &str, path: &str, from_afar: bool) -> u16 {
    let method: Method = method.parse().unwrap();
    let mut request = match who {
        Some(who) => who.request(app, method, path),
        None => app.anonymous(method, path),
    };
    if from_afar {
        request = request.header("x-forwarded-for", "192.0.2.1");
    }
    TestApp::send(request).await.status.as_u16()
}
