/*
 * What a hostile program tries from inside a sandbox, one attempt a line: "name result", where the result is the error's
 * name, or "SUCCEEDED". Each attempt runs in a process of its own, so that one which is killed says "SIGNAL n".
 *
 *   attacker syscalls HOST_PID   calls that reach beyond a sandbox
 *   attacker files               kernel interfaces and devices
 *   attacker open-forever        opens files until it is refused, and says how many it got
 *   attacker fork-forever        doubles, and goes on when it is refused: it never gets fewer, as a shell's bomb does
 *   attacker status              what the kernel says of this process: no_new_privs, seccomp, capabilities, open files
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t host_pid;

static long system_call(long number, long a, long b, long c, long d, long e) {
  return syscall(number, a, b, c, d, e);
}

/* The attempts. Each gives -1 and errno when it was refused. */

static long do_mount(void) { return mount("none", "/tmp", "tmpfs", 0, ""); }
static long do_remount(void) { return mount("", "/proc/sys", "", MS_REMOUNT | MS_BIND, ""); }
static long do_umount(void) { return umount2("/proc/sys", MNT_DETACH); }
/* The kernel says EINVAL to this flag, and before it asks who calls: only a filter says EPERM. */
static long do_umount_odd(void) { return umount2("/proc/sys", 0x100); }
static long do_pivot_root(void) { return system_call(SYS_pivot_root, (long)"/", (long)"/", 0, 0, 0); }
static long do_fsopen(void) { return system_call(SYS_fsopen, (long)"tmpfs", 0, 0, 0, 0); }
static long do_open_tree(void) { return system_call(SYS_open_tree, AT_FDCWD, (long)"/", 1, 0, 0); }
static long do_unshare_user(void) { return unshare(CLONE_NEWUSER); }
static long do_unshare_mount(void) { return unshare(CLONE_NEWNS); }
static long clone_with(long flags) {
  long child = system_call(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(0);
  return child;
}
static long do_clone_user(void) { return clone_with(CLONE_NEWUSER); }
static long do_clone_net(void) { return clone_with(CLONE_NEWNET); }
static long do_clone3(void) {
  unsigned long long args[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0};
  long child = system_call(SYS_clone3, (long)args, sizeof args, 0, 0, 0);
  if (child == 0) _exit(0);
  return child;
}
static long do_setns(void) {
  int own = open("/proc/1/ns/mnt", O_RDONLY);
  return own < 0 ? -1 : setns(own, 0);
}
static long do_ptrace_host(void) { return ptrace(PTRACE_ATTACH, host_pid, 0, 0); }
static long do_kill_host(void) { return kill(host_pid, 0); }
static long do_read_host_memory(void) {
  char byte;
  struct iovec here = {&byte, 1}, there = {(void *)4096, 1};
  return process_vm_readv(host_pid, &here, 1, &there, 1, 0);
}
static long do_init_module(void) { return system_call(SYS_init_module, (long)"", 0, (long)"", 0, 0); }
static long do_finit_module(void) { return system_call(SYS_finit_module, 0, (long)"", 0, 0, 0); }
static long do_delete_module(void) { return system_call(SYS_delete_module, (long)"overlay", 0, 0, 0, 0); }
static long do_kexec(void) { return system_call(SYS_kexec_load, 0, 0, 0, 0, 0); }
/* Neither magic number is right: a kernel that got this far would only say EINVAL. */
static long do_reboot(void) { return system_call(SYS_reboot, 0, 0, 0, 0, 0); }
static long do_bpf(void) {
  union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
  return system_call(SYS_bpf, BPF_MAP_CREATE, (long)&attr, sizeof attr, 0, 0);
}
static long do_perf(void) {
  struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .exclude_kernel = 1};
  return system_call(SYS_perf_event_open, (long)&attr, 0, -1, -1, 0);
}
static long do_userfaultfd(void) { return system_call(SYS_userfaultfd, 1, 0, 0, 0, 0); }
static long do_io_uring(void) {
  char params[120] = {0};
  return system_call(SYS_io_uring_setup, 1, (long)params, 0, 0, 0);
}
static long do_keyctl(void) { return system_call(SYS_keyctl, 0, -3, 0, 0, 0); }
static long do_add_key(void) { return system_call(SYS_add_key, (long)"user", (long)"k", (long)"v", 1, -3); }
static long do_request_key(void) { return system_call(SYS_request_key, (long)"user", (long)"k", 0, -3, 0); }
static long do_syslog(void) { return system_call(SYS_syslog, 3, (long)malloc(64), 64, 0, 0); }
static long do_acct(void) { return system_call(SYS_acct, 0, 0, 0, 0, 0); }
static long do_swapon(void) { return system_call(SYS_swapon, (long)"/tmp", 0, 0, 0, 0); }
static long do_settimeofday(void) {
  struct timeval now;
  gettimeofday(&now, NULL);
  return system_call(SYS_settimeofday, (long)&now, 0, 0, 0, 0);
}
static long do_adjtimex(void) { return system_call(SYS_adjtimex, (long)calloc(1, 256), 0, 0, 0, 0); }
static long do_sethostname(void) { return sethostname("x", 1); }
static long do_open_by_handle(void) {
  struct { unsigned bytes; int type; unsigned char handle[8]; } root = {8, 1, {2}};
  int at = open("/", O_RDONLY);
  return system_call(SYS_open_by_handle_at, at, (long)&root, O_RDONLY, 0, 0);
}
static long do_name_to_handle(void) {
  struct { unsigned bytes; int type; unsigned char handle[128]; } handle = {128, 0, {0}};
  int id;
  return system_call(SYS_name_to_handle_at, AT_FDCWD, (long)"/", (long)&handle, (long)&id, 0);
}
static long do_quotactl(void) { return system_call(SYS_quotactl, 0, 0, 0, 0, 0); }
static long do_raw_socket(void) { return socket(AF_INET, SOCK_RAW, 1); }
static long do_packet_socket(void) { return socket(AF_PACKET, SOCK_RAW, 0); }
static long do_vsock(void) { return socket(AF_VSOCK, SOCK_STREAM, 0); }
static long do_audit_socket(void) { return socket(AF_NETLINK, SOCK_RAW, 9); }
static long do_crypto_socket(void) { return socket(AF_ALG, SOCK_SEQPACKET, 0); }
static long do_mknod_memory(void) { return mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)); }
static long do_mknod_disk(void) { return mknod("/tmp/disk", S_IFBLK | 0600, makedev(254, 0)); }
static long do_personality(void) { return system_call(SYS_personality, 0x0040000, 0, 0, 0, 0); }
static long do_unkillable(void) {
  int file = open("/proc/self/oom_score_adj", O_WRONLY);
  return file < 0 ? -1 : write(file, "-1000", 5);
}
static long do_raise_core(void) {
  struct rlimit limit = {1 << 20, 1 << 20};
  return setrlimit(RLIMIT_CORE, &limit);
}
static long do_raise_files(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_max++;
  return setrlimit(RLIMIT_NOFILE, &limit);
}
static long do_realtime(void) {
  struct sched_param first = {.sched_priority = 1};
  return sched_setscheduler(0, SCHED_FIFO, &first);
}
static long do_nice(void) { return setpriority(PRIO_PROCESS, 0, -5); }
/* Into the input of the terminal of whoever started us. */
static long do_terminal_input(void) { return ioctl(0, TIOCSTI, "x"); }
/* Its stdin is the node's null device: given a mode, which may be the one that it has, or made its own. */
static long do_close_input(void) { return fchmod(0, 0666); }
static long do_own_input(void) { return fchown(0, getuid(), getgid()); }
#ifdef SYS_iopl
static long do_ports(void) { return system_call(SYS_iopl, 3, 0, 0, 0, 0); }
#endif
static long do_x32(void) { return system_call(0x40000000 + SYS_getpid, 0, 0, 0, 0, 0); }

static const struct attempt {
  const char *name;
  long (*act)(void);
} syscalls[] = {
  {"mount", do_mount}, {"remount", do_remount}, {"umount", do_umount}, {"pivot_root", do_pivot_root},
  {"umount-odd", do_umount_odd}, {"fsopen", do_fsopen}, {"open_tree", do_open_tree}, {"unshare-user", do_unshare_user},
  {"unshare-mount", do_unshare_mount}, {"clone-user", do_clone_user}, {"clone-net", do_clone_net},
  {"clone3", do_clone3}, {"setns", do_setns}, {"ptrace-host", do_ptrace_host}, {"kill-host", do_kill_host},
  {"read-host-memory", do_read_host_memory}, {"init_module", do_init_module}, {"finit_module", do_finit_module},
  {"delete_module", do_delete_module}, {"kexec_load", do_kexec}, {"reboot", do_reboot}, {"bpf", do_bpf},
  {"perf_event_open", do_perf}, {"userfaultfd", do_userfaultfd}, {"io_uring", do_io_uring}, {"keyctl", do_keyctl},
  {"add_key", do_add_key}, {"request_key", do_request_key}, {"syslog", do_syslog}, {"acct", do_acct},
  {"swapon", do_swapon}, {"settimeofday", do_settimeofday}, {"adjtimex", do_adjtimex},
  {"sethostname", do_sethostname}, {"open_by_handle_at", do_open_by_handle},
  {"name_to_handle_at", do_name_to_handle}, {"quotactl", do_quotactl}, {"raw-socket", do_raw_socket},
  {"packet-socket", do_packet_socket}, {"vsock", do_vsock}, {"audit-socket", do_audit_socket},
  {"crypto-socket", do_crypto_socket}, {"mknod-memory", do_mknod_memory}, {"mknod-disk", do_mknod_disk},
  {"personality", do_personality}, {"unkillable", do_unkillable}, {"raise-core", do_raise_core},
  {"raise-files", do_raise_files}, {"realtime", do_realtime}, {"nice", do_nice},
  {"terminal-input", do_terminal_input}, {"close-input", do_close_input}, {"own-input", do_own_input},
#ifdef SYS_iopl
  {"iopl", do_ports},
#endif
  {"x32", do_x32}
};

/* Opened for reading, and where a second letter says so, for writing. */
static const char *const files[] = {
  "w /proc/sys/kernel/core_pattern", "w /proc/sys/kernel/modprobe", "w /proc/sys/vm/panic_on_oom",
  "w /proc/sysrq-trigger", "r /proc/kcore", "r /proc/kmsg", "r /proc/keys", "r /proc/timer_list", "r /proc/interrupts",
  "w /proc/irq/default_smp_affinity", "r /sys/firmware/acpi", "w /sys/kernel/uevent_helper", "w /sys/power/state",
  "w /sys/fs/cgroup/memory/memory.limit_in_bytes", "w /sys/fs/cgroup/pids.max", "w /sys/fs/cgroup/cgroup.procs",
  "w /sys/fs/cgroup/devices/devices.allow", "w /sys/fs/cgroup/memory/cgroup.procs",
  "w /sys/fs/cgroup/memory/release_agent", "r /sys/kernel/debug/tracing/trace", "r /sys/kernel/security/lockdown",
  "r /dev/mem", "r /dev/kmsg", "r /dev/sda", "r /dev/vda", "r /dev/fuse", "r /dev/kvm", "r /dev/net/tun",
  "r /planted/mem", "r /planted/disk", "r /proc/1/root/../../../etc/machine-id"
};

static void say(const char *name, long result, int error) {
  printf("%s %s\n", name, result >= 0 ? "SUCCEEDED" : strerrorname_np(error));
  fflush(stdout);
}

static void in_a_process(const char *name, long (*act)(void)) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    long result = act();
    say(name, result, errno);
    _exit(0);
  }
  int status = 0;
  if (child < 0) say(name, -1, errno);
  else if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) printf("%s SIGNAL %d\n", name, WTERMSIG(status));
}

static const char *current_file;
static long open_file(void) {
  int file = open(current_file + 2, current_file[0] == 'w' ? O_WRONLY : O_RDONLY);
  char byte;
  if (file < 0 || current_file[0] == 'w') return file;
  /* What is hidden behind an empty file or folder gives nothing. */
  long got = read(file, &byte, 1);
  if (got == 0) errno = ENODATA;
  return got > 0 ? got : -1;
}

static void status(void) {
  char line[256];
  FILE *file = fopen("/proc/self/status", "r");
  while (file != NULL && fgets(line, sizeof line, file) != NULL)
    if (!strncmp(line, "NoNewPrivs", 10) || !strncmp(line, "Seccomp:", 8) || !strncmp(line, "Cap", 3) ||
        !strncmp(line, "Uid", 3)) {
      char *name = strtok(line, ":"), *value = strtok(NULL, "\t\n ");
      printf("%s %s\n", name, value);
    }
  DIR *directory = opendir("/proc/self/fd");
  int count = 0;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
    count += entry->d_name[0] != '.' && atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(directory) &&
      (file == NULL || atoi(entry->d_name) != fileno(file));
  printf("InheritedFiles %d\n", count);
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  host_pid = count > 2 ? atoi(words[2]) : 0;
  if (!strcmp(what, "syscalls")) {
    for (unsigned n = 0; n < sizeof syscalls / sizeof *syscalls; n++) in_a_process(syscalls[n].name, syscalls[n].act);
  } else if (!strcmp(what, "files")) {
    for (unsigned n = 0; n < sizeof files / sizeof *files; n++) {
      current_file = files[n];
      in_a_process(current_file + 2, open_file);
    }
  } else if (!strcmp(what, "open-forever")) {
    long opened = 0;
    while (open("/", O_RDONLY) >= 0) opened++;
    printf("%ld %s\n", opened, strerrorname_np(errno));
  } else if (!strcmp(what, "fork-forever")) {
    for (;;) fork();
  } else if (!strcmp(what, "status")) {
    status();
  } else {
    fprintf(stderr, "attacker: unknown attack '%s'\n", what);
    return 2;
  }
  return 0;
}
