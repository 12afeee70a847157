//! The consumer: polls, and does in the group's callbacks what `src/transport/kafka/{source,context}.rs` do.

use crate::group::Callback;
use crate::happenings::Event;
use crate::scheduler::Sim;
use crate::sink::commit_offsets;
use crate::world::Answer;
use rand::RngExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strand::transport::kafka::Assignment;
use strand::transport::{Origin, PollLimits, Polled, RawRecord, Source, TransportError};

pub struct KafkaSource {
    sim: Arc<Sim>,
    instance: usize,
    assignment: Arc<Assignment>,
    /// First offset that was not polled, by partition.
    next: BTreeMap<i32, i64>,
    /// What was polled together with the news that partitions are gone.
    kept: Vec<RawRecord>,
    paused: bool,
}

impl KafkaSource {
    pub fn new(sim: &Arc<Sim>, instance: usize) -> KafkaSource {
        let assignment = sim.world().instances[instance].assignment.clone();
        KafkaSource { sim: sim.clone(), instance, assignment, next: BTreeMap::new(), kept: Vec::new(), paused: false }
    }

    /// Sets the position of partitions whose states are there, and serves them.
    fn begin_restored(&mut self) {
        for (partition, committed) in self.assignment.to_position() {
            self.sim.step("sets a position");
            let mut world = self.sim.world();
            if world.answer() != Answer::Done {
                continue;
            }
            let next = committed.unwrap_or(0);
            world.note(Some(self.instance), &format_args!("serves {partition} from {next}"));
            let store = world.instances[self.instance].store.clone();
            drop(world);
            self.next.insert(partition, next);
            self.assignment.serve(partition, next);
            store.serve(partition);
        }
    }

    fn serve_callback(&self, callback: Callback) {
        match callback {
            Callback::Assign(partitions) => {
                let epochs = self.assignment.assign(&partitions);
                self.sim.world().note(Some(self.instance), &format_args!("is given {partitions:?}"));
                self.restore(epochs);
            }
            Callback::Revoke(partitions) => self.give_up(&partitions, false),
            Callback::Lost(partitions) => self.give_up(&partitions, true),
        }
    }

    fn restore(&self, epochs: Vec<(i32, u64)>) {
        let mut world = self.sim.world();
        let (instance, incarnation) = (self.instance, world.instances[self.instance].incarnation);
        for (partition, epoch) in epochs {
            world.instances[instance].restoring.insert(partition, epoch);
            world.within(5_000, Event::Restore { instance, incarnation, partition, epoch, read: None });
        }
    }

    fn give_up(&self, partitions: &[i32], lost: bool) {
        let until = self.sim.now_us() + self.sim.world().plan.hand_over_us;
        if lost {
            self.assignment.revoke(partitions, true, Duration::ZERO);
        } else {
            // What is being written must be whole before another instance reads the changelog.
            while self.assignment.is_writing() && self.sim.now_us() < until {
                self.sim.pause(until);
            }
            self.assignment.revoke(partitions, false, Duration::ZERO);
        }
        let store = self.sim.world().instances[self.instance].store.clone();
        partitions.iter().for_each(|partition| store.leave(*partition));
        if !lost {
            // That it cannot be done is no reason to keep them.
            let _ = commit_offsets(&self.sim, self.instance, &self.assignment);
        }
        self.sim.step("gives partitions up");
        self.assignment.forget(partitions);
        let mut guard = self.sim.world();
        let world = &mut *guard;
        world.note(Some(self.instance), &format_args!("gave up {partitions:?}, lost: {lost}"));
        let instance = &mut world.instances[self.instance];
        for partition in partitions {
            instance.restoring.remove(partition);
        }
        world.group.given_up(&mut instance.client, partitions);
        world.settle_group();
    }

    /// Records of served partitions, as many as the brokers happen to send.
    fn fetch(&mut self, most: usize) -> Vec<RawRecord> {
        let mut served = self.assignment.served();
        let mut guard = self.sim.world();
        let world = &mut *guard;
        let mut left = if most == 0 { 0 } else { world.dice.random_range(1..=most) };
        let mut records = Vec::new();
        while left > 0 && !served.is_empty() {
            let place = world.dice.random_range(0..served.len());
            let partition = served.swap_remove(place);
            let Some(next) = self.next.get_mut(&partition) else { continue };
            let count = world.dice.random_range(1..=left);
            let rest = world.input[partition as usize].iter().filter(|record| offset_of(record) >= *next);
            for record in rest.take(count).cloned().collect::<Vec<_>>() {
                *next = offset_of(&record) + 1;
                records.push(record);
                left -= 1;
            }
        }
        records
    }

    fn drain(&mut self, limits: &PollLimits) -> Vec<RawRecord> {
        let mut records = std::mem::take(&mut self.kept);
        let wait = if records.is_empty() { limits.wait.as_micros() as u64 } else { 0 };
        let until = self.sim.now_us() + wait;
        loop {
            let callback = self.sim.world().instances[self.instance].client.next_callback();
            if let Some(callback) = callback {
                self.serve_callback(callback);
                continue;
            }
            if !self.paused {
                records.extend(self.fetch(limits.records.saturating_sub(records.len())));
            }
            let now = self.sim.now_us();
            if !records.is_empty() || now >= until {
                return records;
            }
            self.set_polling(true);
            self.sim.pause(until);
            self.set_polling(false);
        }
    }

    fn set_polling(&self, polling: bool) {
        self.sim.world().instances[self.instance].polling = polling;
    }
}

fn offset_of(record: &RawRecord) -> i64 {
    record.origin.offset().unwrap_or(-1)
}

fn partition_of(record: &RawRecord) -> i32 {
    match &record.origin {
        Origin::Record { partition, .. } => *partition,
        Origin::Strand => -1,
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        self.sim.step("polls");
        self.begin_restored();
        let failed = { self.sim.world().answer() == Answer::Failed };
        if failed {
            return Err(TransportError::Transient("poll: fault".to_string()));
        }
        let records = self.drain(limits);
        let lost = self.assignment.take_lost();
        if lost.is_empty() {
            if self.paused {
                self.kept = records;
                return Ok(Polled::Records(Vec::new()));
            }
            if !records.is_empty() {
                let names: Vec<String> = records.iter().map(|record| record.origin.to_string()).collect();
                self.sim.world().note(Some(self.instance), &format_args!("polled {}", names.join(" ")));
            }
            return Ok(Polled::Records(records));
        }
        lost.iter().for_each(|partition| {
            self.next.remove(partition);
        });
        self.kept = records.into_iter().filter(|record| !lost.contains(&partition_of(record))).collect();
        self.sim.world().note(Some(self.instance), &format_args!("polled: lost {lost:?}"));
        Ok(Polled::Lost(lost))
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        self.kept.clear();
        self.sim.step("goes back");
        // Where it is not certain what is committed, the brokers are asked.
        let serving = self.sim.world().instances[self.instance].store.serving();
        let doubtful: Vec<i32> = self.assignment.served().into_iter().filter(|p| !serving.contains(p)).collect();
        if !doubtful.is_empty() {
            self.restore(self.assignment.restore_again(&doubtful));
        }
        let positions = self.assignment.labelled();
        let mut world = self.sim.world();
        world.counts.rewinds += 1;
        world.note(Some(self.instance), &format_args!("goes back to {positions:?}"));
        if world.answer() == Answer::Failed {
            return Err(TransportError::Transient("rewind: fault".to_string()));
        }
        self.next.extend(positions);
        Ok(())
    }

    fn assignment(&self) -> u64 {
        self.assignment.epoch()
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}

impl Drop for KafkaSource {
    /// Leaves the group in order.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _ = commit_offsets(&self.sim, self.instance, &self.assignment);
        let owned: Vec<i32> = self.sim.world().instances[self.instance].client.owned.iter().copied().collect();
        self.give_up(&owned, false);
        let mut world = self.sim.world();
        if let Some(member) = world.instances[self.instance].client.member.take() {
            world.note(Some(self.instance), &format_args!("leaves the group"));
            world.group.remove(member);
            world.settle_group();
        }
        // No heartbeat finds it again.
        world.instances[self.instance].alive = false;
    }
}
