/**
 * A sandbox as the Fast-Path API shows it.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt"
import * as Instant from "@fast-sandbox/core/Instant"
import type { Sandbox } from "@fast-sandbox/core/Sandbox"
import type { CreateResponseSchema, SandboxInfoSchema } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as Option from "effect/Option"

/** A sandbox as the API shows it. */
export type SandboxInfo = MessageInitShape<typeof SandboxInfoSchema>

const encoder = new TextEncoder()

const timestamp = (text: string | undefined): Timestamp | undefined =>
  Option.getOrUndefined(Option.map(Instant.parseMillis(text), timestampFromMs))

const startupOf = ({ status }: Sandbox) =>
  status?.startup === undefined
    ? {}
    : { startup: { tier: status.startup.tier, steps: status.startup.steps.map((step) => ({ ...step })) } }

/** The whole sandbox. */
export const project = (sandbox: Sandbox): SandboxInfo => {
  const { metadata, spec, status = {} } = sandbox
  const startedAt = timestamp(status.startedAt)
  const finishedAt = timestamp(status.finishedAt)
  const created = Option.getOrElse(Instant.parseMillis(metadata.creationTimestamp), () => 0)
  return {
    sandboxId: status.sandboxID ?? "",
    phase: metadata.deletionTimestamp === undefined ? status.phase ?? "Pending" : "Deleting",
    agentPod: status.assignedPod ?? "",
    endpoints: [...status.endpoints ?? []],
    createdAt: BigInt(Math.floor(created / 1000)),
    image: spec.image,
    poolRef: spec.poolRef,
    sandboxName: metadata.name ?? "",
    namespace: metadata.namespace ?? "",
    nodeName: status.nodeName ?? "",
    ...(status.exitCode === undefined ? {} : { exitCode: status.exitCode }),
    signal: status.signal ?? 0,
    reason: status.reason ?? "",
    message: status.message ?? "",
    ...(startedAt === undefined ? {} : { startedAt }),
    ...(finishedAt === undefined ? {} : { finishedAt }),
    restarts: status.restarts ?? 0,
    labels: { ...metadata.labels },
    ...startupOf(sandbox),
    resource: encoder.encode(JSON.stringify(sandbox))
  }
}

/** The answer to its create. */
export const created = (sandbox: Sandbox): MessageInitShape<typeof CreateResponseSchema> => ({
  sandboxId: sandbox.status?.sandboxID ?? "",
  agentPod: sandbox.status?.assignedPod ?? "",
  endpoints: [...sandbox.status?.endpoints ?? []],
  sandboxName: sandbox.metadata.name ?? "",
  namespace: sandbox.metadata.namespace ?? "",
  ...startupOf(sandbox)
})
