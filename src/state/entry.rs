//! [`StreamEntry`]: the daemon's own few numbers about a stream, and their bytes.

/// Version of the encoding below. Format 1, without `seen`, is still read.
const FORMAT: u8 = 2;
/// Version, ended, then six numbers of eight bytes.
const LENGTH: usize = 2 + 6 * 8;
const LENGTH_1: usize = 2 + 5 * 8;

/// What the daemon remembers of a stream beside its session. Kept for a while after the stream's end, so that the
/// numbering of its outputs goes on when the same key is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEntry {
    /// Number of the next output record. Counts over all lives of the key, without gaps.
    pub next_seq: u64,
    /// Records taken in this life.
    pub records: u64,
    /// Labels given in this life.
    pub labels: u64,
    /// End of the last label: characters, bases or steps since this life's start.
    pub position: u64,
    /// When the last record was taken, Unix time in milliseconds.
    pub active_ms: u64,
    /// Offset of the last record taken, -1 for none. Where offsets last, a record at or below it was taken before.
    pub seen: i64,
    /// The stream is over; a further record begins a new life.
    pub ended: bool,
}

impl Default for StreamEntry {
    /// A stream never seen.
    fn default() -> Self {
        StreamEntry { next_seq: 0, records: 0, labels: 0, position: 0, active_ms: 0, seen: -1, ended: false }
    }
}

/// Why bytes are no [`StreamEntry`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("a stream's entry has format {0}; this build reads format {FORMAT}")]
    Format(u8),
    #[error("a stream's entry is damaged ({0} bytes)")]
    Damaged(usize),
}

impl StreamEntry {
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut out = [0; LENGTH];
        out[0] = FORMAT;
        out[1] = u8::from(self.ended);
        let seen = self.seen.cast_unsigned();
        let numbers = [self.next_seq, self.records, self.labels, self.position, self.active_ms, seen];
        for (chunk, number) in out[2..].chunks_exact_mut(8).zip(numbers) {
            chunk.copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<StreamEntry, EntryError> {
        match bytes.first() {
            Some(&FORMAT) if bytes.len() == LENGTH && bytes[1] <= 1 => {}
            Some(1) if bytes.len() == LENGTH_1 && bytes[1] <= 1 => {}
            Some(&format) if format != FORMAT && format != 1 => return Err(EntryError::Format(format)),
            _ => return Err(EntryError::Damaged(bytes.len())),
        }
        let number = |index: usize| {
            let at = 2 + index * 8;
            u64::from_le_bytes(std::array::from_fn(|k| bytes[at + k]))
        };
        Ok(StreamEntry {
            next_seq: number(0),
            records: number(1),
            labels: number(2),
            position: number(3),
            active_ms: number(4),
            seen: if bytes[0] == 1 { -1 } else { number(5).cast_signed() },
            ended: bytes[1] == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_encoding() {
        let entry =
            StreamEntry { next_seq: 7, records: 5, labels: 3, position: u64::MAX, active_ms: 1, seen: -1, ended: true };
        assert_eq!(StreamEntry::decode(&entry.encode()), Ok(entry));
        // As an earlier release wrote it.
        let mut bytes = entry.encode()[..42].to_vec();
        bytes[0] = 1;
        assert_eq!(StreamEntry::decode(&bytes), Ok(entry));
    }

    #[test]
    fn damaged_bytes_are_never_an_entry() {
        let bytes = StreamEntry::default().encode();
        assert_eq!(StreamEntry::decode(&bytes[..49]), Err(EntryError::Damaged(49)));
        assert_eq!(StreamEntry::decode(&[]), Err(EntryError::Damaged(0)));
        let mut other = bytes;
        other[0] = 9;
        assert_eq!(StreamEntry::decode(&other), Err(EntryError::Format(9)));
    }
}
