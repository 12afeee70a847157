//! A real `strand run` as a child process, with a tiny model made on the spot, and an HTTP client for it.
#![allow(dead_code)] // Each test file uses its part.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The binary under test.
pub const STRAND: &str = env!("CARGO_BIN_EXE_strand");
/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a tiny model in `model/`, for data in `data/`.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        strand::model::testing::tiny_model(&dir.path().join("model")).unwrap();
        Place { dir }
    }

    /// With a random model of this specification.
    pub fn with(spec: &strand::model::ModelSpec) -> Place {
        let dir = tempfile::tempdir().unwrap();
        strand::model::testing::random_model(&dir.path().join("model"), spec, strand::model::testing::TEXT, 7).unwrap();
        Place { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn model(&self) -> PathBuf {
        self.path().join("model")
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// `strand run` on this place, HTTP on a port that the system chooses.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_at("127.0.0.1:0", arguments)
    }

    /// The same with HTTP at this address.
    pub fn command_at(&self, http: &str, arguments: &[&str]) -> Command {
        self.command_on(&self.data(), http, arguments)
    }

    /// The same on another data directory.
    pub fn command_on(&self, data: &Path, http: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(STRAND);
        command.args(["run", "--log-format", "json", "--http", http]);
        command.arg("--model").arg(self.model()).arg("--data-dir").arg(data);
        command.args(arguments).env_remove("RUST_LOG");
        command
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self, arguments: &[&str]) -> Daemon {
        Daemon::start(self.command(arguments))
    }

    /// Runs it where it should not start; exit code and what it said.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        ended(self.command(arguments))
    }
}

/// Runs what should end by itself; exit code and what it said.
pub fn ended(command: Command) -> (i32, String) {
    let mut daemon = Daemon::spawn(command);
    let status = daemon.wait();
    (status.code().unwrap_or(-1), daemon.log())
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    address: Arc<OnceLock<String>>,
    agent: ureq::Agent,
    pub token: Option<String>,
    log: Arc<Mutex<String>>,
    /// Reads the log; ends with the process.
    reader: Option<JoinHandle<()>>,
}

/// Status and body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub retry_after: Option<String>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn code(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_string()
    }
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub fn start(command: Command) -> Daemon {
        let mut daemon = Daemon::spawn(command);
        eventually("listening", || match (daemon.address.get(), daemon.child.try_wait().unwrap()) {
            (_, Some(status)) => panic!("strand ended: {status}\n{}", daemon.log()),
            (address, None) => address.is_some(),
        });
        eventually("ready", || daemon.get("/readyz").status == 200);
        daemon
    }

    /// Starts it and waits for nothing.
    pub fn spawn(mut command: Command) -> Daemon {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (log, address) = (Arc::new(Mutex::new(String::new())), Arc::new(OnceLock::new()));
        let (lines, listening) = (log.clone(), address.clone());
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                *lines.lock().unwrap() += &(line + "\n");
                if let Some(address) = event["address"].as_str() {
                    listening.set(address.to_string()).unwrap();
                }
            }
        });
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Daemon { child, address, agent: config.build().new_agent(), token: None, log, reader: Some(reader) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub fn address(&self) -> &str {
        self.address.get().expect("it listens")
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()))
    }

    pub fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(self.url(path));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        answer(request.call()?)
    }

    /// Reads an event stream until `enough` events came; their data.
    pub fn events(&self, path: &str, enough: usize) -> Vec<Value> {
        let request = self.agent.get(self.url(path)).header("accept", "text/event-stream");
        let response = request.call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let lines = BufReader::new(response.into_body().into_reader()).lines().map(Result::unwrap);
        let data = lines.filter_map(|line| line.strip_prefix("data: ").map(|d| serde_json::from_str(d).unwrap()));
        data.take(enough).collect()
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.try_post(path, body).unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.log()))
    }

    pub fn try_post(&self, path: &str, body: impl AsRef<[u8]>) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(self.url(path));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        answer(request.send(body.as_ref())?)
    }

    /// All output records of a stream.
    pub fn labels(&self, stream: &str) -> Vec<Value> {
        self.get(&format!("/v1/labels?stream={stream}")).lines()
    }

    /// The value of a metric without labels, or with them as written.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until everything taken in is labelled, as long as the queue becomes shorter.
    pub fn settle(&self) {
        let (mut since, mut shortest) = (Instant::now(), u64::MAX);
        loop {
            let left = self.get("/v1/stats").json()["queue_records"].as_u64().unwrap();
            if left == 0 {
                return;
            }
            if left < shortest {
                (since, shortest) = (Instant::now(), left);
            }
            assert!(since.elapsed() < PATIENCE, "{left} records are never labelled\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, if it does yet.
    pub fn listens_at(&self) -> Option<&String> {
        self.address.get()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last.
                self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "strand does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_string());
    let mut body = String::new();
    response.into_body().into_reader().read_to_string(&mut body).map_err(ureq::Error::Io)?;
    Ok(Answer { status, body, retry_after })
}

/// Waits until `check` holds.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The words of output records, in order.
pub fn words(records: &[Value]) -> Vec<String> {
    let labels = records.iter().flat_map(|record| record["labels"].as_array().unwrap().clone());
    labels.map(|label| label["text"].as_str().unwrap().to_string()).collect()
}
