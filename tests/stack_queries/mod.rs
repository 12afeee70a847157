//! A real Prometheus as a child process, and every query of the dashboard and of the alerts asked of it.
#![allow(dead_code)] // Each test file uses its part.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long Prometheus may take for what should take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The content of a YAML (or JSON) file of the repository.
pub fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_norway::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Runs a program that comes with Prometheus, with this folder as the working directory.
pub fn promtool(arguments: &[&str], folder: &Path) -> Output {
    Command::new("promtool").args(arguments).current_dir(folder).output().unwrap_or_else(|e| missing("promtool", &e))
}

fn missing(program: &str, error: &std::io::Error) -> ! {
    panic!("{program} cannot be started ({error}): run tests/setup.sh, which installs what the tests need")
}

/// A running Prometheus with the rules of deploy/prometheus. Killed when dropped.
pub struct Prometheus {
    child: Child,
    pub url: String,
    agent: ureq::Agent,
    log: Arc<Mutex<String>>,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with deploy/prometheus/prometheus.yml, in which the job "strand" scrapes `targets` (host:port) instead
    /// of the names of the stack, and everything happens every second.
    pub fn start(targets: &[&str]) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let mut config = yaml("deploy/prometheus/prometheus.yml");
        config["global"] = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
        let rules = config["rule_files"].as_array_mut().expect("rule_files");
        rules.iter_mut().for_each(|rule| *rule = json!(file("deploy/prometheus").join(rule.as_str().unwrap())));
        let jobs = config["scrape_configs"].as_array_mut().expect("scrape_configs");
        jobs.retain(|job| job["job_name"] == "strand");
        let job = jobs.first_mut().and_then(Value::as_object_mut).expect("a job named strand");
        job.remove("dns_sd_configs").expect("the job finds its targets by DNS");
        job.insert("static_configs".to_string(), json!([{"targets": targets}]));
        std::fs::write(dir.path().join("prometheus.yml"), serde_norway::to_string(&config).unwrap()).unwrap();

        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| missing("prometheus", &e));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (log, address) = (Arc::new(Mutex::new(String::new())), Arc::new(OnceLock::new()));
        let (lines, listening) = (log.clone(), address.clone());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let at = line.split_once("address=").filter(|_| line.contains("Listening on"));
                if let Some((_, rest)) = at {
                    let _ = listening.set(rest.split_whitespace().next().unwrap_or_default().to_string());
                }
                *lines.lock().unwrap() += &(line + "\n");
            }
        });
        let start = Instant::now();
        let url = loop {
            if let Some(address) = address.get() {
                break format!("http://{address}");
            }
            let log = log.lock().unwrap();
            assert!(child.try_wait().unwrap().is_none(), "prometheus ended\n{log}");
            assert!(start.elapsed() < PATIENCE, "prometheus does not listen\n{log}");
            drop(log);
            std::thread::sleep(Duration::from_millis(20));
        };
        Prometheus { child, url, agent: agent(), log, _dir: dir }
    }

    /// Waits until an expression has an answer with `enough` series, and gives it.
    pub fn wait_for(&self, expression: &str, enough: usize) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let answer = ask(&self.agent, &self.url, expression);
            match answer {
                Ok(series) if series.len() >= enough => return series,
                _ => assert!(
                    start.elapsed() < PATIENCE,
                    "prometheus never answered {expression} with {enough} series: {answer:?}\n{}",
                    self.log.lock().unwrap()
                ),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What Prometheus says of its rules: name, health, last error.
    pub fn rules(&self) -> Vec<(String, String, String)> {
        let data = get(&self.agent, &format!("{}/api/v1/rules", self.url)).unwrap();
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        rules.map(|rule| (text(&rule["name"]), text(&rule["health"]), text(&rule["lastError"]))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A query and what Prometheus said to it.
#[derive(Debug)]
pub struct Answer {
    /// Title of the panel, or name of the alert.
    pub panel: String,
    pub query: String,
    /// The series of the answer, or why there is none.
    pub series: Result<Vec<Value>, String>,
    /// Metrics in the query that Prometheus has never seen.
    pub unknown: Vec<String>,
    /// Selectors in the query, with their matchers, that select nothing now.
    pub unmatched: Vec<String>,
}

impl Answer {
    /// What is wrong with the query; none: nothing.
    pub fn fault(&self) -> Option<String> {
        let what = match &self.series {
            Err(error) => error.clone(),
            Ok(_) if !self.unknown.is_empty() => format!("no such metrics: {}", self.unknown.join(", ")),
            Ok(_) if !self.unmatched.is_empty() => format!("selects nothing: {}", self.unmatched.join(", ")),
            Ok(_) => return None,
        };
        Some(format!("{}: {}\n    {what}", self.panel, self.query))
    }

    pub fn is_empty(&self) -> bool {
        self.series.as_ref().is_ok_and(Vec::is_empty)
    }
}

/// Asks again while something is wrong, for a while: on a busy machine a scrape may come late. The last answers.
pub fn settled(ask: impl Fn() -> Vec<Answer>) -> Vec<Answer> {
    let start = Instant::now();
    loop {
        let answers = ask();
        if answers.iter().all(|answer| answer.fault().is_none()) || start.elapsed() > PATIENCE / 3 {
            return answers;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Asks every query of the dashboard: panels, variables, annotations.
pub fn check_dashboard(prometheus_url: &str) -> Vec<Answer> {
    check(prometheus_url, &dashboard_queries())
}

/// Asks the expression of every alert. Most answers are empty when all is well.
pub fn check_alerts(prometheus_url: &str) -> Vec<Answer> {
    check(prometheus_url, &alert_queries())
}

/// Asks queries, each with the title of where it stands.
pub fn check(prometheus_url: &str, queries: &[(String, String)]) -> Vec<Answer> {
    let agent = agent();
    let names = get(&agent, &format!("{prometheus_url}/api/v1/label/__name__/values")).unwrap();
    let known: BTreeSet<&str> = names.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let answer = |(panel, query): &(String, String)| {
        let selectors = selectors(query);
        let unknown = selectors.iter().map(|s| &s.metric).filter(|metric| !known.contains(metric.as_str()));
        let selects_nothing =
            |s: &&Selector| ask(&agent, prometheus_url, &s.text).is_ok_and(|series| series.is_empty());
        Answer {
            panel: panel.clone(),
            query: query.clone(),
            series: ask(&agent, prometheus_url, query),
            unknown: unknown.cloned().collect(),
            unmatched: selectors.iter().filter(selects_nothing).map(|s| s.text.clone()).collect(),
        }
    };
    queries.iter().map(answer).collect()
}

/// All panels of the dashboard, those of collapsed rows too, without the rows.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().expect("panels").iter();
    let all = top.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()));
    all.filter(|panel| panel["type"] != "row").collect()
}

/// The dashboard's queries with Grafana's variables filled in, each with its panel's title.
pub fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard = yaml("deploy/grafana/dashboards/strand.json");
    let mut queries = Vec::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().expect("targets") {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        if annotation["expr"].is_string() {
            queries.push((format!("annotation {}", text(&annotation["name"])), text(&annotation["expr"])));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some((_, rest)) = variable["definition"].as_str().and_then(|d| d.split_once("label_values(")) {
            let (metric, label) = rest.trim_end_matches(')').split_once(',').expect("a metric and a label");
            queries.push((format!("variable {}", text(&variable["name"])), format!("count by ({label}) ({metric})")));
        }
    }
    for (_, query) in &mut queries {
        for (variable, value) in [("$__rate_interval", "1m"), ("$instance", ".*")] {
            *query = query.replace(variable, value);
        }
    }
    queries
}

/// The alerts' expressions, each with the alert's name.
pub fn alert_queries() -> Vec<(String, String)> {
    alerts().iter().map(|alert| (text(&alert["alert"]), text(&alert["expr"]))).collect()
}

/// The rules of deploy/prometheus/alerts.yml.
pub fn alerts() -> Vec<Value> {
    let file = yaml("deploy/prometheus/alerts.yml");
    let groups = file["groups"].as_array().expect("groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_string()
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.build().new_agent()
}

/// The data of an answer of Prometheus's HTTP interface, or what it says was wrong.
fn get(agent: &ureq::Agent, url: &str) -> Result<Value, String> {
    let mut response = agent.get(url).call().map_err(|e| format!("{url}: {e}"))?;
    data(&mut response)
}

/// The series that an expression has now.
fn ask(agent: &ureq::Agent, prometheus_url: &str, expression: &str) -> Result<Vec<Value>, String> {
    let answered = agent.post(format!("{prometheus_url}/api/v1/query")).send_form([("query", expression)]);
    let data = data(&mut answered.map_err(|e| e.to_string())?)?;
    data["result"].as_array().cloned().ok_or_else(|| format!("an answer without a result: {data}"))
}

fn data(response: &mut ureq::http::Response<ureq::Body>) -> Result<Value, String> {
    let body: Value = response.body_mut().read_json().map_err(|e| e.to_string())?;
    match body["status"] == "success" {
        true => Ok(body["data"].clone()),
        false => Err(body["error"].as_str().unwrap_or("an error without words").to_string()),
    }
}

/// A metric in an expression, and the metric with its matchers as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    pub text: String,
}

/// The selectors in a PromQL expression, without ranges and offsets.
pub fn selectors(expression: &str) -> Vec<Selector> {
    const OPERATORS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];
    const LABELS_FOLLOW: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.');
    let mut found = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        if let '"' | '\'' | '[' | '{' = first {
            rest = &rest[bracketed(rest)..];
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            rest = rest[end..].trim_start();
            let next: String = rest.chars().take_while(|c| c.is_ascii_lowercase()).collect();
            if LABELS_FOLLOW.contains(&word) {
                if rest.starts_with('(') {
                    rest = &rest[bracketed(rest)..];
                }
            } else if !first.is_ascii_digit()
                && !OPERATORS.contains(&word.to_ascii_lowercase().as_str())
                && !rest.starts_with('(')
                && !["by", "without"].contains(&next.as_str())
            {
                let matchers = if rest.starts_with('{') { bracketed(rest) } else { 0 };
                found.push(Selector { metric: word.to_string(), text: format!("{word}{}", &rest[..matchers]) });
                rest = &rest[matchers..];
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    found
}

/// The length of the text in quotes or brackets with which `text` begins.
fn bracketed(text: &str) -> usize {
    let open = text.chars().next().expect("a quote or a bracket");
    let close = match open {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        quote => quote,
    };
    let mut at = 1;
    while let Some(c) = text[at..].chars().next() {
        if c == close {
            return at + 1;
        }
        at += match c {
            // Within brackets a text may hold the bracket that closes them.
            '"' | '\'' if close != '"' && close != '\'' => bracketed(&text[at..]),
            '\\' if close == open => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            c => c.len_utf8(),
        };
    }
    text.len()
}
