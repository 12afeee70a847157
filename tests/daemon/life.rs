//! The daemon's life: orderly ends, what keeps it from starting, other transports.

use crate::daemon_harness::{Place, STRAND, eventually, words};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use strand::model::testing::{TEXT, layers, random_model, words_spec};

/// Clients that send single records, and the streams of the one that sends many at once.
const CLIENTS: usize = 4;
const AT_ONCE: usize = 10;

fn strand(arguments: &[&str]) -> Output {
    strand_in(Path::new("."), arguments)
}

fn strand_in(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(STRAND).current_dir(dir).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

/// What a start said that fails with this exit code.
fn fails(code: i32, arguments: &[&str]) -> String {
    fails_in(Path::new("."), code, arguments)
}

fn fails_in(dir: &Path, code: i32, arguments: &[&str]) -> String {
    let output = strand_in(dir, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// Overwrites the place's model by one of the same kind with other weights.
fn retrain(place: &Place) {
    random_model(&place.model(), &words_spec("tiny", layers(&[strand::rnn::Cell::Lstm], 8)), TEXT, 8).unwrap();
}

#[test]
fn terminated_under_load_it_ends_in_order_and_nothing_acknowledged_is_lost() {
    let place = Place::new();
    let mut daemon = place.start(&["--set", "pipeline.batch_records=16"]);
    let acknowledged: Vec<AtomicUsize> = (0..CLIENTS + AT_ONCE).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        let (running, acknowledged) = (&daemon, &acknowledged);
        let mut clients = Vec::new();
        for (client, count) in acknowledged.iter().enumerate().take(CLIENTS) {
            clients.push(scope.spawn(move || {
                for k in 0.. {
                    // Every other one waits for its labels; the answer may also be that they come after the restart.
                    let path = format!("/v1/streams/s{client}?wait={}", k % 2);
                    match running.try_post(&path, format!("w{k} ")) {
                        Ok(answer) if matches!(answer.status, 200 | 202) => {
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => return,
                    }
                }
            }));
        }
        clients.push(scope.spawn(move || {
            let streams = CLIENTS..CLIENTS + AT_ONCE;
            for k in 0.. {
                let line = |s| json!({"stream": format!("s{s}"), "text": format!("w{k} ")}).to_string() + "\n";
                match running.try_post("/v1/records", streams.clone().map(line).collect::<String>()) {
                    Ok(answer) if answer.status == 202 => {
                        streams.clone().for_each(|s| _ = acknowledged[s].fetch_add(1, Ordering::SeqCst));
                    }
                    _ => return,
                }
            }
        }));
        eventually("a load", || acknowledged.iter().all(|count| count.load(Ordering::SeqCst) >= 50));
        running.terminate();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
    assert!(daemon.log().contains("\"stopped\""), "{}", daemon.log());

    let daemon = place.start(&[]);
    daemon.settle();
    for (stream, count) in acknowledged.iter().enumerate() {
        let (records, count) = (daemon.labels(&format!("s{stream}")), count.load(Ordering::SeqCst));
        let labelled = words(&records);
        // The request that was under way may have been taken without its answer getting through.
        assert!(labelled.len() == count || labelled.len() == count + 1, "{}, acknowledged {count}", labelled.len());
        assert_eq!(labelled, (0..labelled.len()).map(|k| format!("w{k}")).collect::<Vec<_>>());
        assert!(records.iter().enumerate().all(|(k, record)| record["seq"] == k));
    }
    assert_eq!(daemon.metric("strand_dead_letters_total"), 0.0);
}

#[test]
fn an_interrupt_ends_it_in_order_too() {
    let place = Place::new();
    let mut daemon = place.start(&[]);
    daemon.post("/v1/streams/s?wait=1", "Ada ");
    daemon.signal("INT");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let (code, said) = place.fails(&[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("strand.redb is in use by another process"), "{said}");
    assert_eq!(daemon.post("/v1/streams/s?wait=1", "Ada ").status, 200, "the first is not disturbed");
    assert!(daemon.stop().success());
    place.start(&[]);
}

#[test]
fn states_of_another_model_are_refused_with_what_to_do() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/s?wait=1", "Ada met Bab");
    assert!(daemon.stop().success());
    retrain(&place);
    let (code, said) = place.fails(&[]);
    assert_eq!(code, 1, "{said}");
    for part in ["1 live streams", "another model", "--on-model-change reset", "--data-dir"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }

    let daemon = place.start(&["--on-model-change", "reset"]);
    assert_eq!(words(&daemon.labels("s")), ["Ada", "met"], "labels stay");
    assert_eq!(daemon.get("/v1/streams/s").json()["state"], "ended");
    let next = daemon.post("/v1/streams/s?wait=1", "Turin ").json();
    assert_eq!(
        (&next["seq"], &next["labels"][0]["text"], &next["labels"][0]["start"]),
        (&json!(1), &json!("Turin"), &json!(0))
    );
    assert!(daemon.stop().success());
    // From now on the states are the new model's.
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/s?wait=1&event=end", "");
    assert!(daemon.stop().success());
    // Streams that have ended leave nothing that another model could not go on from.
    random_model(&place.model(), &words_spec("other", layers(&[strand::rnn::Cell::Gru], 5)), TEXT, 1).unwrap();
    let daemon = place.start(&[]);
    assert_eq!(daemon.post("/v1/streams/s?wait=1", "Ada ").json()["model"], "other");
}

#[test]
fn an_address_in_use_is_told() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (model, data) = (place.model(), place.data());
    let said = fails(
        1,
        &["run", "--model", model.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--http", &address],
    );
    assert!(said.contains(&format!("cannot listen on {address}: ")), "{said}");
}

#[test]
fn mistakes_in_the_configuration_are_told_before_anything_runs() {
    let place = Place::new();
    let path = place.path().join("strand.toml");
    let file = path.to_str().unwrap();
    let model = format!("model = \"{}\"", place.model().display());
    let cases = [
        ("[pipeline]\nbatch_recrods = 5", ":3: unknown key `pipeline.batch_recrods`; did you mean `batch_records`?"),
        ("[transprot]\nkind = \"stdio\"", ":2: unknown key `transprot`; did you mean `transport`?"),
        ("[http]\n\nwait_timeout = 10", ":4: http.wait_timeout: "),
        ("[transport]\nkind = \"nats\"", ":3: "),
        ("[http]\nlisten = ", "line 3"),
        ("[http]\ntoken = \"${NO_SUCH_VARIABLE}\"", "http.token: the environment variable NO_SUCH_VARIABLE is not set"),
        (
            "[input]\nformat = \"dna\"",
            "input.format = \"dna\" does not fit the model, which reads \"text\" or \"tokens\"",
        ),
    ];
    for (text, expected) in cases {
        std::fs::write(&path, format!("{model}\n{text}\n")).unwrap();
        for command in ["run", "check"] {
            let said = fails_in(place.path(), 2, &[command, "--config", file, "--http", "127.0.0.1:0"]);
            let place_named = !expected.starts_with(':') || said.contains(&format!("strand.toml{expected}"));
            assert!(place_named && said.contains(expected), "{expected} is not in {said}");
        }
    }
    assert!(fails_in(place.path(), 2, &["run", "--config", "no/such.toml"]).contains("no/such.toml"));
    assert!(fails_in(place.path(), 2, &["run", "--set", "novalue"]).contains("key=value"));
    assert!(fails_in(place.path(), 2, &["run", "--set", "http.lisen=off"]).contains("did you mean `listen`?"));
    assert!(fails_in(place.path(), 2, &["run", "--model", "no/such", "--http", "off"]).contains("no/such"));
    assert!(!place.path().join("strand-data").exists() && !place.data().exists(), "nothing was touched");
}

#[test]
fn check_says_what_run_would_use() {
    let place = Place::new();
    let model = place.model();
    let output = strand(&["check", "--model", model.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("configuration: fine"), "{said}");
    assert!(said.contains("model: tiny") && said.contains("input.format: text"), "{said}");
}

#[test]
fn kafka_properties_are_judged_by_check() {
    let place = Place::new();
    let model = place.model();
    let model = model.to_str().unwrap();
    let kafka = ["--model", model, "--set", "transport.kind=kafka"];
    let check = |set: &str| [&["check"], &kafka[..], &["--set", set]].concat().join("\n");
    let wrong = check("kafka.properties.linger.msx=5");
    let said = fails(2, &wrong.split('\n').collect::<Vec<_>>());
    assert!(said.contains("linger.msx") && said.contains("No such configuration property"), "{said}");
    let wrong = check("kafka.properties.linger.ms=soon");
    let said = fails(2, &wrong.split('\n').collect::<Vec<_>>());
    assert!(said.contains("linger.ms") && said.contains("soon"), "{said}");

    let right = check("kafka.properties.linger.ms=5");
    let output = strand(&right.split('\n').collect::<Vec<_>>());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("kafka.properties: fine (1 given)"), "{said}");
    let own = check("kafka.properties.enable.auto.commit=true");
    let said = fails(2, &own.split('\n').collect::<Vec<_>>());
    assert!(said.contains("enable.auto.commit is set by Strand itself"), "{said}");
    // Nor does it run with them.
    let run = own.replacen("check", "run\n--http\noff", 1);
    let said = fails(2, &run.split('\n').collect::<Vec<_>>());
    assert!(said.contains("enable.auto.commit is set by Strand itself"), "{said}");
}

/// Runs the stdio transport on `input`; its output records, and the JSON lines on standard error.
fn stdio(place: &Place, arguments: &[&str], input: &str) -> (Vec<Value>, Vec<Value>) {
    let mut command = Command::new(STRAND);
    command.args(["run", "--set", "transport.kind=stdio", "--log-format", "json", "--model"]).arg(place.model());
    command.args(arguments).env_remove("RUST_LOG").current_dir(place.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = |bytes: &[u8]| -> Vec<Value> {
        String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(output.status.code(), Some(0), "{:?}", lines(&output.stderr));
    (lines(&output.stdout), lines(&output.stderr))
}

#[test]
fn standard_input_is_labelled_to_its_end() {
    let place = Place::new();
    let input = concat!(
        r#"{"stream":"a","text":"Ada Love"}"#,
        "\n",
        r#"{"stream":"b","text":"Turin "}"#,
        "\n",
        "this is no record\n\n",
        r#"{"stream":"a","text":"lace met Bab"}"#,
        "\n",
        r#"{"stream":"b","event":"end"}"#,
        "\n",
        r#"{"stream":"c","base64":"/w=="}"#,
    );
    let (outputs, errors) = stdio(&place, &[], input);
    let of = |stream: &str| -> Vec<Value> { outputs.iter().filter(|o| o["stream"] == stream).cloned().collect() };
    assert_eq!(words(&of("a")), ["Ada", "Lovelace", "met", "Bab"]);
    assert_eq!(words(&of("b")), ["Turin"]);
    for stream in ["a", "b"] {
        let finals: Vec<bool> = of(stream).iter().map(|output| output["final"].as_bool().unwrap()).collect();
        assert_eq!(finals.iter().filter(|last| **last).count(), 1);
        assert_eq!(finals.last(), Some(&true));
    }
    let letters: Vec<&Value> = errors.iter().filter(|line| line["error"].is_string()).collect();
    assert_eq!(letters.len(), 2, "{errors:?}");
    assert_eq!((&letters[0]["error"], &letters[0]["source"]), (&json!("invalid_json"), &json!("stdin/0/3")));
    assert_eq!(letters[0]["value"], "this is no record");
    assert_eq!((&letters[1]["error"], &letters[1]["source"]), (&json!("invalid_utf8"), &json!("stdin/0/7")));
    assert_eq!(stdio(&place, &[], "").0, [json!(null); 0]);
    assert!(!place.path().join("strand-data").exists());
}

#[test]
fn with_a_state_file_streams_go_on_in_the_next_run() {
    let place = Place::new();
    let file = ["--set", "stdio.state_file=states.redb"];
    let run = |text: &str| stdio(&place, &file, &json!({"stream": "a", "text": text}).to_string()).0;
    let outputs = [run("Ada Love"), run("lace met "), run("Babbage ")].concat();
    assert_eq!(words(&outputs), ["Ada", "Lovelace", "met", "Babbage"]);
    assert!(outputs.iter().enumerate().all(|(k, output)| output["seq"] == k && output["final"] == false));
    let other = Place::new();
    let (whole, _) = stdio(&other, &[], &json!({"stream": "a", "text": "Ada Lovelace met Babbage "}).to_string());
    let labels = |outputs: &[Value]| -> Vec<Value> {
        outputs.iter().flat_map(|output| output["labels"].as_array().unwrap().clone()).collect()
    };
    assert_eq!(labels(&outputs), labels(&whole));
}

#[test]
fn stdio_serves_health_and_metrics_where_it_is_told_to() {
    let place = Place::new();
    let mut command = place.command(&["--set", "transport.kind=stdio"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let event: Value = serde_json::from_str(&line).unwrap();
        event["address"].as_str().map(str::to_string)
    });
    let url = |path: &str| format!("http://{}{path}", address.as_deref().unwrap());
    let status = |path: &str| match ureq::get(url(path)).call() {
        Ok(answer) => answer.status().as_u16(),
        Err(ureq::Error::StatusCode(status)) => status,
        Err(error) => panic!("{error}"),
    };
    eventually("ready", || status("/readyz") == 200);
    assert_eq!((status("/metrics"), status("/v1/labels")), (200, 404));
    // Standard input is still open: the signal must not wait for it.
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:?}");
}
