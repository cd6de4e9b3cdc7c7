/*
 * A disk that fails, or is slow, when told to: preloaded into a test that runs itself again.
 *
 * FAILIO_CONTROL names a folder. While a file of that name is in it,
 *
 *   fail-meta   a write through an O_DSYNC descriptor (LMDB's meta page) fails with EIO, after the page
 *               cache has taken it, as it does when it is the flush of such a write that fails;
 *   fail-flush  fdatasync, fsync and msync(MS_SYNC) fail with EIO;
 *   fail-data   any other write to a data.mdb fails with ENOSPC;
 *   hold-flush  fdatasync does not return; while one is held there is a file `held` beside it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *control;

__attribute__((constructor)) static void find_control(void)
{
	control = getenv("FAILIO_CONTROL");
}

static void name_of(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", control ? control : "/nonexistent", name);
}

static int told(const char *name)
{
	char path[4096];
	int saved = errno;
	name_of(path, sizeof path, name);
	int there = access(path, F_OK) == 0;
	errno = saved;
	return there;
}

static void hold(void)
{
	if (!told("hold-flush"))
		return;
	char path[4096];
	name_of(path, sizeof path, "held");
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	struct timespec pause = { 0, 1000000 };
	while (told("hold-flush"))
		nanosleep(&pause, NULL);
	unlink(path);
}

static int is_synced(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	/* O_SYNC contains the bit of O_DSYNC. */
	return flags != -1 && (flags & O_DSYNC);
}

static int is_data(int fd)
{
	static const char tail[] = "/data.mdb";
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof path);
	ssize_t want = sizeof tail - 1;
	return len >= want && memcmp(path + len - want, tail, want) == 0;
}

#define REAL(ret, name, ...)                                                   \
	static ret (*real)(__VA_ARGS__);                                       \
	if (!real)                                                             \
		*(void **)&real = dlsym(RTLD_NEXT, #name)

#define FAIL(error)                                                            \
	do {                                                                   \
		errno = (error);                                               \
		return -1;                                                     \
	} while (0)

int fdatasync(int fd)
{
	REAL(int, fdatasync, int);
	hold();
	if (told("fail-flush"))
		FAIL(EIO);
	return real(fd);
}

int fsync(int fd)
{
	REAL(int, fsync, int);
	if (told("fail-flush"))
		FAIL(EIO);
	return real(fd);
}

int msync(void *at, size_t len, int flags)
{
	REAL(int, msync, void *, size_t, int);
	if ((flags & MS_SYNC) && told("fail-flush"))
		FAIL(EIO);
	return real(at, len, flags);
}

#define UNPAREN(...) __VA_ARGS__
#define WRITE(name, params, args, types)                                       \
	ssize_t name params                                                    \
	{                                                                      \
		REAL(ssize_t, name, UNPAREN types);                            \
		if (told("fail-meta") && is_synced(fd)) {                      \
			real args;                                             \
			FAIL(EIO);                                             \
		}                                                              \
		if (told("fail-data") && !is_synced(fd) && is_data(fd))        \
			FAIL(ENOSPC);                                          \
		return real args;                                              \
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
