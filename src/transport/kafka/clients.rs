//! librdkafka's clients: our defaults, then the user's `[kafka.properties]`, then what must be as it is.

use crate::config::{ConfigError, KafkaConfig};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;

/// Properties that Strand sets itself, and the key that says the same, if there is one.
const OWN: [(&str, &str); 8] = [
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("group.id", "kafka.group"),
    ("enable.auto.commit", ""),
    ("enable.auto.offset.store", ""),
    ("enable.partition.eof", ""),
    ("enable.idempotence", ""),
    ("transactional.id", "kafka.delivery"),
];

/// The consumer of the input.
pub fn consumer(config: &KafkaConfig) -> ClientConfig {
    let defaults = [
        ("partition.assignment.strategy", "cooperative-sticky"),
        // Positions are Strand's affair: a gap must be told, not jumped over.
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        // Bounds of what librdkafka reads ahead.
        ("queued.max.messages.kbytes", "32768"),
        ("queued.min.messages", "20000"),
        ("fetch.queue.backoff.ms", "20"),
        ("fetch.wait.max.ms", "100"),
        ("statistics.interval.ms", "1000"),
    ];
    let mut client = client(config, &defaults);
    client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    client
}

/// Reads the changelog. Takes no part in the group, whose name librdkafka asks for nevertheless.
pub fn changelog_reader(config: &KafkaConfig) -> ClientConfig {
    let defaults = [("auto.offset.reset", "error"), ("isolation.level", "read_committed"), ("fetch.wait.max.ms", "50")];
    let mut client = client(config, &defaults);
    client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    client.set("enable.partition.eof", "true");
    // What one member of a group reads, all read: nothing static about it.
    client.remove("group.instance.id");
    client
}

/// The idempotent producer of labels, dead letters and states. `largest`: the largest record that a topic takes.
pub fn producer(config: &KafkaConfig, largest: usize, smallest: usize) -> ClientConfig {
    let (largest, smallest) =
        (largest.clamp(1000, 1_000_000_000).to_string(), smallest.clamp(1000, 1_000_000).to_string());
    // A record must not be tried for longer than its transaction may last.
    let transaction = config.properties.get("transaction.timeout.ms").and_then(|ms| ms.to_string().parse().ok());
    let patience = transaction.unwrap_or(60_000).min(60_000).to_string();
    let defaults = [
        ("compression.codec", "lz4"),
        // A batch is handed over at once, so there is nothing to wait for: docs/KAFKA.md has the measurement.
        ("linger.ms", "0"),
        ("message.timeout.ms", &patience),
        // As Java's producers do, so that a key has one partition whoever sends it.
        ("partitioner", "murmur2_random"),
        ("queue.buffering.max.messages", "200000"),
        ("message.max.bytes", &largest),
        // A batch must not be larger than what the topic with the lowest limit takes.
        ("batch.size", &smallest),
    ];
    let mut client = client(config, &defaults);
    client.set("enable.idempotence", "true");
    client
}

/// Asks for topics and their settings, creates topics.
pub fn admin(config: &KafkaConfig) -> ClientConfig {
    client(config, &[])
}

pub fn client(config: &KafkaConfig, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", "strand");
    // A port that speaks another protocol often says nothing at all; after this it is told.
    client.set("socket.connection.setup.timeout.ms", "10000");
    for (key, value) in defaults {
        client.set(*key, *value);
    }
    for (key, value) in &config.properties {
        client.set(key, value.to_string());
    }
    client.set("bootstrap.servers", &config.brokers).set("group.id", &config.group);
    client.set_log_level(RDKafkaLogLevel::Info);
    client
}

/// Partitions of a topic with an offset for each.
pub fn positions(topic: &str, of: impl IntoIterator<Item = (i32, i64)>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in of {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

/// Has librdkafka judge `[kafka.properties]`, for each kind of client that they go to.
pub fn check_properties(config: &KafkaConfig) -> Result<(), ConfigError> {
    for (property, key) in OWN {
        if config.properties.contains_key(property) {
            let instead = if key.is_empty() { "leave it out".to_string() } else { format!("use {key}") };
            let detail = format!("[kafka.properties] {property} is set by Strand itself; {instead}");
            return Err(ConfigError::Invalid(detail));
        }
    }
    if let Some(strategy) = config.properties.get("partition.assignment.strategy")
        && strategy.to_string() != "cooperative-sticky"
    {
        let detail = format!(
            "[kafka.properties] partition.assignment.strategy = \"{strategy}\": states are handed over by the cooperative \
             protocol only; leave it out"
        );
        return Err(ConfigError::Invalid(detail));
    }
    let mut judged = consumer(config);
    let all: BTreeMap<String, String> =
        producer(config, 1 << 20, 1 << 20).config_map().iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    for (key, value) in all {
        judged.set(key, value);
    }
    match judged.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, detail, key, value)) => {
            let value = if secret(&key) { "…".to_string() } else { value };
            let detail = format!("[kafka.properties] {key} = {value:?}: librdkafka says: {detail}");
            Err(ConfigError::Invalid(detail))
        }
        Err(other) => Err(ConfigError::Invalid(format!("[kafka.properties]: librdkafka says: {other}"))),
    }
}

/// Whether a property's value must not be shown.
fn secret(key: &str) -> bool {
    ["password", "secret", "key.pem", "jaas"].iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Property;

    fn config(key: &str, value: &str) -> KafkaConfig {
        let properties = [(key.to_string(), Property::Text(value.to_string()))].into();
        KafkaConfig { properties, ..KafkaConfig::default() }
    }

    #[test]
    fn properties_go_to_librdkafka_unchanged() {
        let config = config("socket.nagle.disable", "false");
        for client in
            [consumer(&config), changelog_reader(&config), producer(&config, 1 << 20, 1 << 20), admin(&config)]
        {
            assert_eq!(client.get("socket.nagle.disable"), Some("false"));
        }
        check_properties(&config).unwrap();
        check_properties(&KafkaConfig::default()).unwrap();
    }

    #[test]
    fn a_property_wins_over_our_default() {
        assert_eq!(producer(&config("linger.ms", "7"), 1, 1).get("linger.ms"), Some("7"));
        let shorter = producer(&config("transaction.timeout.ms", "10000"), 1, 1);
        assert_eq!(shorter.get("message.timeout.ms"), Some("10000"));
    }

    #[test]
    fn properties_that_would_break_the_guarantees_are_refused() {
        let error = |key, value| check_properties(&config(key, value)).unwrap_err().to_string();
        assert!(error("enable.auto.commit", "true").contains("leave it out"));
        assert!(error("group.id", "g").contains("use kafka.group"));
        assert!(error("socket.nagle.disabled", "1").contains("socket.nagle.disabled"));
        assert!(error("partition.assignment.strategy", "range").contains("cooperative"));
        // A wrong value is told, but not a secret.
        let error = error("ssl.key.password.x", "hush");
        assert!(!error.contains("hush"), "{error}");
    }
}
