//! Offsets that groups have committed, in a transaction or not.

use crate::group::Kept;
use crate::journal::Entry;
use crate::node::Node;
use crate::requests::Context;
use crate::transaction::{PendingOffset, Phase};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

fn committed(offset: i64, leader_epoch: i32, metadata: Option<&StrBytes>) -> Committed {
    Committed { offset, leader_epoch, metadata: metadata.map(ToString::to_string).unwrap_or_default() }
}

impl Node {
    pub fn offset_commit(&mut self, context: &Context, request: &OffsetCommitRequest) -> OffsetCommitResponse {
        let name = request.group_id.as_str();
        let allowed = self.check_offset_commit(context, request);
        let mut response = OffsetCommitResponse::default();
        for topic in &request.topics {
            let mut answers = Vec::new();
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let result = allowed.and_then(|()| self.check_partition(&topic.name, index)).map(|()| {
                    let metadata = partition.committed_metadata.as_ref();
                    let committed = committed(partition.committed_offset, partition.committed_leader_epoch, metadata);
                    self.set_offset(name, &topic.name, index, committed);
                });
                let answer = OffsetCommitResponsePartition::default().with_partition_index(index);
                answers.push(answer.with_error_code(code(result)));
            }
            let answer = OffsetCommitResponseTopic::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(answers));
        }
        response
    }

    fn check_offset_commit(&mut self, context: &Context, request: &OffsetCommitRequest) -> Result<(), ResponseError> {
        context.forced()?;
        let (name, generation) = (request.group_id.as_str(), request.generation_id_or_member_epoch);
        self.faults.check_group(name)?;
        if !self.groups.contains_key(name) && generation >= 0 {
            return Err(ResponseError::IllegalGeneration);
        }
        let group = self.group(name, Kept::default());
        group.check_commit(&request.member_id, generation, request.group_instance_id.as_deref(), false)?;
        group.refresh(&request.member_id, Instant::now());
        Ok(())
    }

    pub fn set_offset(&mut self, group: &str, topic: &str, partition: i32, committed: Committed) {
        let (name, topic) = (group.to_string(), topic.to_string());
        let offset = Entry::Offset { group: name, topic: topic.clone(), partition, committed: committed.clone() };
        self.keep(&offset);
        self.group(group, Kept::default()).offsets.insert((topic, partition), committed);
    }

    /// Offsets that count once the transaction is committed.
    pub fn txn_offset_commit(
        &mut self,
        context: &Context,
        request: &TxnOffsetCommitRequest,
    ) -> TxnOffsetCommitResponse {
        let allowed = self.check_txn_offset_commit(context, request);
        let mut response = TxnOffsetCommitResponse::default();
        let mut pending = Vec::new();
        for topic in &request.topics {
            let mut answers = Vec::new();
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let result = allowed.and_then(|()| self.check_partition(&topic.name, index)).map(|()| {
                    let metadata = partition.committed_metadata.as_ref();
                    let committed = committed(partition.committed_offset, partition.committed_leader_epoch, metadata);
                    let (group, topic) = (request.group_id.to_string(), topic.name.to_string());
                    pending.push(PendingOffset { group, topic, partition: index, committed });
                });
                let answer = TxnOffsetCommitResponsePartition::default().with_partition_index(index);
                answers.push(answer.with_error_code(code(result)));
            }
            let answer = TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(answers));
        }
        if !pending.is_empty() {
            let id = request.transactional_id.as_str();
            self.transactions.get_mut(id).expect("a checked transaction").offsets.extend(pending);
            self.keep_transaction(id);
        }
        response
    }

    fn check_txn_offset_commit(
        &mut self,
        context: &Context,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), ResponseError> {
        context.forced()?;
        let name = request.group_id.as_str();
        self.faults.check_group(name)?;
        // Who the consumer is comes first: a member of an older generation must not commit, whatever its transaction is.
        if !self.groups.contains_key(name) && request.generation_id >= 0 {
            return Err(ResponseError::IllegalGeneration);
        }
        let group = self.group(name, Kept::default());
        let instance = request.group_instance_id.as_deref();
        group.check_commit(&request.member_id, request.generation_id, instance, true)?;
        let transaction = self.transactions.get(request.transactional_id.as_str());
        let transaction = transaction.filter(|transaction| transaction.producer_id == request.producer_id.0);
        let transaction = transaction.ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.epoch != request.producer_epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let open = transaction.phase == Phase::Ongoing && transaction.groups.contains(name);
        if open { Ok(()) } else { Err(ResponseError::InvalidTxnState) }
    }

    pub fn offset_fetch(&mut self, context: &Context, request: &OffsetFetchRequest) -> OffsetFetchResponse {
        let stable = request.require_stable;
        if context.version < 8 {
            let wanted = request.topics.as_ref().map(|topics| {
                topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
            });
            return match self.offsets_of(context, &request.group_id, wanted, stable) {
                Err(error) if context.version >= 2 => OffsetFetchResponse::default().with_error_code(error.code()),
                // The first version has errors of partitions only.
                Err(error) => {
                    let partition = |&index: &i32| partition_answer(index, Err(error));
                    let topic = |topic: &offset_fetch_request::OffsetFetchRequestTopic| {
                        OffsetFetchResponseTopic::default()
                            .with_name(topic.name.clone())
                            .with_partitions(topic.partition_indexes.iter().map(partition).collect())
                    };
                    let topics = request.topics.iter().flatten().map(topic).collect();
                    OffsetFetchResponse::default().with_topics(topics)
                }
                Ok(found) => {
                    let topic = |(name, partitions): (String, Vec<Found>)| {
                        let partitions = partitions.into_iter().map(|(index, found)| partition_answer(index, found));
                        OffsetFetchResponseTopic::default()
                            .with_name(StrBytes::from_string(name).into())
                            .with_partitions(partitions.collect())
                    };
                    OffsetFetchResponse::default().with_topics(found.into_iter().map(topic).collect())
                }
            };
        }
        let mut response = OffsetFetchResponse::default();
        for group in &request.groups {
            let wanted = group.topics.as_ref().map(|topics| {
                topics.iter().map(|topic| (topic.name.to_string(), topic.partition_indexes.clone())).collect()
            });
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            response.groups.push(match self.offsets_of(context, &group.group_id, wanted, stable) {
                Err(error) => answer.with_error_code(error.code()),
                Ok(found) => answer.with_topics(found.into_iter().map(group_topic).collect()),
            });
        }
        response
    }

    /// Offsets of these partitions, or of all.
    fn offsets_of(
        &self,
        context: &Context,
        group: &str,
        wanted: Option<Vec<(String, Vec<i32>)>>,
        stable: bool,
    ) -> Result<Vec<(String, Vec<Found>)>, ResponseError> {
        context.forced()?;
        self.faults.check_group(group)?;
        let offsets = self.groups.get(group).map(|group| &group.offsets);
        let wanted = wanted.unwrap_or_else(|| {
            let mut all: BTreeMap<String, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in offsets.into_iter().flat_map(BTreeMap::keys) {
                all.entry(topic.clone()).or_default().push(*partition);
            }
            all.into_iter().collect()
        });
        let of = |topic: &str, partition: i32| {
            let mut pending = self.transactions.values().flat_map(|transaction| &transaction.offsets);
            let unstable = |offset: &PendingOffset| {
                offset.group == group && offset.topic == topic && offset.partition == partition
            };
            if stable && pending.any(unstable) {
                return Err(ResponseError::UnstableOffsetCommit);
            }
            Ok(offsets.and_then(|offsets| offsets.get(&(topic.to_string(), partition))).cloned())
        };
        let topic = |(topic, partitions): (String, Vec<i32>)| {
            let partitions = partitions.into_iter().map(|partition| (partition, of(&topic, partition))).collect();
            (topic, partitions)
        };
        Ok(wanted.into_iter().map(topic).collect())
    }

    /// Whether there is such a partition, and clients may know.
    pub fn check_partition(&self, topic: &str, partition: i32) -> Result<(), ResponseError> {
        self.faults.check_topic(topic, crate::Access::Describe)?;
        let known = self.topics.get(topic).is_some_and(|topic| (0..topic.partitions.len() as i32).contains(&partition));
        if known { Ok(()) } else { Err(ResponseError::UnknownTopicOrPartition) }
    }
}

type Found = (i32, Result<Option<Committed>, ResponseError>);

fn partition_answer(index: i32, found: Result<Option<Committed>, ResponseError>) -> OffsetFetchResponsePartition {
    let answer = OffsetFetchResponsePartition::default().with_partition_index(index);
    match found {
        Err(error) => answer.with_committed_offset(-1).with_error_code(error.code()),
        Ok(None) => answer.with_committed_offset(-1),
        Ok(Some(committed)) => answer
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(committed.metadata))),
    }
}

fn group_topic((name, partitions): (String, Vec<Found>)) -> OffsetFetchResponseTopics {
    let partition = |(index, found): Found| {
        let answer = partition_answer(index, found);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(answer.partition_index)
            .with_committed_offset(answer.committed_offset)
            .with_committed_leader_epoch(answer.committed_leader_epoch)
            .with_metadata(answer.metadata)
            .with_error_code(answer.error_code)
    };
    OffsetFetchResponseTopics::default()
        .with_name(StrBytes::from_string(name).into())
        .with_partitions(partitions.into_iter().map(partition).collect())
}

/// The code of an outcome; 0 for none.
pub fn code<T>(result: Result<T, ResponseError>) -> i16 {
    result.err().map_or(0, |error| error.code())
}
