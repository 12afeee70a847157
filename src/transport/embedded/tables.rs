//! The embedded store's tables beside the states, and the rows in them.

use crate::state::StreamId;
use crate::transport::Event;
use redb::{ReadTransaction, TableDefinition, WriteTransaction};

/// Offset → [`Queued`]. Rows are deleted by the transaction that consumes them.
pub const QUEUE: TableDefinition<u64, &[u8]> = TableDefinition::new("queue");
/// Stream, seq → [`label_row`].
pub const LABELS: TableDefinition<(&[u8], u64), &[u8]> = TableDefinition::new("labels");
/// All labels in the order of their commits: number → stream, seq, time (Unix ms), bytes of the row.
pub const LOG: TableDefinition<u64, (&[u8], u64, u64, u64)> = TableDefinition::new("log");
/// Number → time (Unix ms), JSON.
pub const DEAD_LETTERS: TableDefinition<u64, (u64, &[u8])> = TableDefinition::new("dead_letters");
/// Stream → the client's last record number, its offset, when (Unix ms).
pub const CLIENTS: TableDefinition<&[u8], (u64, u64, u64)> = TableDefinition::new("clients");
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");

/// Where everything stands; part of every transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Offset of the next record taken in.
    pub queue_next: u64,
    /// First offset that is not consumed.
    pub consumed: u64,
    pub queue_bytes: u64,
    pub log_next: u64,
    pub labels_bytes: u64,
    pub dead_next: u64,
    pub dead_bytes: u64,
}

impl Counters {
    fn fields(&mut self) -> [(&'static str, &mut u64); 7] {
        [
            ("queue_next", &mut self.queue_next),
            ("consumed", &mut self.consumed),
            ("queue_bytes", &mut self.queue_bytes),
            ("log_next", &mut self.log_next),
            ("labels_bytes", &mut self.labels_bytes),
            ("dead_next", &mut self.dead_next),
            ("dead_bytes", &mut self.dead_bytes),
        ]
    }

    pub fn read(txn: &ReadTransaction) -> Result<Counters, redb::Error> {
        let table = txn.open_table(COUNTERS)?;
        let mut counters = Counters::default();
        for (name, value) in counters.fields() {
            *value = table.get(name)?.map_or(0, |stored| stored.value());
        }
        Ok(counters)
    }

    pub fn write(mut self, txn: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = txn.open_table(COUNTERS)?;
        for (name, value) in self.fields() {
            table.insert(name, *value)?;
        }
        Ok(())
    }

    /// Records that wait.
    pub fn queued(&self) -> u64 {
        self.queue_next - self.consumed
    }
}

/// Creates the tables, so that readers find them.
pub fn create(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(QUEUE)?;
    txn.open_table(LABELS)?;
    txn.open_table(LOG)?;
    txn.open_table(DEAD_LETTERS)?;
    txn.open_table(CLIENTS)?;
    txn.open_table(COUNTERS)?;
    Ok(())
}

/// Whether [`create`] was.
pub fn exist(txn: &ReadTransaction) -> bool {
    let all = [
        txn.open_table(QUEUE).is_ok(),
        txn.open_table(LABELS).is_ok(),
        txn.open_table(LOG).is_ok(),
        txn.open_table(DEAD_LETTERS).is_ok(),
        txn.open_table(CLIENTS).is_ok(),
        txn.open_table(COUNTERS).is_ok(),
    ];
    all.iter().all(|is_there| *is_there)
}

/// A record in the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    pub stream: StreamId,
    pub event: Option<Event>,
    pub timestamp_ms: u64,
    pub value: Vec<u8>,
}

const EVENTS: [Event; 4] = [Event::Start, Event::Flush, Event::Reset, Event::End];

impl Queued {
    /// Time, event, length of the key, key, value.
    pub fn encode(&self) -> Vec<u8> {
        let key = self.stream.as_bytes();
        let event = self.event.and_then(|event| EVENTS.iter().position(|e| *e == event)).map_or(0, |k| k as u8 + 1);
        let mut row = Vec::with_capacity(11 + key.len() + self.value.len());
        row.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        row.push(event);
        // A key has at most 1024 bytes.
        row.extend_from_slice(&(key.len() as u16).to_le_bytes());
        row.extend_from_slice(key);
        row.extend_from_slice(&self.value);
        row
    }

    /// `None`: the row is damaged.
    pub fn decode(row: &[u8]) -> Option<Queued> {
        let (time, rest) = row.split_first_chunk::<8>()?;
        let (event, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let event = match event {
            0 => None,
            k => Some(*EVENTS.get(usize::from(*k) - 1)?),
        };
        let stream = StreamId::new(key).ok()?;
        Some(Queued { stream, event, timestamp_ms: u64::from_le_bytes(*time), value: value.to_vec() })
    }
}

/// An output record in [`LABELS`]: the offset of the record that it answers (`u64::MAX`: none), then its JSON.
pub fn label_row(offset: Option<u64>, json: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + json.len());
    row.extend_from_slice(&offset.unwrap_or(u64::MAX).to_le_bytes());
    row.extend_from_slice(json);
    row
}

/// The inverse of [`label_row`]; a row too short is taken as an empty one without an offset.
pub fn read_label_row(row: &[u8]) -> (Option<u64>, &[u8]) {
    let Some((offset, json)) = row.split_first_chunk::<8>() else { return (None, &[]) };
    (Some(u64::from_le_bytes(*offset)).filter(|offset| *offset != u64::MAX), json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_record_survives_its_encoding() {
        for event in [None, Some(Event::Start), Some(Event::End)] {
            let stream = StreamId::new("ключ".as_bytes()).unwrap();
            let queued = Queued { stream, event, timestamp_ms: 1_700_000_000_123, value: vec![0, 255, b'x'] };
            assert_eq!(Queued::decode(&queued.encode()), Some(queued));
        }
    }

    #[test]
    fn a_damaged_row_is_no_record() {
        let queued = Queued { stream: StreamId::new(b"a").unwrap(), event: None, timestamp_ms: 0, value: vec![] };
        let mut row = queued.encode();
        assert_eq!(Queued::decode(&row[..11]), None);
        row[8] = 9;
        assert_eq!(Queued::decode(&row), None);
        assert_eq!(Queued::decode(&[]), None);
    }
}
