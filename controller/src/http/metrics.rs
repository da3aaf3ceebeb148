//! `GET /metrics`, in Prometheus' text form.

use std::sync::OnceLock;

use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;

/// Seconds, from a fast answer to the longest that a client waits for.
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// One recorder for the process, however many controllers a test starts in it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once.
pub fn install() {
    RECORDER.get_or_init(|| {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS);
        match builder.and_then_install() {
            Ok(handle) => Some(handle),
            Err(error) => {
                tracing::warn!(%error, "no metrics");
                None
            }
        }
    });
}

trait AndThenInstall {
    fn and_then_install(self) -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError>;
}

impl AndThenInstall for Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    fn and_then_install(self) -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
        self?.install_recorder()
    }
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(prometheus))
}

/// Metrics
///
/// In Prometheus' text form. From this machine itself it needs no token.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, content_type = "text/plain", body = String)))]
async fn prometheus() -> Result<([(http::HeaderName, &'static str); 1], String), Error> {
    let handle = RECORDER.get().and_then(Option::as_ref);
    let handle = handle.ok_or_else(|| Error::Internal("no recorder is installed".into()))?;
    handle.run_upkeep();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()))
}
