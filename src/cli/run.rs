//! `strand run`: the daemon.

use super::feed::Feed;
use std::io::IsTerminal;
use std::path::PathBuf;
use strand::config::{Config, ConfigError, Listen, LogConfig, LogFormat, OnModelChange, TransportKind};
use strand::daemon;
use strand::rnn::matrix::Precision;
use strand::shutdown::Shutdown;

/// Threads that read the store for clients. All followers read after each commit: without this bound, hundreds of
/// threads would.
const READS_AT_ONCE: usize = 16;

/// Label streams until told to stop.
///
/// Without a configuration: a durable queue and labels in --data-dir, fed and read over HTTP.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Configuration file (TOML); every key is explained in deploy/strand.example.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key of the configuration, such as state.stream_ttl=12h; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Directory of the model [default: models/ner-en]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// How weights are held and multiplied [default: as model.toml says, else f32]
    #[arg(long, value_enum, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Where the embedded queue, labels and states are kept [default: ./strand-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to serve HTTP on, or "off" [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<Listen>,
    /// What to do with states that another model made [default: refuse]
    #[arg(long, value_name = "WHAT")]
    pub on_model_change: Option<OnModelChange>,
    /// With --on-model-change drain: directory of the model before, whose live streams go on with it until they end
    #[arg(long, value_name = "DIR")]
    pub previous_model: Option<PathBuf>,
    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Hand these records (JSON lines, as for POST /v1/records) to the embedded queue and show their labels
    #[arg(long, value_name = "FILE")]
    pub feed: Option<PathBuf>,
}

impl RunArgs {
    /// The configuration that the arguments ask for; they win over the file.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref(), &self.sets)?;
        if let Some(model) = &self.model {
            config.model = model.clone();
        }
        config.precision = self.precision.or(config.precision);
        if let Some(data_dir) = &self.data_dir {
            config.embedded.data_dir = data_dir.clone();
        }
        if let Some(http) = self.http {
            config.http.listen = Some(http);
        }
        if let Some(on_model_change) = self.on_model_change {
            config.on_model_change = on_model_change;
        }
        if let Some(previous_model) = &self.previous_model {
            config.previous_model = Some(previous_model.clone());
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        Ok(config)
    }
}

/// Runs the daemon; returns when it has ended in order.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut config = args.config()?;
    let feed = args.feed.as_deref().map(Feed::read).transpose().map_err(super::usage)?;
    if feed.is_some() {
        if config.transport.kind != TransportKind::Embedded {
            return Err(super::usage("--feed needs the embedded transport"));
        }
        // Its output shares the terminal with the log.
        config.log.level = "warn,strand::http=info".to_string();
    }
    start_logs(&config.log)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("http").max_blocking_threads(READS_AT_ONCE);
    let runtime = runtime.build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.request_on_signals()?;
        Ok::<_, anyhow::Error>(
            daemon::run(config, shutdown, |model, queue| {
                if let (Some(feed), Some(queue)) = (feed, queue) {
                    tokio::spawn(feed.run(model, queue));
                }
            })
            .await?,
        )
    });
    // Reading standard input cannot be interrupted; a thread that does must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Logs go to standard error. `RUST_LOG`, if set, wins over `log.level`.
fn start_logs(config: &LogConfig) -> anyhow::Result<()> {
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| config.level.clone());
    let filter = tracing_subscriber::EnvFilter::try_new(level)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Standard error may be closed; complaining about it there would panic.
        .log_internal_errors(false)
        .with_target(false);
    match config.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
