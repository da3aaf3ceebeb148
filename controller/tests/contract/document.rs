//! Reads a document: its endpoints, JSON blocks, error codes, parameters and models.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Everything in a document that a test has to visit.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// By `METHOD path`.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    /// The shape of every error.
    pub(crate) error: Option<Value>,
    /// The texts that errors carry, by status.
    pub(crate) error_texts: BTreeMap<u16, Vec<String>>,
    /// The tables of fields: name and type, in order.
    pub(crate) models: BTreeMap<String, Vec<(String, String)>>,
}

/// What stands below one `接口路径`.
#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    pub(crate) request: Option<Value>,
    pub(crate) response: Option<Value>,
    /// Statuses under `错误码`.
    pub(crate) errors: Vec<u16>,
    /// Names under `参数说明`.
    pub(crate) parameters: Vec<String>,
}

/// What the lines that follow are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Request,
    Response,
    Errors,
    Parameters,
    ErrorShape,
}

const LABELS: [(&str, Part); 5] = [
    ("**请求体**：", Part::Request),
    ("**响应**：", Part::Response),
    ("**错误码**：", Part::Errors),
    ("**参数说明**：", Part::Parameters),
    ("错误响应格式：", Part::ErrorShape),
];

#[derive(Default)]
struct Reader {
    document: Document,
    endpoint: Option<String>,
    heading: String,
    json: Option<String>,
}

impl Document {
    /// Reads a document; what it does not understand is an error, so that nothing is passed over.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::default();
        let mut part = Part::None;
        for (index, line) in text.lines().enumerate() {
            reader.line(line, &mut part).map_err(|why| format!("line {}: {why}", index + 1))?;
        }
        match reader.json {
            Some(_) => Err("a JSON block has no end".into()),
            None => Ok(reader.document),
        }
    }

    /// Names of all that has to be visited.
    pub(crate) fn items(&self) -> BTreeSet<String> {
        let mut items = BTreeSet::new();
        for (name, endpoint) in &self.endpoints {
            items.insert(name.clone());
            items.extend(endpoint.request.iter().map(|_| format!("{name} 请求体")));
            items.extend(endpoint.response.iter().map(|_| format!("{name} 响应")));
            items.extend(endpoint.errors.iter().map(|status| format!("{name} {status}")));
            items.extend(endpoint.parameters.iter().map(|parameter| format!("{name} {parameter}")));
        }
        items.extend(self.error.iter().map(|_| "错误响应格式".to_owned()));
        items.extend(
            self.error_texts.iter().flat_map(|(s, texts)| texts.iter().map(move |t| format!("{s} {t}"))),
        );
        items.extend(self.models.keys().map(|name| format!("{name} 模型")));
        items
    }
}

impl Reader {
    fn line(&mut self, line: &str, part: &mut Part) -> Result<(), String> {
        if let Some(json) = &mut self.json {
            if line != "```" {
                json.push_str(line);
                return Ok(());
            }
            let text = self.json.take().unwrap_or_default();
            let value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            return self.block(*part, value);
        }
        if line == "```json" {
            self.json = Some(String::new());
        } else if line.starts_with("```") {
            return Err("a block that is not JSON".into());
        } else if let Some(heading) = line.strip_prefix('#') {
            self.heading = heading.trim_start_matches('#').trim().to_owned();
            (self.endpoint, *part) = (None, Part::None);
        } else if let Some(path) = line.strip_prefix("**接口路径**：") {
            let name = path.trim().trim_matches('`').to_owned();
            if self.document.endpoints.insert(name.clone(), Endpoint::default()).is_some() {
                return Err(format!("{name} for the second time"));
            }
            self.endpoint = Some(name);
        } else if let Some((_, found)) = LABELS.iter().find(|(label, _)| line.trim() == *label) {
            *part = *found;
        } else if let Some(item) = line.strip_prefix("- ") {
            self.item(*part, item)?;
        } else if line.starts_with('|') {
            self.row(line)?;
        }
        Ok(())
    }

    fn current(&mut self) -> Result<&mut Endpoint, String> {
        let name = self.endpoint.as_ref().ok_or("it belongs to no endpoint")?;
        self.document.endpoints.get_mut(name).ok_or_else(|| "it belongs to no endpoint".into())
    }

    fn block(&mut self, part: Part, value: Value) -> Result<(), String> {
        let place = match part {
            Part::Request => &mut self.current()?.request,
            Part::Response => &mut self.current()?.response,
            Part::ErrorShape => &mut self.document.error,
            Part::None | Part::Errors | Part::Parameters => return Err("a JSON block without a label".into()),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err("a second JSON block under one label".into()),
        }
    }

    fn item(&mut self, part: Part, item: &str) -> Result<(), String> {
        match part {
            Part::Errors => {
                let status = item.split(' ').next().and_then(|s| s.parse().ok()).ok_or("no status")?;
                self.current()?.errors.push(status);
            }
            Part::Parameters => {
                let name = item.split('`').nth(1).ok_or("no parameter's name")?.to_owned();
                self.current()?.parameters.push(name);
            }
            Part::None | Part::Request | Part::Response | Part::ErrorShape => {}
        }
        Ok(())
    }

    /// A table's row: a field of a model, or a status with the texts of its errors.
    fn row(&mut self, line: &str) -> Result<(), String> {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [first, second, third] = cells[..] else {
            return Err("a table of other than three columns".into());
        };
        let is_head = first.starts_with('-') || ["字段名", "状态码"].contains(&first);
        if is_head {
            return Ok(());
        }
        if let Some(model) = self.heading.strip_suffix(" 模型") {
            let name = model.split(' ').next_back().unwrap_or(model).to_owned();
            self.document.models.entry(name).or_default().push((first.into(), second.into()));
            return Ok(());
        }
        let status = first.parse().map_err(|_| "a table that is neither a model nor the errors")?;
        let texts = third.split('、').map(str::to_owned).collect();
        self.document.error_texts.insert(status, texts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_document_is_read_whole() {
        let text = crate::fleet::DOCUMENT;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.endpoints.len(), text.matches("**接口路径**").count());
        assert_eq!(document.endpoints.len(), 9);
        let blocks = document
            .endpoints
            .values()
            .map(|e| usize::from(e.request.is_some()) + usize::from(e.response.is_some()));
        assert_eq!(blocks.sum::<usize>() + 1, text.matches("```json").count());
        assert_eq!(document.endpoints["POST /api/commands"].parameters.len(), 5);
        assert_eq!(document.endpoints["POST /api/commands"].errors, [400]);
        assert_eq!(document.error_texts[&400], ["无效的目标类型", "目标值缺失", "无效的公钥格式"]);
        let models: Vec<&String> = document.models.keys().collect();
        assert_eq!(models, ["ClientPublicKey", "Server", "Task", "TaskResult"]);
        assert_eq!(document.models["Server"][5], ("cpu_usage".into(), "float".into()));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let endpoint = "**接口路径**：`GET /x`\n";
        for (text, why) in [
            (format!("{endpoint}```json\n{{}}\n```\n"), "without a label"),
            (format!("{endpoint}**响应**：\n```json\n{{\n```\n"), "EOF"),
            (format!("{endpoint}**响应**：\n```json\n{{}}\n"), "no end"),
            (format!("{endpoint}{endpoint}"), "second time"),
            ("**响应**：\n```json\n{}\n```\n".into(), "no endpoint"),
            (format!("{endpoint}```yaml\n"), "not JSON"),
        ] {
            let error = Document::parse(&text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
