//! The daemon on its embedded queue: clients, kills, and what may go wrong around it.

#[path = "../daemon_harness/mod.rs"]
mod daemon_harness;
#[path = "../drain_streams/mod.rs"]
mod drain_streams;
#[path = "../fault_report/mod.rs"]
mod fault_report;
#[path = "../faults/mod.rs"]
mod faults;
#[path = "../small_disk/mod.rs"]
mod small_disk;

mod damaged_state;
mod drain;
mod faults_clock;
mod faults_disk;
mod faults_load;
mod faults_model;
mod faults_store;
mod http;
mod kill;
mod life;
mod streams;
