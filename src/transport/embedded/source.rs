//! The queue as the pipeline's source.

use super::tables::{Counters, QUEUE, Queued};
use super::{Shared, TOPIC};
use crate::events::Stage;
use crate::state::StoreError;
use crate::transport::{Event, Origin, PollLimits, Polled, RawRecord, Source, TransportError};
use std::sync::Arc;
use std::time::Instant;

pub struct QueueSource {
    shared: Arc<Shared>,
    topic: Arc<str>,
    /// Offset of the next record.
    next: u64,
    paused: bool,
}

impl QueueSource {
    pub fn new(shared: Arc<Shared>) -> Result<QueueSource, StoreError> {
        let next = shared.file.read(Counters::read)?.consumed;
        Ok(QueueSource { shared, topic: TOPIC.into(), next, paused: false })
    }
}

impl Source for QueueSource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        if self.paused {
            return Ok(Polled::Records(Vec::new()));
        }
        let end = self.shared.tail.wait_beyond(self.next, limits.wait);
        self.shared.events.source_depth(end.saturating_sub(self.next));
        if end <= self.next {
            return Ok(Polled::Records(Vec::new()));
        }
        let (from, topic, reading) = (self.next, &self.topic, Instant::now());
        let read = self.shared.file.read(|txn| {
            let queue = txn.open_table(QUEUE)?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            for row in queue.range(from..end)? {
                let (offset, row) = row?;
                let offset = offset.value();
                let damaged = || redb::Error::Corrupted(format!("record {offset} of the queue is damaged"));
                let Queued { stream, event, timestamp_ms, value } = Queued::decode(row.value()).ok_or_else(damaged)?;
                bytes += value.len();
                records.push(RawRecord {
                    origin: Origin::Record { topic: topic.clone(), partition: 0, offset: offset as i64 },
                    key: Some(stream.as_bytes().to_vec()),
                    value,
                    headers: Event::headers(event),
                    timestamp_ms,
                    defect: None,
                });
                if limits.reached(records.len(), bytes) {
                    break;
                }
            }
            Ok(records)
        });
        let records = read.map_err(|error| match error {
            StoreError::Failed(redb::Error::Corrupted(detail)) => TransportError::Fatal(detail),
            other => TransportError::Transient(other.to_string()),
        })?;
        self.shared.events.spent(Stage::Poll, reading.elapsed());
        self.next += records.len() as u64;
        Ok(Polled::Records(records))
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        let counters = self.shared.file.read(Counters::read);
        self.next = counters.map_err(|e| TransportError::Transient(e.to_string()))?.consumed;
        Ok(())
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}
