//! Reading a configuration: file, `${ENV}`, `--set`, then every mistake told with its place and what was meant.

use super::{Config, Property};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Why a configuration cannot be used. Programs end with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {detail}", path.display())]
    Syntax { path: PathBuf, detail: String },
    #[error("{place}: unknown key `{key}`{hint}")]
    UnknownKey { place: String, key: String, hint: String },
    #[error("{key}: the environment variable {name} is not set")]
    NoVariable { key: String, name: String },
    #[error("--set {0:?}: expected key=value, such as http.listen=127.0.0.1:8080")]
    Set(String),
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// The defaults, then the file at `path` (if given) with `${NAME}` replaced by the environment's, then `sets`
    /// (`key=value`, later ones winning).
    pub fn load(path: Option<&Path>, sets: &[String]) -> Result<Config, ConfigError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?,
            None => String::new(),
        };
        Config::parse(&text, path, sets, &|name| std::env::var(name).ok())
    }

    /// As [`Config::load`], from a text and a given environment.
    pub fn parse(
        text: &str,
        path: Option<&Path>,
        sets: &[String],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let file = path.unwrap_or(Path::new("configuration"));
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| ConfigError::Syntax { path: file.to_path_buf(), detail: e.to_string() })?;
        for set in sets {
            apply(&mut table, set)?;
        }
        for (key, value) in &mut table {
            expand(key, value, env)?;
        }
        let config: Config = Value::Table(table).try_into().map_err(|e| explain(&e, text, file))?;
        config.check()?;
        Ok(config)
    }

    /// What types alone cannot say.
    fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("pipeline.batch_records", self.pipeline.batch_records as u64),
            ("pipeline.batch_bytes", self.pipeline.batch_bytes.0),
            ("pipeline.commit_records", self.pipeline.commit_records as u64),
            ("pipeline.commit_bytes", self.pipeline.commit_bytes.0),
            ("input.max_record_bytes", self.input.max_record_bytes.0),
            ("state.max_resident", self.state.max_resident as u64),
            ("state.memory", self.state.memory.0),
            ("embedded.queue_max_records", self.embedded.queue_max_records),
            ("embedded.queue_max_bytes", self.embedded.queue_max_bytes.0),
            ("http.max_request_bytes", self.http.max_request_bytes.0),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Invalid(format!("{key} must be greater than 0")));
        }
        // Greater numbers are mistakes, and would overflow where room is counted.
        let bounded = [
            ("pipeline.threads", self.pipeline.threads as u64, 1024),
            ("pipeline.batch_records", self.pipeline.batch_records as u64, 1 << 24),
            ("input.max_record_bytes", self.input.max_record_bytes.0, 1 << 30),
            ("http.max_request_bytes", self.http.max_request_bytes.0, 1 << 32),
            ("http.max_followers", self.http.max_followers as u64, 1 << 20),
        ];
        if let Some((key, _, most)) = bounded.iter().find(|(_, value, most)| value > most) {
            return Err(ConfigError::Invalid(format!("{key} may be at most {most}")));
        }
        if !self.input.pointer.is_empty() && !self.input.pointer.starts_with('/') {
            let pointer = &self.input.pointer;
            let detail =
                format!("input.pointer = {pointer:?} is no JSON Pointer: it begins with \"/\", as in \"/text\"");
            return Err(ConfigError::Invalid(detail));
        }
        if self.http.token.as_deref() == Some("") {
            return Err(ConfigError::Invalid("http.token is empty; leave it out to ask for none".to_string()));
        }
        tracing_subscriber::EnvFilter::try_new(&self.log.level)
            .map_err(|e| ConfigError::Invalid(format!("log.level = {:?}: {e}", self.log.level)))?;
        Ok(())
    }
}

/// Replaces `${NAME}` in every string under `value`; `$${` stands for `${`.
fn expand(key: &str, value: &mut Value, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    match value {
        Value::String(text) if text.contains("${") => {
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find("${") {
                if rest[..at].ends_with('$') {
                    out.push_str(&rest[..at]);
                    out.push('{');
                    rest = &rest[at + 2..];
                    continue;
                }
                let Some(end) = rest[at..].find('}') else { break };
                let name = &rest[at + 2..at + end];
                let found = env(name);
                let found = found.ok_or_else(|| ConfigError::NoVariable { key: key.into(), name: name.into() })?;
                out.push_str(&rest[..at]);
                out.push_str(&found);
                rest = &rest[at + end + 1..];
            }
            out.push_str(rest);
            *text = out;
            Ok(())
        }
        Value::Table(table) => {
            table.iter_mut().try_for_each(|(name, value)| expand(&format!("{key}.{name}"), value, env))
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| expand(key, value, env)),
        _ => Ok(()),
    }
}

/// Puts one `--set key=value` into the table. The value is read as TOML and, where it is none, as text.
pub fn apply(table: &mut Table, set: &str) -> Result<(), ConfigError> {
    let (key, text) = set.split_once('=').ok_or_else(|| ConfigError::Set(set.to_string()))?;
    let value = match format!("v = {text}").parse::<Table>() {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("v").unwrap_or_else(|| Value::String(text.to_string())),
        _ => Value::String(text.to_string()),
    };
    // librdkafka's property names have dots themselves.
    let parts: Vec<&str> = match key.strip_prefix("kafka.properties.") {
        Some(property) => vec!["kafka", "properties", property],
        None => key.split('.').collect(),
    };
    let (last, parents) = parts.split_last().ok_or_else(|| ConfigError::Set(set.to_string()))?;
    if parts.iter().any(|part| part.trim().is_empty()) {
        return Err(ConfigError::Set(set.to_string()));
    }
    let mut place = table;
    for parent in parents {
        let entry = place.entry(parent.trim()).or_insert_with(|| Value::Table(Table::new()));
        place = entry.as_table_mut().ok_or_else(|| ConfigError::Set(set.to_string()))?;
    }
    place.insert(last.trim().to_string(), value);
    Ok(())
}

/// Turns serde's words into ours: the place, the key, the nearest valid name.
fn explain(error: &toml::de::Error, text: &str, file: &Path) -> ConfigError {
    let message = error.to_string();
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default().to_string();
    let within = lines.find_map(|line| line.strip_prefix("in `")).and_then(|line| line.strip_suffix('`'));
    let names: Vec<&str> = first.split('`').skip(1).step_by(2).collect();
    if first.starts_with("unknown field") && !names.is_empty() {
        let key = within.map_or(names[0].to_string(), |within| match within.rsplit_once('.') {
            // toml names the path with the key itself or without it, by version.
            Some((_, last)) if last == names[0] => within.to_string(),
            _ if within == names[0] => within.to_string(),
            _ => format!("{within}.{}", names[0]),
        });
        let nearest = names[1..].iter().map(|name| (strsim::damerau_levenshtein(names[0], name), name)).min();
        let hint = match nearest {
            Some((distance, name)) if distance <= names[0].len().max(3) / 2 => format!("; did you mean `{name}`?"),
            _ => format!("; known here: {}", names[1..].join(", ")),
        };
        return ConfigError::UnknownKey { place: place(&key, text, file), key, hint };
    }
    let key = within.unwrap_or_default();
    ConfigError::Invalid(format!("{}: {key}{}{first}", place(key, text, file), if key.is_empty() { "" } else { ": " }))
}

/// `file:line` of a key in the file's text; the file alone where it is not found there (it came by `--set`).
fn place(key: &str, text: &str, file: &Path) -> String {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut within = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            within = header.trim().to_string();
            if within == key {
                return format!("{}:{}", file.display(), number + 1);
            }
        } else if let Some((left, _)) = line.split_once('=') {
            let full = if within.is_empty() { left.trim().to_string() } else { format!("{within}.{}", left.trim()) };
            if full == key || (within == table && left.trim() == name) {
                return format!("{}:{}", file.display(), number + 1);
            }
        }
    }
    file.display().to_string()
}

impl Property {
    /// Whether the property says anything (an empty text unsets).
    pub fn is_empty(&self) -> bool {
        matches!(self, Property::Text(text) if text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bytes, Listen, Period, TransportKind};
    use super::*;

    fn parse(text: &str, sets: &[&str]) -> Result<Config, String> {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let env = |name: &str| (name == "TOKEN").then(|| "s3cret".to_string());
        Config::parse(text, Some(Path::new("a.toml")), &sets, &env).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_work_without_a_file() {
        assert_eq!(parse("", &[]).unwrap(), Config::default());
    }

    #[test]
    fn set_wins_over_the_file() {
        let config = parse("[state]\nmax_resident = 5", &["state.max_resident=7", "http.listen=127.0.0.1:0"]).unwrap();
        assert_eq!(config.state.max_resident, 7);
        assert_eq!(config.http.listen, Some(Listen::At("127.0.0.1:0".parse().unwrap())));
        let config =
            parse("", &["transport.kind=stdio", "state.stream_ttl=5s", "input.max_record_bytes=2KiB"]).unwrap();
        assert_eq!(config.transport.kind, TransportKind::Stdio);
        assert_eq!(config.state.stream_ttl, Period::seconds(5));
        assert_eq!(config.input.max_record_bytes, Bytes(2048));
    }

    #[test]
    fn secrets_come_from_the_environment() {
        let config = parse("[http]\ntoken = \"${TOKEN}\"", &[]).unwrap();
        assert_eq!(config.http.token.as_deref(), Some("s3cret"));
        let config = parse("[http]\ntoken = \"a$${TOKEN}\"", &[]).unwrap();
        assert_eq!(config.http.token.as_deref(), Some("a${TOKEN}"));
        let error = parse("[http]\ntoken = \"${NOPE}\"", &[]).unwrap_err();
        assert_eq!(error, "http.token: the environment variable NOPE is not set");
    }

    #[test]
    fn a_misspelt_key_is_refused_with_the_nearest_name() {
        let error = parse("\n[pipeline]\nbatch_recrods = 5", &[]).unwrap_err();
        assert_eq!(error, "a.toml:3: unknown key `pipeline.batch_recrods`; did you mean `batch_records`?");
        let error = parse("[pipelin]\nthreads = 5", &[]).unwrap_err();
        assert_eq!(error, "a.toml:1: unknown key `pipelin`; did you mean `pipeline`?");
        let error = parse("", &["http.adress=1"]).unwrap_err();
        assert!(error.starts_with("a.toml: unknown key `http.adress`; known here: listen"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_told_with_its_place() {
        let error = parse("[http]\nlisten = \"nowhere\"", &[]).unwrap_err();
        assert!(error.starts_with("a.toml:2: http.listen: \"nowhere\" is no address"), "{error}");
        let error = parse("[transport]\nkind = \"nats\"", &[]).unwrap_err();
        assert!(error.contains("a.toml:2") && error.contains("`embedded`"), "{error}");
        assert!(parse("[state]\nmax_resident = 0", &[]).unwrap_err().contains("greater than 0"));
        let error = parse("[http]\nmax_followers = 9223372036854775807", &[]).unwrap_err();
        assert_eq!(error, "http.max_followers may be at most 1048576");
        assert!(parse("[log]\nlevel = \"strand=loud\"", &[]).unwrap_err().contains("log.level"));
        assert!(parse("", &["novalue"]).unwrap_err().contains("key=value"));
    }
}
