//! Requests to the HTTP of a daemon in this process.
//!
//! Bytes: how the request is made. Raw: the rest is sent as it is. Put together: method, path, flags; then lines: what
//! goes into the path, the query, a header; the rest is the body.

use super::{Choices, formats};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown as Half, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use strand::config::{Bytes, Config, OnModelChange};
use strand::events::Events;
use strand::health::Health;
use strand::http::{App, serve};
use strand::pipeline::{Parts, Pipeline, System};
use strand::shutdown::Shutdown;
use strand::state::ModelPolicy;
use strand::transport::embedded::Embedded;

const METHODS: [&str; 8] = ["GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "G\u{1}T"];
const PATHS: [&str; 10] = [
    "/v1/streams/{}",
    "/v1/records",
    "/v1/labels",
    "/v1/dead-letters",
    "/v1/stats",
    "/metrics",
    "/readyz",
    "/",
    "/v1/{}",
    "{}",
];
/// A stream that no request is about.
const BYSTANDER: &str = "a-stream-that-nobody-else-knows";
/// Within this an answer has begun, or the daemon hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Panics of any thread of this process.
static PANICS: AtomicUsize = AtomicUsize::new(0);

struct Daemon {
    address: SocketAddr,
    /// What is told of the bystander, and its labels.
    bystander: [String; 2],
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.pipeline.threads = 1;
        config.input.max_record_bytes = Bytes(4 << 10);
        config.http.max_request_bytes = Bytes(16 << 10);
        config.http.max_followers = 100_000;
        config.embedded.data_dir = dir.path().to_path_buf();
        let model = formats::with_models(|models| models[0].clone());
        let events = Events::new(&model.spec().labels).unwrap();
        let (shutdown, health) = (Shutdown::new(), Health::new(events.clone(), &["pipeline"]));
        let fingerprint = model.fingerprint().to_string();
        let policy = ModelPolicy { fingerprint, previous: None, on_model_change: OnModelChange::Refuse };
        let (embedded, _writer) = Embedded::open(&config.embedded, &policy, &events).unwrap();
        let app = App::new(&config, &model, Some(embedded.clone()), events.clone(), health.clone(), shutdown.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::new(app)));
        runtime.spawn(embedded.clone().sweep_regularly());
        let transport = embedded.transport().unwrap();
        let format = config.input.resolve(model.encoder().spec()).unwrap();
        let parts = Parts {
            model,
            previous: None,
            states: transport.states.clone(),
            events,
            input: &config.input,
            format,
            pipeline: &config.pipeline,
            state: &config.state,
            runtime: Arc::new(System),
        };
        let pipeline = Pipeline::start(transport, &parts, health, shutdown).unwrap();
        std::thread::spawn(move || pipeline.run().unwrap());
        let mut daemon = Daemon { address, bystander: Default::default(), _runtime: runtime, _dir: dir };
        let piece = "Ada Lovelace met ";
        let request = format!(
            "POST /v1/streams/{BYSTANDER}?wait=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{piece}",
            piece.len()
        );
        let answer = daemon.send(request.as_bytes(), false).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        daemon.bystander = daemon.told_of_bystander();
        daemon
    }

    fn told_of_bystander(&self) -> [String; 2] {
        ["streams/", "labels?stream="].map(|what| {
            let request = format!("GET /v1/{what}{BYSTANDER} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answer = self.send(request.as_bytes(), false).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.body
        })
    }

    /// The answer, if there is one: to what is no HTTP the connection may just be closed.
    fn send(&self, request: &[u8], raw: bool) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The daemon may have closed before all was sent.
        let _ = stream.write_all(request);
        if raw {
            let _ = stream.shutdown(Half::Write);
        }
        let lower = request.to_ascii_lowercase();
        let has = |word: &str| lower.windows(word.len()).any(|window| window == word.as_bytes());
        let endless = has("follow") || has("event-stream");
        let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
        let head = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break None,
                Ok(count) => reply.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {
                    panic!("no answer within {PATIENCE:?}")
                }
                // libFuzzer's clock.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break None,
            }
            let head = reply.windows(4).position(|window| window == b"\r\n\r\n");
            if endless && head.is_some() {
                break head;
            }
        };
        let head = head.or_else(|| reply.windows(4).position(|window| window == b"\r\n\r\n"))?;
        let text = String::from_utf8_lossy(&reply[..head]).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = String::from_utf8_lossy(&reply[head + 4..]).into_owned();
        // Chunks are left as they are; they are looked at only for being the same.
        Some(Answer { status: status.expect("an answer begins with its status"), head: text, body, endless })
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
    /// Only its head was read.
    endless: bool,
}

fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(Daemon::start)
}

/// A request never leads to a panic nor to a status of 5xx, refusals say why as JSON, and other streams stay as they
/// are.
pub fn check(bytes: &[u8]) {
    static REQUESTS: AtomicUsize = AtomicUsize::new(0);
    let daemon = daemon();
    let mut choices = Choices(bytes);
    let raw = choices.below(8) == 0;
    let (request, clean) = if raw { (choices.rest().to_vec(), false) } else { put_together(choices) };
    if let Some(answer) = daemon.send(&request, raw) {
        assert!(answer.status < 500, "{}\n\n{}", answer.head, answer.body);
        if clean && answer.status >= 400 && !answer.endless && !request.starts_with(b"HEAD") {
            let body: serde_json::Value = serde_json::from_str(&answer.body)
                .unwrap_or_else(|_| panic!("a refusal without its reason: {}\n\n{}", answer.head, answer.body));
            assert!(body["error"].is_string() && body["detail"].is_string(), "{body}");
        }
    } else {
        assert!(!clean, "no answer");
    }
    if REQUESTS.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
        assert_eq!(daemon.told_of_bystander(), daemon.bystander);
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread has panicked");
}

/// The request, and whether it is HTTP for sure.
fn put_together(mut choices: Choices) -> (Vec<u8>, bool) {
    let method = METHODS[choices.below(METHODS.len())];
    let path = PATHS[choices.below(PATHS.len())];
    let flags = choices.byte();
    let (as_is, chunked) = (flags & 1 > 0, flags & 2 > 0);
    let mut parts = choices.rest().splitn(4, |&byte| byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (hole, query, header, body) = (part(), part(), part(), part());
    let fill = |bytes: &[u8]| match as_is {
        true => bytes.to_vec(),
        false => percent(bytes).into_bytes(),
    };
    let mut request = format!("{method} ").into_bytes();
    match path.split_once("{}") {
        Some((before, _)) => request.extend([before.as_bytes(), &fill(hole)].concat()),
        None => request.extend_from_slice(path.as_bytes()),
    }
    if !query.is_empty() {
        request.push(b'?');
        request.extend(fill(query));
    }
    request.extend_from_slice(b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    if as_is && !header.is_empty() {
        request.extend([header, b"\r\n"].concat());
    }
    if chunked {
        request.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in body.chunks(7) {
            request.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        request.extend_from_slice(b"0\r\n\r\n");
    } else {
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
    }
    (request, !as_is && path != "{}" && !method.contains('\u{1}'))
}

/// Everything percent-encoded that need not stand for itself in a query.
fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'=' | b'&' | b'-' | b'_' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").unwrap(),
        }
        text
    })
}
