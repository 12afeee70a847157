//! The producer: writes a batch in the steps of `src/transport/kafka/{sink,delivery}.rs`.

use crate::cluster::{Message, News, Refusal, Topic};
use crate::plan::Transport;
use crate::scheduler::Sim;
use crate::store::{Store, Written};
use crate::world::{Answer, Request, World};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use strand::transport::kafka::Assignment;
use strand::transport::{Origin, Position, Sink, Transaction, TransportError};

/// Once the daemon is to end, how long an answer is still waited for.
const LAST_WAIT_US: u64 = 5_000_000;

pub struct KafkaSink {
    sim: Arc<Sim>,
    instance: usize,
    assignment: Arc<Assignment>,
    store: Arc<Store>,
    transactional: bool,
    /// The transactional id's epoch, once it was taken up.
    epoch: Option<u32>,
}

/// Where what was sent lies in the changelog's partitions.
type Marks = BTreeMap<i32, Written>;

fn failed(what: &str) -> TransportError {
    TransportError::Transient(format!("{what}: fault"))
}

/// What is to be written to one partition of a topic, in order.
type Queues = BTreeMap<(Topic, i32), VecDeque<Message>>;

/// Labels and dead letters of a transaction.
pub fn published(transaction: &Transaction) -> Queues {
    let mut queues = Queues::new();
    for output in &transaction.outputs {
        let (key, source) = (Some(output.stream.as_bytes().to_vec()), output.input.origin.to_string());
        let message = Message { key, value: output.value.clone(), source, code: "" };
        queues.entry((Topic::Labels, output.stream.partition())).or_default().push_back(message);
    }
    for letter in &transaction.letters {
        let record = &letter.record;
        let partition = match record.origin {
            Origin::Record { partition, .. } => partition,
            Origin::Strand => 0,
        };
        let (key, value, source) = (record.key.clone(), record.value.clone(), record.origin.to_string());
        let message = Message { key, value, source, code: letter.code };
        queues.entry((Topic::Letters, partition)).or_default().push_back(message);
    }
    queues
}

fn kept(transaction: &Transaction) -> Queues {
    let mut queues = Queues::new();
    for change in &transaction.states {
        let key = Some(change.stream.as_bytes().to_vec());
        let message = Message { key, value: change.state.encode(), source: String::new(), code: "" };
        queues.entry((Topic::Changelog, change.stream.partition())).or_default().push_back(message);
    }
    queues
}

impl KafkaSink {
    pub fn new(sim: &Arc<Sim>, instance: usize) -> KafkaSink {
        let world = sim.world();
        let own = &world.instances[instance];
        KafkaSink {
            sim: sim.clone(),
            instance,
            assignment: own.assignment.clone(),
            store: own.store.clone(),
            transactional: world.plan.transport == Transport::ExactlyOnce,
            epoch: None,
        }
    }

    /// Sends all of the queues, a few messages at a time and those of the partitions in any order, each through `write`.
    fn send(
        &self,
        mut queues: Queues,
        producer: Option<(usize, u32)>,
        write: impl Fn(&mut World, (Topic, i32), Message) -> Result<i64, TransportError>,
    ) -> Result<Marks, TransportError> {
        let mut marks = Marks::new();
        while !queues.is_empty() {
            let (place, chunk) = {
                let mut guard = self.sim.world();
                let world = &mut *guard;
                let number = world.dice.random_range(0..queues.len());
                let (&place, queue) = queues.iter_mut().nth(number).unwrap();
                let count = world.dice.random_range(1..=queue.len());
                let chunk: Vec<Message> = queue.drain(..count).collect();
                let message = chunk[0].clone();
                world.instances[self.instance].sending = Some(Request { producer, place, message });
                (place, chunk)
            };
            queues.retain(|_, queue| !queue.is_empty());
            self.sim.step("sends");
            let mut world = self.sim.world();
            world.instances[self.instance].sending = None;
            let answer = world.answer();
            if answer == Answer::Failed {
                return Err(failed("send"));
            }
            world.note(Some(self.instance), &format_args!("writes {} to {:?}/{}", chunk.len(), place.0, place.1));
            for message in chunk {
                let offset = write(&mut world, place, message)?;
                if place.0 == Topic::Changelog {
                    let first = Written { first: offset, last: offset, records: 0 };
                    let written = marks.entry(place.1).or_insert(first);
                    (written.last, written.records) = (offset, written.records + 1);
                }
            }
            if answer == Answer::Lost {
                // The producer sends it again, and the broker knows it by its number: only time is lost. Now and then
                // that takes too long.
                if world.dice.random_bool(0.3) {
                    return Err(failed("acknowledgement"));
                }
            }
        }
        self.sim.step("all is acknowledged");
        Ok(marks)
    }

    fn write(&mut self, partitions: &BTreeSet<i32>, batch: &Transaction) -> Result<(), TransportError> {
        let marks = if self.transactional {
            self.transact(partitions, batch)?
        } else {
            let append = |world: &mut World, (topic, partition): (Topic, i32), message: Message| {
                Ok(world.cluster.append(topic, partition, message))
            };
            self.send(published(batch), None, append)?;
            self.assignment.go_on_writing()?;
            self.send(kept(batch), None, append)?
        };
        self.sim.step("stores");
        if self.store.store(&batch.states, &marks, self.transactional) {
            return Ok(());
        }
        // It is written all the same: what counts is what the changelog and the group say.
        partitions.iter().for_each(|partition| self.store.leave(*partition));
        Err(failed("the copy is being read back"))
    }

    fn transact(&mut self, partitions: &BTreeSet<i32>, batch: &Transaction) -> Result<Marks, TransportError> {
        let id = self.sim.world().instances[self.instance].id;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => {
                let mut taken = None;
                self.until_answered("takes its id up", |world, news| {
                    taken = Some(world.cluster.init(id, news)?);
                    Ok(())
                })?;
                *self.epoch.insert(taken.unwrap())
            }
        };
        let result = self.fill(partitions, batch, (id, epoch));
        let Err(error) = result else { return result };
        self.sim.world().note(Some(self.instance), &format_args!("aborts: {error}"));
        // If aborting fails too the producer is given up; its successor's first call aborts what it left open.
        if self.epoch.is_some()
            && self.until_answered("aborts", |world, news| world.cluster.end((id, epoch), false, news)).is_err()
        {
            self.epoch = None;
        }
        Err(error)
    }

    fn fill(
        &mut self,
        partitions: &BTreeSet<i32>,
        batch: &Transaction,
        producer: (usize, u32),
    ) -> Result<Marks, TransportError> {
        let mut queues = published(batch);
        queues.extend(kept(batch));
        // The first request of a transaction waits until the one before is over.
        self.until_answered("begins a transaction", |world, news| {
            world.cluster.send_offsets(producer, &BTreeMap::new(), news)
        })?;
        let sent = self.send(queues, Some(producer), |world, place, message| {
            let mut news = Vec::new();
            let result = world.cluster.produce(producer, place, message, &mut news);
            world.heed(news);
            result.map_err(|refusal| TransportError::Transient(format!("sending: {refusal:?}")))
        });
        let marks = sent?;
        let mut next: BTreeMap<i32, i64> = self.assignment.labelled().into_iter().collect();
        next.retain(|partition, _| partitions.contains(partition));
        next.extend(batch.positions.iter().map(|position| (position.partition, position.next_offset)));
        let (member, generation) = {
            let world = self.sim.world();
            let client = &world.instances[self.instance].client;
            (client.member, client.generation)
        };
        self.sim.step("knows its generation");
        self.assignment.go_on_writing()?;
        let sent = self.until_answered("sends offsets", |world, news| {
            let known = member.is_some_and(|member| world.group.members.contains_key(&member));
            if !known || generation != world.group.generation {
                return Err(Refusal::Generation);
            }
            world.cluster.send_offsets(producer, &next, news)
        });
        // A call that times out leaves the outcome open: it is made again until there is one, and nothing else is done.
        let commit = |world: &mut World, news: &mut Vec<News>| world.cluster.end(producer, true, news);
        if let Err(error) = sent.and_then(|()| self.until_answered("commits", commit)) {
            // Whether it is committed is not certain: what counts is what the changelog and the group say.
            partitions.iter().for_each(|partition| self.store.leave(*partition));
            return Err(error);
        }
        Ok(marks)
    }

    /// Makes a call again as long as this may help.
    fn until_answered(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut World, &mut Vec<News>) -> Result<(), Refusal>,
    ) -> Result<(), TransportError> {
        let mut last = None;
        loop {
            self.sim.step(what);
            let mut news = Vec::new();
            let mut world = self.sim.world();
            let answer = world.answer();
            let mut result = if answer == Answer::Failed { Err(Refusal::Busy) } else { call(&mut world, &mut news) };
            if answer == Answer::Lost {
                // Now and then the client gives the producer up for it, and nobody knows what became of the call.
                result = Err(if world.dice.random_bool(0.1) { Refusal::Fenced } else { Refusal::Busy });
            }
            world.note(Some(self.instance), &format_args!("{what}: {result:?} ({answer:?})"));
            world.heed(news);
            let (now, ends) = (world.now_us, world.instances[self.instance].shutdown.is_requested());
            drop(world);
            match result {
                Ok(()) => return Ok(()),
                Err(Refusal::Busy) => {}
                Err(refusal) => {
                    if refusal == Refusal::Fenced {
                        self.epoch = None;
                    }
                    return Err(TransportError::Transient(format!("{what}: {refusal:?}")));
                }
            }
            if ends && now > *last.get_or_insert(now) + LAST_WAIT_US {
                return Err(failed(what));
            }
            self.sim.pause(now + 20_000);
        }
    }
}

impl Sink for KafkaSink {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        let positions = &transaction.positions;
        let states = transaction.states.iter().map(|change| change.stream.partition());
        let partitions: BTreeSet<i32> = positions.iter().map(|p| p.partition).chain(states).collect();
        self.sim.step("takes up a batch");
        self.assignment.begin_writing(&partitions, transaction.assignment)?;
        let result = self.write(&partitions, &transaction);
        self.assignment.end_writing(if result.is_ok() { positions } else { &[] });
        {
            let mut world = self.sim.world();
            let coordinator = world.instances[self.instance].coordinator;
            world.note(Some(self.instance), &format_args!("has written: {}", outcome(&result)));
            // It may be waiting with partitions to hand over.
            world.wake(coordinator);
        }
        result?;
        if self.transactional {
            self.assignment.committed(&in_pairs(positions));
            return Ok(());
        }
        commit_offsets(&self.sim, self.instance, &self.assignment)
    }
}

fn outcome(result: &Result<(), TransportError>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |()| "all".to_string())
}

fn in_pairs(positions: &[Position]) -> Vec<(i32, i64)> {
    positions.iter().map(|p| (p.partition, p.next_offset)).collect()
}

/// Tells the group how far the partitions are. That it does not take it from this member is no error.
pub fn commit_offsets(sim: &Arc<Sim>, instance: usize, assignment: &Assignment) -> Result<(), TransportError> {
    let positions = assignment.uncommitted();
    if positions.is_empty() {
        return Ok(());
    }
    sim.step("commits offsets");
    let mut world = sim.world();
    let answer = world.answer();
    if answer == Answer::Failed {
        return Err(failed("offsets"));
    }
    if !world.group.knows(&world.instances[instance].client) {
        world.note(Some(instance), &format_args!("offsets are refused"));
        return Ok(());
    }
    world.note(Some(instance), &format_args!("offsets: {positions:?}"));
    world.cluster.offsets.extend(positions.iter().copied());
    if answer == Answer::Lost {
        return Err(failed("offsets"));
    }
    assignment.committed(&positions);
    Ok(())
}
