//! Requests about topics: which there are, and how they are made, changed and deleted.

use crate::Access;
use crate::journal::Entry;
use crate::node::{NODE_ID, Node};
use crate::offsets::code;
use crate::requests::Context;
use crate::topics::{self, DEFAULTS, Topic, check_name, check_setting};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use uuid::Uuid;

/// An error and what it says beside its code.
type Refusal = (ResponseError, String);

/// Of configuration resources.
const TOPIC: i8 = 2;
/// Sources of a setting: given for this topic; Kafka's default.
const GIVEN: i8 = 1;
const DEFAULT: i8 = 5;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn refuse<T>(error: ResponseError, why: impl Into<String>) -> Result<T, Refusal> {
    Err((error, why.into()))
}

fn plain(error: ResponseError) -> Refusal {
    (error, error.to_string())
}

/// Code and words of an outcome.
fn told(result: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    result.err().map_or((0, None), |(error, why)| (error.code(), Some(StrBytes::from_string(why))))
}

impl Node {
    pub fn metadata(&mut self, context: &Context, request: &MetadataRequest) -> MetadataResponse {
        let mut response = MetadataResponse::default();
        let broker = MetadataResponseBroker::default().with_node_id(NODE_ID.into());
        let (host, port) = (context.told.ip().to_string(), i32::from(context.told.port()));
        response.brokers = vec![broker.with_host(text(&host)).with_port(port)];
        response.controller_id = NODE_ID.into();
        response.cluster_id = Some(text(&self.options.cluster_id));
        let all = |node: &Node| {
            let visible = |name: &&String| node.faults.check_topic(name, Access::Describe).is_ok();
            node.topics.keys().filter(visible).cloned().collect::<Vec<_>>()
        };
        match &request.topics {
            Some(topics) if context.version > 0 || !topics.is_empty() => {
                for topic in topics {
                    let by_id = || {
                        let found = self.topics.iter().find(|(_, known)| known.id == topic.topic_id.as_u128());
                        found.map(|(name, _)| name.clone())
                    };
                    let Some(name) = topic.name.as_ref().map(|name| name.to_string()).or_else(by_id) else {
                        let answer = MetadataResponseTopic::default().with_topic_id(topic.topic_id);
                        let answer = answer.with_name(None);
                        response.topics.push(answer.with_error_code(ResponseError::UnknownTopicId.code()));
                        continue;
                    };
                    let create = context.version < 4 || request.allow_auto_topic_creation;
                    let result = context.forced().and_then(|()| self.find_or_create(&name, create));
                    response.topics.push(self.described(context, &name, result));
                }
            }
            _ => response.topics = all(self).iter().map(|name| self.described(context, name, Ok(()))).collect(),
        }
        response
    }

    fn find_or_create(&mut self, name: &str, create: bool) -> Result<(), ResponseError> {
        check_name(name)?;
        self.faults.check_topic(name, Access::Describe)?;
        if self.topics.contains_key(name) {
            return Ok(());
        }
        if !create || !self.options.auto_create_topics {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        self.create(name, self.options.default_partitions, BTreeMap::new());
        Ok(())
    }

    fn create(&mut self, name: &str, partitions: i32, settings: BTreeMap<String, String>) {
        let id = u128::from(crate::random()) << 64 | u128::from(crate::random());
        let dir = topics::dir(&self.options.dir, id);
        let topic = Topic::open(dir, id, partitions, settings).expect("a topic's files can be made");
        self.topics.insert(name.to_string(), topic);
        self.keep_topic(name);
    }

    fn described(&self, context: &Context, name: &str, result: Result<(), ResponseError>) -> MetadataResponseTopic {
        let answer = MetadataResponseTopic::default().with_name(Some(text(name).into()));
        let answer = answer.with_error_code(code(result));
        let Some(topic) = self.topics.get(name).filter(|_| result.is_ok()) else { return answer };
        let partition = |partition: i32| {
            let answer = MetadataResponsePartition::default()
                .with_partition_index(partition)
                .with_leader_id(NODE_ID.into())
                .with_replica_nodes(vec![NODE_ID.into()])
                .with_isr_nodes(vec![NODE_ID.into()]);
            if context.version >= 7 { answer.with_leader_epoch(0) } else { answer }
        };
        let answer = answer.with_partitions((0..topic.partitions.len() as i32).map(partition).collect());
        if context.version >= 10 { answer.with_topic_id(Uuid::from_u128(topic.id)) } else { answer }
    }

    pub fn create_topics(&mut self, context: &Context, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut response = CreateTopicsResponse::default();
        for topic in &request.topics {
            let twice = request.topics.iter().filter(|other| other.name == topic.name).count() > 1;
            let result = match context.forced() {
                Err(error) => Err(plain(error)),
                Ok(()) if twice => refuse(ResponseError::InvalidRequest, "Duplicate topic name."),
                Ok(()) => self.create_topic(topic, request.validate_only),
            };
            let answer = CreatableTopicResult::default().with_name(topic.name.clone());
            response.topics.push(match result {
                Err((error, why)) => answer.with_error_code(error.code()).with_error_message(Some(why.into())),
                Ok(partitions) if context.version >= 5 => {
                    let configs = topic.configs.iter().map(|config| {
                        let answer = CreatableTopicConfigs::default().with_name(config.name.clone());
                        answer.with_value(config.value.clone()).with_config_source(GIVEN)
                    });
                    let answer = answer.with_num_partitions(partitions).with_replication_factor(1);
                    let answer = answer.with_configs(Some(configs.collect()));
                    let id = self.topics.get(topic.name.as_str()).map(|topic| Uuid::from_u128(topic.id));
                    if context.version >= 7 { answer.with_topic_id(id.unwrap_or_default()) } else { answer }
                }
                Ok(_) => answer,
            });
        }
        response
    }

    fn create_topic(&mut self, topic: &CreatableTopic, validate_only: bool) -> Result<i32, Refusal> {
        let name = topic.name.as_str();
        check_name(name).map_err(|error| (error, format!("Topic name is invalid: '{name}'")))?;
        self.faults.check_topic(name, Access::Describe).map_err(plain)?;
        if self.topics.contains_key(name) {
            return refuse(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists."));
        }
        let partitions = match topic.num_partitions {
            _ if !topic.assignments.is_empty() => topic.assignments.len() as i32,
            -1 => self.options.default_partitions,
            1.. => topic.num_partitions,
            _ => return refuse(ResponseError::InvalidPartitions, "Number of partitions must be larger than 0."),
        };
        if topic.assignments.is_empty() && ![-1, 1].contains(&topic.replication_factor) {
            let why = format!("Replication factor: {} with 1 broker.", topic.replication_factor);
            return refuse(ResponseError::InvalidReplicationFactor, why);
        }
        let mut settings = BTreeMap::new();
        for config in &topic.configs {
            let value = config.value.as_deref().unwrap_or_default();
            check_setting(&config.name, value).map_err(|why| (ResponseError::InvalidConfig, why))?;
            settings.insert(config.name.to_string(), value.to_string());
        }
        if !validate_only {
            self.create(name, partitions, settings);
        }
        Ok(partitions)
    }

    pub fn delete_topics(&mut self, context: &Context, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut response = DeleteTopicsResponse::default();
        let by_id = |id: Uuid| self.topics.iter().find(|(_, topic)| topic.id == id.as_u128()).map(|(name, _)| name);
        let named = |topic: &delete_topics_request::DeleteTopicState| {
            let name = topic.name.as_ref().map(|name| name.to_string());
            name.or_else(|| by_id(topic.topic_id).cloned()).ok_or(topic.topic_id)
        };
        let of_old_versions = request.topic_names.iter().map(|name| Ok(name.to_string()));
        let topics: Vec<Result<String, Uuid>> = request.topics.iter().map(named).chain(of_old_versions).collect();
        for topic in topics {
            let answer = DeletableTopicResult::default();
            response.responses.push(match topic {
                Err(id) => {
                    let code = ResponseError::UnknownTopicId.code();
                    answer.with_name(None).with_topic_id(id).with_error_code(code)
                }
                Ok(name) => {
                    let result = context.forced().and_then(|()| self.delete_topic(&name));
                    answer.with_name(Some(StrBytes::from_string(name).into())).with_error_code(code(result))
                }
            });
        }
        response
    }

    fn delete_topic(&mut self, name: &str) -> Result<(), ResponseError> {
        self.check_partition(name, 0)?;
        let topic = self.topics.remove(name).expect("a checked topic");
        self.keep(&Entry::TopicDeleted { name: name.to_string() });
        self.forget_topic(name);
        // What cannot be removed now is removed at the next start.
        let _ = std::fs::remove_dir_all(topics::dir(&self.options.dir, topic.id));
        Ok(())
    }

    pub fn delete_records(&mut self, context: &Context, request: &DeleteRecordsRequest) -> DeleteRecordsResponse {
        let mut response = DeleteRecordsResponse::default();
        for topic in &request.topics {
            let mut answers = Vec::new();
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let result = context.forced().and_then(|()| self.delete_before(&topic.name, index, partition.offset));
                let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
                let answer = answer.with_low_watermark(result.unwrap_or(-1));
                answers.push(answer.with_error_code(code(result)));
            }
            let answer = DeleteRecordsTopicResult::default().with_name(topic.name.clone());
            response.topics.push(answer.with_partitions(answers));
        }
        response
    }

    /// The first offset that is left. -1 stands for the end.
    fn delete_before(&mut self, name: &str, partition: i32, offset: i64) -> Result<i64, ResponseError> {
        self.check_partition(name, partition)?;
        let log = self.topics.get_mut(name).and_then(|topic| topic.partition(partition)).expect("a checked partition");
        let offset = if offset == -1 { log.end } else { offset };
        if !(0..=log.end).contains(&offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let offset = offset.max(log.start);
        log.start = offset;
        self.keep(&Entry::Start { topic: name.to_string(), partition, offset });
        Ok(offset)
    }

    pub fn create_partitions(
        &mut self,
        context: &Context,
        request: &CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        let mut response = CreatePartitionsResponse::default();
        for topic in &request.topics {
            let allowed = context.forced().and_then(|()| self.check_partition(&topic.name, 0)).map_err(plain);
            let result = allowed.and_then(|()| {
                let known = self.topics.get_mut(topic.name.as_str()).expect("a checked topic");
                if topic.count <= known.partitions.len() as i32 {
                    let why = format!("Topic currently has {} partitions, not fewer.", known.partitions.len());
                    return refuse(ResponseError::InvalidPartitions, why);
                }
                if !request.validate_only {
                    known.grow(topic.count).expect("a topic's files can be made");
                    self.keep_topic(&topic.name);
                }
                Ok(())
            });
            let (code, why) = told(result);
            let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            response.results.push(answer.with_error_code(code).with_error_message(why));
        }
        response
    }

    /// Settings of topics, those that were given and Kafka's defaults; of nothing else.
    pub fn describe_configs(&mut self, context: &Context, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
        let mut response = DescribeConfigsResponse::default();
        for resource in &request.resources {
            let answer = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            let allowed = context
                .forced()
                .map_err(plain)
                .and_then(|()| self.check_resource(resource.resource_type, &resource.resource_name));
            let (code, why) = told(allowed);
            if code != 0 {
                response.results.push(answer.with_error_code(code).with_error_message(why));
                continue;
            }
            let topic = &self.topics[resource.resource_name.as_str()];
            let wanted = |name: &str| {
                let keys = resource.configuration_keys.as_ref();
                keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
            };
            let setting = |(name, default): &(&str, &str)| {
                let given = topic.settings.get(*name);
                DescribeConfigsResourceResult::default()
                    .with_name(text(name))
                    .with_value(Some(text(given.map_or(*default, String::as_str))))
                    .with_config_source(if given.is_some() { GIVEN } else { DEFAULT })
            };
            let configs = DEFAULTS.iter().filter(|(name, _)| wanted(name)).map(setting).collect();
            response.results.push(answer.with_configs(configs));
        }
        response
    }

    fn check_resource(&self, kind: i8, name: &str) -> Result<(), Refusal> {
        if kind != TOPIC {
            return refuse(ResponseError::InvalidRequest, "This broker has settings of topics only.");
        }
        self.check_partition(name, 0).map_err(plain)
    }

    pub fn alter_configs(
        &mut self,
        context: &Context,
        request: &IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let mut response = IncrementalAlterConfigsResponse::default();
        for resource in &request.resources {
            let allowed = context.forced().map_err(plain);
            let (code, why) = told(allowed.and_then(|()| self.alter(resource, request.validate_only)));
            let answer = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            response.responses.push(answer.with_error_code(code).with_error_message(why));
        }
        response
    }

    /// The older request: what it does not name goes back to Kafka's default.
    pub fn replace_configs(&mut self, context: &Context, request: &AlterConfigsRequest) -> AlterConfigsResponse {
        let mut response = AlterConfigsResponse::default();
        for resource in &request.resources {
            let allowed = context.forced().map_err(plain);
            let (code, why) = told(allowed.and_then(|()| {
                let name = resource.resource_name.as_str();
                self.check_resource(resource.resource_type, name)?;
                let mut settings = BTreeMap::new();
                for config in &resource.configs {
                    let value = config.value.as_deref().unwrap_or_default();
                    check_setting(&config.name, value).map_err(|why| (ResponseError::InvalidConfig, why))?;
                    settings.insert(config.name.to_string(), value.to_string());
                }
                self.set_settings(name, settings, request.validate_only);
                Ok(())
            }));
            let answer = alter_configs_response::AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            response.responses.push(answer.with_error_code(code).with_error_message(why));
        }
        response
    }

    fn set_settings(&mut self, topic: &str, settings: BTreeMap<String, String>, validate_only: bool) {
        if !validate_only {
            self.topics.get_mut(topic).expect("a checked topic").settings = settings;
            self.keep_topic(topic);
        }
    }

    fn alter(&mut self, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), Refusal> {
        let name = resource.resource_name.as_str();
        self.check_resource(resource.resource_type, name)?;
        let mut settings = self.topics[name].settings.clone();
        for config in &resource.configs {
            let value = config.value.as_deref().unwrap_or_default();
            match config.config_operation {
                0 => {
                    check_setting(&config.name, value).map_err(|why| (ResponseError::InvalidConfig, why))?;
                    settings.insert(config.name.to_string(), value.to_string());
                }
                1 => _ = settings.remove(config.name.as_str()),
                _ => return refuse(ResponseError::InvalidRequest, "This broker sets and deletes settings only."),
            }
        }
        self.set_settings(name, settings, validate_only);
        Ok(())
    }
}
