//! Topics: their settings and partitions.

use crate::partition::Partition;
use anyhow::{Context, Result};
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings that Kafka has for each topic, with its defaults.
pub const DEFAULTS: [(&str, &str); 25] = [
    ("cleanup.policy", "delete"),
    ("compression.type", "producer"),
    ("delete.retention.ms", "86400000"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("follower.replication.throttled.replicas", ""),
    ("index.interval.bytes", "4096"),
    ("leader.replication.throttled.replicas", ""),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.after.max.ms", "3600000"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.type", "CreateTime"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("preallocate", "false"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "1073741824"),
    ("segment.index.bytes", "10485760"),
    ("segment.jitter.ms", "0"),
    ("segment.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

pub struct Topic {
    pub id: u128,
    dir: PathBuf,
    /// Those that were given, not Kafka's defaults.
    pub settings: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// Opens a topic whose files are in this directory, or creates them.
    pub fn open(dir: PathBuf, id: u128, partitions: i32, settings: BTreeMap<String, String>) -> Result<Topic> {
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let mut topic = Topic { id, dir, settings, partitions: Vec::new() };
        topic.grow(partitions)?;
        Ok(topic)
    }

    /// Has at least this many partitions.
    pub fn grow(&mut self, partitions: i32) -> Result<()> {
        for partition in self.partitions.len()..partitions as usize {
            self.partitions.push(Partition::open(&self.dir.join(format!("{partition}.log")))?);
        }
        Ok(())
    }

    pub fn partition(&mut self, partition: i32) -> Option<&mut Partition> {
        usize::try_from(partition).ok().and_then(|partition| self.partitions.get_mut(partition))
    }

    /// A setting that the topic was given, or Kafka's default.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let default = || DEFAULTS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        self.settings.get(name).map(String::as_str).or_else(default)
    }

    pub fn max_message_bytes(&self) -> usize {
        self.setting("max.message.bytes").and_then(|value| value.parse().ok()).expect("a checked number")
    }

    pub fn is_compacted(&self) -> bool {
        self.setting("cleanup.policy").is_some_and(|policy| policy.split(',').any(|word| word == "compact"))
    }
}

pub fn dir(root: &Path, id: u128) -> PathBuf {
    root.join("topics").join(format!("{id:032x}"))
}

/// Whether a setting exists and takes this value; if not, why.
pub fn check_setting(name: &str, value: &str) -> Result<(), String> {
    let Some((_, default)) = DEFAULTS.iter().find(|(known, _)| *known == name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    let sound = match name {
        "cleanup.policy" => value.split(',').all(|word| ["compact", "delete"].contains(&word)),
        "max.message.bytes" => value.parse::<i32>().is_ok_and(|bytes| bytes >= 0),
        // Records are stored as they come: only the producer's time is kept.
        "message.timestamp.type" => value == "CreateTime",
        _ if default.parse::<i64>().is_ok() => value.parse::<i64>().is_ok(),
        _ => true,
    };
    if sound { Ok(()) } else { Err(format!("Invalid value {value} for configuration {name}")) }
}

/// Kafka's rule for names.
pub fn check_name(name: &str) -> Result<(), ResponseError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let sound = (1..250).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(plain);
    if sound { Ok(()) } else { Err(ResponseError::InvalidTopicException) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_settings_are_checked_as_kafka_does() {
        assert!(check_name("a.b_c-9").is_ok());
        for name in ["", ".", "..", "a/b", "\u{e4}", &"x".repeat(250)] {
            assert_eq!(check_name(name), Err(ResponseError::InvalidTopicException), "{name}");
        }
        assert!(check_setting("cleanup.policy", "compact,delete").is_ok());
        assert!(check_setting("retention.ms", "-1").is_ok());
        for (name, value) in [("cleanup.policy", "keep"), ("max.message.bytes", "-1"), ("colour", "red")] {
            assert!(check_setting(name, value).unwrap_err().contains(name));
        }
    }
}
