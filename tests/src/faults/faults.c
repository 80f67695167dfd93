// Loaded into a process before everything else: lets the n-th call of one kind on files under one folder fail as a disk would
// let it fail, or kills the process there. What is counted is counted over all threads.
//
//   FAULT_FOLDER  calls on paths that begin with this
//   FAULT_CALL    sync, write, create, link, rename or mkdir
//   FAULT_NTH     which of them, from 1
//   FAULT_ERRNO   how it fails: nothing is done; 0 kills the process instead
//   FAULT_LASTS   whether all after it fail, too
//   FAULT_MARK    a file that is made when it happens
//   FAULT_UNTIL   a file that ends it, once it is there

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *folder, *call, *mark, *until;
static long nth, number, lasts;
static atomic_long seen;

__attribute__((constructor)) static void prepare(void) {
  folder = getenv("FAULT_FOLDER");
  call = getenv("FAULT_CALL");
  mark = getenv("FAULT_MARK");
  until = getenv("FAULT_UNTIL");
  nth = getenv("FAULT_NTH") ? atol(getenv("FAULT_NTH")) : 0;
  number = getenv("FAULT_ERRNO") ? atol(getenv("FAULT_ERRNO")) : 0;
  lasts = getenv("FAULT_LASTS") != NULL;
}

static int strikes(const char *kind, const char *path) {
  if (!folder || !call || strcmp(kind, call) != 0 || strncmp(path, folder, strlen(folder)) != 0) return 0;
  if (until && access(until, F_OK) == 0) return 0;
  long at = atomic_fetch_add(&seen, 1) + 1;
  if (at != nth && !(lasts && at > nth)) return 0;
  if (mark) {
    // Not by our own `open`.
    long made = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT, 0600);
    if (made >= 0) syscall(SYS_close, made);
  }
  if (number == 0) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = (int)number;
  return 1;
}

static int strikes_open(const char *kind, int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strikes(kind, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file) { return strikes_open("sync", file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return strikes_open("sync", file) ? -1 : REAL(fdatasync)(file); }
ssize_t write(int file, const void *bytes, size_t count) { return strikes_open("write", file) ? -1 : REAL(write)(file, bytes, count); }
ssize_t writev(int file, const struct iovec *parts, int count) { return strikes_open("write", file) ? -1 : REAL(writev)(file, parts, count); }
int link(const char *from, const char *to) { return strikes("link", to) ? -1 : REAL(link)(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return strikes("link", to) ? -1 : REAL(linkat)(a, from, b, to, flags); }
int rename(const char *from, const char *to) { return strikes("rename", to) ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return strikes("mkdir", path) ? -1 : REAL(mkdir)(path, mode); }

#define OPEN(name)                                              \
  int name(const char *path, int flags, ...) {                  \
    mode_t mode = 0;                                            \
    if (flags & O_CREAT) {                                      \
      va_list more;                                             \
      va_start(more, flags);                                    \
      mode = va_arg(more, mode_t);                              \
      va_end(more);                                             \
      if (strikes("create", path)) return -1;                   \
    }                                                           \
    return REAL(name)(path, flags, mode);                       \
  }
OPEN(open)
OPEN(open64)
