//! A consumer group: who is in it, and how it agrees on who reads what (Kafka's classic protocol). Time is handed in, so
//! tests need not wait.

mod rebalance;

use crate::offsets::Committed;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::Sender;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

/// What is kept of a member over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptMember {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub host: String,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub protocols: Vec<(String, Vec<u8>)>,
    pub assignment: Vec<u8>,
}

/// What is kept of a group over a restart, beside its offsets: how it was when it was last stable or empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: Vec<KeptMember>,
}

pub struct Member {
    pub kept: KeptMember,
    expires: Instant,
    joining: Option<Sender<JoinGroupResponse>>,
    syncing: Option<Sender<SyncGroupResponse>>,
    synced: bool,
}

pub struct Group {
    pub phase: Phase,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Ids that were given out and have not joined yet, and until when they are waited for.
    pending: BTreeMap<String, Instant>,
    /// When members that have not joined, or not synced, are waited for no longer.
    deadline: Option<Instant>,
    /// All that join an empty group in this time are in its first generation.
    pub initial_delay: Duration,
    in_initial_delay: bool,
    /// Something that is kept over a restart has changed.
    pub changed: bool,
    pub offsets: BTreeMap<(String, i32), Committed>,
}

/// A request to join, as far as it does not depend on the version.
pub struct Join {
    pub member: KeptMember,
    pub protocol_type: String,
    /// The client can be sent away to come back with the id that it is given.
    pub id_required: bool,
    /// The client knows that a leader need not assign again.
    pub can_skip: bool,
}

/// What a request to join comes to.
enum How {
    /// A new member.
    Anew,
    /// A member that is known.
    Again,
    /// A static member that is back, instead of the one with this id.
    InsteadOf(String),
}

impl Group {
    pub fn new(kept: Kept, initial_delay: Duration, now: Instant) -> Group {
        let member = |kept: KeptMember| {
            let expires = now + kept.session_timeout;
            (kept.id.clone(), Member { kept, expires, joining: None, syncing: None, synced: true })
        };
        Group {
            phase: if kept.members.is_empty() { Phase::Empty } else { Phase::Stable },
            generation: kept.generation,
            protocol_type: kept.protocol_type,
            protocol: kept.protocol,
            leader: kept.leader,
            members: kept.members.into_iter().map(member).collect(),
            pending: BTreeMap::new(),
            deadline: None,
            initial_delay,
            in_initial_delay: false,
            changed: false,
            offsets: BTreeMap::new(),
        }
    }

    pub fn kept(&self) -> Kept {
        Kept {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.values().map(|member| member.kept.clone()).collect(),
        }
    }

    /// Kafka's name of the state.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::PreparingRebalance => "PreparingRebalance",
            Phase::CompletingRebalance => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// A member joins, or joins again. The answer is sent when the generation is complete, or at once. Whoever waits for
    /// an answer may be gone; that shows when its session ends.
    pub fn join(&mut self, mut join: Join, reply: Sender<JoinGroupResponse>, now: Instant) {
        match self.how(&mut join, now) {
            Ok(How::Anew) => self.add(join, reply, now),
            Ok(How::Again) => self.join_again(join, reply, now),
            Ok(How::InsteadOf(old)) => self.replace_static(&old, join, reply, now),
            Err(error) => _ = reply.send(refused_join(error, &join.member.id)),
        }
        self.complete_join_if_all_there(now);
    }

    /// What a request to join comes to. A client without an id is given one.
    fn how(&mut self, join: &mut Join, now: Instant) -> Result<How, ResponseError> {
        if !self.supports(join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let member = &mut join.member;
        if member.id.is_empty() {
            let name = member.instance.as_ref().unwrap_or(&member.client_id);
            member.id = format!("{name}-{:016x}{:016x}", crate::random(), crate::random());
            if let Some(old) = member.instance.as_ref().and_then(|instance| self.of_instance(instance)) {
                return Ok(How::InsteadOf(old));
            }
            if member.instance.is_none() && join.id_required {
                self.pending.insert(member.id.clone(), now + member.session_timeout);
                return Err(ResponseError::MemberIdRequired);
            }
            return Ok(How::Anew);
        }
        if member.instance.is_none() && self.pending.remove(&member.id).is_some() {
            return Ok(How::Anew);
        }
        self.check_member(&member.id, member.instance.as_deref())?;
        Ok(How::Again)
    }

    fn add(&mut self, join: Join, reply: Sender<JoinGroupResponse>, now: Instant) {
        let (id, expires) = (join.member.id.clone(), now + join.member.session_timeout);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
            self.leader = Some(id.clone());
        }
        let member = Member { kept: join.member, expires, joining: Some(reply), syncing: None, synced: false };
        self.members.insert(id, member);
        self.prepare_rebalance(now);
    }

    fn join_again(&mut self, join: Join, reply: Sender<JoinGroupResponse>, now: Instant) {
        let leads = self.leader.as_ref() == Some(&join.member.id);
        let member = self.members.get_mut(&join.member.id).expect("a member");
        let same = member.kept.protocols == join.member.protocols;
        member.expires = now + join.member.session_timeout;
        let answer_now = match self.phase {
            Phase::CompletingRebalance => same,
            Phase::Stable => same && !leads,
            Phase::PreparingRebalance | Phase::Empty => false,
        };
        if answer_now {
            let answer = self.joined(&join.member.id, leads);
            // The client may be gone.
            let _ = reply.send(answer);
            return;
        }
        let assignment = std::mem::take(&mut member.kept.assignment);
        member.kept = KeptMember { assignment, ..join.member };
        member.joining = Some(reply);
        self.prepare_rebalance(now);
    }

    /// A static member is back, with a new id: if nothing else is new, it goes on with what it had.
    fn replace_static(&mut self, old: &str, join: Join, reply: Sender<JoinGroupResponse>, now: Instant) {
        let mut member = self.members.remove(old).expect("a member");
        let (id, assignment) = (join.member.id.clone(), std::mem::take(&mut member.kept.assignment));
        if let Some(reply) = member.joining.take() {
            let _ = reply.send(refused_join(ResponseError::FencedInstanceId, old));
        }
        if let Some(reply) = member.syncing.take() {
            let _ = reply.send(refused_sync(ResponseError::FencedInstanceId));
        }
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.clone());
        }
        member.expires = now + join.member.session_timeout;
        member.kept = KeptMember { assignment, ..join.member };
        self.members.insert(id.clone(), member);
        if self.phase == Phase::Stable && self.select_protocol() == self.protocol {
            self.changed = true;
            let mut answer = self.joined(&id, led && join.can_skip);
            answer.skip_assignment = led && join.can_skip;
            if led && !join.can_skip {
                // It must not take itself for the leader, whose assignment nobody would ask for.
                answer.leader = StrBytes::from_string(old.to_string());
            }
            let _ = reply.send(answer);
            return;
        }
        self.members.get_mut(&id).expect("a member").joining = Some(reply);
        self.prepare_rebalance(now);
    }

    /// A member asks for its part; the leader brings all parts.
    pub fn sync(
        &mut self,
        id: &str,
        generation: i32,
        instance: Option<&str>,
        assignments: BTreeMap<String, Vec<u8>>,
        reply: Sender<SyncGroupResponse>,
        now: Instant,
    ) {
        let checked = self.check_member(id, instance).and(match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            _ if generation != self.generation => Err(ResponseError::IllegalGeneration),
            Phase::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => Ok(()),
        });
        if let Err(error) = checked {
            let _ = reply.send(refused_sync(error));
            return;
        }
        let member = self.members.get_mut(id).expect("a member");
        (member.synced, member.expires) = (true, now + member.kept.session_timeout);
        member.syncing = Some(reply);
        if self.phase == Phase::CompletingRebalance && self.leader.as_deref() == Some(id) {
            for (id, member) in &mut self.members {
                member.kept.assignment = assignments.get(id).cloned().unwrap_or_default();
            }
            self.phase = Phase::Stable;
            self.changed = true;
        }
        if self.phase == Phase::Stable {
            self.answer_syncs(now);
        }
    }

    fn answer_syncs(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(reply) = member.syncing.take() {
                let answer = SyncGroupResponse::default()
                    .with_protocol_type(self.protocol_type.clone().map(StrBytes::from_string))
                    .with_protocol_name(self.protocol.clone().map(StrBytes::from_string))
                    .with_assignment(member.kept.assignment.clone().into());
                let _ = reply.send(answer);
                member.expires = now + member.kept.session_timeout;
            }
        }
    }

    pub fn heartbeat(
        &mut self,
        id: &str,
        generation: i32,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.check_member(id, instance)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.refresh(id, now);
        if self.phase == Phase::PreparingRebalance { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    /// A sign of life.
    pub fn refresh(&mut self, id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now + member.kept.session_timeout;
        }
    }

    /// A member leaves. A static one may be named without its id.
    pub fn leave(&mut self, id: &str, instance: Option<&str>, now: Instant) -> Result<String, ResponseError> {
        if self.pending.remove(id).is_some() {
            self.complete_join_if_all_there(now);
            return Ok(id.to_string());
        }
        let id = match instance {
            Some(instance) if id.is_empty() => self.of_instance(instance).ok_or(ResponseError::UnknownMemberId)?,
            _ => id.to_string(),
        };
        self.check_member(&id, instance)?;
        self.remove(&id, now);
        Ok(id)
    }

    /// Removes members of this name, as if they had been silent for too long.
    pub fn expire(&mut self, client_id: &str, now: Instant) {
        let named = self.members.values().filter(|member| member.kept.client_id == client_id);
        let gone: Vec<String> = named.map(|member| member.kept.id.clone()).collect();
        gone.iter().for_each(|id| self.remove(id, now));
    }

    fn remove(&mut self, id: &str, now: Instant) {
        let Some(mut member) = self.members.remove(id) else { return };
        if let Some(reply) = member.joining.take() {
            let _ = reply.send(refused_join(ResponseError::UnknownMemberId, id));
        }
        if let Some(reply) = member.syncing.take() {
            let _ = reply.send(refused_sync(ResponseError::UnknownMemberId));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.prepare_rebalance(now);
        self.complete_join_if_all_there(now);
    }

    /// Whether this is a member; whether a static one has been replaced.
    pub fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance {
            match self.of_instance(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    /// The current member id of a static member.
    fn of_instance(&self, instance: &str) -> Option<String> {
        let mut members = self.members.values();
        members.find(|member| member.kept.instance.as_deref() == Some(instance)).map(|member| member.kept.id.clone())
    }

    /// Whether a commit with this identity is allowed.
    pub fn check_commit(
        &self,
        id: &str,
        generation: i32,
        instance: Option<&str>,
        transactional: bool,
    ) -> Result<(), ResponseError> {
        let empty = self.phase == Phase::Empty;
        if generation < 0 && empty {
            return Ok(());
        }
        if generation < 0 && id.is_empty() && instance.is_none() {
            // Older transactional producers do not tell who they are.
            return if transactional { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        self.check_member(id, instance)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let completing = self.phase == Phase::CompletingRebalance && !transactional;
        if completing { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }
}

pub fn refused_join(error: ResponseError, id: &str) -> JoinGroupResponse {
    JoinGroupResponse::default().with_error_code(error.code()).with_member_id(StrBytes::from_string(id.to_string()))
}

pub fn refused_sync(error: ResponseError) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error.code())
}

#[cfg(test)]
mod tests;
