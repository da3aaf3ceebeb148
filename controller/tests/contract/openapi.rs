//! The interface's own description.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;
use signet_controller::http::permissions::ROUTES;
use signet_testkit::{Pair, on_both_pairs};

use crate::document::Document;
use crate::support::TestApp;

on_both_pairs!(the_description_is_whole_and_holds);

/// Pages for people, and the description itself.
const PAGES: [&str; 6] =
    ["/", "/openapi.json", "/docs", "/docs/{*file}", "/api/docs", "/api/schema/swagger-ui"];

async fn the_description_is_whole_and_holds(pair: Pair) {
    let app = TestApp::start(pair).await;
    let described = TestApp::send(app.anonymous(Method::GET, "/openapi.json")).await.expect(200);
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(described["info"]["title"].is_string() && described["info"]["version"].is_string());
    let operations: BTreeSet<String> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |m| format!("{} {path}", m.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<String> = ROUTES
        .iter()
        .filter(|(_, path, _)| !PAGES.contains(path))
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(operations, served);
    let document = Document::parse(crate::fleet::DOCUMENT).unwrap();
    for endpoint in document.endpoints.keys() {
        assert!(operations.contains(endpoint), "{endpoint}");
    }
    references(&described, &described);
    for (path, item) in described["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operation_holds(path, method, operation);
        }
    }
}

/// Every reference leads somewhere.
fn references(whole: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(target)) = (name == "$ref", value.as_str()) {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(whole.pointer(pointer).is_some(), "{target}");
                }
                references(whole, value);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(whole, item)),
        _ => {}
    }
}

/// What the OpenAPI format asks of an operation, and what readers need of it.
fn operation_holds(path: &str, method: &str, operation: &Value) {
    let what = format!("{method} {path}");
    assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{what}");
    assert!(!operation["responses"].as_object().unwrap().is_empty(), "{what}");
    let wanted: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let named: BTreeSet<&str> = parameters
        .iter()
        .filter(|p| p["in"] == "path")
        .inspect(|p| assert_eq!(p["required"], true, "{what}"))
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(wanted, named, "{what}");
    for (status, response) in operation["responses"].as_object().unwrap() {
        assert!((200..600).contains(&status.parse::<u16>().unwrap()), "{what}");
        assert!(response["description"].is_string(), "{what} {status}");
        let shape = &response["content"]["application/json"]["schema"]["$ref"];
        assert!(status.as_str() < "400" || shape == "#/components/schemas/Detail", "{what} {status}");
    }
}
