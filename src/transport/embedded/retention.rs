//! What is deleted of the store as time passes: old labels, dead letters, and the memory of ended streams.
//!
//! Rows are looked at from the oldest on. One whose time is yet to come was written while the clock stood ahead: it is
//! taken as written now, or it would keep all that came after it.

use super::tables::{CLIENTS, Counters, DEAD_LETTERS, LABELS, LOG};
use crate::config::EmbeddedConfig;
use crate::events::Events;
use crate::state::{forget_ended, is_live};
use redb::{ReadableTable, WriteTransaction};
use std::ops::Bound;
use std::time::Duration;

/// Most rows of a table that one transaction deletes or looks at.
const ROWS: usize = 10_000;

/// The bounds, and how far the slow walk over the streams has come.
pub struct Retention {
    labels_keep: Option<Duration>,
    labels_max_bytes: u64,
    dead_letters_keep: Option<Duration>,
    dead_letters_max_bytes: u64,
    streams_after: Option<Vec<u8>>,
    clients_after: Option<Vec<u8>>,
    /// Rows deleted by the transaction under way.
    deleted: [(&'static str, u64); 4],
    events: Events,
}

impl Retention {
    pub fn new(config: &EmbeddedConfig, events: Events) -> Retention {
        Retention {
            labels_keep: config.labels_keep.on(),
            labels_max_bytes: config.labels_max_bytes.0,
            dead_letters_keep: config.dead_letters_keep.on(),
            dead_letters_max_bytes: config.dead_letters_max_bytes.0,
            streams_after: None,
            clients_after: None,
            deleted: [("labels", 0), ("dead_letters", 0), ("streams", 0), ("clients", 0)],
            events,
        }
    }

    /// Deletes what is due, a bounded number of rows; true: there is more.
    pub fn sweep(&mut self, txn: &WriteTransaction, counters: &mut Counters, now_ms: u64) -> Result<bool, redb::Error> {
        let labels = self.labels(txn, counters, now_ms)?;
        let dead_letters = self.dead_letters(txn, counters, now_ms)?;
        let (streams, clients) = match self.labels_keep {
            Some(keep) => self.memory_of_ended(txn, before(now_ms, keep))?,
            None => (0, 0),
        };
        for (row, count) in self.deleted.iter_mut().zip([labels, dead_letters, streams, clients]) {
            row.1 = count;
        }
        Ok(labels == ROWS as u64 || dead_letters == ROWS as u64)
    }

    /// The transaction of [`Retention::sweep`] is on disk.
    pub fn swept(&self) {
        for (table, rows) in self.deleted {
            self.events.expired(table, rows);
        }
    }

    fn labels(&self, txn: &WriteTransaction, counters: &mut Counters, now_ms: u64) -> Result<u64, redb::Error> {
        let mut log = txn.open_table(LOG)?;
        let mut labels = txn.open_table(LABELS)?;
        let before_ms = self.labels_keep.map(|keep| before(now_ms, keep));
        let mut ahead = Vec::new();
        for row in log.iter()?.take(ROWS) {
            let (number, row) = row?;
            let (stream, seq, time, bytes) = row.value();
            if time <= now_ms {
                break;
            }
            ahead.push((number.value(), stream.to_vec(), seq, bytes));
        }
        for (number, stream, seq, bytes) in ahead {
            log.insert(number, (stream.as_slice(), seq, now_ms, bytes))?;
        }
        let mut count = 0;
        while count < ROWS as u64 {
            let due = match log.first()? {
                Some((_, row)) => {
                    let (_, _, time, _) = row.value();
                    counters.labels_bytes > self.labels_max_bytes || before_ms.is_some_and(|before| time < before)
                }
                None => false,
            };
            if !due {
                break;
            }
            if let Some((_, row)) = log.pop_first()? {
                let (stream, seq, _, bytes) = row.value();
                labels.remove((stream, seq))?;
                counters.labels_bytes -= bytes;
            }
            count += 1;
        }
        Ok(count)
    }

    fn dead_letters(&self, txn: &WriteTransaction, counters: &mut Counters, now_ms: u64) -> Result<u64, redb::Error> {
        let mut letters = txn.open_table(DEAD_LETTERS)?;
        let before_ms = self.dead_letters_keep.map(|keep| before(now_ms, keep));
        let mut ahead = Vec::new();
        for row in letters.iter()?.take(ROWS) {
            let (number, row) = row?;
            if row.value().0 <= now_ms {
                break;
            }
            ahead.push((number.value(), row.value().1.to_vec()));
        }
        for (number, json) in ahead {
            letters.insert(number, (now_ms, json.as_slice()))?;
        }
        let mut count = 0;
        while count < ROWS as u64 {
            let due = match letters.first()? {
                Some((_, row)) => {
                    counters.dead_bytes > self.dead_letters_max_bytes
                        || before_ms.is_some_and(|before| row.value().0 < before)
                }
                None => false,
            };
            if !due {
                break;
            }
            if let Some((_, row)) = letters.pop_first()? {
                counters.dead_bytes -= row.value().1.len() as u64;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Ended streams without labels, and clients' record numbers of streams that are not live: once they are older
    /// than labels are kept, nobody needs them.
    fn memory_of_ended(&mut self, txn: &WriteTransaction, before_ms: u64) -> Result<(u64, u64), redb::Error> {
        let labels = txn.open_table(LABELS)?;
        let keep = |key: &[u8]| Ok(labels.range((key, 0)..=(key, u64::MAX))?.next().is_some());
        let (streams, after) = forget_ended(txn, before_ms, self.streams_after.as_deref(), keep)?;
        self.streams_after = after;
        let mut clients = txn.open_table(CLIENTS)?;
        let (mut forget, mut next) = (Vec::new(), None);
        let from = self.clients_after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for (looked_at, row) in clients.range::<&[u8]>((from, Bound::Unbounded))?.enumerate() {
            let (key, value) = row?;
            if value.value().2 < before_ms && !is_live(txn, key.value())? {
                forget.push(key.value().to_vec());
            }
            if looked_at + 1 == ROWS {
                next = Some(key.value().to_vec());
                break;
            }
        }
        for key in &forget {
            clients.remove(key.as_slice())?;
        }
        self.clients_after = next;
        Ok((streams, forget.len() as u64))
    }
}

fn before(now_ms: u64, keep: Duration) -> u64 {
    now_ms.saturating_sub(keep.as_millis() as u64)
}
