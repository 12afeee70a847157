//! `strand run` as a process of its own, so that its CPU time and memory are nobody else's.

use super::{BenchError, failed};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long the daemon may take to listen, and to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon. Killed when dropped.
pub struct Program {
    child: Child,
    address: String,
    pub input: Option<ChildStdin>,
    pub output: Option<ChildStdout>,
}

impl Program {
    /// Starts this executable with the model and these settings, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start; with the last line that it said.
    pub fn start(model: &Path, settings: &[String]) -> Result<Program, BenchError> {
        let own = std::env::current_exe().map_err(|e| failed("finding this executable", &e))?;
        let mut command = Command::new(own);
        command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(model);
        settings.iter().for_each(|set| _ = command.args(["--set", set]));
        command.env_remove("RUST_LOG").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| failed("starting strand run", &e))?;
        let (input, output, log) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut program = Program { child, address: String::new(), input, output };
        let (lines, said) = channel();
        std::thread::spawn(move || {
            for line in log.into_iter().flat_map(|log| BufReader::new(log).lines().map_while(Result::ok)) {
                // Whoever listened is gone; the log is read all the same, so that the daemon is not held up.
                let _ = lines.send(line);
            }
        });
        let last = program.listening(&said)?;
        let begun = Instant::now();
        while !program.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if begun.elapsed() > PATIENCE {
                return Err(BenchError(format!("strand run is not ready; it said: {last}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(program)
    }

    /// Waits until it says where it listens; its last line.
    fn listening(&mut self, said: &Receiver<String>) -> Result<String, BenchError> {
        let mut last = String::new();
        while let Ok(line) = said.recv_timeout(PATIENCE) {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            last = line;
            if let Some(address) = event["address"].as_str() {
                self.address = address.to_string();
                return Ok(last);
            }
        }
        Err(BenchError(format!("strand run did not start; it said: {last}")))
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: strand\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Its metrics as they are now.
    ///
    /// # Errors
    /// If it does not answer: it has ended.
    pub fn metrics(&self) -> Result<Metrics, BenchError> {
        self.get("/metrics").map(Metrics).map_err(|e| failed("asking strand run for its metrics", &e))
    }

    /// Seconds of CPU, user and system, of all its threads; and the most memory that it ever had, in MiB. Zero where the
    /// system does not tell.
    pub fn usage(&self) -> (f64, f64) {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default();
        let stat = read("stat");
        // After the name, which may hold anything, in brackets: the state is field 3, utime and stime 14 and 15.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kib: f64 = peak.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
        // Linux counts in hundredths of a second for all programs.
        (ticks / 100.0, kib / 1024.0)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer of `/metrics`.
pub struct Metrics(String);

impl Metrics {
    /// A metric by its name without prefix, with its labels as they are written; 0 if it is not there.
    pub fn get(&self, name: &str) -> f64 {
        let value = |line: &str| line.strip_prefix("strand_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value).unwrap_or(0.0)
    }
}
