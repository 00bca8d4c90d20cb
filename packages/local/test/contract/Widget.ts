/**
 * A custom resource that only the contract suite uses.
 */
import * as Crd from "@fast-sandbox/kube/Crd"
import type { Condition } from "@fast-sandbox/kube/Kinds"
import type { KubeKind, KubeObject, StoredMeta } from "@fast-sandbox/kube/KubeObject"
import { Schema } from "effect"

const Spec = Schema.Struct({
  color: Schema.NonEmptyString,
  size: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 })).annotate({ default: 3 })),
  replicas: Schema.optionalKey(Schema.Int),
  tags: Schema.optionalKey(Schema.Array(Schema.String).check(Schema.isMaxLength(8), Schema.isUnique())),
  origin: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(64)))
}).annotate({
  "x-kubernetes-validations": [{
    rule: "has(self.origin) == has(oldSelf.origin) && (!has(self.origin) || self.origin == oldSelf.origin)",
    message: "origin can't be changed",
    fieldPath: ".origin"
  }]
})

const Status = Schema.Struct({
  phase: Schema.optionalKey(Schema.String),
  replicas: Schema.optionalKey(Schema.Int),
  selector: Schema.optionalKey(Schema.String)
})

export interface Widget extends KubeObject {
  readonly metadata: StoredMeta
  readonly spec: typeof Spec.Type
  readonly status?: (typeof Status.Type & { readonly conditions?: ReadonlyArray<Condition> | undefined }) | undefined
}

export const Widget: KubeKind<Widget> = {
  group: "contract.fast.io",
  version: "v1",
  kind: "Widget",
  plural: "widgets",
  namespaced: true
}

export const definition = Crd.make({
  ...Widget,
  description: "Something to test an API server with.",
  shortNames: ["wd"],
  spec: Spec,
  status: Status,
  printerColumns: [{ name: "Color", type: "string", jsonPath: ".spec.color" }],
  scale: {
    specReplicasPath: ".spec.replicas",
    statusReplicasPath: ".status.replicas",
    labelSelectorPath: ".status.selector"
  }
})
