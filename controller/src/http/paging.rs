//! Numbered pages, as documents 001 and 003 have them.

use axum::response::{IntoResponse as _, Response};
use http::header::HOST;
use http::{HeaderMap, Uri};
use serde::Serialize;

use crate::app::App;
use crate::error::{Error, Result};
use crate::limits::{USERS_LIMIT, USERS_LIMIT_MAX};

/// Which page, from 1, and how many rows it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberedPage {
    /// From 1.
    pub number: usize,
    /// Rows.
    pub size: usize,
}

impl NumberedPage {
    /// Document 001: a size that makes no sense is the default, a page that makes none is not there.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn pipelines(page: Option<&str>, size: Option<&str>) -> Result<Self> {
        let size = size.and_then(|text| text.parse().ok()).filter(|n| *n >= 1).unwrap_or(USERS_LIMIT);
        let number = page.map_or(Some(1), |text| text.parse().ok()).filter(|n| *n >= 1);
        let number = number.ok_or_else(no_page)?;
        Ok(Self { number, size: size.min(USERS_LIMIT_MAX) })
    }

    /// Document 003: what makes no sense is refused.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn clusters(page: Option<&str>, limit: Option<&str>) -> Result<Self> {
        let whole = |field: &str, text: Option<&str>, default: usize| match text.map(str::parse) {
            None => Ok(default),
            Some(Ok(n)) if n >= 1 => Ok(n),
            Some(_) => Err(Error::invalid(field, format!("{field} must be a whole number from 1"))),
        };
        let size = whole("limit", limit, USERS_LIMIT)?.min(USERS_LIMIT_MAX);
        Ok(Self { number: whole("page", page, 1)?, size })
    }

    /// Rows before this page.
    #[must_use]
    pub fn offset(&self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    /// Document 001's list: `count`, `next`, `previous`, `results`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a page behind the last.
    pub fn answer<T: Serialize>(
        &self,
        base: &str,
        uri: &Uri,
        count: u64,
        results: Vec<T>,
    ) -> Result<Response> {
        if self.number > 1 && self.offset() as u64 >= count {
            return Err(no_page());
        }
        let more = (self.offset() + results.len()) as u64 > 0 && ((self.offset() + self.size) as u64) < count;
        let next = more.then(|| link(base, uri, self.number + 1));
        let previous = (self.number > 1).then(|| link(base, uri, self.number - 1));
        let view =
            serde_json::json!({ "count": count, "next": next, "previous": previous, "results": results });
        Ok(axum::Json(view).into_response())
    }
}

fn no_page() -> Error {
    Error::NotFound("there is no such page".into())
}

/// This address with another page; the first one is named by none.
fn link(base: &str, uri: &Uri, page: usize) -> String {
    let others = uri.query().unwrap_or_default().split('&');
    let others = others.filter(|p| !p.is_empty() && *p != "page" && !p.starts_with("page="));
    let page = (page > 1).then(|| format!("page={page}"));
    let query: Vec<&str> = page.as_deref().into_iter().chain(others).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    format!("{base}{}/{query}", uri.path().trim_end_matches('/'))
}

/// How this controller is reached: as its settings say, else as the request says.
#[must_use]
pub fn base_url(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.settings.public_url {
        return url.clone();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_the_other_parameters() {
        let uri: Uri = "/api/users?search=a&page=2&page_size=5".parse().unwrap();
        assert_eq!(link("http://h", &uri, 3), "http://h/api/users/?page=3&search=a&page_size=5");
        assert_eq!(link("http://h", &uri, 1), "http://h/api/users/?search=a&page_size=5");
        assert_eq!(link("http://h", &"/api/users".parse().unwrap(), 2), "http://h/api/users/?page=2");
        assert_eq!(link("http://h", &"/api/users?page=2".parse().unwrap(), 1), "http://h/api/users/");
    }

    #[test]
    fn each_document_has_its_own_rules() {
        let page = |p, s| NumberedPage::pipelines(p, s).ok().map(|p| (p.number, p.size));
        assert_eq!(page(None, None), Some((1, 20)));
        assert_eq!(page(Some("3"), Some("500")), Some((3, 100)));
        assert_eq!(page(None, Some("x")), Some((1, 20)));
        assert_eq!(page(Some("0"), None), None);
        assert_eq!(page(Some("last"), None), None);
        assert!(NumberedPage::clusters(Some("0"), None).is_err());
        assert!(NumberedPage::clusters(None, Some("x")).is_err());
        assert_eq!(NumberedPage::clusters(None, Some("500")).unwrap().size, 100);
        let far = NumberedPage::clusters(Some("18446744073709551615"), None).unwrap();
        assert_eq!(far.offset(), usize::MAX, "no overflow");
    }
}
