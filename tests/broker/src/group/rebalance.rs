//! How the members of a group come to a new generation: all join again, the protocol is chosen, who is late is left out.

use super::{Group, Join, KeptMember, Member, Phase, refused_sync};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::JoinGroupResponse;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

impl Group {
    /// All must join again.
    pub(super) fn prepare_rebalance(&mut self, now: Instant) {
        if self.phase == Phase::PreparingRebalance {
            return;
        }
        for member in self.members.values_mut() {
            if let Some(reply) = member.syncing.take() {
                let _ = reply.send(refused_sync(ResponseError::RebalanceInProgress));
                member.expires = now + member.kept.session_timeout;
            }
        }
        self.in_initial_delay = self.phase == Phase::Empty && !self.initial_delay.is_zero();
        let patience = if self.in_initial_delay { self.initial_delay } else { self.rebalance_timeout() };
        self.deadline = Some(now + patience);
        self.phase = Phase::PreparingRebalance;
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.kept.rebalance_timeout).max().unwrap_or_default()
    }

    pub(super) fn complete_join_if_all_there(&mut self, now: Instant) {
        let all = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if self.phase == Phase::PreparingRebalance && all && !self.in_initial_delay {
            self.complete_join(now);
        }
    }

    fn complete_join(&mut self, now: Instant) {
        self.in_initial_delay = false;
        // A static member that has not joined stays until its session ends.
        self.members.retain(|_, member| member.joining.is_some() || member.kept.instance.is_some());
        if self.members.is_empty() {
            return self.become_empty();
        }
        let there = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(there) {
            let Some(leader) = self.members.keys().find(|id| there(id)).cloned() else {
                self.deadline = Some(now + self.rebalance_timeout());
                return;
            };
            self.leader = Some(leader);
        }
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.phase = Phase::CompletingRebalance;
        self.deadline = Some(now + self.rebalance_timeout());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id, self.leader.as_ref() == Some(&id));
            let member = self.members.get_mut(&id).expect("a member");
            member.synced = member.joining.is_none();
            if let Some(reply) = member.joining.take() {
                member.expires = now + member.kept.session_timeout;
                let _ = reply.send(answer);
            }
        }
    }

    fn become_empty(&mut self) {
        self.generation += 1;
        (self.phase, self.deadline, self.protocol, self.leader) = (Phase::Empty, None, None, None);
        self.changed = true;
    }

    pub(super) fn joined(&self, id: &str, with_members: bool) -> JoinGroupResponse {
        let protocol = self.protocol.as_deref();
        let of_protocol = |member: &Member| {
            let found = member.kept.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
            found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
        };
        let listed = |member: &Member| {
            JoinGroupResponseMember::default()
                .with_member_id(StrBytes::from_string(member.kept.id.clone()))
                .with_group_instance_id(member.kept.instance.clone().map(StrBytes::from_string))
                .with_metadata(of_protocol(member).into())
        };
        let members = if with_members { self.members.values().map(listed).collect() } else { Vec::new() };
        JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.clone().map(StrBytes::from_string))
            .with_protocol_name(self.protocol.clone().map(StrBytes::from_string))
            .with_leader(StrBytes::from_string(self.leader.clone().unwrap_or_default()))
            .with_member_id(StrBytes::from_string(id.to_string()))
            .with_members(members)
    }

    /// Whether members may come to an agreement with one that wants these protocols.
    pub(super) fn supports(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.member.protocols.is_empty();
        }
        let others = self.members.values().filter(|member| member.kept.id != join.member.id);
        let common = common_protocols(others.map(|member| &member.kept).chain([&join.member]));
        self.protocol_type.as_ref() == Some(&join.protocol_type) && !common.is_empty()
    }

    /// Each member votes for its first protocol among those that all have.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = common_protocols(self.members.values().map(|member| &member.kept));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.kept.protocols.iter().find(|(name, _)| common.contains(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_string())
    }

    /// Removes members whose time is over. When to look again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.pending.retain(|_, until| *until > now);
        // Who waits for an answer is alive.
        let silent = |member: &&Member| member.joining.is_none() && member.syncing.is_none() && member.expires <= now;
        let gone: Vec<String> = self.members.values().filter(silent).map(|member| member.kept.id.clone()).collect();
        for id in gone {
            self.remove(&id, now);
        }
        self.complete_join_if_all_there(now);
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            match self.phase {
                Phase::PreparingRebalance => self.complete_join(now),
                Phase::CompletingRebalance | Phase::Stable => {
                    let idle = |member: &&Member| !member.synced;
                    let late: Vec<String> =
                        self.members.values().filter(idle).map(|member| member.kept.id.clone()).collect();
                    late.iter().for_each(|id| self.remove(id, now));
                }
                Phase::Empty => {}
            }
        }
        let alive = self.members.values().filter(|member| member.joining.is_none() && member.syncing.is_none());
        alive.map(|member| member.expires).chain(self.deadline).chain(self.pending.values().copied()).min()
    }
}

fn common_protocols<'a>(members: impl Iterator<Item = &'a KeptMember>) -> BTreeSet<String> {
    let names = members.map(|m| m.protocols.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>());
    names.reduce(|common, names| &common & &names).unwrap_or_default()
}
