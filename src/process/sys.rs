//! The only unsafe code of the project: system calls that the safe wrappers we use do not have, or have only with
//! conditions that the caller must keep.
//!
//! Owns no state. Each function is as small as its system call and says why its use is sound. What nix and rustix
//! offer safely is called from where it is needed, not wrapped here again.
#![expect(unsafe_code, reason = "the one module that may hold it; see the module head")]

mod sharing;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use agentd_core::time::Moment;
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) use self::sharing::{Image, Stack, close_copied, close_from, end_now, share_until_execution};

/// One instruction of a classic BPF program, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation, addressing mode and size.
    pub code: u16,
    /// Instructions to skip when a jump's condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Groups asked for at first; few have more.
const PEER_GROUPS_FIRST: usize = 32;

/// Longest TCP_INFO answer asked for, in bytes; the kernel of 6.18 gives 280 of them.
const TCP_INFO_MAX: usize = 512;

/// Whether some process holds `fd`'s file open for writing; `fd` itself must be read-only.
///
/// # Errors
/// Where that cannot be told: the file is another user's, or its file system knows no leases.
pub fn has_writer(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: F_SETLEASE takes and returns integers only; `fd` is open for as long as it is borrowed.
    let lease = |kind: libc::c_int| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) };
    if lease(libc::F_RDLCK) == 0 {
        lease(libc::F_UNLCK);
        return Ok(false);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EAGAIN) { Ok(true) } else { Err(error) }
}

/// Makes `prog` choose among the sockets of the reuseport group that `fd` is a member of. Replaces the program before.
///
/// # Errors
/// `InvalidInput` for a program longer than the kernel's length field can say; else what `setsockopt` refused, as for
/// a program that does not verify or a socket that is in no group.
pub fn attach_reuseport_cbpf(fd: BorrowedFd<'_>, prog: &[SockFilter]) -> io::Result<()> {
    let len = u16::try_from(prog.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // The kernel only reads through the pointer, though its type is mutable.
    let program = libc::sock_fprog { len, filter: prog.as_ptr().cast_mut().cast() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: `program` lives until the call returns and its pointer is valid for `len` instructions, whose layout
    // `repr(C)` makes that of `sock_filter`. The kernel copies them before it returns.
    let refused = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&program).cast(),
            size,
        )
    };
    checked(refused)
}

/// The kernel's `struct tcp_info` of a TCP socket, as many bytes of it as this kernel knows.
///
/// # Errors
/// What `getsockopt` refused, as for a socket that is not TCP.
pub fn tcp_info_bytes(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut info = vec![0_u8; TCP_INFO_MAX];
    let mut len = TCP_INFO_MAX as libc::socklen_t;
    // SAFETY: `info` is writable for the `len` bytes announced, and both outlive the call.
    let refused = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            ptr::from_mut(&mut len),
        )
    };
    checked(refused)?;
    info.truncate(len as usize);
    Ok(info)
}

/// The further groups of whoever is at the other end of a Unix socket, as of its `connect` (`SO_PEERGROUPS`).
///
/// # Errors
/// What `getsockopt` refused, as before Linux 4.13.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; PEER_GROUPS_FIRST];
    loop {
        let mut len = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: `groups` is writable for the `len` bytes announced, and both outlive the call.
        let refused = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                ptr::from_mut(&mut len),
            )
        };
        let wanted = len as usize / size_of::<u32>();
        match checked(refused) {
            Ok(()) => {
                groups.truncate(wanted);
                return Ok(groups);
            }
            // The kernel says how much room it needs.
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && wanted > groups.len() => {
                groups.resize(wanted, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Now, on the clock that counts suspend (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boottime() -> Moment {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer. The call cannot fail for this clock, and zero would remain.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    Moment::from_micros(seconds * 1_000_000 + nanos / 1_000)
}

/// Size of a memory page, in bytes.
#[must_use]
pub fn page_size() -> u64 {
    // SAFETY: only reads a constant of the process.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Unmaps the pages of this program's own code and constants. Each that is used again comes back from the page cache, with its
/// neighbours: under a microsecond a piece where nobody else wanted the memory meanwhile.
///
/// # Errors
/// What `madvise` refused, as for a program that was locked into memory.
pub fn let_go_of_program() -> io::Result<()> {
    extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: libc::size_t, result: *mut libc::c_void) -> libc::c_int {
        let page = page_size() as usize;
        // SAFETY: the loader calls this with a valid structure, whose headers are as many as it says, and with the pointer
        // that was given below, to a result that outlives the walk.
        let (info, result) = unsafe { (&*info, &mut *result.cast::<io::Result<()>>()) };
        // SAFETY: as above; the headers are never written.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        {
            let begin = (info.dlpi_addr + header.p_vaddr) as usize;
            let (from, to) = (begin & !(page - 1), (begin + header.p_memsz as usize).next_multiple_of(page));
            // SAFETY: a segment that cannot be written holds what the file holds, and whoever reads it next gets that from
            // there: nothing is relocated in it, and no other segment shares its pages.
            let refused = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
            *result = std::mem::replace(result, Ok(())).and(checked(refused));
        }
        // The first is the program itself; libraries are shared with everybody.
        1
    }
    let mut result = Ok(());
    // SAFETY: `visit` is called before this returns, and only with this pointer.
    unsafe { libc::dl_iterate_phdr(Some(visit), ptr::from_mut(&mut result).cast()) };
    result
}

/// Gives whole pages back that the C library's allocator holds and nobody uses. SQLite's memory comes from there.
pub fn return_free_memory() {
    // SAFETY: only what is free is touched; every state of the allocator allows the call.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Clock ticks a second, the unit of times in `/proc`.
#[must_use]
pub fn ticks_per_second() -> u64 {
    // SAFETY: only reads a constant of the process.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|&ticks| ticks > 0).unwrap_or(100)
}

/// Makes descriptor `number` a copy of `fd` that programs inherit; what `number` was before is closed.
///
/// For the shim, whose own descriptors are all above the numbers it fills: anywhere else this pulls a descriptor from
/// under its owner.
///
/// # Errors
/// What `dup2` refused, as for a number beyond the limit on open files.
pub(super) fn place_descriptor(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved. That nothing in this process owns `number` is the shim's to keep, which has
    // moved all it holds out of the way first; a failure to do so could close a descriptor, not corrupt memory.
    let placed = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if placed == number { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets `exec` close every descriptor from `first` on.
///
/// # Errors
/// What `close_range` refused: nothing, on a kernel from 5.11 on.
pub(super) fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: no memory is involved, and with this flag nothing is closed now. Called as a system call because C
    // libraries older than the kernel lack the wrapper.
    let refused = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
    };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action and blocks none, as a program expects that is started afresh.
pub(super) fn reset_signals() {
    // Larger than the kernel's `struct sigaction` on any architecture; all zeroes mean SIG_DFL without flags.
    let default = [0_u64; 8];
    let mask_size = 8_usize;
    // As the kernel counts them. Two of them the C library keeps for itself and refuses to touch, though they may well
    // have come to us ignored: hence the system call.
    for signal in 1..=64 {
        // SAFETY: the kernel only reads `default`, which is large enough, and the action runs no code of ours. What
        // cannot be changed (SIGKILL, SIGSTOP) is refused and needs no change.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), mask_size) };
    }
    // SAFETY: the set is initialised by `sigemptyset` before it is read, and lives across the call.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// A flag of `clone3` that the C library's headers do not have in the type it takes.
const INTO_CGROUP: u64 = 1 << 33;

/// Which of two a process is after it was copied.
pub(super) enum Copied {
    /// The one that was there before.
    Original {
        /// The other one.
        copy: rustix::process::Pid,
    },
    /// The new one.
    Copy,
}

/// Copies this process into the cgroup whose folder `cgroup` is. The copy is no child of ours but our parent's, who is
/// signalled at its end as he would be at ours. For a process of one thread: another thread's locks would stay locked in
/// the copy for ever.
///
/// A process that enters a cgroup by itself waits for all processors to pass a quiet point (5 to 30 ms measured here); one
/// that is born there does not.
///
/// # Errors
/// What `clone3` refused, as for a kernel before 5.7, a sandbox, or a folder that is no cgroup.
pub(super) fn copy_into_cgroup(cgroup: BorrowedFd<'_>) -> Result<Copied, rustix::io::Errno> {
    // SAFETY: all zeroes are a valid value of this plain structure of numbers.
    let mut args = unsafe { std::mem::zeroed::<libc::clone_args>() };
    args.flags = INTO_CGROUP | u64::from(libc::CLONE_PARENT.unsigned_abs());
    args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    // SAFETY: without CLONE_VM the copy has its own memory and goes on from here as after `fork`; the structure outlives
    // the call, which is given its size. Nothing but the stack that is copied with the rest is used on return.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    let copied = match i32::try_from(answer) {
        Ok(0) => Some(Copied::Copy),
        Ok(pid) if pid > 0 => rustix::process::Pid::from_raw(pid).map(|copy| Copied::Original { copy }),
        Ok(_) | Err(_) => None,
    };
    copied.ok_or_else(|| {
        rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::INVAL)
    })
}

/// Whether both descriptors stand for one open file, and not only for one file opened twice. `None` where the kernel
/// does not tell (built without `kcmp`, or forbidden by a sandbox).
#[must_use]
pub fn is_same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Option<bool> {
    const KCMP_FILE: libc::c_int = 0;
    let me = std::process::id();
    // SAFETY: no memory is involved; the kernel compares two entries of our own descriptor table.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, me, me, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) };
    (order >= 0).then_some(order == 0)
}

/// A descriptor of ours that the runtime watches for being readable.
///
/// It gives the descriptor out by shared reference only: nothing can be put in its place, which is what makes
/// registering it sound.
#[derive(Debug)]
pub struct ReadableFd(AsyncFd<OwnedFd>);

impl ReadableFd {
    /// Takes `fd`, which has to be non-blocking if it is read from, and has the current runtime watch it.
    ///
    /// # Errors
    /// What `epoll_ctl` refused, as for a regular file.
    ///
    /// # Panics
    /// Outside a tokio runtime with its I/O driver on.
    pub fn register(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open and its number the same for as long as it lives; it is moved into the result,
        // which never hands it out by mutable reference nor lets it be taken out or replaced.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        watched.map(Self).map_err(|refused| refused.into_parts().1)
    }

    /// Waits until `read` answers something else than `WouldBlock`, called whenever there may be something to read.
    /// May be dropped at any time: nothing was read then.
    ///
    /// # Errors
    /// What `read` answers.
    pub async fn read_with<T>(&self, mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.0.async_io(Interest::READABLE, |fd| read(fd.as_fd())).await
    }
}

impl AsFd for ReadableFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// What [`receive`] received.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes written to the buffer.
    pub(crate) length: usize,
    /// Whether there were more, which are lost.
    pub(crate) is_truncated: bool,
    /// The descriptors that came with it.
    pub(crate) fds: Vec<OwnedFd>,
    /// The sender's process and user ids. The process is zero when it is outside our pid namespace.
    pub(crate) credentials: Option<(libc::pid_t, libc::uid_t)>,
}

/// Takes over descriptor 3, the first that the exec shim passes on. Once, at the start of a process that was started so.
///
/// # Panics
/// When there is no descriptor 3: it was not started by the shim.
pub(crate) fn listening_descriptor() -> OwnedFd {
    const NUMBER: RawFd = 3;
    // SAFETY: only asks whether the number is open.
    let open = unsafe { libc::fcntl(NUMBER, libc::F_GETFD) } >= 0;
    assert!(open, "descriptor {NUMBER} is the listening socket that the supervisor passes");
    // SAFETY: it is open, and by the contract with the shim it is ours alone.
    unsafe { OwnedFd::from_raw_fd(NUMBER) }
}

/// Takes over a descriptor that the program before this one, in the same process, left open for it by number. None when
/// nothing is open there. Close-on-exec from now on. Once for each number, before anything else is opened.
pub(crate) fn inherited_descriptor(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: no memory is involved. A number that is not open is refused.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: it is open, and nothing in this program has opened it: it was open before its first instruction, and by
    // the contract with the program before it is ours alone.
    (set >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes over the descriptors that systemd passes on, from 3 up, as many as `LISTEN_FDS` says. Once, before anything else
/// opens one. Numbers that are not open are left out, by `None`.
pub(crate) fn passed_descriptors(count: usize) -> Vec<Option<OwnedFd>> {
    (3..).take(count).map(inherited_descriptor).collect()
}

/// A copy of descriptor `number` of the process that `pidfd` stands for.
///
/// # Errors
/// What `pidfd_getfd` refused: `PermissionDenied` where we may not trace that process (another user's, or Yama's
/// `ptrace_scope` above 0 for who is not root), `NotFound` (`ESRCH`) when it has ended.
pub(crate) fn descriptor_of(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; the kernel installs a new descriptor, close-on-exec, or refuses.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel made it just now, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How a process ended that somebody else reaped, as far as the kernel still knows by its pidfd, which must have been
/// opened before: the wait status. None before Linux 6.15, and while it was not reaped.
#[must_use]
pub fn reaped_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `struct pidfd_info` of 64 bytes.
    #[repr(C)]
    struct PidfdInfo {
        mask: u64,
        cgroupid: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_GET_INFO: libc::c_ulong =
        (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, cgroupid: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the request carries the size of the structure that it is given, which is ours for the call.
    let refused = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    // Without the bit in the answer the code means nothing.
    (refused == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Most descriptors that the kernel passes with one message (its `SCM_MAX_FD`).
const SCM_MAX_FD: u32 = 253;
/// Room for the control messages asked for, in units of their alignment.
const CONTROL_WORDS: usize = 160;

/// Receives one message from a Unix socket, without waiting, with its descriptors and its sender's credentials.
///
/// By hand, because rustix reads the credentials' process id as one that cannot be zero, and nix loses descriptors when
/// the kernel could not install all of them.
///
/// # Errors
/// `WouldBlock` when nothing has come; else what `recvmsg` refused.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes are a valid msghdr: no address, no parts, no control buffer.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header's pointers are valid for their lengths across the call, and each is to memory of ours that
    // nobody else uses meanwhile.
    let length =
        unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let is_truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    let mut received = Received { length, is_truncated, fds: Vec::new(), credentials: None };
    // SAFETY: `message` is as the kernel filled it, and `control` still holds what it points to. The CMSG functions
    // stay within the length it gives. A payload is read unaligned and only as far as its header says it reaches; the
    // descriptors were installed for us by the kernel just now, so nobody else owns them, and each is taken once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let payload = libc::CMSG_DATA(header);
            let room = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let numbers = payload.cast::<RawFd>();
                    received.fds.extend(
                        (0..room / size_of::<RawFd>()).map(|n| OwnedFd::from_raw_fd(numbers.add(n).read_unaligned())),
                    );
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if room >= size_of::<libc::ucred>() => {
                    let by = payload.cast::<libc::ucred>().read_unaligned();
                    received.credentials = Some((by.pid, by.uid));
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(received)
}

// The room is for both kinds of control message at their largest.
const _: () = {
    // SAFETY: pure arithmetic, marked unsafe by the library for no other reason than that C declares it.
    let needed = unsafe {
        libc::CMSG_SPACE(SCM_MAX_FD * size_of::<RawFd>() as u32) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32)
    };
    assert!(needed as usize <= CONTROL_WORDS * size_of::<u64>());
};

fn checked(refused: libc::c_int) -> io::Result<()> {
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_listener_tells_its_tcp_info_and_a_file_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(tcp_info_bytes(listener.as_fd()).unwrap().len() >= 28, "tcpi_unacked ends at byte 28");
        let file = tempfile::tempfile().unwrap();
        assert!(tcp_info_bytes(file.as_fd()).is_err());
    }

    #[test]
    fn a_program_is_taken_by_a_reuseport_socket_and_an_invalid_one_refused() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(1).unwrap();
        let always_first = [SockFilter { code: 0x06, jt: 0, jf: 0, k: 0 }];
        attach_reuseport_cbpf(socket.as_fd(), &always_first).unwrap();
        assert!(attach_reuseport_cbpf(socket.as_fd(), &[]).is_err());
    }

    #[test]
    fn one_open_file_is_told_from_one_file_opened_twice() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let again = named.reopen().unwrap();
        let copy = named.as_file().try_clone().unwrap();
        if let Some(same) = is_same_open_file(named.as_file().as_fd(), copy.as_fd()) {
            assert!(same);
            assert_eq!(is_same_open_file(named.as_file().as_fd(), again.as_fd()), Some(false));
        }
    }

    #[test]
    fn a_program_that_was_let_go_of_runs_on_with_what_it_had() {
        static WRITTEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        WRITTEN.store(7, std::sync::atomic::Ordering::Relaxed);
        let relocated: [fn() -> u64; 2] = [page_size, ticks_per_second];
        let before = relocated.map(|function| function());
        let_go_of_program().unwrap();
        assert_eq!(relocated.map(|function| function()), before);
        assert_eq!(WRITTEN.load(std::sync::atomic::Ordering::Relaxed), 7);
    }

    #[test]
    fn the_clock_counts_on() {
        let earlier = boottime();
        assert!(earlier.as_micros() > 0 && boottime() >= earlier);
    }
}
