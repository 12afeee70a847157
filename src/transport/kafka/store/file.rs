//! The file of the local copy, and a view of it as it was last written.

use super::{name, table};
use redb::{AccessGuard, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableError};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

/// Whoever reads takes the view that there is: to begin one waits for redb, which waits for the disk when the file grows
/// under a write. So no reader waits for a writer.
pub(super) struct StateFile {
    view: RwLock<Arc<ReadTransaction>>,
    database: Database,
}

impl StateFile {
    pub fn new(database: Database) -> Result<StateFile, redb::Error> {
        let view = RwLock::new(Arc::new(database.begin_read()?));
        Ok(StateFile { view, database })
    }

    /// For what readers of the states do not see, and for [`StateFile::write`].
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What `change` commits is in the view when this returns.
    pub fn write(&self, change: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), redb::Error> {
        change(&self.database)?;
        let view = Arc::new(self.database.begin_read()?);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Ok(())
    }

    pub fn tables(&self) -> Tables {
        let txn = self.view.read().unwrap_or_else(PoisonError::into_inner).clone();
        Tables { txn, open: HashMap::new() }
    }
}

type Streams = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The partitions' tables in one view of the file.
pub(super) struct Tables {
    txn: Arc<ReadTransaction>,
    /// Those that were asked for; absent: there is none.
    open: HashMap<i32, Option<Streams>>,
}

impl Tables {
    pub fn of(&mut self, partition: i32) -> Result<Option<&Streams>, redb::Error> {
        let open = match self.open.entry(partition) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(match self.txn.open_table(table(&name(partition))) {
                Ok(streams) => Some(streams),
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(error.into()),
            }),
        };
        Ok(open.as_ref())
    }

    pub fn get(
        &mut self,
        partition: i32,
        key: &[u8],
    ) -> Result<Option<AccessGuard<'static, &'static [u8]>>, redb::Error> {
        Ok(self.of(partition)?.map(|streams| streams.get(key)).transpose()?.flatten())
    }
}
