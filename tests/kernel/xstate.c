/*
 * Loaded before User-Mode Linux. Before Linux 6.13 it keeps as much of a process's extended state (XSAVE) as its makers foresaw,
 * 2.7 KB; where the processor has AMX that state is 11 KB, and the host refuses to set a part of it (EFAULT), at which User-Mode
 * Linux ends its first process. Here what it sets is laid over what the process has: nothing under it uses what lies beyond.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* More than any processor's, in bytes. */
#define STATE_MAX 65536

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	static char whole[STATE_MAX];
	va_list rest;

	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
	va_end(rest);
	if (!next)
		next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
		struct iovec *given = data, all = { whole, sizeof whole };

		if (!next(PTRACE_GETREGSET, pid, address, &all) && all.iov_len > given->iov_len) {
			memcpy(whole, given->iov_base, given->iov_len);
			return next(request, pid, address, &all);
		}
	}
	return next(request, pid, address, data);
}
