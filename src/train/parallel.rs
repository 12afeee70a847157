//! Work shared by a number of threads. What is computed never depends on how many there are: only who does it.

use std::sync::Mutex;

/// Calls `work` on every item, on up to `threads` threads (the caller's is one of them).
pub fn for_each<I: Send>(threads: usize, items: Vec<I>, work: impl Fn(I) + Sync) {
    if threads <= 1 || items.len() <= 1 {
        return items.into_iter().for_each(work);
    }
    let others = threads.min(items.len()) - 1;
    let queue = Mutex::new(items.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let drain = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(drain);
        }
        drain();
    });
}
