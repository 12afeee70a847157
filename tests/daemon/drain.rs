//! A model is replaced while streams live: those go on with the old one until they end, others begin with the new one.

use crate::daemon_harness::{Daemon, Place, STRAND, eventually};
use crate::drain_streams::{Sent, drain, interleaved, outputs, post, records, replace_model, undisturbed};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const STREAMS: usize = 16;
const RECORDS: usize = 45;
const KILLS: usize = 5;
/// Small batches and few resident streams: states are read back often.
const SETTINGS: [&str; 6] =
    ["--set", "pipeline.batch_records=16", "--set", "state.max_resident=6", "--set", "pipeline.threads=2"];

fn start(place: &Place, more: &[String]) -> Daemon {
    place.start(&[&SETTINGS, &texts(more)[..]].concat())
}

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn named(kind: &str) -> Vec<Vec<Sent>> {
    (0..STREAMS).map(|k| records(&format!("{kind}-{k}"), RECORDS)).collect()
}

/// How often the log says so.
fn said(daemon: &Daemon, what: &str) -> usize {
    daemon.log().matches(what).count()
}

const DRAINED: &str = "drained: previous_model can be removed from the configuration";

#[test]
fn live_streams_go_on_with_the_old_model_through_kills_and_others_begin_with_the_new_one() {
    let place = Place::new();
    let (mut live, mut fresh) = (named("live"), named("fresh"));
    let daemon = start(&place, &[]);
    let third = |streams: &[Vec<Sent>], k: usize| -> Vec<Sent> {
        let part = |records: &Vec<Sent>| records[k * RECORDS / 3..(k + 1) * RECORDS / 3].to_vec();
        interleaved(&streams.iter().map(part).collect::<Vec<_>>())
    };
    let first = third(&live, 0);
    let (begun, under_way) = first.split_at(first.len() / 2);
    post(&daemon, begun);
    daemon.settle();
    post(&daemon, under_way);
    daemon.kill();

    let old = replace_model(&place);
    let drain = drain(&old);
    let (mut queued, mut parts) = (0, Vec::new());
    for k in [1, 2] {
        let (of_live, of_fresh) = (third(&live, k), third(&fresh, k - 1));
        parts.extend(of_live.chunks(80).zip(of_fresh.chunks(80)).map(|(a, b)| [a, b].concat()));
    }
    parts.push(third(&fresh, 2));
    let mut daemon = start(&place, &drain);
    for (k, part) in parts.iter().enumerate() {
        post(&daemon, part);
        if k < KILLS {
            // As soon as the records are on disk: most of them are not labelled yet.
            daemon.kill();
            daemon = start(&place, &drain);
            queued += queued_at_start(&daemon);
        }
    }
    daemon.settle();
    assert!(queued > 0, "no kill hit a daemon at work");
    assert_eq!(daemon.metric("strand_streams_draining"), STREAMS as f64);
    assert_eq!(daemon.metric("strand_streams_live"), 2.0 * STREAMS as f64);
    assert_eq!(said(&daemon, "drained"), 0);
    assert!(daemon.stop().success());

    // The new one alone cannot go on with them: it says of how many, and what to do.
    let (code, refusal) = place.fails(&[]);
    assert_eq!(code, 1, "{refusal}");
    for part in [&format!("{STREAMS} live streams"), "--on-model-change drain --previous-model", "reset"] {
        assert!(refusal.contains(part), "{part} is not in {refusal}");
    }

    // Half of the old ones end, the others begin anew.
    let daemon = start(&place, &drain);
    let mut anew = Vec::new();
    for (k, stream) in live.iter_mut().enumerate() {
        let name = stream[0].stream.clone();
        match k % 2 {
            0 => stream.push(Sent::new(&name, " The end", Some("end"))),
            _ => anew.push(vec![Sent::new(&name, "Ada met", Some("start")), Sent::new(&name, " Bab", None)]),
        }
        if k + 1 < STREAMS {
            let last = if k % 2 == 0 { vec![stream[RECORDS].clone()] } else { anew[k / 2].clone() };
            post(&daemon, &last);
        }
    }
    daemon.settle();
    assert_eq!((daemon.metric("strand_streams_draining"), said(&daemon, DRAINED)), (1.0, 0));
    post(&daemon, &anew[STREAMS / 2 - 1]);
    daemon.settle();
    eventually("it is said", || said(&daemon, DRAINED) == 1);
    assert_eq!(daemon.metric("strand_streams_draining"), 0.0);
    // A name that was used before is no stream of the old model.
    let again = [Sent::new("live-0", "In London", Some("flush"))];
    post(&daemon, &again);
    daemon.settle();
    assert_eq!(said(&daemon, DRAINED), 1);
    assert!(daemon.stop().success());

    // The old one is not needed any more, and what the new one began goes on.
    let daemon = start(&place, &[]);
    for stream in &mut fresh {
        let last = Sent::new(&stream[0].stream.clone(), " and so on.", Some("end"));
        post(&daemon, std::slice::from_ref(&last));
        stream.push(last);
    }
    daemon.settle();

    let mut wrong = Vec::new();
    let mut compared = 0;
    for (model, streams) in [(&old, &live), (&place.model(), &fresh)] {
        for (stream, expected) in undisturbed(model, streams) {
            let given = outputs(&daemon, &stream);
            compared += expected.len();
            if given[..expected.len().min(given.len())] != expected {
                wrong.push(stream);
            }
        }
    }
    assert_eq!((wrong, compared), (Vec::<String>::new(), 2 * STREAMS * RECORDS + STREAMS / 2 + STREAMS));
    // After their end, or their new start, the streams are the new model's; the numbering goes on.
    anew.push(again.to_vec());
    for stream in &anew {
        let name = &stream[0].stream;
        let given: Vec<Value> = daemon.labels(name).split_off(if name == "live-0" { RECORDS + 1 } else { RECORDS });
        let expected = &undisturbed(&place.model(), std::slice::from_ref(stream))[name];
        assert_eq!(given.len(), expected.len(), "{name}");
        for (given, expected) in given.iter().zip(expected) {
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert!(given["labels"] == expected["labels"] && given["model"] == "new", "{given} {expected}");
        }
    }
    assert!(daemon.stop().success());
}

/// How many records a daemon found in its queue.
fn queued_at_start(daemon: &Daemon) -> u64 {
    let log = daemon.log();
    let opened = log.lines().find(|line| line.contains("data directory opened")).unwrap();
    serde_json::from_str::<Value>(opened).unwrap()["queued"].as_u64().unwrap()
}

#[test]
fn silent_streams_drain_by_their_time_to_live() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/s?wait=1", "Ada met Bab");
    assert!(daemon.stop().success());
    let old = replace_model(&place);
    let daemon = place.start(&[&texts(&drain(&old))[..], &["--set", "state.stream_ttl=200ms"]].concat());
    eventually("drained", || said(&daemon, DRAINED) == 1);
    let last = daemon.labels("s").pop().unwrap();
    assert_eq!(
        (&last["model"], &last["final"], &last["labels"][0]["text"]),
        (&"tiny".into(), &true.into(), &"Bab".into())
    );
    assert_eq!(daemon.post("/v1/streams/s?wait=1", "Ada").json()["model"], "new");
    assert!(daemon.stop().success());
    // Started with nothing to drain, it says so too.
    let daemon = place.start(&texts(&drain(&old)));
    eventually("it is said", || said(&daemon, DRAINED) == 1);
}

/// Exit code, and what was said, of `strand COMMAND` with these arguments.
fn strand(place: &Place, command: &str, arguments: &[&str]) -> (i32, String) {
    let mut strand = Command::new(STRAND);
    strand.arg(command).current_dir(place.path()).args(arguments).env_remove("RUST_LOG");
    let output = strand.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn models_that_do_not_go_together_are_told_before_anything_runs() {
    let place = Place::new();
    replace_model(&place);
    let drain = ["--model", "model", "--on-model-change", "drain", "--previous-model", "old"];
    let (code, said) = strand(&place, "check", &drain);
    assert_eq!(code, 0, "{said}");
    for part in ["model: new (model)", "previous_model: tiny (old)", "input.format: text"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    // The new one labels characters, which are never tokens.
    let cases: [(&[&str], &str); 5] = [
        (
            &["--set", "on_model_change=drain", "--previous-model", "nowhere"],
            "previous_model = \"nowhere\": there is no such directory",
        ),
        (&["--previous-model", "old"], "on_model_change is \"refuse\": with \"drain\""),
        (&["--on-model-change", "drain", "--previous-model", "model"], "are the same model"),
        (
            &["--set", "on_model_change=drain", "--set", "previous_model=old", "--set", "input.format=tokens"],
            "input.format = \"tokens\" does not fit the model",
        ),
        (&["--set", "on_model_change=dry"], "unknown variant `dry`, expected one of `refuse`, `reset`, `drain`"),
    ];
    for (arguments, expected) in cases {
        for command in ["check", "run"] {
            let (code, said) =
                strand(&place, command, &[&["--model", "model", "--http", "127.0.0.1:0"], arguments].concat());
            assert!(code == 2 && said.contains(expected), "{code}: {expected} is not in {said}");
        }
    }
    // The other way round it is the previous one that does not fit.
    let exchanged =
        ["--model", "old", "--on-model-change", "drain", "--previous-model", "model", "--set", "input.format=tokens"];
    let (code, said) = strand(&place, "check", &exchanged);
    assert!(code == 2 && said.contains("previous_model: input.format = \"tokens\" does not fit"), "{said}");
    assert!(!place.path().join("strand-data").exists(), "nothing was touched");
}

#[test]
fn standard_input_drains_from_its_state_file() {
    let place = Place::new();
    let run = |model: &Path, more: &[String], input: &str| -> Vec<Value> {
        let mut command = Command::new(STRAND);
        command.args(["run", "--set", "transport.kind=stdio", "--set", "stdio.state_file=states.redb", "--model"]);
        command.arg(model).args(more).env_remove("RUST_LOG").current_dir(place.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    run(&place.model(), &[], "{\"stream\":\"a\",\"text\":\"Ada Love\"}\n");
    let old = replace_model(&place);
    let input = "{\"stream\":\"a\",\"text\":\"lace.\",\"event\":\"end\"}\n{\"stream\":\"b\",\"text\":\"Ada\"}\n";
    let records = run(&place.model(), &drain(&old), input);
    let of = |stream: &str| records.iter().find(|record| record["stream"] == stream).unwrap().clone();
    assert_eq!((&of("a")["model"], &of("a")["labels"][0]["text"]), (&"tiny".into(), &"Lovelace".into()));
    assert_eq!((&of("b")["model"], &of("b")["labels"][0]["text"]), (&"new".into(), &"A".into()));
    assert_eq!(run(&place.model(), &[], "{\"stream\":\"b\",\"text\":\"c\"}\n")[0]["model"], "new");
}
