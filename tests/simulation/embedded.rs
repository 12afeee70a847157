//! The embedded store: a queue, and commits that are whole or not there.

use crate::scheduler::Sim;
use crate::sink::published;
use crate::world::Answer;
use rand::RngExt;
use std::sync::Arc;
use strand::transport::{PollLimits, Polled, Sink, Source, Transaction, TransportError};

pub struct Queue {
    pub sim: Arc<Sim>,
    pub instance: usize,
    pub next: usize,
    pub paused: bool,
}

pub struct Atomic {
    pub sim: Arc<Sim>,
    pub instance: usize,
}

fn failed(what: &str) -> TransportError {
    TransportError::Transient(format!("{what}: fault"))
}

impl Source for Queue {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        self.sim.step("polls");
        let until = self.sim.now_us() + limits.wait.as_micros() as u64;
        loop {
            {
                let mut world = self.sim.world();
                if world.answer() == Answer::Failed {
                    return Err(failed("poll"));
                }
                let most = world.dice.random_range(1..=limits.records);
                let rest = world.input[0].iter().skip(self.next).take(most);
                let records: Vec<_> = rest.cloned().collect();
                if self.paused || world.now_us >= until || !records.is_empty() {
                    let records = if self.paused { Vec::new() } else { records };
                    self.next += records.len();
                    world.instances[self.instance].polling = false;
                    return Ok(Polled::Records(records));
                }
                world.instances[self.instance].polling = true;
            }
            self.sim.pause(until);
        }
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        self.sim.step("goes back");
        let mut world = self.sim.world();
        world.counts.rewinds += 1;
        if world.answer() == Answer::Failed {
            return Err(failed("rewind"));
        }
        self.next = world.durable_next;
        Ok(())
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}

impl Sink for Atomic {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        self.sim.step("commits");
        {
            let mut world = self.sim.world();
            if world.answer() == Answer::Failed {
                return Err(failed("commit"));
            }
            for ((topic, partition), messages) in published(&transaction) {
                for message in messages {
                    world.cluster.append(topic, partition, message);
                }
            }
            for change in &transaction.states {
                world.durable.put(0, change.stream.as_bytes(), change.state.encode());
            }
            for position in &transaction.positions {
                assert!(position.next_offset as usize > world.durable_next, "never back");
                world.durable_next = position.next_offset as usize;
            }
            let next = world.durable_next;
            world.note(Some(self.instance), &format_args!("committed up to {next}"));
        }
        self.sim.step("has committed");
        Ok(())
    }
}
