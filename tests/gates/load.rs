//! Clients that open a connection, read one line, and begin again; what went wrong is counted by its words.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many there are; each has one connection at a time.
pub(super) const CLIENTS: usize = 3;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    answers: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.over.load(Ordering::Relaxed) {
                    match ask(port) {
                        Ok(()) => _ = shared.answers.fetch_add(1, Ordering::Relaxed),
                        Err(why) => shared.wrong.lock().expect("nobody panics with it").push(why),
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        Self { clients: (0..CLIENTS).map(client).collect(), shared }
    }

    /// Waits until so many were answered.
    pub(super) fn await_answers(&self, wanted: u64) {
        let deadline = Instant::now() + super::PATIENCE;
        while self.answers() < wanted {
            assert!(Instant::now() < deadline, "{:?}", self.shared);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many were answered so far.
    pub(super) fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Ends it; what went wrong.
    pub(super) fn end(self) -> Vec<String> {
        self.shared.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        std::mem::take(&mut *self.shared.wrong.lock().expect("nobody panics with it"))
    }
}

fn ask(port: u16) -> Result<(), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    if answer.starts_with("ok ") { Ok(()) } else { Err(format!("answered {answer:?}")) }
}
