/*
 * fsb-rootfs: gives a container that runs another root file system. The container is a blank slot (a started one without
 * an image, whose first process is our fsb-init, asleep); the root is that of an image. Node has no calls for that, and
 * a process that was there already does it in less time than it takes to start one.
 *
 * Requests (see resident.h) have the name of the slot's cgroup; each is carried out by a child, so that nothing that
 * happens in another mount namespace changes the one we are in, and nothing is left open by a request that fails.
 *
 *   EXCHANGE   body: struct exchange, then strings that each end with a zero byte: the directory that the layers' paths
 *              are relative to, and the options of the overlay, `key=value` or a word. What is mounted in the container
 *              is carried over to the same places.
 *
 * The answer's value is the step that failed. What was done until then is undone by nobody: the slot is of no use any
 * more. Nothing of it is to be seen outside: the overlay is made without a place, and gets its first and only one in the
 * slot's own mount namespace.
 *
 * The image is hostile. Nothing of it is executed here, and its paths are walked from the root's own descriptor, without
 * links and without leaving it. A place that is a link, or of the wrong type, is refused; one that is missing is made,
 * as an OCI runtime would.
 */
#include "inside.h"
#include "resident.h"

enum { EXCHANGE = 1 };

/* packages/agent/src/parked/RootExchange.ts has their names. */
enum step { READING, FINDING, MOUNTING, ENTERING, ATTACHING, CARRYING, EXCHANGING };

/* Numbers of the Linux ABI: include/uapi/linux/{mount,fcntl,openat2,stat}.h, asm-generic/{fcntl,errno}.h */
enum {
  SIGCHLD = 17,
  O_PATH = 010000000,
  AT_EMPTY_PATH = 0x1000,
  ENOTSUP = 95,
  ESRCH = 3,
  FSOPEN_CLOEXEC = 1,
  FSMOUNT_CLOEXEC = 1,
  FSCONFIG_SET_FLAG = 0,
  FSCONFIG_SET_STRING = 1,
  FSCONFIG_CMD_CREATE = 6,
  MOVE_MOUNT_F_EMPTY_PATH = 4,
  MOVE_MOUNT_T_EMPTY_PATH = 0x40,
  RESOLVE_NO_XDEV = 1,
  RESOLVE_NO_MAGICLINKS = 2,
  RESOLVE_NO_SYMLINKS = 4,
  RESOLVE_BENEATH = 8
};

enum {
  /* A container has about thirty mounts, of a line of 150 bytes each. */
  MOUNTS_BYTES = 1 << 16,
  PATH_BYTES = 4096,
  DIRECTORY_MODE = 0755,
  FILE_MODE = 0644
};

struct exchange {
  u32 pid;
  /* Who root of the container is on the node; mount points that are made belong to him. */
  u32 owner;
  /* Whether the layers' paths are those of the node's first process, and not our own. */
  u32 of_node;
};

struct how {
  u64 flags, mode, resolve;
};

static struct exchange exchange;
static char mounts[MOUNTS_BYTES + 1];

static void must(enum step step, isize result) {
  if (result >= 0) return;
  answer.error = (int)-result;
  answer.value = step;
  give_answer();
  leave(0);
}

static isize open_file(const char *path, int flags) {
  return call(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
}

/* All of a file that fits. */
static usize read_file(const char *path, char *to, usize size) {
  isize file = open_file(path, O_RDONLY);
  usize held = 0;
  must(FINDING, file);
  for (isize n; held < size && (n = call(SYS_read, file, to + held, size - held, 0)) > 0;) held += (usize)n;
  call(SYS_close, file, 0, 0, 0);
  if (held == size) must(FINDING, -E2BIG);
  to[held] = 0;
  return held;
}

/* /proc/PID/NAME */
static void proc_path(char *to, u32 pid, const char *file) {
  char digits[12];
  usize n = 0;
  memcpy(to, "/proc/", 6);
  to += 6;
  do digits[n++] = (char)('0' + pid % 10);
  while (pid /= 10);
  while (n > 0) *to++ = digits[--n];
  *to++ = '/';
  memcpy(to, file, length(file) + 1);
}

/* Whether any line of the process's cgroups ends with the slot's name. */
static int is_slot(const char *path) {
  static char cgroups[MOUNTS_BYTES + 1];
  usize held = read_file(path, cgroups, MOUNTS_BYTES), n = request.name_length;
  for (usize at = 0; at < held; at++) {
    usize end = at;
    while (end < held && cgroups[end] != '\n') end++;
    if (end - at > n && cgroups[end - n - 1] == '/' && compare(cgroups + end - n, name, n) == 0) return 1;
    at = end;
  }
  return 0;
}

/* A process id that was given to another process meanwhile is noticed. */
static int find_slot(void) {
  char path[64];
  isize slot = call(SYS_pidfd_open, exchange.pid, 0, 0, 0);
  must(FINDING, slot);
  proc_path(path, exchange.pid, "cgroup");
  if (!is_slot(path)) must(FINDING, -ESRCH);
  proc_path(path, exchange.pid, "mountinfo");
  read_file(path, mounts, MOUNTS_BYTES);
  must(FINDING, call(SYS_pidfd_send_signal, slot, 0, 0, 0));
  return (int)slot;
}

static void enter_node(void) {
  isize node = open_file("/proc/1/ns/mnt", O_RDONLY);
  must(MOUNTING, node);
  must(MOUNTING, call(SYS_setns, node, CLONE_NEWNS, 0, 0));
  call(SYS_close, node, 0, 0, 0);
}

static isize set_option(int context, char *option) {
  usize n = 0;
  while (option[n] && option[n] != '=') n++;
  if (!option[n]) return call6(SYS_fsconfig, context, FSCONFIG_SET_FLAG, (isize)option, 0, 0, 0);
  option[n] = 0;
  return call6(SYS_fsconfig, context, FSCONFIG_SET_STRING, (isize)option, (isize)(option + n + 1), 0, 0);
}

/* The overlay that strings from `at` on describe, without a place. */
static int mount_overlay(char *at, const char *end) {
  isize context, overlay;
  must(MOUNTING, call(SYS_chdir, at, 0, 0, 0));
  context = call(SYS_fsopen, "overlay", FSOPEN_CLOEXEC, 0, 0);
  must(MOUNTING, context);
  for (at += length(at) + 1; at < end;) {
    usize n = length(at);
    must(MOUNTING, set_option((int)context, at));
    at += n + 1;
  }
  must(MOUNTING, call6(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0, 0));
  overlay = call(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0, 0);
  must(MOUNTING, overlay);
  call(SYS_close, context, 0, 0, 0);
  return (int)overlay;
}

static isize open_below(int directory, const char *file, u64 flags) {
  struct how how = {
    flags | O_PATH | O_NOFOLLOW | O_CLOEXEC, 0,
    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
  };
  return call(SYS_openat2, directory, file, &how, sizeof how);
}

static isize type_of(int file) {
  struct statx info;
  isize result = call6(SYS_statx, file, (isize) "", AT_EMPTY_PATH, STATX_BASIC, (isize)&info, 0);
  return result < 0 ? result : info.mode & S_IFMT;
}

/* Opens what `file` names in a directory of the image; makes it where it is missing. */
static int open_place(int directory, const char *file, int is_directory) {
  isize place = open_below(directory, file, 0);
  if (place == -ENOENT) {
    must(CARRYING, is_directory ? call(SYS_mkdirat, directory, file, DIRECTORY_MODE, 0)
                                : call(SYS_mknodat, directory, file, S_IFREG | FILE_MODE, 0));
    place = open_below(directory, file, 0);
    must(CARRYING, place);
    must(CARRYING, call6(SYS_fchownat, place, (isize) "", exchange.owner, exchange.owner, AT_EMPTY_PATH, 0));
  }
  must(CARRYING, place);
  if (type_of((int)place) != (is_directory ? S_IFDIR : S_IFREG)) must(CARRYING, -ENOTDIR);
  return (int)place;
}

/* Moves the mount at an absolute path of the old root to the same path of the new one. */
static void carry(int root, char *path) {
  isize old = open_file(path, O_PATH);
  int directory = root, is_directory;
  char *at = path + 1;
  must(CARRYING, old);
  is_directory = type_of((int)old) == S_IFDIR;
  for (;;) {
    usize n = 0;
    int place, is_last;
    while (at[n] && at[n] != '/') n++;
    is_last = !at[n];
    at[n] = 0;
    place = open_place(directory, at, !is_last || is_directory);
    if (directory != root) call(SYS_close, directory, 0, 0, 0);
    directory = place;
    if (is_last) break;
    at += n + 1;
  }
  must(CARRYING, call6(SYS_move_mount, old, (isize) "", directory, (isize) "",
                       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH, 0));
  call(SYS_close, directory, 0, 0, 0);
  call(SYS_close, old, 0, 0, 0);
}

/* Ends field `number` of a line of proc(5)'s mountinfo with a zero byte. */
static char *field(char *line, int number) {
  while (number-- > 0) {
    while (*line && *line != ' ') line++;
    if (*line) line++;
  }
  for (usize n = 0;; n++)
    if (line[n] == ' ' || line[n] == 0) {
      line[n] = 0;
      return line;
    }
}

/* Carries over what is mounted on the old root itself; the rest goes with it. In the order in which it was mounted. */
static void carry_all(int root) {
  enum { ID = 0, PARENT = 1, PLACE = 4 };
  u64 old = 0;
  for (int is_second = 0; is_second < 2; is_second++) {
    char *line = mounts;
    while (*line) {
      usize n = 0;
      while (line[n] && line[n] != '\n') n++;
      /* A copy, because fields are cut out of it. */
      static char copy[PATH_BYTES];
      char *place, *parent;
      if (n >= PATH_BYTES) must(CARRYING, -ENAMETOOLONG);
      memcpy(copy, line, n);
      copy[n] = 0;
      line += n + (line[n] == '\n');
      place = field(copy, PLACE);
      parent = field(copy, PARENT);
      if (!is_second) {
        if (same(place, "/")) old = number(field(copy, ID));
      } else if (number(parent) == old && !same(place, "/")) {
        /* Blanks and the like are written as numbers; our places have none. */
        for (const char *c = place; *c; c++)
          if (*c == '\\') must(CARRYING, -EINVAL);
        carry(root, place);
      }
    }
  }
}

static void exchange_root(void) {
  char *strings = (char *)body + sizeof exchange, *end = (char *)body + request.body_length;
  int slot, overlay;
  if (request.body_length <= sizeof exchange || end[-1] != 0 || request.name_length == 0) must(READING, -EINVAL);
  memcpy(&exchange, body, sizeof exchange);
  slot = find_slot();
  if (exchange.of_node) enter_node();
  overlay = mount_overlay(strings, end);
  must(ENTERING, call(SYS_setns, slot, CLONE_NEWNS, 0, 0));
  call(SYS_umask, 0, 0, 0, 0);
  must(ATTACHING, call6(SYS_move_mount, overlay, (isize) "", AT_FDCWD, (isize) "/", MOVE_MOUNT_F_EMPTY_PATH, 0));
  carry_all(overlay);
  must(EXCHANGING, call(SYS_fchdir, overlay, 0, 0, 0));
  /* Whoever has the old root has the new one from now on, the slot's first process, too. */
  must(EXCHANGING, call(SYS_pivot_root, ".", ".", 0, 0));
  must(EXCHANGING, call(SYS_umount2, ".", MNT_DETACH, 0, 0));
  give_answer();
  leave(0);
}

static void carry_out(void) {
  isize child;
  int status = 0;
  if (request.operation != EXCHANGE) {
    refuse(-EINVAL);
    give_answer();
    return;
  }
  child = call6(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
  if (child == 0) exchange_root();
  if (child > 0) {
    while (call(SYS_wait4, child, &status, 0, 0) == -EINTR) {}
    if (status == 0) return;
  }
  refuse(child < 0 ? child : -EIO);
  give_answer();
}

__attribute__((used)) void start(void) {
  /* Ctrl-C is for the agent, which still serves what it has begun. */
  u64 mask = 1UL << (SIGTERM - 1) | 1UL << (SIGINT - 1);
  call(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
  while (next_request()) carry_out();
  leave(0);
}
