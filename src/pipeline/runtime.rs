//! What the pipeline needs of the system: the time, and somebody who commits while it computes.
//!
//! The daemon runs on [`System`]. A simulation has its own, in which time is a number and the order of all that happens
//! follows from a seed.

use super::batch::Batch;
use crate::transport::TransportError;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Commits a batch; the batch's number if that went well.
pub type Commit = Box<dyn FnMut(Batch) -> Result<u64, TransportError> + Send>;

/// Time, and the committer's thread.
pub trait Runtime: Send + Sync {
    fn now(&self) -> Instant;

    /// Unix time in milliseconds. May jump.
    fn unix_ms(&self) -> u64;

    fn sleep(&self, time: Duration);

    /// Starts somebody who commits the batches handed over, one after the other.
    fn committer(&self, commit: Commit) -> std::io::Result<Box<dyn Committer>>;
}

/// Who commits, beside the coordinator. Ends when dropped, after what it has begun.
pub trait Committer: Send {
    /// Hands over a batch. At most one is under way.
    fn begin(&mut self, batch: Batch) -> Result<(), TransportError>;

    /// What became of the batch under way, if that is known within `wait`.
    fn settled(&mut self, wait: Duration) -> Option<Result<u64, TransportError>>;
}

/// The operating system's clock and threads.
pub struct System;

impl Runtime for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_ms(&self) -> u64 {
        crate::clock::unix_ms()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn committer(&self, mut commit: Commit) -> std::io::Result<Box<dyn Committer>> {
        let (batches, receive) = sync_channel::<Batch>(1);
        let (answer, results) = sync_channel(1);
        let run = move || {
            while let Ok(batch) = receive.recv() {
                if answer.send(commit(batch)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("committer".to_string()).spawn(run)?;
        Ok(Box::new(ThreadCommitter { batches: Some(batches), results, thread: Some(thread) }))
    }
}

struct ThreadCommitter {
    /// Taken, like the thread, only when this is dropped.
    batches: Option<SyncSender<Batch>>,
    results: Receiver<Result<u64, TransportError>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer for ThreadCommitter {
    fn begin(&mut self, batch: Batch) -> Result<(), TransportError> {
        let sent = self.batches.as_ref().is_some_and(|batches| batches.send(batch).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    fn settled(&mut self, wait: Duration) -> Option<Result<u64, TransportError>> {
        let result = if wait.is_zero() {
            self.results.try_recv().map_err(|e| e == TryRecvError::Disconnected)
        } else {
            self.results.recv_timeout(wait).map_err(|e| e == RecvTimeoutError::Disconnected)
        };
        match result {
            Ok(result) => Some(result),
            Err(true) => Some(Err(gone())),
            Err(false) => None,
        }
    }
}

impl Drop for ThreadCommitter {
    fn drop(&mut self) {
        self.batches = None;
        // A panic of the thread was reported when its answer was missing.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn gone() -> TransportError {
    TransportError::Fatal("the committer's thread ended unexpectedly; this is a defect".to_string())
}
