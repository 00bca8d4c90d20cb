/**
 * The OCI runtime spec of a sandbox, as a pure function of the image's configuration and of what the sandbox asks for.
 */

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
}

/** Everything {@link make} needs. */
export interface SandboxSpec extends SandboxProcess {
  readonly image: ImageRunConfig
  readonly hostname: string
  /** As the hierarchy wants it, e.g. `/fast-sandbox/<id>`, or `slice:prefix:name` with systemd. */
  readonly cgroupsPath: string
  readonly resources?: Resources | undefined
  /** A network namespace to join (`/run/netns/x`); a new one with nothing but loopback (down) when absent. */
  readonly netnsPath?: string | undefined
  readonly mounts?: ReadonlyArray<SpecMount> | undefined
  readonly readonlyRoot?: boolean | undefined
  /** See `Seccomp.defaultProfile`; none when absent. */
  readonly seccomp?: Seccomp | undefined
  /** Those of the `ShimRuntime`, and one's own. */
  readonly annotations?: Readonly<Record<string, string>> | undefined
}
