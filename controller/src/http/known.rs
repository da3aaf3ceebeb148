//! Which fields a body may have, as the interface's own description of it says: what is misspelt is noticed.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::{RefOr, Schema};

use super::extract::JsonBytes;
use crate::error::Error;
use crate::limits::{UNKNOWN_FIELD_CHARS_MAX, UNKNOWN_FIELDS_MAX};

/// A JSON body of a route that is Signet's own: a field that is not known is refused, at any depth. What a document describes
/// takes [`super::extract::Json`].
#[derive(Debug, Clone, Copy)]
pub struct Exact<T>(pub T);

impl<T: DeserializeOwned + ToSchema, S: Send + Sync> FromRequest<S> for Exact<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bytes = JsonBytes::from_request(request, state).await?;
        match Unknown::in_body::<T>(&bytes.parse()?).refusal() {
            Some((field, why)) => Err(Error::invalid(field, why)),
            None => bytes.parse().map(Self),
        }
    }
}

/// Fields of a body that its description does not know.
#[derive(Debug, Default)]
pub struct Unknown {
    /// As `targets[0].hostt`: no more, and none longer, than may be shown. What they are called is their sender's choice.
    names: Vec<String>,
    /// What is known where the first of them stands.
    known: Vec<String>,
}

impl Unknown {
    /// Of a body that should be a `T`.
    #[must_use]
    pub fn in_body<T: ToSchema>(body: &Value) -> Self {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        let mut unknown = Self::default();
        unknown.look(body, &T::schema(), &parts, "");
        unknown
    }

    /// All of them in one text, if there are any; not yet printable.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        let more = self.names.len() > UNKNOWN_FIELDS_MAX;
        let names: Vec<&str> = self.names.iter().take(UNKNOWN_FIELDS_MAX).map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{}{}", names.join(", "), if more { ", …" } else { "" }))
    }

    /// The first of them, and why the body is refused for it.
    #[must_use]
    pub fn refusal(&self) -> Option<(String, String)> {
        let shown = self.shown()?;
        let (shown, known) = (shown.escape_debug(), self.known.join(", "));
        Some(("body".into(), format!("not known: {shown}; only these fields are known: {known}")))
    }

    fn look(&mut self, value: &Value, schema: &RefOr<Schema>, parts: &[Part], at: &str) {
        match value {
            Value::Object(object) => {
                let known = fields(schema, parts);
                for (name, inner) in object.iter().filter(|_| !known.is_empty()) {
                    // One more than is shown tells that there are more.
                    if self.names.len() > UNKNOWN_FIELDS_MAX {
                        return;
                    }
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    match known.iter().find(|(field, _)| *field == name) {
                        Some((_, schema)) => self.look(inner, schema, parts, &path),
                        None => self.add(&path, &known),
                    }
                }
            }
            Value::Array(all) => {
                let Some(schema) = items(schema, parts) else { return };
                for (index, inner) in all.iter().enumerate() {
                    self.look(inner, schema, parts, &format!("{at}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, path: &str, known: &[(&String, &RefOr<Schema>)]) {
        if self.names.is_empty() {
            self.known = known.iter().map(|(name, _)| (*name).clone()).collect();
        }
        let cut = path.char_indices().nth(UNKNOWN_FIELD_CHARS_MAX);
        self.names.push(cut.map_or_else(|| path.to_owned(), |(end, _)| format!("{}…", &path[..end])));
    }
}

/// A part of a description, by its name.
type Part = (String, RefOr<Schema>);

/// The description itself, where there is only its name.
fn resolved<'a>(schema: &'a RefOr<Schema>, parts: &'a [Part]) -> Option<&'a Schema> {
    match schema {
        RefOr::T(schema) => Some(schema),
        RefOr::Ref(to) => {
            let name = to.ref_location.rsplit('/').next()?;
            parts.iter().find(|(part, _)| part == name).and_then(|(_, schema)| resolved(schema, parts))
        }
    }
}

/// The fields of an object; none where it may have any.
fn fields<'a>(schema: &'a RefOr<Schema>, parts: &'a [Part]) -> Vec<(&'a String, &'a RefOr<Schema>)> {
    match resolved(schema, parts) {
        Some(Schema::Object(object)) => object.properties.iter().collect(),
        Some(Schema::OneOf(one)) => one.items.iter().flat_map(|item| fields(item, parts)).collect(),
        _ => Vec::new(),
    }
}

/// What a list is of.
fn items<'a>(schema: &'a RefOr<Schema>, parts: &'a [Part]) -> Option<&'a RefOr<Schema>> {
    match resolved(schema, parts)? {
        Schema::Array(array) => match &array.items {
            ArrayItems::RefOrSchema(schema) => Some(schema),
            ArrayItems::False => None,
        },
        Schema::OneOf(one) => one.items.iter().find_map(|item| items(item, parts)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it is only described")]
    struct Inner {
        host: Option<String>,
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it is only described")]
    struct Body {
        r#type: String,
        targets: Option<Vec<Inner>>,
        inner: Option<Inner>,
        #[schema(value_type = Option<Object>)]
        open: Option<Value>,
    }

    fn shown(body: &Value) -> Option<String> {
        Unknown::in_body::<Body>(body).shown()
    }

    #[test]
    fn what_is_not_described_is_found_at_any_depth() {
        let good = json!({ "type": "a", "targets": [{ "host": "b" }], "inner": { "host": null },
            "open": { "any": { "thing": 1 } } });
        assert_eq!(shown(&good), None);
        for other in [json!(null), json!([{ "x": 1 }]), json!({ "targets": "x", "inner": [{ "x": 1 }] })] {
            assert_eq!(shown(&other), None, "its kind is others' to refuse: {other}");
        }
        let bad =
            json!({ "Type": 1, "inner": { "hots": 1 }, "targets": [{ "host": "a" }, { "hostt": "b" }] });
        let names = shown(&bad).unwrap();
        for name in ["Type", "inner.hots", "targets[1].hostt"] {
            assert!(names.split(", ").any(|one| one == name), "{names}");
        }
        let refusal = Unknown::in_body::<Body>(&json!({ "x\n": 1 })).refusal().unwrap();
        let why = "not known: x\\n; only these fields are known: type, targets, inner, open";
        assert_eq!(refusal, ("body".to_owned(), why.to_owned()));
    }

    #[test]
    fn no_more_is_shown_than_may_be() {
        let long = "x".repeat(10 * UNKNOWN_FIELD_CHARS_MAX);
        let targets: Vec<Value> = (0..1_000).map(|_| json!({ &long: 1 })).collect();
        let names = shown(&json!({ "targets": targets })).unwrap();
        assert_eq!(names.split(", ").count(), UNKNOWN_FIELDS_MAX + 1);
        assert!(names.chars().count() < (UNKNOWN_FIELDS_MAX + 1) * (UNKNOWN_FIELD_CHARS_MAX + 3));
    }
}
