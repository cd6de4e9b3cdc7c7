/*
 * Makes a flush slow: preloaded, it adds SLOWFLUSH_NS nanoseconds to whatever waits for the disk.
 *
 * LMDB flushes twice for a durable commit: fdatasync for the data, then a pwrite of the meta page
 * through a descriptor opened with O_DSYNC. Such a write is a flush too. Which descriptors are of
 * that kind is asked of the kernel at each write: about 0.1 us, and right for every descriptor,
 * however it was opened, copied or numbered again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct timespec delay;

__attribute__((constructor)) static void read_delay(void)
{
	const char *text = getenv("SLOWFLUSH_NS");
	long long ns = text ? atoll(text) : 0;
	delay.tv_sec = ns / 1000000000LL;
	delay.tv_nsec = ns % 1000000000LL;
}

static void dawdle(void)
{
	struct timespec left = delay;
	int saved = errno;
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
	errno = saved;
}

static void dawdle_if_sync(int fd)
{
	int saved = errno;
	/* O_SYNC contains the bit of O_DSYNC. */
	int flags = fcntl(fd, F_GETFL);
	errno = saved;
	if (flags != -1 && (flags & O_DSYNC))
		dawdle();
}

/* The real function. Looked up once; a race only looks it up twice. */
#define REAL(ret, name, ...)                                                   \
	static ret (*real)(__VA_ARGS__);                                       \
	if (!real)                                                             \
		*(void **)&real = dlsym(RTLD_NEXT, #name)

#define SYNC(name, params, args, types)                                        \
	int name params                                                        \
	{                                                                      \
		REAL(int, name, types);                                        \
		int done = real args;                                          \
		dawdle();                                                      \
		return done;                                                   \
	}

#define UNPAREN(...) __VA_ARGS__
#define WRITE(name, params, args, types)                                       \
	ssize_t name params                                                    \
	{                                                                      \
		REAL(ssize_t, name, UNPAREN types);                            \
		ssize_t done = real args;                                      \
		dawdle_if_sync(fd);                                            \
		return done;                                                   \
	}

SYNC(fsync, (int fd), (fd), int)
SYNC(fdatasync, (int fd), (fd), int)

int msync(void *at, size_t len, int flags)
{
	REAL(int, msync, void *, size_t, int);
	int done = real(at, len, flags);
	if (flags & MS_SYNC)
		dawdle();
	return done;
}

WRITE(write, (int fd, const void *from, size_t len), (fd, from, len),
      (int, const void *, size_t))
WRITE(writev, (int fd, const struct iovec *iov, int n), (fd, iov, n),
      (int, const struct iovec *, int))
WRITE(pwrite, (int fd, const void *from, size_t len, off_t at),
      (fd, from, len, at), (int, const void *, size_t, off_t))
WRITE(pwrite64, (int fd, const void *from, size_t len, off64_t at),
      (fd, from, len, at), (int, const void *, size_t, off64_t))
WRITE(pwritev, (int fd, const struct iovec *iov, int n, off_t at),
      (fd, iov, n, at), (int, const struct iovec *, int, off_t))
WRITE(pwritev64, (int fd, const struct iovec *iov, int n, off64_t at),
      (fd, iov, n, at), (int, const struct iovec *, int, off64_t))
