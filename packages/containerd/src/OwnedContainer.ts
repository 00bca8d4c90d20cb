/**
 * What a container's record says about whose it is, for those who look at a node from outside of its agents. The labels
 * say which agent and which sandbox; the instance in the record's extension says whether its resource was ever written.
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf"
import { containerLabels, reservedPrefix } from "@fast-sandbox/core/Names"
import { type Instance, InstanceSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Any } from "./Any.ts"
import type { Container } from "./Containers.ts"
import { anchorLabel } from "./ShimGroups.ts"

/** The key of the extension in which a sandbox's container remembers its instance. */
export const instanceExtension = `${reservedPrefix}instance` as const

/** Label of a record that was written only so that a task without one can be ended. */
export const repairLabel = `${reservedPrefix}repair` as const

/** The container says that it is ours, but what it says beyond that can't be read. Another version wrote it. */
export class UnreadableInstance extends Schema.TaggedError<UnreadableInstance>()("UnreadableInstance", {
  containerId: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `container ${this.containerId}: ${this.problem}`
  }
}

/**
 * Whether the Sandbox resource of an instance was written.
 * - Unbound: not as far as its agent knows; the instance waits to be adopted
 * - Bound: the resource had this uid
 * - Unreadable: another version wrote the record
 */
export type Binding =
  | { readonly _tag: "Unbound" }
  | { readonly _tag: "Bound"; readonly resourceUid: string }
  | { readonly _tag: "Unreadable"; readonly problem: string }

/**
 * A container of Fast Sandbox's. What its record does not say is empty.
 * - instance: a sandbox
 * - parked: a slot that nobody has claimed
 * - anchor: holds a shared shim up
 * - repair: left by a repair that did not end
 */
export interface OwnedContainer {
  readonly id: string
  readonly kind: "instance" | "parked" | "anchor" | "repair"
  /** The uid of the agent's Pod. */
  readonly agentUid: string
  readonly agentName: string
  readonly namespace: string
  readonly sandboxName: string
  readonly claimUid: string
  readonly binding: Binding
  /** Where its cgroup is: below a parent that tells one installation on a machine from another. */
  readonly cgroupsPath: string
}

/** Labels that containerd's CRI plugin writes. A CRI container also carries its image's labels, which may say anything. */
const isOfKubelet = (label: string): boolean =>
  label.startsWith("io.cri-containerd.") || label.startsWith("io.kubernetes.")

/** The extensions of an instance's container. */
export const instanceExtensions = (instance: Instance): Readonly<Record<string, Any>> => ({
  [instanceExtension]: { typeUrl: InstanceSchema.typeName, value: toBinary(InstanceSchema, instance) }
})

/** The instance that a container remembers. */
export const instanceOf = (container: Container): Result.Result<Instance, UnreadableInstance> => {
  const extension = container.extensions[instanceExtension]
  const fail = (problem: string) => new UnreadableInstance({ containerId: container.id, problem })
  return extension?.typeUrl !== InstanceSchema.typeName
    ? Result.fail(fail(`it has no extension ${instanceExtension} of type ${InstanceSchema.typeName}`))
    : Result.try({
      try: () => fromBinary(InstanceSchema, extension.value),
      catch: (cause) => fail(cause instanceof Error ? cause.message : String(cause))
    })
}

const bindingOf = (container: Container): Binding =>
  Result.match(instanceOf(container), {
    onFailure: ({ problem }) => ({ _tag: "Unreadable", problem }),
    onSuccess: ({ claim }) =>
      claim === undefined || claim.resourceUid === ""
        ? { _tag: "Unbound" }
        : { _tag: "Bound", resourceUid: claim.resourceUid }
  })

const Linux = Schema.Struct({
  cgroupsPath: Schema.String,
  namespaces: Schema.Array(Schema.Struct({ type: Schema.String, path: Schema.optionalKey(Schema.String) }))
})

const decodeSpec = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ linux: Linux })))

const linuxOf = ({ spec }: Container): typeof Linux.Type | undefined =>
  Option.getOrUndefined(decodeSpec(new TextDecoder().decode(spec?.value)))?.linux

/** The file of the network namespace that a container joins; `undefined` where it has one of its own making. */
export const networkNamespaceOf = (container: Container): string | undefined =>
  linuxOf(container)?.namespaces.find(({ type }) => type === "network")?.path

const kindOf = ({ labels }: Container): OwnedContainer["kind"] =>
  labels[anchorLabel] !== undefined
    ? "anchor"
    : labels[repairLabel] !== undefined
    ? "repair"
    : (labels[containerLabels.sandboxName] ?? "") === ""
    ? "parked"
    : "instance"

/** Whose container it is; `undefined` when it is none of ours. */
export const read = (container: Container): OwnedContainer | undefined => {
  const { id, labels } = container
  const isOurs = labels[containerLabels.managed] === "true" || labels[anchorLabel] !== undefined
  return !isOurs || Object.keys(labels).some(isOfKubelet) ? undefined : {
    id,
    kind: kindOf(container),
    agentUid: labels[containerLabels.agentUid] ?? "",
    agentName: labels[containerLabels.agentName] ?? "",
    namespace: labels[containerLabels.namespace] ?? "",
    sandboxName: labels[containerLabels.sandboxName] ?? "",
    claimUid: labels[containerLabels.claimUid] ?? "",
    binding: bindingOf(container),
    cgroupsPath: linuxOf(container)?.cgroupsPath ?? ""
  }
}
