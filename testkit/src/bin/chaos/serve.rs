//! A server that costs little, so that two processors can carry the rate that is asked for beside Python, Node and the clients.
//!
//! Owns one listening socket, which is its standard input, and a thread a connection. A connection carries any number of
//! requests. At SIGTERM it takes no more of them, answers what it was asked, telling each client that its connection ends with
//! that, and leaves once nobody is connected, or after [`LEAVES_WITHIN`]. A client that goes away ends its thread.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// How long connections on which nothing is asked are kept while it leaves.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);
/// Pause between two looks at whether somebody is connected.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 4096;

#[derive(Default)]
struct Shared {
    leaving: AtomicBool,
    connected: AtomicUsize,
}

/// Serves until it is told to end.
pub(crate) fn run() -> io::Result<()> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut heeded = SigSet::empty();
    heeded.add(Signal::SIGTERM);
    // Before any thread is made, so that none of them dies of it.
    heeded.thread_block()?;
    let told = SignalFd::new(&heeded)?;
    let shared = Arc::new(Shared::default());
    while somebody_knocks(&listener, &told)? {
        let (stream, _) = listener.accept()?;
        shared.connected.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            // A client that went away is no failure of the server's.
            drop(converse(stream, &shared.leaving));
            shared.connected.fetch_sub(1, Ordering::SeqCst);
        });
    }
    drop(listener);
    shared.leaving.store(true, Ordering::SeqCst);
    let until = Instant::now() + LEAVES_WITHIN;
    while shared.connected.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Waits for a connection (true) or the signal to end (false).
fn somebody_knocks(listener: &TcpListener, told: &SignalFd) -> io::Result<bool> {
    loop {
        let wanted = [listener.as_fd(), told.as_fd()];
        let mut wanted = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut wanted, PollTimeout::NONE)?;
        match wanted.map(|fd| fd.any() == Some(true)) {
            [_, true] => return Ok(false),
            [true, false] => return Ok(true),
            [false, false] => {}
        }
    }
}

/// Answers one request after the other until the client or we have enough.
fn converse(mut stream: TcpStream, leaving: &AtomicBool) -> io::Result<()> {
    static ANSWERS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let [stays, ends] = ANSWERS.get_or_init(|| {
        ["", "connection: close\r\n"]
            .map(|word| format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n{word}\r\nok\n").into())
    });
    let (mut head, mut length) = ([0; HEAD_MAX], 0);
    loop {
        let came = stream.read(&mut head[length..])?;
        if came == 0 {
            return Ok(());
        }
        length += came;
        if head[..length].ends_with(b"\r\n\r\n") {
            let asked = head[..length].windows(b"Connection: close".len()).any(|words| words == b"Connection: close");
            let last = asked || leaving.load(Ordering::SeqCst);
            stream.write_all(if last { ends } else { stays })?;
            if last {
                return Ok(());
            }
            length = 0;
        }
    }
}
