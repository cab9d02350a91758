//! Clients that talk HTTP/1.1 to an app while something is done to it, and count what became of each request.
//!
//! Threads and the standard library only, so that no clever client retries anything in silence. Each request ends in
//! exactly one [`Outcome`]. Every client keeps on until the driver has returned, finishes the request it is at, and
//! ends; a client that is refused or cut goes on with a new connection.

mod client;
mod exchange;
mod outcome;
mod report;
mod target;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

pub use outcome::{Class, Loss, Outcome};
pub use report::Report;
pub use target::Target;

use client::Client;

/// How many clients of each class there are, and what they ask for.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Clients that open a connection for each request.
    pub fresh: usize,
    /// Clients that keep one connection for all their requests.
    pub keepalive: usize,
    /// Clients that ask for a task (`/long?s=`).
    pub long: usize,
    /// Clients that read a stream of events (`/sse?s=`).
    pub sse: usize,
    /// Pause of a fresh and a keep-alive client between two bursts.
    pub pause: Duration,
    /// Requests of one burst, one right after the other.
    pub burst: u64,
    /// How long a task or a stream takes.
    pub task: Duration,
    /// What fresh and keep-alive clients ask for.
    pub path: String,
    /// How long an answer may take beyond what was asked for.
    pub patience: Duration,
    /// Most requests of one client.
    pub requests: u64,
}

impl Default for Mix {
    /// Something of each, gentle enough for several tests beside each other on two cores.
    fn default() -> Self {
        Self {
            fresh: 2,
            keepalive: 2,
            long: 2,
            sse: 2,
            pause: Duration::from_millis(10),
            burst: 1,
            task: Duration::from_secs(2),
            path: "/".to_owned(),
            patience: Duration::from_secs(30),
            requests: 100_000,
        }
    }
}

impl Mix {
    /// Fresh connections alone.
    #[must_use]
    pub fn fresh(clients: usize) -> Self {
        Self { fresh: clients, keepalive: 0, long: 0, sse: 0, ..Self::default() }
    }
}

/// The clients at work.
#[derive(Debug)]
pub struct Load;

impl Load {
    /// Runs the clients of `mix` against `target` (a port of `127.0.0.1`, an address, a Unix socket's path) as long as
    /// `driver` runs.
    ///
    /// # Panics
    /// As `driver` does, once the clients have ended.
    pub fn run(target: impl Into<Target>, mix: Mix, driver: impl FnOnce()) -> Report {
        Self::run_all(&[(target, mix)].map(|(target, mix)| (target.into(), mix)), driver)
    }

    /// The same for several targets at once, each with its own clients; one report of all.
    ///
    /// # Panics
    /// As [`Load::run`].
    pub fn run_all<T: Clone + Into<Target>>(loads: &[(T, Mix)], driver: impl FnOnce()) -> Report {
        let started = Instant::now();
        let (driven, mut report) = thread::scope(|scope| {
            let mut stops = Vec::new();
            let mut clients = Vec::new();
            for (target, mix) in loads {
                for class in mix.clients() {
                    let (stop, stopped) = mpsc::channel::<()>();
                    stops.push(stop);
                    let client = Client::new(class, target.clone().into(), mix.clone());
                    clients.push(scope.spawn(move || client.run(&stopped)));
                }
            }
            let driven = catch_unwind(AssertUnwindSafe(driver));
            drop(stops);
            let mut report = Report::default();
            for client in clients {
                report.merge(client.join().expect("a client counts what goes wrong and does not panic"));
            }
            (driven, report)
        });
        report.took = started.elapsed();
        if let Err(panic) = driven {
            eprintln!("{report}");
            resume_unwind(panic);
        }
        report
    }
}

impl Mix {
    /// The class of each client.
    fn clients(&self) -> impl Iterator<Item = Class> {
        let counts = [
            (Class::Fresh, self.fresh),
            (Class::KeepAlive, self.keepalive),
            (Class::Long, self.long),
            (Class::Sse, self.sse),
        ];
        counts.into_iter().flat_map(|(class, count)| std::iter::repeat_n(class, count))
    }
}
