//! Where inputs come from, and waiting for the first of them.

use std::io;
use std::time::Duration;

use agentd_core::time::Moment;
use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::input::{DaemonSignal, Input};
use crate::control::ControlCall;
use crate::process::sys;
use crate::status::StatusQuery;

/// Longest wait without a look at the clock that counts suspend: a timer does not run while the machine sleeps.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Everything that the loop listens to.
#[derive(Debug)]
pub struct Sources {
    /// From tasks beside the loop.
    pub inputs: mpsc::UnboundedReceiver<Input>,
    /// From the control socket.
    pub control: mpsc::Receiver<ControlCall>,
    /// From the status socket.
    pub status: mpsc::Receiver<StatusQuery>,
    /// From the kernel.
    pub signals: Signals,
    /// Of both sockets: closed when another program is to take our place. Each then tells when it has no client any more
    /// that waits for an answer, by [`Input::Emptied`].
    pub doors: Vec<watch::Sender<bool>>,
}

impl Sources {
    /// The next input; none when `wake` has come or there is `more_to_do` already.
    pub async fn next(&mut self, wake: Option<Moment>, more_to_do: bool) -> Option<Input> {
        if more_to_do {
            // Let the other tasks have a turn, then see what is there.
            tokio::task::yield_now().await;
            return self.try_next();
        }
        let wait = wake.map_or(LONGEST_WAIT, |at| at.since(sys::boottime()).min(LONGEST_WAIT));
        tokio::select! {
            biased;
            signal = self.signals.next() => Some(Input::Signal(signal)),
            Some(input) = self.inputs.recv() => Some(input),
            Some(call) = self.control.recv() => Some(Input::Control(call)),
            Some(query) = self.status.recv() => Some(Input::Status(query)),
            () = tokio::time::sleep(wait) => None,
        }
    }

    /// Whether nothing waits to be taken in. Signals aside: those wait for whoever comes next.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.control.is_empty() && self.status.is_empty()
    }

    /// Whether a client's request waits to be taken in.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.control.is_empty()
    }

    /// Lets no client in any more; how many doors there are.
    pub fn close_doors(&self) -> usize {
        for door in &self.doors {
            door.send_replace(true);
        }
        self.doors.len()
    }

    /// An input that is there already.
    pub fn try_next(&mut self) -> Option<Input> {
        self.signals
            .try_next()
            .map(Input::Signal)
            .or_else(|| self.inputs.try_recv().ok())
            .or_else(|| self.control.try_recv().ok().map(Input::Control))
            .or_else(|| self.status.try_recv().ok().map(Input::Status))
    }
}

/// Signals as a byte stream: each handler writes the signal's number, and the loop reads it in its own time.
#[derive(Debug)]
pub struct Signals {
    pipes: Vec<(UnixStream, DaemonSignal)>,
}

impl Signals {
    /// Takes over the signals that mean something to the daemon.
    ///
    /// # Errors
    /// The kernel gave no socket pair, or refused a handler.
    pub fn register() -> io::Result<Self> {
        use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
        let meanings = [
            (SIGCHLD, DaemonSignal::Child),
            (SIGTERM, DaemonSignal::Leave(Signal::SIGTERM)),
            (SIGINT, DaemonSignal::Leave(Signal::SIGINT)),
            (SIGHUP, DaemonSignal::Hangup),
        ];
        let mut pipes = Vec::new();
        for (number, meaning) in meanings {
            let (read, write) = std::os::unix::net::UnixStream::pair()?;
            read.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(number, write)?;
            pipes.push((UnixStream::from_std(read)?, meaning));
        }
        Ok(Self { pipes })
    }

    async fn next(&mut self) -> DaemonSignal {
        loop {
            if let Some(signal) = self.try_next() {
                return signal;
            }
            let [child, term, int, hup] = self.pipes.as_slice() else {
                unreachable!("register() makes four");
            };
            // An error here would be one of our own descriptors; the next read tells.
            let _ready = tokio::select! {
                ready = child.0.readable() => ready,
                ready = term.0.readable() => ready,
                ready = int.0.readable() => ready,
                ready = hup.0.readable() => ready,
            };
        }
    }

    /// A signal that came already.
    pub fn try_next(&mut self) -> Option<DaemonSignal> {
        let mut bytes = [0; 64];
        // What coalesced is one signal: each handler of it looks at everything there is.
        self.pipes
            .iter()
            .find(|(pipe, _)| matches!(pipe.try_read(&mut bytes), Ok(count) if count > 0))
            .map(|(_, meaning)| *meaning)
    }
}
