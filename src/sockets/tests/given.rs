//! What the tests start from: listeners, clients, and a worker written in Python.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use agentd_core::id::Pid;
use socket2::Socket;

use crate::sockets::{ListenAddr, Listeners, Pick};

/// Everything here is done long before; a test that waits this long has failed.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn named(addr: &str) -> BTreeMap<String, ListenAddr> {
    BTreeMap::from([("http".to_owned(), addr.parse().expect("is an address"))])
}

pub(super) fn bind(addr: &str, lanes: u32) -> Listeners {
    Listeners::bind(&named(addr), lanes, Pick::Random).unwrap_or_else(|error| panic!("bind {addr}: {error}"))
}

pub(super) fn tcp_addr(listeners: &Listeners) -> SocketAddr {
    listeners.local_addr("http").and_then(|addr| addr.socket_addr()).expect("is TCP")
}

/// The loopback listen addresses of every kind there is here, and from where a client reaches each.
pub(super) fn kinds() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut kinds = vec![("127.0.0.1:0", vec!["127.0.0.1"]), ("0.0.0.0:0", vec!["127.0.0.1"])];
    if TcpListener::bind("[::1]:0").is_ok() {
        kinds.extend([("[::1]:0", vec!["[::1]"]), ("[::]:0", vec!["[::1]", "127.0.0.1"])]);
    }
    kinds
}

/// Takes one connection off the lane, if there is one.
pub(super) fn accept(fd: BorrowedFd<'_>) -> Option<Socket> {
    let socket = Socket::from(fd.try_clone_to_owned().expect("descriptors are left"));
    match socket.accept() {
        Ok((accepted, _)) => Some(accepted),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("accept: {error}"),
    }
}

/// Takes everything that waits off every lane, and says how many each had.
pub(super) fn drain(listeners: &Listeners) -> Vec<usize> {
    (0..listeners.lanes())
        .map(|lane| listeners.lane(lane).iter().map(|(_, fd)| std::iter::from_fn(|| accept(*fd)).count()).sum())
        .collect()
}

/// Connects `count` times, a hundred at a time so that any backlog holds them, and says how many each lane got.
pub(super) fn spread(listeners: &Listeners, from: &str, count: usize) -> Vec<usize> {
    let addr: SocketAddr = format!("{from}:{}", tcp_addr(listeners).port()).parse().expect("is an address");
    let mut got = vec![0; listeners.lanes() as usize];
    let mut connected = 0;
    while connected < count {
        let clients: Vec<TcpStream> =
            (connected..count).take(100).map(|_| TcpStream::connect(addr).expect("the lanes listen")).collect();
        connected += clients.len();
        // The last acknowledgement may still be on its way when a client knows that it is connected.
        until("all connections are on some lane", || {
            for (sum, part) in got.iter_mut().zip(drain(listeners)) {
                *sum += part;
            }
            (got.iter().sum::<usize>() >= connected).then_some(())
        });
        clients.iter().for_each(close_at_once);
    }
    got
}

/// Closes without leaving a TIME_WAIT behind, of which thousands would use up the ports.
pub(super) fn close_at_once(client: &TcpStream) {
    socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)).expect("is a socket");
}

/// Asks until there is an answer.
pub(super) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A Python program that is told what to do line by line, and killed at the end.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one that has the listening socket `fd`, if any, as `listener`.
    pub(super) fn start(fd: Option<BorrowedFd<'_>>) -> Self {
        const LOOP: &str = "import socket, sys
kept = []
listener = socket.socket(fileno=int(sys.argv[1])) if sys.argv[1:] else None
if listener: listener.setblocking(True)
for line in sys.stdin:
    exec(line)
    print('done', flush=True)
";
        let mut command = Command::new("python3");
        command.arg("-c").arg(LOOP).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(fd) = fd {
            // In the place of its standard error, so that no other test's worker inherits it.
            let copy = fd.try_clone_to_owned().expect("descriptors are left");
            command.arg("2").stderr(Stdio::from(copy));
        }
        let mut child = command.spawn().expect("python3 is installed");
        let input = child.stdin.take().expect("is piped");
        let output = BufReader::new(child.stdout.take().expect("is piped"));
        let mut worker = Self { child, input, output };
        worker.does("pass");
        worker
    }

    pub(super) fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    /// Has it run one line, and waits until it has.
    pub(super) fn does(&mut self, line: &str) {
        self.starts(line);
        self.has_done();
    }

    /// Has it start on one line, which may block.
    pub(super) fn starts(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the worker reads");
    }

    /// Waits until it has done a line.
    pub(super) fn has_done(&mut self) {
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the worker answers");
        assert_eq!(answer, "done\n");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().expect("is our child");
        self.child.wait().expect("is our child");
    }
}
