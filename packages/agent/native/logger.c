/*
 * fsb-logger: writes what a sandbox prints into its log files. containerd's shim starts one beside each sandbox
 * (stdio URI binary:///path/fsb-logger?dir=DIR&max-bytes=N&files=N&rate=N), so that logging needs no agent, and the
 * sandbox never waits for a reader: a full or broken disk loses lines (and says how many), it never blocks the program.
 *
 * What costs the node is bounded, as the sandbox's other means are: a program that prints more than `rate` bytes of log
 * a second waits in its write, as it would for a processor, and loses no line. And whatever else wants to run goes first.
 *
 * File descriptors given by the shim: 3 is the sandbox's stdout, 4 its stderr, 5 is closed when we are ready.
 *
 * With tty=1 the program has a terminal, and there is only its stdout. With tty=1 or at-once=1 what is printed is recorded
 * at once, also before its line ends, because somebody may be attached to it.
 *
 * Files: DIR/00000001.log, DIR/00000002.log ... A new one is begun before a record would grow the current one beyond
 * max-bytes, then the one that is `files` older is removed. Names only go up and a file never changes once the next
 * one exists, so that a reader can follow without a lock. A record is one line in the format that the kubelet reads:
 *   2026-11-23T20:01:02.123456789Z stdout F text
 * with P instead of F when the line goes on in the next record of that stream (longer than 16 KiB, or cut by the end).
 */
#include "sys.h"

enum {
  STDOUT_FD = 3,
  STDERR_FD = 4,
  READY_FD = 5,
  /* One pipe's default capacity: a read takes whatever the program could have written. */
  CHUNK_BYTES = 65536,
  /* As the kubelet's log reader expects it. */
  LINE_BYTES = 16384,
  HEADER_BYTES = 40,
  /* A chunk of nothing but line feeds grows by one header each. */
  OUT_BYTES = 1 << 18,
  NAME_DIGITS = 8,
  PATH_BYTES = 4096,
  /* After SIGTERM at most this many chunks are drained from each stream: a writer that outlives its sandbox (a daemon
     that kept the pipe) can't keep the logger alive. */
  DRAIN_CHUNKS = 64,
  /* The kernel's least: a chatty program must not slow the starts of others by its logger. */
  NICENESS = 19
};

static const u64 SECOND_NANOS = 1000000000;

struct stream {
  int fd;
  int open;
  const char *name;
  usize held;
  u8 line[LINE_BYTES];
};

static struct stream streams[2];
static u8 chunk[CHUNK_BYTES];
static u8 out[OUT_BYTES];
static usize pending;
static usize pending_records;
static char path[PATH_BYTES];
static usize directory_length;
static u64 max_bytes = 10 * 1024 * 1024;
static u64 keep_files = 3;
/* Bytes of log a second; 0 is as much as the disk takes. */
static u64 rate;
/* The time at which all that was written so far is paid for at that rate. */
static u64 paid_nanos;
static u64 number = 1;
static int file = -1;
static u64 file_bytes;
static u64 lost_records;
static int is_terminal;
static int at_once;
static char stamp[32];

static const char *file_name(u64 n) {
  for (int i = NAME_DIGITS - 1; i >= 0; i--, n /= 10) path[directory_length + (usize)i] = (char)('0' + n % 10);
  memcpy(path + directory_length + NAME_DIGITS, ".log", 5);
  return path;
}

static void open_file(void) {
  file = (int)call(SYS_openat, AT_FDCWD, file_name(number), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  isize end = file < 0 ? 0 : call(SYS_lseek, file, 0, SEEK_END, 0);
  file_bytes = end < 0 ? 0 : (u64)end;
}

static u64 monotonic_nanos(void) {
  struct timespec now;
  call(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0, 0);
  return (u64)now.seconds * SECOND_NANOS + (u64)now.nanos;
}

/* A second's worth may be written at once, so that a burst is not held up. */
static void pay(usize bytes) {
  if (rate == 0) return;
  u64 now = monotonic_nanos();
  if (paid_nanos < now) paid_nanos = now;
  paid_nanos += bytes * SECOND_NANOS / rate;
}

/* How long nothing must be read; 0 is not at all. */
static u64 pause_nanos(void) {
  if (rate == 0) return 0;
  u64 allowed = monotonic_nanos() + SECOND_NANOS;
  return paid_nanos > allowed ? paid_nanos - allowed : 0;
}

static void flush(void) {
  usize done = 0;
  if (pending == 0) return;
  pay(pending);
  if (file < 0) open_file();
  while (file >= 0 && done < pending) {
    isize n = call(SYS_write, file, out + done, pending - done, 0);
    if (n == -EINTR) continue;
    if (n <= 0) break;
    done += (usize)n;
  }
  if (done == pending) {
    file_bytes += pending;
  } else {
    /* Half a record would spoil the file for every reader. */
    if (file >= 0) call(SYS_ftruncate, file, file_bytes, 0, 0);
    lost_records += pending_records;
  }
  pending = 0;
  pending_records = 0;
}

static void rotate(void) {
  flush();
  if (file >= 0) call(SYS_close, file, 0, 0, 0);
  number++;
  open_file();
  if (number > keep_files) call(SYS_unlinkat, AT_FDCWD, file_name(number - keep_files), 0, 0);
}

static void digits(char *to, u64 value, int count) {
  for (int i = count - 1; i >= 0; i--, value /= 10) to[i] = (char)('0' + value % 10);
}

/* Civil date from days since 1970-01-01: the year is taken to begin in March, so that a leap day comes last. */
static void set_stamp(void) {
  struct timespec now;
  call(SYS_clock_gettime, CLOCK_REALTIME, &now, 0, 0);
  u64 days = (u64)now.seconds / 86400, rest = (u64)now.seconds % 86400;
  u64 shifted = days + 719468, era = shifted / 146097, day_of_era = shifted % 146097;
  u64 year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  u64 day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  u64 march_month = (5 * day_of_year + 2) / 153;
  u64 day = day_of_year - (153 * march_month + 2) / 5 + 1;
  u64 month = march_month < 10 ? march_month + 3 : march_month - 9;
  u64 year = year_of_era + era * 400 + (month <= 2);
  memcpy(stamp, "0000-00-00T00:00:00.000000000Z ", 31);
  digits(stamp, year, 4);
  digits(stamp + 5, month, 2);
  digits(stamp + 8, day, 2);
  digits(stamp + 11, rest / 3600, 2);
  digits(stamp + 14, rest / 60 % 60, 2);
  digits(stamp + 17, rest % 60, 2);
  digits(stamp + 20, (u64)now.nanos, 9);
}

static void record(const char *stream, const u8 *text, usize n, char completeness) {
  usize size = HEADER_BYTES + n + 1;
  if (file_bytes + pending > 0 && file_bytes + pending + size > max_bytes) rotate();
  if (pending + size > OUT_BYTES) flush();
  u8 *to = out + pending;
  memcpy(to, stamp, 31);
  memcpy(to + 31, stream, 6);
  to[37] = ' ';
  to[38] = (u8)completeness;
  to[39] = ' ';
  memcpy(to + HEADER_BYTES, text, n);
  to[HEADER_BYTES + n] = '\n';
  pending += size;
  pending_records++;
}

static void tell_losses(void) {
  static const char before[] = "fast-sandbox: ", after[] = " log records were lost: the log could not be written";
  char text[sizeof before + 20 + sizeof after];
  usize n = sizeof before - 1, start;
  int count = 1;
  u64 told = lost_records;
  for (u64 v = told; v >= 10; v /= 10) count++;
  memcpy(text, before, n);
  start = n;
  digits(text + start, told, count);
  n += (usize)count;
  memcpy(text + n, after, sizeof after - 1);
  n += sizeof after - 1;
  lost_records = 0;
  record("stderr", (const u8 *)text, n, 'F');
  flush();
  /* It was lost itself: count what it stood for, not the notice. */
  if (lost_records > 0) lost_records = told;
}

static void take(struct stream *s, const u8 *data, usize n) {
  usize at = 0;
  while (at < n) {
    usize end = at, room = LINE_BYTES - s->held;
    while (end < n && end - at < room && data[end] != '\n') end++;
    int whole = end < n && data[end] == '\n';
    int full = end - at == room;
    if (s->held == 0 && (whole || full)) {
      record(s->name, data + at, end - at, whole ? 'F' : 'P');
    } else {
      memcpy(s->line + s->held, data + at, end - at);
      s->held += end - at;
      if (whole || full) {
        record(s->name, s->line, s->held, whole ? 'F' : 'P');
        s->held = 0;
      }
    }
    at = end + (usize)whole;
  }
}

/* Reads once. True while there may be more. */
static int drain_once(struct stream *s) {
  isize n = call(SYS_read, s->fd, chunk, CHUNK_BYTES, 0);
  if (n == -EINTR) return 1;
  if (n == -EAGAIN) return 0;
  if (n <= 0) {
    s->open = 0;
    return 0;
  }
  set_stamp();
  if (lost_records > 0) tell_losses();
  take(s, chunk, (usize)n);
  if (at_once && s->held > 0) {
    record(s->name, s->line, s->held, 'P');
    s->held = 0;
  }
  flush();
  return 1;
}

static u64 parse(const char *text) {
  u64 value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (u64)(*text++ - '0');
  return value;
}

__attribute__((used)) void start(usize *stack) {
  usize count = stack[0];
  char **arguments = (char **)(stack + 1);
  for (usize i = 1; i + 1 < count; i += 2) {
    const char *value = arguments[i + 1];
    if (same(arguments[i], "dir")) {
      directory_length = length(value);
      if (directory_length + NAME_DIGITS + 6 > PATH_BYTES) leave(2);
      memcpy(path, value, directory_length);
      path[directory_length++] = '/';
    } else if (same(arguments[i], "max-bytes")) {
      max_bytes = parse(value);
    } else if (same(arguments[i], "files")) {
      keep_files = parse(value);
    } else if (same(arguments[i], "rate")) {
      rate = parse(value);
    } else if (same(arguments[i], "tty")) {
      is_terminal = at_once = parse(value) != 0;
    } else if (same(arguments[i], "at-once")) {
      at_once = parse(value) != 0;
    }
  }
  if (directory_length == 0 || max_bytes == 0 || keep_files == 0) leave(2);

  streams[0].fd = STDOUT_FD;
  streams[0].name = "stdout";
  streams[1].fd = STDERR_FD;
  streams[1].name = "stderr";
  streams[0].open = 1;
  /* The shim keeps an end of the other pipe open. */
  streams[1].open = !is_terminal;

  /* The shim ends a logger with SIGTERM once its sandbox is gone; what is still in the pipes is read first. */
  u64 mask = 1UL << (SIGTERM - 1) | 1UL << (SIGINT - 1) | 1UL << (SIGPIPE - 1);
  call(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
  u64 end_mask = 1UL << (SIGTERM - 1) | 1UL << (SIGINT - 1);
  int signals = (int)call(SYS_signalfd4, -1, &end_mask, 8, O_CLOEXEC);
  open_file();
  call(SYS_setpriority, PRIO_PROCESS, 0, NICENESS, 0);
  call(SYS_close, READY_FD, 0, 0, 0);

  int ending = 0;
  while (!ending && (streams[0].open || streams[1].open)) {
    u64 nanos = pause_nanos();
    struct timespec pause = {(isize)(nanos / SECOND_NANOS), (isize)(nanos % SECOND_NANOS)};
    struct pollfd wanted[3] = {{streams[0].open && nanos == 0 ? STDOUT_FD : -1, POLLIN, 0},
                               {streams[1].open && nanos == 0 ? STDERR_FD : -1, POLLIN, 0},
                               {signals, POLLIN, 0}};
    call6(SYS_ppoll, (isize)wanted, 3, nanos == 0 ? 0 : (isize)&pause, 0, 8, 0);
    for (int i = 0; i < 2; i++)
      if (wanted[i].revents) drain_once(&streams[i]);
    ending = wanted[2].revents != 0;
  }
  if (ending)
    for (int i = 0; i < 2; i++) {
      call(SYS_fcntl, streams[i].fd, F_SETFL, O_NONBLOCK, 0);
      for (int chunks = 0; streams[i].open && chunks < DRAIN_CHUNKS && drain_once(&streams[i]); chunks++) {}
    }
  set_stamp();
  for (int i = 0; i < 2; i++)
    if (streams[i].held > 0) record(streams[i].name, streams[i].line, streams[i].held, 'P');
  flush();
  if (lost_records > 0) tell_losses();
  leave(0);
}
