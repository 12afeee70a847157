//! A [`StreamState`] as the bytes that a changelog topic keeps.
//!
//! ```text
//! version u8 = 1 | length of the entry u8 | entry | 1 and the session, or 0 for an ended stream | crc32 u32 of all before
//! ```
//! Little-endian.

use super::{EntryError, StreamEntry, StreamState};

const VERSION: u8 = 1;

/// Why bytes are no [`StreamState`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the state is in format {0}; this build reads format {VERSION}")]
    Format(u8),
    #[error("the state is damaged ({bytes} bytes): {what}")]
    Damaged { bytes: usize, what: &'static str },
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl StreamState {
    pub fn encode(&self) -> Vec<u8> {
        let entry = self.entry.encode();
        let session = self.session.as_deref();
        let mut out = Vec::with_capacity(7 + entry.len() + session.map_or(0, <[u8]>::len));
        out.extend_from_slice(&[VERSION, entry.len() as u8]);
        out.extend_from_slice(&entry);
        out.push(u8::from(session.is_some()));
        out.extend_from_slice(session.unwrap_or_default());
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The entry alone, without a look at the checksum: for bytes that were checked when they came.
    pub fn entry_of(bytes: &[u8]) -> Option<StreamEntry> {
        let [VERSION, length, rest @ ..] = bytes else { return None };
        StreamEntry::decode(rest.get(..usize::from(*length))?).ok()
    }

    /// The session's bytes alone, in the same way; `None` for a stream that has ended.
    pub fn session_of(bytes: &[u8]) -> Option<&[u8]> {
        let [VERSION, length, rest @ ..] = bytes.split_last_chunk::<4>()?.0 else { return None };
        match rest.get(usize::from(*length)..)? {
            [1, session @ ..] => Some(session),
            _ => None,
        }
    }

    /// The inverse of [`StreamState::encode`]. Bytes that were changed are an error, never another state.
    pub fn decode(bytes: &[u8]) -> Result<StreamState, CodecError> {
        let (entry, session) = StreamState::parts(bytes)?;
        Ok(StreamState { entry, session: session.map(<[u8]>::to_vec) })
    }

    /// Whether [`StreamState::decode`] can read the bytes, and the entry.
    pub fn verify(bytes: &[u8]) -> Result<StreamEntry, CodecError> {
        StreamState::parts(bytes).map(|(entry, _)| entry)
    }

    fn parts(bytes: &[u8]) -> Result<(StreamEntry, Option<&[u8]>), CodecError> {
        let damaged = |what| CodecError::Damaged { bytes: bytes.len(), what };
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(damaged("it is too short"))?;
        if body.first().is_some_and(|version| *version != VERSION) {
            return Err(CodecError::Format(body[0]));
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(damaged("its checksum does not fit"));
        }
        let [_, length, rest @ ..] = body else { return Err(damaged("it is too short")) };
        let (entry, rest) = rest.split_at_checked(usize::from(*length)).ok_or(damaged("its entry is cut"))?;
        let entry = StreamEntry::decode(entry)?;
        match rest {
            [0] => Ok((entry, None)),
            [1, session @ ..] => Ok((entry, Some(session))),
            _ => Err(damaged("its session is neither there nor absent")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_state_survives_its_encoding_and_no_change_of_it_passes(
            next_seq: u64, seen: i64, ended: bool,
            session in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            at: prop::sample::Index, flip in 1u8..,
        ) {
            let entry = StreamEntry { next_seq, seen, ended, ..StreamEntry::default() };
            let state = StreamState { entry, session };
            let mut bytes = state.encode();
            prop_assert_eq!(StreamState::entry_of(&bytes), Some(state.entry));
            prop_assert_eq!(StreamState::session_of(&bytes), state.session.as_deref());
            prop_assert_eq!(StreamState::decode(&bytes), Ok(state));
            prop_assert!(StreamState::decode(&bytes[..at.index(bytes.len())]).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(StreamState::decode(&bytes).is_err());
        }
    }
}
