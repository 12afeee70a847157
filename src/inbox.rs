//! Receiving from another thread that may be about to send.
//!
//! A thread that sleeps takes tens of microseconds to wake up, as long as a small batch takes to compute. So who was handed
//! the last thing within that time looks for the next one for as long before it sleeps. It yields the processor while it
//! looks, and never looks for longer: a thread whose core was taken away holds nobody up.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// How long is looked for what comes next.
const LOOK: Duration = Duration::from_micros(100);

/// The receiving end of a channel.
pub struct Inbox<T> {
    from: Receiver<T>,
    /// The last thing came soon after it was waited for.
    soon: Cell<bool>,
}

impl<T> Inbox<T> {
    pub fn new(from: Receiver<T>) -> Inbox<T> {
        Inbox { from, soon: Cell::new(false) }
    }

    /// As [`Receiver::recv`].
    ///
    /// # Errors
    /// If all senders are gone.
    pub fn receive(&self) -> Result<T, RecvError> {
        self.wait(|from| from.recv().map_err(|_| RecvTimeoutError::Disconnected)).map_err(|_| RecvError)
    }

    /// As [`Receiver::recv_timeout`].
    ///
    /// # Errors
    /// If all senders are gone, or nothing came in time.
    pub fn receive_within(&self, wait: Duration) -> Result<T, RecvTimeoutError> {
        self.wait(|from| from.recv_timeout(wait))
    }

    fn wait(&self, sleep: impl FnOnce(&Receiver<T>) -> Result<T, RecvTimeoutError>) -> Result<T, RecvTimeoutError> {
        let since = Instant::now();
        while self.soon.get() {
            match self.from.try_recv() {
                Ok(thing) => return Ok(thing),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if since.elapsed() < LOOK => std::thread::yield_now(),
                Err(TryRecvError::Empty) => break,
            }
        }
        let thing = sleep(&self.from);
        // Waking up takes about as long as looking.
        self.soon.set(since.elapsed() < 2 * LOOK);
        thing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn all_that_is_sent_is_received_in_order_whether_soon_or_late() {
        let (sender, receiver) = channel();
        let sending = std::thread::spawn(move || {
            for k in 0..2000 {
                if k % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                sender.send(k).unwrap();
            }
        });
        let inbox = Inbox::new(receiver);
        let received: Vec<i32> = std::iter::from_fn(|| inbox.receive().ok()).collect();
        sending.join().unwrap();
        assert_eq!(received, (0..2000).collect::<Vec<i32>>());
        assert_eq!(inbox.receive_within(Duration::from_millis(1)), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn nothing_in_time_is_told() {
        let (sender, receiver) = channel::<()>();
        let inbox = Inbox::new(receiver);
        for _ in 0..2 {
            assert_eq!(inbox.receive_within(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        }
        sender.send(()).unwrap();
        assert_eq!(inbox.receive(), Ok(()));
    }
}
