//! The `strand` program: reads the command line, runs the command, turns errors into words and exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod cli;

use std::process::ExitCode;
use strand::config::ConfigError;
use strand::daemon::DaemonError;

fn main() -> ExitCode {
    let Err(error) = cli::run() else {
        return ExitCode::SUCCESS;
    };
    if error.chain().any(|cause| cause.is::<cli::OutputClosed>()) {
        // Whoever read our output has seen enough (`strand tag … | head`).
        return ExitCode::SUCCESS;
    }
    // Some errors say their cause themselves.
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.last().is_none_or(|said| !said.contains(&cause)) {
            words.push(cause);
        }
    }
    eprintln!("strand: {}", words.join(": "));
    match error.chain().any(is_usage) {
        true => ExitCode::from(2),
        false => ExitCode::FAILURE,
    }
}

fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<cli::Usage>()
        || cause.is::<ConfigError>()
        || cause.downcast_ref().is_some_and(|error| matches!(error, DaemonError::Config(_)))
}
