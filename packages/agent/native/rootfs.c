/*
 * fsb-rootfs: gives a container that runs another root file system. The container is a blank slot (a started one without
 * an image, whose first process is our fsb-init, asleep); the root is that of an image. Node has no calls for that, and
 * a process that was there already does it in less time than it takes to start one.
 *
 * Requests (see resident.h) have the name of the slot's cgroup:
 *
 *   EXCHANGE   body: struct exchange, then strings that each end with a zero byte: the directory that the layers' paths
 *              are relative to, and the options of the overlay, `key=value` or a word. What is mounted in the container
 *              is carried over to the same places.
 *
 * The answer's value is the step that failed. What was done until then is undone by nobody: the slot is of no use any
 * more. Nothing of it is to be seen outside: the overlay is made without a place, and gets its first and only one in the
 * slot's own mount namespace. After the answer we are back in the agent's, with nothing open.
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
  O_PATH = 010000000,
  AT_EMPTY_PATH = 0x1000,
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
  HOME = 3,
  FIRST_OWN = 4,
  /* A container has about thirty mounts, of a line of 150 bytes each. */
  MOUNTS_BYTES = 1 << 16,
  MOUNTS = 256,
  DIRECTORY_MODE = 0755,
  FILE_MODE = 0644
};

struct exchange {
  u32 pid;
  /* Who root of the container is on the node; mount points that are made belong to him. */
  u32 owner;
  /* The process whose paths those of the layers are: the node's first; 0 where they are our own. */
  u32 node;
};

struct how {
  u64 flags, mode, resolve;
};

static struct exchange exchange;
static char mounts[MOUNTS_BYTES + 1];
static int has_left;

/* Notes what went wrong; negative, for who passes it on. */
static int failed(enum step step, isize result) {
  answer.error = (int)-result;
  answer.value = step;
  return -1;
}

static isize open_file(const char *path, int flags) {
  return call(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
}

/* Reads a file to its end; what is not there or does not fit is an error. Gives the bytes. */
static isize read_file(const char *path, char *to, usize size) {
  isize file = open_file(path, O_RDONLY), held = 0;
  if (file < 0) return file;
  for (isize n; held < (isize)size && (n = call(SYS_read, file, to + held, size - (usize)held, 0)) > 0;) held += n;
  call(SYS_close, file, 0, 0, 0);
  to[held] = 0;
  return held < (isize)size ? held : -E2BIG;
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

/* Whether any line of a process's cgroups ends with the slot's name. */
static int is_slot(const char *cgroups) {
  usize n = request.name_length;
  while (*cgroups) {
    usize end = 0;
    while (cgroups[end] && cgroups[end] != '\n') end++;
    if (end > n && cgroups[end - n - 1] == '/' && compare(cgroups + end - n, name, n) == 0) return 1;
    cgroups += end + (cgroups[end] == '\n');
  }
  return 0;
}

/* A process id that was given to another process meanwhile is noticed. */
static int find_slot(void) {
  char path[64];
  isize slot = call(SYS_pidfd_open, exchange.pid, 0, 0, 0), result;
  if (slot < 0) return failed(FINDING, slot);
  proc_path(path, exchange.pid, "cgroup");
  result = read_file(path, mounts, MOUNTS_BYTES);
  if (result < 0) return failed(FINDING, result);
  if (!is_slot(mounts)) return failed(FINDING, -ESRCH);
  proc_path(path, exchange.pid, "mountinfo");
  result = read_file(path, mounts, MOUNTS_BYTES);
  if (result < 0) return failed(FINDING, result);
  result = call(SYS_pidfd_send_signal, slot, 0, 0, 0);
  return result < 0 ? failed(FINDING, result) : (int)slot;
}

static isize enter(int namespace) {
  isize result = call(SYS_setns, namespace, CLONE_NEWNS, 0, 0);
  if (result == 0) has_left = 1;
  return result;
}

static isize enter_node(void) {
  char path[64];
  proc_path(path, exchange.node, "ns/mnt");
  isize node = open_file(path, O_RDONLY);
  return node < 0 ? node : enter((int)node);
}

static isize set_option(int context, char *option) {
  usize n = 0;
  while (option[n] && option[n] != '=') n++;
  if (!option[n]) return call6(SYS_fsconfig, context, FSCONFIG_SET_FLAG, (isize)option, 0, 0, 0);
  option[n] = 0;
  return call6(SYS_fsconfig, context, FSCONFIG_SET_STRING, (isize)option, (isize)(option + n + 1), 0, 0);
}

/* The overlay that strings from `at` on describe, without a place. */
static isize mount_overlay(char *at, const char *end) {
  isize result = call(SYS_chdir, at, 0, 0, 0), context;
  if (result < 0) return result;
  context = call(SYS_fsopen, "overlay", FSOPEN_CLOEXEC, 0, 0);
  if (context < 0) return context;
  for (at += length(at) + 1; at < end;) {
    usize n = length(at);
    result = set_option((int)context, at);
    if (result < 0) return result;
    at += n + 1;
  }
  result = call6(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0, 0);
  return result < 0 ? result : call(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0, 0);
}

static isize open_below(int directory, const char *file) {
  struct how how = {
    O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
  };
  return call(SYS_openat2, directory, file, &how, sizeof how);
}

static isize type_of(int file) {
  struct statx info;
  isize result = call6(SYS_statx, file, (isize) "", AT_EMPTY_PATH, STATX_BASIC, (isize)&info, 0);
  return result < 0 ? result : info.mode & S_IFMT;
}

/* Opens what `file` names in a directory of the image; makes it where it is missing. */
static isize open_place(int directory, const char *file, int is_directory) {
  isize place = open_below(directory, file), result;
  if (place == -ENOENT) {
    result = is_directory ? call(SYS_mkdirat, directory, file, DIRECTORY_MODE, 0)
                          : call(SYS_mknodat, directory, file, S_IFREG | FILE_MODE, 0);
    if (result < 0) return result;
    place = open_below(directory, file);
    if (place < 0) return place;
    result = call6(SYS_fchownat, place, (isize) "", exchange.owner, exchange.owner, AT_EMPTY_PATH, 0);
    if (result < 0) return result;
  }
  return place < 0 || type_of((int)place) == (is_directory ? S_IFDIR : S_IFREG) ? place : -ENOTDIR;
}

/* Moves the mount at an absolute path of the old root to the same path of the new one. */
static isize carry(int root, char *path) {
  isize old = open_file(path, O_PATH), place = root;
  int is_directory;
  char *at = path + 1;
  if (old < 0) return old;
  is_directory = type_of((int)old) == S_IFDIR;
  for (int is_last = 0; !is_last;) {
    usize n = 0;
    while (at[n] && at[n] != '/') n++;
    is_last = !at[n];
    at[n] = 0;
    place = open_place((int)place, at, !is_last || is_directory);
    if (place < 0) return place;
    at += n + 1;
  }
  return call6(SYS_move_mount, old, (isize) "", place, (isize) "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH, 0);
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

/* Cuts off the next line of `at`; 0 when there is none. */
static char *next_line(char **at) {
  char *line = *at;
  usize n = 0;
  while (line[n] && line[n] != '\n') n++;
  *at = line + n + (line[n] == '\n');
  line[n] = 0;
  return n > 0 ? line : 0;
}

/* Carries over what is mounted on the old root itself; the rest goes with it. In the order in which it was mounted. */
static isize carry_all(int root) {
  enum { ID = 0, PARENT = 1, PLACE = 4 };
  static struct {
    u64 parent;
    char *place;
  } all[MOUNTS];
  u64 old = 0;
  usize count = 0;
  char *at = mounts;
  for (char *line; (line = next_line(&at));) {
    /* From behind, because each field is cut off there. */
    char *place = field(line, PLACE);
    u64 parent = number(field(line, PARENT));
    if (same(place, "/")) {
      old = number(field(line, ID));
      continue;
    }
    if (count == MOUNTS) return -E2BIG;
    all[count].parent = parent;
    all[count++].place = place;
  }
  for (usize i = 0; i < count; i++) {
    isize result;
    if (all[i].parent != old) continue;
    /* Blanks and the like are written as numbers; our places have none. */
    for (const char *c = all[i].place; *c; c++)
      if (*c == '\\') return -EINVAL;
    result = carry(root, all[i].place);
    if (result < 0) return result;
  }
  return 0;
}

static int exchange_root(void) {
  char *strings = (char *)body + sizeof exchange, *end = (char *)body + request.body_length;
  isize overlay, result;
  int slot;
  if (request.body_length <= sizeof exchange || end[-1] != 0 || request.name_length == 0) return failed(READING, -EINVAL);
  memcpy(&exchange, body, sizeof exchange);
  slot = find_slot();
  if (slot < 0) return slot;
  result = exchange.node ? enter_node() : 0;
  if (result < 0) return failed(MOUNTING, result);
  overlay = mount_overlay(strings, end);
  if (overlay < 0) return failed(MOUNTING, overlay);
  result = enter(slot);
  if (result < 0) return failed(ENTERING, result);
  result = call6(SYS_move_mount, overlay, (isize) "", AT_FDCWD, (isize) "/", MOVE_MOUNT_F_EMPTY_PATH, 0);
  if (result < 0) return failed(ATTACHING, result);
  result = carry_all((int)overlay);
  if (result < 0) return failed(CARRYING, result);
  result = call(SYS_fchdir, overlay, 0, 0, 0);
  /* Whoever has the old root has the new one from now on, the slot's first process, too. */
  if (result == 0) result = call(SYS_pivot_root, ".", ".", 0, 0);
  if (result == 0) result = call(SYS_umount2, ".", MNT_DETACH, 0, 0);
  return result < 0 ? failed(EXCHANGING, result) : 0;
}

/* Back where we belong. What can't be left behind ends us; the next request finds another of us. */
static void go_home(void) {
  if (has_left && call(SYS_setns, HOME, CLONE_NEWNS, 0, 0) < 0) leave(1);
  has_left = 0;
  if (call(SYS_close_range, FIRST_OWN, ~0u, 0, 0) < 0) leave(0);
}

__attribute__((used)) void start(void) {
  /* Ctrl-C is for the agent, which still serves what it has begun. */
  u64 mask = 1UL << (SIGTERM - 1) | 1UL << (SIGINT - 1);
  call(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
  call(SYS_umask, 0, 0, 0, 0);
  /* HOME is the first that is free: Node gives its children their standard streams and nothing else. */
  if (open_file("/proc/self/ns/mnt", O_RDONLY) != HOME) leave(1);
  while (next_request()) {
    if (request.operation == EXCHANGE) exchange_root();
    else refuse(-EINVAL);
    give_answer();
    go_home();
  }
  leave(0);
}
