//! `agentd exec`: the process that becomes a worker's program.
//!
//! The supervisor starts it with one end of a socket as standard input, on which the descriptors and the plan already
//! wait. It prepares itself step by step and then executes the program; nothing of it remains. It is single-threaded
//! and starts neither runtime nor logging, because its time is part of every start.
//!
//! Happy path: plan, session, cgroup, signals, descriptors; then what needs the supervisor's rights: account, secrets,
//! what is given over, limits; then the account is taken, and what follows is done as its user: directory, program,
//! `execve`. Limits come late, so that a tight one hinders the program and not us. The socket closes with `execve`, and
//! that is the success.
//!
//! Unhappy: any step that fails is told over the socket with its [`Stage`], and the process ends with 126 or 127. If
//! the supervisor has died by then, the program is started all the same: its successor finds it by its environment.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::{MaybeUninit, take};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::cmsg_space;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, chown, fchown};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, connect, recvmsg, send, socket_with,
};
use rustix::process::{Resource, Rlimit, chdir, getpid, getrlimit, setrlimit, setsid, umask};

use super::account::Taken;
use super::plan::{ExecPlan, Limit, Secrets, ShimWord, Stage, StageFailure, fd_variable};
use super::sys::Image;
use super::{program, secret, sys};
use crate::causes::in_full;

/// Most descriptors that the kernel passes in one message.
pub(super) const DESCRIPTORS_MAX: usize = 253;
/// Number of the first descriptor that is passed on beside the standard streams, by systemd's convention.
pub const LISTEN_FDS_START: RawFd = 3;

/// How much a process is spared when memory runs out; below zero is more than others.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Where a worker speaks to the supervisor.
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// Where Node finds the descriptor of its channel.
const NODE_CHANNEL: &str = "NODE_CHANNEL_FD";

/// Seconds of processor time between SIGXCPU and SIGKILL.
const CPU_GRACE_SECONDS: u64 = 5;

/// How the shim's process came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    /// Where the supervisor is: it has to enter its cgroup by itself.
    WithSupervisor,
    /// In the cgroup of its plan, with what its [zygote](super::zygote) has left behind already.
    InCgroup,
}

/// What came over the socket.
pub(super) struct Parcel {
    plan: ExecPlan,
    /// Standard output and error.
    streams: [OwnedFd; 2],
    /// Standard input; `/dev/null` where there is none.
    stdin: Option<OwnedFd>,
    listeners: Vec<OwnedFd>,
    /// The socket itself, out of the way of the numbers to be filled, and closed by `execve`.
    report: OwnedFd,
}

/// The entry of `agentd exec`. Returns only when the program could not be executed, after having told so.
#[must_use]
pub fn run() -> ExitCode {
    let socket = io::stdin();
    go_on(unpack(socket.as_fd()), Birth::WithSupervisor, socket.as_fd(), &mut Left::default()).into()
}

/// Becomes the program of what came over `socket`. Returns only when it could not be executed, after having told so, with
/// the code to exit with.
pub(super) fn go_on(
    unpacked: Result<Parcel, StageFailure>,
    birth: Birth,
    socket: BorrowedFd<'_>,
    left: &mut Left,
) -> u8 {
    let failure = match unpacked {
        Ok(parcel) => match parcel.become_program(birth, left) {
            Err(failure) => failure,
        },
        Err(failure) => tell(socket, failure),
    };
    failure.exit_code()
}

/// Sends `failure` to the supervisor, or to standard error where there is none.
fn tell(report: BorrowedFd<'_>, failure: StageFailure) -> StageFailure {
    let failure = failure.shortened();
    if say(report, &ShimWord::Failed(failure.clone())).is_err() {
        // Standard error is the worker's log by now, or a person's terminal. There is nowhere else to tell a failure.
        drop(writeln!(io::stderr(), "agentd exec: {failure} (this command is for agentd itself to start)"));
    }
    failure
}

fn say(report: BorrowedFd<'_>, word: &ShimWord) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(word).map_err(|_| Errno::INVAL)?;
    send(report, &bytes, SendFlags::NOSIGNAL).map(drop)
}

/// Reads what waits in `socket`.
pub(super) fn unpack(socket: BorrowedFd<'_>) -> Result<Parcel, StageFailure> {
    let refused = |errno| StageFailure::refused(Stage::ReadingPlan, errno);
    let broken = |detail: String| StageFailure::explained(Stage::ReadingPlan, None, detail);
    let mut received = receive_descriptors(socket).map_err(refused)?.into_iter();
    let (Some(plan), Some(stdout), Some(stderr)) = (received.next(), received.next(), received.next()) else {
        return Err(broken("fewer descriptors came than belong to a plan".to_owned()));
    };
    let mut rest: Vec<OwnedFd> = received.collect();
    let mut text = Vec::new();
    fs::File::from(plan).read_to_end(&mut text).map_err(|source| broken(source.to_string()))?;
    let plan: ExecPlan = serde_json::from_slice(&text).map_err(|source| broken(source.to_string()))?;
    let stdin = (plan.stdin && !rest.is_empty()).then(|| rest.remove(0));
    let listeners = rest;
    if plan.listen_names.len() != listeners.len() {
        let (names, came) = (plan.listen_names.len(), listeners.len());
        return Err(broken(format!("{came} listeners came for {names} names")));
    }
    let numbered = listeners.len() + usize::from(plan.node_channel);
    let report = fcntl_dupfd_cloexec(socket, first_free(numbered)).map_err(refused)?;
    Ok(Parcel { plan, streams: [stdout, stderr], stdin, listeners, report })
}

/// The one message of the supervisor: the plan's file, standard output, standard error, standard input where it has one, listeners.
fn receive_descriptors(socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received.extend(descriptors);
        }
    }
    Ok(received)
}

/// The first number that no descriptor of the program is to have.
fn first_free(numbered: usize) -> RawFd {
    LISTEN_FDS_START + RawFd::try_from(numbered).expect("a message carries at most 253 descriptors")
}

impl Parcel {
    /// Whether another process's memory may be shared on the way to this program: nobody else becomes its owner on the way,
    /// who could look into it, and nothing comes into it that is secret.
    pub(super) fn may_share(&self) -> bool {
        self.plan.account.is_unset() && self.plan.secrets.given.is_empty()
    }

    fn become_program(self, birth: Birth, left: &mut Left) -> Result<Infallible, StageFailure> {
        let Self { plan, streams, stdin, listeners, report } = self;
        let report_to = report.as_fd();
        prepare(plan, birth, stdin, streams, listeners)
            .and_then(|ready| left.ready.insert(ready).execute(report_to, &left.executing))
            .map_err(|failure| tell(report_to, failure))
    }
}

/// What a process leaves behind in memory when it executes: everything that it still has by then.
#[derive(Default)]
pub(super) struct Left {
    ready: Option<Ready>,
    /// Apart from the rest, which may be half written by a process that was killed.
    executing: AtomicBool,
}

impl Left {
    /// Whether a process went its way to the end, and the rest can be read.
    pub(super) fn is_whole(&self) -> bool {
        self.executing.load(Ordering::Acquire)
    }
}

/// All that was prepared with the supervisor's rights.
struct Ready {
    plan: ExecPlan,
    argv: Vec<CString>,
    env: Vec<CString>,
    account: Option<Taken>,
    program: Option<(Utf8PathBuf, Image)>,
}

fn prepare(
    plan: ExecPlan,
    birth: Birth,
    stdin: Option<OwnedFd>,
    streams: [OwnedFd; 2],
    listeners: Vec<OwnedFd>,
) -> Result<Ready, StageFailure> {
    let refused = |stage: Stage| |errno| StageFailure::refused(stage, errno);
    setsid().map_err(refused(Stage::MakingSession))?;
    match birth {
        Birth::WithSupervisor => {
            plan.cgroup.as_deref().map_or(Ok(()), enter)?;
            leave_supervisor_behind();
        }
        Birth::InCgroup => {}
    }
    umask(Mode::from_raw_mode(plan.umask));
    let mut listeners = listeners;
    if plan.node_channel {
        listeners.push(node_channel(&plan)?);
    }
    place(stdin, streams, listeners).map_err(refused(Stage::PlacingDescriptors))?;
    let account = look_up(&plan)?;
    let mut plain = environment(&plan);
    if let Some(account) = &account {
        give_over(&plan, account)?;
        // What the configuration sets itself stays.
        let known = |name: &str| plan.env.iter().any(|(set, _)| set == name);
        plain.extend(account.variables().into_iter().filter(|(name, _)| !known(name)).map(|(n, v)| format!("{n}={v}")));
    }
    let argv = plan.argv.iter().map(|text| without_nul(text.clone())).collect::<Result<_, _>>()?;
    let mut env = plain.into_iter().map(without_nul).collect::<Result<Vec<_>, _>>()?;
    env.extend(secrets(&plan, account.as_ref())?);
    Ok(Ready { plan, argv, env, account, program: None })
}

/// Who the program runs as; none where that is who we are.
fn look_up(plan: &ExecPlan) -> Result<Option<Taken>, StageFailure> {
    if plan.account.is_unset() {
        return Ok(None);
    }
    let stage = || Stage::LookingUpAccount(plan.account.to_string());
    plan.account.look_up().map(Some).map_err(|error| StageFailure::explained(stage(), None, in_full(&error)))
}

/// What the supervisor made for the worker alone and the worker's user must be able to open: the FIFOs that are its
/// output, which `/dev/stdout` opens anew, and the socket that it speaks to. Log files stay the supervisor's.
fn give_over(plan: &ExecPlan, account: &Taken) -> Result<(), StageFailure> {
    let (uid, gid) = (Uid::from_raw(account.uid.as_raw()), Gid::from_raw(account.gid.as_raw()));
    for (stream, name) in [(io::stdout().as_fd(), "its output"), (io::stderr().as_fd(), "its errors")] {
        let refused = |errno| StageFailure::refused(Stage::GivingOver(name.into()), errno);
        let found = rustix::fs::fstat(stream).map_err(refused)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Fifo {
            fchown(stream, Some(uid), Some(gid)).map_err(refused)?;
        }
    }
    if let Some((_, path)) = plan.env.iter().find(|(name, _)| name == NOTIFY_VARIABLE) {
        chown(path.as_str(), Some(uid), None)
            .map_err(|errno| StageFailure::refused(Stage::GivingOver(path.into()), errno))?;
    }
    Ok(())
}

/// Node's channel to its parent, on whose other side the notify socket is: what the program sends is a datagram that
/// comes with its sender, and outlives the supervisor as every other does.
fn node_channel(plan: &ExecPlan) -> Result<OwnedFd, StageFailure> {
    let notify = plan.env.iter().find(|(name, _)| name == NOTIFY_VARIABLE).map_or("", |(_, path)| path.as_str());
    let path = channel_beside(Utf8Path::new(notify));
    let make = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // The file that bind() makes takes its mode from the socket.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &SocketAddrUnix::new(path.as_str())?)?;
        connect(&socket, &SocketAddrUnix::new(notify)?)?;
        Ok(socket)
    };
    make().map_err(|errno| StageFailure::refused(Stage::MakingChannel(path.clone()), errno))
}

/// Where Node's channel is that belongs to a notify socket.
#[must_use]
pub fn channel_beside(notify: &Utf8Path) -> Utf8PathBuf {
    format!("{notify}.node").into()
}

/// The variables of the plan's secrets.
fn secrets(plan: &ExecPlan, account: Option<&Taken>) -> Result<Vec<CString>, StageFailure> {
    let Secrets { given, folder } = &plan.secrets;
    let delivered = secret::deliver(given, folder, account)
        .map_err(|(name, error)| StageFailure::explained(Stage::DeliveringSecret(name), None, in_full(&error)))?;
    let variable = |(name, value): (String, Vec<u8>)| {
        let text = [name.as_bytes(), b"=", &value].concat();
        // Its text must not be shown, whatever is wrong with it.
        let unfit = || StageFailure::explained(Stage::DeliveringSecret(name.clone()), None, "it holds a zero byte");
        CString::new(text).map_err(|_| unfit())
    };
    delivered.into_iter().map(variable).collect()
}

fn enter(cgroup: &Utf8Path) -> Result<(), StageFailure> {
    fs::write(cgroup.join("cgroup.procs"), "0").map_err(|source| match Errno::from_io_error(&source) {
        Some(errno) => StageFailure::refused(Stage::EnteringCgroup(cgroup.to_owned()), errno),
        None => StageFailure::explained(Stage::EnteringCgroup(cgroup.to_owned()), None, source.to_string()),
    })
}

/// What is the supervisor's and not meant for workers: which signals it blocks or ignores, and what systemd gave it: ports
/// below 1024, and being spared when memory runs out.
pub(super) fn leave_supervisor_behind() {
    sys::reset_signals();
    // Cannot fail where there is something to clear: Linux 4.3 has it.
    let _ = rustix::thread::clear_ambient_capability_set();
    let score = fs::read_to_string(OOM_SCORE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if score.is_some_and(|score| score < 0) {
        // Upwards everybody may. A worker that stays spared is none the worse for it.
        let _ = fs::write(OOM_SCORE, "0");
    }
}

/// Puts an empty standard input, the two streams and the listeners at 0, 1, 2 and from 3 on, and has `execve` close
/// whatever else is open.
fn place(stdin: Option<OwnedFd>, streams: [OwnedFd; 2], listeners: Vec<OwnedFd>) -> Result<(), Errno> {
    let first_free = first_free(listeners.len());
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
    };
    // Two passes: a descriptor may have come at a number that another one is to have.
    let lifted = std::iter::once(stdin)
        .chain(streams)
        .chain(listeners)
        .map(|fd| if fd.as_raw_fd() < first_free { fcntl_dupfd_cloexec(&fd, first_free) } else { Ok(fd) })
        .collect::<Result<Vec<OwnedFd>, Errno>>()?;
    for (number, fd) in (0..).zip(&lifted) {
        sys::place_descriptor(fd.as_fd(), number).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::BADF))?;
    }
    sys::close_on_exec_from(first_free).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL))
}

/// The plan's environment, and what tells the program about its listeners.
fn environment(plan: &ExecPlan) -> Vec<String> {
    let mut ours = Vec::new();
    if !plan.listen_names.is_empty() {
        ours.push(("LISTEN_FDS".to_owned(), plan.listen_names.len().to_string()));
        ours.push(("LISTEN_FDNAMES".to_owned(), plan.listen_names.join(":")));
        if plan.listen_pid {
            ours.push(("LISTEN_PID".to_owned(), getpid().as_raw_nonzero().to_string()));
        }
    }
    for (number, name) in (LISTEN_FDS_START..).zip(&plan.listen_names) {
        let variable = fd_variable(name);
        // Two slots of one name (a socket and what was stored beside it): the first is the one meant.
        if !ours.iter().any(|(known, _)| *known == variable) {
            ours.push((variable, number.to_string()));
        }
    }
    if plan.node_channel {
        ours.push((
            NODE_CHANNEL.to_owned(),
            (LISTEN_FDS_START..).nth(plan.listen_names.len()).unwrap_or(-1).to_string(),
        ));
    }
    // A channel to whoever started the supervisor or the app is no worker's.
    let is_ours = |name: &str| {
        matches!(name, "LISTEN_FDS" | "LISTEN_FDNAMES" | "LISTEN_PID" | NODE_CHANNEL) || name.starts_with("AGENTD_FD_")
    };
    let given = plan.env.iter().filter(|(name, _)| !is_ours(name)).map(|(name, value)| format!("{name}={value}"));
    given.chain(ours.iter().map(|(name, value)| format!("{name}={value}"))).collect()
}

fn without_nul(text: String) -> Result<CString, StageFailure> {
    CString::new(text).map_err(|e| {
        let text = String::from_utf8_lossy(&e.into_vec()).escape_debug().take(64).collect::<String>();
        StageFailure::explained(Stage::ReadingPlan, None, format!("\"{text}\" holds a zero byte"))
    })
}

impl Ready {
    fn execute(&mut self, report: BorrowedFd<'_>, executing: &AtomicBool) -> Result<Infallible, StageFailure> {
        let plan = &self.plan;
        set_limits(plan)?;
        if let Some(account) = &self.account {
            let stage = || Stage::TakingAccount(plan.account.to_string());
            account
                .become_it()
                .map_err(|errno| StageFailure::refused(stage(), Errno::from_raw_os_error(errno as i32)))?;
        }
        chdir(plan.cwd.as_str())
            .map_err(|errno| StageFailure::refused(Stage::ChangingDirectory(plan.cwd.clone()), errno))?;
        let command = plan.argv.first().map_or("", String::as_str);
        let path = plan.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
        let file = program::find(command, path)?;
        let image = Image::new(without_nul(file.to_string())?, take(&mut self.argv), take(&mut self.env));
        let (file, image) = self.program.insert((file, image));
        // The supervisor may be gone, which is no reason to not start.
        let _ = say(report, &ShimWord::Executing);
        Err(program::exec_failure(file, image.execute(executing)))
    }
}

fn set_limits(plan: &ExecPlan) -> Result<(), StageFailure> {
    if let Some(soft) = plan.soft_files {
        let hard = getrlimit(Resource::Nofile).maximum;
        let current = Some(hard.map_or(soft, |hard| soft.min(hard)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum: hard })
            .map_err(|errno| StageFailure::refused(Stage::SettingLimit(Limit::Files), errno))?;
    }
    for &(limit, value) in &plan.limits {
        let value = (value != u64::MAX).then_some(value);
        // At the hard limit of processor time the kernel kills; the soft one is told apart by its signal.
        let grace = if limit == Limit::CpuSeconds { CPU_GRACE_SECONDS } else { 0 };
        let maximum = value.map(|value| value.saturating_add(grace));
        setrlimit(limit.resource(), Rlimit { current: value, maximum }).map_err(|errno| {
            let wanted = value.map_or("unlimited".to_owned(), |v| v.to_string());
            let StageFailure { stage, errno, detail } = StageFailure::refused(Stage::SettingLimit(limit), errno);
            StageFailure { stage, errno, detail: format!("{wanted}: {detail}{}", bound(limit)) }
        })?;
    }
    Ok(())
}

/// What bounds this limit, in words to follow a refusal.
fn bound(limit: Limit) -> String {
    let hard = getrlimit(limit.resource()).maximum.map_or("unlimited".to_owned(), |hard| hard.to_string());
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().filter(|_| limit == Limit::Files);
    let most = most.map_or(String::new(), |most| format!(", and the kernel's own (fs.nr_open) is {}", most.trim()));
    format!(" (the supervisor's own hard limit is {hard}: Limit…= of its unit, or ulimit -H, raises it{most})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_announced_by_systemds_variables_and_ours_and_stale_ones_do_not_pass() {
        let plan = ExecPlan {
            argv: vec!["x".into()],
            cwd: "/".into(),
            env: vec![
                ("A".into(), "1".into()),
                ("LISTEN_PID".into(), "1".into()),
                ("AGENTD_FD_OLD".into(), "9".into()),
                ("NODE_CHANNEL_FD".into(), "9".into()),
            ],
            umask: 0o022,
            limits: vec![],
            soft_files: None,
            cgroup: None,
            listen_names: vec!["http".into(), "state".into(), "http".into()],
            listen_pid: false,
            node_channel: false,
            stdin: false,
            account: super::super::account::Account::default(),
            secrets: Secrets::default(),
        };
        let expected =
            ["A=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=http:state:http", "AGENTD_FD_HTTP=3", "AGENTD_FD_STATE=4"];
        assert_eq!(environment(&plan), expected);
        let told = environment(&ExecPlan { listen_pid: true, ..plan.clone() });
        assert!(told.contains(&format!("LISTEN_PID={}", std::process::id())));
        let told = environment(&ExecPlan { node_channel: true, ..plan.clone() });
        assert!(told.contains(&"NODE_CHANNEL_FD=6".to_owned()), "{told:?}");
        assert_eq!(environment(&ExecPlan { listen_names: vec![], ..plan }), ["A=1"]);
    }

    #[test]
    fn a_zero_byte_is_refused_with_the_text_that_holds_it() {
        let failure = without_nul("a\0b".to_owned()).unwrap_err();
        assert_eq!(failure.to_string(), r#"reading the plan: "a\0b" holds a zero byte"#);
    }
}
