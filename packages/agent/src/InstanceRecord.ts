/**
 * What an agent's own containers remember beside their instance (see `OwnedContainer`): labels for those who look from
 * outside (janitor, people), and how the program is asked to end.
 */
import type { Container, NewContainer } from "@fast-sandbox/containerd/Containers"
import * as OwnedContainer from "@fast-sandbox/containerd/OwnedContainer"
import { containerLabels, reservedPrefix } from "@fast-sandbox/core/Names"
import type { Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Effect from "effect/Effect"
import type { Settings } from "./AgentConfig.ts"

/** Label: the number of the signal that asks the program to end. The image may be gone when it is needed. */
const stopSignalLabel = `${reservedPrefix}stop-signal`

/** Finds the containers of one agent. */
export const filterOf = (settings: Settings): string =>
  `labels."${containerLabels.managed}"==true,labels."${containerLabels.agentUid}"==${settings.podUid}`

/** What a container remembers. */
export interface Recorded {
  readonly instance: Instance
  readonly stopSignal: number
}

/** The labels of a slot that nobody has claimed. */
export const slotLabelsOf = (settings: Settings, stopSignal: number): Readonly<Record<string, string>> => ({
  [containerLabels.managed]: "true",
  [containerLabels.agentName]: settings.podName,
  [containerLabels.agentUid]: settings.podUid,
  [stopSignalLabel]: String(stopSignal)
})

const labelsOf = (settings: Settings, { instance, stopSignal }: Recorded): Readonly<Record<string, string>> => ({
  ...slotLabelsOf(settings, stopSignal),
  [containerLabels.id]: instance.instanceId,
  [containerLabels.namespace]: instance.claim?.namespace ?? "",
  [containerLabels.claimUid]: instance.claim?.claimUid ?? "",
  [containerLabels.sandboxName]: instance.claim?.sandboxName ?? ""
})

/** What the container of an instance remembers. */
export const recordOf = (settings: Settings, recorded: Recorded): Pick<NewContainer, "labels" | "extensions"> => ({
  labels: labelsOf(settings, recorded),
  extensions: OwnedContainer.instanceExtensions(recorded.instance)
})

/** Whether it is a slot that knows of no instance. */
export const isSlot = (container: Container): boolean =>
  OwnedContainer.read(container)?.kind === "parked" &&
  container.extensions[OwnedContainer.instanceExtension] === undefined

/** Reads what a container remembers; of a slot, what `claim` says that it does not know yet. */
export const read = Effect.fnUntraced(function*(
  container: Container,
  claim: Recorded | undefined
): Effect.fn.Return<Recorded, OwnedContainer.UnreadableInstance> {
  const fail = (problem: string) => new OwnedContainer.UnreadableInstance({ containerId: container.id, problem })
  if (claim !== undefined && isSlot(container)) {
    return claim
  }
  const instance = yield* Effect.fromResult(OwnedContainer.instanceOf(container))
  const stopSignal = Number(container.labels[stopSignalLabel])
  if (!Number.isInteger(stopSignal)) {
    return yield* fail(`its label ${stopSignalLabel} is no number`)
  }
  return { instance, stopSignal }
})
