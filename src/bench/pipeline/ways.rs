//! The ways in and out of the daemon, as clients have them: HTTP, standard input and output, Kafka.

use super::program::Program;
use super::{BenchError, Records, failed};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Records of one request over HTTP.
const AT_ONCE: usize = 5000;

/// Hands records to the daemon, or to the broker.
pub trait Feed: Send {
    /// Returns once they were handed over.
    ///
    /// # Errors
    /// If they are not taken.
    fn send(&mut self, records: &Records, range: Range<usize>) -> Result<(), BenchError>;

    /// Waits until all that was handed over has arrived.
    ///
    /// # Errors
    /// If it has not after a minute.
    fn flush(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

/// Calls `line` with each output record that becomes visible, until that returns false.
pub type Watch = Box<dyn FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> Result<(), BenchError> + Send>;

fn line(records: &Records, n: usize, out: &mut String) {
    // Nothing in it needs an escape.
    let _ = writeln!(out, r#"{{"stream":"{}","text":"{}"}}"#, records.key(n), records.value(n));
}

/// `POST /v1/records`, one connection.
pub struct Http(BufReader<TcpStream>);

impl Http {
    pub fn connect(program: &Program) -> Result<Http, BenchError> {
        let stream = TcpStream::connect(program.address()).map_err(|e| failed("connecting to strand run", &e))?;
        stream.set_nodelay(true).map_err(|e| failed("connecting to strand run", &e))?;
        Ok(Http(BufReader::new(stream)))
    }

    fn post(&mut self, body: &str) -> std::io::Result<String> {
        let request = format!(
            "POST /v1/records HTTP/1.1\r\nHost: strand\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(request.as_bytes())?;
        let (mut status, mut length) = (String::new(), 0);
        self.0.read_line(&mut status)?;
        loop {
            let mut header = String::new();
            self.0.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        self.0.read_exact(&mut vec![0; length])?;
        Ok(status)
    }
}

impl Feed for Http {
    fn send(&mut self, records: &Records, range: Range<usize>) -> Result<(), BenchError> {
        for from in range.clone().step_by(AT_ONCE) {
            let mut body = String::new();
            (from..range.end.min(from + AT_ONCE)).for_each(|n| line(records, n, &mut body));
            let status = self.post(&body).map_err(|e| failed("POST /v1/records", &e))?;
            if !status.starts_with("HTTP/1.1 20") {
                return Err(BenchError(format!("POST /v1/records: {}", status.trim())));
            }
        }
        Ok(())
    }
}

/// Follows `GET /v1/labels`.
pub fn watch_http(program: &Program) -> Result<Watch, BenchError> {
    let mut stream = TcpStream::connect(program.address()).map_err(|e| failed("connecting to strand run", &e))?;
    let asked = write!(stream, "GET /v1/labels?follow=1&tail=0 HTTP/1.1\r\nHost: strand\r\n\r\n");
    asked.map_err(|e| failed("GET /v1/labels", &e))?;
    Ok(watch_lines(stream, "GET /v1/labels"))
}

/// Standard input of the daemon.
pub struct Lines(pub ChildStdin);

impl Feed for Lines {
    fn send(&mut self, records: &Records, range: Range<usize>) -> Result<(), BenchError> {
        for from in range.clone().step_by(AT_ONCE) {
            let mut text = String::new();
            (from..range.end.min(from + AT_ONCE)).for_each(|n| line(records, n, &mut text));
            self.0.write_all(text.as_bytes()).map_err(|e| failed("writing to strand run", &e))?;
        }
        Ok(())
    }
}

/// Lines that are output records; others (heads and lengths of HTTP) are passed over.
pub fn watch_lines(from: impl Read + Send + 'static, what: &'static str) -> Watch {
    Box::new(move |each| {
        let mut reader = BufReader::with_capacity(1 << 18, from);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(|e| failed(what, &e))? == 0 {
                return Ok(());
            }
            if line.starts_with(b"{") && !each(&line) {
                return Ok(());
            }
        }
    })
}

fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("session.timeout.ms", "6000");
    client
}

/// Creates the topics with one partition each.
pub fn create_topics(brokers: &str, topics: &[String]) -> Result<(), BenchError> {
    let admin: AdminClient<DefaultClientContext> =
        client(brokers).create().map_err(|e| failed("connecting to the broker", &e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| failed("starting", &e))?;
    let new: Vec<NewTopic<'_>> =
        topics.iter().map(|topic| NewTopic::new(topic, 1, TopicReplication::Fixed(1))).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let results = runtime.block_on(admin.create_topics(&new, &options));
    for result in results.map_err(|e| failed("creating topics", &e))? {
        result.map_err(|(topic, code)| BenchError(format!("creating topic {topic}: {code}")))?;
    }
    Ok(())
}

/// A producer of a client's.
pub struct ToTopic {
    producer: Arc<ThreadedProducer<DefaultProducerContext>>,
    topic: String,
}

impl ToTopic {
    pub fn new(brokers: &str, topic: &str) -> Result<ToTopic, BenchError> {
        let mut client = client(brokers);
        client.set("linger.ms", "0").set("enable.idempotence", "true");
        client.set("queue.buffering.max.messages", "1000000");
        let producer = client.create().map_err(|e| failed("creating a producer", &e))?;
        Ok(ToTopic { producer: Arc::new(producer), topic: topic.to_string() })
    }
}

impl Feed for ToTopic {
    fn send(&mut self, records: &Records, range: Range<usize>) -> Result<(), BenchError> {
        for n in range {
            let (key, value) = (records.key(n), records.value(n));
            let mut record = BaseRecord::to(&self.topic).key(&key).payload(value);
            while let Err((error, back)) = self.producer.send(record) {
                if error != KafkaError::MessageProduction(Code::QueueFull) {
                    return Err(failed("producing", &error));
                }
                std::thread::sleep(Duration::from_millis(1));
                record = back;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        self.producer.flush(PATIENCE).map_err(|e| failed("producing", &e))
    }
}

/// A read-committed consumer of the labels that come from now on.
pub fn watch_topic(brokers: &str, topic: &str) -> Result<Watch, BenchError> {
    let mut client = client(brokers);
    client.set("group.id", "strand-bench").set("enable.auto.commit", "false");
    client.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "5").set("fetch.queue.backoff.ms", "1");
    client.set("queued.min.messages", "1000000");
    let consumer: BaseConsumer = client.create().map_err(|e| failed("creating a consumer", &e))?;
    let mut list = TopicPartitionList::new();
    let assigned = list.add_partition_offset(topic, 0, Offset::End).and_then(|()| consumer.assign(&list));
    assigned.map_err(|e| failed("reading labels", &e))?;
    // So that the end is that of now.
    for _ in 0..20 {
        let _ = consumer.poll(Duration::from_millis(50));
    }
    Ok(Box::new(move |each| {
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if !each(message.payload().unwrap_or_default()) => return Ok(()),
                Some(Err(e)) => return Err(failed("reading labels", &e)),
                Some(Ok(_)) => {}
                None if !each(b"") => return Ok(()),
                None => {}
            }
        }
    }))
}
