/**
 * Discovery documents: which groups, versions and resources exist, in the old form and in the aggregated one.
 */
import type { Json, JsonObject } from "./Json.ts"
import { groupVersion, type ResourceType, verbsOf } from "./ResourceType.ts"

/** The media type of aggregated discovery. */
export const aggregatedMediaType = (version: string): string =>
  `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`

/** The version of aggregated discovery that an `Accept` header wants first, if any. */
export const wantsAggregated = (accept: string | undefined): string | undefined => {
  for (const entry of (accept ?? "").split(",")) {
    const text = entry.replaceAll(" ", "")
    if (text.includes("as=APIGroupDiscoveryList") && text.startsWith("application/json")) {
      const version = /;v=(v2(?:beta1)?)(?:;|$)/.exec(text)?.[1]
      if (version !== undefined) return version
    } else if (text === "application/json" || text === "*/*") return undefined
  }
  return undefined
}

const groupsOf = (types: ReadonlyArray<ResourceType>): ReadonlyArray<string> =>
  [...new Set(types.map((type) => type.group))].filter((group) => group !== "")

const rank = (version: string): readonly [number, number, number] => {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version)
  if (match === null) return [-1, 0, 0]
  const stability = match[2] === undefined ? 2 : match[2] === "beta" ? 1 : 0
  return [stability, Number(match[1]), Number(match[3] ?? 0)]
}

/** Stable before beta before alpha, newest first, as upstream orders versions. */
const byPriority = (left: string, right: string): number => {
  const [a, b] = [rank(left), rank(right)]
  return b[0] - a[0] || b[1] - a[1] || b[2] - a[2]
}

/** The versions of a group, preferred first. */
export const versionsOf = (types: ReadonlyArray<ResourceType>, group: string): ReadonlyArray<string> =>
  [...new Set(types.filter((type) => type.group === group).map((type) => type.version))].toSorted(byPriority)

/** `/api`. */
export const coreVersions = (address: string): JsonObject => ({
  kind: "APIVersions",
  versions: ["v1"],
  serverAddressByClientCIDRs: [{ clientCIDR: "0.0.0.0/0", serverAddress: address }]
})

const groupBody = (types: ReadonlyArray<ResourceType>, name: string): JsonObject => {
  const versions = versionsOf(types, name).map((version) => ({ groupVersion: `${name}/${version}`, version }))
  return { name, versions, preferredVersion: versions[0] ?? null }
}

/** `/apis/GROUP`; `undefined` if there is no such group. */
export const group = (types: ReadonlyArray<ResourceType>, name: string): JsonObject | undefined =>
  groupsOf(types).includes(name) ? { kind: "APIGroup", apiVersion: "v1", ...groupBody(types, name) } : undefined

/** `/apis`. */
export const groups = (types: ReadonlyArray<ResourceType>): JsonObject => ({
  kind: "APIGroupList",
  apiVersion: "v1",
  groups: groupsOf(types).map((name) => groupBody(types, name))
})

interface Subresource {
  readonly name: string
  readonly kind: { readonly group: string; readonly version: string; readonly kind: string }
  readonly verbs: ReadonlyArray<string>
}

const subresourcesOf = (type: ResourceType): ReadonlyArray<Subresource> => {
  const own = { group: type.group, version: type.version, kind: type.kind }
  const verbs = ["get", "patch", "update"]
  return [
    ...(type.key === "namespaces" ? [{ name: "finalize", kind: own, verbs: ["update"] }] : []),
    ...(type.scale === undefined
      ? []
      : [{ name: "scale", kind: { group: "autoscaling", version: "v1", kind: "Scale" }, verbs }]),
    ...(type.status ? [{ name: "status", kind: own, verbs }] : [])
  ]
}

const optional = (key: string, values: ReadonlyArray<string>): JsonObject =>
  values.length === 0 ? {} : { [key]: values }

/** `/api/v1` and `/apis/GROUP/VERSION`; `undefined` if nothing is served there. */
export const resources = (
  types: ReadonlyArray<ResourceType>,
  groupName: string,
  version: string
): JsonObject | undefined => {
  const served = types.filter((type) => type.group === groupName && type.version === version)
  if (served.length === 0) return undefined
  return {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion: groupVersion(groupName, version),
    resources: served.flatMap((type) =>
      [resource(type)].concat(subresourcesOf(type).map((sub) => subresource(type, sub)))
    )
  }
}

const resource = (type: ResourceType): JsonObject => ({
  name: type.plural,
  singularName: type.singular,
  namespaced: type.namespaced,
  kind: type.kind,
  verbs: verbsOf(type),
  ...optional("shortNames", type.shortNames),
  ...optional("categories", type.categories)
})

const subresource = (type: ResourceType, sub: Subresource): JsonObject => ({
  name: `${type.plural}/${sub.name}`,
  singularName: "",
  namespaced: type.namespaced,
  ...(sub.kind.group === type.group ? {} : { group: sub.kind.group, version: sub.kind.version }),
  kind: sub.kind.kind,
  verbs: sub.verbs
})

const aggregatedResource = (type: ResourceType): JsonObject => {
  const subresources = subresourcesOf(type)
  return {
    resource: type.plural,
    responseKind: { group: type.group, version: type.version, kind: type.kind },
    scope: type.namespaced ? "Namespaced" : "Cluster",
    singularResource: type.singular,
    verbs: verbsOf(type),
    ...optional("shortNames", type.shortNames),
    ...optional("categories", type.categories),
    ...(subresources.length === 0 ? {} : {
      subresources: subresources.map((sub): Json => ({
        subresource: sub.name,
        responseKind: sub.kind,
        verbs: sub.verbs
      }))
    })
  }
}

/** The aggregated document of the core group (`/api`) or of all others (`/apis`). */
export const aggregated = (
  types: ReadonlyArray<ResourceType>,
  part: "core" | "groups",
  apiVersion: string
): JsonObject => ({
  kind: "APIGroupDiscoveryList",
  apiVersion: `apidiscovery.k8s.io/${apiVersion}`,
  metadata: {},
  items: (part === "core" ? [""] : groupsOf(types)).map((groupName): Json => ({
    metadata: { name: groupName, creationTimestamp: null },
    versions: versionsOf(types, groupName).map((version): Json => ({
      version,
      freshness: "Current",
      resources: types.filter((type) => type.group === groupName && type.version === version).map(aggregatedResource)
    }))
  }))
})
