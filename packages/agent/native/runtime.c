/*
 * fsb-runtime: stands where containerd's shims look for crun or runsc, and runs it with a null device that it can't give
 * away.
 *
 *   PATH ARGUMENTS...         runs PATH.real with the same arguments and environment
 *
 * crun gives the files behind a program's standard streams to the program's user, runsc to the user of its own kernel. Where
 * a program has no input, or no output, that is the node's /dev/null, and its owner may close it to everybody. So it is
 * opened anew through a view of its own that can't be changed (a detached read-only mount), where neither the runtime nor
 * the program can change owner or mode; reading and writing are as before. Any other stream stays what it is. On a kernel
 * that can't do it (Linux before 5.12) all of them stay.
 */
#include "inside.h"

/* Numbers of the Linux ABI: include/uapi/linux/{mount,fcntl,major}.h */
enum {
  AT_EMPTY_PATH = 0x1000,
  OPEN_TREE_CLONE = 1,
  MOUNT_ATTR_RDONLY = 1,
  S_IFCHR = 0020000,
  MEMORY_MAJOR = 1,
  NULL_MINOR = 3,
  STREAMS = 3,
  PATH_BYTES = 4096,
  NOT_STARTED = 125
};

struct mount_attributes {
  u64 set, clear, propagation, user_namespace;
};

static const char null_device[] = "/dev/null";

static int is_null_device(int fd) {
  struct statx info;
  return call6(SYS_statx, fd, (isize) "", AT_EMPTY_PATH, STATX_BASIC, (isize)&info, 0) == 0 &&
         (info.mode & S_IFMT) == S_IFCHR && info.rdev_major == MEMORY_MAJOR && info.rdev_minor == NULL_MINOR;
}

/* /proc/self/fd/FD */
static void path_of(int fd, char *to) {
  static const char folder[] = "/proc/self/fd/";
  char digits[12];
  usize n = 0;
  memcpy(to, folder, sizeof folder);
  to += sizeof folder - 1;
  do digits[n++] = (char)('0' + fd % 10);
  while ((fd /= 10) > 0);
  while (n > 0) *to++ = digits[--n];
  *to = 0;
}

static void replace_null_devices(void) {
  struct mount_attributes unchangeable = {MOUNT_ATTR_RDONLY, 0, 0, 0};
  char path[64];
  int replaced[STREAMS], any = 0;
  for (int fd = 0; fd < STREAMS; fd++) any |= replaced[fd] = is_null_device(fd);
  if (!any) return;
  int view = (int)call(SYS_open_tree, AT_FDCWD, null_device, OPEN_TREE_CLONE | O_CLOEXEC, 0);
  if (view < 0) return;
  if (call6(SYS_mount_setattr, view, (isize) "", AT_EMPTY_PATH, (isize)&unchangeable, sizeof unchangeable, 0) == 0) {
    path_of(view, path);
    int device = (int)call(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (device >= 0) {
      for (int fd = 0; fd < STREAMS; fd++)
        if (replaced[fd]) call(SYS_dup3, device, fd, 0, 0);
      call(SYS_close, device, 0, 0, 0);
    }
  }
  call(SYS_close, view, 0, 0, 0);
}

__attribute__((used)) void start(usize *stack) {
  static const char suffix[] = ".real";
  static char path[PATH_BYTES];
  usize count = stack[0];
  char **arguments = (char **)(stack + 1);
  usize n = count > 0 ? length(arguments[0]) : 0;
  if (n == 0 || n + sizeof suffix > sizeof path) fail(NOT_STARTED, "fsb-runtime", "it was called by no path");
  replace_null_devices();
  memcpy(path, arguments[0], n);
  memcpy(path + n, suffix, sizeof suffix);
  fail(NOT_STARTED, path, reason(call(SYS_execve, path, arguments, arguments + count + 1, 0)));
}
