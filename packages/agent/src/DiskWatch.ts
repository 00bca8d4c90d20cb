/**
 * Keeps sandboxes within what they may write to their root file systems. The file systems under containerd's snapshots
 * seldom have quotas, so it is done as the kubelet does it: now and then it is counted what each has written, and one
 * that has written too much is killed, with the reason DiskExceeded. Between two counts a sandbox can go beyond its limit
 * by what its disk takes in that time.
 */
import { isNotFound } from "@fast-sandbox/containerd/ContainerdError"
import { RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { AgentConfig } from "./AgentConfig.ts"
import { type Entry, Instances } from "./Instances.ts"
import { SandboxContainer } from "./SandboxContainer.ts"
import { diskBytesOf } from "./SandboxSecurity.ts"

/** A count walks a sandbox's own files: microseconds for most, and one at a time. A fast disk takes 5 GB meanwhile. */
const pause = "5 seconds"

/** Counts for as long as the agent runs. */
export const layer: Layer.Layer<
  never,
  never,
  AgentConfig | Instances | RuntimeProfile | SandboxContainer | Snapshots
> = Layer.effectDiscard(Effect.gen(function*() {
  const { limits } = yield* AgentConfig
  const instances = yield* Instances
  const { snapshotter } = yield* RuntimeProfile
  const sandboxes = yield* SandboxContainer
  const snapshots = yield* Snapshots

  const hold = Effect.fnUntraced(function*(entry: Entry) {
    const { sizeBytes } = yield* snapshots.usage(entry.containerId, { snapshotter })
    const mostBytes = diskBytesOf(limits, entry.instance.spec)
    if (sizeBytes > mostBytes) {
      yield* Effect.logInfo("a sandbox has written more than it may", { instance: entry.id, sizeBytes, mostBytes })
      entry.isOverDisk = true
      yield* sandboxes.kill(entry.containerId)
    }
  })

  const count = Effect.suspend(() =>
    Effect.forEach(
      instances.all().filter(({ instance }) => instance.state === InstanceState.RUNNING),
      (entry) =>
        hold(entry).pipe(
          // It has ended meanwhile.
          Effect.catchIf(isNotFound, () => Effect.void),
          Effect.catch((error) =>
            Effect.logDebug("what a sandbox has written was not counted", { instance: entry.id }, error.message)
          )
        ),
      { discard: true }
    )
  )

  yield* count.pipe(Effect.repeat(Schedule.spaced(pause)), Effect.forkScoped)
}))
