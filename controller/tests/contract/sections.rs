//! Reads the parts of documents 001 and 003 that a test is about: endpoints, JSON blocks and parameters below certain
//! headings, and the shape of errors.

use serde_json::Value;

use crate::document::{Document, Endpoint};

/// How a document marks what it shows.
pub(crate) struct Marks {
    /// Headings whose text is read, until the next one of the same or a higher level.
    pub(crate) sections: &'static [&'static str],
    /// The heading or label before the shape of errors.
    pub(crate) error: &'static str,
}

#[derive(Default)]
struct Reader {
    document: Document,
    current: Option<String>,
    label: String,
    /// The level of the section that is read.
    inside: Option<usize>,
    error_next: bool,
}

/// Reads what the marks name.
pub(crate) fn read(text: &str, marks: &Marks) -> Document {
    let mut reader = Reader::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            reader.block(language, &block.join("\n"));
        } else {
            reader.line(line, marks);
        }
    }
    reader.document
}

impl Reader {
    fn line(&mut self, line: &str, marks: &Marks) {
        let level = line.bytes().take_while(|b| *b == b'#').count();
        if level > 0 {
            let heading = line[level..].trim();
            if marks.sections.contains(&heading) {
                self.inside = Some(level);
            } else if self.inside.is_some_and(|of| level <= of) {
                self.inside = None;
            }
            self.current = None;
        }
        self.error_next |= line.contains(marks.error);
        if self.inside.is_none() {
            return;
        }
        if let Some(endpoint) = line.strip_prefix("**接口地址**: ") {
            self.open(endpoint.trim_matches('`'));
        } else if let Some(name) = line.strip_prefix("- `").and_then(|rest| rest.split('`').next()) {
            let described = self.label.contains("参数");
            if let Some(endpoint) = self.endpoint().filter(|_| described) {
                endpoint.parameters.push(name.to_owned());
            }
        } else if !line.trim().is_empty() {
            self.label = line.to_owned();
        }
    }

    fn open(&mut self, endpoint: &str) {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        assert!(!self.document.endpoints.contains_key(&endpoint), "{endpoint} for the second time");
        self.document.endpoints.insert(endpoint.clone(), Endpoint::default());
        self.current = Some(endpoint);
        self.label.clear();
    }

    fn endpoint(&mut self) -> Option<&mut Endpoint> {
        self.document.endpoints.get_mut(self.current.as_ref()?)
    }

    fn block(&mut self, language: &str, text: &str) {
        if self.error_next && language == "json" {
            self.error_next = false;
            self.document.error.get_or_insert(serde_json::from_str(text).expect("an error's JSON"));
        }
        if self.inside.is_none() {
            return;
        }
        match language {
            "http" if !text.starts_with("Authorization") => {
                self.open(text.lines().next().expect("a request"))
            }
            "bash" if text.contains("curl -X ") => self.curl(text),
            "json" => {
                let value: Value = serde_json::from_str(text).expect("a block of JSON");
                let request = self.label.contains("请求体");
                let endpoint = self.endpoint().expect("a block that belongs to no endpoint");
                let place = if request { &mut endpoint.request } else { &mut endpoint.response };
                assert!(place.replace(value).is_none(), "a second block under one label");
            }
            _ => {}
        }
    }

    /// `curl -X POST http://host/path … -d '{…}'`
    fn curl(&mut self, text: &str) {
        let mut words = text.split_whitespace().skip_while(|word| *word != "-X").skip(1);
        let (method, url) = (words.next().expect("a method"), words.next().expect("an address"));
        let path = &url[url.find("/api").expect("a path")..];
        self.open(&format!("{method} {path}"));
        if let Some((_, body)) = text.split_once("-d '") {
            let body = body.rsplit_once('\'').expect("an end").0;
            let request = serde_json::from_str(body).expect("a body of JSON");
            if let Some(endpoint) = self.endpoint() {
                endpoint.request = Some(request);
            }
        }
    }
}
