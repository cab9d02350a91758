//! A process that shares our memory until it executes a program.
//!
//! Owns the stack that it runs on and what `execve` is given. What may go wrong between two processes with one memory is
//! told at [`share_until_execution`]; `docs/adr/0020-a-lone-copy-shares-the-zygotes-memory.md` has why it is done at all.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

#[cfg(target_arch = "x86_64")]
use super::INTO_CGROUP;

/// Where a process runs that shares our memory.
#[derive(Debug)]
pub(in crate::process) struct Stack(ptr::NonNull<libc::c_void>);

impl Stack {
    /// In bytes. What is never touched takes no memory.
    const LENGTH: usize = 512 << 10;
    /// At its end, where whoever needs more is stopped.
    const GUARD: usize = 16 << 10;

    /// A stack that stays for as long as this process.
    ///
    /// # Errors
    /// No memory.
    pub(in crate::process) fn make() -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory at a place of the kernel's choice, which nobody else knows of.
        let made = unsafe { libc::mmap(ptr::null_mut(), Self::LENGTH, access, kind | libc::MAP_STACK, -1, 0) };
        if made == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: within what was just made, where nothing is yet.
        let guarded = unsafe { libc::mprotect(made, Self::GUARD, libc::PROT_NONE) };
        // SAFETY: as before. No copy of this process needs it.
        let kept = unsafe { libc::madvise(made, Self::LENGTH, libc::MADV_DONTFORK) };
        if guarded != 0 || kept != 0 {
            return Err(io::Error::last_os_error());
        }
        ptr::NonNull::new(made).map(Self).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }
}

/// Starts a process in the cgroup whose folder `cgroup` is that shares our memory, as `posix_spawn` does it, and not our
/// descriptors: its own are copies. It does `steps` with `theirs` and ends with their exit code, unless they execute a
/// program. `meanwhile` is done with its id as soon as it is there. Returns when the process has a memory of its own, or is
/// gone. As of [`copy_into_cgroup`](super::copy_into_cgroup), it is no child of ours but our parent's, and this is for a process of one thread.
///
/// The two are like threads that the libraries take for one: they have the same thread-local values and the same
/// allocator, and the process may stand still at any moment, for as long as somebody stops it. `meanwhile` therefore makes
/// system calls only: it takes no memory and no lock, logs nothing, and reads no `errno`.
///
/// What the process has made and not let go of when it executes is nobody's, unless it is in `theirs`. Where it ended
/// before that, which may be anywhere, locks that it took stay locked and what it wrote may be half of it: then nothing
/// may be done but to [`end_now`], and whether it was so must be told by an atomic value.
///
/// As long as memory is shared, `oom_score_adj` is, and who is killed for having too much of it takes the other along.
///
/// # Errors
/// What `clone3` refused; `theirs` is as it was. ENOSYS on a processor for which nobody has written it.
#[cfg(target_arch = "x86_64")]
pub(in crate::process) fn share_until_execution<T>(
    cgroup: BorrowedFd<'_>,
    stack: &mut Stack,
    steps: fn(&mut T) -> u8,
    theirs: &mut T,
    meanwhile: impl FnOnce(rustix::process::Pid),
) -> Result<(), rustix::io::Errno> {
    struct Begin<T> {
        steps: fn(&mut T) -> u8,
        theirs: *mut T,
    }

    extern "C" fn begin<T>(with: *mut Begin<T>) -> ! {
        // SAFETY: both live until the caller's function returns, which it does not before this process is gone from its
        // memory; nobody but this process uses `theirs` until then. A panic ends this process here.
        let code = unsafe { ((*with).steps)(&mut *(*with).theirs) };
        end_now(code)
    }

    /// A number that no process has.
    const THERE: u32 = u32::MAX;
    // Set to 0 by the kernel, which then wakes who waits for it.
    let there = AtomicU32::new(THERE);
    let mut with = Begin { steps, theirs: ptr::from_mut(theirs) };
    // SAFETY: all zeroes are a valid value of this plain structure of numbers.
    let mut args = unsafe { std::mem::zeroed::<libc::clone_args>() };
    let flags = libc::CLONE_PARENT | libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID;
    args.flags = INTO_CGROUP | u64::from(flags.unsigned_abs());
    args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    args.child_tid = there.as_ptr() as u64;
    args.stack = stack.0.as_ptr() as u64;
    args.stack_size = Stack::LENGTH as u64;
    let answer: i64;
    // SAFETY: the new process has nothing of this one's stack, but one of its own that nobody else uses, aligned to a
    // page; it calls `begin`, which does not return. What the kernel changes is named. The structures outlive the call,
    // and `with` and `there` the process's use of them: see below.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // Where a backtrace ends.
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => answer,
            in("rdi") &raw mut args,
            in("rsi") size_of::<libc::clone_args>(),
            // By name: one of the compiler's choice may be one that is changed before it is read.
            in("r8") begin::<T> as extern "C" fn(*mut Begin<T>) -> !,
            in("r9") &raw mut with,
            out("rcx") _,
            out("r11") _,
        );
    }
    let Some(pid) = i32::try_from(answer).ok().filter(|&pid| pid > 0).and_then(rustix::process::Pid::from_raw) else {
        let errno = i32::try_from(answer.saturating_neg()).unwrap_or(libc::EINVAL);
        return Err(rustix::io::Errno::from_raw_os_error(errno));
    };
    meanwhile(pid);
    while there.load(Ordering::Acquire) != 0 {
        // Not private: the kernel's own call wakes without that flag. Whatever it says, the number tells.
        let _ = rustix::thread::futex::wait(&there, rustix::thread::futex::Flags::empty(), THERE, None);
    }
    Ok(())
}

/// Elsewhere, nobody has written it.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::process) fn share_until_execution<T>(
    _cgroup: BorrowedFd<'_>,
    stack: &mut Stack,
    _steps: fn(&mut T) -> u8,
    _theirs: &mut T,
    _meanwhile: impl FnOnce(rustix::process::Pid),
) -> Result<(), rustix::io::Errno> {
    tracing::trace!(?stack, "not used here");
    Err(rustix::io::Errno::NOSYS)
}

/// Ends this process at once, without what is usually done before.
pub(in crate::process) fn end_now(code: u8) -> ! {
    // SAFETY: every state of the process allows it, and it does not return.
    unsafe { libc::_exit(libc::c_int::from(code)) }
}

/// Closes descriptor `number`, which in this process nobody owns: a copy of one whose owner is in another process that
/// shares its memory with this one.
pub(in crate::process) fn close_copied(number: RawFd) {
    // SAFETY: no memory is involved. That nobody owns it is the caller's to keep; a failure to do so could close a
    // descriptor under its owner, not corrupt memory.
    unsafe { libc::syscall(libc::SYS_close, number) };
}

/// Closes every descriptor from `first` on, none of which anybody owns in this process any more: what does is in another
/// one that shares its memory with this one, and has copies of its own. Allocates nothing.
///
/// # Errors
/// What `close_range` refused: nothing, on a kernel from 5.9 on.
pub(in crate::process) fn close_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: as of `close_copied`.
    let refused = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `execve` takes, made beforehand: the call itself makes nothing that would be left behind.
#[derive(Debug)]
pub(in crate::process) struct Image {
    file: CString,
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    /// Into both, each with a null at its end.
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
}

impl Image {
    pub(in crate::process) fn new(file: CString, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Self { file, _arguments: arguments, _environment: environment, argv, envp }
    }

    /// Makes this process the program. Returns what the kernel said where it would not. `called` is true from before to then:
    /// a process that is gone meanwhile was in the kernel's hands.
    pub(in crate::process) fn execute(&self, called: &AtomicBool) -> rustix::io::Errno {
        called.store(true, Ordering::Release);
        // SAFETY: the pointers are to texts that this value owns and nobody changes, each list with a null at its end.
        unsafe { libc::execve(self.file.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        let refused = io::Error::last_os_error();
        called.store(false, Ordering::Release);
        rustix::io::Errno::from_io_error(&refused).unwrap_or(rustix::io::Errno::INVAL)
    }
}
