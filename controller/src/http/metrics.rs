//! `GET /metrics`, in Prometheus' text form: what was counted since the start, and how things stand right now.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use axum::extract::State as AppState;
use http::header::CONTENT_TYPE;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use signet_common::bus::{Health, Queue};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::dispatch::model::State;
use crate::error::{Error, Result};
use crate::limits::METRICS_SECONDS_MAX;

/// Seconds, from a fast answer to the longest that a client waits for.
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// One recorder for the process, however many controllers a test starts in it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once. Without one (somebody else's is there) `/metrics` answers 500.
pub fn install() {
    RECORDER.get_or_init(|| match recorder() {
        Ok(handle) => {
            describe();
            Some(handle)
        }
        Err(error) => {
            tracing::warn!(%error, "no metrics");
            None
        }
    });
}

fn recorder() -> Result<PrometheusHandle, BuildError> {
    let seconds = Matcher::Suffix("_seconds".into());
    PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS)?.install_recorder()
}

fn describe() {
    describe_counter!("signet_http_requests_total", "Requests by method, route and status");
    describe_histogram!("signet_http_request_seconds", "How long requests took");
    describe_counter!("signet_published_total", "Publishes to agents by result");
    describe_counter!("signet_refused_total", "Messages from agents that were not believed, by reason");
    describe_counter!("signet_results_total", "Ends in agents' own words, by outcome");
    describe_counter!("signet_gaps_total", "Gaps in agents' journals");
    describe_counter!("signet_parked_total", "Verified reports that could not be stored, since the start");
    describe_gauge!("signet_database_up", "1 while the database answers");
    describe_gauge!("signet_bus_up", "1 while the bus takes publishes");
    describe_gauge!("signet_bus_blocked", "1 while the broker takes no publishes (memory or disk alarm)");
    describe_gauge!("signet_agents_online", "Servers whose agent is online");
    describe_gauge!("signet_deliveries", "Open messages to hosts by state");
    describe_gauge!("signet_parked_reports", "Verified reports that wait for somebody to look at them");
    describe_gauge!("signet_intake_waiting", "Messages from agents that wait to be taken in, by queue");
    describe_gauge!("signet_dispatch_paused", "1 while an admin has switched dispatch off");
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(prometheus))
}

/// Metrics
///
/// In Prometheus' text form. From this machine itself it needs no token.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "text/plain", body = String)))]
async fn prometheus(AppState(app): AppState<App>) -> Result<([(http::HeaderName, &'static str); 1], String)> {
    let handle = RECORDER.get().and_then(Option::as_ref);
    let handle = handle.ok_or_else(|| Error::Internal("no recorder is installed".into()))?;
    tokio::join!(look_at_database(&app), look_at_bus(&app));
    handle.run_upkeep();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()))
}

fn switch(name: &'static str, on: bool) {
    gauge!(name).set(if on { 1.0 } else { 0.0 });
}

#[allow(clippy::cast_precision_loss, reason = "a gauge holds floats, and counts of rows stay far below 2^53")]
fn number(count: i64) -> f64 {
    count as f64
}

/// What the database tells, within a bounded time: metrics must answer when nothing else does.
async fn look_at_database(app: &App) {
    let limit = Duration::from_secs(METRICS_SECONDS_MAX);
    // Whether it answers at all is one question, and whether it answers these another.
    let up = matches!(tokio::time::timeout(limit, app.store.ping()).await, Ok(Ok(())));
    switch("signet_database_up", up);
    if !up {
        return;
    }
    match tokio::time::timeout(limit, database(app)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "metrics without the database's figures"),
        Err(_) => tracing::warn!("metrics without the database's figures: it takes too long"),
    }
}

async fn database(app: &App) -> Result<()> {
    app.ready.check()?;
    gauge!("signet_agents_online").set(number(app.hosts.count_online().await?));
    gauge!("signet_parked_reports").set(number(app.dispatch.parked().await?));
    switch("signet_dispatch_paused", app.dispatch.paused().await?.is_some());
    let totals: HashMap<String, i64> = app.dispatch.open_totals().await?.into_iter().collect();
    // A state that nothing is in any more has no row, and must go back to 0.
    for state in State::ALL.into_iter().filter(|state| !state.is_final()) {
        let count = totals.get(state.as_str()).copied().unwrap_or(0);
        gauge!("signet_deliveries", "state" => state.as_str()).set(number(count));
    }
    Ok(())
}

async fn look_at_bus(app: &App) {
    let health = *app.bus.health().borrow();
    switch("signet_bus_up", health == Health::Up);
    switch("signet_bus_blocked", health == Health::Blocked);
    if health == Health::Down {
        return;
    }
    for (name, queue) in [("reports", Queue::Reports), ("heartbeats", Queue::Heartbeats)] {
        let depth =
            tokio::time::timeout(Duration::from_secs(METRICS_SECONDS_MAX), app.bus.depth(&queue)).await;
        match depth {
            Ok(Ok(depth)) => {
                let waiting = i64::try_from(depth.unwrap_or(0)).unwrap_or(i64::MAX);
                gauge!("signet_intake_waiting", "queue" => name).set(number(waiting));
            }
            Ok(Err(error)) => tracing::debug!(%error, name, "metrics without this queue's depth"),
            Err(_) => tracing::debug!(name, "metrics without this queue's depth: the broker does not answer"),
        }
    }
}
