//! How what commits have changed comes into the file, beside the commits.

use super::super::unwritten::Layer;
use super::*;
use redb::{Database, Durability};

/// What of the figures is written with the states, taken when these were set aside.
pub(super) struct Snapshot {
    states: Arc<Layer>,
    /// Of partitions whose marks have moved.
    moved: BTreeMap<i32, Figures>,
    /// Who is in charge of a partition knows all of it, as of `at_ms`, up to its mark.
    served: Vec<(i32, Option<Mark>)>,
    at_ms: u64,
}

impl Store {
    /// Makes all that was written last: a later start goes on from here. Commits and loads go on meanwhile.
    pub fn save(&self) -> Result<(), redb::Error> {
        let saved = self.write_down(&self.filing(), true);
        if saved.is_err() {
            self.unsaved.store(true, Ordering::Relaxed);
        }
        saved
    }

    /// Saving failed since [`Store::open_again`]: the disk is full or broken, and the file no longer to be relied on.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Writes down what is unwritten, not for ever, when three quarters of the memory for it are taken. Called now and then, by a
    /// thread that has the time, it keeps commits from waiting for that.
    pub fn relieve(&self) -> Result<(), redb::Error> {
        if self.unwritten().bytes() <= self.layer_bytes / 4 * 3 {
            return Ok(());
        }
        self.write_down(&self.filing(), false)
    }

    /// Waits until there is memory for more: with a disk that is slower than the commits, they wait here.
    pub(super) fn make_room(&self) -> Result<(), redb::Error> {
        if self.unwritten().bytes() <= self.layer_bytes {
            return Ok(());
        }
        let filing = self.filing();
        // Perhaps the wait was for somebody who made room.
        if self.unwritten().bytes() <= self.layer_bytes {
            return Ok(());
        }
        self.write_down(&filing, false)
    }

    /// Held by whoever writes to the file; taken before [`Store::writing`].
    pub(super) fn filing(&self) -> MutexGuard<'_, ()> {
        self.filing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what is unwritten into the file. After an error it is unwritten still.
    fn write_down(&self, _filing: &MutexGuard<'_, ()>, durable: bool) -> Result<(), redb::Error> {
        let snapshot = self.set_aside();
        let written = self.with(|file| file.write(|database| snapshot.write(database, durable)));
        drop(snapshot);
        let mut unwritten = self.unwritten_mut();
        // Only now: who did not find it there finds it in the file.
        let filed = match written {
            Ok(()) => unwritten.filed(),
            Err(_) => {
                unwritten.take_back();
                None
            }
        };
        drop(unwritten);
        drop(filed);
        written
    }

    pub(super) fn set_aside(&self) -> Snapshot {
        let at_ms = unix_ms();
        let _writing = self.writing();
        let states = self.unwritten_mut().set_aside();
        let figures = self.figures();
        let moved = figures.iter().filter(|(partition, _)| states.marked().contains(partition));
        let served = figures.iter().filter(|(_, held)| held.serving);
        Snapshot {
            moved: moved.map(|(partition, held)| (*partition, *held)).collect(),
            served: served.map(|(partition, held)| (*partition, held.mark)).collect(),
            states,
            at_ms,
        }
    }

    /// After an error of the disk: opens the file anew, as it was when it was last saved. No partition is served then;
    /// each must be restored first.
    pub fn open_again(&self) -> Result<(), StoreError> {
        let _filing = self.filing();
        let _writing = self.writing();
        self.unsaved.store(false, Ordering::Relaxed);
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        let well = file.as_ref().is_some_and(|file| {
            let txn = file.database().begin_write().map_err(redb::Error::from);
            txn.and_then(|txn| txn.commit().map_err(redb::Error::from)).is_ok()
        });
        if well {
            return Ok(());
        }
        *file = None;
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.figures().values_mut().for_each(|figures| (figures.serving, figures.whole) = (false, None));
        *self.unwritten_mut() = Unwritten::default();
        let failed = |e: redb::Error| StoreError::Open { path: self.path.clone(), detail: e.to_string() };
        let saved = checkpoint::open(&self.path, self.cache_bytes, &self.identity, &self.events)?;
        *file = Some(StateFile::new(saved.database).map_err(failed)?);
        *self.figures() = saved.figures;
        self.events.store_reopened(&"an error of the disk");
        Ok(())
    }
}

impl Snapshot {
    fn write(&self, database: &Database, durable: bool) -> Result<(), redb::Error> {
        let mut txn = database.begin_write()?;
        if durable {
            // Otherwise the whole file is walked after a crash.
            txn.set_quick_repair(true);
        } else {
            txn.set_durability(Durability::None)?;
        }
        for partition in self.states.partitions() {
            let name = name(partition);
            let mut table = txn.open_table(table(&name))?;
            for (key, value) in self.states.range(partition, Bound::Unbounded) {
                match value {
                    Some(value) => _ = table.insert(key, value)?,
                    None => _ = table.remove(key)?,
                }
            }
        }
        checkpoint::note(&txn, &self.moved)?;
        if durable {
            checkpoint::note_complete(&txn, &self.served, self.at_ms)?;
        }
        txn.commit()?;
        Ok(())
    }
}
