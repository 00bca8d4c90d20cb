/**
 * containerd's own calls, made one after the other by a bare client with stock settings: a lease for each container, a
 * shim of its own, runc. The spec is the one that our sandboxes get, so the isolation is the same.
 */
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import { Leases } from "@fast-sandbox/containerd/Leases"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { seccompProfile } from "@fast-sandbox/containerd/SeccompProfile"
import * as ShimRuntime from "@fast-sandbox/containerd/ShimRuntime"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Command from "../Command.ts"
import { type Common, type Contender, ContenderFailed, withoutBackground } from "./Contender.ts"

const SIGKILL = 9

/** Longer than any start, shorter than a forgotten lease should stay. */
const leaseLife = "10 minutes"

const name = "peer.containerd.bare"

const failed = (problem: string) => new ContenderFailed({ contender: name, problem })

const reported = <A>(calls: Effect.Effect<A, ContainerdError | OciSpec.NoCommand>) =>
  Effect.mapError(calls, ({ message }) => failed(message))

/** Against the containerd whose services are given; its image is loaded if it is not there. */
export const make = Effect.fnUntraced(function*({ archive, image, program }: Common, cgroupParent: string) {
  const containers = yield* Containers
  const images = yield* Images
  const leases = yield* Leases
  const snapshots = yield* Snapshots
  const tasks = yield* Tasks
  const files = yield* FileSystem.FileSystem
  yield* images.load(files.stream(archive))
  const { chainId, config } = yield* images.resolve(image)
  const runtime = ShimRuntime.make({ binary: yield* Command.find("runc") })

  return {
    name,
    boundary: "request: lease, snapshot, container, task create and start, one after the other (runc, a shim each)",
    ...withoutBackground,
    start: (id) =>
      Effect.gen(function*() {
        const lease = yield* leases.create(id, { expiresAfter: leaseLife })
        const rootfs = yield* snapshots.prepare(id, chainId, { leaseId: lease.id })
        const spec = yield* Effect.fromResult(OciSpec.make({
          image: config,
          args: program,
          hostname: id,
          cgroupsPath: `${cgroupParent}/${id}`,
          seccomp: seccompProfile
        }))
        yield* containers.create({ id, runtime, spec })
        yield* tasks.create({ containerId: id, rootfs, runtime })
        yield* tasks.start({ containerId: id })
        return name
      }).pipe(reported),
    remove: (id) =>
      Effect.gen(function*() {
        yield* tasks.killAll(id, SIGKILL)
        yield* tasks.wait({ containerId: id })
        yield* tasks.delete({ containerId: id })
        yield* snapshots.remove(id, { leaseId: id })
        yield* containers.delete(id)
        yield* leases.delete(id)
      }).pipe(reported)
  } satisfies Contender
})
