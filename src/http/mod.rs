//! HTTP: health and metrics with every transport; records in and labels out with the embedded one.
//!
//! Routes are put together here; [`ingest`] takes records, [`feeds`] gives labels and dead letters, [`status`] tells
//! how the daemon is.

mod feeds;
mod ingest;
mod reply;
mod status;

use crate::config::Config;
use crate::events::Events;
use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::transport::embedded::Embedded;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use reply::Problem;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What the handlers need.
pub struct App {
    pub events: Events,
    pub health: Health,
    pub shutdown: Shutdown,
    pub model_name: String,
    pub fingerprint: String,
    /// Absent with another transport: then there are no `/v1` routes.
    pub embedded: Option<Embedded>,
    max_record_bytes: usize,
    max_request_bytes: usize,
    wait_timeout: Duration,
    /// SHA-256 of the token.
    token: Option<[u8; 32]>,
    followers: Arc<Semaphore>,
    /// Kibibytes of request bodies that may be held at once; a request waits for its share.
    intake: Semaphore,
}

/// Requests of the largest size that may be read at once.
const LARGEST_AT_ONCE: usize = 4;

impl App {
    pub fn new(
        config: &Config,
        model: &crate::model::Model,
        embedded: Option<Embedded>,
        events: Events,
        health: Health,
        shutdown: Shutdown,
    ) -> App {
        let largest = config.http.max_request_bytes.len().max(config.input.max_record_bytes.len());
        App {
            events,
            health,
            shutdown,
            model_name: model.spec().name.clone(),
            fingerprint: model.fingerprint().to_string(),
            embedded,
            max_record_bytes: config.input.max_record_bytes.len(),
            max_request_bytes: config.http.max_request_bytes.len(),
            wait_timeout: config.http.wait_timeout.0,
            token: config.http.token.as_ref().map(|token| Sha256::digest(token).into()),
            followers: Arc::new(Semaphore::new(config.http.max_followers)),
            intake: Semaphore::new(LARGEST_AT_ONCE * ingest::kibibytes(largest) as usize),
        }
    }

    /// The store, or why there is none.
    fn embedded(&self) -> Result<&Embedded, Problem> {
        self.embedded.as_ref().ok_or_else(|| {
            Problem::not_found("records and labels go over HTTP only with [transport] kind = \"embedded\"")
        })
    }
}

/// Serves until shutdown is requested and the requests under way are answered.
pub async fn serve(listener: TcpListener, app: Arc<App>) -> std::io::Result<()> {
    let shutdown = app.shutdown.clone();
    // Labels are small and should not wait for the client's acknowledgement of those before.
    let listener = listener.tap_io(|connection| {
        // A connection that is gone already is noticed when it is read.
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, router(app)).with_graceful_shutdown(async move { shutdown.requested().await }).await
}

fn router(app: Arc<App>) -> Router {
    let v1 = Router::new()
        .route("/v1/streams/{id}", post(ingest::piece).get(feeds::stream))
        .route("/v1/records", post(ingest::records))
        .route("/v1/labels", get(feeds::labels))
        .route("/v1/dead-letters", get(feeds::dead_letters))
        .route("/v1/stats", get(status::stats))
        .layer(from_fn_with_state(app.clone(), authorize));
    Router::new()
        .route("/", get(status::page))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .merge(v1)
        .fallback(async || Problem::not_found("no such path; see / and docs"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(app)
}

/// Asks for the bearer token where one is configured. Digests are compared, so that time tells nothing about it.
async fn authorize(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    if let Some(expected) = app.token {
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if <[u8; 32]>::from(Sha256::digest(given)) != expected {
            return Err(Problem::unauthorized());
        }
    }
    Ok(next.run(request).await)
}
