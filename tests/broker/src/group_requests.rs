//! Requests of groups' members, and of those who look at groups.

use crate::group::{Group, Join, KeptMember, refused_join, refused_sync};
use crate::journal::Entry;
use crate::node::Node;
use crate::offsets::code;
use crate::requests::Context;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::Sender;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0) as u64)
}

impl Node {
    pub fn join_group(&mut self, context: &Context, request: JoinGroupRequest, reply: Sender<JoinGroupResponse>) {
        let name = request.group_id.to_string();
        let id = request.member_id.to_string();
        if let Err(error) = self.check_join(context, &request) {
            // The client may be gone.
            let _ = reply.send(refused_join(error, &id));
            return;
        }
        // The first version has one time for both.
        let rebalance = if context.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
        let join = Join {
            member: KeptMember {
                id,
                instance: request.group_instance_id.map(|instance| instance.to_string()),
                client_id: context.client_id.clone(),
                host: context.host.clone(),
                session_timeout: millis(request.session_timeout_ms),
                rebalance_timeout: millis(rebalance),
                protocols: request.protocols.iter().map(|p| (p.name.to_string(), p.metadata.to_vec())).collect(),
                assignment: Vec::new(),
            },
            protocol_type: request.protocol_type.to_string(),
            id_required: context.version >= 4,
            can_skip: context.version >= 9,
        };
        self.group(&name, Default::default()).join(join, reply, Instant::now());
        self.keep_group(&name);
    }

    fn check_join(&self, context: &Context, request: &JoinGroupRequest) -> Result<(), ResponseError> {
        context.forced()?;
        self.faults.check_group(&request.group_id)?;
        if request.group_id.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        if !self.options.session_timeouts.contains(&millis(request.session_timeout_ms)) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let unknown = !request.member_id.is_empty() && !self.groups.contains_key(request.group_id.as_str());
        if unknown { Err(ResponseError::UnknownMemberId) } else { Ok(()) }
    }

    /// The group of a request that only makes sense if there is one.
    fn known_group(&mut self, context: &Context, name: &str) -> Result<&mut Group, ResponseError> {
        context.forced()?;
        self.faults.check_group(name)?;
        self.groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)
    }

    pub fn sync_group(&mut self, context: &Context, request: &SyncGroupRequest, reply: Sender<SyncGroupResponse>) {
        let group = match self.known_group(context, &request.group_id) {
            Ok(group) => group,
            Err(error) => {
                let _ = reply.send(refused_sync(error));
                return;
            }
        };
        let differs = |said: &Option<StrBytes>, is: &Option<String>| {
            said.as_ref().is_some_and(|s| Some(s.as_str()) != is.as_deref())
        };
        if differs(&request.protocol_type, &group.protocol_type) || differs(&request.protocol_name, &group.protocol) {
            let _ = reply.send(refused_sync(ResponseError::InconsistentGroupProtocol));
            return;
        }
        let assignments =
            request.assignments.iter().map(|a| (a.member_id.to_string(), a.assignment.to_vec())).collect();
        let (generation, instance) = (request.generation_id, request.group_instance_id.as_deref());
        group.sync(&request.member_id, generation, instance, assignments, reply, Instant::now());
        self.keep_group(&request.group_id);
    }

    pub fn heartbeat(&mut self, context: &Context, request: &HeartbeatRequest) -> HeartbeatResponse {
        let instance = request.group_instance_id.as_deref();
        let result = self
            .known_group(context, &request.group_id)
            .and_then(|group| group.heartbeat(&request.member_id, request.generation_id, instance, Instant::now()));
        HeartbeatResponse::default().with_error_code(code(result))
    }

    pub fn leave_group(&mut self, context: &Context, request: &LeaveGroupRequest) -> LeaveGroupResponse {
        let response = LeaveGroupResponse::default();
        let now = Instant::now();
        let group = match self.known_group(context, &request.group_id) {
            Ok(group) => group,
            Err(error) => return response.with_error_code(error.code()),
        };
        let response = if context.version < 3 {
            response.with_error_code(code(group.leave(&request.member_id, None, now)))
        } else {
            let mut answers = Vec::new();
            for member in &request.members {
                let result = group.leave(&member.member_id, member.group_instance_id.as_deref(), now);
                let answer = MemberResponse::default()
                    .with_member_id(member.member_id.clone())
                    .with_group_instance_id(member.group_instance_id.clone());
                answers.push(answer.with_error_code(code(result)));
            }
            response.with_members(answers)
        };
        self.keep_group(&request.group_id);
        response
    }

    pub fn describe_groups(&mut self, context: &Context, request: &DescribeGroupsRequest) -> DescribeGroupsResponse {
        let mut response = DescribeGroupsResponse::default();
        for name in &request.groups {
            let answer = DescribedGroup::default().with_group_id(name.clone());
            let allowed = context.forced().and_then(|()| self.faults.check_group(name));
            response.groups.push(match (allowed, self.groups.get(name.as_str())) {
                (Err(error), _) => answer.with_error_code(error.code()),
                (Ok(()), None) => answer.with_group_state(text("Dead")),
                (Ok(()), Some(group)) => describe(answer, group, context),
            });
        }
        response
    }

    pub fn list_groups(&mut self, context: &Context, request: &ListGroupsRequest) -> ListGroupsResponse {
        let filter = &request.states_filter;
        let wanted = |group: &Group| filter.is_empty() || filter.iter().any(|state| state.as_str() == group.state());
        let listed = |(name, group): (&String, &Group)| {
            let listed = ListedGroup::default()
                .with_group_id(text(name).into())
                .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()));
            if context.version >= 4 { listed.with_group_state(text(group.state())) } else { listed }
        };
        let groups = self.groups.iter().filter(|(_, group)| wanted(group)).map(listed).collect();
        ListGroupsResponse::default().with_error_code(code(context.forced())).with_groups(groups)
    }

    pub fn delete_groups(&mut self, context: &Context, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut response = DeleteGroupsResponse::default();
        for name in &request.groups_names {
            let allowed = context.forced().and_then(|()| self.faults.check_group(name));
            let result = allowed.and_then(|()| match self.groups.get(name.as_str()) {
                None => Err(ResponseError::GroupIdNotFound),
                Some(group) if !group.members.is_empty() => Err(ResponseError::NonEmptyGroup),
                Some(_) => {
                    self.groups.remove(name.as_str());
                    self.keep(&Entry::GroupDeleted { group: name.to_string() });
                    Ok(())
                }
            });
            let answer = DeletableGroupResult::default().with_group_id(name.clone());
            response.results.push(answer.with_error_code(code(result)));
        }
        response
    }
}

fn describe(answer: DescribedGroup, group: &Group, context: &Context) -> DescribedGroup {
    let protocol = group.protocol.as_deref().unwrap_or_default();
    let member = |member: &crate::group::Member| {
        let member = &member.kept;
        let metadata = member.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.clone());
        let answer = DescribedGroupMember::default()
            .with_member_id(text(&member.id))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&format!("/{}", member.host)))
            .with_member_metadata(metadata.unwrap_or_default().into())
            .with_member_assignment(member.assignment.clone().into());
        let instance = member.instance.as_deref().filter(|_| context.version >= 4);
        answer.with_group_instance_id(instance.map(text))
    };
    answer
        .with_group_state(text(group.state()))
        .with_protocol_type(text(group.protocol_type.as_deref().unwrap_or_default()))
        .with_protocol_data(text(protocol))
        .with_members(group.members.values().map(member).collect())
}
