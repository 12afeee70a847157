//! `strand send`: records from a file or standard input to a Kafka topic, for trying things out and for load.

mod broker;
mod lines;

use super::usage;
use anyhow::{Context, bail};
use broker::{Answer, Broker, Question};
use indicatif::{ProgressBar, ProgressStyle};
use lines::{Lines, Next, Numbered, Pace};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strand::config::{Config, ConfigError};
use strand::shutdown::Shutdown;
use strand::transport::kafka::check_properties;

/// How often Ctrl-C is looked for while waiting.
const MOMENT: Duration = Duration::from_millis(50);
/// Pause before the broker is asked again for the topic.
const RETRY: Duration = Duration::from_millis(500);
/// After Ctrl-C: how long acknowledgements are waited for.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// Send records to Kafka: JSON lines, as for POST /v1/records.
///
/// A line is {"stream":"s1","text":"a piece"}; instead of "text" there may be "tokens", "value" (any JSON) or "base64",
/// and an "event": start, flush, reset or end. The stream becomes the record's key, the event its strand-event header.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File of JSON lines, or - for standard input, whose lines are sent as they come
    file: PathBuf,
    /// Brokers to begin with [default: localhost:9092]
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// Topic to send to; it is waited for [default: strand-input]
    #[arg(long)]
    topic: Option<String>,
    /// Configuration of `strand run`, of which [kafka] says the rest: brokers, input, properties such as TLS and SASL
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key of the configuration, such as kafka.properties.linger.ms=50; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Make N streams of each, named NAME-0, NAME-1, …: copies of the file (held in memory) that interleave
    #[arg(long, value_name = "N", default_value_t = 1)]
    streams: usize,
    /// Records a second, evenly [default: as fast as the broker takes them]
    #[arg(long, value_name = "RECORDS")]
    rate: Option<f64>,
    /// Begin again at the end of the file (held in memory), until Ctrl-C; streams that have ended begin anew
    #[arg(long)]
    repeat: bool,
}

impl Args {
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref(), &self.sets)?;
        if let Some(brokers) = &self.brokers {
            config.kafka.brokers.clone_from(brokers);
        }
        if let Some(topic) = &self.topic {
            config.kafka.input.clone_from(topic);
        }
        check_properties(&config.kafka)?;
        Ok(config)
    }

    fn name(&self) -> String {
        if self.is_stdin() { "standard input".to_string() } else { self.file.display().to_string() }
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    fn lines(&self) -> anyhow::Result<Lines> {
        let input: Box<dyn BufRead + Send> = match self.is_stdin() {
            true => Box::new(BufReader::new(std::io::stdin())),
            false => {
                let file = File::open(&self.file).map_err(|e| usage(format!("cannot read {}: {e}", self.name())))?;
                Box::new(BufReader::new(file))
            }
        };
        if self.streams == 1 && !self.repeat {
            return Ok(Lines::live(input, self.name())?);
        }
        Lines::held(input, &self.name(), self.streams, self.repeat).map_err(anyhow::Error::msg)
    }
}

/// Sends until the input ends or the user has seen enough. The error names the line that could not be sent.
pub fn run(args: Args) -> anyhow::Result<()> {
    let config = args.config()?;
    if args.streams == 0 {
        return Err(usage("--streams must be at least 1"));
    }
    if args.rate.is_some_and(|rate| !rate.is_normal() || rate < 0.0) {
        return Err(usage("--rate must be greater than 0"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let shutdown = Shutdown::new();
    {
        let _in_runtime = runtime.enter();
        shutdown.request_on_signals()?;
    }
    let lines = args.lines()?;
    let mut talk = Talk::new(lines.total());
    let result = match wait_for_topic(&config, &shutdown, &mut talk) {
        Ok(true) => send(&args, &config, lines, &shutdown, &mut talk),
        Ok(false) => {
            talk.end("sent 0 records, 0 acknowledged: the topic was not there yet");
            Ok(())
        }
        Err(error) => Err(error),
    };
    // A thread that reads standard input must not hold up the end.
    runtime.shutdown_background();
    result
}

/// False: the user has seen enough.
fn wait_for_topic(config: &Config, shutdown: &Shutdown, talk: &mut Talk) -> anyhow::Result<bool> {
    let question = Question::new(config).context("cannot make a Kafka client")?;
    while !shutdown.is_requested() {
        match question.ask().map_err(anyhow::Error::msg)? {
            Answer::There => return Ok(true),
            Answer::NotYet(reason) => talk.waiting(&reason),
        }
        shutdown.sleep(RETRY);
    }
    Ok(false)
}

fn send(args: &Args, config: &Config, lines: Lines, shutdown: &Shutdown, talk: &mut Talk) -> anyhow::Result<()> {
    let mut broker = Broker::new(config).context("cannot make a Kafka client")?;
    let begun = Instant::now();
    talk.bar.reset_elapsed();
    let sent = send_lines(args, lines, &mut broker, shutdown, talk);
    // Whatever happened: what is under way is waited for.
    let mut until = None;
    while broker.acknowledged() < broker.sent && broker.refused().is_none() {
        broker.flush(MOMENT);
        talk.progress(&broker);
        if shutdown.is_requested() && Instant::now() > *until.get_or_insert_with(|| Instant::now() + LAST_WAIT) {
            break;
        }
    }
    let (sent_records, acknowledged, seconds) = (broker.sent, broker.acknowledged(), begun.elapsed().as_secs_f64());
    talk.end(&format!(
        "sent {sent_records} records to {} at {}, {acknowledged} acknowledged, in {seconds:.1} s ({:.0}/s)",
        config.kafka.input,
        config.kafka.brokers,
        acknowledged as f64 / seconds.max(1e-9),
    ));
    sent?;
    if let Some((line, reason)) = broker.refused() {
        bail!("{}, line {line}: {reason}", args.name());
    }
    if acknowledged < sent_records {
        bail!("{} records were not acknowledged in time; they may have arrived or not", sent_records - acknowledged);
    }
    Ok(())
}

/// Hands lines to the producer until they end, one is refused, or the user has seen enough.
fn send_lines(
    args: &Args,
    mut lines: Lines,
    broker: &mut Broker,
    shutdown: &Shutdown,
    talk: &mut Talk,
) -> anyhow::Result<()> {
    let mut pace = Pace::new(args.rate, Instant::now());
    let mut held_up: Option<(Numbered, usize)> = None;
    while !shutdown.is_requested() && broker.refused().is_none() {
        talk.progress(broker);
        let wait = pace.wait(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait.min(MOMENT));
            continue;
        }
        let next = match held_up.take() {
            Some((line, copy)) => Next::Line(line, copy),
            None => lines.next(MOMENT).map_err(anyhow::Error::msg)?,
        };
        let (line, copy) = match next {
            Next::Line(line, copy) => (line, copy),
            Next::Nothing => continue,
            Next::End => break,
        };
        let copied = (args.streams > 1).then(|| format!("{}-{copy}", line.line.stream));
        let stream = copied.as_ref().unwrap_or(&line.line.stream);
        let taken = broker.send(line.number, &line.line, stream);
        match taken.with_context(|| format!("{}, line {}", args.name(), line.number))? {
            true => pace.sent(),
            false => {
                held_up = Some((line, copy));
                broker.flush(MOMENT);
            }
        }
    }
    Ok(())
}

/// What the user is told: a line of progress on a terminal, and why nothing goes on.
struct Talk {
    bar: ProgressBar,
    said: String,
    looked: Instant,
}

impl Talk {
    fn new(total: Option<u64>) -> Talk {
        // Hidden where standard error is no terminal.
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = match total {
            Some(_) => "{bar:30} {pos}/{len} acknowledged{msg}, {eta} left",
            None => "{spinner} {pos} acknowledged{msg}, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Talk { bar, said: String::new(), looked: Instant::now() }
    }

    /// Says it once, until something else is to be said.
    fn waiting(&mut self, reason: &str) {
        if self.said != reason {
            self.bar.suspend(|| eprintln!("strand: waiting: {reason}"));
            self.said = reason.to_string();
        }
    }

    fn progress(&mut self, broker: &Broker) {
        if self.looked.elapsed() < 2 * MOMENT {
            return;
        }
        self.looked = Instant::now();
        let acknowledged = broker.acknowledged();
        self.bar.set_position(acknowledged);
        let rate = acknowledged as f64 / self.bar.elapsed().as_secs_f64().max(1e-9);
        self.bar.set_message(format!(", {} sent, {rate:.0}/s", broker.sent));
        match broker.complaint() {
            // A connection that breaks while nothing is under way is made again when it is needed.
            Some(complaint) if acknowledged < broker.sent => self.waiting(&complaint),
            _ => self.said.clear(),
        }
    }

    fn end(&mut self, summary: &str) {
        self.bar.finish_and_clear();
        eprintln!("{summary}");
    }
}
