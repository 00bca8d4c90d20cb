/**
 * The definitions of Fast Sandbox's own resources. `infra/crds` holds them as files, written by `npm run generate:crds`.
 */
import * as Core from "@fast-sandbox/core/Sandbox"
import * as CorePool from "@fast-sandbox/core/SandboxPool"
import * as Crd from "./Crd.ts"
import * as FastSandbox from "./FastSandbox.ts"
import type { CustomResourceDefinition } from "./Kinds.ts"
import type { Draft } from "./KubeObject.ts"

/** What makes a sandbox the one it is. A change of it would need another sandbox, so there is none. */
const immutableFields: ReadonlyArray<keyof Core.SandboxSpec> = [
  "image",
  "poolRef",
  "command",
  "args",
  "envs",
  "workingDir",
  "exposedPorts",
  "consistencyMode",
  "tty",
  "stdin",
  "resources",
  "securityContext"
]

/** Rules of fields would not see a field come or go, so they are rules of the spec. */
const immutable = (field: string) => ({
  rule: `has(self.${field}) == has(oldSelf.${field}) && (!has(self.${field}) || self.${field} == oldSelf.${field})`,
  message: `${field} can't be changed; create another sandbox`,
  fieldPath: `.${field}`
})

const sandboxRules = [
  ...immutableFields.map(immutable),
  {
    rule: "!(has(self.ttlSeconds) && has(self.expireTime))",
    message: "ttlSeconds and expireTime exclude each other",
    fieldPath: ".ttlSeconds"
  },
  {
    rule: "!has(self.envs) || self.envs.all(env, !(has(env.value) && has(env.valueFrom)))",
    message: "an environment variable has either a value or a valueFrom",
    fieldPath: ".envs"
  },
  {
    rule: "!has(self.envs) || self.envs.all(env, !has(env.valueFrom) || " +
      "has(env.valueFrom.secretKeyRef) != has(env.valueFrom.configMapKeyRef))",
    message: "valueFrom names either a secretKeyRef or a configMapKeyRef",
    fieldPath: ".envs"
  }
]

const poolRules = [{
  rule: "!has(self.capacity) || !has(self.capacity.poolMin) || !has(self.capacity.poolMax) || " +
    "self.capacity.poolMax == 0 || self.capacity.poolMin <= self.capacity.poolMax",
  message: "poolMin must not be above poolMax",
  fieldPath: ".capacity"
}, {
  rule: "!has(self.capacity) || !has(self.capacity.bufferMin) || !has(self.capacity.bufferMax) || " +
    "self.capacity.bufferMax == 0 || self.capacity.bufferMin <= self.capacity.bufferMax",
  message: "bufferMin must not be above bufferMax",
  fieldPath: ".capacity"
}]

const age = { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" } as const

/** `sandboxes.sandbox.fast.io` */
export const sandbox: Draft<CustomResourceDefinition> = Crd.make({
  ...FastSandbox.Sandbox,
  description: "A program that runs in a container on one of its pool's agents.",
  shortNames: ["sbx"],
  spec: Core.SandboxSpec.annotate({ "x-kubernetes-validations": sandboxRules }),
  status: Core.SandboxStatus,
  printerColumns: [
    { name: "Phase", type: "string", jsonPath: ".status.phase" },
    { name: "Image", type: "string", jsonPath: ".spec.image" },
    { name: "Pool", type: "string", jsonPath: ".spec.poolRef" },
    { name: "Agent", type: "string", jsonPath: ".status.assignedPod" },
    { name: "Endpoints", type: "string", jsonPath: ".status.endpoints", priority: 1 },
    age
  ]
})

/** `sandboxpools.sandbox.fast.io` */
export const sandboxPool: Draft<CustomResourceDefinition> = Crd.make({
  ...FastSandbox.SandboxPool,
  description: "A group of agents that run sandboxes.",
  shortNames: ["sbxpool"],
  spec: CorePool.SandboxPoolSpec.annotate({ "x-kubernetes-validations": poolRules }),
  status: CorePool.SandboxPoolStatus,
  printerColumns: [
    { name: "Ready", type: "integer", jsonPath: ".status.ready" },
    { name: "Desired", type: "integer", jsonPath: ".status.desired" },
    { name: "Slots", type: "string", jsonPath: ".status.slotsUsage" },
    age
  ],
  scale: {
    specReplicasPath: ".spec.capacity.poolMin",
    statusReplicasPath: ".status.replicas",
    labelSelectorPath: ".status.selector"
  }
})

/** All definitions. */
export const all: ReadonlyArray<Draft<CustomResourceDefinition>> = [sandbox, sandboxPool]
