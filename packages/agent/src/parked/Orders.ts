/**
 * What a parked slot's init is told, and what it answers. The other side, and the layout, is in `native/init.c`.
 *
 * A slot serves an instance when all that the instance's spec asks for is either handed over (the process, the host
 * name), written into the cgroup (limits), or already so in the slot: {@link fixedPart} is the rest.
 */
import * as Capabilities from "@fast-sandbox/containerd/Capabilities"
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"

const magic = 0x31425346
const headerBytes = 64
const limitBytes = 24
const wordBytes = 4

/** RLIMIT_* in the order of their numbers: include/uapi/asm-generic/resource.h. */
const rlimitNames = [
  "RLIMIT_CPU",
  "RLIMIT_FSIZE",
  "RLIMIT_DATA",
  "RLIMIT_STACK",
  "RLIMIT_CORE",
  "RLIMIT_RSS",
  "RLIMIT_NPROC",
  "RLIMIT_NOFILE",
  "RLIMIT_MEMLOCK",
  "RLIMIT_AS",
  "RLIMIT_LOCKS",
  "RLIMIT_SIGPENDING",
  "RLIMIT_MSGQUEUE",
  "RLIMIT_NICE",
  "RLIMIT_RTPRIO",
  "RLIMIT_RTTIME"
]

/** What runtimes set when a spec says nothing. */
const defaultUmask = 0o022

/** The orders by which a slot becomes the container that the spec describes. */
export const encode = ({ hostname, process }: Pick<OciSpec.Spec, "hostname" | "process">): Buffer => {
  const { capabilities, rlimits, user } = process
  const groups = user.additionalGids ?? []
  const strings = Buffer.from(
    [hostname, process.cwd, ...process.args, ...process.env].map((text) => `${text}\0`).join("")
  )
  const stringsAt = headerBytes + groups.length * wordBytes + rlimits.length * limitBytes
  const orders = Buffer.alloc(stringsAt + strings.length)
  const words = [
    magic,
    orders.length - headerBytes,
    user.uid,
    user.gid,
    user.umask ?? defaultUmask,
    groups.length,
    rlimits.length,
    process.args.length,
    process.env.length
  ]
  for (const [index, word] of words.entries()) {
    orders.writeUInt32LE(word, index * wordBytes)
  }
  for (const [index, set] of [capabilities.bounding, capabilities.effective, capabilities.permitted].entries()) {
    orders.writeBigUInt64LE(Capabilities.maskOf(set), 40 + index * 8)
  }
  for (const [index, gid] of groups.entries()) {
    orders.writeUInt32LE(gid, headerBytes + index * wordBytes)
  }
  const limitsAt = headerBytes + groups.length * wordBytes
  for (const [index, { hard, soft, type }] of rlimits.entries()) {
    const at = limitsAt + index * limitBytes
    // An unknown name becomes a number that the kernel refuses.
    orders.writeUInt32LE(rlimitNames.indexOf(type) >>> 0, at)
    orders.writeBigUInt64LE(BigInt(soft), at + 8)
    orders.writeBigUInt64LE(BigInt(hard), at + 16)
  }
  strings.copy(orders, stringsAt)
  return orders
}

/** The steps of init in the order of `enum step`; what went wrong in one is told by its name. */
const steps = [
  "going",
  "reading its orders",
  "setting the host name",
  "leaving the slot",
  "setting limits",
  "entering the working directory",
  "setting groups",
  "setting the user",
  "cutting capabilities",
  "closing the filter",
  "executing the program"
] as const

/** How init ends when its agent is gone before it has given orders. */
export const noOrdersExitCode = 250

/** What init was about to do when it gave up. */
export type Step = typeof steps[number]

/**
 * What became of orders.
 * - Executed: the program runs, or has already ended
 * - Refused: init could not do it and has ended; `errno` is the kernel's
 * - Died: init ended before it had executed anything
 * - Silent: init has not said so in time, and may still do any of that
 */
export type Report =
  | { readonly _tag: "Executed" }
  | { readonly _tag: "Refused"; readonly step: Step; readonly errno: number }
  | { readonly _tag: "Died" }
  | { readonly _tag: "Silent" }

const reportBytes = 8
const going = 0

/** Reads all that init said until the connection ended. */
export const decode = (said: Buffer): Report => {
  let hasGone = false
  for (let at = 0; at + reportBytes <= said.length; at += reportBytes) {
    const step = said.readUInt32LE(at)
    if (step !== going) {
      return { _tag: "Refused", step: steps[step] ?? "reading its orders", errno: said.readUInt32LE(at + wordBytes) }
    }
    hasGone = true
  }
  return hasGone ? { _tag: "Executed" } : { _tag: "Died" }
}

/**
 * What is neither in the orders, nor in the cgroup's limits, nor different for any two containers. Who may be served has
 * the same; the filter is the same for all.
 */
export const fixedPart = (spec: OciSpec.Spec): string => {
  const { annotations: _annotations, hostname: _hostname, linux, process, ...rest } = spec
  const { args: _args, capabilities: _capabilities, cwd: _cwd, env: _env, rlimits: _, user: _user, ...held } = process
  const { cgroupsPath: _path, resources, seccomp: _seccomp, ...confined } = linux
  const { cpu: _cpu, memory, pids: _pids, ...devices } = resources
  return JSON.stringify({ ...rest, held, confined, devices, limited: Object.keys(memory ?? {}) })
}

/** Where init finds itself and its agent. In memory, below the container's own `/dev`: it leaves no trace on the image. */
const slotPath = "/dev/.fsb"

/** Names in a slot's directory. */
export const slotFiles = { init: "init", socket: "ctl" } as const

/** What init needs to become the program, beyond what the program may have. It gives up what it was not ordered to keep. */
const initCapabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN"]

/** System calls of init that a program is refused; init adds the refusal before it becomes the program. */
const initSystemCalls = ["sethostname", "umount2"] as const

/** One of them. */
export type InitSystemCall = typeof initSystemCalls[number]

const isOfInit = (name: string): boolean => initSystemCalls.some((own) => own === name)

const withInitSystemCalls = (seccomp: OciSpec.Seccomp): OciSpec.Seccomp => ({
  ...seccomp,
  syscalls: [
    ...seccomp.syscalls.map((rule) => ({
      ...rule,
      names: rule.names.filter((name) => !isOfInit(name))
    })),
    { names: initSystemCalls, action: "SCMP_ACT_ALLOW" }
  ]
})

/** The spec of a slot that may become any container of `spec`'s fixed part. `directory` is the slot's own, on the node. */
export const parkedSpec = (spec: OciSpec.Spec, directory: string): OciSpec.Spec => {
  const capabilities = [...new Set([...spec.process.capabilities.bounding, ...initCapabilities])]
  return {
    ...spec,
    process: {
      ...spec.process,
      args: [`${slotPath}/${slotFiles.init}`, slotPath],
      env: [],
      cwd: "/",
      user: { uid: 0, gid: 0 },
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      rlimits: []
    },
    mounts: [...spec.mounts, {
      destination: slotPath,
      type: "bind",
      source: directory,
      options: ["bind", "ro", "nosuid", "nodev"]
    }],
    linux: {
      ...spec.linux,
      ...(spec.linux.seccomp === undefined ? {} : { seccomp: withInitSystemCalls(spec.linux.seccomp) })
    }
  }
}
