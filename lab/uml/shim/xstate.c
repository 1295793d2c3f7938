/* Lets user-mode Linux 6.1 run on processors whose extended state is larger than the 2696 bytes that it has room for (AMX).
 * The host refuses PTRACE_SETREGSET of NT_X86_XSTATE with a buffer shorter than the whole state, so this library, which is
 * preloaded, reads the whole state first, lays the shorter one over its start, and sets that. */
#include <stdarg.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum {
	LAST_PEEK = 3, /* PTRACE_PEEKTEXT, PEEKDATA, PEEKUSER are 1 to 3 */
	GET_SET = 0x4204,
	SET_SET = 0x4205,
	XSTATE = 0x202,
	HEADER = 512 /* where the bit vector of the components that are present stands */
};

/* The components that fit in the shorter buffer: x87, SSE, AVX, the three of AVX-512, PKRU. */
static const uint64_t known = 0x2ff;

static char whole[1 << 16] __attribute__((aligned(64)));

static long set_state(long pid, struct iovec *given)
{
	struct iovec all = { whole, sizeof whole };
	uint64_t before, bits;

	if (syscall(SYS_ptrace, GET_SET, pid, XSTATE, &all) < 0)
		return -1;
	if (given->iov_len >= all.iov_len || given->iov_len < HEADER + sizeof bits)
		return syscall(SYS_ptrace, SET_SET, pid, XSTATE, given);
	memcpy(&before, whole + HEADER, sizeof before);
	memcpy(whole, given->iov_base, given->iov_len);
	memcpy(&bits, whole + HEADER, sizeof bits);
	bits = (bits & known) | (before & ~known);
	memcpy(whole + HEADER, &bits, sizeof bits);
	return syscall(SYS_ptrace, SET_SET, pid, XSTATE, &all);
}

long ptrace(int request, ...)
{
	va_list args;
	long pid, where, data, word = 0, got;

	va_start(args, request);
	pid = va_arg(args, long);
	where = va_arg(args, long);
	data = va_arg(args, long);
	va_end(args);
	if (request == SET_SET && where == XSTATE)
		return set_state((int)pid, (struct iovec *)data);
	if (request < 1 || request > LAST_PEEK)
		return syscall(SYS_ptrace, (long)request, (long)(int)pid, where, data);
	/* The system call stores the word that it has read; the library's function returns it. */
	got = syscall(SYS_ptrace, (long)request, (long)(int)pid, where, &word);
	if (got < 0)
		return got;
	errno = 0;
	return word;
}
