//! The interface's own description, and the pages that show it. All assets are served from here.

use std::sync::Arc;

use axum::Router;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response as Described, SecurityRequirement,
};
use utoipa::{ToSchema, openapi::ComponentsBuilder};
use utoipa_swagger_ui::Config;

use super::extract::Path;
use crate::app::App;
use crate::error::Error;

/// The fleet surface's errors.
#[derive(Serialize, ToSchema)]
pub struct Detail {
    /// What is wrong; for bad input it names the field.
    pub detail: String,
}

/// What the description says before any route is in it.
#[must_use]
pub fn description() -> OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = ComponentsBuilder::new()
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))))
        .build();
    let either = ["bearer", "api_key"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    let info = InfoBuilder::new()
        .title("Signet")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A fleet control plane: signed commands to every host, and every host's verified result.",
        ))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).security(Some(either)).build()
}

/// Says of every answer what each handler need not repeat: that it may be a 401, what an error looks like, and a
/// description, which the format asks for.
pub fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let PathItem { get, put, post, delete, patch, .. } = item;
        for operation in [get, put, post, delete, patch].into_iter().flatten() {
            complete_operation(operation);
        }
    }
}

fn complete_operation(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    // Its own security says that it needs no credential.
    if operation.security.is_none() {
        responses.entry("401".into()).or_insert_with(|| RefOr::T(Described::default()));
    }
    for (code, response) in responses {
        let RefOr::T(response) = response else { continue };
        let status = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
        if response.description.is_empty() {
            response.description =
                status.and_then(|s| s.canonical_reason()).unwrap_or("The answer").to_owned();
        }
        let failed = status.is_some_and(|s| s.is_client_error() || s.is_server_error());
        if failed && response.content.is_empty() {
            let detail = RefOr::Ref(Ref::from_schema_name("Detail"));
            response.content.insert("application/json".into(), RefOr::T(Content::new(Some(detail))));
        }
    }
}

/// Only what this server itself serves; the viewer's styles are inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const VIEWER: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Signet API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/index.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png" sizes="32x32">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/swagger-ui-standalone-preset.js"></script>
<script src="/docs/swagger-initializer.js"></script>
</body>
</html>
"#;

const HOME: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Signet</title>
</head>
<body>
<h1>Signet</h1>
<p>This is the controller of a Signet fleet. Its interface is described at <a href="/docs">/docs</a>,
for machines at <a href="/openapi.json">/openapi.json</a>.</p>
</body>
</html>
"#;

fn page(html: &'static str) -> Response {
    let headers = [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Html(html)).into_response()
}

/// The pages.
pub fn pages(document: &OpenApi) -> Router<App> {
    let text: Arc<str> = serde_json::to_string(document).unwrap_or_default().into();
    let openapi = move || {
        let text = text.clone();
        async move { ([(CONTENT_TYPE, "application/json")], text.to_string()) }
    };
    let viewer = || async { page(VIEWER) };
    Router::new()
        .route("/", get(async || page(HOME)))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(viewer))
        .route("/api/docs", get(viewer))
        .route("/api/schema/swagger-ui", get(viewer))
        .route("/docs/{*file}", get(asset))
}

async fn asset(Path(file): Path<String>) -> Result<Response, Error> {
    let config = Arc::new(Config::from("/openapi.json").persist_authorization(false));
    let found = utoipa_swagger_ui::serve(&file, config).map_err(|e| Error::Internal(e.to_string()))?;
    let found = found.ok_or_else(|| Error::NotFound("Not Found".into()))?;
    let headers = [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let typed = [(CONTENT_TYPE, found.content_type)];
    let mut response = (headers, typed, found.bytes.into_owned()).into_response();
    if found.gzpipped {
        response.headers_mut().insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
