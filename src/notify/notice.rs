//! The words of a datagram.
//!
//! Owns the parser: pure, total, and the same for any bytes. One datagram holds lines of `KEY=value`; a few keys say
//! more about another of the same datagram (`FDNAME` about `FDSTORE`) and give no notice of their own. Unknown keys
//! and values that do not parse are skipped, as systemd does, so that new senders work with an old daemon.

use std::fmt;
use std::time::Duration;

use agentd_core::id::Pid;

use super::fdstore::FdName;

/// Longest status text kept, in bytes.
pub const STATUS_MAX: usize = 1024;
/// Longest task id or kind, in bytes. A longer one is skipped: two that are cut could become one.
pub const ID_MAX: usize = 128;

/// One thing that a worker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`: it serves, for the first time or again after a reload.
    Ready,
    /// `RELOADING=1`: it reads its configuration anew, and will say [`Ready`](Self::Ready) after.
    Reloading {
        /// `MONOTONIC_USEC`: when it began, in microseconds of `CLOCK_MONOTONIC`; tells which reload is meant.
        monotonic_us: Option<u64>,
    },
    /// `STOPPING=1`: it is going to end. Final.
    Stopping,
    /// `STATUS=`: a line for people, at most [`STATUS_MAX`] bytes, without control characters. Empty takes it back.
    Status(String),
    /// `WATCHDOG=1`: it is alive.
    Watchdog,
    /// `WATCHDOG=trigger`: it has seen itself fail and asks to be treated as if it were silent.
    WatchdogTrigger,
    /// `WATCHDOG_USEC=`: how often it will say that it is alive from now on. Zero turns that off.
    WatchdogPeriod(Duration),
    /// `EXTEND_TIMEOUT_USEC=`: what it is doing takes this much longer from now; to be repeated within.
    ExtendTimeout(Duration),
    /// `MAINPID=`: another process is the main one.
    MainPid(Pid),
    /// `FDSTORE=1`: keep the descriptors of this datagram for the slot's next worker.
    StoreFds {
        /// `FDNAME=`: under this name.
        name: FdName,
        /// Not `FDPOLL=0`: drop them when their other end is gone.
        poll: bool,
    },
    /// `FDSTOREREMOVE=1` with `FDNAME=`: drop what is kept under this name.
    RemoveFds(FdName),
    /// `BARRIER=1`: close the descriptor of this datagram once everything sent before has been processed.
    Barrier,
    /// `ERRNO=`: the error number for which it fails.
    Errno(i32),
    /// `EXIT_STATUS=`: the status of what ran on its behalf.
    ExitStatus(u8),
    /// `X_AGENTD_TASK_BEGIN=id [kind]`: it works on a task.
    TaskBegin {
        /// The task.
        id: TaskId,
        /// What kind of task, where it says.
        kind: Option<TaskId>,
    },
    /// `X_AGENTD_TASK_END=id [ok|error|cancelled]`: it does not any more.
    TaskEnd {
        /// The task.
        id: TaskId,
        /// How it came out.
        outcome: TaskOutcome,
    },
    /// `X_AGENTD_SAFE=id`: the task is at a point where it can be interrupted without loss.
    TaskSafe(TaskId),
    /// `X_AGENTD_DRAIN=1`: after the stop signal it finishes what it has by itself, so the signal may be sent without
    /// waiting for its connections.
    Drain,
}

/// How a task came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskOutcome {
    /// Done. Also when nothing was said.
    Ok,
    /// It failed.
    Error,
    /// It was given up on request.
    Cancelled,
}

/// The id of a task, or a kind of tasks, as a worker chose it: 1 to [`ID_MAX`] bytes without blanks or control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Box<str>);

impl TaskId {
    /// `text` as an id, if it can be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=ID_MAX).contains(&text.len());
        let clean = !text.chars().any(|c| c.is_whitespace() || c.is_control());
        (fits && clean).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a datagram says, in its order. Never fails: what cannot be understood says nothing.
#[must_use]
pub fn parse(datagram: &[u8]) -> Vec<Notice> {
    let lines = || datagram.split(|&b| b == b'\n');
    // The last of several wins.
    let beside = |key: &str| lines().filter_map(split).rfind(|(k, _)| *k == key).map(|(_, value)| value);
    let heard = |line| match line {
        NODE_READY => Some(Notice::Ready),
        _ => split(line).and_then(|(key, value)| notice(key, value, &beside)),
    };
    lines().filter_map(heard).collect()
}

/// `process.send('ready')`, which comes over Node's channel: the one message of PM2's handshake that we heed.
const NODE_READY: &[u8] = b"\"ready\"";

fn split(line: &[u8]) -> Option<(&str, &[u8])> {
    let equals = line.iter().position(|&b| b == b'=')?;
    Some((std::str::from_utf8(&line[..equals]).ok()?, &line[equals + 1..]))
}

fn notice<'d>(key: &str, value: &[u8], beside: &dyn Fn(&str) -> Option<&'d [u8]>) -> Option<Notice> {
    if key == "STATUS" {
        return Some(Notice::Status(readable(value)));
    }
    let value = std::str::from_utf8(value).ok()?;
    let text_beside = |key| beside(key).and_then(|value| std::str::from_utf8(value).ok());
    let name = || text_beside("FDNAME").and_then(FdName::new);
    match (key, value) {
        ("READY", "1") => Some(Notice::Ready),
        ("RELOADING", "1") => {
            let monotonic_us = text_beside("MONOTONIC_USEC").and_then(|text| text.parse().ok());
            Some(Notice::Reloading { monotonic_us })
        }
        ("STOPPING", "1") => Some(Notice::Stopping),
        ("WATCHDOG", "1") => Some(Notice::Watchdog),
        ("WATCHDOG", "trigger") => Some(Notice::WatchdogTrigger),
        ("WATCHDOG_USEC", text) => Some(Notice::WatchdogPeriod(micros(text)?)),
        ("EXTEND_TIMEOUT_USEC", text) => Some(Notice::ExtendTimeout(micros(text)?)),
        ("MAINPID", text) => Some(Notice::MainPid(pid(text)?)),
        ("FDSTORE", "1") => {
            let poll = beside("FDPOLL") != Some(b"0");
            Some(Notice::StoreFds { name: name().unwrap_or_default(), poll })
        }
        ("FDSTOREREMOVE", "1") => Some(Notice::RemoveFds(name()?)),
        ("BARRIER", "1") => Some(Notice::Barrier),
        ("ERRNO", text) => Some(Notice::Errno(text.parse().ok().filter(|&errno| errno >= 0)?)),
        ("EXIT_STATUS", text) => Some(Notice::ExitStatus(text.parse().ok()?)),
        ("X_AGENTD_TASK_BEGIN", text) => {
            let (id, kind) = words(text);
            Some(Notice::TaskBegin { id: TaskId::new(id)?, kind: kind.and_then(TaskId::new) })
        }
        ("X_AGENTD_TASK_END", text) => {
            let (id, outcome) = words(text);
            Some(Notice::TaskEnd { id: TaskId::new(id)?, outcome: outcome_of(outcome)? })
        }
        ("X_AGENTD_SAFE", text) => Some(Notice::TaskSafe(TaskId::new(text.trim())?)),
        ("X_AGENTD_DRAIN", "1") => Some(Notice::Drain),
        _ => None,
    }
}

/// The first word, and the second if there is one.
fn words(text: &str) -> (&str, Option<&str>) {
    let mut words = text.split_ascii_whitespace();
    (words.next().unwrap_or_default(), words.next())
}

fn outcome_of(word: Option<&str>) -> Option<TaskOutcome> {
    match word {
        None | Some("ok") => Some(TaskOutcome::Ok),
        Some("error") => Some(TaskOutcome::Error),
        Some("cancelled") => Some(TaskOutcome::Cancelled),
        // A word of some later version: that the task has ended is still news, that it went well is not known.
        Some(_) => Some(TaskOutcome::Error),
    }
}

fn micros(text: &str) -> Option<Duration> {
    Some(Duration::from_micros(text.parse().ok()?))
}

fn pid(text: &str) -> Option<Pid> {
    let pid = text.parse::<i32>().ok().filter(|&pid| pid > 0)?;
    Some(Pid(pid.unsigned_abs()))
}

/// Text that can be shown: broken UTF-8 replaced, control characters (which could drive a terminal) made blanks, and
/// cut to [`STATUS_MAX`] bytes at a character.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2 * STATUS_MAX)]);
    let mut clean = String::with_capacity(text.len().min(STATUS_MAX));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if clean.len() + c.len_utf8() > STATUS_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> TaskId {
        TaskId::new(text).unwrap()
    }

    fn one(text: &str) -> Notice {
        let mut all = parse(text.as_bytes());
        assert_eq!(all.len(), 1, "{text:?} gave {all:?}");
        all.remove(0)
    }

    #[test]
    fn every_word_of_systemds_protocol_is_understood() {
        assert_eq!(one("READY=1"), Notice::Ready);
        assert_eq!(one("RELOADING=1"), Notice::Reloading { monotonic_us: None });
        assert_eq!(one("MONOTONIC_USEC=77\nRELOADING=1\n"), Notice::Reloading { monotonic_us: Some(77) });
        assert_eq!(one("STOPPING=1"), Notice::Stopping);
        assert_eq!(one("STATUS=half = done"), Notice::Status("half = done".into()));
        assert_eq!(one("STATUS="), Notice::Status(String::new()));
        assert_eq!(one("WATCHDOG=1"), Notice::Watchdog);
        assert_eq!(one("WATCHDOG=trigger"), Notice::WatchdogTrigger);
        assert_eq!(one("WATCHDOG_USEC=2000000"), Notice::WatchdogPeriod(Duration::from_secs(2)));
        assert_eq!(one("EXTEND_TIMEOUT_USEC=1500"), Notice::ExtendTimeout(Duration::from_micros(1500)));
        assert_eq!(one("MAINPID=4711"), Notice::MainPid(Pid(4711)));
        assert_eq!(one("BARRIER=1"), Notice::Barrier);
        assert_eq!(one("ERRNO=2"), Notice::Errno(2));
        assert_eq!(one("EXIT_STATUS=255"), Notice::ExitStatus(255));
    }

    #[test]
    fn a_descriptors_name_may_stand_before_or_after_the_order_to_keep_it() {
        let named = |name| FdName::new(name).unwrap();
        assert_eq!(one("FDSTORE=1"), Notice::StoreFds { name: FdName::default(), poll: true });
        let expected = Notice::StoreFds { name: named("db"), poll: false };
        assert_eq!(one("FDNAME=db\nFDSTORE=1\nFDPOLL=0"), expected);
        assert_eq!(one("FDPOLL=0\nFDSTORE=1\nFDNAME=db"), expected);
        assert_eq!(one("FDSTORE=1\nFDNAME=a:b"), Notice::StoreFds { name: FdName::default(), poll: true });
        assert_eq!(one("FDSTOREREMOVE=1\nFDNAME=db"), Notice::RemoveFds(named("db")));
        assert_eq!(parse(b"FDSTOREREMOVE=1"), [], "not everything at once");
    }

    #[test]
    fn our_own_words_are_understood() {
        assert_eq!(one("X_AGENTD_TASK_BEGIN=t1"), Notice::TaskBegin { id: id("t1"), kind: None });
        assert_eq!(one("X_AGENTD_TASK_BEGIN=t1 chat"), Notice::TaskBegin { id: id("t1"), kind: Some(id("chat")) });
        let ended = |outcome| Notice::TaskEnd { id: id("t1"), outcome };
        assert_eq!(one("X_AGENTD_TASK_END=t1"), ended(TaskOutcome::Ok));
        assert_eq!(one("X_AGENTD_TASK_END=t1 ok"), ended(TaskOutcome::Ok));
        assert_eq!(one("X_AGENTD_TASK_END=t1 error"), ended(TaskOutcome::Error));
        assert_eq!(one("X_AGENTD_TASK_END=t1 cancelled"), ended(TaskOutcome::Cancelled));
        assert_eq!(one("X_AGENTD_TASK_END=t1 exploded"), ended(TaskOutcome::Error), "an end, but not a success");
        assert_eq!(one("X_AGENTD_SAFE=t1"), Notice::TaskSafe(id("t1")));
        assert_eq!(one("X_AGENTD_DRAIN=1"), Notice::Drain);
    }

    #[test]
    fn nodes_ready_is_readiness_and_other_messages_of_its_channel_say_nothing() {
        assert_eq!(one("\"ready\"\n"), Notice::Ready);
        for message in ["\"READY=1\"\n", "{\"type\":\"ready\"}\n", "\"x\nREADY=2\"\n", "ready\n"] {
            assert_eq!(parse(message.as_bytes()), [], "{message}");
        }
    }

    #[test]
    fn several_words_keep_their_order_and_unknown_ones_are_skipped() {
        let words = parse(b"READY=1\nX_OTHER=2\nnonsense\n=\nSTATUS=up\n\nMAINPID=9");
        assert_eq!(words, [Notice::Ready, Notice::Status("up".into()), Notice::MainPid(Pid(9))]);
    }

    #[test]
    fn values_that_make_no_sense_say_nothing() {
        for text in [
            "READY=0",
            "READY=",
            "ready=1",
            "MAINPID=0",
            "MAINPID=-1",
            "MAINPID=99999999999",
            "WATCHDOG_USEC=x",
            "EXIT_STATUS=256",
            "ERRNO=-1",
            "X_AGENTD_TASK_BEGIN=",
            "X_AGENTD_TASK_END= ",
            "X_AGENTD_SAFE=a b",
        ] {
            assert_eq!(parse(text.as_bytes()), [], "{text}");
        }
        assert_eq!(parse(format!("X_AGENTD_SAFE={}", "x".repeat(ID_MAX + 1)).as_bytes()), []);
    }

    #[test]
    fn a_status_cannot_drive_a_terminal_and_is_cut_at_a_character() {
        assert_eq!(one("STATUS=a\u{1b}[2Jb\u{9b}c"), Notice::Status("a [2Jb c".into()));
        assert_eq!(parse(b"STATUS=\xff!"), [Notice::Status("\u{fffd}!".into())]);
        let Notice::Status(cut) = one(&format!("STATUS=x{}", "ä".repeat(2000))) else { panic!("no status") };
        assert_eq!(cut.len(), STATUS_MAX - 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_the_caps(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            check_caps(&parse(&bytes))?;
        }

        #[test]
        fn any_value_of_a_known_key_is_read_without_panic_and_within_the_caps(
            lines in prop::collection::vec(("[A-Z_]{0,3}|STATUS|MAINPID|WATCHDOG_USEC|FDSTORE|FDNAME|FDSTOREREMOVE|ERRNO|RELOADING|MONOTONIC_USEC|X_AGENTD_TASK_BEGIN|X_AGENTD_TASK_END|X_AGENTD_SAFE", "1|[0-9]{1,25}|\\PC{0,300}|.{0,40}"), 0..8),
        ) {
            let text = lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect::<String>();
            check_caps(&parse(text.as_bytes()))?;
        }
    }

    fn check_caps(notices: &[Notice]) -> Result<(), TestCaseError> {
        for notice in notices {
            match notice {
                Notice::Status(text) => {
                    prop_assert!(text.len() <= STATUS_MAX && !text.chars().any(char::is_control));
                }
                Notice::TaskBegin { id, kind } => {
                    prop_assert!(id.as_str().len() <= ID_MAX);
                    prop_assert!(kind.as_ref().is_none_or(|kind| kind.as_str().len() <= ID_MAX));
                }
                Notice::TaskEnd { id, .. } | Notice::TaskSafe(id) => prop_assert!(id.as_str().len() <= ID_MAX),
                Notice::MainPid(pid) => prop_assert!(pid.0 > 0 && i32::try_from(pid.0).is_ok()),
                Notice::StoreFds { name, .. } | Notice::RemoveFds(name) => prop_assert!(!name.as_str().contains(':')),
                Notice::Ready
                | Notice::Reloading { .. }
                | Notice::Stopping
                | Notice::Watchdog
                | Notice::WatchdogTrigger
                | Notice::WatchdogPeriod(_)
                | Notice::ExtendTimeout(_)
                | Notice::Barrier
                | Notice::Errno(_)
                | Notice::ExitStatus(_)
                | Notice::Drain => {}
            }
        }
        Ok(())
    }
}
