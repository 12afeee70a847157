//! A model is replaced on Kafka, with transactions and two instances of which one is killed: streams that are live go on
//! with the old model whoever is given their partition, others begin with the new one, and each label is there once.

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::drain_streams::{Sent, drain, interleaved, records, replace_model, undisturbed};
use crate::kafka_harness::{Broker, Record, command};
use std::collections::BTreeMap;
use std::time::Duration;

const STREAMS: usize = 12;
const RECORDS: usize = 30;
const KILLS: usize = 2;
const INPUT: &str = "strand-input";
const SETTINGS: [&str; 5] = [
    "kafka.input_partitions=4",
    "kafka.delivery=exactly_once",
    "pipeline.batch_records=16",
    "pipeline.threads=2",
    "state.max_resident=4",
];

fn start(place: &Place, broker: &Broker, instance: &str, more: &[String]) -> Daemon {
    let mut command = command(place, &broker.address, instance, &SETTINGS);
    command.args(more);
    Daemon::start(command)
}

fn send(broker: &Broker, records: &[Sent]) {
    let sender = broker.sender();
    records.iter().for_each(|Sent { stream, piece, event }| sender.piece(INPUT, stream, piece, *event));
}

fn settle(broker: &Broker) {
    broker.settle("strand", INPUT, Duration::from_secs(60));
}

/// The sum over instances.
fn draining(instances: &[&Daemon]) -> f64 {
    instances.iter().map(|daemon| daemon.metric("strand_streams_draining")).sum()
}

/// All partitions are served by one of them.
fn served(instances: &[&Daemon]) -> bool {
    let ready = instances.iter().all(|daemon| daemon.get("/readyz").status == 200);
    ready && instances.iter().map(|daemon| daemon.metric("strand_partitions_assigned")).sum::<f64>() == 4.0
}

#[test]
fn live_streams_go_on_with_the_old_model_whoever_has_their_partition() {
    let (broker, place) = (Broker::own(), Place::new());
    let named =
        |kind: &str| -> Vec<Vec<Sent>> { (0..STREAMS).map(|k| records(&format!("{kind}-{k}"), RECORDS)).collect() };
    let (mut live, mut fresh) = (named("live"), named("fresh"));
    let daemon = start(&place, &broker, "one", &[]);
    let all = interleaved(&live);
    let (begun, rest) = all.split_at(all.len() / 3);
    send(&broker, begun);
    settle(&broker);
    assert!(daemon.stop().success());

    let old = replace_model(&place);
    let drain = drain(&old);
    let refused = |more: &[String]| -> String {
        let output = command(&place, &broker.address, "one", &SETTINGS).args(more).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    };
    for more in [&[], &drain[..2]] {
        let said = refused(more);
        assert!(said.contains("states of another model") && said.contains("drain --previous-model DIR"), "{said}");
    }

    // Records of both kinds, while one of two instances is killed again and again.
    let mut one = start(&place, &broker, "one", &drain);
    let two = start(&place, &broker, "two", &drain);
    let rest = [rest.to_vec(), interleaved(&fresh)].concat();
    let parts: Vec<Vec<Sent>> = {
        // Each has as many of the old streams' as of the new ones', in the order of each stream.
        let (live, fresh): (Vec<Sent>, Vec<Sent>) = rest.into_iter().partition(|sent| sent.stream.starts_with("live"));
        let part = |records: &[Sent], k| {
            records[k * records.len() / (KILLS + 1)..(k + 1) * records.len() / (KILLS + 1)].to_vec()
        };
        (0..=KILLS).map(|k| [part(&live, k), part(&fresh, k)].concat()).collect()
    };
    for (k, part) in parts.iter().enumerate() {
        if k < KILLS {
            eventually("it has partitions", || one.metric("strand_partitions_assigned") > 0.0);
            let before = one.metric("strand_records_total");
            send(&broker, part);
            eventually("it is at work", || one.metric("strand_records_total") > before);
            one.kill();
            one = start(&place, &broker, "one", &drain);
        } else {
            send(&broker, part);
        }
    }
    settle(&broker);
    eventually("all partitions are served", || served(&[&one, &two]));
    eventually("all that drain are known", || draining(&[&one, &two]) == STREAMS as f64);
    assert!(two.stop().success());
    eventually("the other has them all", || served(&[&one]) && draining(&[&one]) == STREAMS as f64);
    assert!(one.stop().success());
    assert!(refused(&[]).contains("states of another model"));

    // They end; the new model goes on alone.
    let one = start(&place, &broker, "one", &drain);
    eventually("all partitions are served", || served(&[&one]));
    for stream in &mut live {
        stream.push(Sent::new(&stream[0].stream.clone(), " The end", Some("end")));
    }
    let ends: Vec<Sent> = live.iter().map(|stream| stream[RECORDS].clone()).collect();
    send(&broker, &ends[1..]);
    settle(&broker);
    eventually("one is left", || draining(&[&one]) == 1.0);
    assert!(!one.log().contains("drained"));
    send(&broker, &ends[..1]);
    eventually("it is said", || one.log().matches("drained: previous_model can be removed").count() == 1);
    assert!(one.stop().success());
    let one = start(&place, &broker, "one", &[]);
    for stream in &mut fresh {
        stream.push(Sent::new(&stream[0].stream.clone(), " and so on.", Some("end")));
    }
    send(&broker, &fresh.iter().map(|stream| stream[RECORDS].clone()).collect::<Vec<_>>());
    settle(&broker);
    assert!(one.stop().success());

    let mut labels: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in broker.read("strand-labels") {
        labels.entry(record.key_text()).or_default().push(record);
    }
    for (model, name, streams) in [(&old, "tiny", &live), (&place.model(), "new", &fresh)] {
        for (stream, expected) in undisturbed(model, streams) {
            let records = labels.remove(&stream).unwrap();
            assert!(records.iter().all(|record| record.header("strand-model") == name), "{stream}");
            let given: Vec<String> =
                records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect();
            assert!(given == expected, "{stream}: {} and {} records", given.len(), expected.len());
        }
    }
    assert!(labels.is_empty());
}
