//! The configuration: a TOML text, then `--set` arguments.
//!
//! Bytes: the text; each line after a line `====` is an argument of `--set`.

use super::formats;
use strand::config::Config;
use strand::events::Events;
use strand::health::Health;
use strand::http::App;
use strand::shutdown::Shutdown;

/// What is refused is refused with words; what is taken can be written down, read again, and be worked with.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (text, sets) = text.split_once("\n====\n").unwrap_or((&text, ""));
    let sets: Vec<String> = sets.lines().map(str::to_string).collect();
    let env = |name: &str| (name.len() < 8).then(|| name.to_lowercase());
    match Config::parse(text, None, &sets, &env) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            let mut written = toml::Value::try_from(&config).unwrap();
            escape(&mut written);
            let written = toml::to_string(&written).unwrap();
            let again = Config::parse(&written, None, &[], &|_| None);
            assert_eq!(again.map_err(|error| error.to_string()).as_ref(), Ok(&config));
            formats::with_models(|models| {
                let events = Events::new(&models[0].spec().labels).unwrap();
                let health = Health::new(events.clone(), &[]);
                App::new(&config, &models[0], None, events, health, Shutdown::new());
            });
        }
    }
}

/// `${` in a value would ask for a variable.
fn escape(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = text.replace("${", "$${"),
        toml::Value::Array(values) => values.iter_mut().for_each(escape),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| escape(value)),
        _ => {}
    }
}
