//! The transaction coordinator: who owns a transactional id, what its transaction has touched, and how it ends.

use crate::batch::Header;
use crate::faults::Fault;
use crate::node::{Node, now_ms};
use crate::offsets::{Committed, code};
use crate::requests::Context;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingOffset {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub committed: Committed,
}

/// A transactional id and its last transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    pub producer_id: i64,
    pub epoch: i16,
    /// The epoch before, if its owner itself asked for the next: it may ask again.
    pub last_epoch: i16,
    pub timeout_ms: i32,
    pub phase: Phase,
    pub started_ms: i64,
    pub partitions: BTreeSet<(String, i32)>,
    pub groups: BTreeSet<String>,
    pub offsets: Vec<PendingOffset>,
}

/// Kafka's transaction.max.timeout.ms.
const MAX_TIMEOUT_MS: i32 = 900_000;

impl Node {
    pub fn init_producer_id(&mut self, context: &Context, request: &InitProducerIdRequest) -> InitProducerIdResponse {
        let result = context.forced().and_then(|()| match request.transactional_id.as_deref() {
            None => Ok((self.new_producer_id(), 0)),
            Some(id) if id.is_empty() => Err(ResponseError::InvalidRequest),
            Some(id) => self.own_transactional_id(id, request),
        });
        let response = InitProducerIdResponse::default();
        match result {
            Ok((id, epoch)) => response.with_producer_id(id.into()).with_producer_epoch(epoch),
            Err(error) => {
                let error = fenced_as_of(context, error, 4);
                response.with_error_code(error.code()).with_producer_id((-1).into()).with_producer_epoch(-1)
            }
        }
    }

    /// A producer takes over: earlier owners are fenced, and what they left open is aborted.
    fn own_transactional_id(&mut self, id: &str, request: &InitProducerIdRequest) -> Result<(i64, i16), ResponseError> {
        let timeout_ms = request.transaction_timeout_ms;
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        // An owner that asks for its next epoch says which one it has.
        let expected = (request.producer_id.0 >= 0).then_some((request.producer_id.0, request.producer_epoch));
        let Some(known) = self.transactions.get(id) else {
            let producer_id = self.new_producer_id();
            let transaction = Transaction {
                producer_id,
                epoch: 0,
                last_epoch: -1,
                timeout_ms,
                phase: Phase::Empty,
                started_ms: 0,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
                offsets: Vec::new(),
            };
            self.transactions.insert(id.to_string(), transaction);
            self.keep_transaction(id);
            return Ok((producer_id, 0));
        };
        if let Some((producer_id, epoch)) = expected {
            if producer_id != known.producer_id || (epoch != known.epoch && epoch != known.last_epoch) {
                return Err(ResponseError::ProducerFenced);
            }
            if epoch != known.epoch && known.phase == Phase::Empty {
                // It asked before and did not hear the answer.
                return Ok((known.producer_id, known.epoch));
            }
        }
        if known.phase == Phase::Ongoing {
            // The client asks again until the abort is complete.
            self.fence_and_abort(id);
            return Err(ResponseError::ConcurrentTransactions);
        }
        let exhausted = known.epoch == i16::MAX - 1;
        let new_producer_id = exhausted.then(|| self.new_producer_id());
        let transaction = self.transactions.get_mut(id).expect("a known transaction");
        transaction.last_epoch = if expected.is_some() && !exhausted { transaction.epoch } else { -1 };
        match new_producer_id {
            Some(producer_id) => (transaction.producer_id, transaction.epoch) = (producer_id, 0),
            None => transaction.epoch += 1,
        }
        (transaction.phase, transaction.timeout_ms) = (Phase::Empty, timeout_ms);
        let owner = (transaction.producer_id, transaction.epoch);
        self.keep_transaction(id);
        Ok(owner)
    }

    /// Aborts an open transaction in the name of the next epoch, so that its producer can do no more.
    pub fn fence_and_abort(&mut self, id: &str) {
        let transaction = self.transactions.get_mut(id).expect("a known transaction");
        // The last epoch is never given to a producer.
        transaction.epoch = transaction.epoch.saturating_add(1);
        transaction.last_epoch = -1;
        transaction.phase = Phase::PrepareAbort;
        self.keep_transaction(id);
        self.complete(id, false);
    }

    /// The transaction, if this is its producer and the last one has ended.
    fn owned(&mut self, id: &str, producer_id: i64, epoch: i16) -> Result<&mut Transaction, ResponseError> {
        let known = self.transactions.get_mut(id).filter(|transaction| transaction.producer_id == producer_id);
        let transaction = known.ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.epoch != epoch {
            return Err(ResponseError::ProducerFenced);
        }
        match transaction.phase {
            Phase::PrepareCommit | Phase::PrepareAbort => Err(ResponseError::ConcurrentTransactions),
            _ => Ok(transaction),
        }
    }

    pub fn add_partitions(
        &mut self,
        context: &Context,
        request: &AddPartitionsToTxnRequest,
    ) -> AddPartitionsToTxnResponse {
        let topics = &request.v3_and_below_topics;
        let partitions = || topics.iter().flat_map(|t| t.partitions.iter().map(|&p| (t.name.to_string(), p)));
        let check = |(topic, partition): &(String, i32)| {
            self.faults.check_topic(topic, crate::Access::Write)?;
            self.check_partition(topic, *partition)
        };
        let mut wrong: Vec<((String, i32), ResponseError)> =
            partitions().filter_map(|partition| check(&partition).err().map(|error| (partition, error))).collect();
        let any_wrong = !wrong.is_empty();
        if any_wrong {
            let others = partitions().filter(|partition| check(partition).is_ok());
            wrong.extend(others.map(|partition| (partition, ResponseError::OperationNotAttempted)).collect::<Vec<_>>());
        }
        let id = request.v3_and_below_transactional_id.as_str();
        let (producer_id, epoch) = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
        let all = context.forced().and_then(|()| {
            let transaction = self.owned(id, producer_id, epoch)?;
            if any_wrong {
                return Ok(());
            }
            transaction.begin();
            let before = transaction.partitions.len();
            transaction.partitions.extend(partitions());
            if transaction.partitions.len() > before {
                self.keep_transaction(id);
            }
            Ok(())
        });
        let all = all.map_err(|error| fenced_as_of(context, error, 2));
        let result = |topic: &str, partition: i32| {
            let error = wrong.iter().find(|((t, p), _)| t == topic && *p == partition).map(|(_, error)| *error);
            let code = all.err().or(error).map_or(0, |error| error.code());
            let result = AddPartitionsToTxnPartitionResult::default();
            result.with_partition_index(partition).with_partition_error_code(code)
        };
        let topic = |topic: &add_partitions_to_txn_request::AddPartitionsToTxnTopic| {
            let results = topic.partitions.iter().map(|&partition| result(&topic.name, partition)).collect();
            AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(results)
        };
        AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.iter().map(topic).collect())
    }

    pub fn add_offsets(&mut self, context: &Context, request: &AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
        let id = request.transactional_id.as_str();
        let result = context.forced().and_then(|()| {
            self.faults.check_group(&request.group_id)?;
            let transaction = self.owned(id, request.producer_id.0, request.producer_epoch)?;
            transaction.begin();
            if transaction.groups.insert(request.group_id.to_string()) {
                self.keep_transaction(id);
            }
            Ok(())
        });
        let result = result.map_err(|error| fenced_as_of(context, error, 2));
        AddOffsetsToTxnResponse::default().with_error_code(code(result))
    }

    /// `None` if a fault ends the broker in the middle.
    pub fn end_txn(&mut self, context: &Context, request: &EndTxnRequest) -> Option<EndTxnResponse> {
        let id = request.transactional_id.as_str();
        let checked = context.forced().and_then(|()| {
            let transaction = self.owned(id, request.producer_id.0, request.producer_epoch)?;
            match (transaction.phase, request.committed) {
                (Phase::Ongoing, commit) => {
                    transaction.phase = if commit { Phase::PrepareCommit } else { Phase::PrepareAbort };
                    Ok(true)
                }
                // Asked again, since the answer was lost.
                (Phase::CompleteCommit, true) | (Phase::CompleteAbort, false) => Ok(false),
                _ => Err(ResponseError::InvalidTxnState),
            }
        });
        if checked == Ok(true) {
            self.keep_transaction(id);
            if context.fault == Some(Fault::Die) {
                self.dead = true;
                return None;
            }
            self.complete(id, false);
        }
        let result = checked.map_err(|error| fenced_as_of(context, error, 2));
        Some(EndTxnResponse::default().with_error_code(code(result)))
    }

    /// Does what was decided: a marker in each partition, then the offsets. After a restart some of it may be done.
    fn complete(&mut self, id: &str, after_restart: bool) {
        let transaction = self.transactions[id].clone();
        let commit = transaction.phase == Phase::PrepareCommit;
        let producer_id = transaction.producer_id;
        for (topic, partition) in &transaction.partitions {
            let log = self.topics.get_mut(topic).and_then(|topic| topic.partition(*partition));
            // The topic may have been deleted.
            if let Some(log) = log.filter(|log| !after_restart || log.has_open(producer_id)) {
                log.end_transaction(producer_id, transaction.epoch, commit, now_ms());
            }
        }
        for pending in transaction.offsets.into_iter().filter(|_| commit) {
            self.set_offset(&pending.group, &pending.topic, pending.partition, pending.committed);
        }
        let transaction = self.transactions.get_mut(id).expect("a known transaction");
        transaction.phase = if commit { Phase::CompleteCommit } else { Phase::CompleteAbort };
        transaction.partitions.clear();
        transaction.groups.clear();
        transaction.offsets.clear();
        self.keep_transaction(id);
    }

    /// Completes what was decided before the process was killed.
    pub fn finish_transactions(&mut self) {
        let decided =
            |transaction: &Transaction| matches!(transaction.phase, Phase::PrepareCommit | Phase::PrepareAbort);
        let ids = self.transactions.iter().filter(|(_, transaction)| decided(transaction));
        let ids: Vec<String> = ids.map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.complete(id, true));
    }

    /// Whether a producer may write this batch of a transaction to this partition.
    pub fn check_produce(
        &self,
        id: Option<&str>,
        topic: &str,
        partition: i32,
        header: &Header,
    ) -> Result<(), ResponseError> {
        let known = id.and_then(|id| self.transactions.get(id));
        let known = known.filter(|transaction| transaction.producer_id == header.producer_id);
        let transaction = known.ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.epoch != header.producer_epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let open =
            transaction.phase == Phase::Ongoing && transaction.partitions.contains(&(topic.to_string(), partition));
        if open { Ok(()) } else { Err(ResponseError::InvalidTxnState) }
    }
}

impl Transaction {
    fn begin(&mut self) {
        if self.phase != Phase::Ongoing {
            (self.phase, self.started_ms) = (Phase::Ongoing, now_ms());
        }
    }
}

/// Versions before this one have no error of its own for a fenced producer.
fn fenced_as_of(context: &Context, error: ResponseError, version: i16) -> ResponseError {
    let old = error == ResponseError::ProducerFenced && context.version < version;
    if old { ResponseError::InvalidProducerEpoch } else { error }
}

#[cfg(test)]
mod tests;
