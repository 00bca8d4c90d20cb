/**
 * Looks at the machine and says what a one-machine stack would miss on it, and the command that mends it. It changes
 * nothing.
 */
import * as ContainerdClient from "@fast-sandbox/containerd/ContainerdClient"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import { Introspection } from "@fast-sandbox/containerd/Introspection"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import * as RuntimeProfile from "@fast-sandbox/containerd/RuntimeProfile"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { statfs } from "node:fs/promises"
import { userInfo } from "node:os"
import { join } from "node:path"
import type * as Home from "./Home.ts"
import * as MachineContainerd from "./MachineContainerd.ts"
import * as Programs from "./Programs.ts"

/**
 * One thing that was looked at.
 * - ok: as it should be
 * - slow: it works, a start takes longer than it could
 * - missing: nothing runs without it
 */
export interface Finding {
  readonly check: string
  readonly state: "ok" | "slow" | "missing"
  readonly detail: string
  /** A command, or what to do. Absent where nothing is to be done. */
  readonly fix?: string | undefined
}

/** Free space below which images and logs soon fill the disk. */
const wantedFreeBytes = 2 * 1024 ** 3

const root = Effect.sync((): Finding => {
  const { uid, username } = userInfo()
  return uid === 0
    ? { check: "root", state: "ok", detail: "containerd can be driven" }
    : { check: "root", state: "missing", detail: `you are ${username}`, fix: "sudo fsb-ctl up" }
})

const program = (name: string, purpose: string, state: "missing" | "slow", debianPackage = name) =>
  Effect.map(Programs.find(name), (path): Finding =>
    Option.match(path, {
      onNone: () => ({ check: name, state, detail: `not found: ${purpose}`, fix: `apt-get install ${debianPackage}` }),
      onSome: (path) => ({ check: name, state: "ok", detail: path })
    }))

const overlay = Effect.map(MachineSetup.hasOverlay, (hasOverlay): Finding =>
  hasOverlay
    ? { check: "overlayfs", state: "ok", detail: "the kernel has it" }
    : { check: "overlayfs", state: "missing", detail: "the kernel does not have it", fix: "modprobe overlay" })

const cgroups = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const has = (path: string) => files.exists(path).pipe(Effect.orElseSucceed(() => false))
  const version = (yield* has("/sys/fs/cgroup/cgroup.controllers"))
    ? "v2"
    : (yield* has("/sys/fs/cgroup/memory")) && (yield* has("/sys/fs/cgroup/cpu"))
    ? "v1"
    : undefined
  return version === undefined
    ? {
      check: "cgroups",
      state: "missing",
      detail: "no hierarchy at /sys/fs/cgroup",
      fix: "mount -t cgroup2 none /sys/fs/cgroup"
    } satisfies Finding
    : { check: "cgroups", state: "ok", detail: version } satisfies Finding
})

const disk = (home: Home.Home) =>
  Effect.promise(async (): Promise<Finding> => {
    let directory = home.directory
    for (;;) {
      const found = await statfs(directory).catch(() => undefined)
      if (found !== undefined) {
        const free = found.bavail * found.bsize
        const detail = `${(free / 1024 ** 3).toFixed(1)} GiB free below ${directory}`
        return free >= wantedFreeBytes
          ? { check: "disk", state: "ok", detail }
          : { check: "disk", state: "slow", detail, fix: "free some space, or choose another --home" }
      }
      // The home may not be there yet; its file system is that of the folder it will be in.
      directory = join(directory, "..")
    }
  })

/** What containerd itself says, when one runs; before that, the runtimes can only be found. */
const containerd = Effect.fnUntraced(function*(home: Home.Home) {
  const daemon = yield* ContainerdDaemon.find(home.containerdDirectory)
  const socket = daemon?.socket ?? ContainerdClient.defaultSocket
  if (!(yield* MachineContainerd.answers(socket))) {
    return [{
      check: "containerd runs",
      state: "ok",
      detail: "not now; 'fsb-ctl up' starts one of its own"
    }] satisfies ReadonlyArray<Finding>
  }
  const profile = yield* RuntimeProfile.detect({ runtimeDirectory: daemon?.runtimeDirectory }).pipe(
    Effect.provide(Introspection.layer.pipe(
      Layer.provide(ContainerdClient.ContainerdClient.layer({ socket, namespace: "default" }))
    )),
    Effect.result
  )
  const problem = profile._tag === "Failure" ? profile.failure.message : profile.success.runtime.problem
  if (profile._tag === "Failure" || problem !== undefined) {
    return [{
      check: "OCI runtime",
      state: "missing",
      detail: problem ?? "",
      fix: "apt-get install crun runc"
    }] satisfies ReadonlyArray<Finding>
  }
  const { containerdVersion, optimisations, runtime } = profile.success
  return [
    { check: "containerd runs", state: "ok", detail: `${containerdVersion} at ${socket}` },
    { check: "OCI runtime", state: "ok", detail: `${runtime.name} ${runtime.version} (${runtime.path})` },
    ...optimisations.map(({ isOn, name, reason }): Finding => ({
      check: `faster: ${name}`,
      state: isOn ? "ok" : "slow",
      detail: reason
    }))
  ] satisfies ReadonlyArray<Finding>
})

/** Everything that was looked at, in the order in which a person would. */
export const report = (home: Home.Home): Effect.Effect<ReadonlyArray<Finding>, never, MachineSetup.System> =>
  Effect.gen(function*() {
    const findings: ReadonlyArray<Finding> = [
      yield* root,
      yield* program("containerd", "it runs the containers", "missing"),
      yield* program("crun", "runc is used instead, 15 ms slower", "slow"),
      yield* program("runc", "needed where crun can't be used", "slow"),
      yield* program("nft", "sandboxes have loopback only, and publish no ports", "slow", "nftables"),
      yield* overlay,
      yield* cgroups,
      yield* disk(home)
    ]
    return [...findings, ...(yield* containerd(home))]
  })
