//! What a request does to the tables, inside a transaction that the writer began and will commit.

use super::tables::{CLIENTS, Counters, DEAD_LETTERS, LABELS, LOG, QUEUE, Queued, label_row};
use super::{Answer, NewRecord, Taken};
use crate::state::{Figures, write_states};
use crate::transport::Transaction;
use redb::{ReadableTable, WriteTransaction};
use tokio::sync::oneshot;

/// A group's effects that are told when it is on disk.
#[derive(Default)]
pub struct Told {
    /// What became of each request's records, in order of the requests.
    pub taken: Vec<Vec<Taken>>,
    pub waiting: Vec<(u64, oneshot::Sender<Answer>)>,
    /// Records and bytes that leave the queue's account: consumed, or duplicates that never went in.
    pub released: (u64, u64),
    pub sweep_on: bool,
}

/// Puts records into the queue, but for those that the client sent before.
pub fn ingest(
    txn: &WriteTransaction,
    records: &mut [NewRecord],
    counters: &mut Counters,
    now_ms: u64,
    told: &mut Told,
) -> Result<(), redb::Error> {
    let mut queue = txn.open_table(QUEUE)?;
    let mut clients = txn.open_table(CLIENTS)?;
    let mut taken = Vec::with_capacity(records.len());
    for record in records {
        let key = record.stream.as_bytes();
        let last = match record.id {
            Some(_) => clients.get(key)?.map(|row| row.value()),
            None => None,
        };
        if let (Some(id), Some((last_id, last_offset, _))) = (record.id, last)
            && id <= last_id
        {
            let offset = (id == last_id).then_some(last_offset);
            // Still in the queue: whoever asks again waits for the same output.
            if let (Some(offset), Some(wait)) = (offset.filter(|o| *o >= counters.consumed), record.wait.take()) {
                told.waiting.push((offset, wait));
            }
            told.released.0 += 1;
            told.released.1 += super::burden_of(record);
            taken.push(Taken::Before { offset });
            continue;
        }
        let offset = counters.queue_next;
        counters.queue_next += 1;
        let queued = Queued {
            stream: record.stream.clone(),
            event: record.event,
            timestamp_ms: now_ms,
            value: std::mem::take(&mut record.value),
        };
        let row = queued.encode();
        counters.queue_bytes += row.len() as u64;
        queue.insert(offset, row.as_slice())?;
        if let Some(id) = record.id {
            clients.insert(key, (id, offset, now_ms))?;
        }
        if let Some(wait) = record.wait.take() {
            told.waiting.push((offset, wait));
        }
        taken.push(Taken::At { offset });
    }
    told.taken.push(taken);
    Ok(())
}

/// The pipeline's transaction: labels, states, dead letters, and the consumed records leave the queue.
pub fn commit(
    txn: &WriteTransaction,
    transaction: &Transaction,
    counters: &mut Counters,
    now_ms: u64,
    told: &mut Told,
) -> Result<Figures, redb::Error> {
    let mut labels = txn.open_table(LABELS)?;
    let mut log = txn.open_table(LOG)?;
    for output in &transaction.outputs {
        let offset = output.input.origin.offset().and_then(|offset| u64::try_from(offset).ok());
        let row = label_row(offset, &output.value);
        let key = output.stream.as_bytes();
        let bytes = row.len() as u64;
        labels.insert((key, output.seq), row.as_slice())?;
        log.insert(counters.log_next, (key, output.seq, now_ms, bytes))?;
        counters.log_next += 1;
        counters.labels_bytes += bytes;
    }
    let mut dead = txn.open_table(DEAD_LETTERS)?;
    for letter in &transaction.letters {
        let mut fields = serde_json::Map::new();
        fields.insert("number".to_string(), counters.dead_next.into());
        fields.append(&mut letter.to_json());
        let json = serde_json::Value::Object(fields).to_string().into_bytes();
        dead.insert(counters.dead_next, (now_ms, json.as_slice()))?;
        counters.dead_next += 1;
        counters.dead_bytes += json.len() as u64;
    }
    let mut queue = txn.open_table(QUEUE)?;
    for position in &transaction.positions {
        let next = u64::try_from(position.next_offset).unwrap_or(0);
        // A position never goes back, and never beyond what was taken in.
        assert!(counters.consumed <= next && next <= counters.queue_next, "{counters:?}, position {next}");
        for offset in counters.consumed..next {
            if let Some(row) = queue.remove(offset)? {
                let bytes = row.value().len() as u64;
                counters.queue_bytes -= bytes;
                told.released.0 += 1;
                told.released.1 += bytes;
            }
        }
        counters.consumed = next;
    }
    write_states(txn, &transaction.states)
}
