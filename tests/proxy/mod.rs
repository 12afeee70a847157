//! A TCP proxy for tests: between a client and a server it makes the connection slow, cuts it, holds it back, or refuses
//! it. What it does can be changed at any time, also for connections that are open.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What becomes of what goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line {
    Clear,
    /// Each piece comes this much later, and there is room for so many bytes a second in each direction of a connection.
    Slow {
        latency: Duration,
        bytes_per_second: usize,
    },
    /// A connection is cut this long after it was opened, give or take half of it, in the middle of a piece if one is
    /// on its way.
    Cutting(Duration),
    /// Nothing comes through, and nobody is told; what was on its way comes once the line is another.
    Silent,
    /// Open connections are cut and new ones closed at once.
    Refusing,
}

/// How often a connection looks at what the line is.
const LOOK: Duration = Duration::from_millis(20);

struct Shared {
    line: Mutex<Line>,
    target: Mutex<Option<SocketAddr>>,
    ended: AtomicBool,
    opened: AtomicUsize,
    cut: AtomicUsize,
}

/// A running proxy. All its connections are cut when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// On a free port; where to is said later, by [`Proxy::lead_to`].
    pub fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            line: Mutex::new(Line::Clear),
            target: Mutex::default(),
            ended: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, accepting.clone()) else { continue };
                std::thread::spawn(move || connection(&client, &shared));
            }
        });
        Proxy { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    pub fn set(&self, line: Line) {
        *self.shared.line.lock().unwrap() = line;
    }

    /// How many connections were opened, and how many the proxy has cut.
    pub fn counts(&self) -> (usize, usize) {
        (self.shared.opened.load(Ordering::Relaxed), self.shared.cut.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // So that the listener looks.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// What the line is; waits as long as it is silent. None: everything has ended.
    fn line(&self) -> Option<Line> {
        loop {
            let line = *self.line.lock().unwrap();
            if self.ended.load(Ordering::Relaxed) {
                return None;
            }
            if line != Line::Silent {
                return Some(line);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn connection(client: &TcpStream, shared: &Shared) {
    let target = *shared.target.lock().unwrap();
    if matches!(shared.line(), None | Some(Line::Refusing)) {
        return;
    }
    let Some(Ok(server)) = target.map(TcpStream::connect) else { return };
    let number = shared.opened.fetch_add(1, Ordering::Relaxed);
    // Connections that are opened together are not cut together.
    let share = 0.5 + (number * 7 % 10) as f64 / 10.0;
    for stream in [client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
    }
    let (opened, is_cut) = (Instant::now(), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (from, to) in [(client, &server), (&server, client)] {
            scope.spawn(move || {
                if pump(from, to, shared, opened, share) && !is_cut.swap(true, Ordering::Relaxed) {
                    shared.cut.fetch_add(1, Ordering::Relaxed);
                }
                // Either may be closed already. The other direction ends with it.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
}

/// Hands on what comes. True: the proxy cut it.
fn pump(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared, opened: Instant, share: f64) -> bool {
    let mut piece = vec![0; 16 << 10];
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => return false,
        };
        let whole = match shared.line() {
            None | Some(Line::Refusing) => return true,
            Some(Line::Cutting(after)) => opened.elapsed() < after.mul_f64(share),
            Some(Line::Slow { latency, bytes_per_second }) if read > 0 => {
                std::thread::sleep(latency + Duration::from_secs_f64(read as f64 / bytes_per_second as f64));
                true
            }
            Some(_) => true,
        };
        if to.write_all(&piece[..if whole { read } else { read / 2 }]).is_err() {
            return false;
        }
        if !whole {
            return true;
        }
    }
}
