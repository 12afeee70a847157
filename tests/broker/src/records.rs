//! Requests that write and read records.

use crate::Access;
use crate::batch::{self, Header};
use crate::node::Node;
use crate::partition::Partition;
use crate::requests::Context;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;

/// Of ListOffsets: these times mean offsets.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

impl Node {
    pub fn produce(&mut self, context: &Context, request: &ProduceRequest) -> ProduceResponse {
        let mut response = ProduceResponse::default();
        let id = request.transactional_id.as_ref().map(|id| id.as_str());
        let sound = if (-1..=1).contains(&request.acks) { Ok(()) } else { Err(ResponseError::InvalidRequiredAcks) };
        for topic in &request.topic_data {
            let mut answers = Vec::new();
            for data in &topic.partition_data {
                let bytes = data.records.as_deref().unwrap_or_default();
                let allowed = context.forced().and(sound);
                let result = allowed.and_then(|()| self.append(id, &topic.name, data.index, bytes));
                let answer = PartitionProduceResponse::default().with_index(data.index);
                answers.push(match result {
                    Ok((offset, start)) => answer.with_base_offset(offset).with_log_start_offset(start),
                    Err(error) => answer.with_base_offset(-1).with_error_code(error.code()),
                });
            }
            let answer = TopicProduceResponse::default().with_name(topic.name.clone());
            response.responses.push(answer.with_partition_responses(answers));
        }
        response
    }

    /// Offset of the batch and the first of the log.
    fn append(
        &mut self,
        transactional_id: Option<&str>,
        name: &str,
        partition: i32,
        bytes: &[u8],
    ) -> Result<(i64, i64), ResponseError> {
        self.faults.check_topic(name, Access::Write)?;
        self.check_partition(name, partition)?;
        let topic = &self.topics[name];
        let header = Header::read(bytes).unwrap_or(Err(ResponseError::CorruptMessage))?;
        if header.size > topic.max_message_bytes() {
            return Err(ResponseError::MessageTooLarge);
        }
        let sequenced = header.producer_id < 0 || header.base_sequence >= 0;
        let keyed = || Ok(batch::records(bytes)?.iter().all(|record| record.key.is_some()));
        // A request has one batch a partition; compaction needs keys.
        if header.size != bytes.len() || header.control || !sequenced || (topic.is_compacted() && !keyed()?) {
            return Err(ResponseError::InvalidRecord);
        }
        if header.transactional {
            self.check_produce(transactional_id, name, partition, &header)?;
        }
        let log = self.topics.get_mut(name).and_then(|topic| topic.partition(partition)).expect("a checked partition");
        Ok((log.append(bytes, &header)?, log.start))
    }

    /// Whether a fetch has enough to be answered before its time is over.
    pub fn is_enough(&mut self, context: &Context, request: &FetchRequest) -> bool {
        let (mut size, min) = (0, request.min_bytes.max(0) as usize);
        for topic in &request.topics {
            for partition in &topic.partitions {
                let Ok((log, until)) = self.readable(context, request, &topic.topic, partition) else { return true };
                size += log.available(partition.fetch_offset, until, min.min(partition.partition_max_bytes as usize));
            }
        }
        size >= min
    }

    pub fn fetch(&mut self, context: &Context, request: &FetchRequest) -> FetchResponse {
        let mut response = FetchResponse::default();
        let (mut left, mut some) = (request.max_bytes.max(0) as usize, false);
        for topic in &request.topics {
            let mut answers = Vec::new();
            for partition in &topic.partitions {
                let answer = PartitionData::default().with_partition_index(partition.partition);
                let (log, until) = match self.readable(context, request, &topic.topic, partition) {
                    Ok(readable) => readable,
                    Err(error) => {
                        let answer = answer.with_error_code(error.code()).with_high_watermark(-1);
                        answers.push(answer.with_records(Some(Bytes::new())));
                        continue;
                    }
                };
                let max_bytes = left.min(partition.partition_max_bytes.max(0) as usize);
                let (bytes, next) = log.read(partition.fetch_offset, until, max_bytes, !some);
                left = left.saturating_sub(bytes.len());
                some |= !bytes.is_empty();
                let aborted = (request.isolation_level == 1).then(|| {
                    let aborted = log.aborted(partition.fetch_offset, next).into_iter();
                    let aborted = aborted.map(|transaction| {
                        AbortedTransaction::default()
                            .with_producer_id(transaction.producer_id.into())
                            .with_first_offset(transaction.first_offset)
                    });
                    aborted.collect()
                });
                let answer = answer
                    .with_high_watermark(log.end)
                    .with_last_stable_offset(log.last_stable())
                    .with_aborted_transactions(aborted)
                    .with_records(Some(bytes.into()));
                answers.push(if context.version >= 5 { answer.with_log_start_offset(log.start) } else { answer });
            }
            let answer = FetchableTopicResponse::default().with_topic(topic.topic.clone());
            response.responses.push(answer.with_partitions(answers));
        }
        response
    }

    /// The partition that a client wants to read, and the offset up to which it may.
    fn readable(
        &mut self,
        context: &Context,
        request: &FetchRequest,
        topic: &str,
        partition: &FetchPartition,
    ) -> Result<(&Partition, i64), ResponseError> {
        context.forced()?;
        let log = self.log(topic, partition.partition)?;
        if !(log.start..=log.end).contains(&partition.fetch_offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let until = if request.isolation_level == 1 { log.last_stable() } else { log.end };
        Ok((log, until))
    }

    fn log(&mut self, topic: &str, partition: i32) -> Result<&Partition, ResponseError> {
        self.faults.check_topic(topic, Access::Read)?;
        self.check_partition(topic, partition)?;
        let log = self.topics.get_mut(topic).and_then(|topic| topic.partition(partition));
        log.map(|log| &*log).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub fn list_offsets(&mut self, context: &Context, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let mut response = ListOffsetsResponse::default();
        for topic in &request.topics {
            let mut answers = Vec::new();
            for partition in &topic.partitions {
                let result = context.forced().and_then(|()| {
                    self.check_partition(&topic.name, partition.partition_index)?;
                    let log = &self.topics[topic.name.as_str()].partitions[partition.partition_index as usize];
                    let until = if request.isolation_level == 1 { log.last_stable() } else { log.end };
                    Ok(match partition.timestamp {
                        LATEST => Some((until, -1)),
                        EARLIEST => Some((log.start, -1)),
                        // Other negative numbers mean what this broker has not.
                        ..=-3 => return Err(ResponseError::UnsupportedVersion),
                        timestamp => log.at_timestamp(timestamp)?.filter(|(offset, _)| *offset < until),
                    })
                });
                let answer = ListOffsetsPartitionResponse::default().with_partition_index(partition.partition_index);
                answers.push(match result {
                    Ok(Some((offset, timestamp))) => {
                        let answer = answer.with_offset(offset).with_timestamp(timestamp);
                        if context.version >= 4 { answer.with_leader_epoch(0) } else { answer }
                    }
                    Ok(None) => answer.with_offset(-1).with_timestamp(-1),
                    Err(error) => answer.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
                });
            }
            let answer = ListOffsetsTopicResponse::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(answers));
        }
        response
    }

    /// There is one epoch, 0: the leader never changes.
    pub fn offset_for_leader_epoch(
        &mut self,
        context: &Context,
        request: &OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in &request.topics {
            let mut answers = Vec::new();
            for partition in &topic.partitions {
                let result = context.forced().and_then(|()| {
                    self.check_partition(&topic.topic, partition.partition)?;
                    Ok(self.topics[topic.topic.as_str()].partitions[partition.partition as usize].end)
                });
                let answer = EpochEndOffset::default().with_partition(partition.partition);
                answers.push(match result {
                    Ok(end) if partition.leader_epoch == 0 => answer.with_leader_epoch(0).with_end_offset(end),
                    Ok(_) => answer,
                    Err(error) => answer.with_error_code(error.code()),
                });
            }
            let answer = OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone());
            response.topics.push(answer.with_partitions(answers));
        }
        response
    }
}
