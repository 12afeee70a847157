//! Virtual time, and fibers: threads of which exactly one runs at any time. Which one goes on, and when, is the seed's.
//!
//! A fiber runs until it [pauses](Sim::pause). Then the world picks who is next among those whose time has come, or moves
//! its clock on; nobody ever sleeps. A fiber whose instance crashed unwinds out of its pause.

use crate::world::World;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use strand::events::Events;
use strand::model::Model;

pub const NEVER: u64 = u64::MAX;
/// The thread that runs the seed: it goes on when all is over.
pub const MAIN: usize = 0;

/// What a crash unwinds with.
struct Crashed;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(MAIN) };
}

pub struct Fiber {
    pub instance: usize,
    /// Not to go on before this (microseconds).
    pub wake_us: u64,
    /// It crashed, and unwinds when it is its turn.
    pub doomed: bool,
    pub done: bool,
    thread: Option<Thread>,
}

/// One seed's world, and the clock as those see it who hold no lock.
pub struct Sim {
    world: Mutex<World>,
    turn: AtomicUsize,
    now_us: AtomicU64,
    /// How far the clock on the wall was set off.
    pub jumped_ms: AtomicI64,
    /// No more faults.
    pub calm: AtomicBool,
    base: Instant,
    pub model: Arc<Model>,
    pub events: Events,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Sim {
    pub fn new(world: World, model: Arc<Model>, events: Events) -> Arc<Sim> {
        Arc::new(Sim {
            world: Mutex::new(world),
            turn: AtomicUsize::new(MAIN),
            now_us: AtomicU64::new(0),
            jumped_ms: AtomicI64::new(0),
            calm: AtomicBool::new(false),
            base: Instant::now(),
            model,
            events,
            handles: Mutex::default(),
        })
    }

    /// The world. Held only for a moment, never over a pause.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_now(&self, now_us: u64) {
        self.now_us.store(now_us, Ordering::Relaxed);
    }

    pub fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }

    pub fn now(&self) -> Instant {
        self.base + Duration::from_micros(self.now_us())
    }

    pub fn unix_ms(&self) -> u64 {
        let ms = 1_700_000_000_000 + (self.now_us() / 1000).cast_signed() + self.jumped_ms.load(Ordering::Relaxed);
        ms.cast_unsigned()
    }

    /// Runs all fibers to their ends.
    pub fn run(self: &Arc<Sim>) {
        let main = Fiber {
            instance: usize::MAX,
            wake_us: NEVER,
            doomed: false,
            done: true,
            thread: Some(std::thread::current()),
        };
        self.world().fibers.push(main);
        let next = self.pick();
        self.hand_over(next);
        self.wait_for(MAIN);
        for handle in self.handles.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            handle.join().unwrap();
        }
    }

    fn pick(self: &Arc<Sim>) -> (usize, Option<Thread>) {
        let mut world = self.world();
        let next = world.pick(self);
        (next, world.fibers[next].thread.clone())
    }

    fn hand_over(&self, (next, thread): (usize, Option<Thread>)) {
        self.turn.store(next, Ordering::Release);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    fn wait_for(&self, fiber: usize) {
        while self.turn.load(Ordering::Acquire) != fiber {
            std::thread::park();
        }
    }

    /// Lets others go on; comes back at `until_us`, or when it is woken.
    pub fn pause(self: &Arc<Sim>, until_us: u64) {
        // A crash runs no more code than what unwinds.
        if std::thread::panicking() {
            return;
        }
        let me = CURRENT.get();
        self.world().fibers[me].wake_us = until_us;
        let next = self.pick();
        if next.0 != me {
            self.hand_over(next);
            self.wait_for(me);
        }
        if self.world().fibers[me].doomed {
            resume_unwind(Box::new(Crashed));
        }
    }

    /// A step on the way of an instance's work: it takes a moment, and anything may happen meanwhile.
    pub fn step(self: &Arc<Sim>, what: &str) {
        if std::thread::panicking() {
            return;
        }
        let until = {
            let mut world = self.world();
            let instance = world.fibers[CURRENT.get()].instance;
            world.disturb(self, instance, what);
            world.now_us + world.latency_us()
        };
        self.pause(until);
    }

    pub fn current(&self) -> usize {
        CURRENT.get()
    }

    /// A new fiber of an instance. It begins when it is picked.
    pub fn spawn(
        self: &Arc<Sim>,
        world: &mut World,
        instance: usize,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> usize {
        let id = world.fibers.len();
        let wake_us = world.now_us + world.latency_us();
        world.fibers.push(Fiber { instance, wake_us, doomed: false, done: false, thread: None });
        let sim = self.clone();
        let body = move || {
            CURRENT.set(id);
            sim.wait_for(id);
            let doomed = sim.world().fibers[id].doomed;
            let result = if doomed { Ok(()) } else { catch_unwind(AssertUnwindSafe(run)) };
            let panicked = result.is_err_and(|payload| !payload.is::<Crashed>());
            let next = {
                let mut world = sim.world();
                world.fiber_ended(id, panicked);
                drop(world);
                sim.pick()
            };
            sim.hand_over(next);
        };
        let thread = std::thread::Builder::new().name(name.to_string()).stack_size(512 << 10).spawn(body).unwrap();
        world.fibers[id].thread = Some(thread.thread().clone());
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        id
    }
}
