//! How the daemon is: for machines (`/healthz`, `/readyz`, `/metrics`, `/v1/stats`) and for people (`/`).

use super::App;
use super::reply::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// The process is alive.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The daemon takes records and labels them; if not, why not.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let mut troubles = app.health.troubles();
    if app.shutdown.is_requested() {
        troubles.insert("shutdown", "stopping".to_string());
    }
    let status = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": troubles.is_empty(), "waiting_for": troubles}))).into_response()
}

pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app.events.metrics().render().map_err(|e| Problem::unavailable(e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// The figures that the page shows.
pub async fn stats(State(app): State<Arc<App>>) -> Response {
    let metrics = app.events.metrics();
    let (queued, queued_bytes) = app.embedded.as_ref().map_or((0, 0), |embedded| embedded.load());
    let latency = &metrics.latency_seconds;
    let mean_ms = match latency.get_sample_count() {
        0 => None,
        count => Some(latency.get_sample_sum() / count as f64 * 1e3),
    };
    let fields = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": app.model_name,
        "fingerprint": app.fingerprint,
        "uptime_seconds": app.events.uptime().as_secs(),
        "ready": app.health.troubles().is_empty(),
        "records": metrics.records.get(),
        "steps": metrics.steps.get(),
        "bytes": metrics.bytes.get(),
        "streams_live": metrics.streams_live.get(),
        "streams_resident": metrics.streams_resident.get(),
        "queue_records": queued,
        "queue_bytes": queued_bytes,
        "latency_mean_ms": mean_ms,
        "resident_memory_bytes": crate::events::resident_memory_bytes(),
    });
    Json(fields).into_response()
}

/// The live page.
pub async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}
