/**
 * Where the API keeps things: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
 */
import { apiVersion, type KubeKind, type KubeObject } from "../KubeObject.ts"

/** Values of a query string; what is undefined is left out. */
export interface Query {
  readonly [name: string]: string | number | boolean | undefined
}

/** The path of a collection (no `name`), an object, or its subresource. Without `namespace`: of all namespaces. */
export const pathOf = <A extends KubeObject>(
  kind: KubeKind<A>,
  namespace: string | undefined,
  name?: string | undefined,
  subresource?: "status" | "scale" | undefined
): string => {
  const root = kind.group === "" ? "/api" : "/apis"
  const scope = kind.namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : ""
  const object = name === undefined ? "" : `/${encodeURIComponent(name)}`
  return `${root}/${apiVersion(kind)}${scope}/${kind.plural}${object}${
    subresource === undefined ? "" : `/${subresource}`
  }`
}

/** The path with its query. */
export const withQuery = (path: string, query: Query): string => {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) {
      search.set(name, String(value))
    }
  }
  return search.size === 0 ? path : `${path}?${search}`
}
