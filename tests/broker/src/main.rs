//! The test broker as a process of its own, to be killed and started again.

use clap::Parser;
use std::path::PathBuf;
use strand_test_broker::{Broker, Options};

/// A small Kafka broker for tests
#[derive(Parser)]
struct Args {
    /// Where everything is kept
    #[arg(long)]
    dir: PathBuf,
    /// Address and port for clients; port 0 is a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Address and port for commands, one a line: fault delay|late|hold|drop-before|drop-after|cut|error|die API COUNT [MS
    /// or ERROR CODE] [of CLIENT ID], fault clear, deny|allow describe|read|write TOPIC, deny|allow group GROUP
    #[arg(long)]
    control: Option<String>,
    /// Create topics that clients ask for
    #[arg(long)]
    auto_create_topics: bool,
    /// Partitions of topics for which nothing else is asked
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// A user for SASL PLAIN, as NAME:PASSWORD; may be given several times
    #[arg(long)]
    user: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut options = Options::new(args.dir);
    (options.listen, options.control) = (args.listen, args.control);
    (options.auto_create_topics, options.default_partitions) = (args.auto_create_topics, args.partitions);
    for user in args.user {
        let Some((name, password)) = user.split_once(':') else { anyhow::bail!("a user is NAME:PASSWORD") };
        options.users.insert(name.to_string(), password.to_string());
    }
    let broker = Broker::start(options)?;
    println!("listening on {}", broker.address());
    if let Some(control) = broker.control() {
        println!("commands on {control}");
    }
    broker.wait();
    anyhow::bail!("ended by a fault")
}
