/**
 * The kinds that the server knows without a CustomResourceDefinition. Their field types are generated; what the
 * declarations leave out stands here: how lists merge, short names, printed columns, selectable fields, defaults.
 */
import { builtInColumns } from "./BuiltInColumns.ts"
import { builtInDefinitions } from "./gen/BuiltInDefinitions.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import { keyOf, type ResourceType } from "./ResourceType.ts"
import * as Structural from "./Schema/Structural.ts"

/** `map` lists: model and field to their merge keys; strategic merge patch uses the first key. */
const mapLists: Record<string, ReadonlyArray<string>> = {
  "V1PodSpec.containers": ["name"],
  "V1PodSpec.initContainers": ["name"],
  "V1PodSpec.ephemeralContainers": ["name"],
  "V1PodSpec.volumes": ["name"],
  "V1PodSpec.imagePullSecrets": ["name"],
  "V1PodSpec.hostAliases": ["ip"],
  "V1PodSpec.topologySpreadConstraints": ["topologyKey", "whenUnsatisfiable"],
  "V1PodSpec.schedulingGates": ["name"],
  "V1PodSpec.resourceClaims": ["name"],
  "V1Container.env": ["name"],
  "V1Container.ports": ["containerPort", "protocol"],
  "V1Container.volumeMounts": ["mountPath"],
  "V1Container.volumeDevices": ["devicePath"],
  "V1EphemeralContainer.env": ["name"],
  "V1EphemeralContainer.ports": ["containerPort", "protocol"],
  "V1EphemeralContainer.volumeMounts": ["mountPath"],
  "V1EphemeralContainer.volumeDevices": ["devicePath"],
  "V1ResourceRequirements.claims": ["name"],
  "V1ObjectMeta.ownerReferences": ["uid"],
  "V1PodStatus.conditions": ["type"],
  "V1PodStatus.podIPs": ["ip"],
  "V1PodStatus.hostIPs": ["ip"],
  "V1NamespaceStatus.conditions": ["type"],
  "V1NodeStatus.conditions": ["type"],
  "V1NodeStatus.addresses": ["type"],
  "V1ServiceStatus.conditions": ["type"],
  "V1ServiceSpec.ports": ["port", "protocol"],
  "V1ServiceAccount.secrets": ["name"],
  "V1CustomResourceDefinitionStatus.conditions": ["type"]
}

/** `set` lists of scalars. */
const setLists = new Set(["V1ObjectMeta.finalizers", "V1NamespaceSpec.finalizers", "V1NodeSpec.podCIDRs"])

/** Structs that apply treats as one value. */
const atomicMaps = new Set([
  "V1LabelSelector",
  "V1ObjectReference",
  "V1LocalObjectReference",
  "V1ObjectFieldSelector",
  "V1SecretKeySelector",
  "V1ConfigMapKeySelector",
  "V1ResourceFieldSelector",
  "V1NodeSelector",
  "V1NodeSelectorTerm",
  "V1OwnerReference"
])

/** Maps that apply treats as one value. */
const atomicFields = new Set(["V1PodSpec.nodeSelector", "V1ServiceSpec.selector"])

/** Defaults that the real server fills in, by model and field. */
const defaults: Record<string, Json.Json> = {
  "V1PodSpec.restartPolicy": "Always",
  "V1PodSpec.terminationGracePeriodSeconds": 30,
  "V1PodSpec.dnsPolicy": "ClusterFirst",
  "V1PodSpec.securityContext": {},
  "V1PodSpec.schedulerName": "default-scheduler",
  "V1PodSpec.enableServiceLinks": true,
  "V1PodSpec.preemptionPolicy": "PreemptLowerPriority",
  "V1Pod.spec": {},
  "V1Container.terminationMessagePath": "/dev/termination-log",
  "V1Container.terminationMessagePolicy": "File",
  "V1Container.resources": {},
  "V1ContainerPort.protocol": "TCP",
  "V1Probe.timeoutSeconds": 1,
  "V1Probe.periodSeconds": 10,
  "V1Probe.successThreshold": 1,
  "V1Probe.failureThreshold": 3,
  "V1HTTPGetAction.scheme": "HTTP",
  "V1ObjectFieldSelector.apiVersion": "v1",
  "V1SecretVolumeSource.defaultMode": 420,
  "V1ConfigMapVolumeSource.defaultMode": 420,
  "V1DownwardAPIVolumeSource.defaultMode": 420,
  "V1ProjectedVolumeSource.defaultMode": 420,
  "V1HostPathVolumeSource.type": "",
  "V1Secret.type": "Opaque",
  "V1ServiceSpec.type": "ClusterIP",
  "V1ServiceSpec.sessionAffinity": "None",
  "V1ServiceSpec.internalTrafficPolicy": "Cluster",
  "V1ServicePort.protocol": "TCP"
}

/** Fields with a closed set of values, by model and field. */
const enumerations: Record<string, ReadonlyArray<string>> = {
  "V1PodSpec.restartPolicy": ["Always", "OnFailure", "Never"],
  "V1PodSpec.dnsPolicy": ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
  "V1Container.imagePullPolicy": ["Always", "IfNotPresent", "Never"],
  "V1Container.terminationMessagePolicy": ["File", "FallbackToLogsOnError"],
  "V1ContainerPort.protocol": ["TCP", "UDP", "SCTP"],
  "V1ServicePort.protocol": ["TCP", "UDP", "SCTP"],
  "V1ServiceSpec.type": ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
}

const annotated = (model: string): JsonObject => {
  const definition = Json.objectAt(builtInDefinitions, model)
  const properties: Record<string, Json.Json> = {}
  for (const [field, schema] of Object.entries(Json.objectAt(definition, "properties"))) {
    const path = `${model}.${field}`
    const keys = mapLists[path]
    const enumeration = enumerations[path]
    properties[field] = {
      ...(Json.isObject(schema) ? schema : {}),
      ...(keys === undefined ? {} : {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": keys,
        "x-kubernetes-patch-merge-key": keys[0] ?? "",
        "x-kubernetes-patch-strategy": "merge"
      }),
      ...(setLists.has(path) ? { "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge" } : {}),
      ...(atomicFields.has(path) ? { "x-kubernetes-map-type": "atomic" } : {}),
      ...(defaults[path] === undefined ? {} : { default: defaults[path] }),
      ...(enumeration === undefined ? {} : { enum: enumeration })
    }
  }
  return {
    ...definition,
    properties,
    ...(atomicMaps.has(model) ? { "x-kubernetes-map-type": "atomic" } : {})
  }
}

const models = new Map<string, Structural.StructuralSchema>()

/** The compiled schema of a generated model, compiled at its first use. */
export const modelSchema = (model: string): Structural.StructuralSchema => {
  const known = models.get(model)
  if (known !== undefined) return known
  const compiled = Structural.compile(
    annotated(model),
    (reference) => modelSchema(reference.replace("#/definitions/", ""))
  )
  models.set(model, compiled)
  return compiled
}

/** The schema of `metadata`, the same for all kinds. */
export const metadataSchema = (): Structural.StructuralSchema => modelSchema("V1ObjectMeta")

/** The annotated definitions of a model and all that it refers to, for OpenAPI documents. */
export const modelDefinitions = (model: string): ReadonlyMap<string, JsonObject> => {
  const found = new Map<string, JsonObject>()
  const visit = (name: string): void => {
    if (found.has(name)) return
    const definition = annotated(name)
    found.set(name, definition)
    const text = JSON.stringify(definition)
    for (const match of text.matchAll(/"#\/definitions\/([^"]+)"/g)) visit(match[1] ?? "")
  }
  visit(model)
  return found
}

const field = (...path: ReadonlyArray<string>) => (object: JsonObject): string => {
  const value = Json.at(object, ...path)
  return value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value)
}

interface Declaration {
  readonly model: string
  readonly group?: string
  readonly kind?: string
  readonly plural: string
  readonly shortNames?: ReadonlyArray<string>
  readonly categories?: ReadonlyArray<string>
  readonly clusterScoped?: true
  readonly status?: true
  readonly virtual?: true
  readonly storedAs?: string
  readonly fields?: Record<string, (object: JsonObject) => string>
}

const eventFields = (involved: string, reportingComponent: string) => ({
  ...Object.fromEntries(
    ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"].map((name) => [
      `${involved}.${name}`,
      field(involved, name)
    ])
  ),
  reason: field("reason"),
  type: field("type"),
  reportingComponent: field(reportingComponent),
  source: (object: JsonObject) => field("source", "component")(object) || field(reportingComponent)(object)
})

const declarations: ReadonlyArray<Declaration> = [
  { model: "V1ConfigMap", plural: "configmaps", shortNames: ["cm"] },
  {
    model: "CoreV1Event",
    kind: "Event",
    plural: "events",
    shortNames: ["ev"],
    fields: eventFields("involvedObject", "reportingComponent")
  },
  {
    model: "V1Namespace",
    plural: "namespaces",
    shortNames: ["ns"],
    clusterScoped: true,
    status: true,
    fields: { "status.phase": field("status", "phase") }
  },
  {
    model: "V1Node",
    plural: "nodes",
    shortNames: ["no"],
    clusterScoped: true,
    status: true,
    fields: { "spec.unschedulable": (object) => String(Json.at(object, "spec", "unschedulable") === true) }
  },
  {
    model: "V1Pod",
    plural: "pods",
    shortNames: ["po"],
    categories: ["all"],
    status: true,
    fields: {
      "spec.nodeName": field("spec", "nodeName"),
      "spec.restartPolicy": field("spec", "restartPolicy"),
      "spec.schedulerName": field("spec", "schedulerName"),
      "spec.serviceAccountName": field("spec", "serviceAccountName"),
      "spec.hostNetwork": (object) => String(Json.at(object, "spec", "hostNetwork") === true),
      "status.phase": field("status", "phase"),
      "status.podIP": field("status", "podIP"),
      "status.nominatedNodeName": field("status", "nominatedNodeName")
    }
  },
  { model: "V1Secret", plural: "secrets", fields: { type: field("type") } },
  { model: "V1ServiceAccount", plural: "serviceaccounts", shortNames: ["sa"] },
  {
    model: "V1Service",
    plural: "services",
    shortNames: ["svc"],
    categories: ["all"],
    status: true,
    fields: { "spec.clusterIP": field("spec", "clusterIP"), "spec.type": field("spec", "type") }
  },
  { model: "V1Lease", group: "coordination.k8s.io", plural: "leases" },
  {
    model: "EventsV1Event",
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    shortNames: ["ev"],
    storedAs: "events",
    fields: eventFields("regarding", "reportingController")
  },
  {
    model: "V1CustomResourceDefinition",
    group: "apiextensions.k8s.io",
    plural: "customresourcedefinitions",
    shortNames: ["crd", "crds"],
    categories: ["api-extensions"],
    clusterScoped: true,
    status: true
  },
  { model: "V1Role", group: "rbac.authorization.k8s.io", plural: "roles" },
  { model: "V1RoleBinding", group: "rbac.authorization.k8s.io", plural: "rolebindings" },
  { model: "V1ClusterRole", group: "rbac.authorization.k8s.io", plural: "clusterroles", clusterScoped: true },
  {
    model: "V1ClusterRoleBinding",
    group: "rbac.authorization.k8s.io",
    plural: "clusterrolebindings",
    clusterScoped: true
  },
  {
    model: "V1TokenReview",
    group: "authentication.k8s.io",
    plural: "tokenreviews",
    clusterScoped: true,
    virtual: true
  },
  {
    model: "V1SelfSubjectReview",
    group: "authentication.k8s.io",
    plural: "selfsubjectreviews",
    clusterScoped: true,
    virtual: true
  },
  {
    model: "V1SubjectAccessReview",
    group: "authorization.k8s.io",
    plural: "subjectaccessreviews",
    clusterScoped: true,
    virtual: true
  },
  {
    model: "V1SelfSubjectAccessReview",
    group: "authorization.k8s.io",
    plural: "selfsubjectaccessreviews",
    clusterScoped: true,
    virtual: true
  }
]

/** All built-in resources. */
export const builtInTypes = (): ReadonlyArray<ResourceType> =>
  declarations.map((declaration): ResourceType => {
    const group = declaration.group ?? ""
    const kind = declaration.kind ?? declaration.model.replace(/^V1/, "")
    return {
      group,
      version: "v1",
      kind,
      listKind: `${kind}List`,
      plural: declaration.plural,
      singular: kind.toLowerCase(),
      shortNames: declaration.shortNames ?? [],
      categories: declaration.categories ?? [],
      namespaced: declaration.clusterScoped !== true,
      key: declaration.storedAs ?? keyOf(group, declaration.plural),
      storageVersion: "v1",
      schema: modelSchema(declaration.model),
      status: declaration.status === true,
      scale: undefined,
      columns: builtInColumns(declaration.storedAs ?? declaration.plural),
      selectableFields: new Map(Object.entries(declaration.fields ?? {})),
      custom: false,
      virtual: declaration.virtual === true,
      deprecation: undefined
    }
  })

/** The model behind a built-in resource, for its OpenAPI document. */
export const modelOf = (group: string, kind: string): string | undefined =>
  declarations.find((declaration) =>
    (declaration.group ?? "") === group && (declaration.kind ?? declaration.model.replace(/^V1/, "")) === kind
  )?.model
