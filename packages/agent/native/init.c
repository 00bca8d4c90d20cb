/*
 * fsb-init: the first process of a parked slot. The slot's container stands (root file system, namespaces, cgroup,
 * logger); this process connects to its agent and waits, asleep in one read(2), for orders: what to run, and as whom. It
 * becomes that program, so that the program is PID 1 and nothing of ours is left in the sandbox.
 *
 *   fsb-init DIRECTORY        DIRECTORY/ctl is the socket on which the agent listens until we have connected
 *
 * The connection is all there is between the two. It can't be opened again by anybody, it is closed by the exec itself
 * (close-on-exec), and its end ends us: a slot whose agent is gone is gone too, so that no orders can come twice.
 *
 * Orders, little-endian, are struct orders, then group_count u32, then rlimit_count struct limit, then strings that each
 * end with a zero byte: host name (empty: as it is), working directory, arguments, environment. packages/agent/src/parked/
 * Orders.ts writes them. We answer with struct report: GOING right before the exec, and then nothing but the end of the
 * connection when the exec succeeded; or the step that failed and why.
 *
 * We hold what the program must not: CAP_SYS_ADMIN, and a seccomp filter that lets sethostname(2) and umount2(2) through.
 * Both are given up before the exec, so that the program has exactly what it would have in a container of its own.
 */
#include "sys.h"

enum {
  /* Programs may be given up to 2 MiB of arguments and environment: a quarter of the default stack. Beyond that the exec
     fails anyway. */
  MAX_ORDERS_BYTES = 8 * 1024 * 1024,
  MAX_GROUPS = 65536,
  MAX_LIMITS = 32,
  PATH_BYTES = 4096,
  PASSWD_BYTES = 1 << 20,
  HIGHEST_CAPABILITY = 63,
  /* No orders came. A program may end with this too, but hardly before the agent has heard that it was started. The agent
     knows the number: noOrdersExitCode. */
  NO_ORDERS = 250,
  /* As shells and docker tell them: no such program, no program, everything else. */
  NOT_FOUND = 127,
  NOT_EXECUTABLE = 126,
  NOT_STARTED = 125
};

static const u32 MAGIC = 0x31425346; /* "FSB1" */

enum step { GOING, ORDERS, HOSTNAME, DETACH, LIMITS, DIRECTORY, GROUPS, USER, CAPABILITIES, FILTER, EXEC };

struct orders {
  u32 magic;
  /* Of everything behind this structure. */
  u32 bytes;
  u32 uid;
  u32 gid;
  u32 umask;
  u32 group_count;
  u32 limit_count;
  u32 argument_count;
  u32 variable_count;
  u32 reserved;
  u64 bounding;
  u64 effective;
  u64 permitted;
};

struct limit {
  u32 resource;
  u32 reserved;
  u64 soft;
  u64 hard;
};

struct report {
  u32 step;
  u32 error;
};

struct cursor {
  u8 *at;
  u8 *end;
};

static int connection;
static char path[PATH_BYTES];
static char home[PATH_BYTES];

static void tell(enum step step, isize error) {
  struct report report = {(u32)step, (u32)error};
  call(SYS_write, connection, &report, sizeof report, 0);
}

static void fail(enum step step, isize result) {
  tell(step, -result);
  leave(step != EXEC ? NOT_STARTED : result == -ENOENT || result == -ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE);
}

static void must(enum step step, isize result) {
  if (result < 0) fail(step, result);
}

/* All of it or the end. */
static void receive(void *to, usize bytes) {
  for (usize done = 0; done < bytes;) {
    isize n = call(SYS_read, connection, (u8 *)to + done, bytes - done, 0);
    if (n == -EINTR) continue;
    if (n <= 0) leave(NO_ORDERS);
    done += (usize)n;
  }
}

static void *allocate(usize bytes) {
  isize at = call6(SYS_mmap, 0, (isize)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(ORDERS, at < 0 && at > -PATH_BYTES ? at : 0);
  return (void *)at;
}

static void *take(struct cursor *from, usize bytes) {
  u8 *at = from->at;
  if ((usize)(from->end - at) < bytes) fail(ORDERS, -EINVAL);
  from->at += bytes;
  return at;
}

static char *take_string(struct cursor *from) {
  u8 *at = from->at;
  while (from->at < from->end && *from->at) from->at++;
  take(from, 1);
  return (char *)at;
}

static const char *value_of(char **variables, const char *name) {
  usize n = length(name);
  for (; *variables; variables++) {
    usize i = 0;
    while (i < n && (*variables)[i] == name[i]) i++;
    if (i == n && (*variables)[n] == '=') return *variables + n + 1;
  }
  return 0;
}

/* A field of a line of passwd(5), or 0 when the line ends before it. */
static const char *field(const char *line, const char *end, int number) {
  for (; number > 0 && line < end; line++)
    if (*line == ':') number--;
  return number == 0 ? line : 0;
}

/* As OCI runtimes do it for who has no HOME: the image's passwd file, else the root. */
static char *find_home(u32 uid) {
  memcpy(home, "HOME=/", 7);
  int file = (int)call(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
  if (file < 0) return home;
  char *text = allocate(PASSWD_BYTES);
  usize bytes = 0;
  for (isize n; bytes < PASSWD_BYTES && (n = call(SYS_read, file, text + bytes, PASSWD_BYTES - bytes, 0)) > 0;)
    bytes += (usize)n;
  call(SYS_close, file, 0, 0, 0);
  for (const char *line = text, *all = text + bytes; line < all;) {
    const char *end = line;
    while (end < all && *end != '\n') end++;
    const char *id = field(line, end, 2), *directory = field(line, end, 5);
    if (id && directory) {
      u64 number = 0;
      const char *digit = id;
      while (digit < end && *digit >= '0' && *digit <= '9' && number <= 0xffffffff) number = number * 10 + (u64)(*digit++ - '0');
      usize n = 0;
      while (directory + n < end && directory[n] != ':') n++;
      if (digit > id && digit < end && *digit == ':' && number == uid && n > 0 && 5 + n < PATH_BYTES) {
        memcpy(home + 5, directory, n);
        home[5 + n] = 0;
        return home;
      }
    }
    line = end + 1;
  }
  return home;
}

/* A working directory that the image lacks is made, as runtimes do. */
static isize enter(const char *directory) {
  isize result = call(SYS_chdir, directory, 0, 0, 0);
  if (result != -ENOENT) return result;
  usize n = length(directory);
  if (n >= PATH_BYTES) return -ENAMETOOLONG;
  for (usize i = 0; i <= n; i++) {
    if (i > 0 && (directory[i] == '/' || directory[i] == 0)) {
      path[i] = 0;
      isize made = call(SYS_mkdirat, AT_FDCWD, path, 0755, 0);
      if (made < 0 && made != -EEXIST) return made;
    }
    path[i] = directory[i];
  }
  return call(SYS_chdir, directory, 0, 0, 0);
}

static void cut_capabilities(const struct orders *orders) {
  for (int i = 0; i <= HIGHEST_CAPABILITY; i++)
    if (!(orders->bounding >> i & 1) && call(SYS_prctl, PR_CAPBSET_READ, i, 0, 0) == 1)
      must(CAPABILITIES, call(SYS_prctl, PR_CAPBSET_DROP, i, 0, 0));
}

static void set_capabilities(const struct orders *orders) {
  struct {
    u32 version;
    u32 pid;
  } header = {0x20080522, 0};
  struct {
    u32 effective;
    u32 permitted;
    u32 inheritable;
  } sets[2] = {{(u32)orders->effective, (u32)orders->permitted, 0},
               {(u32)(orders->effective >> 32), (u32)(orders->permitted >> 32), 0}};
  must(CAPABILITIES, call(SYS_capset, &header, sets, 0, 0));
}

/* On top of the container's own filter: what only we needed answers EPERM again, as there it does for everybody else. */
static void close_filter(void) {
  enum { LOAD = 0x20, IF_EQUAL = 0x15, RETURN = 0x06, NUMBER = 0, ARCHITECTURE = 4 };
  struct {
    unsigned short code;
    u8 if_true;
    u8 if_false;
    u32 k;
  } program[] = {{LOAD, 0, 0, ARCHITECTURE},
                 {IF_EQUAL, 0, 3, (u32)AUDIT_ARCH},
                 {LOAD, 0, 0, NUMBER},
                 {IF_EQUAL, 2, 0, SYS_umount2},
                 {IF_EQUAL, 1, 0, SYS_sethostname},
                 {RETURN, 0, 0, 0x7fff0000},
                 {RETURN, 0, 0, 0x00050000 | EPERM}};
  struct {
    unsigned short count;
    void *program;
  } filter = {sizeof program / sizeof program[0], program};
  must(FILTER, call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter, 0));
}

/* Returns only when it failed. As execvp(3): a file on the way that can't be executed does not end the search. */
static isize run(char **arguments, char **variables) {
  const char *name = arguments[0];
  usize n = length(name);
  for (usize i = 0; i < n; i++)
    if (name[i] == '/') return call(SYS_execve, name, arguments, variables, 0);
  const char *search = value_of(variables, "PATH");
  isize result = -ENOENT;
  if (n == 0 || search == 0) return result;
  for (;;) {
    usize m = 0;
    while (search[m] && search[m] != ':') m++;
    if (m + n + 2 <= PATH_BYTES) {
      memcpy(path, search, m);
      if (m > 0) path[m] = '/';
      memcpy(path + m + (m > 0), name, n + 1);
      isize tried = call(SYS_execve, path, arguments, variables, 0);
      if (tried != -ENOENT && tried != -ENOTDIR && tried != -EACCES) return tried;
      if (tried == -EACCES) result = tried;
    }
    if (search[m] == 0) return result;
    search += m + 1;
  }
}

static void attach(const char *directory) {
  struct {
    unsigned short family;
    char path[108];
  } address = {AF_UNIX, ""};
  static const char name[] = "/ctl";
  usize n = length(directory);
  if (n + sizeof name > sizeof address.path) leave(NO_ORDERS);
  memcpy(address.path, directory, n);
  memcpy(address.path + n, name, sizeof name);
  connection = (int)call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0);
  if (connection < 0 || call(SYS_connect, connection, &address, sizeof address, 0) < 0) leave(NO_ORDERS);
}

__attribute__((used)) void start(usize *stack) {
  if (stack[0] != 2) leave(NO_ORDERS);
  const char *directory = (const char *)stack[2];
  attach(directory);

  struct orders orders;
  receive(&orders, sizeof orders);
  if (orders.magic != MAGIC) fail(ORDERS, -EINVAL);
  if (orders.bytes > MAX_ORDERS_BYTES) fail(ORDERS, -E2BIG);
  u8 *payload = allocate(orders.bytes + 1);
  receive(payload, orders.bytes);

  /* Every argument and variable takes at least its zero byte, which bounds their number. */
  if (orders.group_count > MAX_GROUPS || orders.limit_count > MAX_LIMITS || orders.argument_count == 0 ||
      orders.argument_count > orders.bytes || orders.variable_count > orders.bytes)
    fail(ORDERS, -EINVAL);
  struct cursor cursor = {payload, payload + orders.bytes};
  u32 *groups = take(&cursor, orders.group_count * sizeof *groups);
  u8 *limits = take(&cursor, orders.limit_count * sizeof(struct limit));
  char *hostname = take_string(&cursor);
  char *working_directory = take_string(&cursor);
  char **arguments = allocate((orders.argument_count + orders.variable_count + 3UL) * sizeof(char *));
  char **variables = arguments + orders.argument_count + 1;
  for (u32 i = 0; i < orders.argument_count; i++) arguments[i] = take_string(&cursor);
  for (u32 i = 0; i < orders.variable_count; i++) variables[i] = take_string(&cursor);
  if (cursor.at != cursor.end) fail(ORDERS, -EINVAL);

  if (hostname[0]) must(HOSTNAME, call(SYS_sethostname, hostname, length(hostname), 0, 0));
  must(DETACH, call(SYS_umount2, directory, MNT_DETACH, 0, 0));
  must(DETACH, call(SYS_unlinkat, AT_FDCWD, directory, AT_REMOVEDIR, 0));
  if (!value_of(variables, "HOME")) variables[orders.variable_count] = find_home(orders.uid);

  for (u32 i = 0; i < orders.limit_count; i++) {
    struct limit limit;
    memcpy(&limit, limits + i * sizeof limit, sizeof limit);
    must(LIMITS, call(SYS_prlimit64, 0, limit.resource, &limit.soft, 0));
  }
  must(DIRECTORY, enter(working_directory));
  /* So that the program may open /dev/stdout and the like, as runtimes see to it. Not stdin, which is a null device that
     may be everybody's. */
  if (orders.uid != 0)
    for (int i = 1; i < 3; i++) call(SYS_fchown, i, orders.uid, orders.gid, 0);
  cut_capabilities(&orders);
  must(GROUPS, call(SYS_setgroups, orders.group_count, groups, 0, 0));
  must(GROUPS, call(SYS_setresgid, orders.gid, orders.gid, orders.gid, 0));
  must(CAPABILITIES, call(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0));
  must(USER, call(SYS_setresuid, orders.uid, orders.uid, orders.uid, 0));
  set_capabilities(&orders);
  call(SYS_umask, orders.umask, 0, 0, 0);
  close_filter();

  tell(GOING, 0);
  fail(EXEC, run(arguments, variables));
}
