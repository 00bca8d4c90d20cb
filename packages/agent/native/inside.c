/*
 * fsb-inside: does from the node what has to be done inside of a sandbox, without any program of the sandbox's image.
 *
 *   fsb-inside fifos PATH...                          makes FIFOs (on the node; Node.js can't)
 *   fsb-inside connect PID NAME PORT                  joins the network of process PID, connects to 127.0.0.1:PORT, and
 *                                                     passes bytes between it and the standard streams
 *   fsb-inside put PID NAME PATH UID GID FLAGS        unpacks the tar archive on standard input at PATH
 *   fsb-inside get PID NAME PATH FLAGS                writes PATH as a tar archive to standard output
 *
 * A sandbox is entered through a pidfd, so that a process id that was given to another process meanwhile is noticed:
 * NAME must be the last part of the process's cgroup. Paths are resolved in the sandbox's own mount namespace, so no link
 * leads out of it, and all capabilities go but the four that writing files for others takes.
 */
#include "files.h"
#include "inside.h"

struct capability_header {
  u32 version;
  int pid;
};

struct capability_data {
  u32 effective, permitted, inheritable;
};

enum {
  CAPABILITY_VERSION_3 = 0x20080522,
  CAP_CHOWN = 0,
  CAP_DAC_OVERRIDE = 1,
  CAP_FOWNER = 3,
  CAP_FSETID = 4
};

static u8 piece[PIECE_BYTES];

/* /proc/PID/NAME, for a decimal PID. */
static void proc_path(char *to, const char *pid, const char *name) {
  usize n = length(pid), m = length(name);
  memcpy(to, "/proc/", 6);
  memcpy(to + 6, pid, n);
  to[6 + n] = '/';
  memcpy(to + 7 + n, name, m + 1);
}

/* Whether any line of the process's cgroups ends with /NAME. */
static int is_in_cgroup(const char *pid, const char *name) {
  char path[64];
  proc_path(path, pid, "cgroup");
  int fd = (int)call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return 0;
  usize held = 0, n = length(name);
  for (isize got; held < sizeof piece && (got = call(SYS_read, fd, piece + held, sizeof piece - held, 0)) > 0;)
    held += (usize)got;
  call(SYS_close, fd, 0, 0, 0);
  for (usize at = 0; at < held; at++) {
    usize end = at;
    while (end < held && piece[end] != '\n') end++;
    if (end - at > n && piece[end - n - 1] == '/' && compare(piece + end - n, name, n) == 0) return 1;
    at = end;
  }
  return 0;
}

static u64 namespace_of(const char *path) {
  struct statx info;
  return call6(SYS_statx, AT_FDCWD, (isize)path, 0, STATX_BASIC, (isize)&info, 0) < 0 ? 0 : info.inode;
}

/* Joins namespaces of a process, its user namespace too where it has one of its own. */
static void enter(const char *pid, const char *name, int namespaces) {
  char user[64];
  usize digits = length(pid);
  if (digits == 0 || digits > 10) fail(EXIT_USAGE, pid, "is no process id");
  int fd = (int)call(SYS_pidfd_open, number(pid), 0, 0, 0);
  if (fd < 0 || !is_in_cgroup(pid, name) || call(SYS_pidfd_send_signal, fd, 0, 0, 0) < 0)
    fail(EXIT_GONE, name, "the sandbox has ended");
  /* Files belong to the users of the sandbox. Its network is joined with the node's rights, which are dropped then. */
  proc_path(user, pid, "ns/user");
  if (namespaces & CLONE_NEWNS && namespace_of(user) != namespace_of("/proc/self/ns/user")) namespaces |= CLONE_NEWUSER;
  isize joined = call(SYS_setns, fd, namespaces, 0, 0);
  if (joined < 0) fail(EXIT_FAILED, "the sandbox could not be entered", reason(joined));
  call(SYS_close, fd, 0, 0, 0);
  if (namespaces & CLONE_NEWUSER) {
    call(SYS_setresgid, 0, 0, 0, 0);
    call(SYS_setresuid, 0, 0, 0, 0);
  }
  struct capability_header header = {CAPABILITY_VERSION_3, 0};
  u32 kept = namespaces & CLONE_NEWNS ? 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID : 0;
  struct capability_data data[2] = {{kept, kept, 0}, {0, 0, 0}};
  call(SYS_setgroups, 0, 0, 0, 0);
  call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
  if (call(SYS_capset, &header, data, 0, 0) < 0) fail(EXIT_FAILED, "privileges", "could not be dropped");
}

static void fifos(char **paths, usize count) {
  for (usize i = 0; i < count; i++) {
    isize made = call(SYS_mknodat, AT_FDCWD, paths[i], S_IFIFO | 0600, 0);
    if (made < 0) fail(EXIT_FAILED, paths[i], reason(made));
  }
}

struct direction {
  int from, to;
  usize held, sent;
  /* Nothing more comes; the other side was told. */
  int ended;
  u8 bytes[PIECE_BYTES];
};

static struct direction there, back;

static void set_nonblocking(int fd) {
  isize flags = call(SYS_fcntl, fd, F_GETFL, 0, 0);
  call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK, 0);
}

/* Moves what can be moved without waiting. False when the receiver is gone. */
static int move(struct direction *d) {
  if (d->sent == d->held && !d->ended) {
    isize n = call(SYS_read, d->from, d->bytes, PIECE_BYTES, 0);
    if (n == -EAGAIN || n == -EINTR) return 1;
    d->held = n > 0 ? (usize)n : 0;
    d->sent = 0;
    if (n <= 0) {
      d->ended = 1;
      if (call(SYS_shutdown, d->to, SHUT_WR, 0, 0) < 0) call(SYS_close, d->to, 0, 0, 0);
      return 1;
    }
  }
  if (d->sent < d->held) {
    isize n = call(SYS_write, d->to, d->bytes + d->sent, d->held - d->sent, 0);
    if (n == -EAGAIN || n == -EINTR) return 1;
    if (n <= 0) return 0;
    d->sent += (usize)n;
  }
  return 1;
}

static void connect_to(const char *pid, const char *name, const char *port) {
  u64 wanted = number(port);
  if (wanted == 0 || wanted > 65535) fail(EXIT_USAGE, port, "is no port");
  enter(pid, name, CLONE_NEWNET);
  int socket = (int)call(SYS_socket, AF_INET, SOCK_STREAM | O_CLOEXEC, 0, 0);
  if (socket < 0) fail(EXIT_FAILED, "socket", reason(socket));
  struct {
    unsigned short family;
    u8 port[2];
    u8 address[4];
    u8 zero[8];
  } target = {AF_INET, {(u8)(wanted >> 8), (u8)wanted}, {127, 0, 0, 1}, {0}};
  isize connected = call(SYS_connect, socket, &target, sizeof target, 0);
  if (connected < 0) fail(connected == -ECONNREFUSED ? EXIT_REFUSED : EXIT_FAILED, port, reason(connected));
  /* The first byte says that the connection stands. */
  if (!write_all(1, "", 1)) leave(0);
  there.from = 0, there.to = socket, back.from = socket, back.to = 1;
  for (int i = 0; i < 2; i++) set_nonblocking(i);
  set_nonblocking(socket);
  /* The sandbox's end ends the connection; that nothing more is sent does not. */
  while (!back.ended || back.sent < back.held) {
    struct direction *ways[2] = {&there, &back};
    struct pollfd wanted_fds[4];
    for (int i = 0; i < 2; i++) {
      struct direction *d = ways[i];
      int is_full = d->sent < d->held;
      wanted_fds[2 * i] = (struct pollfd){is_full || d->ended ? -1 : d->from, POLLIN, 0};
      wanted_fds[2 * i + 1] = (struct pollfd){is_full ? d->to : -1, POLLOUT, 0};
    }
    call6(SYS_ppoll, (isize)wanted_fds, 4, 0, 0, 8, 0);
    for (int i = 0; i < 2; i++)
      if ((wanted_fds[2 * i].revents || wanted_fds[2 * i + 1].revents) && !move(ways[i])) leave(0);
  }
}

__attribute__((used)) void start(usize *stack) {
  usize count = stack[0];
  char **arguments = (char **)(stack + 1);
  const char *what = count > 1 ? arguments[1] : "";
  /* A writer must hear of a reader that is gone by an error, not by its own death. */
  u64 mask = 1UL << (SIGPIPE - 1);
  call(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
  if (same(what, "fifos")) {
    fifos(arguments + 2, count - 2);
    leave(0);
  }
  /* Nothing of a sandbox may be held open by us for longer than the agent lives. */
  call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
  call(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0);
  if (same(what, "connect") && count == 5) {
    connect_to(arguments[2], arguments[3], arguments[4]);
  } else if (same(what, "put") && count == 8) {
    enter(arguments[2], arguments[3], CLONE_NEWNS);
    put(arguments + 4, count - 4);
  } else if (same(what, "get") && count == 6) {
    enter(arguments[2], arguments[3], CLONE_NEWNS);
    get(arguments + 4, count - 4);
  } else {
    fail(EXIT_USAGE, "fsb-inside", "fifos, connect, put or get");
  }
  leave(0);
}
