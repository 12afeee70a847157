//! Strand on Kafka: against Tansu, our own broker (tests/broker) and librdkafka's mock cluster.

#[path = "../daemon_harness/mod.rs"]
mod daemon_harness;
#[path = "../drain_streams/mod.rs"]
mod drain_streams;
#[path = "../fault_report/mod.rs"]
mod fault_report;
#[path = "../kafka_harness/mod.rs"]
mod kafka_harness;
#[path = "../kafka_load/mod.rs"]
mod kafka_load;
#[path = "../kafka_scene/mod.rs"]
mod kafka_scene;
#[path = "../proxy/mod.rs"]
mod proxy;
#[path = "../small_disk/mod.rs"]
mod small_disk;
#[path = "../stack_queries/mod.rs"]
mod stack_queries;

mod broker;
mod disk;
mod drain;
mod examples;
mod faults;
mod frozen;
mod kill;
mod members;
mod restore;
mod send;
mod transactions;
mod transport;
