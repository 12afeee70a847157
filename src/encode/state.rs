//! What is carried of a stream's reading from record to record, and its bytes.

/// What a stream's reader must remember between two pieces: the unfinished part and the position.
///
/// Small, exact and portable: it is part of the stream's saved state ([`ReaderState::encode`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReaderState {
    /// Position of the next unit's first character, base or step since the stream's start.
    pub position: u64,
    /// Bytes read that do not make a whole unit yet.
    pub pending: Vec<u8>,
    /// What the features of the next unit need of the past (the last bases of a DNA stream), or the stream's class.
    pub context: Vec<u8>,
}

/// More than any reader leaves pending (a chunk of 256 characters of 4 bytes) or needs as context.
const MAX_PART_BYTES: usize = 4096;

impl ReaderState {
    /// The class that a stream is of, for an encoder with classes.
    pub fn class(&self) -> Option<usize> {
        self.context.first_chunk::<2>().map(|class| usize::from(u16::from_le_bytes(*class)))
    }

    /// Says of which class a stream is, before its first step.
    pub fn set_class(&mut self, class: u16) {
        self.context = class.to_le_bytes().to_vec();
    }

    /// Appends the state to `out`: position as u64, then `pending` and `context`, each after its length as u32; all
    /// little-endian. The layout has no version of its own: the state that it is part of has one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_le_bytes());
        for part in [&self.pending, &self.context] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(part);
        }
    }

    /// The inverse of [`ReaderState::encode`]: the state at the start of `bytes` and how many bytes it took.
    pub fn decode(bytes: &[u8]) -> Result<(ReaderState, usize), String> {
        let mut rest = bytes;
        let position = u64::from_le_bytes(take(&mut rest, "position")?);
        if position > u64::MAX / 2 {
            return Err(format!("reader state: position {position} is impossible"));
        }
        let pending = part(&mut rest, "pending bytes")?;
        let context = part(&mut rest, "context")?;
        Ok((ReaderState { position, pending, context }, bytes.len() - rest.len()))
    }
}

fn take<const N: usize>(rest: &mut &[u8], what: &str) -> Result<[u8; N], String> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(|| format!("reader state: cut off in its {what}"))?;
    *rest = tail;
    Ok(*head)
}

fn part(rest: &mut &[u8], what: &str) -> Result<Vec<u8>, String> {
    let length = u32::from_le_bytes(take(rest, what)?) as usize;
    if length > MAX_PART_BYTES {
        return Err(format!("reader state: {length} {what}, at most {MAX_PART_BYTES} are possible"));
    }
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| format!("reader state: cut off in its {what}"))?;
    *rest = tail;
    Ok(head.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn decoding_gives_back_what_was_encoded(
            position in 0..u64::MAX / 2,
            pending in proptest::collection::vec(any::<u8>(), 0..1025),
            context in proptest::collection::vec(any::<u8>(), 0..16),
            after in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let state = ReaderState { position, pending, context };
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            let used = bytes.len();
            bytes.extend_from_slice(&after);
            prop_assert_eq!(ReaderState::decode(&bytes), Ok((state, used)));
            for short in 0..used {
                prop_assert!(ReaderState::decode(&bytes[..short]).is_err());
            }
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ReaderState::decode(&bytes);
        }
    }

    #[test]
    fn absurd_lengths_and_positions_are_refused() {
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(ReaderState::decode(&bytes).unwrap_err().contains("at most 4096"));
        assert!(ReaderState::decode(&[0xff; 16]).unwrap_err().contains("impossible"));
    }
}
