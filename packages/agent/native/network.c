/*
 * fsb-network: does for the agent what Node can't: it makes network namespaces and talks netlink. What is sent is the
 * agent's business; here is only what needs another namespace, a mount or a socket of that family. One thread that is in
 * the agent's namespace but for the time of one MAKE. It ends with its standard input, and holds nothing open that would
 * keep a namespace alive.
 *
 * Requests (see resident.h) have a name, and messages as their body:
 *
 *   MAKE       makes a namespace that the file `name` holds; the rtnetlink messages are sent inside. All or nothing.
 *   ROUTE      sends rtnetlink messages in the agent's namespace.
 *   NETFILTER  sends nfnetlink messages there.
 *   INDEX      answers with the index of the link `name` there.
 *   DROP       takes the file `name` from its namespace, and away. Done also when there is none.
 *   SHARE      lets the file `name` hold the agent's own namespace.
 *
 * A message that fails makes the request fail; the value then is its position, counted in acknowledgements.
 */
#include "resident.h"

enum {
  MAKE = 1,
  ROUTE = 2,
  NETFILTER = 3,
  INDEX = 4,
  DROP = 5,
  SHARE = 6
};

enum {
  ANSWERS_BYTES = 1 << 16,
  LINK_NAME_BYTES = 16
};

/* Numbers of the Linux ABI: include/uapi/linux/{sched,mount,netlink,socket,sockios}.h, asm-generic/{fcntl,errno}.h */
enum {
  O_EXCL = 0200,
  CLONE_NEWNET = 0x40000000,
  MS_BIND = 4096,
  AF_INET = 2,
  AF_NETLINK = 16,
  SOCK_DGRAM = 2,
  SOCK_RAW = 3,
  NETLINK_ROUTE = 0,
  NETLINK_NETFILTER = 12,
  MSG_DONTWAIT = 0x40,
  NLMSG_ERROR = 2,
  NLM_F_ACK = 4,
  SIOCGIFINDEX = 0x8933
};

struct message {
  u32 length;
  unsigned short type;
  unsigned short flags;
  u32 sequence;
  u32 port;
  int error;
};

static u8 answers[ANSWERS_BYTES];
static int home;
static int route;
static int netfilter;

static const char own_namespace[] = "/proc/self/ns/net";

/* What is set in every namespace that is made: programs that are not root may serve on port 80 and may ping. */
static const struct {
  const char *path;
  const char *value;
} settings[] = {
  { "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0" },
  { "/proc/sys/net/ipv4/ping_group_range", "0 2147483647" }
};

static u32 aligned(u32 length) { return (length + 3) & ~3u; }

static u32 acknowledgements(void) {
  u32 count = 0;
  for (u32 at = 0; at + 16 <= request.body_length;) {
    const struct message *one = (const struct message *)(body + at);
    if (one->length < 16) break;
    if (one->flags & NLM_F_ACK) count++;
    at += aligned(one->length);
  }
  return count;
}

/* The kernel carries messages out within the call that sends them, so that all its answers are there afterwards. */
static int exchange(int socket) {
  u32 heard = 0;
  isize sent = call6(SYS_sendto, socket, (isize)body, request.body_length, 0, 0, 0);
  if (sent < 0) return refuse(sent);
  for (;;) {
    isize n = call6(SYS_recvfrom, socket, (isize)answers, ANSWERS_BYTES, MSG_DONTWAIT, 0, 0);
    if (n == -EINTR) continue;
    if (n == -EAGAIN) break;
    if (n <= 0) return refuse(n < 0 ? n : -EIO);
    for (u32 at = 0; at + 16 <= (u32)n;) {
      const struct message *one = (const struct message *)(answers + at);
      if (one->length < 16) break;
      if (one->type == NLMSG_ERROR) {
        if (one->error != 0 && answer.error == 0) {
          answer.error = -one->error;
          answer.value = heard;
        }
        heard++;
      }
      at += aligned(one->length);
    }
  }
  if (answer.error == 0 && heard < acknowledgements()) answer.error = EIO;
  return answer.error == 0;
}

static int netlink(int family) {
  return (int)call(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family, 0);
}

static void set(const char *path, const char *value) {
  int file = (int)call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
  /* A kernel or a mount that refuses costs a convenience, not the sandbox. */
  if (file < 0) return;
  call(SYS_write, file, value, length(value), 0);
  call(SYS_close, file, 0, 0, 0);
}

static int hold_own_namespace(void) {
  isize result = call6(SYS_mount, (isize)own_namespace, (isize)name, (isize) "none", MS_BIND, 0, 0);
  return result < 0 ? refuse(result) : 1;
}

static int fill_namespace(void) {
  int inside;
  int done;
  if (!hold_own_namespace()) return 0;
  for (usize i = 0; i < sizeof settings / sizeof settings[0]; i++) set(settings[i].path, settings[i].value);
  inside = netlink(NETLINK_ROUTE);
  if (inside < 0) return refuse(inside);
  done = exchange(inside);
  call(SYS_close, inside, 0, 0, 0);
  return done;
}

/* Until someone has made a namespace on this machine, not even their folder is there. */
static void make_folder(void) {
  usize end = request.name_length;
  while (end > 0 && name[end] != '/') end--;
  if (end == 0) return;
  name[end] = 0;
  call(SYS_mkdirat, AT_FDCWD, name, 0755, 0);
  name[end] = '/';
}

static isize create_file(void) {
  return call(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
}

static int make_file(void) {
  isize file = create_file();
  if (file == -ENOENT) {
    make_folder();
    file = create_file();
  }
  if (file < 0) return refuse(file);
  call(SYS_close, file, 0, 0, 0);
  return 1;
}

static void drop_file(void) {
  call(SYS_umount2, name, MNT_DETACH, 0, 0);
  call(SYS_unlinkat, AT_FDCWD, name, 0, 0);
}

static void make(void) {
  int done;
  isize result;
  if (!make_file()) return;
  result = call(SYS_unshare, CLONE_NEWNET, 0, 0, 0);
  done = result < 0 ? refuse(result) : fill_namespace();
  /* In the wrong namespace nothing may be done any more. */
  if (result >= 0 && call(SYS_setns, home, CLONE_NEWNET, 0, 0) < 0) leave(1);
  if (!done) drop_file();
}

static void share(void) {
  if (make_file() && !hold_own_namespace()) drop_file();
}

static void drop(void) {
  isize result = call(SYS_umount2, name, MNT_DETACH, 0, 0);
  /* EINVAL: a file that is no mount, the rest of a MAKE that was cut short. */
  if (result < 0 && result != -EINVAL && result != -ENOENT) {
    refuse(result);
    return;
  }
  result = call(SYS_unlinkat, AT_FDCWD, name, 0, 0);
  if (result < 0 && result != -ENOENT) refuse(result);
}

static void find_index(void) {
  struct {
    char name[LINK_NAME_BYTES];
    int index;
    u8 rest[20];
  } link;
  isize result;
  int socket = (int)call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0);
  if (socket < 0) {
    refuse(socket);
    return;
  }
  memset(&link, 0, sizeof link);
  memcpy(link.name, name, request.name_length < LINK_NAME_BYTES ? request.name_length : LINK_NAME_BYTES - 1);
  result = call(SYS_ioctl, socket, SIOCGIFINDEX, &link, 0);
  call(SYS_close, socket, 0, 0, 0);
  if (result < 0) refuse(result);
  answer.value = (u32)link.index;
}

static void carry_out(void) {
  switch (request.operation) {
    case MAKE: make(); break;
    case ROUTE: exchange(route); break;
    case NETFILTER: exchange(netfilter); break;
    case INDEX: find_index(); break;
    case DROP: drop(); break;
    case SHARE: share(); break;
    default: answer.error = EINVAL;
  }
}

__attribute__((used)) void start(void) {
  /* Ctrl-C is for the agent, which still clears up with our help. */
  u64 mask = 1UL << (SIGTERM - 1) | 1UL << (SIGINT - 1);
  call(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
  home = (int)call(SYS_openat, AT_FDCWD, own_namespace, O_RDONLY | O_CLOEXEC, 0);
  route = netlink(NETLINK_ROUTE);
  netfilter = netlink(NETLINK_NETFILTER);
  if (home < 0 || route < 0 || netfilter < 0) leave(1);
  while (next_request()) {
    carry_out();
    give_answer();
  }
  leave(0);
}
