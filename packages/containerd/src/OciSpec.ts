/**
 * The OCI runtime spec of a sandbox, as a pure function of the image's configuration and of what the sandbox asks for.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

/** A capability set, by the kernel's names (`CAP_CHOWN`). */
export interface Capabilities {
  readonly bounding: ReadonlyArray<string>
  readonly effective: ReadonlyArray<string>
  readonly permitted: ReadonlyArray<string>
}

/** A numeric user inside the container. */
export interface User {
  readonly uid: number
  readonly gid: number
  readonly additionalGids?: ReadonlyArray<number> | undefined
  readonly umask?: number | undefined
}

/** `type` is the kernel's name of the limit, such as `RLIMIT_NOFILE`. */
export interface Rlimit {
  readonly type: string
  readonly soft: number
  readonly hard: number
}

/** A process of a container: its init, or an exec. */
export interface Process {
  readonly terminal: boolean
  readonly consoleSize?: { readonly width: number; readonly height: number } | undefined
  readonly user: User
  readonly args: ReadonlyArray<string>
  readonly env: ReadonlyArray<string>
  readonly cwd: string
  readonly capabilities: Capabilities
  readonly rlimits: ReadonlyArray<Rlimit>
  readonly noNewPrivileges: boolean
  readonly oomScoreAdj?: number | undefined
}

/** A mount of the container's mount namespace, on top of its root file system. */
export interface SpecMount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: ReadonlyArray<string>
}

/** A Linux namespace to make, or to join when `path` is given. */
export interface Namespace {
  readonly type: "pid" | "network" | "ipc" | "uts" | "mount" | "cgroup" | "user"
  readonly path?: string | undefined
}

/** The users of a sandbox on the host: 0 inside is `hostId` outside, and so on for `size` of them; the same for groups. */
export interface IdRange {
  readonly hostId: number
  readonly size: number
}

/** A part of a user namespace's map. */
export interface IdMapping {
  readonly containerID: number
  readonly hostID: number
  readonly size: number
}

/** The cgroup limits that are set. Absent means no limit of its own. */
export interface LinuxResources {
  readonly devices?:
    | ReadonlyArray<{
      readonly allow: boolean
      readonly type?: string | undefined
      readonly major?: number | undefined
      readonly minor?: number | undefined
      readonly access: string
    }>
    | undefined
  readonly memory?: { readonly limit: number; readonly swap?: number | undefined } | undefined
  readonly cpu?:
    | {
      readonly shares?: number | undefined
      readonly quota?: number | undefined
      readonly period?: number | undefined
    }
    | undefined
  readonly pids?: { readonly limit: number } | undefined
}

/** A seccomp profile as the OCI spec has it. */
export interface Seccomp {
  readonly defaultAction: string
  readonly defaultErrnoRet?: number | undefined
  readonly architectures: ReadonlyArray<string>
  readonly syscalls: ReadonlyArray<{
    readonly names: ReadonlyArray<string>
    readonly action: string
    readonly errnoRet?: number | undefined
    readonly args?:
      | ReadonlyArray<{
        readonly index: number
        readonly value: number
        readonly valueTwo?: number | undefined
        readonly op: string
      }>
      | undefined
  }>
}

/** The part of the OCI runtime spec that is written. */
export interface Spec {
  readonly ociVersion: string
  readonly process: Process
  readonly root: { readonly path: string; readonly readonly: boolean }
  readonly hostname: string
  readonly mounts: ReadonlyArray<SpecMount>
  readonly annotations: Readonly<Record<string, string>>
  readonly linux: {
    readonly namespaces: ReadonlyArray<Namespace>
    readonly uidMappings?: ReadonlyArray<IdMapping> | undefined
    readonly gidMappings?: ReadonlyArray<IdMapping> | undefined
    readonly cgroupsPath: string
    readonly resources: LinuxResources
    readonly seccomp?: Seccomp | undefined
    readonly maskedPaths: ReadonlyArray<string>
    readonly readonlyPaths: ReadonlyArray<string>
  }
}

/** The part of an image's configuration that decides how it runs. */
export interface ImageRunConfig {
  readonly entrypoint: ReadonlyArray<string>
  readonly cmd: ReadonlyArray<string>
  readonly env: ReadonlyArray<string>
  readonly workingDir: string
  /** `""`, `uid`, `uid:gid`, `name` or `name:group`. */
  readonly user: string
  /** `SIGTERM` and the like, or a number; empty for the default. */
  readonly stopSignal: string
}

/** Limits of a sandbox. Absent means {@link defaultResources}. */
export interface Resources {
  /** Cores; 0.5 is half of one. */
  readonly cpu?: number | undefined
  readonly memoryBytes?: number | undefined
  /** Processes and threads. */
  readonly pids?: number | undefined
  /** The size of /dev/shm; what is in it counts as memory. */
  readonly shmBytes?: number | undefined
  /** Swap beside the memory. Absent: as much as the kernel gives; where it can't limit swap, it must be absent. */
  readonly swapBytes?: number | undefined
}

/** What a sandbox asks for. */
export interface SandboxProcess {
  /** Replaces ENTRYPOINT (and drops the image's CMD). */
  readonly command?: ReadonlyArray<string> | undefined
  /** Replaces CMD. */
  readonly args?: ReadonlyArray<string> | undefined
  /** Added to the image's; a later one of the same name wins. */
  readonly env?: Readonly<Record<string, string>> | undefined
  readonly workingDir?: string | undefined
  /** Numeric; see `resolveUser` in `ImageUser`. Root when absent. */
  readonly user?: User | undefined
  readonly terminal?: boolean | undefined
  /** The most files that containerd may open; without it that limit is the sandbox's, too. */
  readonly openFiles?: number | undefined
}

/** Everything {@link make} needs. */
export interface SandboxSpec extends SandboxProcess {
  readonly image: ImageRunConfig
  readonly hostname: string
  /** As the hierarchy wants it, e.g. `/fast-sandbox/<id>`, or `slice:prefix:name` with systemd. */
  readonly cgroupsPath: string
  readonly resources?: Resources | undefined
  /** A network namespace to join (`/run/netns/x`); a new one with nothing but loopback when absent. */
  readonly netnsPath?: string | undefined
  /** A user namespace of its own, for a root file system that was mapped so (`UserNamespaces`); the host's when absent. */
  readonly users?: IdRange | undefined
  readonly mounts?: ReadonlyArray<SpecMount> | undefined
  readonly readonlyRoot?: boolean | undefined
  /** See `Seccomp.defaultProfile`; none when absent. */
  readonly seccomp?: Seccomp | undefined
  /** Those of the `ShimRuntime`, and one's own. */
  readonly annotations?: Readonly<Record<string, string>> | undefined
}

/** Neither the image nor the sandbox says what to run. */
export class NoCommand extends Schema.TaggedError<NoCommand>()("NoCommand", {}) {
  override get message(): string {
    return "nothing to run: the image has neither ENTRYPOINT nor CMD, and the sandbox neither command nor args"
  }
}

const kibi = 1024
const mebi = kibi * kibi

/** What a sandbox may use when nobody says otherwise: enough for an interpreter, too little to hurt a node. */
export const defaultResources = {
  cpu: 1,
  memoryBytes: 512 * mebi,
  pids: 512,
  shmBytes: 64 * mebi
} as const satisfies Resources

/**
 * What root may do inside a sandbox: docker's default set without NET_RAW (forged packets), MKNOD (devices), SETFCAP
 * (useless under no_new_privs) and AUDIT_WRITE (the host's log). Enough to install packages and to run a server on port 80.
 */
export const rootCapabilities: ReadonlyArray<string> = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_NET_BIND_SERVICE",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT"
]

/** Kernel interfaces that tell about the host or its other tenants. */
export const maskedPaths: ReadonlyArray<string> = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware"
]

/** Kernel interfaces that may be read but would change the host when written. */
export const readonlyPaths: ReadonlyArray<string> = [
  "/proc/bus",
  "/proc/fs",
  "/proc/irq",
  "/proc/sys",
  "/proc/sysrq-trigger"
]

/** Devices that programs expect: null, zero, full, random, urandom, tty, console, ptmx and the pseudo-terminals. */
const allowedDevices: ReadonlyArray<readonly [major: number, minor: number | undefined]> = [
  [1, 3],
  [1, 5],
  [1, 7],
  [1, 8],
  [1, 9],
  [5, 0],
  [5, 1],
  [5, 2],
  [136, undefined]
]

/** Scratch space in memory (`/dev`, `/dev/shm`, `/tmp`) counts against the memory limit; its size bounds it further. */
const mountsOf = (shmBytes: number): ReadonlyArray<SpecMount> => [
  { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
  {
    destination: "/dev",
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", "strictatime", "mode=755", "size=65536k"]
  },
  {
    destination: "/dev/pts",
    type: "devpts",
    source: "devpts",
    options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
  },
  {
    destination: "/dev/shm",
    type: "tmpfs",
    source: "shm",
    options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${Math.ceil(shmBytes / kibi)}k`]
  },
  { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] }
]

/** Where a program may write whose root file system is read-only. Programs may be run from it: installers do. */
const scratch: SpecMount = {
  destination: "/tmp",
  type: "tmpfs",
  source: "tmpfs",
  options: ["nosuid", "nodev", "mode=1777", "size=65536k"]
}

const sysfs: SpecMount = {
  destination: "/sys",
  type: "sysfs",
  source: "sysfs",
  options: ["nosuid", "noexec", "nodev", "ro"]
}

/**
 * A sysfs shows the network namespace of whoever mounts it, so who does not own that namespace may not mount one. Then
 * the host's is shown, without its devices of the network. It is said to be private, as crun before 1.9 leaves it in the
 * host's peer group: under systemd, whose mounts are shared, the cgroup mount on it would come up on the host, too.
 */
const hostSysfs: SpecMount = {
  destination: "/sys",
  type: "bind",
  source: "/sys",
  options: ["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]
}
const hostNetworkPaths: ReadonlyArray<string> = ["/sys/class/net", "/sys/devices/virtual/net"]

const cgroupfs: SpecMount = {
  destination: "/sys/fs/cgroup",
  type: "cgroup",
  source: "cgroup",
  options: ["nosuid", "noexec", "nodev", "relatime", "ro"]
}

/** The scheduler's period; docker's and the kernel's default. Quotas are parts of it. */
const cpuPeriodMicros = 100_000
/** The least that the kernel accepts as quota. */
const minCpuQuotaMicros = 1000
/** The weight of one core, and the least weight, on cgroup v1's scale. */
const sharesPerCpu = 1024
const minShares = 2

/** A sandbox goes before anything else of the node when memory runs out; containerd and the agent are far below 0. */
const oomScoreAdj = 500

/** No core dumps: the kernel would hand them to the host's handler. */
const noCoreDumps: Rlimit = { type: "RLIMIT_CORE", soft: 0, hard: 0 }

/** Files that a process may open: what a busy server needs. The kernel's memory for them counts as the sandbox's. */
const mostOpenFiles = 65_536

/** Below containerd's own limit, because raising a hard limit takes a privilege that it may lack. */
const rlimitsOf = (openFiles: number): ReadonlyArray<Rlimit> => [
  noCoreDumps,
  { type: "RLIMIT_NOFILE", soft: Math.min(mostOpenFiles, openFiles), hard: Math.min(mostOpenFiles, openFiles) }
]

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/**
 * What is run, by Kubernetes' rules: `command` replaces ENTRYPOINT and drops CMD, `args` replaces CMD; an empty list is
 * the same as none.
 */
export const argv = (
  image: ImageRunConfig,
  process: SandboxProcess
): Result.Result<ReadonlyArray<string>, NoCommand> => {
  const command = process.command ?? []
  const args = process.args ?? []
  const all = command.length > 0
    ? [...command, ...args]
    : [...image.entrypoint, ...(args.length > 0 ? args : image.cmd)]
  return all.length > 0 ? Result.succeed(all) : Result.fail(new NoCommand({}))
}

const nameOf = (variable: string): string => variable.split("=", 1)[0] ?? ""

const environment = (
  image: ImageRunConfig,
  hostname: string,
  process: SandboxProcess
): ReadonlyArray<string> => {
  const variables = new Map([
    ["PATH", `PATH=${defaultPath}`],
    ["HOSTNAME", `HOSTNAME=${hostname}`],
    ...(process.terminal === true ? [["TERM", "TERM=xterm"] as const] : []),
    ...image.env.map((variable) => [nameOf(variable), variable] as const),
    ...Object.entries(process.env ?? {}).map(([name, value]) => [name, `${name}=${value}`] as const)
  ])
  return [...variables.values()]
}

/** Absolute, whatever the image says. */
const directory = (path: string): string => path.startsWith("/") ? path : `/${path}`

const root: User = { uid: 0, gid: 0 }

/** A process for a sandbox's init or for an exec in it. */
export const makeProcess = (
  image: ImageRunConfig,
  hostname: string,
  process: SandboxProcess
): Result.Result<Process, NoCommand> =>
  Result.map(argv(image, process), (args) => {
    const user = process.user ?? root
    const isRoot = user.uid === 0
    return {
      terminal: process.terminal ?? false,
      user,
      args,
      env: environment(image, hostname, process),
      cwd: directory(process.workingDir ?? image.workingDir),
      capabilities: {
        bounding: rootCapabilities,
        effective: isRoot ? rootCapabilities : [],
        permitted: isRoot ? rootCapabilities : []
      },
      rlimits: process.openFiles === undefined ? [noCoreDumps] : rlimitsOf(process.openFiles),
      noNewPrivileges: true,
      oomScoreAdj
    }
  })

/** So many cores as the scheduler has them. */
export const quotaOf = (cores: number): { readonly period: number; readonly quota: number } => ({
  period: cpuPeriodMicros,
  quota: Math.max(minCpuQuotaMicros, Math.round(cores * cpuPeriodMicros))
})

/** The limits as a cgroup has them; also what `Tasks.update` takes. */
export const makeResources = (resources: Resources): LinuxResources => {
  const cpu = resources.cpu ?? defaultResources.cpu
  const memory = resources.memoryBytes ?? defaultResources.memoryBytes
  return {
    devices: [
      { allow: false, access: "rwm" },
      ...allowedDevices.map(([major, minor]) => ({ allow: true, type: "c", major, minor, access: "rwm" }))
    ],
    // OCI counts memory and swap together.
    memory: {
      limit: memory,
      ...(resources.swapBytes === undefined ? {} : { swap: memory + resources.swapBytes })
    },
    cpu: {
      ...quotaOf(cpu),
      shares: Math.max(minShares, Math.round(cpu * sharesPerCpu))
    },
    pids: { limit: resources.pids ?? defaultResources.pids }
  }
}

/** How many times its weight a container has while it is made: neighbours that run without end give way to it. */
const startingFactor = 16
/** The most on cgroup v1's scale. */
const maxShares = 262_144

/** The same container with the weight that it has until it is made. Its runtime works in its cgroup, milliseconds long. */
export const whileStarting = (spec: Spec): Spec => {
  const { cpu } = spec.linux.resources
  return cpu?.shares === undefined ? spec : {
    ...spec,
    linux: {
      ...spec.linux,
      resources: {
        ...spec.linux.resources,
        cpu: { ...cpu, shares: Math.min(maxShares, cpu.shares * startingFactor) }
      }
    }
  }
}

/** The map of a user namespace. */
const mappingsOf = ({ hostId, size }: IdRange): ReadonlyArray<IdMapping> => [
  { containerID: 0, hostID: hostId, size }
]

/**
 * The same container in a network namespace that was made beforehand. That one belongs to the host's users, so that who
 * has other users sees the host's /sys, without its networks.
 */
export const joinNetwork = (spec: Spec, netnsPath: string): Spec => {
  const isForeign = spec.linux.namespaces.some(({ type }) => type === "user")
  return {
    ...spec,
    mounts: spec.mounts.map((mount) => isForeign && mount.destination === sysfs.destination ? hostSysfs : mount),
    linux: {
      ...spec.linux,
      namespaces: spec.linux.namespaces.map((namespace) =>
        namespace.type === "network" ? { type: "network", path: netnsPath } : namespace
      ),
      maskedPaths: isForeign ? [...spec.linux.maskedPaths, ...hostNetworkPaths] : spec.linux.maskedPaths
    }
  }
}

/** The spec of a sandbox: namespaces, cgroup and file system of its own, and as few privileges as programs bear. */
export const make = (sandbox: SandboxSpec): Result.Result<Spec, NoCommand> =>
  Result.map(makeProcess(sandbox.image, sandbox.hostname, sandbox), (process) => {
    const { netnsPath, users } = sandbox
    const spec: Spec = {
      ociVersion: "1.0.2",
      process,
      root: { path: "rootfs", readonly: sandbox.readonlyRoot ?? false },
      hostname: sandbox.hostname,
      mounts: [
        ...mountsOf(sandbox.resources?.shmBytes ?? defaultResources.shmBytes),
        sysfs,
        cgroupfs,
        ...(sandbox.readonlyRoot === true ? [scratch] : []),
        ...(sandbox.mounts ?? [])
      ],
      annotations: sandbox.annotations ?? {},
      linux: {
        namespaces: [
          ...(users === undefined ? [] : [{ type: "user" } as const]),
          { type: "pid" },
          { type: "ipc" },
          { type: "uts" },
          { type: "mount" },
          { type: "cgroup" },
          { type: "network" }
        ],
        ...(users === undefined ? {} : { uidMappings: mappingsOf(users), gidMappings: mappingsOf(users) }),
        cgroupsPath: sandbox.cgroupsPath,
        resources: makeResources(sandbox.resources ?? {}),
        ...(sandbox.seccomp === undefined ? {} : { seccomp: sandbox.seccomp }),
        maskedPaths,
        readonlyPaths
      }
    }
    return netnsPath === undefined ? spec : joinNetwork(spec, netnsPath)
  })
