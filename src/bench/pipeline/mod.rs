//! How fast the daemon labels, from a record handed in to its labels committed: a program of its own with clients as users
//! have them, on each transport.
//!
//! First the peak: more records than it can take, records a second committed. Then the latency with records that arrive at
//! 20, 50 and 80 % of that peak, whatever became of those before: from the time at which a record was due to the time at
//! which a client that reads committed labels has its own. A daemon that falls behind cannot hide it.

mod latency;
pub mod model;
mod program;
mod ways;

pub use latency::Latency;

use crate::config::Delivery;
use crate::events::Stage;
use crate::rnn::matrix::Precision;
use program::{Metrics, Program};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ways::{Feed, Http, Lines, ToTopic, Watch};

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long it may go without a record.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records that are different; then they come again.
const DISTINCT: usize = 20_000;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BenchError(pub String);

fn failed(doing: &str, error: &dyn Display) -> BenchError {
    BenchError(format!("{doing}: {error}"))
}

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    Embedded,
    Stdio,
    Kafka,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Embedded => "embedded",
            Way::Stdio => "stdio",
            Way::Kafka => "kafka",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Case {
    pub way: Way,
    /// For Kafka: addresses of brokers, and what is promised.
    pub brokers: String,
    pub delivery: Delivery,
    pub model: PathBuf,
    /// Absent: as the model says.
    pub precision: Option<Precision>,
    pub threads: usize,
    pub streams: usize,
    /// Words of a record.
    pub words: usize,
    /// Records for the peak.
    pub records: usize,
    /// How long each rate of arrival lasts; zero: no latency is measured.
    pub latency_for: Duration,
    pub commit_interval: Duration,
    /// More `KEY=VALUE` of the configuration.
    pub sets: Vec<String>,
}

/// What was measured at the peak.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    pub records_per_s: f64,
    pub words_per_s: f64,
    /// Of values.
    pub mb_per_s: f64,
    /// CPU of the daemon, in cores, and the most memory it had, in MiB.
    pub cores: f64,
    pub peak_mib: f64,
    pub shares: Shares,
}

/// Seconds in a stage by seconds of its thread: of each engine thread, of the coordinator (poll), of the committer.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    pub engine: f64,
    /// Bytes to features, labels to JSON.
    pub encoding: f64,
    /// Sessions found, and as bytes.
    pub state: f64,
    pub poll: f64,
    /// Transactions; most of it waiting.
    pub commit: f64,
}

/// The records: number n is number n / streams of stream n % streams.
pub struct Records {
    streams: usize,
    values: Vec<String>,
}

impl Records {
    fn new(streams: usize, words: usize) -> Records {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut value = || {
            let mut text = String::new();
            // With white space behind it a word is whole.
            (0..words).for_each(|_| text += &(model::word(rng.random_range(0..model::VOCABULARY)) + " "));
            text
        };
        Records { streams, values: (0..DISTINCT).map(|_| value()).collect() }
    }

    fn key(&self, n: usize) -> String {
        format!("s{}", n % self.streams)
    }

    fn value(&self, n: usize) -> &str {
        &self.values[n % self.values.len()]
    }

    fn bytes_of_one(&self) -> f64 {
        self.values.iter().map(String::len).sum::<usize>() as f64 / self.values.len() as f64
    }

    /// Which record an output belongs to.
    fn number(&self, output: &[u8]) -> Option<usize> {
        let (stream, rest) = number(output.strip_prefix(br#"{"stream":"s"#)?);
        let (seq, _) = number(rest.strip_prefix(br#"","seq":"#)?);
        Some(seq * self.streams + stream)
    }
}

/// The decimal number that bytes begin with, and the rest.
fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (bytes[..digits].iter().fold(0, |n, digit| 10 * n + usize::from(digit - b'0')), &bytes[digits..])
}

/// A daemon that runs, with a client that hands records in.
struct Running {
    program: Program,
    feed: Box<dyn Feed>,
    watch: Option<Watch>,
}

/// A folder that is removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, BenchError> {
        let nanos = crate::clock::unix_ms();
        let dir = std::env::temp_dir().join(format!("strand-bench-{}-{nanos}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| failed("making a folder", &e))?;
        Ok(Scratch(dir))
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Case {
    fn settings(&self, scratch: &Scratch) -> Vec<String> {
        let mut sets = vec![
            format!("transport.kind={}", self.way.name()),
            format!("pipeline.threads={}", self.threads),
            format!("pipeline.commit_interval={}ms", self.commit_interval.as_millis()),
            "log.level=warn,strand=info".to_string(),
        ];
        sets.extend(self.precision.map(|precision| format!("precision={}", precision.name())));
        let place = |name: &str| scratch.0.join(name).display().to_string();
        match self.way {
            Way::Embedded => sets.push(format!("embedded.data_dir={}", place("data"))),
            Way::Stdio => {}
            Way::Kafka => {
                let delivery = match self.delivery {
                    Delivery::ExactlyOnce => "exactly_once",
                    Delivery::AtLeastOnce => "at_least_once",
                };
                sets.extend([
                    format!("kafka.brokers={}", self.brokers),
                    format!("kafka.delivery={delivery}"),
                    format!("kafka.state_dir={}", place("states")),
                    "kafka.replication_factor=1".to_string(),
                    // Some brokers join groups within this time only, and wait for all of it when they are asked.
                    "kafka.properties.session.timeout.ms=6000".to_string(),
                    "kafka.properties.heartbeat.interval.ms=500".to_string(),
                    "kafka.properties.fetch.wait.max.ms=5".to_string(),
                ]);
                let name = scratch.name();
                let topics = [("group", ""), ("input", "-in"), ("output", "-out"), ("changelog", "-state")];
                sets.extend(topics.map(|(key, topic)| format!("kafka.{key}={name}{topic}")));
                sets.push(format!("kafka.dead_letters={name}-dead"));
            }
        }
        sets.extend(self.sets.iter().cloned());
        sets
    }

    /// Starts a daemon; with `before` records in the topic, where that is possible. `watched`: its labels are read.
    fn start(&self, scratch: &Scratch, records: &Records, before: usize, watched: bool) -> Result<Running, BenchError> {
        let start = || Program::start(&self.model, &self.settings(scratch));
        match self.way {
            Way::Embedded => {
                let program = start()?;
                let watch = if watched { Some(ways::watch_http(&program)?) } else { None };
                Ok(Running { feed: Box::new(Http::connect(&program)?), program, watch })
            }
            Way::Stdio => {
                let mut program = start()?;
                let (input, output) = (program.input.take(), program.output.take());
                let (Some(input), Some(output)) = (input, output) else {
                    return Err(BenchError("strand run has no standard input or output".to_string()));
                };
                let watch = ways::watch_lines(output, "reading the output of strand run");
                Ok(Running { program, feed: Box::new(Lines(input)), watch: Some(watch) })
            }
            Way::Kafka => {
                let topic = |kind: &str| format!("{}-{kind}", scratch.name());
                ways::create_topics(&self.brokers, &[topic("in"), topic("out")])?;
                let mut feed: Box<dyn Feed> = Box::new(ToTopic::new(&self.brokers, &topic("in"))?);
                feed.send(records, 0..before)?;
                feed.flush()?;
                let watch = if watched { Some(ways::watch_topic(&self.brokers, &topic("out"))?) } else { None };
                Ok(Running { program: start()?, feed, watch })
            }
        }
    }

    /// The peak.
    ///
    /// # Errors
    /// If the daemon does not start, or stops, or the broker does not answer.
    pub fn peak(&self) -> Result<Peak, BenchError> {
        let scratch = Scratch::new()?;
        let records = Records::new(self.streams, self.words);
        // All streams have begun before it counts.
        let warm = self.streams.max(self.records / 5);
        let all = warm + self.records;
        // So that at both ends as much is computed that is not committed yet: what is, counts for neither.
        let more = all + warm;
        let Running { program, mut feed, watch } = self.start(&scratch, &records, more, false)?;
        if let Some(watch) = watch {
            // Read, so that the daemon can write on; what goes wrong shows in that it does not.
            std::thread::spawn(move || watch(&mut |_| true));
        }
        std::thread::scope(|scope| {
            let feeding = scope.spawn(|| if self.way == Way::Kafka { Ok(()) } else { feed.send(&records, 0..more) });
            let measured = self.measure(&program, warm, all);
            // A feeder that waits for the daemon, or still sends, learns of its end.
            drop(program);
            let _fed = feeding.join().map_err(|_| BenchError("the feeding thread panicked".to_string()))?;
            measured.map(|peak| peak.with_bytes(self.words, records.bytes_of_one()))
        })
    }

    fn measure(&self, program: &Program, from: usize, to: usize) -> Result<Peak, BenchError> {
        let first = reached(program, from)?;
        let last = reached(program, to)?;
        let records = counted(first.records, last.records)?;
        let seconds = last.at.duration_since(first.at).as_secs_f64().max(1e-9);
        let spent = |stage: Stage| {
            let name = format!("stage_seconds_total{{stage=\"{}\"}}", stage.name());
            (last.metrics.get(&name) - first.metrics.get(&name)) / seconds
        };
        let each = |stages: &[Stage]| stages.iter().map(|stage| spent(*stage)).sum::<f64>() / self.threads as f64;
        Ok(Peak {
            records_per_s: records / seconds,
            words_per_s: 0.0,
            mb_per_s: 0.0,
            cores: (last.usage.0 - first.usage.0) / seconds,
            peak_mib: last.usage.1,
            shares: Shares {
                engine: each(&[Stage::Engine]),
                encoding: each(&[Stage::Decode, Stage::Render]),
                state: each(&[Stage::State, Stage::Resident]),
                poll: spent(Stage::Poll),
                commit: spent(Stage::Commit),
            },
        })
    }

    /// Latencies at 20, 50 and 80 % of the peak.
    ///
    /// # Errors
    /// As [`Case::peak`].
    pub fn latencies(&self, peak: &Peak) -> Result<Vec<Latency>, BenchError> {
        let rates = [0.2, 0.5, 0.8].map(|load| (load, load * peak.records_per_s));
        let scratch = Scratch::new()?;
        let records = Records::new(self.streams, self.words);
        let running = self.start(&scratch, &records, 0, true)?;
        latency::measure(running, &records, self.streams, &rates, self.latency_for)
    }
}

impl Peak {
    fn with_bytes(self, words: usize, bytes: f64) -> Peak {
        let (words_per_s, mb_per_s) = (self.records_per_s * words as f64, self.records_per_s * bytes / 1e6);
        Peak { words_per_s, mb_per_s, ..self }
    }
}

/// The daemon at one time.
struct Sight {
    at: Instant,
    records: f64,
    metrics: Metrics,
    usage: (f64, f64),
}

/// Records committed between two sights: there are none where both ends were committed at once, and then no rate.
fn counted(first: f64, last: f64) -> Result<f64, BenchError> {
    if last > first {
        return Ok(last - first);
    }
    Err(BenchError(format!("all records to be counted were committed at once, with {first} others: raise --budget")))
}

/// Waits until so many records are committed.
fn reached(program: &Program, records: usize) -> Result<Sight, BenchError> {
    let (mut seen, mut since) = (0.0, Instant::now());
    loop {
        let (metrics, at, usage) = (program.metrics()?, Instant::now(), program.usage());
        let committed = metrics.get("records_total");
        if committed >= records as f64 {
            return Ok(Sight { at, records: committed, metrics, usage });
        }
        if committed > seen {
            (seen, since) = (committed, at);
        }
        if since.elapsed() > PATIENCE {
            return Err(BenchError(format!("strand run stands still at {committed} of {records} records")));
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// A model directory for the bench, in a folder that goes with it.
pub struct BenchModel(Scratch);

impl BenchModel {
    /// # Errors
    /// If the files cannot be written.
    pub fn write() -> Result<BenchModel, BenchError> {
        let scratch = Scratch::new()?;
        model::write(&scratch.0.join("model")).map_err(|e| failed("writing the model", &e))?;
        Ok(BenchModel(scratch))
    }

    pub fn dir(&self) -> PathBuf {
        Path::new(&self.0.0).join("model")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_at_once_has_no_rate() {
        assert_eq!(counted(10.0, 25.0).map_err(|e| e.0), Ok(15.0));
        let error = counted(25.0, 25.0).map(|_| ()).map_err(|e| e.0).unwrap_err();
        assert!(error.contains("with 25 others: raise --budget"), "{error}");
    }

    #[test]
    fn an_output_tells_which_record_it_belongs_to() {
        let records = Records::new(7, 2);
        assert_eq!(records.key(24), "s3");
        assert_eq!(records.number(br#"{"stream":"s3","seq":3,"model":"m"}"#), Some(24));
        assert_eq!(records.number(br#"{"error":"x"}"#), None);
    }
}
