/** Makes what an agent would have left on a node, on a private containerd. */
import { create } from "@bufbuild/protobuf"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as OwnedContainer from "@fast-sandbox/containerd/OwnedContainer"
import * as ShimRuntime from "@fast-sandbox/containerd/ShimRuntime"
import { Snapshots, volatile } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { containerLabels } from "@fast-sandbox/core/Names"
import { InstanceSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { busyboxName } from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Schedule } from "effect"
import { randomUUID } from "node:crypto"

export const nodeName = "node-1"

/** The places of the test's node. */
export const places = Effect.map(PrivateContainerd, ({ cgroupsPath, directory }) => ({
  cgroupParent: cgroupsPath,
  logDirectory: `${directory}/logs`,
  agentsDirectory: `${directory}/agents`
}))

export const newId = Effect.sync(() => randomUUID() as string)

/** Whose the container is. `state`: how far its start came. */
export interface Leftover {
  readonly agentName: string
  readonly agentUid: string
  readonly sandboxName?: string
  readonly resourceUid?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly runtime?: ShimRuntime.ShimRuntime
  readonly state?: "recorded" | "created" | "running"
}

/** A container as an agent makes it, with its log. */
export const container = Effect.fnUntraced(function*(left: Leftover) {
  const id = yield* newId
  const { daemon } = yield* PrivateContainerd
  const { cgroupParent, logDirectory } = yield* places
  const fileSystem = yield* FileSystem.FileSystem
  const image = yield* (yield* Images).resolve(busyboxName)
  const runtime = left.runtime ?? ShimRuntime.make({ binary: `${daemon.runtimeDirectory}/crun` })
  const spec = yield* Effect.fromResult(OciSpec.make({
    image: image.config,
    hostname: "sandbox",
    args: ["sleep", "1000"],
    cgroupsPath: `${cgroupParent}/${id}`,
    annotations: runtime.annotations,
    user: { uid: 0, gid: 0 }
  }))
  yield* (yield* Containers).create({
    id,
    runtime,
    spec,
    labels: {
      [containerLabels.managed]: "true",
      [containerLabels.agentName]: left.agentName,
      [containerLabels.agentUid]: left.agentUid,
      [containerLabels.id]: id,
      [containerLabels.namespace]: "default",
      [containerLabels.claimUid]: `claim-${id}`,
      [containerLabels.sandboxName]: left.sandboxName ?? "",
      ...left.labels
    },
    extensions: OwnedContainer.instanceExtensions(create(InstanceSchema, {
      instanceId: id,
      claim: {
        namespace: "default",
        sandboxName: left.sandboxName ?? "",
        claimUid: `claim-${id}`,
        resourceUid: left.resourceUid ?? ""
      }
    }))
  })
  yield* fileSystem.makeDirectory(`${logDirectory}/${id}`, { recursive: true })
  yield* fileSystem.writeFileString(`${logDirectory}/${id}/00000001.log`, "")
  if (left.state === "recorded") {
    return id
  }
  const mounts = yield* (yield* Snapshots).prepare(id, image.chainId)
  const tasks = yield* Tasks
  yield* tasks.create({ containerId: id, rootfs: volatile(mounts), runtime })
  if (left.state !== "created") {
    yield* tasks.start({ containerId: id })
  }
  return id
})

/** An agent's Pod on the node. */
export const agent = Effect.fnUntraced(function*(name: string) {
  const { metadata } = yield* (yield* KubeClient).create(Pod, {
    metadata: { name, namespace: "default" },
    spec: { nodeName, containers: [{ name: "agent" }] }
  })
  return { agentName: name, agentUid: metadata.uid }
})

/** A Sandbox resource. Returns its uid. */
export const sandbox = Effect.fnUntraced(function*(name: string) {
  const { metadata } = yield* (yield* KubeClient).create(FastSandbox.Sandbox, {
    metadata: { name, namespace: "default" },
    spec: { image: busyboxName, poolRef: "pool" }
  })
  return metadata.uid ?? ""
})

/** Waits until something holds, for at most thirty seconds: a shim that was interrupted may need ten. */
export const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  effect.pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: holds }),
    Effect.timeout("30 seconds")
  )
