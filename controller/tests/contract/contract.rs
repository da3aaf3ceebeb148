//! A document held against a running controller: what was visited, and what was found wrong.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compare::{Extras, differences, has_type};
use crate::document::Document;
use crate::support::Answer;

/// Collects everything that is wrong, so that one run names all of it.
pub(crate) struct Contract {
    document: Document,
    visited: BTreeSet<String>,
    problems: Vec<String>,
}

impl Contract {
    pub(crate) fn new(text: &str) -> Self {
        Self::of(Document::parse(text).unwrap_or_else(|why| panic!("the document: {why}")))
    }

    pub(crate) fn of(document: Document) -> Self {
        Self { document, visited: BTreeSet::new(), problems: Vec::new() }
    }

    fn visit(&mut self, item: String) {
        self.visited.insert(item);
    }

    fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// The request that the document shows, to be sent.
    pub(crate) fn request(&mut self, endpoint: &str) -> Value {
        self.visit(format!("{endpoint} 请求体"));
        let found = self.document.endpoints.get(endpoint).and_then(|e| e.request.clone());
        let request = found.unwrap_or_else(|| panic!("the document shows no request of {endpoint}"));
        let parameters = &self.document.endpoints[endpoint].parameters;
        let names: Vec<&String> = request.as_object().into_iter().flat_map(|o| o.keys()).collect();
        if !parameters.is_empty() && !endpoint.contains('{') && parameters.iter().ne(names) {
            self.problem(format!("{endpoint}: the parameters described are not those of the example"));
        }
        request
    }

    /// The answer that the document shows.
    pub(crate) fn response(&self, endpoint: &str) -> &Value {
        let found = self.document.endpoints.get(endpoint).and_then(|e| e.response.as_ref());
        found.unwrap_or_else(|| panic!("the document shows no answer of {endpoint}"))
    }

    /// An endpoint was used whose answer the document does not show.
    pub(crate) fn seen(&mut self, endpoint: &str) {
        self.visit(endpoint.to_owned());
    }

    /// A parameter was used as the document describes it.
    pub(crate) fn parameter(&mut self, endpoint: &str, name: &str) {
        self.visit(format!("{endpoint} {name}"));
    }

    /// Compares a good answer with the document's.
    pub(crate) fn answered(&mut self, endpoint: &str, status: u16, answer: &Answer, extras: Extras) -> Value {
        self.visit(endpoint.to_owned());
        self.visit(format!("{endpoint} 响应"));
        let live = self.read(endpoint, status, answer);
        let mut example = self.response(endpoint).clone();
        // Fields that are null in one moment of the example's life are shown by another endpoint's example.
        if let (Value::Array(wanted), Value::Array(found)) = (&mut example, &live)
            && let Some(one) = wanted.first().cloned()
        {
            wanted.resize(found.len(), one);
        }
        self.problems.extend(differences(endpoint, &example, &live, extras));
        live
    }

    fn read(&mut self, endpoint: &str, status: u16, answer: &Answer) -> Value {
        if answer.status.as_u16() != status {
            self.problem(format!(
                "{endpoint}: status {} instead of {status}: {}",
                answer.status, answer.text
            ));
        }
        if answer.headers.get("content-type").is_none_or(|kind| kind != "application/json") {
            self.problem(format!("{endpoint}: the content type is not application/json"));
        }
        if answer.text.contains("\\u") || answer.text.contains("\": ") || answer.text.contains('\n') {
            self.problem(format!("{endpoint}: the JSON is escaped or not compact: {}", answer.text));
        }
        answer.json()
    }

    /// Compares an error with the document's shape, and its text with the document's list.
    pub(crate) fn refused(&mut self, endpoint: &str, status: u16, text: &str, answer: &Answer) {
        self.visit("错误响应格式".to_owned());
        self.visit(format!("{endpoint} {status}"));
        self.visit(format!("{status} {text}"));
        let live = self.read(endpoint, status, answer);
        let Some(mut shape) = self.document.error.clone() else {
            return self.problem("the document shows no error".into());
        };
        shape["detail"] = text.into();
        self.problems.extend(differences(endpoint, &shape, &live, Extras::None));
    }

    /// An error's code was answered as the document lists it.
    pub(crate) fn code(&mut self, status: u16, code: &str) {
        self.visit(format!("{status} {code}"));
    }

    /// Compares an error with the shape that the document shows; `shape` puts this case's values into it.
    pub(crate) fn failed(&mut self, status: u16, answer: &Answer, shape: impl FnOnce(&mut Value)) {
        self.visit("错误响应格式".to_owned());
        let live = self.read("错误响应格式", status, answer);
        let Some(mut wanted) = self.document.error.clone() else {
            return self.problem("the document shows no error".into());
        };
        shape(&mut wanted);
        self.problems.extend(differences("错误响应格式", &wanted, &live, Extras::None));
    }

    /// Compares an object with a model's table: the same fields in the same order, each of its type.
    pub(crate) fn model(&mut self, name: &str, live: &Value) {
        self.visit(format!("{name} 模型"));
        let Some(fields) = self.document.models.get(name).cloned() else {
            return self.problem(format!("the document has no model {name}"));
        };
        let found = live.as_object().cloned().unwrap_or_default();
        for (at, (field, kind)) in fields.iter().enumerate() {
            let good = found.iter().nth(at).is_some_and(|(n, value)| n == field && has_type(kind, value));
            if !good {
                self.problem(format!("{name}.{field} is not a {kind} at place {at} in {live}"));
            }
        }
    }

    /// Everything that was wrong, and everything in the document that nobody looked at.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let items = self.document.items();
        let missed = items.difference(&self.visited).map(|item| format!("not visited: {item}"));
        let unknown = self.visited.difference(&items).map(|item| format!("not in the document: {item}"));
        let both: Vec<String> = missed.chain(unknown).collect();
        self.problems.extend(both);
        self.problems
    }
}
