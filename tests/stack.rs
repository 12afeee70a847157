//! The stack of docker-compose.yml, as far as it can be tested without containers: what its files say of each other
//! is true, Prometheus takes configuration and rules, and a real Prometheus that scrapes a real daemon has an answer to
//! every query of the dashboard.

mod daemon_harness;
mod stack_queries;

use daemon_harness::{Place, STRAND};
use serde_json::Value;
use stack_queries::{
    Answer, Prometheus, alerts, check, check_alerts, check_dashboard, file, panels, promtool, selectors, settled, yaml,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use strand::config::{Config, TransportKind};
use strand::events::Events;

const COMPOSE: &str = "docker-compose.yml";

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().expect("a text")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Name and definition of each service.
fn services(compose: &Value) -> Vec<(&str, &Value)> {
    compose["services"].as_object().expect("services").iter().map(|(name, service)| (name.as_str(), service)).collect()
}

/// Source (empty: none) and target of each mounted path.
fn mounts(service: &Value) -> Vec<(&str, &str)> {
    let parts = |mount| {
        let mut parts = str::split(mount, ':');
        match (parts.next(), parts.next()) {
            (Some(source), Some(target)) => (source, target),
            _ => ("", mount),
        }
    };
    texts(&service["volumes"]).into_iter().map(parts).collect()
}

/// The names of services that this one waits for, each with the condition.
fn depends_on(service: &Value) -> Vec<(&str, &str)> {
    match &service["depends_on"] {
        Value::Object(map) => map.iter().map(|(name, how)| (name.as_str(), text(&how["condition"]))).collect(),
        list => texts(list).into_iter().map(|name| (name, "service_started")).collect(),
    }
}

/// "40s" or "2m".
fn seconds(period: &str) -> u64 {
    let (number, unit) = period.split_at(period.len() - 1);
    number.parse::<u64>().unwrap() * if unit == "m" { 60 } else { 1 }
}

#[test]
fn every_image_is_pinned_and_everything_is_published_on_this_machine_only() {
    let compose = yaml(COMPOSE);
    let mut ports = BTreeSet::new();
    for (name, service) in services(&compose) {
        let (image, tag) = text(&service["image"]).rsplit_once(':').unwrap_or_else(|| panic!("{name}: no tag"));
        assert!(tag.split('.').count() >= 3, "{name}: {image}:{tag} is no exact version");
        if image == "strand" {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
        }
        // With a name there could be only one container of a service.
        assert!(service["container_name"].is_null(), "{name}");
        for port in texts(&service["ports"]) {
            let published = port.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{name}: {port}"));
            let (outside, _) = published.split_once(':').unwrap();
            let (first, last) = outside.split_once('-').unwrap_or((outside, outside));
            for port in first.parse::<u16>().unwrap()..=last.parse().unwrap() {
                assert!(ports.insert(port), "{name}: port {port} is taken");
            }
        }
    }
    let dockerfile = std::fs::read_to_string(file("deploy/Dockerfile")).unwrap();
    let bases: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert!(bases.len() == 2 && bases.iter().all(|base| base.contains("bookworm")), "{bases:?}");
}

#[test]
fn what_is_mounted_depended_on_and_declared_is_there() {
    let compose = yaml(COMPOSE);
    let declared: BTreeSet<&str> = compose["volumes"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut used = BTreeSet::new();
    let services: BTreeMap<&str, &Value> = services(&compose).into_iter().collect();
    for (name, service) in &services {
        for (source, target) in mounts(service) {
            assert!(target.starts_with('/'), "{name}: {target}");
            if source.starts_with("./") {
                assert!(file(source).exists(), "{name}: {source} does not exist");
            } else if !source.is_empty() {
                used.insert(source);
            }
        }
        for (other, condition) in depends_on(service) {
            let other = services.get(other).unwrap_or_else(|| panic!("{name} depends on {other}, which is no service"));
            assert_eq!(condition == "service_healthy", other["healthcheck"].is_object(), "{name}: {condition}");
        }
        if service["build"].is_null() && text(&service["image"]).starts_with("strand:") {
            let built =
                services.iter().any(|(_, other)| other["image"] == service["image"] && !other["build"].is_null());
            assert!(built, "nobody builds the image of {name}");
        }
    }
    assert_eq!(declared, used);
    let build = &services["strand"]["build"];
    assert!(file(text(&build["context"])).join(text(&build["dockerfile"])).is_file());
}

#[test]
fn strand_is_configured_for_the_stack_it_is_in() {
    let compose = yaml(COMPOSE);
    let (strand, kafka, feeder) =
        (&compose["services"]["strand"], &compose["services"]["kafka"], &compose["services"]["feeder"]);
    let config = Config::load(Some(&file("deploy/compose/strand.toml")), &[]).unwrap();

    // The file is where the command looks, and the paths in it are in the image and in a volume.
    let mounts = mounts(strand);
    let (_, inside) = mounts.iter().find(|(source, _)| *source == "./deploy/compose/strand.toml").unwrap();
    assert_eq!(texts(&strand["command"]), ["run", "--config", inside]);
    let model = config.model.strip_prefix("/models").unwrap();
    assert!(file("models").join(model).join("model.toml").is_file(), "{model:?}");
    assert!(mounts.iter().any(|(_, target)| config.kafka.state_dir.starts_with(target)));
    // One directory a process: no two instances may have the same volume.
    assert!(mounts.iter().all(|(source, target)| source.is_empty() || *target == *inside), "{mounts:?}");

    // Kafka is where Strand and the feeder look, and on this machine.
    assert_eq!(config.transport.kind, TransportKind::Kafka);
    let environment = &kafka["environment"];
    let listeners: Vec<&str> = text(&environment["KAFKA_ADVERTISED_LISTENERS"]).split(',').collect();
    assert!(listeners.contains(&format!("INSIDE://{}", config.kafka.brokers).as_str()), "{listeners:?}");
    let outside = listeners.iter().find_map(|listener| listener.strip_prefix("OUTSIDE://")).unwrap();
    let (_, port) = outside.split_once(':').unwrap();
    assert_eq!(texts(&kafka["ports"]), [format!("{outside}:{port}")]);
    let sent: Vec<&str> = texts(&feeder["command"]);
    let value = |flag| sent[1 + sent.iter().position(|word| *word == flag).unwrap()];
    assert_eq!((sent[0], value("--brokers")), ("send", config.kafka.brokers.as_str()));
    assert_eq!(value("--topic"), config.kafka.input);
    // Nobody else creates the topics, and a single broker holds one copy.
    assert_eq!(environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"], "false");
    assert!(config.kafka.create_topics && config.kafka.input_partitions.is_some());
    assert_eq!(config.kafka.replication_factor, Some(1));

    // Its port is published, several times, asked by the health check and scraped by Prometheus.
    let Some(strand::config::Listen::At(address)) = config.http.listen else { panic!("http.listen") };
    assert!(address.ip().is_unspecified());
    let port = address.port();
    let published = texts(&strand["ports"])[0];
    assert!(published.contains('-') && published.ends_with(&format!(":{port}")), "{published}");
    assert!(texts(&strand["healthcheck"]["test"]).contains(&format!("http://127.0.0.1:{port}/healthz").as_str()));
    let prometheus = yaml("deploy/prometheus/prometheus.yml");
    let scraped = &prometheus["scrape_configs"][0]["dns_sd_configs"][0];
    assert_eq!((scraped["names"][0].as_str(), scraped["port"].as_u64()), (Some("strand"), Some(port.into())));

    // It is not killed before it has given up itself.
    let grace = Duration::from_secs(seconds(text(&strand["stop_grace_period"])));
    assert!(grace > config.shutdown_timeout.0, "{grace:?}");
}

#[test]
fn the_image_has_what_the_binary_needs() {
    let dockerfile = std::fs::read_to_string(file("deploy/Dockerfile")).unwrap();
    let (builder, image) = dockerfile.split_once("\nFROM debian:bookworm-slim\n").expect("two stages");
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|l| !l.starts_with("--from")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(file(source).exists(), "{line}: {source} does not exist");
        }
    }
    assert!(builder.contains("--locked"));

    let output = Command::new("readelf").args(["-d", STRAND]).output().expect("readelf (binutils) is there");
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "{text}");
    let (_, packages) = image.split_once("--no-install-recommends ").expect("packages");
    let packages: Vec<&str> = packages.lines().next().unwrap().split_whitespace().collect();
    for library in needed {
        let package = match library {
            // Of every Debian.
            "libc.so.6" | "libm.so.6" | "libgcc_s.so.1" => continue,
            name if name.starts_with("ld-linux") => continue,
            "libssl.so.3" | "libcrypto.so.3" => "libssl3",
            "libcurl.so.4" => "libcurl4",
            "libz.so.1" => "zlib1g",
            other => panic!("{other}: which package of Debian 12 has it? deploy/Dockerfile must install that"),
        };
        assert!(packages.contains(&package), "{library} needs {package}; deploy/Dockerfile installs {packages:?}");
    }
    assert!(packages.contains(&"curl"), "the health check in {COMPOSE} is made with curl");
}

#[test]
fn grafana_finds_its_data_source_and_its_dashboard() {
    let compose = yaml(COMPOSE);
    let grafana = &compose["services"]["grafana"];
    let mounts = mounts(grafana);
    // Where a path in the container is in the repository.
    let source = |path: &str| {
        let from =
            mounts.iter().find_map(|(source, target)| Some((source, Path::new(path).strip_prefix(target).ok()?)));
        let (source, rest) = from.unwrap_or_else(|| panic!("{path} is not mounted"));
        file(source).join(rest)
    };
    let home = text(&grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]);
    assert!(source(home).is_file(), "{home}");
    let providers = yaml("deploy/grafana/provisioning/dashboards/strand.yaml");
    let folder = source(text(&providers["providers"][0]["options"]["path"]));
    assert!(folder.join("strand.json").is_file());
    for kind in ["datasources", "dashboards"] {
        assert!(source(&format!("/etc/grafana/provisioning/{kind}")).is_dir());
    }

    let provisioned = yaml("deploy/grafana/provisioning/datasources/prometheus.yaml");
    let source = &provisioned["datasources"][0];
    assert_eq!((&source["type"], &source["isDefault"]), (&"prometheus".into(), &true.into()));
    let (service, port) = text(&source["url"]).strip_prefix("http://").unwrap().split_once(':').unwrap();
    assert_eq!(texts(&compose["services"][service]["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    let prometheus = yaml("deploy/prometheus/prometheus.yml");
    assert_eq!(source["jsonData"]["timeInterval"], prometheus["global"]["scrape_interval"]);
}

#[test]
fn every_panel_has_a_place_a_unit_and_says_what_it_shows() {
    let dashboard = yaml("deploy/grafana/dashboards/strand.json");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39) && dashboard["uid"] == "strand");
    let variables: BTreeSet<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|v| text(&v["name"])).collect();
    assert_eq!(variables, BTreeSet::from(["datasource", "instance"]));
    let panels = panels(&dashboard);
    assert!(panels.len() > 30);
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    let mut taken = BTreeMap::new();
    for panel in panels {
        let title = text(&panel["title"]);
        assert!(titles.insert(title), "two panels are named {title}");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        assert!(text(&panel["description"]).ends_with('.'), "{title}: what does it show?");
        let kind = text(&panel["type"]);
        let unit = match kind {
            "table" => "none",
            "heatmap" => text(&panel["options"]["yAxis"]["unit"]),
            _ => text(&panel["fieldConfig"]["defaults"]["unit"]),
        };
        assert!(!unit.is_empty(), "{title}: no unit");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is beside the page");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                if let Some(other) = taken.insert((x, y), title) {
                    panic!("{title} covers {other}");
                }
            }
        }
        let mut references = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(references.insert(text(&target["refId"])), "{title}: a refId is there twice");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let (query, legend) = (text(&target["expr"]), text(&target["legendFormat"]));
            assert_eq!(target["format"] == "heatmap", kind == "heatmap", "{title}");
            // Whoever picks instances must see them alone.
            assert!(query.contains("ALERTS") || query.contains("instance=~\"$instance\""), "{title}: {query}");
            // Names in the legend are labels that the query keeps.
            for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                let kept = query.contains(&format!("by ({label})")) || !query.contains(" by (");
                assert!(kept, "{title}: the answers have no {label}: {query}");
            }
            let alone = panel["targets"].as_array().unwrap().len() == 1;
            assert!(alone || !legend.is_empty(), "{title}: which curve is which?");
        }
    }
}

#[test]
fn promtool_accepts_configuration_and_rules_and_the_rules_pass_their_tests() {
    let folder = file("deploy/prometheus");
    for arguments in
        [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]]
    {
        let output = promtool(&arguments, &folder);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("SUCCESS"), "promtool {}\n{said}", arguments.join(" "));
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tested_where_it_fires_and_where_it_must_not() {
    let tests = yaml("deploy/prometheus/alerts.test.yml");
    let cases: Vec<&Value> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["promql_expr_test"].as_array().unwrap())
        .collect();
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = text(&alert["alert"]);
        assert!(["warning", "critical"].contains(&text(&alert["labels"]["severity"])), "{name}");
        let (summary, description) =
            (text(&alert["annotations"]["summary"]), text(&alert["annotations"]["description"]));
        assert!(!summary.is_empty() && summary.len() <= 120, "{name}: {summary}");
        assert!(description.len() > summary.len(), "{name}: what should be done?");

        let expr = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}");
        let samples = cases.iter().filter(|case| case["expr"] == expr.as_str()).map(|case| &case["exp_samples"]);
        let (silent, firing): (Vec<&Value>, Vec<&Value>) = samples.partition(|s| s.as_array().unwrap().is_empty());
        assert!(!silent.is_empty(), "{name}: no test where it must not fire");
        assert!(!firing.is_empty(), "{name}: no test where it fires");
        // Labels in its words are labels that it has.
        let labels = text(&firing[0][0]["labels"]);
        for rest in [summary, description].iter().flat_map(|words| words.split("$labels.").skip(1)) {
            let label: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(labels.contains(&format!("{label}=")), "{name}: it has no label {label}: {labels}");
        }
    }
}

#[test]
fn selectors_are_found_in_expressions() {
    let found = |expression| selectors(expression).into_iter().map(|s| s.text).collect::<Vec<_>>();
    assert_eq!(found("up"), ["up"]);
    assert_eq!(found("sum by (job, le) (rate(a_bucket{i=~\".*\"}[1m]))"), ["a_bucket{i=~\".*\"}"]);
    assert_eq!(found("sum(a) by (job) / on (job) group_left (name) b > 1e9"), ["a", "b"]);
    assert_eq!(found("a{x=\"}\", y='b c'} offset 1d and b unless c offset 15m"), ["a{x=\"}\", y='b c'}", "b", "c"]);
    assert_eq!(found("deriv(sum by (j) (a)[10m:30s]) > 0 or vector(0)"), ["a"]);
    assert_eq!(found("time() - max without (x) (a {b!=\"c\"}) == bool 1.5 * Inf"), ["a{b!=\"c\"}"]);
    assert_eq!(
        found("histogram_quantile(0.99, label_replace(ns:a:rate5m, \"up\", \"$1\", \"x\", \"(.*)\"))"),
        ["ns:a:rate5m"]
    );
}

/// Figures as an instance has them that works on Kafka, one scrape after another, from the functions that the transport
/// calls. They never stand still, so that rates are to be seen.
fn serve_kafka_figures(listener: TcpListener) {
    let events = Events::new(&["O".to_string(), "B-PER".to_string()]).unwrap();
    events.starting("0.0.0", "tiny", "f00d");
    events.ready();
    events.partitions_assigned(&[0, 1], 2);
    events.restore_progress(0, 1, 2);
    events.partition_restored(1, 9, 3, 7, Duration::from_millis(5));
    for (scrape, stream) in (1..).zip(listener.incoming().map_while(Result::ok)) {
        events.consumer_lag(&[(0, scrape), (1, 0)]);
        events.states_restored(3);
        events.records_missed(0, 0, 5);
        let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        assert!(request.count() > 0);
        let body = events.metrics().render().unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\ncontent-length";
        // Prometheus may have gone meanwhile.
        let _ = write!(&stream, "{head}: {}\r\n\r\n{body}", body.len());
    }
}

/// The queries that something is wrong with.
fn faults(answers: &[Answer]) -> Vec<String> {
    answers.iter().filter_map(Answer::fault).collect()
}

#[test]
fn prometheus_answers_every_query_of_the_dashboard_and_of_the_alerts() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kafka = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || serve_kafka_figures(listener));
    let prometheus = Prometheus::start(&[daemon.address(), &kafka]);

    // One stream that goes on, one that ended, one record that cannot be read.
    assert_eq!(daemon.post("/v1/streams/news?wait=1", "Ada Lovelace met Charles Babbage in London ").status, 200);
    assert_eq!(daemon.post("/v1/streams/old?event=end&wait=1", "The Engine").status, 200);
    assert_eq!(daemon.post("/v1/streams/bytes?wait=1", b"\xff\xff ").status, 422);
    // Three scrapes of each, and the rules evaluated upon the dead letter: that alert fires at once.
    prometheus.wait_for("count_over_time(up{job=\"strand\"}[1m]) > 2 and up == 1", 2);
    prometheus.wait_for("strand_dead_letters_total", 1);
    prometheus.wait_for("ALERTS{alertname=\"StrandDeadLetters\", alertstate=\"firing\", code=\"invalid_utf8\"}", 1);
    daemon.post("/v1/streams/news?wait=1", "in London ");
    prometheus.wait_for("increase(strand_records_total[1m]) > 0", 1);

    let answers = settled(|| check_dashboard(&prometheus.url));
    assert!(answers.len() > 50, "{}", answers.len());
    let faults_found = faults(&answers);
    assert!(faults_found.is_empty(), "queries of the dashboard:\n{}", faults_found.join("\n"));
    // Of this annotation nothing is to be seen: nobody was started anew.
    let silent: Vec<&Answer> = answers.iter().filter(|a| a.is_empty() && a.panel != "annotation Starts").collect();
    assert!(silent.is_empty(), "queries without an answer: {silent:#?}");

    let faults_found = faults(&settled(|| check_alerts(&prometheus.url)));
    assert!(faults_found.is_empty(), "alerts:\n{}", faults_found.join("\n"));
    let rules = prometheus.rules();
    assert_eq!(rules.len(), alerts().len());
    assert!(rules.iter().all(|(_, health, _)| health == "ok"), "{rules:?}");

    // And that a wrong query is told from a right one.
    let wrong = [
        ("misspelt", "sum(rate(strand_recrods_total[1m])) or vector(0)", "no such metrics: strand_recrods_total"),
        ("a value that is never there", "strand_transactions_total{outcome=\"abort\"} or vector(0)", "selects nothing"),
        ("cut off", "sum(rate(strand_records_total[1m])", "parse error"),
    ];
    let queries: Vec<(String, String)> = wrong.iter().map(|(what, q, _)| (what.to_string(), q.to_string())).collect();
    let found = check(&prometheus.url, &queries);
    for (answer, (what, _, expected)) in found.iter().zip(wrong) {
        let fault = answer.fault().unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(fault.contains(expected), "{what}: {fault}");
    }
}
