/**
 * An instance as its container remembers it: labels for those who look from outside (janitor, people), and the whole
 * instance as bytes in one extension, from which a restarted agent takes it up again.
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf"
import type { Any } from "@fast-sandbox/containerd/Any"
import type { Container } from "@fast-sandbox/containerd/Containers"
import { containerLabels, reservedPrefix } from "@fast-sandbox/core/Names"
import { type Instance, InstanceSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Settings } from "./AgentConfig.ts"

const extensionKey = `${reservedPrefix}instance`
const typeUrl = InstanceSchema.typeName

/** Label: the number of the signal that asks the program to end. The image may be gone when it is needed. */
const stopSignalLabel = `${reservedPrefix}stop-signal`

/** The container says that it is ours, but what it says beyond that can't be read. Another version wrote it. */
export class UnreadableRecord extends Schema.TaggedError<UnreadableRecord>()("UnreadableRecord", {
  containerId: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `container ${this.containerId}: ${this.problem}`
  }
}

/** Finds the containers of one agent. */
export const filterOf = (settings: Settings): string =>
  `labels."${containerLabels.managed}"==true,labels."${containerLabels.agentUid}"==${settings.podUid}`

/** The labels of an instance's container. */
export const labelsOf = (
  settings: Settings,
  instance: Instance,
  stopSignal: number
): Readonly<Record<string, string>> => ({
  [containerLabels.managed]: "true",
  [containerLabels.agentName]: settings.podName,
  [containerLabels.agentUid]: settings.podUid,
  [containerLabels.id]: instance.instanceId,
  [containerLabels.namespace]: instance.claim?.namespace ?? "",
  [containerLabels.claimUid]: instance.claim?.claimUid ?? "",
  [containerLabels.sandboxName]: instance.claim?.sandboxName ?? "",
  [stopSignalLabel]: String(stopSignal)
})

/** The extensions of an instance's container. */
export const extensionsOf = (instance: Instance): Readonly<Record<string, Any>> => ({
  [extensionKey]: { typeUrl, value: toBinary(InstanceSchema, instance) }
})

/** What a container remembers. */
export interface Recorded {
  readonly instance: Instance
  readonly stopSignal: number
}

/** Reads what a container remembers. */
export const read = (container: Container): Effect.Effect<Recorded, UnreadableRecord> => {
  const fail = (problem: string) => new UnreadableRecord({ containerId: container.id, problem })
  const extension = container.extensions[extensionKey]
  const stopSignal = Number(container.labels[stopSignalLabel])
  if (extension?.typeUrl !== typeUrl) {
    return Effect.fail(fail(`it has no extension ${extensionKey} of type ${typeUrl}`))
  }
  if (!Number.isInteger(stopSignal)) {
    return Effect.fail(fail(`its label ${stopSignalLabel} is no number`))
  }
  return Effect.try({
    try: () => ({ instance: fromBinary(InstanceSchema, extension.value), stopSignal }),
    catch: (cause) => fail(cause instanceof Error ? cause.message : String(cause))
  }).pipe(
    Effect.filterOrFail(
      ({ instance }) => instance.instanceId === container.id,
      ({ instance }) => fail(`it remembers the instance ${instance.instanceId}`)
    )
  )
}
