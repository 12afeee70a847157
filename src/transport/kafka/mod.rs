//! Kafka as a transport: records from a consumer group, labels and dead letters to topics, states in a compacted
//! changelog topic that has the input's partitions.
//!
//! With `delivery = "exactly_once"` all that a batch leads to and the group's offsets are one transaction (KIP-447: the
//! group's generation fences an instance that lost its partitions). With `"at_least_once"` a batch is written in this
//! order, each step acknowledged before the next: labels and dead letters; states, each with the offset that its stream
//! has seen; the group's offsets. So a state that is in the changelog proves that the labels before it are published, and
//! a record read again at or below its stream's offset is skipped. What was published and whose state was not is labelled
//! again from the same state, hence with the same bytes and the same `strand-source`.
//!
//! | file | what |
//! | --- | --- |
//! | [`clients`] | librdkafka's clients, configured |
//! | [`topics`] | the four topics checked, or created |
//! | [`source`] | the consumer: connecting, polling, positions |
//! | [`assignment`] | which partitions are ours and how far they are; shared by all |
//! | [`restore`] | a thread that reads the changelog of partitions that were assigned |
//! | [`store`], [`unwritten`], [`checkpoint`] | the local copy of the states, read and saved, what of it is not in its file yet, and what outlives the process |
//! | [`sink`], [`delivery`] | the producer: order of writes, acknowledgements |
//! | [`words`] | errors as people want to read them |

mod assignment;
mod check;
mod checkpoint;
mod clients;
mod context;
mod delivery;
mod restore;
mod sink;
mod source;
mod store;
mod topics;
mod unwritten;
mod words;

// Knows nothing of librdkafka: the simulation of the tests runs on it too.
#[doc(hidden)]
pub use assignment::Assignment;
pub use check::check_online;
pub use clients::{check_properties, client};
pub use words::{explain, explain_complaint};

use super::{Transport, TransportError};
use crate::config::{Config, ConfigError, Delivery, KafkaConfig};
use crate::events::Events;
use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::state::{ModelPolicy, StoreError};
use context::Voice;
use delivery::Producer;
use rdkafka::consumer::BaseConsumer;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use store::Store;
use topics::Layout;

/// What source, sink and restorer share.
struct Shared {
    config: KafkaConfig,
    /// [`crate::config::InputConfig::max_record_bytes`]: what topics must hold follows from it.
    max_record_bytes: usize,
    assignment: Assignment,
    store: Arc<Store>,
    voice: Voice,
    events: Events,
    health: Health,
    shutdown: Shutdown,
    /// From when the broker was reached and the topics are in order until the source ends.
    connected: RwLock<Option<Arc<Connected>>>,
    /// With `delivery = "exactly_once"`: the producer's name, by which its successor is known.
    transactional_id: Option<String>,
}

/// What there is once the broker was reached.
struct Connected {
    consumer: Arc<BaseConsumer<context::ConsumerContext>>,
    layout: Layout,
    /// Made and warmed up while the group is joined; the sink takes it.
    producer: Mutex<Option<Producer>>,
}

/// Why Kafka could not be opened as a transport. That a broker does not answer is no reason: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The transport. Returns at once; the broker is connected to by the source's first polls.
pub fn open(
    config: &Config,
    policy: ModelPolicy,
    events: &Events,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Transport, OpenError> {
    let kafka = &config.kafka;
    clients::check_properties(kafka)?;
    let store = Store::open(&kafka.state_dir, kafka.state_cache.len(), &kafka.changelog, policy, events.clone())?;
    let store = Arc::new(store);
    let transactional_id = match kafka.delivery {
        Delivery::ExactlyOnce => Some(format!("{}-{}", kafka.group, instance_name(&kafka.state_dir)?)),
        Delivery::AtLeastOnce => None,
    };
    let shared = Arc::new(Shared {
        config: kafka.clone(),
        max_record_bytes: config.input.max_record_bytes.len(),
        assignment: Assignment::new(events.clone()),
        store: store.clone(),
        voice: Voice::new(events.clone()),
        events: events.clone(),
        health: health.clone(),
        shutdown: shutdown.clone(),
        connected: RwLock::default(),
        transactional_id,
    });
    health.trouble("kafka", format!("connecting to {}", kafka.brokers));
    let restorer = restore::start(shared.clone()).map_err(OpenError::Thread)?;
    Ok(Transport {
        source: Box::new(source::KafkaSource::new(shared.clone(), restorer)),
        sink: Box::new(sink::KafkaSink::new(shared)),
        states: store,
        replays: true,
        end_streams_at_end: false,
    })
}

/// A name that this instance keeps from one start to the next: in `kafka.state_dir`, made up at the first start.
fn instance_name(state_dir: &Path) -> Result<String, OpenError> {
    let path = state_dir.join("instance");
    let failed = |e: std::io::Error| StoreError::Open { path: path.clone(), detail: e.to_string() };
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_string()),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e).into()),
        _ => {}
    }
    // Keyed by the system's randomness.
    let name = format!("{:016x}", RandomState::new().hash_one(crate::clock::unix_ms()));
    std::fs::write(&path, &name).map_err(failed)?;
    Ok(name)
}

impl Shared {
    /// Set before anything is polled, so that whoever has records has this.
    fn connected(&self) -> Result<Arc<Connected>, TransportError> {
        let missing = || TransportError::Transient("not connected".to_string());
        self.connected.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(missing)
    }

    fn set_connected(&self, connected: Option<Connected>) {
        *self.connected.write().unwrap_or_else(PoisonError::into_inner) = connected.map(Arc::new);
    }

    /// Partitions whose records are polled, and whose states the local copy lacks: it was opened anew, as it was saved last,
    /// after an error of the disk.
    fn unwhole(&self) -> Vec<i32> {
        let whole = self.store.serving();
        self.assignment.served().into_iter().filter(|partition| !whole.contains(partition)).collect()
    }

    /// Records of all partitions in charge are polled, and the states of all are there.
    fn is_all_served(&self) -> bool {
        self.assignment.is_all_served() && self.unwhole().is_empty()
    }

    /// The local copy cannot be `done` ("saved", "written"): told until it has been saved again.
    fn copy_fails(&self, done: &str, error: &redb::Error) {
        self.events.checkpoint_not_saved(error);
        self.health.trouble("checkpoint", format!("the local copy of the states cannot be {done}: {error}"));
    }

    fn new_producer(&self, layout: &Layout) -> Result<Producer, TransportError> {
        let id = self.transactional_id.as_deref();
        Producer::new(&self.config, layout, self.voice.clone(), self.shutdown.clone(), id)
    }
}
