//! The log of one partition: a file of record batches, and what is known of its producers and their transactions.
//! All of that is found again in the batches when the file is opened.

use crate::batch::{self, Header, add_to_sequence};
use anyhow::{Context, Result, bail};
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// As many batches of a producer are remembered, to know one that is sent again.
const REMEMBERED: usize = 5;

pub struct Partition {
    file: File,
    size: u64,
    batches: Vec<Place>,
    /// The first offset that may be read.
    pub start: i64,
    /// The offset of the next record; with one replica, this is the high watermark.
    pub end: i64,
    producers: HashMap<i64, Producer>,
    /// Open transactions: the producer and its first offset.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

struct Place {
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
    at: u64,
    size: usize,
}

struct Producer {
    epoch: i16,
    batches: VecDeque<Sent>,
}

struct Sent {
    sequences: (i32, i32),
    base_offset: i64,
}

/// A transaction that was aborted, from its first record to its marker.
#[derive(Debug, Clone, PartialEq)]
pub struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
    last_offset: i64,
}

impl Partition {
    /// Opens the file or creates it. A batch that was not written to its end was never acknowledged: it is cut off.
    pub fn open(path: &Path) -> Result<Partition> {
        let named = || path.display().to_string();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.with_context(named)?;
        let content = std::fs::read(path).with_context(named)?;
        let mut partition = Partition {
            file,
            size: 0,
            batches: Vec::new(),
            start: 0,
            end: 0,
            producers: HashMap::new(),
            open: BTreeMap::new(),
            aborted: Vec::new(),
        };
        while let Some(header) = Header::read(&content[partition.size as usize..]) {
            let at = partition.size as usize;
            match header {
                Ok(header) if header.base_offset == partition.end => {
                    let commit = header.control && batch::is_commit(&content[at..at + header.size]);
                    partition.remember(&header, commit);
                }
                _ => bail!("{}: the batch at byte {at} is damaged", path.display()),
            }
        }
        partition.file.set_len(partition.size).with_context(named)?;
        Ok(partition)
    }

    /// Records of open transactions, and all after them, are not stable.
    pub fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    pub fn has_open(&self, producer_id: i64) -> bool {
        self.open.contains_key(&producer_id)
    }

    /// Appends a batch of a client; answers its offset. One that is there already is not appended again.
    pub fn append(&mut self, bytes: &[u8], header: &Header) -> Result<i64, ResponseError> {
        if header.producer_id >= 0
            && let Some(offset) = self.check_sequence(header)?
        {
            return Ok(offset);
        }
        let mut header = header.clone();
        header.base_offset = self.end;
        self.write(bytes.to_vec(), &header, false);
        Ok(header.base_offset)
    }

    /// Ends a producer's transaction here.
    pub fn end_transaction(&mut self, producer_id: i64, epoch: i16, commit: bool, now_ms: i64) {
        let bytes = batch::marker(producer_id, epoch, commit, now_ms);
        let mut header = Header::read(&bytes).expect("a whole batch").expect("a sound batch");
        header.base_offset = self.end;
        self.write(bytes, &header, commit);
    }

    fn write(&mut self, mut bytes: Vec<u8>, header: &Header, commit: bool) {
        batch::place(&mut bytes, header.base_offset, 0);
        self.file.write_all_at(&bytes, self.size).expect("a partition's file can be written");
        self.remember(header, commit);
    }

    /// Takes a batch that is in the file into account.
    fn remember(&mut self, header: &Header, commit: bool) {
        self.batches.push(Place {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            at: self.size,
            size: header.size,
        });
        self.size += header.size as u64;
        self.end = header.last_offset() + 1;
        if header.producer_id < 0 {
            return;
        }
        let producer = self.producers.entry(header.producer_id);
        let producer = producer.or_insert(Producer { epoch: header.producer_epoch, batches: VecDeque::new() });
        if producer.epoch != header.producer_epoch {
            *producer = Producer { epoch: header.producer_epoch, batches: VecDeque::new() };
        }
        if header.control {
            let first = self.open.remove(&header.producer_id);
            if let Some(first_offset) = first.filter(|_| !commit) {
                let (producer_id, last_offset) = (header.producer_id, header.last_offset());
                self.aborted.push(Aborted { producer_id, first_offset, last_offset });
            }
            return;
        }
        let sequences = (header.base_sequence, header.last_sequence());
        producer.batches.push_back(Sent { sequences, base_offset: header.base_offset });
        if producer.batches.len() > REMEMBERED {
            producer.batches.pop_front();
        }
        if header.transactional {
            self.open.entry(header.producer_id).or_insert(header.base_offset);
        }
    }

    /// Whether a producer's batch is the next one; an offset if it is there already.
    fn check_sequence(&self, header: &Header) -> Result<Option<i64>, ResponseError> {
        // Of a producer that is not known here, anything is the first.
        let Some(producer) = self.producers.get(&header.producer_id) else { return Ok(None) };
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let first = if header.producer_epoch > producer.epoch {
            0
        } else {
            let sequences = (header.base_sequence, header.last_sequence());
            if let Some(sent) = producer.batches.iter().find(|sent| sent.sequences == sequences) {
                return Ok(Some(sent.base_offset));
            }
            producer.batches.back().map_or(0, |sent| add_to_sequence(sent.sequences.1, 1))
        };
        if header.base_sequence == first { Ok(None) } else { Err(ResponseError::OutOfOrderSequenceNumber) }
    }

    /// Whole batches from the one with this offset on, before `until` and at most `max_bytes`; the first one in any case
    /// if `at_least_one`. Also the offset after them.
    pub fn read(&self, offset: i64, until: i64, max_bytes: usize, at_least_one: bool) -> (Vec<u8>, i64) {
        let first = self.batches.partition_point(|place| place.last_offset < offset);
        let (mut size, mut next) = (0, offset);
        for place in self.batches[first..].iter().take_while(|place| place.base_offset < until) {
            if size + place.size > max_bytes && (size > 0 || !at_least_one) {
                break;
            }
            size += place.size;
            next = place.last_offset + 1;
        }
        let mut bytes = vec![0; size];
        if size > 0 {
            self.file.read_exact_at(&mut bytes, self.batches[first].at).expect("a partition's file can be read");
        }
        (bytes, next)
    }

    /// How many bytes there are to read from this offset on, as far as that matters.
    pub fn available(&self, offset: i64, until: i64, max_bytes: usize) -> usize {
        let first = self.batches.partition_point(|place| place.last_offset < offset);
        let mut size = 0;
        for place in self.batches[first..].iter().take_while(|place| place.base_offset < until) {
            size += place.size;
            if size >= max_bytes {
                break;
            }
        }
        size
    }

    /// The aborted transactions that have a part in these offsets.
    pub fn aborted(&self, from: i64, until: i64) -> Vec<Aborted> {
        let within = |aborted: &&Aborted| aborted.last_offset >= from && aborted.first_offset < until;
        self.aborted.iter().filter(within).cloned().collect()
    }

    /// Offset and timestamp of the first record that is not older than this.
    pub fn at_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ResponseError> {
        for place in self.batches.iter().filter(|place| place.max_timestamp >= timestamp) {
            let mut bytes = vec![0; place.size];
            self.file.read_exact_at(&mut bytes, place.at).expect("a partition's file can be read");
            let records = batch::records(&bytes)?;
            let found = |record: &&kafka_protocol::records::Record| {
                record.offset >= self.start && record.timestamp >= timestamp && !record.control
            };
            if let Some(record) = records.iter().find(found) {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::batch;
    use ResponseError::{InvalidProducerEpoch, OutOfOrderSequenceNumber};

    fn append(partition: &mut Partition, bytes: &[u8]) -> Result<i64, ResponseError> {
        partition.append(bytes, &Header::read(bytes).unwrap().unwrap())
    }

    fn values(partition: &Partition, from: i64, until: i64) -> Vec<String> {
        let (bytes, _) = partition.read(from, until, usize::MAX, true);
        let (mut at, mut values) = (0, Vec::new());
        while at < bytes.len() {
            let header = Header::read(&bytes[at..]).unwrap().unwrap();
            for record in batch::records(&bytes[at..at + header.size]).unwrap() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                values.push(format!("{} {value}", record.offset));
            }
            at += header.size;
        }
        values
    }

    #[test]
    fn a_batch_sent_again_is_there_once_and_a_gap_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut partition = Partition::open(&dir.path().join("0.log")).unwrap();
        let first = batch((9, 1), 0, false, &["a", "b"]);
        assert_eq!(append(&mut partition, &first), Ok(0));
        assert_eq!(append(&mut partition, &batch((9, 1), 2, false, &["c"])), Ok(2));
        assert_eq!(append(&mut partition, &first), Ok(0));
        assert_eq!(append(&mut partition, &batch((9, 1), 4, false, &["e"])), Err(OutOfOrderSequenceNumber));
        assert_eq!(append(&mut partition, &batch((9, 0), 3, false, &["d"])), Err(InvalidProducerEpoch));
        assert_eq!(append(&mut partition, &batch((9, 2), 3, false, &["d"])), Err(OutOfOrderSequenceNumber));
        // All of it is known again after a restart.
        let mut partition = Partition::open(&dir.path().join("0.log")).unwrap();
        assert_eq!(append(&mut partition, &first), Ok(0));
        assert_eq!(append(&mut partition, &batch((9, 2), 0, false, &["d"])), Ok(3));
        assert_eq!(values(&partition, 1, 4), ["0 a", "1 b", "2 c", "3 d"]);
        assert_eq!(values(&partition, 2, 3), ["2 c"]);
    }

    #[test]
    fn an_open_transaction_holds_back_what_is_stable_and_an_aborted_one_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut partition = Partition::open(&path).unwrap();
        append(&mut partition, &batch((-1, -1), -1, false, &["a"])).unwrap();
        append(&mut partition, &batch((1, 0), 0, true, &["b"])).unwrap();
        append(&mut partition, &batch((2, 0), 0, true, &["c", "d"])).unwrap();
        assert_eq!((partition.last_stable(), partition.end), (1, 4));
        partition.end_transaction(1, 0, true, 0);
        assert_eq!((partition.last_stable(), partition.end), (2, 5));
        partition.end_transaction(2, 0, false, 0);
        for partition in [partition, Partition::open(&path).unwrap()] {
            assert_eq!((partition.last_stable(), partition.end), (6, 6));
            let aborted = Aborted { producer_id: 2, first_offset: 2, last_offset: 5 };
            assert_eq!(partition.aborted(3, 4), [aborted]);
            assert_eq!(partition.aborted(0, 2), []);
            assert_eq!(partition.aborted(6, 7), []);
        }
    }

    #[test]
    fn a_batch_that_was_cut_is_dropped_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut partition = Partition::open(&path).unwrap();
        append(&mut partition, &batch((-1, -1), -1, false, &["a"])).unwrap();
        append(&mut partition, &batch((-1, -1), -1, false, &["b"])).unwrap();
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, &content[..content.len() - 1]).unwrap();
        let mut partition = Partition::open(&path).unwrap();
        assert_eq!(append(&mut partition, &batch((-1, -1), -1, false, &["c"])), Ok(1));
        assert_eq!(values(&partition, 0, 2), ["0 a", "1 c"]);
        let mut content = std::fs::read(&path).unwrap();
        content[70] ^= 1;
        std::fs::write(&path, &content).unwrap();
        assert!(Partition::open(&path).err().unwrap().to_string().contains("byte 0 is damaged"));
    }

    #[test]
    fn reading_keeps_to_whole_batches_and_their_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let mut partition = Partition::open(&dir.path().join("0.log")).unwrap();
        let one = batch((-1, -1), -1, false, &["a", "b"]);
        for _ in 0..3 {
            append(&mut partition, &one).unwrap();
        }
        assert_eq!(partition.read(1, 6, 2 * one.len(), true).1, 4);
        assert_eq!(partition.read(0, 6, 1, true).1, 2);
        assert_eq!(partition.read(0, 6, 1, false), (Vec::new(), 0));
        assert_eq!(partition.read(6, 6, 1000, true), (Vec::new(), 6));
        assert_eq!(partition.available(2, 6, usize::MAX), 2 * one.len());
        assert_eq!(partition.at_timestamp(1001), Ok(Some((1, 1001))));
        assert_eq!(partition.at_timestamp(1002), Ok(None));
    }
}
