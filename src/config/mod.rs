//! The configuration of `strand run`: one type for each table of the TOML file, each key with its default.
//!
//! What the keys mean is written for users in `deploy/strand.example.toml`; a test holds the two together. Reading
//! (environment, `--set`, misspelt keys) is in [`load`](Config::load)'s module, the units in `units`.

mod load;
mod units;

pub use load::{ConfigError, apply};
pub use units::{Bytes, Period};

use crate::encode::{EncoderSpec, InputFormat};
use crate::model::StatePrecision;
use crate::rnn::matrix::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that `strand run` can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub model: PathBuf,
    /// Absent: as `model.toml` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    pub on_model_change: OnModelChange,
    /// With [`OnModelChange::Drain`]: directory of the model whose streams are live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_model: Option<PathBuf>,
    pub shutdown_timeout: Period,
    pub transport: TransportConfig,
    pub input: InputConfig,
    pub pipeline: PipelineConfig,
    pub state: StateConfig,
    pub embedded: EmbeddedConfig,
    pub stdio: StdioConfig,
    pub kafka: KafkaConfig,
    pub http: HttpConfig,
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            model: "models/ner-en".into(),
            precision: None,
            on_model_change: OnModelChange::Refuse,
            previous_model: None,
            shutdown_timeout: Period::seconds(30),
            transport: TransportConfig::default(),
            input: InputConfig::default(),
            pipeline: PipelineConfig::default(),
            state: StateConfig::default(),
            embedded: EmbeddedConfig::default(),
            stdio: StdioConfig::default(),
            kafka: KafkaConfig::default(),
            http: HttpConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// What to do when the stored states were made by another model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnModelChange {
    /// Don't start; say what to do.
    Refuse,
    /// Drop the states: every stream begins anew.
    Reset,
    /// Live streams of `previous_model` go on with it until they end; others begin with the model given.
    Drain,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    pub kind: TransportKind,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig { kind: TransportKind::Embedded }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    Embedded,
    Stdio,
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Absent: what the model reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<ValueFormat>,
    pub pointer: String,
    pub max_record_bytes: Bytes,
}

impl Default for InputConfig {
    fn default() -> Self {
        InputConfig { format: None, pointer: "/text".to_string(), max_record_bytes: Bytes::mib(1) }
    }
}

/// `input.format`: [`InputFormat`], or an object of which one field is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueFormat {
    Text,
    Tokens,
    Dna,
    Vector,
    /// A JSON object; the field at `input.pointer` is read as the model's own format.
    Json,
}

impl InputConfig {
    /// How values are read for a model with this encoder, or why `input.format` does not fit it.
    pub fn resolve(&self, encoder: &EncoderSpec) -> Result<(InputFormat, Option<String>), ConfigError> {
        let (native, fits): (InputFormat, &[InputFormat]) = match encoder {
            EncoderSpec::Words(_) => (InputFormat::Text, &[InputFormat::Text, InputFormat::Tokens]),
            EncoderSpec::Chars(_) | EncoderSpec::Sentences(_) => (InputFormat::Text, &[InputFormat::Text]),
            EncoderSpec::Dna(_) => (InputFormat::Dna, &[InputFormat::Dna]),
            EncoderSpec::Events(_) => (InputFormat::Tokens, &[InputFormat::Tokens]),
            EncoderSpec::Vector(_) => (InputFormat::Vector, &[InputFormat::Vector]),
            EncoderSpec::Notes(_) => (InputFormat::Notes, &[InputFormat::Notes]),
        };
        let format = match self.format {
            None => return Ok((native, None)),
            Some(ValueFormat::Json) => return Ok((native, Some(self.pointer.clone()))),
            Some(ValueFormat::Text) => InputFormat::Text,
            Some(ValueFormat::Tokens) => InputFormat::Tokens,
            Some(ValueFormat::Dna) => InputFormat::Dna,
            Some(ValueFormat::Vector) => InputFormat::Vector,
        };
        if fits.contains(&format) {
            return Ok((format, None));
        }
        let name = |format: &InputFormat| format!("\"{format:?}\"").to_lowercase();
        let fits = fits.iter().map(name).collect::<Vec<_>>().join(" or ");
        let detail = format!(
            "input.format = {} does not fit the model, which reads {fits} (or \"json\" around it)",
            name(&format)
        );
        Err(ConfigError::Invalid(detail))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineConfig {
    /// Engine threads; 0: one for each core.
    pub threads: usize,
    pub batch_records: usize,
    pub batch_bytes: Bytes,
    /// How long what is computed may wait for more to be committed with it; zero: not at all.
    pub commit_interval: Period,
    /// The same, if it is longer, while the source has more than is labelled: at most, and half of the time that it has had.
    pub catch_up_interval: Period,
    /// Records, and bytes of outputs and states, with which it waits no longer.
    pub commit_records: usize,
    pub commit_bytes: Bytes,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        PipelineConfig {
            threads: 0,
            batch_records: 1024,
            batch_bytes: Bytes(256 << 10),
            commit_interval: Period(std::time::Duration::ZERO),
            catch_up_interval: Period(std::time::Duration::from_secs(2)),
            commit_records: 65_536,
            commit_bytes: Bytes::mib(128),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// Bytes, and number, of the sessions that are kept in memory.
    pub memory: Bytes,
    pub max_resident: usize,
    /// How h and c are kept between records, in memory and wherever states are stored.
    pub precision: StatePrecision,
    pub stream_ttl: Period,
}

impl Default for StateConfig {
    fn default() -> Self {
        StateConfig {
            memory: Bytes::mib(512),
            max_resident: 1_000_000,
            precision: StatePrecision::F32,
            stream_ttl: Period(std::time::Duration::ZERO),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    pub data_dir: PathBuf,
    pub cache: Bytes,
    pub queue_max_records: u64,
    pub queue_max_bytes: Bytes,
    pub labels_keep: Period,
    pub labels_max_bytes: Bytes,
    pub dead_letters_keep: Period,
    pub dead_letters_max_bytes: Bytes,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        EmbeddedConfig {
            data_dir: "strand-data".into(),
            cache: Bytes::mib(128),
            queue_max_records: 1_000_000,
            queue_max_bytes: Bytes::mib(1024),
            labels_keep: Period::seconds(7 * 86_400),
            labels_max_bytes: Bytes::mib(4096),
            dead_letters_keep: Period::seconds(30 * 86_400),
            dead_letters_max_bytes: Bytes::mib(256),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StdioConfig {
    /// Absent: streams live no longer than the input, at whose end they are ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    pub brokers: String,
    pub group: String,
    pub input: String,
    pub output: String,
    pub dead_letters: String,
    pub changelog: String,
    pub delivery: Delivery,
    /// Create output, dead letters and changelog where they are missing.
    pub create_topics: bool,
    /// With this many partitions the input is created too. Absent: it is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_partitions: Option<u16>,
    /// Of topics that are created; absent: as the broker does by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<u16>,
    pub state_dir: PathBuf,
    pub state_cache: Bytes,
    /// How often that copy is saved, so that a later start goes on from there.
    pub state_save: Period,
    /// Follow the changelog of partitions that others are in charge of.
    pub standby: bool,
    pub ended_keep: Period,
    /// Passed to librdkafka unchanged.
    pub properties: BTreeMap<String, Property>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig {
            brokers: "localhost:9092".to_string(),
            group: "strand".to_string(),
            input: "strand-input".to_string(),
            output: "strand-labels".to_string(),
            dead_letters: "strand-dead-letters".to_string(),
            changelog: "strand-state".to_string(),
            delivery: Delivery::ExactlyOnce,
            create_topics: true,
            input_partitions: None,
            replication_factor: None,
            state_dir: "strand-kafka".into(),
            state_cache: Bytes::mib(256),
            state_save: Period::seconds(10),
            standby: false,
            ended_keep: Period::seconds(86_400),
            properties: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

/// A librdkafka property: written as text, number or truth value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Property {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl std::fmt::Display for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Property::Text(text) => text.fmt(f),
            Property::Number(number) => number.fmt(f),
            Property::Flag(flag) => flag.fmt(f),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Absent: 127.0.0.1:8080, but none with the stdio transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub wait_timeout: Period,
    pub max_request_bytes: Bytes,
    pub max_followers: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            listen: None,
            token: None,
            wait_timeout: Period::seconds(10),
            max_request_bytes: Bytes::mib(16),
            max_followers: 256,
        }
    }
}

/// Where HTTP listens: an address, or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    At(SocketAddr),
    Off,
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        match text {
            "off" => Ok(Listen::Off),
            address => address
                .parse()
                .map(Listen::At)
                .map_err(|_| format!("{address:?} is no address such as \"127.0.0.1:8080\", nor \"off\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Listen::At(address) => serializer.collect_str(address),
            Listen::Off => serializer.serialize_str("off"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    /// As in `RUST_LOG`: `info`, `strand=debug`, …
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, level: "info".to_string() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}
