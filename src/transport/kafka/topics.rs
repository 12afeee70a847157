//! The four topics: checked against what Strand needs, created where they are missing and may be.

use super::context::PlainContext;
use super::words::{explain, explain_code};
use crate::config::KafkaConfig;
use crate::events::Events;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// What a broker takes by default (Kafka's `message.max.bytes`).
const DEFAULT_MAX_BYTES: usize = 1_048_588;
/// Bytes of JSON that a byte of input may become: a short word with its label.
const OUTPUT_FACTOR: usize = 16;
/// Bytes that a broker may add to a record.
pub const RECORD_OVERHEAD: usize = 512;

/// What the sink needs to know of the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub input_partitions: i32,
    pub output: TopicLayout,
    pub dead_letters: TopicLayout,
    pub changelog: TopicLayout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLayout {
    pub partitions: i32,
    /// Largest record, with key and headers, that the topic takes.
    pub max_bytes: usize,
}

impl Layout {
    pub fn largest(&self) -> usize {
        [&self.output, &self.dead_letters, &self.changelog].map(|t| t.max_bytes).into_iter().fold(0, usize::max)
    }

    pub fn smallest(&self) -> usize {
        [&self.output, &self.dead_letters, &self.changelog]
            .map(|t| t.max_bytes)
            .into_iter()
            .fold(usize::MAX, usize::min)
    }
}

/// Why the topics cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// May pass by itself, or when somebody does what it says: try again.
    Wait(String),
    /// Only somebody's decision helps: don't go on.
    Refuse(String),
}

/// A topic as the broker knows it.
#[derive(Debug)]
enum Found {
    Missing,
    There { partitions: i32 },
}

/// Asks a broker about topics.
pub struct Topics<'a, C: ConsumerContext> {
    pub config: &'a KafkaConfig,
    pub max_record_bytes: usize,
    pub consumer: &'a BaseConsumer<C>,
    pub admin: &'a AdminClient<PlainContext>,
    pub events: &'a Events,
}

impl<C: ConsumerContext + ClientContext> Topics<'_, C> {
    /// The topics as they are. Missing ones are created if the configuration says so and `create` is set; without it,
    /// those that would be created are named in the second part of the answer.
    pub fn prepare(&self, create: bool) -> Result<(Layout, Vec<String>), Trouble> {
        let config = self.config;
        let mut would_create = Vec::new();
        let input = match (self.find(&config.input)?, config.input_partitions) {
            (Found::There { partitions }, _) => partitions,
            (Found::Missing, Some(partitions)) => {
                self.make(&config.input, i32::from(partitions), &[], create, &mut would_create)?
            }
            (Found::Missing, None) => {
                let command = self.create_command(&config.input, 8, "");
                let detail = format!(
                    "the input topic {} does not exist. Create it ({command}), or set kafka.input_partitions, then it \
                     is created",
                    config.input
                );
                return Err(Trouble::Wait(detail));
            }
        };
        let large = (self.max_record_bytes.saturating_mul(OUTPUT_FACTOR)).max(DEFAULT_MAX_BYTES).to_string();
        let large = [("max.message.bytes", large.as_str())];
        let compacted = [("cleanup.policy", "compact")];
        let mut partitions = HashMap::new();
        for (topic, settings) in
            [(&config.output, &large), (&config.dead_letters, &large), (&config.changelog, &compacted)]
        {
            let found = match self.find(topic)? {
                Found::There { partitions } => partitions,
                Found::Missing if config.create_topics => {
                    self.make(topic, input, settings, create, &mut would_create)?
                }
                Found::Missing => {
                    let settings = if *topic == config.changelog { " --config cleanup.policy=compact" } else { "" };
                    let command = self.create_command(topic, input, settings);
                    let detail = format!("the topic {topic} does not exist and kafka.create_topics is off: {command}");
                    return Err(Trouble::Wait(detail));
                }
            };
            partitions.insert(topic.as_str(), found);
        }
        if partitions[config.changelog.as_str()] != input {
            return Err(Trouble::Refuse(self.other_partitions(partitions[config.changelog.as_str()], input)));
        }
        let there = |topic: &&String| !would_create.contains(*topic);
        let asked: Vec<&String> =
            [&config.output, &config.dead_letters, &config.changelog].into_iter().filter(there).collect();
        let settings = self.settings(&asked)?;
        let setting = |topic: &String, name: &str| settings.get(topic).and_then(|of| of.get(name)).cloned();
        if let Some(policy) = setting(&config.changelog, "cleanup.policy").filter(|policy| policy != "compact") {
            return Err(Trouble::Refuse(self.other_policy(&policy)));
        }
        let layout = |topic: &String| TopicLayout {
            partitions: partitions[topic.as_str()],
            max_bytes: setting(topic, "max.message.bytes").and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_MAX_BYTES),
        };
        let layout = Layout {
            input_partitions: input,
            output: layout(&config.output),
            dead_letters: layout(&config.dead_letters),
            changelog: layout(&config.changelog),
        };
        Ok((layout, would_create))
    }

    fn find(&self, topic: &str) -> Result<Found, Trouble> {
        let doing = || format!("asking for the topic {topic}");
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT);
        let metadata = metadata.map_err(|error| Trouble::Wait(explain(&doing(), &error)))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(Found::Missing);
        };
        match found.error().map(Code::from) {
            None if !found.partitions().is_empty() => Ok(Found::There { partitions: found.partitions().len() as i32 }),
            None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(Found::Missing),
            Some(code) => Err(Trouble::Wait(explain_code(&doing(), code))),
        }
    }

    fn make(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
        create: bool,
        would_create: &mut Vec<String>,
    ) -> Result<i32, Trouble> {
        if !create {
            would_create.push(topic.to_string());
            return Ok(partitions);
        }
        let replicas = TopicReplication::Fixed(self.config.replication_factor.map_or(-1, i32::from));
        let mut new = NewTopic::new(topic, partitions, replicas);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let doing = format!("creating the topic {topic}");
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let created = wait_for(self.admin.create_topics([&new], &options));
        match created.map_err(|error| Trouble::Wait(explain(&doing, &error)))?.pop() {
            Some(Err((_, Code::TopicAlreadyExists))) => {}
            Some(Err((_, code))) => return Err(Trouble::Wait(explain_code(&doing, code))),
            Some(Ok(_)) | None => self.events.topic_created(topic, partitions),
        }
        // Another instance may have been first, with other partitions; and all brokers must know it by now.
        match self.find(topic)? {
            Found::There { partitions } => Ok(partitions),
            Found::Missing => Err(Trouble::Wait(format!("the topic {topic} is being created"))),
        }
    }

    /// The settings of topics. Empty for those of which the broker tells nothing.
    fn settings(&self, topics: &[&String]) -> Result<HashMap<String, HashMap<String, String>>, Trouble> {
        let specifiers: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let mut found = HashMap::new();
        if specifiers.is_empty() {
            return Ok(found);
        }
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let answers = match wait_for(self.admin.describe_configs(&specifiers, &options)) {
            Ok(answers) => answers,
            Err(error) => {
                topics.iter().for_each(|topic| self.events.topic_unchecked(topic, &error));
                return Ok(found);
            }
        };
        for (topic, answer) in topics.iter().zip(answers) {
            match answer {
                Ok(resource) => {
                    let entries = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                    found.insert((*topic).clone(), entries.collect());
                }
                Err(code) => self.events.topic_unchecked(topic, &explain_code("reading its settings", code)),
            }
        }
        Ok(found)
    }

    fn create_command(&self, topic: &str, partitions: i32, more: &str) -> String {
        let brokers = &self.config.brokers;
        format!("kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions {partitions}{more}")
    }

    fn other_partitions(&self, found: i32, input: i32) -> String {
        let KafkaConfig { brokers, changelog, input: name, .. } = self.config;
        format!(
            "the changelog {changelog} has {found} partitions, the input {name} has {input}; they must be equal, since \
             the state of a stream lies in the partition of its records. If the states may be lost (every stream \
             begins anew): kafka-topics.sh --bootstrap-server {brokers} --delete --topic {changelog}; it is created \
             anew at the next start. Or name another topic in kafka.changelog"
        )
    }

    fn other_policy(&self, found: &str) -> String {
        let KafkaConfig { brokers, changelog, .. } = self.config;
        format!(
            "the changelog {changelog} has cleanup.policy={found}, with which states of streams that are silent for a \
             while are deleted; it must be compact: kafka-configs.sh --bootstrap-server {brokers} --alter \
             --entity-type topics --entity-name {changelog} --add-config cleanup.policy=compact"
        )
    }
}

/// The admin client answers by futures that its own thread drives.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park_timeout(Duration::from_millis(100)),
        }
    }
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}
