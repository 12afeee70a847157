//! `strand check`: would `strand run` start? Reads the configuration and the model, touches nothing else.

use super::run::RunArgs;
use strand::config::TransportKind;
use strand::daemon::load_model;

/// Check a configuration and its model without running.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub run: RunArgs,
}

/// Prints what was checked; the error says what is wrong.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let config = args.run.config()?;
    println!("configuration: fine");
    if config.transport.kind == TransportKind::Kafka || !config.kafka.properties.is_empty() {
        config.check_kafka_properties()?;
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
    if config.transport.kind == TransportKind::Kafka {
        println!("transport: kafka (checked, but not run by this version)");
    }
    Ok(())
}
