//! Record batches of format 2, as they lie in requests, answers and files.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::records::{Compression, Record, RecordBatchDecoder};
use std::io::Read;

/// Bytes before the first record.
pub const HEADER: usize = 61;

/// What the header of a batch says.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub base_offset: i64,
    /// Bytes of the whole batch.
    pub size: usize,
    pub last_offset_delta: i32,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
    pub control: bool,
}

impl Header {
    /// The header of the batch at the front of `bytes`, which may go on after it; `None` if the batch is not all there.
    /// The checksum covers all of a batch but its offset and length.
    pub fn read(bytes: &[u8]) -> Option<Result<Header, ResponseError>> {
        if bytes.len() < HEADER {
            return None;
        }
        let size = usize::try_from(i32_at(bytes, 8)).ok().and_then(|length| length.checked_add(12));
        let Some(size) = size.filter(|&size| size >= HEADER) else { return Some(Err(ResponseError::CorruptMessage)) };
        if bytes[16] != 2 {
            return Some(Err(ResponseError::UnsupportedForMessageFormat));
        }
        if bytes.len() < size {
            return None;
        }
        let attributes = i16_at(bytes, 21);
        let header = Header {
            base_offset: i64_at(bytes, 0),
            size,
            last_offset_delta: i32_at(bytes, 23),
            max_timestamp: i64_at(bytes, 35),
            producer_id: i64_at(bytes, 43),
            producer_epoch: i16_at(bytes, 51),
            base_sequence: i32_at(bytes, 53),
            transactional: attributes & 1 << 4 != 0,
            control: attributes & 1 << 5 != 0,
        };
        let count = i32_at(bytes, 57);
        let sound = crc32c::crc32c(&bytes[21..size]) == i32_at(bytes, 17) as u32
            && count >= 1
            && header.last_offset_delta == count - 1;
        Some(if sound { Ok(header) } else { Err(ResponseError::CorruptMessage) })
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub fn last_sequence(&self) -> i32 {
        add_to_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// Sequence numbers go on at 0 after the largest.
pub fn add_to_sequence(sequence: i32, more: i32) -> i32 {
    ((i64::from(sequence) + i64::from(more)) % (i64::from(i32::MAX) + 1)) as i32
}

/// Gives a batch its place in the log.
pub fn place(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// The records of one batch.
pub fn records(batch: &[u8]) -> Result<Vec<Record>, ResponseError> {
    let mut batch = Bytes::copy_from_slice(batch);
    let set = match i16_at(&batch, 21) & 7 {
        3 | 4 => RecordBatchDecoder::decode_with_custom_compression(&mut batch, Some(decompress)),
        _ => RecordBatchDecoder::decode(&mut batch),
    };
    set.map(|set| set.records).map_err(|_| ResponseError::CorruptMessage)
}

fn decompress(compressed: &mut Bytes, compression: Compression) -> anyhow::Result<Bytes> {
    let mut records = Vec::new();
    match compression {
        Compression::Lz4 => _ = lz4_flex::frame::FrameDecoder::new(&compressed[..]).read_to_end(&mut records)?,
        Compression::Zstd => {
            _ = ruzstd::decoding::StreamingDecoder::new(&compressed[..])?.read_to_end(&mut records)?;
        }
        other => anyhow::bail!("{other:?} is not decompressed here"),
    }
    Ok(records.into())
}

/// Whether the marker in a control batch ends a transaction by a commit.
pub fn is_commit(control: &[u8]) -> bool {
    // After the header: the record's length, attributes, two deltas, the key's length, the key's version, its type.
    control.len() > HEADER + 8 && control[HEADER + 7..HEADER + 9] == [0, 1]
}

/// A control batch that ends a transaction in a partition. Its offset is still to be given.
pub fn marker(producer_id: i64, producer_epoch: i16, commit: bool, timestamp: i64) -> Vec<u8> {
    let mut batch = vec![0; HEADER];
    // Lengths are zigzag numbers: 16, 4 and 6 bytes.
    batch.extend([32, 0, 0, 0, 8, 0, 0, 0, u8::from(commit), 12, 0, 0, 0, 0, 0, 0, 0]);
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    batch[21..23].copy_from_slice(&(1i16 << 4 | 1 << 5).to_be_bytes());
    batch[27..35].copy_from_slice(&timestamp.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&(-1i32).to_be_bytes());
    batch[57..61].copy_from_slice(&1i32.to_be_bytes());
    let sum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&sum.to_be_bytes());
    batch
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::records::{RecordBatchEncoder, RecordEncodeOptions, TimestampType};

    /// A batch of records with these values and timestamps 1000, 1001, …
    pub fn batch(producer: (i64, i16), sequence: i32, transactional: bool, values: &[&str]) -> Vec<u8> {
        let record = |(k, value): (usize, &&str)| Record {
            transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: producer.0,
            producer_epoch: producer.1,
            timestamp_type: TimestampType::Creation,
            offset: k as i64,
            sequence: sequence + k as i32,
            timestamp: 1000 + k as i64,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Default::default(),
        };
        let records: Vec<Record> = values.iter().enumerate().map(record).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::Gzip };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        bytes.to_vec()
    }

    #[test]
    fn a_marker_is_a_control_batch_as_others_read_it() {
        for commit in [true, false] {
            let mut bytes = marker(7, 3, commit, 12345);
            place(&mut bytes, 40, 0);
            let header = Header::read(&bytes).unwrap().unwrap();
            assert!(header.control && header.transactional && is_commit(&bytes) == commit);
            assert_eq!((header.producer_id, header.producer_epoch, header.last_offset()), (7, 3, 40));
            let record = &records(&bytes).unwrap()[0];
            assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, u8::from(commit)][..]));
            assert_eq!(record.value.as_deref(), Some(&[0; 6][..]));
        }
    }

    #[test]
    fn a_changed_byte_is_found_and_a_cut_batch_is_waited_for() {
        let bytes = batch((1, 0), 0, false, &["a", "b"]);
        assert_eq!(Header::read(&bytes).unwrap().unwrap().last_sequence(), 1);
        for at in 17..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Header::read(&changed).unwrap(), Err(ResponseError::CorruptMessage), "byte {at}");
        }
        assert_eq!(Header::read(&bytes[..bytes.len() - 1]), None);
        assert_eq!(add_to_sequence(i32::MAX, 1), 0);
    }
}
