//! Clients that open a connection, read one line, and begin again. What went wrong is kept by its words; whoever was
//! accepted and got no answer asks again, and is answered then.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many there are; each has one connection at a time.
const CLIENTS: usize = 3;
/// So many cut connections are more than any story has.
const CUT_MAX: usize = 100;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    answers: AtomicU64,
    /// Connections that were accepted and ended without an answer.
    cut: AtomicUsize,
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
                    shared.ask(port);
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

    /// Ends it: nobody was refused, all were answered in the end, and cut were at most all clients at once for each of
    /// `ends` of whoever had accepted them. Tighter cannot be: each has one connection at a time.
    #[track_caller]
    pub(super) fn nobody_was_refused(self, ends: usize) {
        self.shared.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        let wrong = self.shared.wrong.lock().expect("nobody panics with it");
        assert_eq!(*wrong, Vec::<String>::new());
        let cut = self.shared.cut.load(Ordering::Relaxed);
        assert!(cut <= ends * CLIENTS, "{cut} were cut by {ends} ends");
    }
}

impl Shared {
    /// Asks until there is an answer.
    fn ask(&self, port: u16) {
        let why = loop {
            match ask(port) {
                Ok(true) => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(false) if self.cut.fetch_add(1, Ordering::Relaxed) >= CUT_MAX => {
                    break "cut again and again".to_owned();
                }
                Ok(false) => {}
                Err(why) => break why,
            }
        };
        self.wrong.lock().expect("nobody panics with it").push(why);
    }
}

/// Whether there was an answer; without one its connection was cut.
fn ask(port: u16) -> Result<bool, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) if answer.is_empty() => Ok(false),
        Ok(_) if answer.starts_with("ok ") => Ok(true),
        Ok(_) => Err(format!("answered {answer:?}")),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(format!("read: {error}")),
    }
}
