//! Another binary takes this one's place, in the same process.
//!
//! ```text
//!  asked ──► checking ──► waiting ──► settling ──► exec (handover.rs)
//!               │            │            the doors are closed; the loop is over when no client waits for an answer
//!               │            │            and no end and no start is half told
//!               │            └─ requests in hand do not finish in time ─► refused
//!               └─ the new binary cannot read the state, fails, or hangs ─► refused
//! ```
//!
//! Up to "settling" everything goes on as ever: requests are taken, workers restart. From then on who connects waits in
//! the sockets' queues; who is connected is answered, and handed to the next program when it awaits nothing more.
//! Settling takes as long as it takes to answer, and to write a dead worker's last lines, and is cut off: what is half told
//! then is found out by the next program, as after a death.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use agentd_core::id::Pid;
use agentd_core::time::Moment;
use agentd_protocol::control::{DaemonUpgradeParams, ErrorKind, ErrorObject};
use agentd_protocol::events::EventKind;
use camino::Utf8PathBuf;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::oneshot;

use super::input::Input;
use super::shell::Start;
use super::sources::Sources;
use super::{Child, Departure, Dispatcher, End};
use crate::causes::in_full;
use crate::control::ReplySink;
use crate::handover::{CHECK_FLAG, Checked, HANDOVER, NewBinary, own_arguments};
use crate::process::reaper::Exit;
use crate::process::sys;
use crate::store;

/// How long the new binary may take to read the state.
const CHECKED_WITHIN: Duration = Duration::from_secs(10);
/// How long requests in hand may take to end by themselves.
const FINISHED_WITHIN: Duration = Duration::from_secs(30);
/// How long half-told ends and starts may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
/// As much as is read of what the new binary says, in bytes.
const SAID_MAX: u64 = 16 * 1024;

/// An upgrade that was asked for.
#[derive(Debug)]
pub(super) enum Successor {
    /// The new binary reads the state.
    Checking {
        /// It.
        binary: NewBinary,
        /// Who asked.
        reply: ReplySink,
    },
    /// It can; requests in hand finish.
    Waiting {
        /// It.
        binary: NewBinary,
        /// Who asked.
        reply: ReplySink,
        /// Until when.
        until: Moment,
    },
}

/// What is waited for before the new binary takes over.
#[derive(Debug)]
pub(super) struct Settling {
    /// It.
    binary: NewBinary,
    /// Sockets whose clients are not all answered yet.
    doors: usize,
    /// Clients that the new binary serves on.
    clients: Vec<OwnedFd>,
    /// When what is half told is left so.
    until: Moment,
}

impl Settling {
    pub(super) const fn is_emptied(&self) -> bool {
        self.doors == 0
    }

    pub(super) fn is_late(&self, now: Moment) -> bool {
        self.until <= now
    }

    pub(super) fn depart(self) -> Departure {
        Departure::Upgrade(self.binary, self.clients)
    }
}

/// What the new binary said: itself, or why not.
pub type CheckResult = Result<Checked, String>;

impl Dispatcher {
    pub(super) fn begin_succession(&mut self, params: &DaemonUpgradeParams, reply: ReplySink) {
        let refused = |kind, why: String| {
            Err(ErrorObject::new(kind, why).with_help("the daemon that runs goes on; nothing was changed"))
        };
        if self.successor.is_some() {
            return reply.finish(refused(ErrorKind::Refused, "another upgrade is under way".to_owned()));
        }
        let path = match &params.binary {
            Some(given) => PathBuf::from(given),
            None => own_path(),
        };
        if !path.is_absolute() {
            let why = format!("{} is no full path", path.display());
            return reply.finish(refused(ErrorKind::Usage, why));
        }
        let asked = NewBinary::open(&path)
            .map_err(|error| format!("opening {}: {error}", path.display()))
            .and_then(|binary| self.ask(&binary).map(|()| binary));
        match asked {
            Ok(binary) => self.successor = Some(Successor::Checking { binary, reply }),
            Err(why) => reply.finish(refused(ErrorKind::Refused, why)),
        }
    }

    /// Has the new binary look at the state; what it says comes as an input.
    fn ask(&mut self, binary: &NewBinary) -> Result<(), String> {
        let memory = || memfd_create("agentd-check", MemfdFlags::CLOEXEC).map(File::from);
        let failed = |error: std::io::Error| format!("asking {}: {error}", binary.path().display());
        let (output, errors) = (memory().map_err(|e| failed(e.into()))?, memory().map_err(|e| failed(e.into()))?);
        let child = Command::new(binary.exact_path())
            .args(own_arguments())
            .arg(CHECK_FLAG)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(errors.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let (sender, ended) = oneshot::channel();
        let pid = child.id();
        self.children.insert(Pid(pid), Child::Command(sender));
        let (inputs, database) = (self.inputs.clone(), self.home.database());
        tokio::spawn(async move {
            let result = match tokio::time::timeout(CHECKED_WITHIN, ended).await {
                Ok(Ok(Ok(exit))) => understood(exit, &text_of(output), &text_of(errors)),
                Ok(Ok(Err(why))) => Err(why),
                Ok(Err(_)) => Err("its end was not noticed".to_owned()),
                Err(_) => {
                    // Not reaped, so the number is still its own; it is reaped as any child.
                    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
                    if let Some(process) = process {
                        let _ended = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                    }
                    Err(format!("it did not answer within {}s", CHECKED_WITHIN.as_secs()))
                }
            };
            if result.is_ok() {
                shorten_log(database).await;
            }
            // The loop is gone only at the very end.
            let _ = inputs.send(Input::SuccessorChecked(result));
        });
        Ok(())
    }

    pub(super) fn successor_checked(&mut self, result: CheckResult) {
        let Some(Successor::Checking { binary, reply }) = self.successor.take() else { return };
        match result {
            Ok(checked) => {
                tracing::info!(to = checked.version, binary = %binary.path().display(), "the new binary knows the state");
                self.successor = Some(Successor::Waiting { binary, reply, until: sys::boottime() + FINISHED_WITHIN });
            }
            Err(why) => {
                let why = format!("{} cannot take over: {why}", binary.path().display());
                tracing::warn!(why, "the upgrade is refused");
                let error = ErrorObject::new(ErrorKind::Refused, why);
                reply.finish(Err(error.with_help("the daemon that runs goes on; nothing was changed")));
            }
        }
    }

    /// Once nobody waits for an answer any more, or has waited too long.
    pub(super) fn go_on_with_succession(&mut self, sources: &Sources) {
        let Some(Successor::Waiting { until, .. }) = &self.successor else { return };
        // Who went away waits for nothing.
        // What was asked and not looked at yet may be waited for, too.
        let awaited = sources.has_requests()
            || self.waiters.iter().any(|waiter| !waiter.reply.is_gone())
            || self.awaits_what_cannot_be_resumed();
        if awaited && sys::boottime() < *until {
            return;
        }
        let Some(Successor::Waiting { binary, reply, .. }) = self.successor.take() else { return };
        if !awaited {
            self.record(None, None, EventKind::DaemonStopping { why: "upgraded in place".to_owned() });
            // Its end is the answer, and who asked connects again, to hear the next program.
            reply.hang_up();
            // In one turn with the look above: whoever is not heard by now is heard by the next program.
            let doors = sources.close_doors();
            self.end =
                End::Upgrade(Settling { binary, doors, clients: Vec::new(), until: sys::boottime() + SETTLED_WITHIN });
            return;
        }
        let apps: Vec<String> = self.waiters.iter().flat_map(|waiter| &waiter.apps).map(ToString::to_string).collect();
        let why = format!("requests about {} are still under way after {FINISHED_WITHIN:?}", apps.join(", "));
        reply.finish(Err(ErrorObject::new(ErrorKind::Refused, why).with_help("wait for them, or interrupt who waits")));
    }

    /// When the loop has to look at the upgrade again though nothing happens.
    pub(super) fn succession_wake(&self) -> Option<Moment> {
        let waiting = match &self.successor {
            Some(Successor::Waiting { until, .. }) => Some(*until),
            Some(Successor::Checking { .. }) | None => None,
        };
        let settling = match &self.end {
            End::Upgrade(settling) => Some(settling.until),
            End::Open | End::WhenEmpty { .. } | End::Now(_) => None,
        };
        waiting.into_iter().chain(settling).min()
    }

    /// One of our sockets has no client any more that waits for an answer.
    pub(super) fn emptied(&mut self, clients: Vec<OwnedFd>) {
        // Otherwise the daemon ends for good, and its clients with it.
        if let End::Upgrade(settling) = &mut self.end {
            settling.doors = settling.doors.saturating_sub(1);
            settling.clients.extend(clients);
        }
    }

    /// Whether no process has an end that is known and not yet told, to the ledger too, nor a start whose outcome only we
    /// would hear.
    pub(super) fn is_settled(&self) -> bool {
        self.todo.is_empty()
            && self.seen_to.is_empty()
            && self.processes.values().all(|process| process.exit.is_none() && process.start == Start::Running)
    }
}

/// What the next program would read while nobody answers is put where it need not, beside the loop.
async fn shorten_log(database: Utf8PathBuf) {
    let shortened = tokio::task::spawn_blocking(move || store::shorten_log(&database)).await;
    // The next program has more to read, and that is all.
    match shortened {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = in_full(&error), "the log of the database stays as long as it is"),
        Err(error) => tracing::warn!(%error, "the log of the database stays as long as it is"),
    }
}

/// The file that this program was started from, or the one that has its name by now.
fn own_path() -> PathBuf {
    let link = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    // A file that was replaced, as installers do, shows so.
    let text = link.to_string_lossy();
    text.strip_suffix(" (deleted)").map_or_else(|| link.clone(), PathBuf::from)
}

fn text_of(mut file: File) -> String {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.take(SAID_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => in_full(&error),
    }
}

fn understood(exit: Exit, output: &str, errors: &str) -> CheckResult {
    if exit != Exit::Code(0) {
        let said = errors.lines().next().filter(|line| !line.is_empty()).unwrap_or("it says nothing");
        return Err(format!("{said} ({CHECK_FLAG} {exit})"));
    }
    let checked: Checked = serde_json::from_str(output.lines().next_back().unwrap_or_default())
        .map_err(|_| format!("it does not answer {CHECK_FLAG}: it is no agentd, or an old one"))?;
    if checked.handover != HANDOVER {
        return Err(format!("it knows handover {}, and this agentd {HANDOVER}", checked.handover));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_binary_that_says_it_knows_the_state_is_let_in() {
        let yes = r#"{"version":"9.9.9","schema":7,"handover":2,"apps":2,"workers":3,"more":true}"#;
        assert_eq!(understood(Exit::Code(0), yes, "").map(|checked| checked.version), Ok("9.9.9".to_owned()));
        let refused = understood(Exit::Code(1), "", "agentd: schema 9 is too new\nmore").expect_err("refused");
        assert_eq!(refused, "agentd: schema 9 is too new (--check-state exited with status 1)");
        assert!(understood(Exit::Code(0), "hello", "").is_err(), "another program");
        let later = yes.replace("\"handover\":2", "\"handover\":3");
        assert_eq!(understood(Exit::Code(0), &later, ""), Err("it knows handover 3, and this agentd 2".to_owned()));
    }
}
