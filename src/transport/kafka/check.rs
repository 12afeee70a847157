//! `strand check --online`: everything that `strand run` needs of Kafka, tried without consuming or changing anything.

use super::clients;
use super::context::{PlainContext, Voice};
use super::topics::{Layout, Topics, Trouble};
use super::words::explain;
use crate::config::Config;
use crate::events::Events;
use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// What was found, a line each. The error says what is wrong and what to do.
pub fn check_online(config: &Config, events: &Events) -> Result<Vec<String>, String> {
    let kafka = &config.kafka;
    clients::check_properties(kafka).map_err(|error| error.to_string())?;
    let voice = Voice::new(events.clone());
    let consumer: BaseConsumer<PlainContext> = clients::consumer(kafka)
        .create_with_context(PlainContext(voice.clone()))
        .map_err(|error| explain("creating the consumer", &error))?;
    let with_complaint = |reason: String| {
        super::context::hear_out(&consumer);
        reason + &voice.advice(&kafka.brokers)
    };
    let metadata = consumer.fetch_metadata(Some(&kafka.input), TIMEOUT);
    let metadata = metadata.map_err(|error| with_complaint(explain("connecting", &error)))?;
    let mut found = vec![format!("brokers: {} at {}", metadata.brokers().len(), kafka.brokers)];

    let admin: AdminClient<PlainContext> = clients::admin(kafka)
        .create_with_context(PlainContext(voice.clone()))
        .map_err(|error| explain("creating the admin client", &error))?;
    let max_record_bytes = config.input.max_record_bytes.len();
    let topics = Topics { config: kafka, max_record_bytes, consumer: &consumer, admin: &admin, events };
    let (layout, missing) = topics.prepare(false).map_err(|trouble| match trouble {
        Trouble::Wait(reason) => with_complaint(reason),
        Trouble::Refuse(reason) => reason,
    })?;
    found.extend(describe(config, &layout, &missing));

    let mut list = TopicPartitionList::new();
    if !missing.contains(&kafka.input) {
        list.add_partition_range(&kafka.input, 0, layout.input_partitions - 1);
        let offsets = consumer.committed_offsets(list, TIMEOUT);
        let offsets = offsets.map_err(|e| with_complaint(explain(&format!("asking for group {}", kafka.group), &e)))?;
        let known = offsets.elements().iter().filter(|e| e.offset().to_raw().is_some_and(|raw| raw >= 0)).count();
        found.push(format!("group {}: reachable, with offsets for {known} partitions", kafka.group));
    }
    found.push("not tried: writing (nothing is produced by a check)".to_string());
    Ok(found)
}

fn describe(config: &Config, layout: &Layout, missing: &[String]) -> Vec<String> {
    let kafka = &config.kafka;
    let state = |topic: &String| if missing.contains(topic) { "missing, would be created with" } else { "there," };
    let line = |what: &str, topic: &String, partitions: i32, more: String| {
        format!("{what} {topic}: {} {partitions} partitions{more}", state(topic))
    };
    let limit = |bytes: usize| format!(", records up to {bytes} bytes");
    vec![
        line("input", &kafka.input, layout.input_partitions, String::new()),
        line("output", &kafka.output, layout.output.partitions, limit(layout.output.max_bytes)),
        line("dead letters", &kafka.dead_letters, layout.dead_letters.partitions, limit(layout.dead_letters.max_bytes)),
        line("changelog", &kafka.changelog, layout.changelog.partitions, limit(layout.changelog.max_bytes)),
    ]
}
