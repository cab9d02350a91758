//! A small HTTP worker in Rust, for machines without Python or Node: `sample agent` drains itself on SIGTERM, `sample skill`
//! dies of it, and does not come up without its `words.json`. It answers what `etc/agent.py` and `etc/skill/skill.js` answer.
//! `sample writer` takes no requests: see [`writer`].
//!
//! Owns: one listening socket, which is its standard input (so that no descriptor is made out of a number), and a
//! thread a connection. A connection carries one request. What can go wrong is a client that goes away: its thread ends.

mod writer;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// Time between two events of a stream.
const EVERY: Duration = Duration::from_millis(100);

/// How long a client may take to say what it wants.
const ASK_WITHIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let drains = match std::env::args().nth(1).as_deref() {
        Some("agent") => true,
        Some("skill") => false,
        Some("writer") => return ended(writer::serve()),
        Some(_) | None => {
            eprintln!("usage: sample agent|skill <LISTENING_SOCKET, or sample writer");
            return ExitCode::from(2);
        }
    };
    ended(words(drains).and_then(|()| serve(drains)))
}

fn ended(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample: {error}");
            ExitCode::FAILURE
        }
    }
}

/// That what the skill of this release says can be read; the agent has no words.
fn words(drains: bool) -> io::Result<()> {
    if drains {
        return Ok(());
    }
    let words: serde_json::Value = serde_json::from_reader(BufReader::new(File::open("words.json")?))?;
    println!("{} says {}", name(), words["greeting"]);
    Ok(())
}

/// How many connections are open.
#[derive(Default)]
struct Open {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Open {
    fn add(&self, change: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(change);
        self.changed.notify_all();
    }

    fn wait_for_none(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(count, |count| *count > 0));
    }
}

fn serve(drains: bool) -> io::Result<()> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut heeded = SigSet::empty();
    if drains {
        heeded.add(Signal::SIGTERM);
        // Before any thread is made, so that none of them dies of it.
        heeded.thread_block()?;
    }
    let asked_to_end = SignalFd::new(&heeded)?;
    let open = Arc::new(Open::default());
    println!("{} serves", name());
    while somebody_knocks(&listener, &asked_to_end)? {
        let (stream, _) = listener.accept()?;
        open.add(1);
        let open = Arc::clone(&open);
        thread::spawn(move || {
            // A client that went away is no failure of the worker's.
            drop(answer(&stream));
            open.add(-1);
        });
    }
    println!("{} drains", name());
    drop(listener);
    open.wait_for_none();
    println!("{} is done", name());
    Ok(())
}

/// Waits for a connection (true) or the signal to end (false).
fn somebody_knocks(listener: &TcpListener, asked_to_end: &SignalFd) -> io::Result<bool> {
    loop {
        let wanted = [listener.as_fd(), asked_to_end.as_fd()];
        let mut wanted = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut wanted, PollTimeout::NONE)?;
        match wanted.map(|fd| fd.any() == Some(true)) {
            [_, true] => return Ok(false),
            [true, false] => return Ok(true),
            [false, false] => {}
        }
    }
}

fn name() -> String {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "sample".to_owned());
    format!("{}.{} (pid {})", variable("AGENTD_APP"), variable("AGENTD_SLOT"), std::process::id())
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(ASK_WITHIN))?;
    let mut lines = BufReader::new(stream).lines();
    let Some(request) = lines.next().transpose()? else { return Ok(()) };
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let target = request.split(' ').nth(1).unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let seconds = query.split('&').find_map(|pair| pair.strip_prefix("s=")).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(EVERY);
    match path {
        "/" | "/health" => reply(stream, "200 OK"),
        "/long" => {
            thread::sleep(duration);
            reply(stream, "200 OK")
        }
        "/sse" => events(stream, duration),
        _ => reply(stream, "404 Not Found"),
    }
}

fn reply(mut stream: &TcpStream, status: &str) -> io::Result<()> {
    let body = format!("{{\"worker\":\"{}\"}}\n", name());
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes())
}

fn events(mut stream: &TcpStream, duration: Duration) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    let begun = Instant::now();
    while let Some(left) = duration.checked_sub(begun.elapsed()) {
        stream.write_all(format!("data: {:.1} s left\n\n", left.as_secs_f32()).as_bytes())?;
        thread::sleep(left.min(EVERY));
    }
    stream.write_all(b"event: end\ndata: done\n\n")
}
