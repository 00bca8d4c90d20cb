/**
 * The system calls that a sandbox may make, as data. One architecture only: the filter for each further one costs
 * milliseconds at every start.
 *
 * What is not listed answers ENOSYS, as on an older kernel, so that libraries fall back; what programs may probe and
 * must not get answers EPERM.
 */
import type { Seccomp } from "./OciSpec.ts"

// dprint-ignore
const files = [
  "access", "cachestat", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
  "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
  "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
  "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "getxattrat", "inotify_add_watch",
  "inotify_init", "inotify_init1", "inotify_rm_watch", "ioctl", "lchown", "lgetxattr", "link", "linkat", "listxattr", "listxattrat",
  "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "memfd_create", "mkdir", "mkdirat", "mknod", "mknodat",
  "newfstatat", "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev",
  "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
  "rmdir", "sendfile", "setxattr", "setxattrat", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync",
  "sync_file_range", "syncfs", "tee", "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimes",
  "vmsplice", "write", "writev"
] as const

// dprint-ignore
const memory = [
  "brk", "get_mempolicy", "madvise", "map_shadow_stack", "mbind", "membarrier", "memfd_secret", "mincore", "mlock", "mlock2", "mlockall",
  "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
  "process_madvise", "process_mrelease", "remap_file_pages", "set_mempolicy"
] as const

// dprint-ignore
const processes = [
  "alarm", "arch_prctl", "capget", "capset", "chroot", "execve", "execveat", "exit", "exit_group", "fork",
  "get_robust_list", "get_thread_area", "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp",
  "getpid", "getppid", "getpriority", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "gettid", "getuid",
  "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self",
  "pause", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "process_vm_readv",
  "process_vm_writev", "ptrace", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
  "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max",
  "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
  "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
  "seccomp", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups",
  "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid", "setuid",
  "sigaltstack", "signalfd", "signalfd4", "sysinfo", "tgkill", "times", "tkill", "uname", "vfork", "wait4", "waitid"
] as const

// dprint-ignore
const waiting = [
  "clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait",
  "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "futex", "futex_requeue", "futex_wait", "futex_waitv",
  "futex_wake", "getitimer", "getrandom", "gettimeofday", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
  "io_setup", "io_submit", "nanosleep", "poll", "ppoll", "pselect6", "select", "setitimer", "time", "timer_create",
  "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
  "timerfd_settime"
] as const

// dprint-ignore
const communication = [
  "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "mq_getsetattr",
  "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd",
  "recvfrom", "recvmmsg", "recvmsg", "semctl", "semget", "semop", "semtimedop", "sendmmsg", "sendmsg", "sendto",
  "setsockopt", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "socketpair"
] as const

// They reach beyond the sandbox or widen the kernel's attack surface.
// dprint-ignore
const refused = [
  "acct", "add_key", "bpf", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module",
  "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load",
  "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "move_pages", "migrate_pages",
  "name_to_handle_at", "open_by_handle_at", "open_tree", "open_tree_attr", "perf_event_open", "pivot_root", "quotactl", "reboot",
  "request_key", "setdomainname", "sethostname", "setns", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
  "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "vhangup"
] as const

const allow = "SCMP_ACT_ALLOW"
const refuse = "SCMP_ACT_ERRNO"

/** Error numbers of the kernel. */
const EPERM = 1
const ENOSYS = 38
const EPROTONOSUPPORT = 93
const EAFNOSUPPORT = 97

/** The flags of clone(2) that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const namespaceFlags = 0x7e020000

/** Address families: of programs on this machine, of the Internet, and for asking the kernel about the network. */
const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const AF_NETLINK = 16

/** What of netlink programs need: interfaces and routes, sockets (`ss`), and devices that come and go. */
const NETLINK_ROUTE = 0
const NETLINK_SOCK_DIAG = 4
const NETLINK_KOBJECT_UEVENT = 15
/** The host's audit log. Its absence is what login programs are prepared for, its refusal is not. */
const NETLINK_AUDIT = 9

/** What personality(2) may be set to: Linux and 32-bit Linux, with and without UNAME26, and "ask only". */
const personalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff] as const

/** By Node's name of the architecture. */
const architectures: Readonly<Record<string, string>> = { x64: "SCMP_ARCH_X86_64", arm64: "SCMP_ARCH_AARCH64" }

const equals = (index: number, value: number) => ({ index, value, op: "SCMP_CMP_EQ" })

/**
 * The profile for an architecture (`x64`, `arm64`), by which names that it does not have are passed over; undefined where
 * there is none. A sandbox must not be started unfiltered.
 */
export const profileFor = (architecture: string): Seccomp | undefined => {
  const name = Object.hasOwn(architectures, architecture) ? architectures[architecture] : undefined
  return name === undefined ? undefined : {
    defaultAction: refuse,
    defaultErrnoRet: ENOSYS,
    architectures: [name],
    syscalls: [
      { names: [...files, ...memory, ...processes, ...waiting, ...communication], action: allow },
      { names: [...refused], action: refuse, errnoRet: EPERM },
      {
        names: ["clone"],
        action: allow,
        args: [{ index: 0, value: namespaceFlags, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]
      },
      // Its flags lie in memory where a filter can't look, so programs are sent back to clone.
      { names: ["clone3"], action: refuse, errnoRet: ENOSYS },
      ...[AF_UNIX, AF_INET, AF_INET6].map((family) => ({
        names: ["socket"],
        action: allow,
        args: [equals(0, family)]
      })),
      ...[NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT].map((protocol) => ({
        names: ["socket"],
        action: allow,
        args: [equals(0, AF_NETLINK), equals(2, protocol)]
      })),
      {
        names: ["socket"],
        action: refuse,
        errnoRet: EPROTONOSUPPORT,
        args: [equals(0, AF_NETLINK), equals(2, NETLINK_AUDIT)]
      },
      // Packets, hypervisors, the kernel's cryptography and the many others have higher numbers.
      {
        names: ["socket"],
        action: refuse,
        errnoRet: EAFNOSUPPORT,
        args: [{ index: 0, value: AF_NETLINK, op: "SCMP_CMP_GT" }]
      },
      ...personalities.map((value) => ({ names: ["personality"], action: allow, args: [equals(0, value)] }))
    ]
  }
}

/** The profile for this machine. */
export const seccompProfile: Seccomp | undefined = profileFor(process.arch)
