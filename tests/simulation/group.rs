//! The consumer group: members, generations, and partitions that are handed over cooperatively.
//!
//! Whoever is to give a partition up is told first; only when it has is the partition another's, in the next generation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub struct Member {
    /// Its last heartbeat.
    pub heard_us: u64,
    /// It has joined the generation that is being made.
    joined: bool,
    /// It knows what the current generation gave it.
    synced: bool,
    revoking: BTreeSet<i32>,
}

#[derive(Default)]
pub struct Group {
    pub generation: i64,
    next_member: u64,
    pub members: BTreeMap<u64, Member>,
    owners: BTreeMap<i32, u64>,
    partitions: i32,
    /// A new generation is being made.
    pub settling: bool,
}

/// What librdkafka has for the application's next poll.
#[derive(Debug, Clone, PartialEq)]
pub enum Callback {
    Assign(Vec<i32>),
    Revoke(Vec<i32>),
    Lost(Vec<i32>),
}

impl Callback {
    fn takes(&self) -> bool {
        matches!(self, Callback::Revoke(_) | Callback::Lost(_))
    }
}

/// A member's own view.
#[derive(Default)]
pub struct Client {
    pub member: Option<u64>,
    pub generation: i64,
    pub callbacks: VecDeque<Callback>,
    /// A callback by which it gives partitions up is running.
    giving_up: bool,
    pub owned: BTreeSet<i32>,
}

impl Client {
    /// While it has not given up what it must it takes no part in the next generation.
    fn is_ready(&self) -> bool {
        !self.giving_up && !self.callbacks.iter().any(Callback::takes)
    }

    /// The callback that the application runs now.
    pub fn next_callback(&mut self) -> Option<Callback> {
        let callback = self.callbacks.pop_front();
        self.giving_up = callback.as_ref().is_some_and(Callback::takes);
        callback
    }
}

impl Group {
    pub fn new(partitions: i32) -> Group {
        Group { partitions, ..Group::default() }
    }

    /// Whether the group takes offsets of this member.
    pub fn knows(&self, client: &Client) -> bool {
        client.generation == self.generation && client.member.is_some_and(|member| self.members.contains_key(&member))
    }

    /// A heartbeat, and what its answer leads to.
    pub fn hear(&mut self, client: &mut Client, now_us: u64) {
        match client.member.and_then(|member| self.members.get_mut(&member)) {
            Some(member) => {
                member.heard_us = now_us;
                member.joined |= self.settling && client.is_ready();
                self.sync(client);
            }
            // The group has gone on without it.
            None if client.member.is_some() => {
                client.member = None;
                client.callbacks = VecDeque::from([Callback::Lost(client.owned.iter().copied().collect())]);
            }
            None if client.is_ready() => {
                self.next_member += 1;
                client.member = Some(self.next_member);
                let member = Member { heard_us: now_us, joined: true, synced: true, revoking: BTreeSet::new() };
                self.members.insert(self.next_member, member);
                self.settle();
            }
            None => {}
        }
    }

    /// What the generation gave or takes, told once.
    fn sync(&mut self, client: &mut Client) {
        let Some(id) = client.member else { return };
        let Some(member) = self.members.get_mut(&id).filter(|member| !member.synced) else { return };
        member.synced = true;
        client.generation = self.generation;
        let revoking: Vec<i32> = member.revoking.iter().copied().collect();
        let given = self.owners.iter().filter(|(p, owner)| **owner == id && !client.owned.contains(p));
        let given: Vec<i32> = given.map(|(partition, _)| *partition).collect();
        if !revoking.is_empty() {
            client.callbacks.push_back(Callback::Revoke(revoking));
        }
        client.owned.extend(&given);
        if !given.is_empty() {
            client.callbacks.push_back(Callback::Assign(given));
        }
    }

    fn settle(&mut self) {
        if !self.settling {
            self.settling = true;
            self.members.values_mut().for_each(|member| member.joined = false);
        }
    }

    /// The member has given these partitions up.
    pub fn given_up(&mut self, client: &mut Client, partitions: &[i32]) {
        client.owned.retain(|partition| !partitions.contains(partition));
        client.giving_up = false;
        let Some(id) = client.member else { return };
        self.owners.retain(|partition, owner| *owner != id || !partitions.contains(partition));
        if let Some(member) = self.members.get_mut(&id) {
            member.revoking.retain(|partition| !partitions.contains(partition));
            self.settle();
        }
    }

    /// It left, or was not heard of for too long.
    pub fn remove(&mut self, member: u64) {
        if self.members.remove(&member).is_some() {
            self.owners.retain(|_, owner| *owner != member);
            self.settle();
        }
    }

    /// The next generation, if all have joined it. True: it has begun.
    pub fn complete(&mut self) -> bool {
        if !self.settling || self.members.is_empty() || !self.members.values().all(|member| member.joined) {
            return false;
        }
        self.settling = false;
        self.generation += 1;
        let mut shares: BTreeMap<u64, Vec<i32>> = self.members.keys().map(|id| (*id, Vec::new())).collect();
        for (partition, owner) in &self.owners {
            if !self.members[owner].revoking.contains(partition)
                && let Some(share) = shares.get_mut(owner)
            {
                share.push(*partition);
            }
        }
        let free: Vec<i32> = (0..self.partitions).filter(|p| !self.owners.contains_key(p)).collect();
        for partition in free {
            if let Some((id, share)) = shares.iter_mut().min_by_key(|(_, share)| share.len()) {
                share.push(partition);
                self.owners.insert(partition, *id);
            }
        }
        // Shares differ by one at most, once what is taken away has found its new owner.
        loop {
            let least = shares.values().map(Vec::len).min().unwrap_or(0);
            let Some((id, share)) = shares.iter_mut().max_by_key(|(_, share)| share.len()) else { break };
            if share.len() <= least + 1 {
                break;
            }
            let taken = share.pop();
            let member = self.members.get_mut(id);
            member.into_iter().for_each(|member| member.revoking.extend(taken));
            // It counts for the one who gets it.
            if let Some((_, share)) = shares.iter_mut().min_by_key(|(_, share)| share.len()) {
                share.extend(taken);
            }
        }
        self.members.values_mut().for_each(|member| member.synced = false);
        true
    }
}
