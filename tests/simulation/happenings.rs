//! What happens by itself: records are sent, members are heard of or not, markers arrive, timers run out.

use crate::cluster::{News, Topic};
use crate::instance;
use crate::plan::Transport;
use crate::scheduler::Sim;
use crate::store::Store;
use crate::world::{Instance, Phase, Request, World};
use rand::RngExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strand::transport::Origin;

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
    /// An instance saves its copy of the states.
    Save {
        instance: usize,
        incarnation: u64,
    },
    Calm,
    Look,
}

impl World {
    pub fn happen(&mut self, sim: &Arc<Sim>, event: Event) {
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
                let Some(producer) = producer else {
                    self.cluster.append(place.0, place.1, message);
                    return;
                };
                let mut news = Vec::new();
                // Refused, if another has the id by now.
                let _ = self.cluster.produce(producer, place, message, &mut news);
                self.heed(news);
            }
            Event::Save { instance, incarnation } => {
                let k = &mut self.instances[instance];
                if k.alive && k.incarnation == incarnation {
                    if k.frozen_until_us <= self.now_us {
                        k.saved = k.store.saved();
                    }
                    self.within(2 * self.plan.session_us, Event::Save { instance, incarnation });
                }
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

    fn start(&mut self, sim: &Arc<Sim>, instance: usize) {
        // Its predecessor's fibers are still unwinding.
        if self.fibers.iter().any(|fiber| fiber.instance == instance && !fiber.done) {
            return self.at(self.now_us + 1_000, Event::Start(instance));
        }
        // Now and then the local directory is lost: the transactional id, and the copy of the states.
        let (id, saved) = if self.dice.random_bool(0.2) {
            (self.cluster.new_id(), Store::default())
        } else {
            (self.instances[instance].id, self.instances[instance].saved.saved())
        };
        let k = &mut self.instances[instance];
        k.incarnation += 1;
        let incarnation = k.incarnation;
        *k = Instance { alive: true, incarnation, ..Instance::new(&sim.events, id, saved) };
        self.note(Some(instance), &format_args!("starts"));
        if self.plan.transport != Transport::Embedded {
            self.within(50_000, Event::Heartbeat { instance, incarnation });
            self.within(self.plan.session_us, Event::Save { instance, incarnation });
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
            // It goes on with its work before it hears that it was left behind.
            let delay = self.dice.random_range(0..self.plan.session_us / 4);
            return self.at(reachable_us + delay, again);
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
}
