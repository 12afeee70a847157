//! All that is shared in a seed: the cluster, the instances, what happens when, and the trace of it.

use crate::cluster::{Cluster, Fate, Message, News, Topic};
use crate::group::{Client, Group};
use crate::instance;
use crate::plan::{Faults, Plan, Transport};
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
use strand::transport::kafka::Assignment;
use strand::transport::{Origin, RawRecord};

/// Once there are no more faults, all must be labelled within this (microseconds).
const LABELLED_WITHIN_US: u64 = 300_000_000;

/// What happens by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Append(usize),
    Start(usize),
    Heartbeat {
        instance: usize,
        incarnation: u64,
    },
    Expire {
        member: u64,
    },
    TimeOut {
        id: usize,
        number: u64,
    },
    Marker {
        id: usize,
        place: Option<(Topic, i32)>,
    },
    Restore {
        instance: usize,
        incarnation: u64,
        partition: i32,
        epoch: u64,
        read: Option<(i64, i64)>,
    },
    /// A request of one who crashed arrives after all.
    Late(Request),
    Calm,
    Look,
}

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
    deaf_until_us: u64,
    pub coordinator: usize,
    /// It waits for something to poll.
    pub polling: bool,
    pub shutdown: Shutdown,
    pub client: Client,
    pub assignment: Arc<Assignment>,
    pub store: Arc<Store>,
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
enum Phase {
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

#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub crashes: u64,
    pub freezes: u64,
    pub zombies: u64,
    pub restarts: u64,
    pub deaf: u64,
    pub rebalances: u64,
    pub errors: u64,
    pub lost_answers: u64,
    pub slow: u64,
    pub committed: u64,
    pub aborted: u64,
    pub fenced: u64,
    pub virtual_us: u64,
    pub load_errors: u64,
    pub rewinds: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.crashes += other.crashes;
        self.freezes += other.freezes;
        self.zombies += other.zombies;
        self.restarts += other.restarts;
        self.deaf += other.deaf;
        self.rebalances += other.rebalances;
        self.errors += other.errors;
        self.lost_answers += other.lost_answers;
        self.slow += other.slow;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.fenced += other.fenced;
        self.virtual_us += other.virtual_us;
        self.load_errors += other.load_errors;
        self.rewinds += other.rewinds;
    }
}

pub struct World {
    pub plan: Plan,
    pub dice: ChaCha8Rng,
    pub now_us: u64,
    pub fibers: Vec<Fiber>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    phase: Phase,
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

impl World {
    pub fn new(plan: Plan, traced: bool, sim_events: &strand::events::Events) -> World {
        let mut dice = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x5eed);
        let mut cluster = Cluster::default();
        let durable = Arc::new(Store::default());
        durable.serve(0);
        let instances = (0..plan.instances).map(|_| Instance {
            alive: false,
            incarnation: 0,
            frozen_until_us: 0,
            deaf_until_us: 0,
            coordinator: MAIN,
            polling: false,
            shutdown: Shutdown::new(),
            client: Client::default(),
            assignment: Arc::new(Assignment::new(sim_events.clone())),
            store: Arc::default(),
            restoring: BTreeMap::new(),
            committed: BTreeMap::new(),
            id: cluster.new_id(),
            sending: None,
        });
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
        let faults = self.faults();
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

    fn happen(&mut self, sim: &Arc<Sim>, event: Event) {
        match event {
            Event::Append(number) => {
                let record = self.plan.records[number].clone();
                let Origin::Record { partition, .. } = record.origin else { return };
                self.note(None, &format_args!("{} is sent", record.origin));
                self.input[partition as usize].push(record);
                self.wake_pollers();
            }
            Event::Start(instance) if self.phase != Phase::Ending => self.start(sim, instance),
            Event::Start(_) => {}
            Event::Heartbeat { instance, incarnation } => self.heartbeat(instance, incarnation),
            Event::Expire { member } => self.expire(member),
            Event::TimeOut { id, number } => {
                let mut news = Vec::new();
                if self.cluster.time_out(id, number, &mut news) {
                    self.note(None, &format_args!("the transaction of id {id} has taken too long"));
                }
                self.heed(news);
            }
            Event::Marker { id, place } => {
                self.note(None, &format_args!("marker of id {id} at {place:?}"));
                self.cluster.mark(id, place);
            }
            Event::Restore { instance, incarnation, partition, epoch, read } => {
                let k = &self.instances[instance];
                if k.alive && k.incarnation == incarnation && k.restoring.get(&partition) == Some(&epoch) {
                    if k.frozen_until_us > self.now_us {
                        let event = Event::Restore { instance, incarnation, partition, epoch, read };
                        return self.at(k.frozen_until_us, event);
                    }
                    crate::restore::go_on(self, instance, partition, epoch, read);
                }
            }
            Event::Late(Request { producer, place, message }) => {
                self.note(None, &format_args!("late: {place:?} {}", message.source));
                let Some(producer) = producer else { return self.cluster.append(place.0, place.1, message) };
                let mut news = Vec::new();
                // Refused, if another has the id by now.
                let _ = self.cluster.produce(producer, place, message, &mut news);
                self.heed(news);
            }
            Event::Calm => {
                self.note(None, &format_args!("no more faults"));
                self.phase = Phase::Calm;
                sim.calm.store(true, Ordering::Relaxed);
                self.at(self.now_us, Event::Look);
            }
            Event::Look => {
                if self.unlabelled().is_empty() && self.is_done() {
                    self.note(None, &format_args!("all is labelled"));
                    self.phase = Phase::Ending;
                    self.instances.iter().for_each(|instance| instance.shutdown.request());
                    self.wake_pollers();
                } else {
                    self.at(self.now_us + 200_000, Event::Look);
                }
            }
        }
    }

    /// Somebody is in charge of each partition, and has done with all of it.
    fn is_done(&self) -> bool {
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

    fn start(&mut self, sim: &Arc<Sim>, instance: usize) {
        // Its predecessor's fibers are still unwinding.
        if self.fibers.iter().any(|fiber| fiber.instance == instance && !fiber.done) {
            return self.at(self.now_us + 1_000, Event::Start(instance));
        }
        // Now and then the local directory is lost, and the transactional id with it.
        let id = if self.dice.random_bool(0.2) { self.cluster.new_id() } else { self.instances[instance].id };
        let k = &mut self.instances[instance];
        k.incarnation += 1;
        let incarnation = k.incarnation;
        *k = Instance {
            alive: true,
            incarnation,
            frozen_until_us: 0,
            deaf_until_us: 0,
            coordinator: MAIN,
            polling: false,
            shutdown: Shutdown::new(),
            client: Client::default(),
            assignment: Arc::new(Assignment::new(sim.events.clone())),
            store: Arc::default(),
            restoring: BTreeMap::new(),
            committed: BTreeMap::new(),
            id,
            sending: None,
        };
        self.note(Some(instance), &format_args!("starts"));
        if self.plan.transport != Transport::Embedded {
            self.within(50_000, Event::Heartbeat { instance, incarnation });
        }
        let own = sim.clone();
        let coordinator = sim.spawn(self, instance, "coordinator", move || instance::live(&own, instance));
        self.instances[instance].coordinator = coordinator;
    }

    fn heartbeat(&mut self, instance: usize, incarnation: u64) {
        let k = &mut self.instances[instance];
        if !k.alive || k.incarnation != incarnation {
            return;
        }
        let again = Event::Heartbeat { instance, incarnation };
        let reachable_us = k.frozen_until_us.max(k.deaf_until_us);
        if reachable_us > self.now_us {
            return self.at(reachable_us, again);
        }
        let before = k.client.member;
        self.group.hear(&mut k.client, self.now_us);
        if let (None, Some(member)) = (before, k.client.member) {
            self.at(self.now_us + self.plan.session_us, Event::Expire { member });
        }
        self.settle_group();
        self.wake_pollers();
        let wait = if self.group.settling { 40_000 } else { self.plan.session_us / 4 };
        self.within(wait, again);
    }

    /// Begins the next generation if all have joined, and tells those who can be told.
    pub fn settle_group(&mut self) {
        if !self.group.complete() {
            return;
        }
        self.counts.rebalances += 1;
        let (generation, members) = (self.group.generation, self.group.members.len());
        self.note(None, &format_args!("generation {generation} of {members} members"));
        for k in &mut self.instances {
            let reachable = k.frozen_until_us.max(k.deaf_until_us) <= self.now_us;
            if k.alive && reachable && k.client.member.is_some() {
                self.group.hear(&mut k.client, self.now_us);
            }
        }
        self.wake_pollers();
    }

    fn expire(&mut self, member: u64) {
        let Some(heard_us) = self.group.members.get(&member).map(|member| member.heard_us) else { return };
        if self.now_us < heard_us + self.plan.session_us {
            return self.at(heard_us + self.plan.session_us, Event::Expire { member });
        }
        self.note(None, &format_args!("member {member} was not heard of for too long"));
        self.group.remove(member);
        self.settle_group();
    }

    /// What follows from news of transactions.
    pub fn heed(&mut self, news: Vec<News>) {
        for news in news {
            match news {
                News::Began { id, number } => {
                    self.at(self.now_us + self.plan.transaction_us, Event::TimeOut { id, number });
                }
                News::Decided { id, markers } => {
                    for place in markers {
                        let delay = if self.chance(100_000) { 3_000_000 } else { 5_000 };
                        self.within(delay, Event::Marker { id, place });
                    }
                }
            }
        }
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
