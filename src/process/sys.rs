//! The only unsafe code of the project: system calls that the safe wrappers we use do not have, or have only with
//! conditions that the caller must keep.
//!
//! Owns no state. Each function is as small as its system call and says why its use is sound. What nix and rustix
//! offer safely is called from where it is needed, not wrapped here again.
#![expect(unsafe_code, reason = "the one module that may hold it; see the module head")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::libc;

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

/// Longest TCP_INFO answer asked for, in bytes; the kernel of 6.18 gives 280 of them.
const TCP_INFO_MAX: usize = 512;

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

fn checked(refused: libc::c_int) -> io::Result<()> {
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
