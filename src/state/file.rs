//! States in a single file (redb): committed by the process that holds it, read by its threads side by side.
//!
//! The file may hold more than states: the embedded transport keeps its queue and labels in the same one, so that one
//! transaction covers all. A transaction is on disk (fsync) before [`StateFile::write`] returns.

mod new;

use super::{IdlePage, Maker, ModelPolicy, StateChange, StateReadError, States, StreamEntry, StreamId, StreamState};
use crate::config::OnModelChange;
use crate::events::Events;
use crate::model::Session;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::io::ErrorKind;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Version of the tables below and of the embedded transport's.
const FORMAT: u64 = 1;

/// `model` → fingerprint of the model in production; `previous` → of the one that the streams counted as
/// [`Figures::draining`] go on with, if there are any. A live session is of one of the two.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FIGURES: TableDefinition<&str, u64> = TableDefinition::new("figures");
/// Key of a stream → [`StreamEntry`].
const STREAMS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("streams");
/// Key of a live stream → its session.
const SESSIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("sessions");
/// Most streams that one call of [`States::idle`] looks at.
const LOOK_AT: usize = 20_000;

/// Why a state file cannot be used, or what failed in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use by another process; each strand needs a data directory of its own", .0.display())]
    Locked(PathBuf),
    #[error("cannot open {}: {detail}", path.display())]
    Open { path: PathBuf, detail: String },
    #[error("{} is in format {found}; this build reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u64 },
    #[error(
        "{} holds {live} live streams whose states were made by another model (fingerprint {found}; {given}). Let them \
         go on with the model that made them until they end, with --on-model-change drain --previous-model DIR (one \
         such model at a time); or run with that model; or drop the states with --on-model-change reset (streams then \
         begin anew, queue and labels stay); or use another --data-dir",
        path.display()
    )]
    OtherModel { path: PathBuf, live: u64, found: String, given: String },
    #[error(
        "{} is damaged: {detail}. Put a copy from a backup in its place; or move its directory away, to begin with an empty one \
         (streams then begin anew, and what waits in it must be sent again)",
        path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "{} has lost records that were acknowledged: it ends before offset {queue_next}, and those before {acknowledged} \
         were on disk. Put a copy from a backup in its place; or, to go on without them, remove {} (clients that number \
         their records may send them again)",
        path.display(), beside.display()
    )]
    Lost { path: PathBuf, beside: PathBuf, queue_next: u64, acknowledged: u64 },
    #[error("{0}")]
    Failed(#[from] redb::Error),
}

impl StoreError {
    /// Where the store's content is what is wrong: says so of the file at `path`, and what to do.
    pub fn damage_of(self, path: &Path) -> StoreError {
        match self {
            StoreError::Failed(redb::Error::Corrupted(detail)) => {
                StoreError::Damaged { path: path.to_path_buf(), detail }
            }
            other => other,
        }
    }
}

/// Sums over the streams, kept up to date by every transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    pub live: u64,
    pub state_bytes: u64,
    /// Live streams that go on with the previous model.
    pub draining: u64,
}

/// The file. Holds the process's lock on it.
pub struct StateFile {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` only while, or after, opening it anew failed.
    database: RwLock<Option<Database>>,
    events: Events,
}

impl StateFile {
    /// Opens or creates the file. `cache_bytes` bounds the pages kept in memory.
    pub fn open(path: &Path, cache_bytes: usize, events: Events) -> Result<StateFile, StoreError> {
        StateFile::open_with(path, cache_bytes, events, |_| Ok(()))
    }

    /// As [`StateFile::open`]; a new file, or one without tables, gets them together with what `more` writes.
    pub fn open_with(
        path: &Path,
        cache_bytes: usize,
        events: Events,
        more: impl Fn(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<StateFile, StoreError> {
        if let Some(parent) = path.parent() {
            let failed = |e| StoreError::Open { path: parent.to_path_buf(), detail: format!("{e}") };
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let tables = |txn: &WriteTransaction| {
            txn.open_table(STREAMS)?;
            txn.open_table(SESSIONS)?;
            txn.open_table(META)?;
            more(txn)?;
            let mut figures = txn.open_table(FIGURES)?;
            let found = figures.get("format")?.map(|format| format.value());
            if found.is_none() {
                figures.insert("format", FORMAT)?;
            }
            Ok(found.unwrap_or(FORMAT))
        };
        if !path.exists() {
            new::create(path, tables)?;
        }
        let database = open_database(path, cache_bytes, &events)?;
        let file = StateFile { path: path.to_path_buf(), cache_bytes, database: RwLock::new(Some(database)), events };
        // Writing waits for the disk: only what is not there yet is written.
        let found = match file.read(|txn| Ok(format_of(txn)))? {
            Some(found) => found,
            None => file.write(tables)?,
        };
        if found != FORMAT {
            return Err(StoreError::Format { path: path.to_path_buf(), found });
        }
        Ok(file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sees to it that every state in the file was made by a model that there is.
    pub fn check_model(&self, policy: &ModelPolicy) -> Result<(), StoreError> {
        let (by_model, figures, written) = self.read(|txn| {
            let meta = txn.open_table(META)?;
            let row = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|row| text_of(row.value())));
            let figures = read_figures(txn)?;
            let written = (row("model")?, row("previous")?);
            let counts = [(written.0.clone(), figures.live - figures.draining), (written.1.clone(), figures.draining)];
            let by_model = counts.into_iter().filter(|(_, live)| *live > 0);
            let by_model = by_model.map(|(model, live)| (model.unwrap_or_default(), live)).collect::<Vec<_>>();
            Ok((by_model, figures, written))
        })?;
        let (ours, others): (Vec<_>, Vec<_>) = by_model.into_iter().partition(|(model, _)| policy.accepts(model));
        let live = others.iter().map(|(_, live)| live).sum();
        let found = others.iter().map(|(model, _)| format!("{model:.12}…")).collect::<Vec<_>>().join(" and ");
        if live > 0 && policy.on_model_change != OnModelChange::Reset {
            return Err(StoreError::OtherModel { path: self.path.clone(), live, found, given: policy.given() });
        }
        let draining = ours.iter().filter(|(model, _)| Some(model) == policy.previous.as_ref());
        let draining = draining.map(|(_, live)| live).sum();
        let previous = policy.previous.clone().filter(|_| draining > 0);
        if live == 0 && draining == figures.draining && written == (Some(policy.fingerprint.clone()), previous.clone())
        {
            return Ok(());
        }
        self.write(|txn| {
            let mut meta = txn.open_table(META)?;
            meta.insert("model", policy.fingerprint.as_bytes())?;
            match &previous {
                Some(previous) => _ = meta.insert("previous", previous.as_bytes())?,
                None => _ = meta.remove("previous")?,
            }
            write_figures(txn, Figures { draining, ..figures })?;
            if live > 0 { drop_sessions(txn, policy) } else { Ok(()) }
        })?;
        if live > 0 {
            self.events.states_reset(live, &found);
        }
        Ok(())
    }

    /// Runs `f` in a read transaction: the file as of the last commit.
    pub fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let txn = database.begin_read().map_err(redb::Error::from)?;
        Ok(f(&txn)?)
    }

    /// Runs `f` in a write transaction and commits it to disk; nothing is changed when either fails.
    pub fn write<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let result = self.try_write(f);
        if let Err(StoreError::Failed(redb::Error::Io(_) | redb::Error::PreviousIo)) | Err(StoreError::Open { .. }) =
            &result
        {
            // After an error of the disk redb wants the file to be opened anew.
            self.reopen();
        }
        result
    }

    fn try_write<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let txn = database.begin_write().map_err(redb::Error::from)?;
        let value = f(&txn)?;
        txn.commit().map_err(redb::Error::from)?;
        Ok(value)
    }

    fn closed(&self) -> StoreError {
        StoreError::Open { path: self.path.clone(), detail: "an error of the disk has closed it".to_string() }
    }

    fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        match open_database(&self.path, self.cache_bytes, &self.events) {
            Ok(opened) => {
                *database = Some(opened);
                self.events.store_reopened(&"input/output error");
            }
            // Tried again by the next write.
            Err(error) => self.events.failed(&error),
        }
    }
}

fn open_database(path: &Path, cache_bytes: usize, events: &Events) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    // A new file is laid out by the same way; only one that was there is news.
    if path.exists() {
        let repairing = events.clone();
        builder.set_repair_callback(move |session| repairing.store_repairing(session.progress()));
    }
    // A damaged file is an error of redb's as a rule, but might make it panic.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| builder.create(path)));
    let damaged = |detail: String| StoreError::Damaged { path: path.to_path_buf(), detail };
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => Err(StoreError::Locked(path.to_path_buf())),
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Corrupted(detail)))) => Err(damaged(detail)),
        // No file of redb's at all, or one that ends too early.
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(error))))
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            Err(damaged(error.to_string()))
        }
        Ok(Err(other)) => Err(StoreError::Open { path: path.to_path_buf(), detail: other.to_string() }),
        Err(_) => Err(damaged("it cannot be made sense of".to_string())),
    }
}

/// Writes into a new file whose model's states it will hold, so that [`StateFile::check_model`] need not.
pub fn write_model(txn: &WriteTransaction, policy: &ModelPolicy) -> Result<(), redb::Error> {
    txn.open_table(META)?.insert("model", policy.fingerprint.as_bytes())?;
    Ok(())
}

/// The version of the file's tables; none where they are not all there.
fn format_of(txn: &ReadTransaction) -> Option<u64> {
    txn.open_table(STREAMS).ok()?;
    txn.open_table(SESSIONS).ok()?;
    txn.open_table(META).ok()?;
    Some(txn.open_table(FIGURES).ok()?.get("format").ok()??.value())
}

/// Ends every stream of a model that is not there, without a word; the numbering of their outputs goes on.
fn drop_sessions(txn: &WriteTransaction, policy: &ModelPolicy) -> Result<(), redb::Error> {
    let mut figures = figures_in(&txn.open_table(FIGURES)?)?;
    let mut sessions = txn.open_table(SESSIONS)?;
    let (mut dropped, mut bytes) = (Vec::new(), 0);
    sessions.retain(|key, session| {
        let stays = policy.maker(session) != Maker::Other;
        if !stays {
            dropped.push(key.to_vec());
            bytes += session.len() as u64;
        }
        stays
    })?;
    let mut streams = txn.open_table(STREAMS)?;
    for key in &dropped {
        let entry = streams.get(key.as_slice())?.map(|entry| entry_of(entry.value())).transpose()?;
        let ended = StreamEntry { ended: true, ..entry.unwrap_or_default() };
        streams.insert(key.as_slice(), ended.encode().as_slice())?;
    }
    figures.live -= dropped.len() as u64;
    figures.state_bytes -= bytes;
    drop((sessions, streams));
    write_figures(txn, figures)
}

pub fn read_figures(txn: &ReadTransaction) -> Result<Figures, redb::Error> {
    figures_in(&txn.open_table(FIGURES)?)
}

fn figures_in(table: &impl ReadableTable<&'static str, u64>) -> Result<Figures, redb::Error> {
    let figure = |name| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |value| value.value()));
    Ok(Figures { live: figure("live")?, state_bytes: figure("state_bytes")?, draining: figure("draining")? })
}

fn write_figures(txn: &WriteTransaction, figures: Figures) -> Result<(), redb::Error> {
    let mut table = txn.open_table(FIGURES)?;
    table.insert("live", figures.live)?;
    table.insert("state_bytes", figures.state_bytes)?;
    table.insert("draining", figures.draining)?;
    Ok(())
}

/// Writes changed states and returns the figures after it.
pub fn write_states(txn: &WriteTransaction, changes: &[StateChange]) -> Result<Figures, redb::Error> {
    let mut figures = figures_in(&txn.open_table(FIGURES)?)?;
    // Once none is left there will never be one again: streams begin with the model in production.
    let previous = match figures.draining {
        0 => None,
        _ => txn.open_table(META)?.get("previous")?.map(|previous| text_of(previous.value())),
    };
    let drains =
        |session: &[u8]| u64::from(previous.as_deref().is_some_and(|previous| Session::is_made_by(session, previous)));
    let mut streams = txn.open_table(STREAMS)?;
    let mut sessions = txn.open_table(SESSIONS)?;
    for change in changes {
        let key = change.stream.as_bytes();
        streams.insert(key, change.state.entry.encode().as_slice())?;
        let before = match &change.state.session {
            Some(session) => {
                figures.live += 1;
                figures.state_bytes += session.len() as u64;
                figures.draining += drains(session);
                sessions.insert(key, session.as_slice())?.map(|old| (old.value().len(), drains(old.value())))
            }
            None => sessions.remove(key)?.map(|old| (old.value().len(), drains(old.value()))),
        };
        if let Some((bytes, draining)) = before {
            figures.live -= 1;
            figures.state_bytes -= bytes as u64;
            figures.draining -= draining;
        }
    }
    drop((streams, sessions));
    write_figures(txn, figures)?;
    Ok(figures)
}

/// A stream's entry and the size of its session, if it is known.
pub fn stream_entry(txn: &ReadTransaction, stream: &StreamId) -> Result<Option<(StreamEntry, usize)>, redb::Error> {
    let Some(entry) = txn.open_table(STREAMS)?.get(stream.as_bytes())? else { return Ok(None) };
    let entry = entry_of(entry.value())?;
    let session = txn.open_table(SESSIONS)?.get(stream.as_bytes())?;
    Ok(Some((entry, session.map_or(0, |session| session.value().len()))))
}

/// Forgets ended streams whose last record came before `before_ms`, looking at a bounded number of streams after
/// `after`; `keep` may veto. Returns how many were forgotten and where to go on.
pub fn forget_ended(
    txn: &WriteTransaction,
    before_ms: u64,
    after: Option<&[u8]>,
    mut keep: impl FnMut(&[u8]) -> Result<bool, redb::Error>,
) -> Result<(u64, Option<Vec<u8>>), redb::Error> {
    let mut streams = txn.open_table(STREAMS)?;
    let (mut forget, mut next) = (Vec::new(), None);
    for (looked_at, row) in streams.range::<&[u8]>((from(after), Bound::Unbounded))?.enumerate() {
        let (key, value) = row?;
        let entry = entry_of(value.value())?;
        if entry.ended && entry.active_ms < before_ms && !keep(key.value())? {
            forget.push(key.value().to_vec());
        }
        if looked_at + 1 == LOOK_AT {
            next = Some(key.value().to_vec());
            break;
        }
    }
    for key in &forget {
        streams.remove(key.as_slice())?;
    }
    Ok((forget.len() as u64, next))
}

/// Whether the stream has begun and not ended.
pub fn is_live(txn: &WriteTransaction, key: &[u8]) -> Result<bool, redb::Error> {
    Ok(txn.open_table(SESSIONS)?.get(key)?.is_some())
}

fn entry_of(bytes: &[u8]) -> Result<StreamEntry, redb::Error> {
    StreamEntry::decode(bytes).map_err(|e| redb::Error::Corrupted(e.to_string()))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn from(after: Option<&[u8]>) -> Bound<&[u8]> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

impl States for StateFile {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        let load = |txn: &ReadTransaction| {
            let streams = txn.open_table(STREAMS)?;
            let sessions = txn.open_table(SESSIONS)?;
            keys.iter()
                .map(|key| {
                    let Some(entry) = streams.get(key.as_bytes())? else { return Ok(None) };
                    let entry = entry_of(entry.value())?;
                    let session = sessions.get(key.as_bytes())?.map(|session| session.value().to_vec());
                    Ok(Some(StreamState { entry, session }))
                })
                .collect::<Result<Vec<_>, redb::Error>>()
        };
        self.read(load).map_err(|e| StateReadError(e.to_string()))
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        let look = |txn: &ReadTransaction| {
            let mut page = IdlePage::default();
            let streams = txn.open_table(STREAMS)?;
            let range = (from(after.map(StreamId::as_bytes)), Bound::Unbounded);
            for (looked_at, row) in streams.range::<&[u8]>(range)?.enumerate() {
                let (key, value) = row?;
                let entry = entry_of(value.value())?;
                let stream = StreamId::new(key.value()).map_err(|e| redb::Error::Corrupted(e.to_string()))?;
                if !entry.ended && entry.active_ms < before_ms {
                    page.streams.push(stream.clone());
                }
                if page.streams.len() == limit || looked_at + 1 == LOOK_AT {
                    page.next = Some(stream);
                    break;
                }
            }
            Ok(page)
        };
        self.read(look).map_err(|e| StateReadError(e.to_string()))
    }
}

#[cfg(test)]
mod tests;
