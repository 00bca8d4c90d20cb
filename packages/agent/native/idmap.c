/*
 * fsb-idmap: shows directories with other owners, without touching them: what root owns in SOURCE belongs to HOST_ID in
 * TARGET, and so on for SIZE ids. This is how the layers of an image, which are root's, become the files of a sandbox
 * whose root is nobody on the host.
 *
 *   fsb-idmap HOST_ID SIZE SOURCE TARGET [SOURCE TARGET ...]
 *
 * Each TARGET becomes a read-only bind mount of its SOURCE, so that nothing that removes a tree of folders by mistake can
 * reach what is behind it. Linux 5.12, and a file system that knows such mounts. Ends with 0, or 1 with a line on stderr
 * that names the step and the error number; mounts that were made until then stay.
 */
#include "sys.h"

/* include/uapi/linux/{sched,mount}.h */
enum {
  SIGCHLD = 17,
  CLONE_NEWUSER = 0x10000000,
  AT_EMPTY_PATH = 0x1000,
  OPEN_TREE_CLONE = 1,
  MOVE_MOUNT_F_EMPTY_PATH = 4,
  MOUNT_ATTR_RDONLY = 0x1,
  MOUNT_ATTR_IDMAP = 0x100000,
  PATH_BYTES = 64,
  LINE_BYTES = 128
};

struct mount_attr {
  u64 set;
  u64 clear;
  u64 propagation;
  u64 userns_fd;
};

static usize append(char *to, usize at, const char *text) {
  usize n = length(text);
  memcpy(to + at, text, n + 1);
  return at + n;
}

static usize append_number(char *to, usize at, u64 number) {
  char digits[24];
  usize n = sizeof digits - 1;
  digits[n] = 0;
  do digits[--n] = (char)('0' + number % 10);
  while (number /= 10);
  return append(to, at, digits + n);
}

/* `step` is one of ours, and short. */
static void must(const char *step, isize result) {
  if (result >= 0) return;
  char line[LINE_BYTES];
  usize n = append(line, 0, "fsb-idmap: ");
  n = append(line, n, step);
  n = append(line, n, ": error ");
  n = append_number(line, n, (u64)-result);
  n = append(line, n, "\n");
  call(SYS_write, 2, line, n, 0);
  leave(1);
}

static isize open_of(isize pid, const char *name, int flags) {
  char path[PATH_BYTES];
  usize n = append(path, 0, "/proc/");
  n = append_number(path, n, (u64)pid);
  append(path, n, name);
  return call(SYS_openat, AT_FDCWD, path, flags, 0);
}

static void write_map(isize pid, const char *name, const char *host_id, const char *size) {
  char map[LINE_BYTES];
  usize n = append(map, 0, "0 ");
  n = append(map, n, host_id);
  n = append(map, n, " ");
  n = append(map, n, size);
  isize file = open_of(pid, name, O_WRONLY | O_CLOEXEC);
  must(name, file);
  must(name, call(SYS_write, file, map, n, 0));
  call(SYS_close, file, 0, 0, 0);
}

/* A user namespace with the wanted map, held by nothing but the file descriptor. */
static isize make_namespace(const char *host_id, const char *size) {
  int ends[2];
  must("pipe", call(SYS_pipe2, ends, 0, 0, 0));
  isize child = call6(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0, 0);
  must("clone", child);
  if (child == 0) {
    char byte;
    call(SYS_close, ends[1], 0, 0, 0);
    call(SYS_read, ends[0], &byte, 1, 0);
    leave(0);
  }
  write_map(child, "/uid_map", host_id, size);
  write_map(child, "/gid_map", host_id, size);
  isize namespace = open_of(child, "/ns/user", O_CLOEXEC);
  must("namespace", namespace);
  call(SYS_close, ends[1], 0, 0, 0);
  call(SYS_wait4, child, 0, 0, 0);
  return namespace;
}

__attribute__((used)) void start(usize *stack) {
  usize count = stack[0];
  char **arguments = (char **)(stack + 1);
  if (count < 5 || count % 2 == 0 || length(arguments[1]) > 10 || length(arguments[2]) > 10) must("arguments", -EINVAL);
  struct mount_attr attr = {
    .set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY,
    .userns_fd = (u64)make_namespace(arguments[1], arguments[2])
  };
  for (usize i = 3; i + 1 < count; i += 2) {
    isize tree = call(SYS_open_tree, AT_FDCWD, arguments[i], OPEN_TREE_CLONE | O_CLOEXEC, 0);
    must("open_tree", tree);
    must("mount_setattr", call6(SYS_mount_setattr, tree, (isize) "", AT_EMPTY_PATH, (isize)&attr, sizeof attr, 0));
    must("move_mount", call6(SYS_move_mount, tree, (isize) "", AT_FDCWD, (isize)arguments[i + 1], MOVE_MOUNT_F_EMPTY_PATH, 0));
    call(SYS_close, tree, 0, 0, 0);
  }
  leave(0);
}
