//! The clients: short requests, long tasks and streams to every app, until they are told to end.
//!
//! Owns a thread a client, and the tallies. A client makes a connection a request and reads it to its end; whatever does
//! not come whole is lost, and the first reason is kept. It knows nothing of reloads.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::instance::App;

/// Longest silence of a server that a client bears, and longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause of a short client between two requests: the load is to be felt, not to be a benchmark.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the load may take to get under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A short request.
    Request,
    /// A request that takes long.
    Task,
    /// A stream of events that takes long.
    Stream,
}

impl Work {
    pub(crate) const ALL: [Self; 3] = [Self::Request, Self::Task, Self::Stream];

    const fn clients(self) -> usize {
        match self {
            Self::Request => 6,
            Self::Task | Self::Stream => 4,
        }
    }

    fn target(self, task: Duration) -> String {
        match self {
            Self::Request => "/".to_owned(),
            Self::Task => format!("/long?s={}", task.as_secs_f32()),
            Self::Stream => format!("/sse?s={}", task.as_secs_f32()),
        }
    }

    const fn pause(self) -> Duration {
        match self {
            Self::Request => PAUSE,
            Self::Task | Self::Stream => Duration::ZERO,
        }
    }
}

/// How one kind of work went with one app.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Begun and not yet ended.
    pub(crate) in_flight: u64,
    /// Came whole.
    pub(crate) finished: u64,
    /// Did not.
    pub(crate) lost: u64,
    /// Why the first of them did not.
    pub(crate) first_loss: Option<String>,
}

/// The tallies of one app, in the order of [`Work::ALL`].
pub(crate) type Tallies = [Tally; 3];

struct Shared {
    stop: AtomicBool,
    tallies: Mutex<Vec<Tallies>>,
    changed: Condvar,
}

impl Shared {
    fn tallies(&self) -> MutexGuard<'_, Vec<Tallies>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clients under way.
pub(crate) struct Load {
    shared: Arc<Shared>,
    kinds: Vec<Work>,
    clients: Mutex<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Begins work of every kind.
    pub(crate) fn begin(apps: &[App], task: Duration) -> Self {
        Self::of(apps, &Work::ALL, task)
    }

    /// Begins work of these kinds; long work takes `task`.
    pub(crate) fn of(apps: &[App], kinds: &[Work], task: Duration) -> Self {
        let tallies = Mutex::new(vec![Tallies::default(); apps.len()]);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), tallies, changed: Condvar::new() });
        let mut clients = Vec::new();
        for (app, App { address, .. }) in apps.iter().enumerate() {
            for &work in kinds {
                for _ in 0..work.clients() {
                    let (shared, address, target) = (Arc::clone(&shared), *address, work.target(task));
                    clients.push(thread::spawn(move || shared.work(app, work, address, &target)));
                }
            }
        }
        Self { shared, kinds: kinds.to_vec(), clients: Mutex::new(clients) }
    }

    /// Waits until every kind of work is under way with every app.
    pub(crate) fn await_all_kinds(&self) {
        let lacks = |tallies: &mut Vec<Tallies>| {
            let begun = |tally: &Tally| tally.in_flight + tally.finished + tally.lost > 0;
            tallies.iter().any(|app| self.kinds.iter().any(|&work| !begun(&app[work as usize])))
        };
        let tallies = self.shared.tallies();
        drop(self.shared.changed.wait_timeout_while(tallies, UNDER_WAY, lacks));
    }

    /// Waits until `until` while clients go on.
    pub(crate) fn await_requests_until(&self, until: Instant) {
        let tallies = self.shared.tallies();
        let left = until.saturating_duration_since(Instant::now());
        drop(self.shared.changed.wait_timeout_while(tallies, left, |_| true));
    }

    /// One line on how it stands.
    pub(crate) fn progress(&self) -> String {
        let tallies = self.shared.tallies();
        let sum = |count: fn(&Tally) -> u64, kinds: &[Work]| -> u64 {
            tallies.iter().map(|app| kinds.iter().map(|&work| count(&app[work as usize])).sum::<u64>()).sum()
        };
        let requests = sum(|tally| tally.finished, &[Work::Request]);
        let long = sum(|tally| tally.in_flight, &[Work::Task, Work::Stream]);
        let lost = sum(|tally| tally.lost, &Work::ALL);
        format!("{requests} requests, {long} long in flight, {lost} lost")
    }

    /// Begins nothing more, lets everything under way come to its end, and returns the tallies by app.
    pub(crate) fn end(&self) -> Vec<Tallies> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for client in clients {
            client.join().expect("a client's thread does not panic");
        }
        self.shared.tallies().clone()
    }
}

impl Shared {
    fn work(&self, app: usize, work: Work, address: SocketAddr, target: &str) {
        while !self.stop.load(Ordering::SeqCst) {
            self.tallies()[app][work as usize].in_flight += 1;
            self.changed.notify_all();
            let outcome = ask(work, address, target);
            let tally = &mut self.tallies()[app][work as usize];
            tally.in_flight -= 1;
            match outcome {
                Ok(()) => tally.finished += 1,
                Err(why) => {
                    tally.lost += 1;
                    tally.first_loss.get_or_insert_with(|| why.to_string());
                }
            }
            thread::sleep(work.pause());
        }
    }
}

/// One request on a connection of its own, read to its end.
fn ask(work: Work, address: SocketAddr, target: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let whole = text.starts_with("HTTP/1.1 200")
        && match work {
            Work::Request | Work::Task => text.contains("\"worker\":"),
            Work::Stream => text.contains("event: end"),
        };
    if whole { Ok(()) } else { Err(io::Error::other(format!("not a whole answer: {:?}", text.lines().next()))) }
}
