//! `strand check`: would `strand run` start? Reads the configuration and the model; with `--online` asks Kafka too.

use super::run::RunArgs;
use strand::config::TransportKind;
use strand::daemon::load_model;
use strand::events::Events;
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
    let model = load_model(&config)?;
    let (format, pointer) = config.input.resolve(model.encoder().spec())?;
    println!("model: {} ({}), fingerprint {:.12}", model.spec().name, config.model.display(), model.fingerprint());
    let format = format!("{format:?}").to_lowercase();
    match pointer {
        Some(pointer) => println!("input.format: json, {format} at {pointer}"),
        None => println!("input.format: {format}"),
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
