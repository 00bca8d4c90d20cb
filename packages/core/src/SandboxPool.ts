/**
 * The SandboxPool resource (`sandbox.fast.io/v1alpha1`): how many agent Pods there are, what each of them may run, and
 * what they keep ready.
 */
import * as Schema from "effect/Schema"
import * as ImageName from "./ImageName.ts"
import * as Names from "./Names.ts"
import { Dns, Egress } from "./NetworkPolicy.ts"
import { Condition, ObjectMeta } from "./ObjectMeta.ts"
import { limits, QuantityText, SandboxResources, SecurityContext } from "./Sandbox.ts"

/** Defaults of a SandboxPool's spec. */
export const defaults = {
  maxSandboxesPerPod: 5,
  runtimeType: "container",
  network: "private",
  logRate: "16Mi"
} as const

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** What keeps sandboxes apart from the node: its kernel, gVisor's in user space, or one of their own in a machine. */
export const RuntimeType = Schema.Literals(["container", "gvisor", "kata"])

/** container, gvisor or kata */
export type RuntimeType = typeof RuntimeType.Type

/** How many agents there are. Agents are counted for the pool's bounds, free slots for the buffer's. */
export const PoolCapacity = Schema.Struct({
  poolMin: Schema.optionalKey(Count.annotate({ description: "Agent Pods that are always there.", default: 0 })),
  poolMax: Schema.optionalKey(Count.annotate({ description: "Most agent Pods; 0: no limit.", default: 0 })),
  bufferMin: Schema.optionalKey(Count.annotate({ description: "Free slots that are kept at least.", default: 0 })),
  bufferMax: Schema.optionalKey(
    Count.annotate({ description: "Free slots above which empty agents are removed; 0: as bufferMin.", default: 0 })
  )
})

/** How many agents there are. */
export type PoolCapacity = typeof PoolCapacity.Type

/** More images than this are no longer kept warm but kept. */
export const maxWarmImages = 100

/** An image that the pool's nodes hold ready. */
export const WarmImage = Schema.Struct({
  image: Schema.NonEmptyString.check(Schema.isMaxLength(limits.imageLength)),
  parked: Schema.optionalKey(Count.annotate({ description: "Parked slots of this image on each agent.", default: 0 }))
})

/** A PodTemplateSpec; the parts that the controller does not touch pass through as they are. */
export const PodTemplate = Schema.Struct({
  metadata: Schema.optionalKey(Schema.Struct({
    labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
    annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
  })),
  spec: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown))
})

/** What holds for every sandbox of a pool. What it forbids, a sandbox can't allow itself. */
export const SandboxSecurity = Schema.Struct({
  ...SecurityContext.fields,
  hostUsers: Schema.optionalKey(
    Schema.Boolean.annotate({
      description: "Sandboxes share the node's users: root in a sandbox is root of the node.",
      default: false
    })
  )
})

/** What the operator wants. */
export const SandboxPoolSpec = Schema.Struct({
  capacity: Schema.optionalKey(PoolCapacity),
  maxSandboxesPerPod: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })).annotate({
      description: "Slots of each agent.",
      default: defaults.maxSandboxesPerPod
    })
  ),
  runtimeType: Schema.optionalKey(
    RuntimeType.annotate({
      description: "What keeps sandboxes apart from the node: its kernel, gVisor's, or a virtual machine's.",
      default: defaults.runtimeType
    })
  ),
  runtimeBinary: Schema.optionalKey(
    Schema.String.check(Schema.isMaxLength(limits.pathLength)).annotate({
      description: "Absolute path of the OCI runtime on the nodes, where not the default."
    })
  ),
  agentTemplate: Schema.optionalKey(PodTemplate.annotate({ description: "What agent Pods are made from." })),
  warmImages: Schema.optionalKey(
    Schema.Array(WarmImage).check(Schema.isMaxLength(maxWarmImages)).annotate({
      description: "Images that are kept ready."
    })
  ),
  sandboxResources: Schema.optionalKey(
    SandboxResources.annotate({ description: "Default and upper limit of each sandbox." })
  ),
  logRate: Schema.optionalKey(
    QuantityText.annotate({
      description:
        "What the log of each sandbox grows by at most, in bytes a second; 0: no limit. A program that prints more waits.",
      default: defaults.logRate
    })
  ),
  sandboxSecurity: Schema.optionalKey(
    SandboxSecurity.annotate({ description: "Who sandboxes' programs are and what they may write to." })
  ),
  network: Schema.optionalKey(
    Schema.Literals(["private", "pod", "none"]).annotate({
      description: "private: each sandbox has a network of its own; pod: they share the agent's; none: loopback only.",
      default: defaults.network
    })
  ),
  egress: Schema.optionalKey(
    Egress.annotate({ description: "Where sandboxes with a private network may connect to." })
  ),
  dns: Schema.optionalKey(Dns.annotate({ description: "How sandboxes with a private network find names." }))
})

/** What the operator wants. */
export type SandboxPoolSpec = typeof SandboxPoolSpec.Type

/** An image that is kept warm: its normal name, and how many slots of it are to be parked on each agent. */
export interface KeptWarm {
  readonly image: string
  readonly parked: number
}

/** What a pool keeps warm, as its agents are told and tell it. */
export const keptWarm = ({ warmImages = [] }: Pick<SandboxPoolSpec, "warmImages">): ReadonlyArray<KeptWarm> =>
  warmImages.map(({ image, parked = 0 }) => ({ image: ImageName.normalizeOrKeep(image), parked }))

/** What is there. Written by the controller only. */
export const SandboxPoolStatus = Schema.Struct({
  observedGeneration: Schema.optionalKey(Schema.Int),
  replicas: Schema.optionalKey(Count.annotate({ description: "Agent Pods that exist." })),
  desired: Schema.optionalKey(Count.annotate({ description: "Agent Pods that are wanted." })),
  ready: Schema.optionalKey(Count.annotate({ description: "Agents that answer." })),
  idle: Schema.optionalKey(Count.annotate({ description: "Agents that hold no sandbox." })),
  busy: Schema.optionalKey(Count.annotate({ description: "Agents that hold one or more." })),
  slots: Schema.optionalKey(Schema.Struct({
    used: Count,
    total: Count,
    parked: Count
  })),
  slotsUsage: Schema.optionalKey(Schema.String.annotate({ description: "used/total, for people." })),
  selector: Schema.optionalKey(Schema.String.annotate({ description: "Label selector of the pool's agent Pods." })),
  images: Schema.optionalKey(Schema.Array(Schema.Struct({
    image: Schema.String,
    nodes: Count,
    ready: Count,
    message: Schema.optionalKey(Schema.String)
  }))),
  conditions: Schema.optionalKey(Schema.Array(Condition))
})

/** What is there. */
export type SandboxPoolStatus = typeof SandboxPoolStatus.Type

/** The SandboxPool resource. */
export const SandboxPool = Schema.Struct({
  apiVersion: Schema.Literal(Names.apiVersion),
  kind: Schema.Literal("SandboxPool"),
  metadata: ObjectMeta,
  spec: SandboxPoolSpec,
  status: Schema.optionalKey(SandboxPoolStatus)
})

/** The SandboxPool resource. */
export type SandboxPool = typeof SandboxPool.Type
