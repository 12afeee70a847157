//! A new file: laid out in memory, written at once, and given its name when it is on disk. Laid out in place it would wait
//! for the disk a dozen times.

use super::StoreError;
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend, WriteTransaction};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

/// What would be the file; clones are of the same.
#[derive(Debug, Clone, Default)]
struct Image(Arc<InMemoryBackend>);

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Makes a file at `path`, where there is none, with what `tables` writes. It is written under another name and then given
/// its own: who is killed in between leaves nothing that the next start could not read.
pub fn create<T>(
    path: &Path,
    tables: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<(), StoreError> {
    let failed = |e: io::Error| StoreError::Open { path: path.to_path_buf(), detail: e.to_string() };
    let bytes = laid_out(tables)?;
    let new = path.with_extension("redb-new");
    let remove_new = || match fs::remove_file(&new) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    };
    remove_new()?;
    // Never what another process has linked meanwhile.
    let mut file = File::create_new(&new).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    match fs::hard_link(&new, path) {
        Ok(()) => remove_new()?,
        // Another process was quicker; opening the file will tell.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => remove_new()?,
        // A file system without links; there the other process is not noticed.
        Err(_) => fs::rename(&new, path).map_err(failed)?,
    }
    // So that the name, too, is there after a loss of power.
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// The bytes of a database with these tables.
fn laid_out<T>(tables: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<Vec<u8>, StoreError> {
    let image = Image::default();
    let database = Database::builder().create_with_backend(image.clone()).map_err(redb::Error::from)?;
    let txn = database.begin_write().map_err(redb::Error::from)?;
    tables(&txn)?;
    txn.commit().map_err(redb::Error::from)?;
    database.close().map_err(redb::Error::from)?;
    let read = || {
        let mut bytes = vec![0; image.len()? as usize];
        image.read(0, &mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e: io::Error| StoreError::Failed(redb::Error::Io(e)))
}
