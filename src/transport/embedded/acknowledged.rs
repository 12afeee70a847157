//! How far records were acknowledged, kept beside the store: it proves that a store has lost some of them.
//!
//! After damage the store may go back to the commit before its last, which is whole but older. Nothing in it tells. The
//! number here is written after each commit and before its clients are answered, without waiting for the disk: where
//! disks keep what they promise it is never ahead of the store.

use crate::state::StoreError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub struct Acknowledged {
    file: File,
    written: u64,
}

impl Acknowledged {
    /// Opens the file beside `store`, in which `queue_next` is the offset after its last record. An error where more was
    /// acknowledged.
    pub fn open(store: &Path, queue_next: u64) -> Result<Acknowledged, StoreError> {
        let path = path_beside(store);
        let failed = |e: io::Error| StoreError::Open { path: path.clone(), detail: e.to_string() };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let acknowledged = decode(&bytes).unwrap_or(0);
        if acknowledged > queue_next {
            return Err(StoreError::Lost { path: store.to_path_buf(), beside: path, queue_next, acknowledged });
        }
        let mut this = Acknowledged { file, written: 0 };
        this.advance(queue_next).map_err(failed)?;
        Ok(this)
    }

    /// Records before `queue_next` are about to be acknowledged.
    pub fn advance(&mut self, queue_next: u64) -> io::Result<()> {
        if self.written != queue_next {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&encode(queue_next))?;
            self.written = queue_next;
        }
        Ok(())
    }
}

fn path_beside(store: &Path) -> PathBuf {
    store.with_extension("acknowledged")
}

fn encode(queue_next: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&queue_next.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// `None`: nothing was written, or it was cut off. Then it proves nothing.
fn decode(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (encode(number) == bytes).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_has_gone_back_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("strand.redb");
        let mut acknowledged = Acknowledged::open(&store, 0).unwrap();
        acknowledged.advance(7).unwrap();
        drop(acknowledged);
        let error = Acknowledged::open(&store, 6).err().unwrap();
        assert!(matches!(error, StoreError::Lost { queue_next: 6, acknowledged: 7, .. }), "{error}");
        // It stays so until somebody decides.
        assert!(Acknowledged::open(&store, 6).is_err());
        assert!(Acknowledged::open(&store, 7).is_ok());
        assert!(Acknowledged::open(&store, 9).is_ok());
        assert!(Acknowledged::open(&store, 8).is_err());
        std::fs::write(path_beside(&store), b"cut").unwrap();
        assert!(Acknowledged::open(&store, 3).is_ok());
    }
}
