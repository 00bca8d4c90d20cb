/**
 * A CustomResourceDefinition that uses what definitions can say.
 */
import type { Json, JsonObject } from "@fast-sandbox/local/apiserver/Json"

export const group = "test.fast.io"

/** A definition under a plural of the test's own, so that tests don't meet. */
export const widgetDefinition = (plural = "widgets", extraSpec: JsonObject = {}): JsonObject => {
  const kind = `${plural.slice(0, 1).toUpperCase()}${plural.slice(1, -1)}`
  const schema: Json = {
    type: "object",
    description: "A thing with settings.",
    required: ["spec"],
    properties: {
      spec: {
        type: "object",
        required: ["image"],
        "x-kubernetes-validations": [
          {
            rule: "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
            message: "minimum may not exceed maximum"
          },
          {
            rule: "self.image == oldSelf.image",
            message: "image is immutable",
            fieldPath: ".image",
            reason: "FieldValueForbidden"
          }
        ],
        properties: {
          image: { type: "string", minLength: 1, description: "What to run." },
          replicas: { type: "integer", default: 1, minimum: 0, maximum: 10 },
          minimum: { type: "integer" },
          maximum: { type: "integer" },
          policy: { type: "string", enum: ["Manual", "Auto"], default: "Manual" },
          at: { type: "string", format: "date-time" },
          port: { "x-kubernetes-int-or-string": true },
          name: { type: "string", pattern: "^[a-z]+$", maxLength: 8 },
          note: { type: "string", nullable: true },
          ports: {
            type: "array",
            maxItems: 3,
            items: { type: "integer", minimum: 1, maximum: 65535 },
            "x-kubernetes-list-type": "set"
          },
          envs: {
            type: "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            items: {
              type: "object",
              required: ["name"],
              properties: { name: { type: "string" }, value: { type: "string", default: "" } }
            }
          },
          labels: { type: "object", additionalProperties: { type: "string" } },
          free: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
          ...extraSpec
        }
      },
      status: {
        type: "object",
        properties: { phase: { type: "string" }, replicas: { type: "integer" }, selector: { type: "string" } }
      }
    }
  }
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: "Namespaced",
      names: { plural, kind, shortNames: [`${plural.slice(0, 3)}x`] },
      versions: [{
        name: "v1alpha1",
        served: true,
        storage: true,
        schema: { openAPIV3Schema: schema },
        subresources: {
          status: {},
          scale: {
            specReplicasPath: ".spec.replicas",
            statusReplicasPath: ".status.replicas",
            labelSelectorPath: ".status.selector"
          }
        },
        selectableFields: [{ jsonPath: ".spec.policy" }],
        additionalPrinterColumns: [
          { name: "Phase", type: "string", jsonPath: ".status.phase" },
          { name: "Image", type: "string", jsonPath: ".spec.image", priority: 1 },
          { name: "Replicas", type: "integer", jsonPath: ".spec.replicas" },
          { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" }
        ]
      }]
    }
  }
}

/** An object of the definition. */
export const widget = (name: string, spec: JsonObject, plural = "widgets"): JsonObject => ({
  apiVersion: `${group}/v1alpha1`,
  kind: `${plural.slice(0, 1).toUpperCase()}${plural.slice(1, -1)}`,
  metadata: { name },
  spec
})

/** The path of a namespace's objects of the definition. */
export const widgetsPath = (namespace: string, plural = "widgets"): string =>
  `/apis/${group}/v1alpha1/namespaces/${namespace}/${plural}`
