//! From the bytes of a request to those of its answer.

use crate::faults::Fault;
use crate::node::{NODE_ID, Node};
use crate::server::Shared;
use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::sync::oneshot;

/// The requests that are understood, with their first and last version.
pub const SUPPORTED: [(ApiKey, i16, i16); 30] = [
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 8),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::SaslHandshake, 1, 1),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::SaslAuthenticate, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
];

/// What is known of a request beside its body.
pub struct Context {
    pub version: i16,
    pub client_id: String,
    pub host: String,
    /// What the client is told to be the broker's address.
    pub told: SocketAddr,
    pub fault: Option<Fault>,
}

impl Context {
    /// The error that a test wants for this request.
    pub fn forced(&self) -> Result<(), ResponseError> {
        match self.fault {
            Some(Fault::Error(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// How a request is answered.
pub enum Reply {
    Body(BytesMut),
    /// Not at all; the connection stays.
    Nothing,
    Close,
}

/// What is known of a client beside its requests.
#[derive(Default)]
pub struct Session {
    pub user: Option<String>,
}

pub fn is_supported(api: ApiKey, version: i16) -> bool {
    SUPPORTED.iter().any(|&(known, min, max)| known == api && (min..=max).contains(&version))
}

/// Handles a request that is supported.
pub async fn handle(
    shared: &Shared,
    session: &mut Session,
    api: ApiKey,
    context: &Context,
    body: Bytes,
) -> Result<Reply> {
    let version = context.version;
    if session.user.is_none() && shared.with(|node| !node.options.users.is_empty()) {
        match api {
            ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => {}
            _ => return Ok(Reply::Close),
        }
    }
    macro_rules! with_node {
        ($handler:ident) => {{
            let request = decode(body, version)?;
            encode(&shared.with(|node| node.$handler(context, &request)), version)
        }};
    }
    match api {
        ApiKey::ApiVersions => encode(&api_versions(context.forced()), version),
        ApiKey::SaslHandshake => {
            let request: SaslHandshakeRequest = decode(body, version)?;
            encode(&shared.with(|node| node.sasl_handshake(&request)), version)
        }
        ApiKey::SaslAuthenticate => {
            let request: SaslAuthenticateRequest = decode(body, version)?;
            encode(&shared.with(|node| node.sasl_authenticate(session, &request)), version)
        }
        ApiKey::Metadata => with_node!(metadata),
        ApiKey::FindCoordinator => with_node!(find_coordinator),
        ApiKey::CreateTopics => with_node!(create_topics),
        ApiKey::DeleteTopics => with_node!(delete_topics),
        ApiKey::DeleteRecords => with_node!(delete_records),
        ApiKey::CreatePartitions => with_node!(create_partitions),
        ApiKey::DescribeConfigs => with_node!(describe_configs),
        ApiKey::AlterConfigs => with_node!(replace_configs),
        ApiKey::IncrementalAlterConfigs => with_node!(alter_configs),
        ApiKey::ListOffsets => with_node!(list_offsets),
        ApiKey::OffsetForLeaderEpoch => with_node!(offset_for_leader_epoch),
        ApiKey::Produce => {
            let request: ProduceRequest = decode(body, version)?;
            let response = shared.with(|node| node.produce(context, &request));
            shared.new_records();
            if request.acks == 0 { Ok(Reply::Nothing) } else { encode(&response, version) }
        }
        ApiKey::Fetch => {
            let request: FetchRequest = decode(body, version)?;
            encode(&fetch(shared, context, &request).await, version)
        }
        ApiKey::OffsetCommit => with_node!(offset_commit),
        ApiKey::OffsetFetch => with_node!(offset_fetch),
        ApiKey::JoinGroup => {
            let request: JoinGroupRequest = decode(body, version)?;
            let (reply, answer) = oneshot::channel();
            shared.with(|node| node.join_group(context, request, reply));
            shared.new_times();
            when_there(answer, version).await
        }
        ApiKey::SyncGroup => {
            let request: SyncGroupRequest = decode(body, version)?;
            let (reply, answer) = oneshot::channel();
            shared.with(|node| node.sync_group(context, &request, reply));
            shared.new_times();
            when_there(answer, version).await
        }
        ApiKey::Heartbeat => with_node!(heartbeat),
        ApiKey::LeaveGroup => {
            let reply = with_node!(leave_group);
            shared.new_times();
            reply
        }
        ApiKey::DescribeGroups => with_node!(describe_groups),
        ApiKey::ListGroups => with_node!(list_groups),
        ApiKey::DeleteGroups => with_node!(delete_groups),
        ApiKey::InitProducerId => {
            let reply = with_node!(init_producer_id);
            shared.new_records();
            reply
        }
        ApiKey::AddPartitionsToTxn => {
            let reply = with_node!(add_partitions);
            shared.new_times();
            reply
        }
        ApiKey::AddOffsetsToTxn => {
            let reply = with_node!(add_offsets);
            shared.new_times();
            reply
        }
        ApiKey::TxnOffsetCommit => with_node!(txn_offset_commit),
        ApiKey::EndTxn => {
            let request: EndTxnRequest = decode(body, version)?;
            let response = shared.with(|node| node.end_txn(context, &request));
            shared.new_records();
            response.map_or(Ok(Reply::Close), |response| encode(&response, version))
        }
        _ => bail!("{api:?} is not supported"),
    }
}

fn decode<Q: Decodable>(mut body: Bytes, version: i16) -> Result<Q> {
    Q::decode(&mut body, version)
}

fn encode<A: Encodable>(response: &A, version: i16) -> Result<Reply> {
    let mut body = BytesMut::new();
    response.encode(&mut body, version)?;
    Ok(Reply::Body(body))
}

/// Waits for an answer that a group gives later. There is none if the member has asked again meanwhile.
async fn when_there<A: Encodable>(answer: oneshot::Receiver<A>, version: i16) -> Result<Reply> {
    answer.await.map_or(Ok(Reply::Close), |response| encode(&response, version))
}

/// Waits until there is enough to read, or for as long as the client wants.
async fn fetch(shared: &Shared, context: &Context, request: &FetchRequest) -> FetchResponse {
    let wait = std::time::Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let until = Instant::now() + wait;
    let mut news = shared.news();
    loop {
        let ready = shared.with(|node| node.is_enough(context, request));
        let in_time = tokio::time::timeout_at(until.into(), news.changed());
        if ready || in_time.await.is_err() {
            return shared.with(|node| node.fetch(context, request));
        }
    }
}

pub fn api_versions(result: Result<(), ResponseError>) -> ApiVersionsResponse {
    let version = |&(api, min, max): &(ApiKey, i16, i16)| {
        // Some clients take a broker without the first version of Produce for one that knows no compression; Kafka
        // itself names it for them.
        let min = if api == ApiKey::Produce { 0 } else { min };
        ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max)
    };
    ApiVersionsResponse::default()
        .with_error_code(crate::offsets::code(result))
        .with_api_keys(SUPPORTED.iter().map(version).collect())
}

impl Node {
    fn find_coordinator(&mut self, context: &Context, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        let host = StrBytes::from_string(context.told.ip().to_string());
        let check = |key: &str| {
            context.forced()?;
            if request.key_type == 0 { self.faults.check_group(key) } else { Ok(()) }
        };
        if context.version >= 4 {
            let coordinator = |key: &StrBytes| {
                Coordinator::default()
                    .with_key(key.clone())
                    .with_node_id(NODE_ID.into())
                    .with_host(host.clone())
                    .with_port(i32::from(context.told.port()))
                    .with_error_code(crate::offsets::code(check(key)))
            };
            let coordinators = request.coordinator_keys.iter().map(coordinator).collect();
            return FindCoordinatorResponse::default().with_coordinators(coordinators);
        }
        FindCoordinatorResponse::default()
            .with_node_id(NODE_ID.into())
            .with_host(host.clone())
            .with_port(i32::from(context.told.port()))
            .with_error_code(crate::offsets::code(check(&request.key)))
    }

    fn sasl_handshake(&mut self, request: &SaslHandshakeRequest) -> SaslHandshakeResponse {
        let response = SaslHandshakeResponse::default();
        if self.options.users.is_empty() {
            return response.with_error_code(ResponseError::IllegalSaslState.code());
        }
        let response = response.with_mechanisms(vec![StrBytes::from_static_str("PLAIN")]);
        let known = request.mechanism.as_str() == "PLAIN";
        if known { response } else { response.with_error_code(ResponseError::UnsupportedSaslMechanism.code()) }
    }

    fn sasl_authenticate(
        &mut self,
        session: &mut Session,
        request: &SaslAuthenticateRequest,
    ) -> SaslAuthenticateResponse {
        // An identity to act for, the user and the password, with a zero byte between them.
        let parts: Vec<&[u8]> = request.auth_bytes.split(|&byte| byte == 0).collect();
        let response = SaslAuthenticateResponse::default();
        if let [_, user, password] = parts[..]
            && let (Ok(user), Ok(password)) = (std::str::from_utf8(user), std::str::from_utf8(password))
            && self.options.users.get(user).is_some_and(|expected| expected == password)
        {
            session.user = Some(user.to_string());
            return response;
        }
        response
            .with_error_code(ResponseError::SaslAuthenticationFailed.code())
            .with_error_message(Some(StrBytes::from_static_str("Authentication failed: Invalid username or password")))
    }
}
