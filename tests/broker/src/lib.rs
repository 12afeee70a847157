//! A small Kafka broker for tests: one node that speaks Kafka's protocol to clients such as librdkafka, keeps everything
//! in a directory, and does wrong what a test asks it to.
//!
//! It does what Kafka does, with Kafka's error codes: topics and their settings, idempotent and transactional producers,
//! long polls, both isolation levels, groups of Kafka's classic protocol with static and cooperative members, offsets in
//! transactions, SASL PLAIN. What was acknowledged outlives a killed process (not a crashed machine: nothing is synced).
//!
//! What Kafka has and this has not: replication, TLS, compaction and retention (records are only deleted by DeleteRecords), quotas,
//! ACL requests, the newer consumer group protocol, fetch sessions, record formats before version 2.

mod admin;
mod batch;
mod faults;
mod group;
mod group_requests;
mod journal;
mod node;
mod offsets;
mod partition;
mod records;
mod requests;
mod server;
mod topics;
mod transaction;

use anyhow::{Context, Result};
pub use faults::{Access, Fault};
pub use kafka_protocol::ResponseError;
pub use kafka_protocol::messages::ApiKey;
use node::Node;
use server::Shared;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept. A broker that is started on a directory goes on where the last one was.
    pub dir: PathBuf,
    /// Address and port for clients; port 0 is a free one.
    pub listen: String,
    /// Address and port of a proxy. It is to hand its clients on to [`Broker::behind_proxy`], where they are told the
    /// proxy's address for the broker's, so that they stay with it.
    pub proxy: Option<SocketAddr>,
    /// Address and port for commands, if there is to be one.
    pub control: Option<String>,
    pub cluster_id: String,
    /// Kafka's auto.create.topics.enable.
    pub auto_create_topics: bool,
    /// Kafka's num.partitions.
    pub default_partitions: i32,
    /// Users and passwords for SASL PLAIN; without any, clients need not say who they are.
    pub users: BTreeMap<String, String>,
    /// Kafka's group.initial.rebalance.delay.ms.
    pub initial_rebalance_delay: Duration,
    /// Kafka's group.min.session.timeout.ms and group.max.session.timeout.ms.
    pub session_timeouts: RangeInclusive<Duration>,
}

impl Options {
    /// Kafka's defaults, but that topics are not created unasked and a new group does not wait for members.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            listen: "127.0.0.1:0".to_string(),
            proxy: None,
            control: None,
            cluster_id: "strand-test-broker".to_string(),
            auto_create_topics: false,
            default_partitions: 1,
            users: BTreeMap::new(),
            initial_rebalance_delay: Duration::ZERO,
            session_timeouts: Duration::from_secs(6)..=Duration::from_secs(1800),
        }
    }
}

/// A running broker. When it is dropped it stops at once, in the middle of whatever it does.
pub struct Broker {
    address: SocketAddr,
    behind_proxy: Option<SocketAddr>,
    control: Option<SocketAddr>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    pub fn start(options: Options) -> Result<Broker> {
        let bind = |address: &str| -> Result<TcpListener> {
            let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        // Read before clients can come.
        std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
        let lock = std::fs::File::create(options.dir.join("lock"))?;
        lock.try_lock().with_context(|| format!("{} is in use by another broker", options.dir.display()))?;
        let listener = bind(&options.listen)?;
        let control_listener = options.control.as_deref().map(bind).transpose()?;
        let proxied = match options.proxy {
            Some(proxy) => Some((proxy, bind("127.0.0.1:0")?)),
            None => None,
        };
        let behind_proxy = proxied.as_ref().map(|(_, listener)| listener.local_addr()).transpose()?;
        let address = listener.local_addr()?;
        let control = control_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let shared = Arc::new(Shared::new(Node::open(options)?));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = {
            let shared = shared.clone();
            async move {
                tokio::spawn(server::keep_time(shared.clone()));
                if let Some(listener) = control_listener {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                    tokio::spawn(server::control(listener, shared.clone()));
                }
                if let Some((proxy, listener)) = proxied {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                    tokio::spawn(server::accept(listener, proxy, shared.clone()));
                }
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    _ = stopped => {}
                    () = shared.ended() => {}
                    () = server::accept(listener, address, shared.clone()) => {}
                }
            }
        };
        let run = move || {
            runtime.block_on(serve);
            // All connections end with their tasks; then another may have the directory.
            drop(runtime);
            drop(lock);
        };
        let thread = std::thread::Builder::new().name("strand-test-broker".to_string()).spawn(run)?;
        Ok(Broker { address, behind_proxy, control, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// As in `bootstrap.servers`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where a proxy hands its clients on to, if `Options::proxy` was given.
    pub fn behind_proxy(&self) -> Option<SocketAddr> {
        self.behind_proxy
    }

    /// Where commands are taken, if `Options::control` was given.
    pub fn control(&self) -> Option<SocketAddr> {
        self.control
    }

    /// Has the next `count` requests of this kind go wrong, after those that do already.
    pub fn fault(&self, api: ApiKey, count: usize, fault: Fault) {
        self.shared.with(|node| node.faults.add(None, api, count, fault));
    }

    /// As [`Broker::fault`], for requests of clients of this name only (librdkafka's `client.id`).
    pub fn fault_of(&self, client_id: &str, api: ApiKey, count: usize, fault: Fault) {
        self.shared.with(|node| node.faults.add(Some(client_id), api, count, fault));
    }

    /// How many faults wait for their request.
    pub fn faults_left(&self) -> usize {
        self.shared.with(|node| node.faults.left())
    }

    /// Producer id and epoch of each transactional id.
    pub fn epochs(&self) -> BTreeMap<String, (i64, i16)> {
        let of = |node: &mut Node| {
            let known = node.transactions.iter();
            known.map(|(id, transaction)| (id.clone(), (transaction.producer_id, transaction.epoch))).collect()
        };
        self.shared.with(of)
    }

    /// A group's state, by Kafka's name of it.
    pub fn state_of(&self, group: &str) -> &'static str {
        self.shared.with(|node| node.groups.get(group).map_or("Dead", |group| group.state()))
    }

    /// Ends the sessions of a group's members of this name, as if they had long been silent.
    pub fn expire_members(&self, group: &str, client_id: &str) {
        self.shared.with(|node| node.expire_members(group, client_id));
        self.shared.new_times();
    }

    /// Nothing goes wrong any more, and what was held is handled.
    pub fn clear_faults(&self) {
        self.shared.with(|node| node.faults.clear());
    }

    /// The same for one kind of request.
    pub fn release(&self, api: ApiKey) {
        self.shared.with(|node| node.faults.release(api));
    }

    pub fn set_topic_access(&self, topic: &str, access: Access, allowed: bool) {
        self.shared.with(|node| node.faults.set_topic(topic, access, allowed));
    }

    pub fn set_group_access(&self, group: &str, allowed: bool) {
        self.shared.with(|node| node.faults.set_group(group, allowed));
    }

    /// Waits until a fault ends the broker.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the broker has not panicked");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// 64 random bits, for names that nothing else has.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
