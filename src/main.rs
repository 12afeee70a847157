use clap::Parser;
use strand::cli::{check, run};

#[derive(Parser)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
}

fn main() -> std::process::ExitCode {
    let result = match Command::parse() {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strand: {error:#}");
            let usage = error.chain().any(|e| e.is::<strand::config::ConfigError>());
            std::process::ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
