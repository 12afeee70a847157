//! Records in: `POST /v1/streams/{id}` and `POST /v1/records`. An answer of 200 or 202 means: on disk.

use super::App;
use super::reply::{Problem, json};
use crate::state::{KeyError, StreamId};
use crate::transport::Event;
use crate::transport::embedded::{Answer, IngestError, NewRecord, Taken};
use crate::transport::line::Line;
use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceQuery {
    event: Option<String>,
    wait: Option<String>,
    id: Option<u64>,
}

/// A body's size in the unit of [`App::intake`]; at least 1.
pub fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX >> 4).max(1)
}

/// `POST /v1/streams/{id}`: the body is a piece of the stream.
pub async fn piece(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<PieceQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let result = take_piece(&app, path, query, &headers, body).await;
    result.unwrap_or_else(|problem| refuse(&app, problem))
}

/// Refusals by overload and by the disk are counted where they arise.
fn refuse(app: &App, problem: Problem) -> Response {
    if !matches!(problem.code(), "overloaded" | "unavailable") {
        app.events.ingest_refused(problem.code(), problem.detail());
    }
    problem.into_response()
}

async fn take_piece(
    app: &App,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<PieceQuery>, QueryRejection>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let embedded = app.embedded()?;
    let Path(id) = path.map_err(|e| Problem::bad("bad_path", e.body_text()))?;
    let Query(query) = query.map_err(|e| Problem::bad("bad_query", e.body_text()))?;
    let stream = stream_id(&id)?;
    let event = query.event.as_deref().map(str::parse::<Event>).transpose();
    let event = event.map_err(|e| Problem::bad("unknown_event", e.to_string()))?;
    let waits = flag("wait", query.wait.as_deref())?;
    let limit = app.max_record_bytes;
    let (value, _share) = read_body(app, headers, body, limit, "input.max_record_bytes").await?;
    let (answer, wait) = if waits {
        let (sender, receiver) = oneshot::channel();
        (Some(receiver), Some(sender))
    } else {
        (None, None)
    };
    let record = NewRecord { stream: stream.clone(), event, value: value.to_vec(), id: query.id, wait };
    let taken = embedded.ingest(vec![record]).await.map_err(ingest_problem)?;
    let taken = taken.first().copied().unwrap_or(Taken::Before { offset: None });
    let (offset, duplicate) = match taken {
        Taken::At { offset } => (Some(offset), false),
        Taken::Before { offset } => (offset, true),
    };
    let mut fields = json!({"stream": id, "offset": offset, "duplicate": duplicate});
    let Some(answer) = answer else { return Ok((StatusCode::ACCEPTED, Json(fields)).into_response()) };
    let answered = tokio::time::timeout(app.wait_timeout, answer).await;
    let detail = match answered {
        Ok(Ok(Answer::Output(output))) => return Ok(json(StatusCode::OK, output)),
        Ok(Ok(Answer::Rejected { code, detail })) => {
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail));
        }
        Ok(Err(_)) if duplicate => {
            if let Some(output) = output_of(app, stream, offset).await? {
                return Ok(json(StatusCode::OK, output));
            }
            "taken before; its output is no longer known by its number, read /v1/labels"
        }
        Ok(Err(_)) => "on disk; strand is stopping and will label it after its restart",
        Err(_) => "on disk, not labelled within http.wait_timeout; read /v1/labels",
    };
    fields["pending"] = json!(true);
    fields["detail"] = json!(detail);
    Ok((StatusCode::ACCEPTED, Json(fields)).into_response())
}

async fn output_of(app: &App, stream: StreamId, offset: Option<u64>) -> Result<Option<Vec<u8>>, Problem> {
    let Some(offset) = offset else { return Ok(None) };
    let embedded = app.embedded()?.clone();
    let found = tokio::task::spawn_blocking(move || embedded.output_of(&stream, offset)).await;
    found.map_err(|e| Problem::unavailable(e.to_string()))?.map_err(|e| Problem::unavailable(e.to_string()))
}

/// `POST /v1/records`: NDJSON, records of many streams; all are taken or none.
pub async fn records(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let result = take_records(&app, &headers, body).await;
    result.unwrap_or_else(|problem| refuse(&app, problem))
}

async fn take_records(app: &App, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let embedded = app.embedded()?;
    let (body, _share) = read_body(app, headers, body, app.max_request_bytes, "http.max_request_bytes").await?;
    let mut records = Vec::new();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let at = |detail: String| format!("line {}: {detail}; nothing of this request was taken", number + 1);
        let line = Line::parse(line).map_err(|e| Problem::bad(e.code, at(e.detail)))?;
        let stream = stream_id(&line.stream).map_err(|e| Problem::bad(e.code(), at(e.detail().to_string())))?;
        if line.value.len() > app.max_record_bytes {
            let (bytes, limit) = (line.value.len(), app.max_record_bytes);
            let detail = format!("the value has {bytes} bytes; input.max_record_bytes is {limit}");
            return Err(Problem::too_large(at(detail)));
        }
        records.push(NewRecord { stream, event: line.event, value: line.value, id: line.id, wait: None });
    }
    let taken = if records.is_empty() { Vec::new() } else { embedded.ingest(records).await.map_err(ingest_problem)? };
    let offsets: Vec<u64> = taken
        .iter()
        .filter_map(|taken| match taken {
            Taken::At { offset } => Some(*offset),
            Taken::Before { .. } => None,
        })
        .collect();
    let fields = json!({
        "accepted": offsets.len(),
        "duplicates": taken.len() - offsets.len(),
        "first_offset": offsets.first(),
        "last_offset": offsets.last(),
    });
    Ok((StatusCode::ACCEPTED, Json(fields)).into_response())
}

fn stream_id(id: &str) -> Result<StreamId, Problem> {
    StreamId::new(id.as_bytes()).map_err(|error| match error {
        KeyError::Missing => Problem::bad("missing_key", error.to_string()),
        KeyError::TooLong { .. } => Problem::bad("key_too_long", error.to_string()),
    })
}

/// `1`/`true` or `0`/`false`.
pub fn flag(name: &str, value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(other) => Err(Problem::bad("bad_query", format!("{name}={other}: expected 1 or 0"))),
    }
}

/// The whole body, once there is room for it, and the claim on that room.
async fn read_body<'a>(
    app: &'a App,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    name: &str,
) -> Result<(Bytes, tokio::sync::SemaphorePermit<'a>), Problem> {
    if app.shutdown.is_requested() {
        return Err(Problem::unavailable("strand is stopping"));
    }
    let too_large = || Problem::too_large(format!("the body is larger than {name} = {limit} bytes"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let length: usize = length.unwrap_or(limit);
    if length > limit {
        return Err(too_large());
    }
    let share = app.intake.acquire_many(kibibytes(length)).await;
    let share = share.map_err(|_| Problem::unavailable("strand is stopping"))?;
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await;
    let read = read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long"))?;
    match read {
        Ok(bytes) => Ok((bytes, share)),
        Err(error) if error.to_string().contains("length limit exceeded") => Err(too_large()),
        Err(error) => Err(Problem::bad("bad_body", format!("the body could not be read: {error}"))),
    }
}

fn ingest_problem(error: IngestError) -> Problem {
    match error {
        IngestError::Overloaded { .. } => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", error.to_string()).retry_after(1)
        }
        IngestError::Stopping | IngestError::Failed(_) => Problem::unavailable(error.to_string()),
    }
}
