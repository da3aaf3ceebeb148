//! Deleting what is past its time, in small batches, by one controller at a time.

use std::time::Duration;

use signet_common::time::Micros;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::error::Result;
use crate::leases::Lease;
use crate::limits::RETENTION_SECONDS;
use crate::settings::Retention;

const DAY_SECONDS: i64 = 86_400;

/// Works until `stop`.
pub(crate) async fn run(app: App, settings: Retention) {
    let stop = app.stop.clone();
    let lease = Lease::new(app.store.clone(), "retention");
    loop {
        if let Err(error) = round(&app, &settings, &lease, &stop).await {
            tracing::warn!(%error, "the retention failed; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(Duration::from_secs(RETENTION_SECONDS)) => {}
        }
    }
    lease.release().await;
}

/// Whether there is more of it; a failure ends it for this round.
fn done(what: &str, more: Result<bool>) -> bool {
    more.unwrap_or_else(|error| {
        tracing::warn!(%error, what, "what is too old could not be deleted");
        false
    })
}

async fn round(app: &App, settings: &Retention, lease: &Lease, stop: &CancellationToken) -> Result<()> {
    let now = Micros::now();
    let before = |days: u32| now.plus_seconds(-i64::from(days) * DAY_SECONDS);
    // The lease is renewed with each small batch, so that a long clean-up stays one controller's.
    while !stop.is_cancelled() && lease.take().await? {
        // Each by itself: one that fails must not keep the others from their work.
        let more_bodies = done("bodies of messages", app.dispatch.forget_bodies(now).await);
        let output = app.commands.retain_output(before(settings.output_days), settings.output_bytes);
        let more_output = done("output", output.await);
        // Reports hold output too.
        let reports = app.dispatch.forget_reports(before(settings.output_days)).await;
        let more_output = done("reports", reports) || more_output;
        let more_tasks = done("tasks", app.dispatch.forget_old(before(settings.task_days)).await);
        let more_jobs = done("jobs", app.jobs.forget_old(before(settings.task_days)).await);
        let more_audit = done("the audit trail", app.audit.forget_old(before(settings.audit_days)).await);
        if !more_tasks && !more_output && !more_bodies && !more_jobs && !more_audit {
            app.hosts.forget_old().await?;
            app.accounts.forget().await?;
            app.jobs.forget_secrets().await?;
            break;
        }
    }
    Ok(())
}
