//! `strand check`: would `strand run` start? Reads the configuration and the model; with `--online` asks Kafka too.

use super::run::RunArgs;
use std::path::Path;
use strand::config::TransportKind;
use strand::daemon::Models;
use strand::encode::InputFormat;
use strand::events::Events;
use strand::model::Model;
use strand::transport::kafka;

/// Check a configuration and its model without running.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Connect to Kafka and check brokers, topics and group, without consuming or changing anything
    #[arg(long)]
    pub online: bool,
}

/// Prints what was checked; the error says what is wrong.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let config = args.run.config()?;
    println!("configuration: fine");
    let is_kafka = config.transport.kind == TransportKind::Kafka;
    if is_kafka || !config.kafka.properties.is_empty() {
        kafka::check_properties(&config.kafka)?;
        println!("kafka.properties: fine ({} given)", config.kafka.properties.len());
    }
    let Models { model, format: (format, pointer), previous } = Models::load(&config)?;
    let tell = |key: &str, model: &Model, dir: &Path, format: InputFormat| {
        println!("{key}: {} ({}), fingerprint {:.12}", model.spec().name, dir.display(), model.fingerprint());
        let format = match model.spec().generate {
            Some(_) => "prompt".to_string(),
            None => format!("{format:?}").to_lowercase(),
        };
        match &pointer {
            Some(pointer) => println!("input.format: json, {format} at {pointer}"),
            None => println!("input.format: {format}"),
        }
    };
    tell("model", &model, &config.model, format);
    if let (Some((previous, format)), Some(dir)) = (previous, &config.previous_model) {
        println!("on_model_change: drain; live streams of the previous model go on with it until they end");
        tell("previous_model", &previous, dir, format);
    }
    if args.online {
        if !is_kafka {
            return Err(super::usage("--online needs transport.kind = \"kafka\": the others have nobody to ask"));
        }
        let found = kafka::check_online(&config, &Events::new(&[])?).map_err(anyhow::Error::msg)?;
        found.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}
