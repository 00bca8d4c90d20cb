/*
 * The system calls and small parts that fsb-inside needs beyond sys.h.
 */
#pragma once
#include "sys.h"

/* Numbers of the Linux ABI: include/uapi/linux/{fcntl,stat,sched,prctl,in,socket}.h */
enum {
  O_EXCL = 0200,
#if defined(__x86_64__)
  O_DIRECTORY = 0200000,
  O_NOFOLLOW = 0400000,
#else
  O_DIRECTORY = 040000,
  O_NOFOLLOW = 0100000,
#endif
  AT_SYMLINK_NOFOLLOW = 0x100,
  STATX_BASIC = 0x7ff,
  RENAME_NOREPLACE = 1,
  S_IFMT = 0170000,
  S_IFIFO = 0010000,
  S_IFDIR = 0040000,
  S_IFREG = 0100000,
  S_IFLNK = 0120000,
  CLONE_NEWNS = 0x00020000,
  CLONE_NEWUSER = 0x10000000,
  CLONE_NEWNET = 0x40000000,
  PR_SET_PDEATHSIG = 1,
  PR_SET_DUMPABLE = 4,
  PR_SET_NO_NEW_PRIVS = 38,
  SIGKILL = 9,
  AF_INET = 2,
  SHUT_WR = 1,
  POLLOUT = 4,
  EISDIR = 21,
  ECONNREFUSED = 111
};

struct statx_time {
  isize seconds;
  u32 nanos;
  int reserved;
};

struct statx {
  u32 mask, block_size;
  u64 attributes;
  u32 links, uid, gid;
  unsigned short mode, spare0;
  u64 inode, size, blocks, attributes_mask;
  struct statx_time accessed, born, changed, modified;
  u32 rdev_major, rdev_minor, dev_major, dev_minor;
  u64 spare[14];
};

/* The bytes of standard input and output move in pieces of this size; a pipe or socket seldom holds more. */
enum { PIECE_BYTES = 1 << 18 };

/* What went wrong, for the agent: it reads the code, people read the text. */
enum {
  EXIT_FAILED = 1,
  EXIT_USAGE = 2,
  EXIT_NO_SUCH_PATH = 3,
  EXIT_NO_FOLDER = 4,
  EXIT_GONE = 5,
  EXIT_REFUSED = 6,
  EXIT_BAD_ARCHIVE = 7
};

static inline int compare(const void *a, const void *b, usize n) {
  const u8 *x = a, *y = b;
  for (; n; n--, x++, y++)
    if (*x != *y) return *x - *y;
  return 0;
}

static inline int starts(const char *text, const char *with) {
  while (*with)
    if (*text++ != *with++) return 0;
  return 1;
}

static inline u64 number(const char *text) {
  u64 value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (u64)(*text++ - '0');
  return value;
}

/* Writes all of it, or tells by false that the reader is gone. */
static inline int write_all(int fd, const void *bytes, usize n) {
  const u8 *at = bytes;
  while (n > 0) {
    isize done = call(SYS_write, fd, at, n, 0);
    if (done == -EINTR) continue;
    if (done <= 0) return 0;
    at += done;
    n -= (usize)done;
  }
  return 1;
}

/* The kernel's words for the failures that happen to files; anything else is a number. */
static inline const char *reason(isize error) {
  switch (-error) {
    case 1: return "operation not permitted";
    case 2: return "no such file or directory";
    case 5: return "input/output error";
    case 13: return "permission denied";
    case 17: return "it exists already";
    case 18: return "it lies on another file system";
    case 20: return "not a directory";
    case 21: return "is a directory";
    case 22: return "not possible here";
    case 26: return "the file is being executed";
    case 27: return "the file is too large";
    case 28: return "no space is left";
    case 30: return "the file system is read-only";
    case 36: return "the name is too long";
    case 39: return "the directory is not empty";
    case 40: return "too many links";
    case 111: return "connection refused";
    case 122: return "the disk quota is exceeded";
    default: return "the kernel refused it";
  }
}

/* One line for people: `WHAT: WHY`. */
static inline void fail(int code, const char *what, const char *why) {
  static char line[8192];
  usize n = length(what), m = length(why);
  if (n > 4096) n = 4096;
  memcpy(line, what, n);
  memcpy(line + n, ": ", 2);
  memcpy(line + n + 2, why, m);
  line[n + 2 + m] = '\n';
  write_all(2, line, n + m + 3);
  leave(code);
}
