//! Reading the store: labels, dead letters, what is known of a stream. Blocking; in async code use `spawn_blocking`.

use super::Embedded;
use super::tables::{DEAD_LETTERS, LABELS, LOG, read_label_row};
use crate::state::{StoreError, StreamEntry, StreamId, stream_entry};
use redb::ReadTransaction;

/// Bytes after which a page ends.
const PAGE_BYTES: usize = 256 << 10;

/// Something that is read in order and may be followed.
#[derive(Debug, Clone)]
pub enum Feed {
    /// A stream's output records, by seq.
    Stream(StreamId),
    /// All output records in the order of their commits.
    Labels,
    DeadLetters,
}

/// One row of a feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The row's place in its feed: pass `cursor + 1` as `from` to go on after it.
    pub cursor: u64,
    pub json: Vec<u8>,
}

/// What is known of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamInfo {
    pub entry: StreamEntry,
    pub state_bytes: usize,
}

impl Embedded {
    /// At most `limit` rows from `from` on; fewer when they are large.
    pub fn page(&self, feed: &Feed, from: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut add = |cursor: u64, json: &[u8]| {
            bytes += json.len();
            rows.push(Row { cursor, json: json.to_vec() });
            rows.len() >= limit || bytes >= PAGE_BYTES
        };
        if limit == 0 {
            return Ok(rows);
        }
        self.shared.file.read(|txn| {
            match feed {
                Feed::Stream(stream) => {
                    let key = stream.as_bytes();
                    for row in txn.open_table(LABELS)?.range((key, from)..=(key, u64::MAX))? {
                        let (key, value) = row?;
                        if add(key.value().1, read_label_row(value.value()).1) {
                            break;
                        }
                    }
                }
                Feed::Labels => {
                    let labels = txn.open_table(LABELS)?;
                    for row in txn.open_table(LOG)?.range(from..)? {
                        let (number, place) = row?;
                        let (stream, seq, _, _) = place.value();
                        if let Some(value) = labels.get((stream, seq))?
                            && add(number.value(), read_label_row(value.value()).1)
                        {
                            break;
                        }
                    }
                }
                Feed::DeadLetters => {
                    for row in txn.open_table(DEAD_LETTERS)?.range(from..)? {
                        let (number, value) = row?;
                        if add(number.value(), value.value().1) {
                            break;
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Where the feed goes on after everything that is there now.
    pub fn end_of(&self, feed: &Feed) -> Result<u64, StoreError> {
        let progress = *self.shared.progress.borrow();
        match feed {
            Feed::Labels => Ok(progress.log_next),
            Feed::DeadLetters => Ok(progress.dead_next),
            Feed::Stream(stream) => Ok(self.stream(stream)?.map_or(0, |info| info.entry.next_seq)),
        }
    }

    pub fn stream(&self, stream: &StreamId) -> Result<Option<StreamInfo>, StoreError> {
        let found = self.shared.file.read(|txn| stream_entry(txn, stream))?;
        Ok(found.map(|(entry, state_bytes)| StreamInfo { entry, state_bytes }))
    }

    /// The output of the record at `offset`, if it is still kept.
    pub fn output_of(&self, stream: &StreamId, offset: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let find = |txn: &ReadTransaction| {
            let key = stream.as_bytes();
            for row in txn.open_table(LABELS)?.range((key, 0)..=(key, u64::MAX))?.rev() {
                let (_, value) = row?;
                let (answers, json) = read_label_row(value.value());
                if answers == Some(offset) {
                    return Ok(Some(json.to_vec()));
                }
                if answers.is_some_and(|answers| answers < offset) {
                    break;
                }
            }
            Ok(None)
        };
        self.shared.file.read(find)
    }
}
