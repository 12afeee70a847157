//! Labels and dead letters out: as NDJSON, or as server-sent events where the client accepts them; once or followed.

use super::App;
use super::ingest::flag;
use super::reply::Problem;
use crate::events::Events;
use crate::shutdown::Shutdown;
use crate::state::StreamId;
use crate::transport::embedded::{Embedded, Feed, Progress, Row};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Rows that are read from the store at a time.
const PAGE_ROWS: usize = 1000;
/// How often a silent event stream shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedQuery {
    stream: Option<String>,
    from: Option<u64>,
    limit: Option<u64>,
    follow: Option<String>,
    /// Of all streams' labels or dead letters: begin this many before the end.
    tail: Option<u64>,
}

/// `GET /v1/labels?stream=&from=&limit=&follow=1&tail=`
pub async fn labels(
    State(app): State<Arc<App>>,
    query: Result<Query<FeedQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad("bad_query", e.body_text()))?;
    let feed = match &query.stream {
        Some(id) => {
            Feed::Stream(StreamId::new(id.as_bytes()).map_err(|e| Problem::bad("bad_query", format!("stream: {e}")))?)
        }
        None => Feed::Labels,
    };
    answer(&app, feed, &query, &headers).await
}

/// `GET /v1/dead-letters?from=&limit=&follow=1`
pub async fn dead_letters(
    State(app): State<Arc<App>>,
    query: Result<Query<FeedQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad("bad_query", e.body_text()))?;
    if query.stream.is_some() {
        return Err(Problem::bad("bad_query", "dead letters are not kept by stream; leave \"stream\" out"));
    }
    answer(&app, Feed::DeadLetters, &query, &headers).await
}

/// `GET /v1/streams/{id}`
pub async fn stream(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let embedded = app.embedded()?.clone();
    let Path(id) = path.map_err(|e| Problem::bad("bad_path", e.body_text()))?;
    let stream = StreamId::new(id.as_bytes()).map_err(|e| Problem::bad("bad_path", e.to_string()))?;
    let info = blocking(move || embedded.stream(&stream)).await?;
    let info = info.ok_or_else(|| Problem::not_found(format!("no record of the stream {id:?} was labelled yet")))?;
    let entry = info.entry;
    let fields = json!({
        "stream": id,
        "state": if entry.ended { "ended" } else { "live" },
        "position": entry.position,
        "records": entry.records,
        "labels": entry.labels,
        "next_seq": entry.next_seq,
        "active_ms": entry.active_ms,
        "state_bytes": info.state_bytes,
    });
    Ok(Json(fields).into_response())
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, crate::state::StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let result = tokio::task::spawn_blocking(read).await.map_err(|e| Problem::unavailable(e.to_string()))?;
    result.map_err(|e| Problem::unavailable(e.to_string()))
}

async fn answer(app: &App, feed: Feed, query: &FeedQuery, headers: &HeaderMap) -> Result<Response, Problem> {
    let embedded = app.embedded()?.clone();
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let events = accepts.contains("text/event-stream");
    // An event stream is made to be followed.
    let follow = flag("follow", query.follow.as_deref())? || (events && query.follow.is_none());
    let resume = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let from = match (resume, query.from, &feed) {
        (Some(last), _, _) => last.saturating_add(1),
        (None, Some(from), _) => from,
        (None, None, Feed::Labels | Feed::DeadLetters) if follow || query.tail.is_some() => {
            let (embedded, feed) = (embedded.clone(), feed.clone());
            blocking(move || embedded.end_of(&feed)).await?.saturating_sub(query.tail.unwrap_or(0))
        }
        (None, None, _) => 0,
    };
    let place = app.followers.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::unavailable("too many clients read labels; see http.max_followers"))?;
    let (rows, body) = mpsc::channel(1);
    let mut progress = embedded.progress();
    // Marked before reading: what is committed meanwhile is seen as a change.
    progress.borrow_and_update();
    let mut reading = Reading {
        progress,
        embedded,
        feed,
        next: from,
        left: query.limit.unwrap_or(u64::MAX),
        follow,
        events,
        rows,
        shutdown: app.shutdown.clone(),
        _place: Place::new(place, app.events.clone()),
    };
    // A store that cannot be read is told as such, not by an answer that is cut off.
    let first = reading.page().await.map_err(|e| Problem::unavailable(e.to_string()))?;
    tokio::spawn(reading.run(first));
    let kind = if events { "text/event-stream" } else { "application/x-ndjson" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(body))).into_response())
}

/// One client's reading of a feed: a page in memory at a time, however slow the client.
struct Reading {
    embedded: Embedded,
    progress: watch::Receiver<Progress>,
    feed: Feed,
    next: u64,
    left: u64,
    follow: bool,
    events: bool,
    rows: mpsc::Sender<std::io::Result<Bytes>>,
    shutdown: Shutdown,
    _place: Place,
}

impl Reading {
    /// Sends the first page and what follows; ends with the feed (or its limit), the client, or the daemon.
    async fn run(mut self, first: Option<Bytes>) {
        let mut page = Ok(first);
        loop {
            while let Some(rows) = page.transpose() {
                // After an error the answer is cut off, so that the client sees that it is not whole.
                let failed = rows.is_err();
                if self.rows.send(rows).await.is_err() || failed {
                    return;
                }
                page = self.page().await;
            }
            if !self.follow || self.left == 0 {
                return;
            }
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() { return },
                () = self.shutdown.requested() => return,
                () = self.rows.closed() => return,
                () = tokio::time::sleep(HEARTBEAT), if self.events => {
                    if self.rows.send(Ok(Bytes::from_static(b": alive\n\n"))).await.is_err() {
                        return;
                    }
                }
            }
            self.progress.borrow_and_update();
            page = self.page().await;
        }
    }

    /// The next rows as they go over the wire; none: there are no more (now).
    async fn page(&mut self) -> std::io::Result<Option<Bytes>> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(PAGE_ROWS);
        let (embedded, feed, next) = (self.embedded.clone(), self.feed.clone(), self.next);
        let read = tokio::task::spawn_blocking(move || embedded.page(&feed, next, limit)).await;
        let page: Vec<Row> = read.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
        let Some(last) = page.last() else { return Ok(None) };
        self.next = last.cursor + 1;
        self.left -= page.len() as u64;
        let mut bytes = Vec::new();
        for row in &page {
            if self.events {
                bytes.extend_from_slice(format!("id: {}\ndata: ", row.cursor).as_bytes());
            }
            bytes.extend_from_slice(&row.json);
            bytes.extend_from_slice(if self.events { b"\n\n" } else { b"\n" });
        }
        Ok(Some(bytes.into()))
    }
}

/// A client's place among the followers, given back and counted down when it goes.
struct Place {
    _permit: OwnedSemaphorePermit,
    events: Events,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, events: Events) -> Place {
        events.follower(1);
        Place { _permit: permit, events }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.events.follower(-1);
    }
}
