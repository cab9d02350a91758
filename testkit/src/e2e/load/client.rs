//! One client: asks again and again until it is told to stop.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Mix;
use super::exchange::{Answer, Failure, exchange};
use super::outcome::{Class, Loss, Outcome};
use super::report::Report;
use super::target::{Connection, Target};

/// The last event of a stream: without it the stream was cut, however well the connection was closed.
pub(super) const LAST_EVENT: &str = "data: end";

/// Longest body that is kept to tell answers apart.
const BODY_KEPT: usize = 256;

/// Pause after a failure, so that a dead port is not asked a hundred thousand times.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    class: Class,
    target: Target,
    mix: Mix,
    kept: Option<Connection>,
    report: Report,
}

impl Client {
    pub(super) fn new(class: Class, target: Target, mix: Mix) -> Self {
        Self { class, target, mix, kept: None, report: Report::of(class) }
    }

    /// Asks until nobody holds the other end of `stopped` any more.
    pub(super) fn run(mut self, stopped: &Receiver<()>) -> Report {
        for request in 1..=self.mix.requests {
            let well = self.request() == Outcome::Ok;
            let pause = match self.class {
                Class::Fresh | Class::KeepAlive if request % self.mix.burst.max(1) == 0 => self.mix.pause,
                Class::Fresh | Class::KeepAlive | Class::Long | Class::Sse => Duration::ZERO,
            };
            let pause = if well { pause } else { pause.max(AFTER_FAILURE) };
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.report
    }

    fn request(&mut self) -> Outcome {
        let begun = Instant::now();
        let reused = self.kept.is_some();
        let connection = match self.kept.take() {
            Some(connection) => Ok(connection),
            None => self.target.connect(self.mix.patience),
        };
        let port = connection.as_ref().ok().and_then(Connection::own_port);
        let outcome = match connection {
            Ok(connection) => self.ask(connection, reused, begun),
            Err(error) if is_timeout(&error) => Outcome::Timeout,
            Err(_) => Outcome::Refused,
        };
        if outcome != Outcome::Ok {
            self.report.record_loss(Loss { class: self.class, outcome, port, begun, ended: Instant::now() });
        }
        outcome
    }

    fn ask(&mut self, mut connection: Connection, reused: bool, begun: Instant) -> Outcome {
        let patience = match self.class {
            Class::Fresh | Class::KeepAlive => self.mix.patience,
            Class::Long | Class::Sse => self.mix.patience + self.mix.task,
        };
        let keep = self.class == Class::KeepAlive;
        let answer = match exchange(&mut connection, &self.path(), keep, patience) {
            Ok(answer) => answer,
            Err(Failure::BeforeFirstByte) if reused => return Outcome::ResetIdle,
            Err(Failure::BeforeFirstByte) => return Outcome::Reset,
            Err(Failure::Midway) => return Outcome::Truncated,
            Err(Failure::Silence) => return Outcome::Timeout,
            Err(Failure::Garbled) => return Outcome::Garbled,
        };
        if !(200..300).contains(&answer.status) {
            return Outcome::Http(answer.status);
        }
        let Answer { body, keeps_open, first_byte, .. } = answer;
        let body = String::from_utf8_lossy(&body);
        match self.class {
            Class::Sse if !body.contains(LAST_EVENT) => return Outcome::Truncated,
            Class::Fresh | Class::KeepAlive => {
                self.report.answered(body.chars().take(BODY_KEPT).collect::<String>().trim_end().to_owned());
            }
            Class::Long | Class::Sse => {}
        }
        if keep && keeps_open {
            self.kept = Some(connection);
        }
        self.report.record_answer(self.class, first_byte.duration_since(begun));
        Outcome::Ok
    }

    fn path(&self) -> String {
        let seconds = self.mix.task.as_secs_f64();
        match self.class {
            Class::Fresh | Class::KeepAlive => self.mix.path.clone(),
            Class::Long => format!("/long?s={seconds}"),
            Class::Sse => format!("/sse?s={seconds}"),
        }
    }
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
