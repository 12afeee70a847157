//! The pipeline's [`Runtime`] in the simulation: virtual time, and a committer that is a fiber.

use crate::scheduler::{NEVER, Sim};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strand::pipeline::{Batch, Commit, Committer, Runtime};
use strand::transport::TransportError;

/// What an instance sees of the system.
pub struct Virtual {
    pub sim: Arc<Sim>,
    pub instance: usize,
}

impl Runtime for Virtual {
    fn now(&self) -> Instant {
        self.sim.now()
    }

    fn unix_ms(&self) -> u64 {
        self.sim.unix_ms()
    }

    fn sleep(&self, time: Duration) {
        self.sim.step("sleep");
        self.sim.pause(self.sim.now_us() + time.as_micros() as u64);
    }

    fn committer(&self, mut commit: Commit) -> std::io::Result<Box<dyn Committer>> {
        let desk = Arc::new(Desk::default());
        let coordinator = self.sim.current();
        let (sim, own) = (self.sim.clone(), desk.clone());
        let run = move || {
            loop {
                let batch = own.lock().batch.take();
                match batch {
                    Some(batch) => {
                        sim.step("commit begins");
                        let result = commit(batch);
                        sim.step("commit ends");
                        own.lock().result = Some(result);
                        sim.world().wake(coordinator);
                    }
                    None if own.lock().closed => break,
                    None => sim.pause(NEVER),
                }
            }
            own.lock().ended = true;
            sim.world().wake(coordinator);
        };
        let fiber = self.sim.spawn(&mut self.sim.world(), self.instance, "committer", run);
        Ok(Box::new(FiberCommitter { sim: self.sim.clone(), desk, fiber }))
    }
}

/// Where batches and results are handed over.
#[derive(Default)]
struct Desk(Mutex<OnDesk>);

#[derive(Default)]
struct OnDesk {
    batch: Option<Batch>,
    result: Option<Result<u64, TransportError>>,
    closed: bool,
    ended: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, OnDesk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct FiberCommitter {
    sim: Arc<Sim>,
    desk: Arc<Desk>,
    fiber: usize,
}

impl Committer for FiberCommitter {
    fn begin(&mut self, batch: Batch) -> Result<(), TransportError> {
        let mut desk = self.desk.lock();
        assert!(desk.batch.is_none() && desk.result.is_none(), "one batch at a time is under way");
        desk.batch = Some(batch);
        self.sim.world().wake(self.fiber);
        Ok(())
    }

    fn settled(&mut self, wait: Duration) -> Option<Result<u64, TransportError>> {
        let until = self.sim.now_us() + wait.as_micros() as u64;
        loop {
            if let Some(result) = self.desk.lock().result.take() {
                return Some(result);
            }
            if self.sim.now_us() >= until {
                return None;
            }
            self.sim.step("waiting for a commit");
            if self.desk.lock().result.is_none() {
                self.sim.pause(until.max(self.sim.now_us()));
            }
        }
    }
}

impl Drop for FiberCommitter {
    fn drop(&mut self) {
        self.desk.lock().closed = true;
        self.sim.world().wake(self.fiber);
        while !std::thread::panicking() && !self.desk.lock().ended {
            self.sim.pause(NEVER);
        }
    }
}
