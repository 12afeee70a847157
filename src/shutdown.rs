//! Shutdown as a value: whoever runs for long holds a [`Shutdown`] and ends when it is requested.
//!
//! Nothing here is global. Signals are turned into a request in one place, [`Shutdown::request_on_signals`].

use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How soon a thread that sleeps hears of a request.
const MOMENT: Duration = Duration::from_millis(50);

/// Handed to every long-lived task and thread; all clones see the same request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks everyone who holds a clone to finish what is in flight and end. Asking twice changes nothing.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Asks when it is dropped: for whoever the others cannot do without, however it ends.
    pub fn request_on_drop(&self) -> DropGuard {
        self.0.clone().drop_guard()
    }

    /// For threads, which look between two pieces of work.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// For threads: sleeps this long, or until shutdown is requested.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_requested() {
            std::thread::sleep(MOMENT.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// For tasks: resolves when shutdown is requested.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Requests shutdown on the first SIGTERM or Ctrl-C; a second one ends the process at once, with exit code 1.
    /// Call inside a tokio runtime.
    pub fn request_on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if shutdown.is_requested() {
                    tracing::error!(signal = name, "second signal: ending at once; what was acknowledged is on disk");
                    std::process::exit(1);
                }
                tracing::info!(signal = name, "shutting down: finishing what is in flight");
                shutdown.request();
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_requests_it_too() {
        let shutdown = Shutdown::new();
        let guard = shutdown.request_on_drop();
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            panic!("as a defect would");
        });
        assert!(thread.join().is_err() && shutdown.is_requested());
    }

    #[tokio::test]
    async fn every_clone_sees_the_request() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        assert!(!other.is_requested());
        shutdown.request();
        other.requested().await;
        assert!(other.is_requested());
    }
}
