//! All that is shared in a seed: the cluster, the instances, what happens when, and the trace of it.

use crate::cluster::{Cluster, Fate, Message, Topic};
use crate::counts::Counts;
use crate::group::{Client, Group};
use crate::happenings::Event;
use crate::plan::{Faults, KINDS, Plan, Transport};
use crate::scheduler::{Fiber, MAIN, NEVER, Sim};
use crate::store::Store;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strand::shutdown::Shutdown;
use strand::transport::RawRecord;
use strand::transport::kafka::Assignment;

/// Once there are no more faults, all must be labelled within this (microseconds).
const LABELLED_WITHIN_US: u64 = 300_000_000;

/// A message on its way; with the id and the epoch of a producer that does transactions.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub producer: Option<(usize, u32)>,
    pub place: (Topic, i32),
    pub message: Message,
}

pub struct Instance {
    pub alive: bool,
    pub incarnation: u64,
    pub frozen_until_us: u64,
    pub deaf_until_us: u64,
    pub coordinator: usize,
    /// It waits for something to poll.
    pub polling: bool,
    pub shutdown: Shutdown,
    pub client: Client,
    pub assignment: Arc<Assignment>,
    pub store: Arc<Store>,
    /// What of the store is on disk.
    pub saved: Store,
    /// Partitions whose changelog is read, with the number of their assignment.
    pub restoring: BTreeMap<i32, u64>,
    /// What the group had committed when their states began to be read.
    pub committed: BTreeMap<i32, Option<i64>>,
    /// Its transactional id.
    pub id: usize,
    /// What is on its way to the brokers.
    pub sending: Option<Request>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Faults,
    Calm,
    /// All is labelled: the instances end in order.
    Ending,
}

/// What a request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It was not done.
    Failed,
    /// It was done, and nobody says so.
    Lost,
}

pub struct World {
    pub plan: Plan,
    pub dice: ChaCha8Rng,
    pub now_us: u64,
    pub fibers: Vec<Fiber>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    pub phase: Phase,
    calm_at_us: u64,
    budget: u32,
    pub cluster: Cluster,
    pub group: Group,
    pub instances: Vec<Instance>,
    /// The input's partitions.
    pub input: Vec<Vec<RawRecord>>,
    /// The embedded store: its states, and the first record not committed.
    pub durable: Arc<Store>,
    pub durable_next: usize,
    pub counts: Counts,
    pub load_errors: Arc<AtomicU64>,
    pub failure: Option<String>,
    hasher: DefaultHasher,
    /// Kept when somebody is to read it.
    pub trace: Option<String>,
}

impl Instance {
    /// One that does not run yet, on a local directory with this transactional id and copy of the states.
    pub fn new(events: &strand::events::Events, id: usize, saved: Store) -> Instance {
        Instance {
            alive: false,
            incarnation: 0,
            frozen_until_us: 0,
            deaf_until_us: 0,
            coordinator: MAIN,
            polling: false,
            shutdown: Shutdown::new(),
            client: Client::default(),
            assignment: Arc::new(Assignment::new(events.clone())),
            store: Arc::new(saved.saved()),
            saved,
            restoring: BTreeMap::new(),
            committed: BTreeMap::new(),
            id,
            sending: None,
        }
    }
}

impl World {
    pub fn new(plan: Plan, traced: bool, sim_events: &strand::events::Events) -> World {
        let mut dice = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x5eed);
        let mut cluster = Cluster::default();
        let durable = Arc::new(Store::default());
        durable.serve(0);
        let instances = (0..plan.instances).map(|_| Instance::new(sim_events, cluster.new_id(), Store::default()));
        let instances: Vec<Instance> = instances.collect();
        let last = plan.times_us.last().copied().unwrap_or(0);
        let calm_at_us = last + dice.random_range(0..10_000_000);
        let mut world = World {
            dice,
            now_us: 0,
            fibers: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            phase: Phase::Faults,
            calm_at_us,
            budget: plan.faults.budget,
            cluster,
            group: Group::new(plan.partitions),
            instances,
            input: vec![Vec::new(); plan.partitions as usize],
            durable,
            durable_next: 0,
            counts: Counts::default(),
            load_errors: Arc::default(),
            failure: None,
            hasher: DefaultHasher::new(),
            trace: traced.then(String::new),
            plan,
        };
        for number in 0..world.plan.records.len() {
            world.at(world.plan.times_us[number], Event::Append(number));
        }
        for instance in 0..world.instances.len() {
            let begins = if world.dice.random_bool(0.7) { 0 } else { world.dice.random_range(0..5_000_000) };
            world.at(begins, Event::Start(instance));
        }
        world.at(calm_at_us, Event::Calm);
        world
    }

    /// Writes down what happens.
    pub fn note(&mut self, instance: Option<usize>, what: &std::fmt::Arguments<'_>) {
        let mut line = String::with_capacity(80);
        let _ = write!(line, "{:>10.6} ", self.now_us as f64 / 1e6);
        let _ = match instance {
            Some(k) if k < self.instances.len() => write!(line, "{k}.{} {what}", self.instances[k].incarnation),
            _ => write!(line, "--- {what}"),
        };
        self.hasher.write(line.as_bytes());
        if let Some(trace) = &mut self.trace {
            trace.push_str(&line);
            trace.push('\n');
        }
    }

    pub fn trace_hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn fail(&mut self, reason: String) {
        self.note(None, &format_args!("FAILED: {reason}"));
        self.failure.get_or_insert(reason);
    }

    /// Something that happens at a time.
    pub fn at(&mut self, time_us: u64, event: Event) {
        self.queue.push(Reverse((time_us.max(self.now_us), self.events.len() as u64, self.events.len())));
        self.events.push(Some(event));
    }

    /// Something that happens within a while.
    pub fn within(&mut self, time_us: u64, event: Event) {
        let delay = self.dice.random_range(0..time_us.max(1));
        self.at(self.now_us + delay, event);
    }

    pub fn wake(&mut self, fiber: usize) {
        let fiber = &mut self.fibers[fiber];
        fiber.wake_us = fiber.wake_us.min(self.now_us);
    }

    pub fn wake_pollers(&mut self) {
        for k in 0..self.instances.len() {
            if self.instances[k].polling {
                self.wake(self.instances[k].coordinator);
            }
        }
    }

    pub fn faults(&self) -> Faults {
        if self.phase == Phase::Faults { self.plan.faults } else { Faults::default() }
    }

    pub fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.dice.random_range(0..1_000_000) < ppm
    }

    pub fn latency_us(&mut self) -> u64 {
        if self.chance(self.faults().slow_ppm) {
            self.counts.slow += 1;
            return self.dice.random_range(100_000..4 * self.plan.session_us);
        }
        self.dice.random_range(0..2_000)
    }

    /// What becomes of a request.
    pub fn answer(&mut self) -> Answer {
        if self.chance(self.faults().error_ppm) {
            self.counts.errors += 1;
            return Answer::Failed;
        }
        if self.chance(self.faults().lost_ppm) {
            self.counts.lost_answers += 1;
            return Answer::Lost;
        }
        Answer::Done
    }

    /// What may happen to an instance at each step of its.
    pub fn disturb(&mut self, sim: &Sim, instance: usize, what: &str) {
        self.note(Some(instance), &format_args!("{what}"));
        let mut name = DefaultHasher::new();
        name.write(what.as_bytes());
        let is_hot = name.finish() % KINDS == self.plan.hot;
        let faults = if is_hot { self.faults().hotter() } else { self.faults() };
        if self.budget == 0 || !self.instances[instance].alive {
            return;
        }
        let (now, session) = (self.now_us, self.plan.session_us);
        if self.chance(faults.crash_ppm) {
            self.budget -= 1;
            self.crash(instance);
        } else if self.chance(faults.freeze_ppm) {
            self.budget -= 1;
            let time = self.dice.random_range(session / 4..4 * session);
            self.counts.freezes += 1;
            self.counts.zombies += u64::from(time > session);
            self.note(Some(instance), &format_args!("FROZEN for {:.3} s", time as f64 / 1e6));
            self.instances[instance].frozen_until_us = now + time;
        } else if self.chance(faults.restart_ppm) {
            self.budget -= 1;
            self.counts.restarts += 1;
            self.note(Some(instance), &format_args!("asked to end"));
            self.instances[instance].shutdown.request();
        } else if self.chance(faults.deaf_ppm) {
            self.budget -= 1;
            let time = self.dice.random_range(session..3 * session);
            self.counts.deaf += 1;
            self.counts.zombies += 1;
            self.note(Some(instance), &format_args!("heartbeats are lost for {:.3} s", time as f64 / 1e6));
            self.instances[instance].deaf_until_us = now + time;
        } else if self.chance(faults.jump_ppm) {
            self.budget -= 1;
            let jump = self.dice.random_range(-4_000..4_000);
            self.note(None, &format_args!("the clock on the wall jumps by {jump} ms"));
            sim.jumped_ms.fetch_add(jump, Ordering::Relaxed);
        }
    }

    fn crash(&mut self, instance: usize) {
        self.note(Some(instance), &format_args!("CRASH"));
        self.counts.crashes += 1;
        for fiber in self.fibers.iter_mut().filter(|fiber| fiber.instance == instance && !fiber.done) {
            fiber.doomed = true;
        }
        let late = self.instances[instance].sending.take();
        if let Some(request) = late
            && self.dice.random_bool(0.5)
        {
            self.within(300_000, Event::Late(request));
        }
        self.stopped(instance);
    }

    /// The instance has ended in order, and what it knows is on disk.
    pub fn ended(&mut self, instance: usize) {
        self.instances[instance].saved = self.instances[instance].store.saved();
        self.stopped(instance);
    }

    /// The instance is no more; another begins in its place.
    pub fn stopped(&mut self, instance: usize) {
        self.instances[instance].alive = false;
        self.instances[instance].restoring.clear();
        self.instances[instance].client = Client::default();
        if self.phase != Phase::Ending {
            let pause = if self.dice.random_bool(0.5) { 100_000 } else { 4 * self.plan.session_us };
            self.within(pause, Event::Start(instance));
        }
    }

    pub fn fiber_ended(&mut self, fiber: usize, panicked: bool) {
        self.fibers[fiber].done = true;
        if panicked {
            self.fail("a thread panicked, see the message above".to_string());
        }
    }

    fn wakes_at(&self, fiber: &Fiber) -> u64 {
        match self.instances.get(fiber.instance) {
            _ if fiber.done => NEVER,
            _ if fiber.doomed => self.now_us,
            Some(instance) => fiber.wake_us.max(instance.frozen_until_us),
            None => NEVER,
        }
    }

    /// Who goes on. Whatever happens by itself until then, happens here.
    pub fn pick(&mut self, sim: &Arc<Sim>) -> usize {
        loop {
            if self.failure.is_some() {
                let left = self.fibers.iter().position(|fiber| !fiber.done);
                left.into_iter().for_each(|fiber| self.fibers[fiber].doomed = true);
                return left.unwrap_or(MAIN);
            }
            let over = self.fibers.iter().all(|fiber| fiber.done) && self.cluster.is_quiet();
            if self.phase == Phase::Ending && over {
                self.counts.virtual_us = self.now_us;
                return MAIN;
            }
            let due = self.queue.peek().is_some_and(|Reverse((time, ..))| *time <= self.now_us);
            let ready = |fiber: &&Fiber| self.wakes_at(fiber) <= self.now_us;
            let count = self.fibers.iter().filter(ready).count();
            if count == 0 && !due {
                let fibers = self.fibers.iter().map(|fiber| self.wakes_at(fiber)).min().unwrap_or(NEVER);
                let next = self.queue.peek().map_or(NEVER, |Reverse((time, ..))| *time).min(fibers);
                if next == NEVER {
                    self.fail("all wait for one another".to_string());
                } else if next > self.calm_at_us + LABELLED_WITHIN_US {
                    self.fail(format!("{} records are never labelled", self.unlabelled().len()));
                } else {
                    self.now_us = next;
                    sim.set_now(next);
                }
                continue;
            }
            let chosen =
                if count + usize::from(due) > 1 { self.dice.random_range(0..count + usize::from(due)) } else { 0 };
            if chosen < count {
                let ready = self.fibers.iter().enumerate().filter(|(_, fiber)| self.wakes_at(fiber) <= self.now_us);
                return ready.map(|(number, _)| number).nth(chosen).unwrap_or(MAIN);
            }
            if let Some(event) = self.queue.pop().and_then(|Reverse((.., place))| self.events[place].take()) {
                self.happen(sim, event);
            }
        }
    }

    /// Somebody is in charge of each partition, and has done with all of it.
    pub fn is_done(&self) -> bool {
        if !self.cluster.is_quiet() || !self.instances.iter().all(|instance| instance.alive) {
            return false;
        }
        if self.plan.transport == Transport::Embedded {
            return self.durable_next == self.input[0].len();
        }
        let labelled: Vec<(i32, i64)> = self.instances.iter().flat_map(|k| k.assignment.labelled()).collect();
        let end = |records: &Vec<RawRecord>| records.last().and_then(|last| last.origin.offset()).unwrap_or(-1) + 1;
        let mut partitions = (0..).zip(&self.input);
        partitions.all(|(partition, records)| labelled.iter().any(|(p, next)| *p == partition && *next >= end(records)))
    }

    /// Records of which neither labels nor a dead letter can be read.
    pub fn unlabelled(&self) -> BTreeSet<String> {
        let mut left: BTreeSet<String> = self.plan.records.iter().map(|record| record.origin.to_string()).collect();
        for (_, log) in self.cluster.logs.iter().filter(|((topic, _), _)| *topic != Topic::Changelog) {
            let published = log.entries.iter().filter(|e| e.fate == Fate::Committed).filter_map(|e| e.message.as_ref());
            published.for_each(|message| {
                left.remove(&message.source);
            });
        }
        left
    }

    /// The counts of all that was counted elsewhere.
    pub fn counted(&self) -> Counts {
        Counts {
            committed: self.cluster.committed,
            aborted: self.cluster.aborted,
            fenced: self.cluster.fenced,
            load_errors: self.load_errors.load(Ordering::Relaxed),
            ..self.counts.clone()
        }
    }
}
