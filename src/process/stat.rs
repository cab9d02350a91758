//! What the kernel says about single processes and about all of them, read from `/proc`.
//!
//! Owns the parsing and nothing else. A process may be gone at any moment: every reading is optional, and none means
//! "not there, or not ours to see". Costs about 10 µs a process; [`ProcessTable::read`] visits every process of the
//! machine and is for where there is no cheaper way.

use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use agentd_core::id::Pid;
use nix::sys::signal::Signal;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Longest line of `/proc/PID/stat`: 52 fields of at most 20 digits, and a name of 64 bytes.
const STAT_MAX: usize = 1280;
/// As long as most environments are, in bytes.
const ENVIRONMENT_USUAL: usize = 8192;
/// How long a process may be between two programs; it takes microseconds where a processor is free.
const BECOMES_WITHIN: Duration = Duration::from_secs(1);
/// Pause between two looks at one that is.
const BECOMING: Duration = Duration::from_micros(50);
/// Flags of a process (`PF_EXITING`, `PF_KTHREAD`): it ends, or it is the kernel's own. Neither has memory.
const WITHOUT_MEMORY: u64 = 0x4 | 0x20_0000;
/// Directories and files of `/proc` are opened so.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// When a process started, in clock ticks since boot. Together with its id this names one process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartTime(pub u64);

/// One process as `/proc/PID/stat` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub pid: Pid,
    /// Whether it has ended and waits to be reaped.
    pub is_zombie: bool,
    /// Its parent; zero for the first process and for one whose parent is outside our view.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// Its session.
    pub session: Pid,
    /// Processor time, its own and that of children it has reaped, in clock ticks.
    pub cpu_ticks: u64,
    /// When it started.
    pub started: StartTime,
    /// How it ended, as a wait status, while it waits to be reaped; 0 otherwise, and where the kernel keeps it from us.
    pub wait_status: i32,
    /// Memory in use, in pages. The kernel counts it in batches, so it may be some dozens of pages off.
    pub resident_pages: u64,
}

impl Stat {
    /// What `/proc` says of `pid` now.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        Self::seen(pid).ok().flatten()
    }

    /// The same, where it matters why there is nothing: an error says that [we could not look](is_want).
    pub(super) fn seen(pid: Pid) -> Result<Option<Self>, Errno> {
        let mut buffer = [0; STAT_MAX];
        match read_into(CWD, format!("/proc/{pid}/stat"), &mut buffer) {
            Ok(line) => Ok(Self::parse(line)),
            Err(errno) if is_want(errno) => Err(errno),
            Err(_) => Ok(None),
        }
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name stands in parentheses and may hold any byte, closing parentheses included.
        let name_end = line.iter().rposition(|&b| b == b')')?;
        let pid = line.split(|&b| b == b' ').next()?;
        let pid = Pid(field(std::str::from_utf8(pid).ok())?);
        let mut fields = [""; 52];
        let tail = std::str::from_utf8(&line[name_end + 1..]).ok()?;
        fields.iter_mut().zip(tail.split_ascii_whitespace()).for_each(|(field, text)| *field = text);
        // Numbered as in proc(5), where the state is the third.
        let text = |number: usize| fields.get(number - 3).copied().filter(|text| !text.is_empty());
        Some(Self {
            pid,
            is_zombie: matches!(text(3)?, "Z" | "X" | "x"),
            parent: Pid(field(text(4))?),
            group: Pid(field(text(5))?),
            session: Pid(field(text(6))?),
            cpu_ticks: [14, 15, 16, 17].into_iter().map(|n| field::<u64>(text(n)).unwrap_or(0)).sum(),
            started: StartTime(field(text(22))?),
            resident_pages: field(text(24))?,
            wait_status: field(text(52)).unwrap_or(0),
        })
    }
}

/// What `/proc/PID/stat` tells of a process whose environment reads as empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emptiness {
    /// It has none, and will not have one: it has ended, is the kernel's, or was started with nothing.
    Real,
    /// `execve` has taken the old program's away and not put all of the new one's there.
    Passing,
    /// It has one by now.
    Over,
}

impl Emptiness {
    fn of(line: &[u8]) -> Option<Self> {
        let name_end = line.iter().rposition(|&b| b == b')')?;
        let tail = std::str::from_utf8(&line[name_end + 1..]).ok()?;
        // Numbered as in proc(5), where the state is the third.
        let text = |number: usize| tail.split_ascii_whitespace().nth(number - 3);
        let (flags, begin, end): (u64, u64, u64) = (field(text(9))?, field(text(50))?, field(text(51))?);
        // The kernel notes where a program's code is after it has written down its environment.
        let begun = field::<u64>(text(26))? != 0;
        let has_ended = matches!(text(3)?, "Z" | "X" | "x");
        Some(if has_ended || flags & WITHOUT_MEMORY != 0 || (begun && end != 0 && begin == end) {
            Self::Real
        } else if begin == end {
            Self::Passing
        } else {
            Self::Over
        })
    }
}

fn field<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

/// Whether any thread of these processes runs, waits for a processor, or waits for a disk: one that was interrupted in the
/// middle of something is none of the sleeping.
#[must_use]
pub fn is_at_work(pids: &[Pid]) -> bool {
    pids.iter().any(|pid| {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        threads.flatten().any(|thread| {
            let line = std::fs::read(thread.path().join("stat")).unwrap_or_default();
            let name_end = line.iter().rposition(|&b| b == b')').unwrap_or(0);
            matches!(line.get(name_end + 2), Some(b'R' | b'D'))
        })
    })
}

/// When `pid` started.
#[must_use]
pub fn start_time(pid: Pid) -> Option<StartTime> {
    Some(Stat::of(pid)?.started)
}

/// Whether `pid` is still the process that started at `started`, ended and unreaped included.
#[must_use]
pub fn is_same(pid: Pid, started: StartTime) -> bool {
    start_time(pid) == Some(started)
}

/// Whether `pid` has a handler of its own for `signal`, so that the signal asks it instead of ending it.
#[must_use]
pub fn catches(pid: Pid, signal: Signal) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    in_mask(&status, "SigCgt:", signal as i32)
}

/// Whether `pid` waits for `signal` in a way of its own: by a handler, or blocked, to be taken from a descriptor.
#[must_use]
pub fn expects(pid: Pid, signal: Signal) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let has = |mask| in_mask(&status, mask, signal as i32);
    Some(has("SigCgt:")? || has("SigBlk:")?)
}

fn in_mask(status: &str, mask: &str, signal: i32) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix(mask))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}

/// The value of the variable `name` in the environment that `pid` was started with.
#[must_use]
pub fn variable(pid: Pid, name: &str) -> Option<String> {
    let environment = environment(pid)?;
    value(&environment, name).map(str::to_owned)
}

/// The environment that `pid` was started with, its variables separated by zero bytes. Only for processes of our own
/// user, unless we are root. One that is just becoming another program is waited for, as long as [`BECOMES_WITHIN`].
pub(super) fn environment(pid: Pid) -> Option<Vec<u8>> {
    let until = Instant::now() + BECOMES_WITHIN;
    loop {
        let environment = environment_now(pid)?;
        if !environment.is_empty() || Instant::now() >= until {
            return Some(environment);
        }
        let mut buffer = [0; STAT_MAX];
        match Emptiness::of(read_into(CWD, format!("/proc/{pid}/stat"), &mut buffer).ok()?)? {
            Emptiness::Real => return Some(environment),
            Emptiness::Passing | Emptiness::Over => thread::sleep(BECOMING),
        }
    }
}

fn environment_now(pid: Pid) -> Option<Vec<u8>> {
    let file = openat(CWD, format!("/proc/{pid}/environ").as_str(), READ, Mode::empty()).ok()?;
    // Its size is not told. The usual one is read at once: each read has the kernel look up the other's memory.
    let mut environment = Vec::with_capacity(ENVIRONMENT_USUAL);
    File::from(file).read_to_end(&mut environment).ok()?;
    Some(environment)
}

pub(super) fn value<'e>(environment: &'e [u8], name: &str) -> Option<&'e str> {
    let found =
        environment.split(|&b| b == 0).find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    std::str::from_utf8(found?).ok()
}

/// All processes of the machine that we may see, at about one moment.
#[derive(Clone, Debug, Default)]
pub struct ProcessTable {
    /// In no particular order.
    pub processes: Vec<Stat>,
}

impl ProcessTable {
    /// Reads the table. Not a snapshot: processes that start or end meanwhile may be missing or stale.
    ///
    /// # Errors
    /// When `/proc` or what it lists cannot be opened, as when descriptors are used up.
    pub fn read() -> io::Result<Self> {
        let proc: OwnedFd = openat(CWD, "/proc", READ | OFlags::DIRECTORY, Mode::empty())?;
        let mut processes = Vec::new();
        let mut buffer = [0; STAT_MAX];
        for entry in Dir::read_from(&proc)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !name.iter().all(u8::is_ascii_digit) {
                continue;
            }
            let path = [name, b"/stat"].concat();
            match read_into(proc.as_fd(), path.as_slice(), &mut buffer) {
                Ok(line) => processes.extend(Stat::parse(line)),
                Err(errno) if is_want(errno) => return Err(errno.into()),
                // It has ended meanwhile, or is not ours to see.
                Err(_) => {}
            }
        }
        Ok(Self { processes })
    }
}

/// Whether a call failed for want of descriptors or memory, which come back, and not for what it was about.
pub(super) fn is_want(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// One read of a file that the kernel makes up, without allocating. What does not fit `buffer` is left out.
pub(super) fn read_into<'b>(
    at: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Errno> {
    let file = openat(at, path, READ, Mode::empty())?;
    let length = rustix::io::read(&file, &mut *buffer)?;
    Ok(&buffer[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "4242 (a) b) R (ä) S 7 4242 4000 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 987654 1000000 321 18446744073709551615\n";

    #[test]
    fn a_name_with_parentheses_and_states_in_it_confuses_nothing() {
        let stat = Stat::parse(LINE.as_bytes()).unwrap();
        let expected = Stat {
            pid: Pid(4242),
            is_zombie: false,
            parent: Pid(7),
            group: Pid(4242),
            session: Pid(4000),
            cpu_ticks: 100,
            started: StartTime(987_654),
            resident_pages: 321,
            wait_status: 0,
        };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(b"1 (x"), None);
        assert_eq!(Stat::parse(b"1 (x) S 1"), None);
    }

    #[test]
    fn a_process_that_becomes_another_program_is_known_by_its_environment_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("again");
        std::fs::write(&script, "exec sh \"$0\"\n").unwrap();
        let mut child = std::process::Command::new("sh").arg(&script).env("MARK", "it").spawn().unwrap();
        let pid = Pid(child.id());
        let unknown = (0..3000).filter(|_| variable(pid, "MARK").as_deref() != Some("it")).count();
        let passing = (0..3000).filter(|_| environment_now(pid).is_none_or(|found| found.is_empty())).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(unknown, 0, "without waiting it would have been {passing}");
    }

    #[test]
    fn an_empty_environment_is_told_from_one_that_is_not_there_yet() {
        let line_of = |state: &str, flags: u64, code: u64, begin: u64, end: u64| {
            let (until_code, rest) = ("0 ".repeat(16), "0 ".repeat(23));
            format!("7 (a) {state} 1 7 7 0 -1 {flags} {until_code}{code} {rest}{begin} {end} 0\n")
        };
        let line = |state: &str, flags, begin, end| line_of(state, flags, 4096, begin, end);
        let of = |line: String| Emptiness::of(line.as_bytes());
        assert_eq!(of(line("S", 0, 4096, 8192)), Some(Emptiness::Over));
        assert_eq!(of(line("R", 0, 0, 0)), Some(Emptiness::Passing));
        assert_eq!(of(line("S", 0, 4096, 4096)), Some(Emptiness::Real), "started with nothing");
        assert_eq!(of(line_of("R", 0, 0, 4096, 4096)), Some(Emptiness::Passing), "it is just being written down");
        assert_eq!(of(line("Z", 0, 0, 0)), Some(Emptiness::Real));
        assert_eq!(of(line("S", 0x20_8040, 0, 0)), Some(Emptiness::Real), "the kernel's");
        assert_eq!(of("7 (a) S 1".to_owned()), None);
    }

    #[test]
    fn a_process_is_at_work_while_a_thread_of_its_runs() {
        assert!(is_at_work(&[Pid(std::process::id())]), "this one does");
        assert!(!is_at_work(&[]) && !is_at_work(&[Pid(u32::MAX)]));
    }

    #[test]
    fn this_process_is_itself_and_is_in_the_table() {
        let me = Pid(std::process::id());
        let started = start_time(me).unwrap();
        assert!(is_same(me, started));
        assert!(!is_same(me, StartTime(started.0 + 1)));
        assert!(ProcessTable::read().unwrap().processes.iter().any(|p| p.pid == me && p.started == started));
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_start_time() {
        assert_eq!(start_time(Pid(u32::MAX)), None);
    }

    #[test]
    fn caught_signals_are_bits_counted_from_one() {
        let status = "Name:\tx\nSigCgt:\t0000000000004001\nThreads:\t1\n";
        assert_eq!(in_mask(status, "SigCgt:", 1), Some(true));
        assert_eq!(in_mask(status, "SigCgt:", 15), Some(true));
        assert_eq!(in_mask(status, "SigCgt:", 2), Some(false));
        assert_eq!(in_mask("Name:\tx\n", "SigCgt:", 1), None);
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = b"AGENTD_LAUNCH_X=1\0AGENTD_LAUNCH=23\0PATH=/bin\0";
        assert_eq!(value(environment, "AGENTD_LAUNCH"), Some("23"));
        assert_eq!(value(environment, "PATH"), Some("/bin"));
        assert_eq!(value(environment, "LAUNCH"), None);
    }
}
