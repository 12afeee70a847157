//! What of the local copy of the states outlives the process: which changelog it is of, and up to where it is complete.
//!
//! Commits of batches are not synced to disk; the copy is saved now and then and at the end ([`Store::save`]), and a crash
//! leaves it as it was saved last. It is only a copy: whatever does not fit is put aside with a warning, and read from the
//! changelog again.

use super::store::{Figures, name, table};
use crate::clock::unix_ms;
use crate::config::OnModelChange;
use crate::events::Events;
use crate::state::{ModelPolicy, StoreError, StreamState};
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError, WriteTransaction,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

const FORMAT: &str = "1";
/// "format", "model", "changelog" and "cluster".
const IDENTITY: TableDefinition<&str, &str> = TableDefinition::new("identity");
/// Partition → next offset, last offset, its checksum, when it was saved (Unix milliseconds), rows.
const MARKS: TableDefinition<i32, (i64, i64, u32, u64, u64)> = TableDefinition::new("marks");

/// A partition's table that was saved longer ago than this is not taken up: tombstones that it has not seen may be gone
/// from the changelog (Kafka's default of `delete.retention.ms`).
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// Up to where a changelog's partition is in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// First offset that is not in it.
    pub next: i64,
    /// Offset and checksum of the last record that is: by them a changelog that was made anew is told from this one.
    pub last: i64,
    pub checksum: u32,
    /// When the table was last known to be complete up to there, Unix time in milliseconds.
    pub at_ms: u64,
}

impl Mark {
    pub fn new(last: i64, key: &[u8], value: Option<&[u8]>) -> Mark {
        Mark { next: last + 1, last, checksum: checksum(key, value), at_ms: unix_ms() }
    }
}

/// A changelog record's checksum.
pub fn checksum(key: &[u8], value: Option<&[u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value.unwrap_or_default());
    hasher.finalize()
}

/// What a copy must be of to be taken up.
#[derive(Debug, Clone)]
pub struct Identity {
    /// It is of the one in production. Whose states are in it is judged by all.
    pub models: ModelPolicy,
    pub changelog: String,
}

/// A copy as it was found, or a new one.
pub struct Saved {
    pub database: Database,
    pub figures: BTreeMap<i32, Figures>,
}

/// Opens the file. One that cannot be taken up is deleted, and a new one begun.
pub fn open(path: &Path, cache_bytes: usize, identity: &Identity, events: &Events) -> Result<Saved, StoreError> {
    let failed = |e: &dyn std::fmt::Display| StoreError::Open { path: path.to_path_buf(), detail: e.to_string() };
    let begun = Instant::now();
    if path.exists() {
        // redb asserts where a damaged file says what cannot be.
        let taken = catch_unwind(AssertUnwindSafe(|| take_up(path, cache_bytes, identity)));
        match taken.unwrap_or_else(|_| Err("it is damaged".to_string())) {
            Ok(saved) => {
                let states = saved.figures.values().map(|figures| figures.rows).sum();
                events.checkpoint_taken_up(path, states, begun.elapsed());
                return Ok(saved);
            }
            Err(reason) => {
                events.checkpoint_put_aside(&reason);
                std::fs::remove_file(path).map_err(|e| failed(&e))?;
            }
        }
    }
    let database = Database::builder().set_cache_size(cache_bytes).create(path).map_err(|e| failed(&e))?;
    begin(&database, identity).map_err(|e| failed(&e))?;
    Ok(Saved { database, figures: BTreeMap::new() })
}

fn begin(database: &Database, identity: &Identity) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let mut table = txn.open_table(IDENTITY)?;
        for (key, value) in
            [("format", FORMAT), ("model", &identity.models.fingerprint), ("changelog", &identity.changelog)]
        {
            table.insert(key, value)?;
        }
        txn.open_table(MARKS)?;
    }
    txn.commit()?;
    Ok(())
}

/// Opens a file that is there, and looks at every state in it.
fn take_up(path: &Path, cache_bytes: usize, identity: &Identity) -> Result<Saved, String> {
    let text = |e: redb::Error| e.to_string();
    let opened = Database::builder().set_cache_size(cache_bytes).open(path);
    let database = opened.map_err(|e| match e {
        DatabaseError::Storage(StorageError::Corrupted(detail)) => format!("it is damaged: {detail}"),
        e => e.to_string(),
    })?;
    let txn = database.begin_read().map_err(|e| e.to_string())?;
    {
        let table = txn.open_table(IDENTITY).map_err(|e| e.to_string())?;
        for (key, expected) in
            [("format", FORMAT), ("model", &identity.models.fingerprint), ("changelog", &identity.changelog)]
        {
            let found = table.get(key).map_err(|e| e.to_string())?.map(|found| found.value().to_string());
            if found.as_deref() != Some(expected) {
                return Err(format!("its {key} is {:.20}, and this is {expected:.20}", found.unwrap_or_default()));
            }
        }
    }
    let oldest = unix_ms().saturating_sub(KEEP.as_millis() as u64);
    let marks = marks(&txn).map_err(text)?;
    let (fresh, old): (Vec<_>, Vec<_>) = marks.into_iter().partition(|(_, (mark, _))| mark.at_ms >= oldest);
    let mut figures = BTreeMap::new();
    for (partition, (mark, rows)) in fresh {
        let mut found = look_through(&txn, partition, &identity.models)?;
        if found.foreign > 0 && identity.models.on_model_change == OnModelChange::Reset {
            // Dropped where they are read from the changelog.
            return Err(format!("it has states of {} streams by another model", found.foreign));
        }
        if found.rows != rows {
            return Err(format!("partition {partition} has {} states and should have {rows}", found.rows));
        }
        found.mark = Some(mark);
        figures.insert(partition, found);
    }
    drop(txn);
    old.into_iter().try_for_each(|(partition, _)| delete(&database, partition)).map_err(text)?;
    Ok(Saved { database, figures })
}

/// Checks every state of a partition, and counts.
fn look_through(txn: &ReadTransaction, partition: i32, models: &ModelPolicy) -> Result<Figures, String> {
    let mut figures = Figures::default();
    let table = match txn.open_table(table(&name(partition))) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(figures),
        Err(error) => return Err(error.to_string()),
    };
    for row in table.iter().map_err(|e| e.to_string())? {
        let (key, value) = row.map_err(|e| e.to_string())?;
        let entry = StreamState::verify(value.value())
            .map_err(|e| format!("stream {:?}: {e}", String::from_utf8_lossy(key.value())))?;
        figures.add(value.value(), &entry, models);
    }
    Ok(figures)
}

/// For each partition, up to where its table is complete, and its rows.
type Marks = Vec<(i32, (Mark, u64))>;

fn marks(txn: &ReadTransaction) -> Result<Marks, redb::Error> {
    let table = txn.open_table(MARKS)?;
    let marks = table.iter()?.map(|row| {
        let (partition, row) = row?;
        let (next, last, checksum, at_ms, rows) = row.value();
        Ok((partition.value(), (Mark { next, last, checksum, at_ms }, rows)))
    });
    marks.collect()
}

/// Writes down how far the partitions that `txn` changed are.
pub fn note(txn: &WriteTransaction, figures: &BTreeMap<i32, Figures>) -> Result<(), redb::Error> {
    let mut table = txn.open_table(MARKS)?;
    for (partition, held) in figures {
        if let Some(Mark { next, last, checksum, at_ms }) = held.mark {
            table.insert(partition, (next, last, checksum, at_ms, held.rows))?;
        }
    }
    Ok(())
}

/// Who is in charge of a partition knows all of it, as of now, up to its mark.
pub fn note_complete(txn: &WriteTransaction, served: &[(i32, Option<Mark>)], now_ms: u64) -> Result<(), redb::Error> {
    let mut table = txn.open_table(MARKS)?;
    for (partition, mark) in served {
        let row = table.get(partition)?.map(|row| row.value());
        if let (Some((.., rows)), Some(mark)) = (row, mark) {
            table.insert(partition, (mark.next, mark.last, mark.checksum, now_ms, rows))?;
        }
    }
    Ok(())
}

/// Deletes a partition's table.
pub fn delete(database: &Database, partition: i32) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    txn.delete_table(table(&name(partition)))?;
    txn.open_table(MARKS)?.remove(partition)?;
    txn.commit()?;
    Ok(())
}

/// The cluster whose states are held, if it is another.
pub fn is_of_other_cluster(database: &Database, cluster: &str) -> Result<Option<String>, redb::Error> {
    let txn = database.begin_read()?;
    let found = txn.open_table(IDENTITY)?.get("cluster")?.map(|found| found.value().to_string());
    Ok(found.filter(|found| found != cluster))
}

pub fn set_cluster(database: &Database, cluster: &str) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    txn.open_table(IDENTITY)?.insert("cluster", cluster)?;
    txn.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::{Change, Store, Written};
    use super::*;
    use crate::state::{States, StreamEntry, StreamId, StreamState};
    use std::borrow::Cow;

    const STREAMS: i64 = 200;

    fn store(dir: &Path, model: &str, changelog: &str) -> (Store, Events) {
        let events = Events::new(&[]).unwrap();
        let policy =
            ModelPolicy { fingerprint: model.to_string(), previous: None, on_model_change: OnModelChange::Refuse };
        (Store::open(dir, 1 << 20, changelog, policy, events.clone()).unwrap(), events)
    }

    fn state(seen: i64) -> Vec<u8> {
        let entry = StreamEntry { seen, ..StreamEntry::default() };
        StreamState { entry, session: Some(vec![7; 1000]) }.encode()
    }

    /// A partition that was read to its end.
    fn serve(store: &Store, partition: i32) {
        assert!(store.read_to(partition, 0, 0));
        assert!(store.serve(partition));
    }

    /// Writes states to two partitions, as commits do.
    fn fill(store: &Store) {
        for partition in [0, 1] {
            serve(store, partition);
            for n in 0..STREAMS {
                let key = format!("stream-{n}");
                let value = state(n);
                let mark = Mark::new(n, key.as_bytes(), Some(&value));
                let change = Change { partition, key: key.as_bytes(), value: Some(Cow::Borrowed(&value)) };
                store.store(&[change], &[(partition, Written { first: n, records: 1, mark })].into(), true).unwrap();
            }
        }
    }

    fn rows(store: &Store) -> [(u64, Option<i64>); 2] {
        [0, 1].map(|partition| {
            let held = store.held(partition);
            (held.rows, held.mark.map(|mark| mark.next))
        })
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = store(dir.path(), "m", "c");
        fill(&first);
        let all = [(200, Some(200)), (200, Some(200))];
        assert_eq!(rows(&first), all);
        first.save().unwrap();
        let before = first.held(0);
        drop(first);
        let (second, _) = store(dir.path(), "m", "c");
        assert_eq!(rows(&second), all);
        assert_eq!((second.held(0).live, second.held(0).bytes, second.held(0).seen), (before.live, before.bytes, 199));
        // Not before it is known that nothing has come since.
        let key = [StreamId::within(0, b"stream-5").unwrap()];
        assert!(!second.serve(0), "it is not known to be whole");
        assert!(second.load(&key).is_err());
        serve(&second, 0);
        assert_eq!(second.load(&key).unwrap()[0].as_ref().unwrap().entry.seen, 5);
        second.check_cluster("one").unwrap();
        second.check_cluster("one").unwrap();
        assert_eq!(rows(&second), all);
        second.check_cluster("two").unwrap();
        assert_eq!(rows(&second), [(0, None), (0, None)]);
    }

    #[test]
    fn of_another_model_or_changelog_it_is_put_aside() {
        for (model, changelog) in [("other", "c"), ("m", "other")] {
            let dir = tempfile::tempdir().unwrap();
            let (first, _) = store(dir.path(), "m", "c");
            fill(&first);
            first.save().unwrap();
            drop(first);
            let (second, _) = store(dir.path(), model, changelog);
            assert_eq!(rows(&second), [(0, None), (0, None)], "{model} {changelog}");
            fill(&second);
        }
    }

    /// A copy of the file as a crash leaves it.
    fn crashed(store: &Store, dir: &Path, to: &Path) {
        fill(store);
        std::fs::copy(dir.join("states.redb"), to.join("states.redb")).unwrap();
    }

    #[test]
    fn a_crash_leaves_what_was_saved_last() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, _) = store(dir.path(), "m", "c");
        serve(&first, 0);
        let value = state(3);
        let change = Change { partition: 0, key: b"saved", value: Some(Cow::Borrowed(&value)) };
        let mark = Mark::new(3, b"saved", Some(&value));
        first.store(&[change], &[(0, Written { first: 3, records: 1, mark })].into(), true).unwrap();
        first.save().unwrap();
        crashed(&first, dir.path(), to.path());
        let (second, _) = store(to.path(), "m", "c");
        assert_eq!(rows(&second), [(1, Some(4)), (0, None)]);
    }

    #[test]
    fn what_may_lie_behind_the_records_of_others_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = store(dir.path(), "m", "c");
        let value = state(3);
        let write = |from: i64, last: i64, records: i64| {
            let change = Change { partition: 0, key: b"key", value: Some(Cow::Borrowed(&value)) };
            let mark = Mark::new(last, b"key", Some(&value));
            first.store(&[change], &[(0, Written { first: from, records, mark })].into(), false)
        };
        // Up to here there were markers of transactions only.
        assert!(first.read_to(0, 6, 0));
        assert!(first.serve(0));
        write(6, 6, 1).unwrap();
        write(7, 9, 3).unwrap();
        // Others were in charge and have written 10 to 19, or a batch of our own failed that is there all the same.
        assert!(write(20, 20, 1).is_err());
        // Or they wrote in the middle of ours.
        assert!(write(10, 13, 3).is_err());
        let ended = |seen| StreamEntry { seen, ended: true, ..StreamEntry::default() };
        let of_others = |seen| (b"key".to_vec(), Some(StreamState { entry: ended(seen), session: None }.encode()));
        first.leave(0);
        let mark = Mark::new(20, b"key", of_others(5).1.as_deref());
        first.restore(0, &[of_others(4), of_others(5)], Some(mark), 0).unwrap();
        assert!(first.read_to(0, 22, 0));
        assert!(first.serve(0));
        write(22, 22, 1).unwrap();
        assert_eq!((first.held(0).mark.map(|mark| mark.next), first.held(0).seen), (Some(23), 5));
        first.save().unwrap();
        drop(first);
        let (second, _) = store(dir.path(), "m", "c");
        assert_eq!(rows(&second)[0], (1, Some(23)));
    }

    #[test]
    fn a_damaged_copy_is_put_aside_or_as_it_was_and_never_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = store(dir.path(), "m", "c");
        fill(&first);
        first.save().unwrap();
        drop(first);
        let good = std::fs::read(dir.path().join("states.redb")).unwrap();
        let mut put_aside = 0;
        let damages = (0..60).map(|k| k * good.len() / 60);
        for (number, at) in damages.enumerate() {
            let mut bad = good.clone();
            match number % 3 {
                0 => bad.truncate(at),
                1 => bad[at..(at + 4096).min(good.len())].fill(0),
                _ => bad[at..(at + 64).min(good.len())].iter_mut().for_each(|byte| *byte ^= 0x55),
            }
            let to = tempfile::tempdir().unwrap();
            std::fs::write(to.path().join("states.redb"), bad).unwrap();
            let (second, _) = store(to.path(), "m", "c");
            match rows(&second) {
                [(0, None), (0, None)] => put_aside += 1,
                [(200, Some(200)), (200, Some(200))] => {
                    serve(&second, 1);
                    for n in 0..STREAMS {
                        let key = StreamId::within(1, format!("stream-{n}").as_bytes()).unwrap();
                        assert_eq!(second.load(&[key]).unwrap()[0].as_ref().unwrap().encode(), state(n));
                    }
                }
                other => panic!("damage {number}: {other:?}"),
            }
        }
        assert!(put_aside >= 20, "{put_aside}");
    }
}
