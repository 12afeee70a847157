//! The pipeline on a source in memory: records of words in, labels out, sessions kept in memory, nothing written anywhere.
//! What grows are the live streams, the records, the partitions or the threads.

use super::{Axis, Effort, Point, spread};
use crate::config::{Bytes, InputConfig, PipelineConfig, StateConfig};
use crate::encode::{Encoder, EncoderSpec, InputFormat, Tokenizer, WordSpec};
use crate::events::Events;
use crate::health::Health;
use crate::model::params::{NetShape, Params};
use crate::model::testing::{layers, words_spec};
use crate::model::{Model, ModelSpec};
use crate::pipeline::{Parts, Pipeline, System};
use crate::rnn::Cell;
use crate::shutdown::Shutdown;
use crate::state::MemoryStates;
use crate::transport::{Origin, PollLimits, Polled, RawRecord, Sink, Source, Transaction, Transport, TransportError};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

const WORDS: usize = 1000;
/// Words of a record where they do not grow.
const RECORD: usize = 20;
/// Live streams where they do not grow.
const STREAMS: usize = 1024;
/// Different records.
const VALUES: usize = 64;
/// Parts of a measurement, of which the median is taken.
const ROUNDS: usize = 5;

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Load {
    streams: usize,
    partitions: usize,
    /// Words of a record.
    words: usize,
    threads: usize,
}

const LOAD: Load = Load { streams: STREAMS, partitions: 1, words: RECORD, threads: 1 };

/// Live streams, 1 to 1,000,000; each record is of another stream than the last.
pub fn streams(effort: Effort) -> Axis {
    let model = model();
    let sizes = (0..7).map(|k| 10usize.pow(k)).filter(|streams| *streams <= effort.streams);
    let points = sizes.map(|streams| point(&model, streams, Load { streams, ..LOAD }, effort)).collect();
    let title = "Cost of a word by live streams: 2 LSTM of 128, records of 20 words";
    Axis { name: "streams", x: "streams", title, work: "word", points }
}

/// Words of a record, 1 to 1,000.
pub fn record(effort: Effort) -> Axis {
    let model = model();
    let sizes = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    let points = sizes.map(|words| point(&model, words, Load { words, ..LOAD }, effort)).to_vec();
    let title = "Cost of a word by the words of a record: 2 LSTM of 128, 1,024 streams";
    Axis { name: "record", x: "words", title, work: "word", points }
}

/// Partitions that the streams are spread over, 1 to 256.
pub fn partitions(effort: Effort) -> Axis {
    let model = model();
    let sizes = [1, 4, 16, 64, 256];
    let points = sizes.map(|partitions| point(&model, partitions, Load { partitions, ..LOAD }, effort)).to_vec();
    let title = "Cost of a word by partitions: 2 LSTM of 128, 1,024 streams";
    Axis { name: "partitions", x: "partitions", title, work: "word", points }
}

/// Engine threads (shards), 1 to the number of processors. The work is what one thread has of a word.
pub fn threads(effort: Effort) -> Axis {
    let model = model();
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let sizes = (0..).map(|k| 1usize << k).take_while(|threads| *threads <= most);
    let points = sizes.map(|threads| {
        let point = point(&model, threads, Load { threads, ..LOAD }, effort);
        Point { work: 1.0 / threads as f64, ..point }
    });
    let title = "Cost of a word by engine threads: 2 LSTM of 128, 1,024 streams";
    Axis { name: "threads", x: "threads", title, work: "word_and_thread", points: points.collect() }
}

fn word(k: usize) -> String {
    let letters = [k / 100, k / 10, k].map(|digit| char::from(b'a' + (digit % 10) as u8));
    letters.iter().chain(&['e']).collect()
}

/// Two LSTM of 128 over vectors of words.
fn model() -> Arc<Model> {
    let encoder = EncoderSpec::Words(WordSpec {
        tokenizer: Tokenizer::Whitespace,
        word_dim: 64,
        min_count: 1,
        shape_dim: 0,
        char_hidden: 0,
        ..WordSpec::default()
    });
    let spec = ModelSpec { encoder, ..words_spec("scaling", layers(&[Cell::Lstm; 2], 128)) };
    let words: Vec<String> = (0..WORDS).map(word).collect();
    let encoder = Encoder::learn(&spec.encoder, &mut words.iter().map(String::as_str), Path::new("."))
        .expect("an encoder without files is learnt from any words");
    let shape = NetShape::of(&spec, encoder.layout()).expect("the specification is a sound one");
    let params = Params::random(&shape, &mut ChaCha8Rng::seed_from_u64(0));
    Arc::new(Model::new(spec, encoder, &params).expect("the parameters are drawn for the specification"))
}

/// What a word costs under this load.
fn point(model: &Arc<Model>, x: usize, load: Load, effort: Effort) -> Point {
    // How fast it is must be known before it can be said how many records fill the time.
    let trial = run(model, Load { streams: load.streams.min(STREAMS), ..load }, 20_000 / load.words + 100);
    let records = (effort.budget.as_secs_f64() / ROUNDS as f64 / trial[0] / load.words as f64).ceil() as usize;
    Point { x, ns: run(model, load, records.max(100)).map(|s| s * 1e9), work: 1.0 }
}

/// Seconds a word, after a record of one word of every stream: median, least, most of [`ROUNDS`] times so many records.
fn run(model: &Arc<Model>, load: Load, records: usize) -> [f64; 3] {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let text = |words: usize, rng: &mut ChaCha8Rng| {
        (0..words).map(|_| word(rng.random_range(0..WORDS)) + " ").collect::<String>().into_bytes()
    };
    let mut order: Vec<u32> = (0..load.streams as u32).collect();
    order.shuffle(&mut rng);
    let marks = Arc::new(Mutex::new(Vec::new()));
    let source = MemorySource {
        values: (0..VALUES).map(|_| text(load.words, &mut rng)).collect(),
        first: text(1, &mut rng),
        offsets: vec![0; load.partitions],
        topic: "memory".into(),
        order,
        next: 0,
        records,
        marks: marks.clone(),
    };
    let states = Arc::new(MemoryStates::default());
    let transport = Transport {
        source: Box::new(source),
        sink: Box::new(NoSink),
        states: states.clone(),
        replays: false,
        end_streams_at_end: false,
    };
    let events = Events::new(&model.spec().labels).expect("the metrics' names are sound");
    let parts = Parts {
        model: model.clone(),
        previous: None,
        states,
        events: events.clone(),
        input: &InputConfig::default(),
        format: (InputFormat::Text, None),
        pipeline: &PipelineConfig { threads: load.threads, ..PipelineConfig::default() },
        // The sink keeps nothing: all must stay in memory.
        state: &StateConfig { memory: Bytes(1 << 40), max_resident: usize::MAX, ..StateConfig::default() },
        runtime: Arc::new(System),
    };
    let health = Health::new(events, &["pipeline"]);
    Pipeline::start(transport, &parts, health, Shutdown::new())
        .and_then(|pipeline| pipeline.run().map_err(std::io::Error::other))
        .expect("threads start, and a source and a sink in memory do not fail");
    let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
    marks.push((load.streams + ROUNDS * records, Instant::now()));
    // One poll may take all that is left of two rounds.
    let rounds = marks.windows(2).filter(|pair| pair[0].0 < pair[1].0).map(|pair| {
        let [(from, began), (to, ended)] = [pair[0], pair[1]];
        (ended - began).as_secs_f64() / ((to - from) * load.words) as f64
    });
    spread(rounds.collect())
}

/// Every stream once with one word, then records of all streams by turns.
struct MemorySource {
    values: Vec<Vec<u8>>,
    first: Vec<u8>,
    offsets: Vec<i64>,
    topic: Arc<str>,
    order: Vec<u32>,
    next: usize,
    records: usize,
    /// After how many records, and when: once all streams live, and at the end of each round but the last.
    marks: Arc<Mutex<Vec<(usize, Instant)>>>,
}

impl Source for MemorySource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        let streams = self.order.len();
        let end = streams + ROUNDS * self.records;
        {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if marks.len() < ROUNDS && self.next >= streams + marks.len() * self.records {
                marks.push((self.next, Instant::now()));
            }
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while self.next < end && !limits.reached(records.len(), bytes) {
            let stream = self.order[self.next % streams];
            let value = if self.next < streams { &self.first } else { &self.values[self.next % self.values.len()] };
            let partition = stream as usize % self.offsets.len();
            let offset = self.offsets[partition];
            self.offsets[partition] += 1;
            bytes += value.len();
            records.push(RawRecord {
                origin: Origin::Record { topic: self.topic.clone(), partition: partition as i32, offset },
                key: Some(format!("stream-{stream}").into_bytes()),
                value: value.clone(),
                headers: Vec::new(),
                timestamp_ms: 1,
                defect: None,
            });
            self.next += 1;
        }
        Ok(if records.is_empty() { Polled::End } else { Polled::Records(records) })
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        Err(TransportError::Fatal("a source in memory does not go back".to_string()))
    }

    fn pause(&mut self) {}

    fn resume(&mut self) {}
}

/// Takes everything and keeps nothing.
struct NoSink;

impl Sink for NoSink {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        drop(transaction);
        Ok(())
    }
}
