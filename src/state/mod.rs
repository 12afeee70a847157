//! What is kept of a stream between two records, and the trait by which the pipeline reads it back.
//!
//! The session itself (h, c, unfinished word) is encoded by [`crate::model::Session`]; here lives what the daemon adds
//! to it, [`StreamEntry`]. Where states are stored is each transport's affair: see [`crate::transport`].

mod codec;
mod entry;
mod file;
mod memory;
mod policy;

pub use codec::CodecError;
pub use entry::{EntryError, StreamEntry};
pub use file::{
    Figures, StateFile, StoreError, forget_ended, is_live, read_figures, stream_entry, write_model, write_states,
};
pub use memory::MemoryStates;
pub use policy::{Maker, ModelPolicy};

use std::fmt;
use std::sync::Arc;

/// Longest key of a stream, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// A stream: the key that its records share, 1 to [`MAX_KEY_BYTES`] bytes, and the partition that they come from.
/// Cheap to clone.
///
/// The partition belongs to it because order holds within one only: the same key in another partition (after another
/// producer's partitioner) is another stream, perhaps in the charge of another instance. It is 0 where a source has no
/// partitions.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    partition: i32,
    key: Arc<[u8]>,
}

/// Why bytes are no stream's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the record has no key: the key says which stream it belongs to")]
    Missing,
    #[error("the key has {bytes} bytes; a stream's key has at most {MAX_KEY_BYTES}")]
    TooLong { bytes: usize },
}

impl StreamId {
    /// The stream with this key, where there are no partitions.
    pub fn new(key: &[u8]) -> Result<StreamId, KeyError> {
        StreamId::within(0, key)
    }

    /// The stream with this key within a partition.
    pub fn within(partition: i32, key: &[u8]) -> Result<StreamId, KeyError> {
        match key.len() {
            0 => Err(KeyError::Missing),
            bytes if bytes > MAX_KEY_BYTES => Err(KeyError::TooLong { bytes }),
            _ => Ok(StreamId { partition, key: key.into() }),
        }
    }

    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.key
    }

    /// The key as text; bytes that are no UTF-8 become U+FFFD.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

/// What the store holds of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    pub entry: StreamEntry,
    /// [`crate::model::Session::encode`]'s bytes; `None` once the stream has ended.
    pub session: Option<Vec<u8>>,
}

/// A stream's state after a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    pub stream: StreamId,
    pub state: StreamState,
}

/// Some streams that have been idle, and where to go on looking.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IdlePage {
    pub streams: Vec<StreamId>,
    /// Pass as `after` to go on; `None`: the end was reached.
    pub next: Option<StreamId>,
}

/// Why states could not be read. The batch that needed them is not committed and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read stream states: {0}")]
pub struct StateReadError(pub String);

/// The committed states, as of the last commit. Read by the engine threads side by side.
pub trait States: Send + Sync {
    /// The states of `keys`, in their order; `None` for a stream never seen (or forgotten long after its end).
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError>;

    /// Live streams whose last record came before `before_ms` (Unix time), in order of their keys, beginning after
    /// `after`. Looks at a bounded number of streams and returns at most `limit`.
    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError>;
}
