/**
 * What the built-in kinds do beyond their schema: derived defaults, rules between fields, fields that updates may not
 * change, and how they are deleted.
 */
import * as ApiStatus from "./ApiStatus.ts"
import type { FieldError } from "./ApiStatus.ts"
import * as Crds from "./Crds.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Metadata from "./Metadata.ts"
import * as Names from "./Names.ts"

/** What one kind does differently from a plain object. */
export interface Strategy {
  readonly nameProblems: (name: string) => ReadonlyArray<string>
  /** Runs on creates and updates, after the schema's defaults. */
  readonly normalize: (object: JsonObject, previous: JsonObject | undefined, now: string) => JsonObject
  readonly validate: (object: JsonObject, previous: JsonObject | undefined) => ReadonlyArray<FieldError>
  /** Seconds between the request to delete and the removal; `undefined`: removed at once. */
  readonly gracePeriodSeconds: (object: JsonObject, requested: number | undefined) => number | undefined
  /** A delete answers with the object instead of a Status. */
  readonly returnsDeleted: boolean
  /** `metadata.generation` is kept. */
  readonly generation: boolean
}

const plain: Strategy = {
  nameProblems: Names.subdomainProblems,
  normalize: (object) => object,
  validate: () => [],
  gracePeriodSeconds: () => undefined,
  returnsDeleted: false,
  generation: false
}

const custom: Strategy = { ...plain, generation: true }

const dataKey = /^[-._a-zA-Z0-9]+$/

/** Values of one ConfigMap or Secret together, in bytes. */
const dataLimit = 1024 * 1024

const dataErrors = (object: JsonObject, fields: ReadonlyArray<string>): ReadonlyArray<FieldError> => {
  const errors: Array<FieldError> = []
  let bytes = 0
  for (const field of fields) {
    for (const [key, value] of Object.entries(Json.objectAt(object, field))) {
      if (!dataKey.test(key)) {
        errors.push(ApiStatus.invalidValue(
          Json.keyed(field, key),
          key,
          "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or " +
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        ))
      }
      if (typeof value === "string") bytes += Buffer.byteLength(value)
    }
  }
  if (bytes > dataLimit) errors.push(ApiStatus.tooLong("", dataLimit))
  return errors
}

const immutableErrors = (
  object: JsonObject,
  previous: JsonObject | undefined,
  fields: ReadonlyArray<string>
): ReadonlyArray<FieldError> => {
  if (previous === undefined || Json.at(previous, "immutable") !== true) return []
  return ["immutable", ...fields].flatMap((field) =>
    Json.equal(Json.at(object, field), Json.at(previous, field))
      ? []
      : [ApiStatus.forbiddenField(field, "field is immutable when `immutable` is set")]
  )
}

const configMap: Strategy = {
  ...plain,
  validate: (object, previous) => [
    ...dataErrors(object, ["data", "binaryData"]),
    ...immutableErrors(object, previous, ["data", "binaryData"])
  ]
}

const secret: Strategy = {
  ...plain,
  normalize: (object) => {
    const plainText = Json.objectAt(object, "stringData")
    if (Json.at(object, "stringData") === undefined) return object
    const encoded = Object.entries(plainText).flatMap(([key, value]) =>
      typeof value === "string" ? [[key, Buffer.from(value).toString("base64")] as const] : []
    )
    return {
      ...Json.omit(object, "stringData"),
      data: { ...Json.objectAt(object, "data"), ...Object.fromEntries(encoded) }
    }
  },
  validate: (object, previous) => [
    ...dataErrors(object, ["data"]),
    ...(previous === undefined || Json.equal(Json.at(object, "type"), Json.at(previous, "type"))
      ? []
      : [ApiStatus.invalidValue("type", Json.at(object, "type"), "field is immutable")]),
    ...immutableErrors(object, previous, ["data"])
  ]
}

const namespace: Strategy = {
  ...plain,
  nameProblems: Names.labelProblems,
  normalize: (object, previous) => {
    const labelled = Metadata.withMetadata(object, {
      labels: { ...Json.objectAt(object, "metadata", "labels"), "kubernetes.io/metadata.name": Metadata.nameOf(object) }
    })
    if (previous !== undefined) return labelled
    return { ...labelled, spec: { finalizers: ["kubernetes"] }, status: { phase: "Active" } }
  },
  returnsDeleted: true
}

const containersOf = (pod: JsonObject): ReadonlyArray<readonly [string, Json.Json]> =>
  ["containers", "initContainers"].flatMap((field) =>
    Json.arrayAt(pod, "spec", field).map((container, index) => [Json.item(`spec.${field}`, index), container] as const)
  )

const withPullPolicy = (container: Json.Json): Json.Json => {
  if (!Json.isObject(container) || Json.own(container, "imagePullPolicy") !== undefined) return container
  const image = Json.stringAt(container, "image") ?? ""
  const last = image.split("/").at(-1) ?? ""
  const floating = !last.includes("@") && (!last.includes(":") || last.endsWith(":latest"))
  return { ...container, imagePullPolicy: floating ? "Always" : "IfNotPresent" }
}

const qualityOfService = (pod: JsonObject): string => {
  const resources = containersOf(pod).map(([, container]) => Json.objectAt(container, "resources"))
  const none = resources.every((entry) =>
    Object.keys(Json.objectAt(entry, "limits")).length === 0 &&
    Object.keys(Json.objectAt(entry, "requests")).length === 0
  )
  if (none) return "BestEffort"
  const guaranteed = resources.every((entry) =>
    ["cpu", "memory"].every((name) => {
      const limit = Json.at(entry, "limits", name)
      return limit !== undefined && Json.equal(Json.at(entry, "requests", name) ?? limit, limit)
    })
  )
  return guaranteed ? "Guaranteed" : "Burstable"
}

const isFinished = (pod: JsonObject): boolean =>
  ["Succeeded", "Failed"].includes(Json.stringAt(pod, "status", "phase") ?? "")

const withoutImages = (containers: Json.Json | undefined): Json.Json =>
  Json.isArray(containers)
    ? containers.map((container) =>
      Json.isObject(container) ? Json.omit(Json.omit(container, "image"), "resources") : container
    )
    : []

/** Fields of a Pod's spec that may change while it lives. */
const mutableFields = [
  "activeDeadlineSeconds",
  "tolerations",
  "terminationGracePeriodSeconds",
  "schedulingGates",
  "ephemeralContainers",
  "nodeName"
]

/** What of a Pod's spec must stay as it is. */
const withoutMutable = (pod: JsonObject): Json.Json => {
  const spec = Json.objectAt(pod, "spec")
  return {
    ...mutableFields.reduce(Json.omit, spec),
    containers: withoutImages(spec["containers"]),
    initContainers: withoutImages(spec["initContainers"])
  }
}

const pod: Strategy = {
  ...plain,
  generation: true,
  returnsDeleted: true,
  normalize: (object, previous) => {
    const spec = Json.objectAt(object, "spec")
    const next: Record<string, Json.Json> = { ...spec }
    for (const field of ["containers", "initContainers"]) {
      const list = spec[field]
      if (Json.isArray(list)) next[field] = list.map(withPullPolicy)
    }
    const account = Json.stringAt(spec, "serviceAccountName") ?? Json.stringAt(spec, "serviceAccount")
    if (account !== undefined) {
      next["serviceAccountName"] = account
      next["serviceAccount"] = account
    }
    const normal = { ...object, spec: next }
    return previous === undefined
      ? { ...normal, status: { phase: "Pending", qosClass: qualityOfService(normal) } }
      : normal
  },
  validate: (object, previous) => {
    const errors: Array<FieldError> = []
    if (Json.arrayAt(object, "spec", "containers").length === 0) errors.push(ApiStatus.required("spec.containers"))
    const names = new Set<string>()
    for (const [path, container] of containersOf(object)) {
      const name = Json.stringAt(container, "name") ?? ""
      if (name === "") errors.push(ApiStatus.required(Json.child(path, "name")))
      else {for (const problem of Names.labelProblems(name)) {
          errors.push(ApiStatus.invalidValue(Json.child(path, "name"), name, problem))
        }}
      if (names.has(name)) errors.push(ApiStatus.duplicate(Json.child(path, "name"), name))
      names.add(name)
      if ((Json.stringAt(container, "image") ?? "") === "") errors.push(ApiStatus.required(Json.child(path, "image")))
    }
    if (previous !== undefined) {
      const before = Json.at(previous, "spec", "nodeName")
      const bound = before === undefined || Json.equal(before, Json.at(object, "spec", "nodeName"))
      if (!bound || !Json.equal(withoutMutable(object), withoutMutable(previous))) {
        errors.push(ApiStatus.forbiddenField(
          "spec",
          "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        ))
      }
    }
    return errors
  },
  gracePeriodSeconds: (object, requested) => {
    const unbound = (Json.stringAt(object, "spec", "nodeName") ?? "") === ""
    if (unbound || isFinished(object)) return undefined
    const seconds = requested ?? Json.numberAt(object, "spec", "terminationGracePeriodSeconds") ?? 30
    return seconds > 0 ? seconds : undefined
  }
}

const event: Strategy = {
  ...plain,
  validate: (object) => {
    const involved = Json.stringAt(object, "involvedObject", "namespace") ?? ""
    const own = Metadata.namespaceOf(object)
    return involved === own || (involved === "" && own === "default")
      ? []
      : [ApiStatus.invalidValue("involvedObject.namespace", involved, "does not match event.namespace")]
  }
}

const role: Strategy = { ...plain, nameProblems: Names.segmentProblems }

const binding: Strategy = {
  ...role,
  // who may change a binding must not thereby reach another role
  validate: (object, previous) =>
    previous === undefined || Json.equal(Json.at(object, "roleRef"), Json.at(previous, "roleRef"))
      ? []
      : [ApiStatus.invalidValue("roleRef", Json.at(object, "roleRef"), "cannot change roleRef")]
}

const lease: Strategy = {
  ...plain,
  validate: (object) => {
    const errors: Array<FieldError> = []
    const duration = Json.numberAt(object, "spec", "leaseDurationSeconds")
    if (duration !== undefined && duration <= 0) {
      errors.push(ApiStatus.invalidValue("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    }
    const transitions = Json.numberAt(object, "spec", "leaseTransitions")
    if (transitions !== undefined && transitions < 0) {
      errors.push(ApiStatus.invalidValue("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    }
    return errors
  }
}

const definition: Strategy = {
  ...plain,
  generation: true,
  normalize: (object, previous, now) => {
    const filled = Crds.defaultCrd(object)
    if (Crds.validateCrd(filled).length > 0) return filled
    const finalizers = Metadata.finalizersOf(filled)
    const kept = finalizers.includes(Crds.crdFinalizer) || Metadata.isDeleting(filled)
      ? filled
      : Metadata.withMetadata(filled, { finalizers: [...finalizers, Crds.crdFinalizer] })
    return { ...kept, status: Crds.establishedStatus(kept, previous, now) }
  },
  validate: (object, previous) => [
    ...Crds.validateCrd(object),
    ...(previous === undefined ? [] : Crds.validateCrdUpdate(object, previous))
  ]
}

const strategies: ReadonlyMap<string, Strategy> = new Map([
  ["configmaps", configMap],
  ["secrets", secret],
  ["namespaces", namespace],
  ["pods", pod],
  ["events", event],
  ["services", { ...plain, nameProblems: Names.labelProblems, returnsDeleted: true }],
  ["serviceaccounts", { ...plain, returnsDeleted: true }],
  ["leases.coordination.k8s.io", lease],
  ["roles.rbac.authorization.k8s.io", role],
  ["clusterroles.rbac.authorization.k8s.io", role],
  ["rolebindings.rbac.authorization.k8s.io", binding],
  ["clusterrolebindings.rbac.authorization.k8s.io", binding],
  ["customresourcedefinitions.apiextensions.k8s.io", definition]
])

/** The strategy of a resource by its storage key. */
export const strategyOf = (key: string, isCustom: boolean): Strategy => isCustom ? custom : strategies.get(key) ?? plain
