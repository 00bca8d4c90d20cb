/**
 * From a request to an answer: paths, verbs, options and forms. It knows HTTP's words but not its sockets.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Access } from "./Access.ts"
import type * as Admission from "./Admission.ts"
import * as ApiStatus from "./ApiStatus.ts"
import { Catalog } from "./Catalog.ts"
import * as Discovery from "./Discovery.ts"
import type { DeleteOptions, Intent, Outcome, PatchKind } from "./Intent.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as ListOptions from "./ListOptions.ts"
import * as Lists from "./Lists.ts"
import * as Names from "./Names.ts"
import * as OpenApi from "./OpenApi.ts"
import * as Protobuf from "./Protobuf.ts"
import type { User } from "./Rbac.ts"
import * as Representation from "./Representation.ts"
import { type Answer, Resources } from "./Resources.ts"
import type { ResourceType } from "./ResourceType.ts"
import * as Reviews from "./Reviews.ts"
import { Store } from "./Store.ts"
import * as Watch from "./Watch.ts"

/** A request with its body read. */
export interface ApiRequest {
  readonly method: string
  readonly url: URL
  readonly accept: string | undefined
  readonly contentType: string | undefined
  readonly userAgent: string
  readonly body: Uint8Array
  /** The address under which the client reached the server, for discovery. */
  readonly address: string
  /** Who makes it. */
  readonly user: User
}

/** An answer: all of it, or a watch that is still to run. */
export type ApiResponse =
  | {
    readonly _tag: "Whole"
    readonly code: number
    readonly contentType: string
    readonly body: string
    readonly warnings: ReadonlyArray<string>
  }
  | { readonly _tag: "Watch"; readonly watch: Watch.WatchRequest; readonly contentType: string }

const jsonType = "application/json"

/** Where a path leads: a resource, its namespace, an object and a subresource. */
interface Target {
  readonly type: ResourceType
  readonly namespace: string | undefined
  readonly name: string | undefined
  readonly subresource: string
}

/** What this server says it is. */
const version: JsonObject = {
  major: "1",
  minor: "35",
  gitVersion: "v1.35.0+fast-sandbox",
  gitCommit: "",
  gitTreeState: "clean",
  buildDate: "1970-01-01T00:00:00Z",
  goVersion: "",
  compiler: "node",
  platform: "linux/amd64"
}

const patchKinds: ReadonlyMap<string, PatchKind> = new Map([
  ["application/json-patch+json", "Json"],
  ["application/merge-patch+json", "Merge"],
  ["application/strategic-merge-patch+json", "StrategicMerge"],
  ["application/apply-patch+yaml", "Apply"]
])

const whole = (body: JsonObject | string, code = 200, contentType = jsonType): ApiResponse => ({
  _tag: "Whole",
  code,
  contentType,
  body: typeof body === "string" ? body : JSON.stringify(body),
  warnings: []
})

const media = (contentType: string | undefined): string => (contentType ?? "").split(";")[0]?.trim() ?? ""

const utf8 = new TextDecoder()

const parseBody = (request: ApiRequest): Outcome<Json.Json> => {
  if (request.body.length === 0) return Result.fail(ApiStatus.badRequest("the body of the request is empty"))
  const parsed = media(request.contentType) === Protobuf.mediaType
    ? Protobuf.decode(request.body)
    : Json.parse(utf8.decode(request.body))
  return Result.mapError(
    parsed,
    (problem) => ApiStatus.badRequest(`couldn't get version/kind; json parse error: ${problem}`)
  )
}

const parseObject = (request: ApiRequest, type: ResourceType): Outcome<Json.Json> => {
  const accepted = ["", jsonType, "*/*", ...(Protobuf.decodes(type.kind) && !type.custom ? [Protobuf.mediaType] : [])]
  return accepted.includes(media(request.contentType))
    ? parseBody(request)
    : Result.fail(ApiStatus.unsupportedMediaType([jsonType]))
}

const dryRunOf = (values: ReadonlyArray<string>): Outcome<boolean> => {
  if (values.length === 0) return Result.succeed(false)
  return values.every((value) => value === "All")
    ? Result.succeed(true)
    : Result.fail(ApiStatus.invalid({ group: "meta.k8s.io", kind: "CreateOptions", plural: "" }, "", [
      ApiStatus.notSupported("dryRun", [...values], ["All"])
    ]))
}

const validationOf = (value: string | null, applies: boolean): Outcome<Admission.FieldValidation> => {
  switch (value) {
    case "Strict":
    case "Warn":
    case "Ignore":
      return Result.succeed(value)
    case null:
    case "":
      return Result.succeed(applies ? "Strict" : "Warn")
    default:
      return Result.fail(ApiStatus.invalid({ group: "meta.k8s.io", kind: "CreateOptions", plural: "" }, "", [
        ApiStatus.notSupported("fieldValidation", value, ["", "Ignore", "Strict", "Warn"])
      ]))
  }
}

/** A manager that a request doesn't name is the program that sent it. */
const managerOf = (request: ApiRequest): string => {
  const named = request.url.searchParams.get("fieldManager") ?? ""
  return named === "" ? request.userAgent.split("/")[0] || "unknown" : named
}

const deleteOptionsOf = (request: ApiRequest): Outcome<DeleteOptions & { readonly dryRun: boolean }> =>
  Result.gen(function*() {
    const query = request.url.searchParams
    const body = request.body.length === 0 ? Json.emptyObject : yield* parseBody(request)
    const grace = Json.numberAt(body, "gracePeriodSeconds") ??
      (query.has("gracePeriodSeconds") ? Number(query.get("gracePeriodSeconds")) : undefined)
    if (grace !== undefined && !(Number.isInteger(grace) && grace >= 0)) {
      return yield* Result.fail(ApiStatus.invalid({ group: "meta.k8s.io", kind: "DeleteOptions", plural: "" }, "", [
        ApiStatus.invalidValue("gracePeriodSeconds", grace, "must be greater than or equal to 0")
      ]))
    }
    const policy = Json.stringAt(body, "propagationPolicy") ?? query.get("propagationPolicy") ?? undefined
    const orphan = Json.at(body, "orphanDependents")
    if (policy !== undefined && policy !== "Background" && policy !== "Foreground" && policy !== "Orphan") {
      return yield* Result.fail(ApiStatus.invalid({ group: "meta.k8s.io", kind: "DeleteOptions", plural: "" }, "", [
        ApiStatus.notSupported("propagationPolicy", policy, ["Foreground", "Background", "Orphan", "nil"])
      ]))
    }
    const dryRun = yield* dryRunOf([
      ...query.getAll("dryRun"),
      ...Json.arrayAt(body, "dryRun").filter((value) => typeof value === "string")
    ])
    return {
      gracePeriodSeconds: grace,
      uid: Json.stringAt(body, "preconditions", "uid"),
      resourceVersion: Json.stringAt(body, "preconditions", "resourceVersion"),
      propagation: policy ?? (orphan === true ? "Orphan" : undefined),
      dryRun
    }
  })

const patchOf = (
  request: ApiRequest,
  type: ResourceType
): Outcome<{ readonly kind: PatchKind; readonly body: Json.Json }> =>
  Result.gen(function*() {
    const kind = patchKinds.get(media(request.contentType))
    if (kind === undefined || (type.custom && kind === "StrategicMerge")) {
      const accepted = [...patchKinds].filter(([, known]) => !type.custom || known !== "StrategicMerge").map((
        [name]
      ) => name)
      return yield* Result.fail(ApiStatus.unsupportedMediaType(accepted))
    }
    return { kind, body: yield* parseBody(request) }
  })

const pathOf = (url: URL): ReadonlyArray<string> | undefined =>
  Result.getOrUndefined(Result.try(() => url.pathname.split("/").filter((part) => part !== "").map(decodeURIComponent)))

const verbs: ReadonlyMap<string, string> = new Map([["POST", "create"], ["PUT", "update"], ["PATCH", "patch"]])

/** The verb of a request on a resource, as roles name it. */
const verbOf = ({ method, url }: ApiRequest, name: string | undefined): string => {
  const whole = name === undefined
  if (method === "DELETE") return whole ? "deletecollection" : "delete"
  const watching = ["true", "1"].includes(url.searchParams.get("watch") ?? "")
  return verbs.get(method) ?? (watching ? "watch" : whole ? "list" : "get")
}

const attributesOf = ({ name, namespace, subresource, type }: Target) => ({
  _tag: "Resource" as const,
  group: type.group,
  resource: type.plural,
  subresource,
  namespace: namespace ?? "",
  name: name ?? ""
})

/** The router of one server. */
export const make = Effect.fnUntraced(function*(access: Access) {
  const store = yield* Store
  const catalog = yield* Catalog
  const resources = yield* Resources
  const clock = yield* Clock.Clock
  const documents = new Map<string, string>()
  let documentsOf = -1

  /** Documents about what is served are made once per change of it. */
  const cached = (key: string, build: () => JsonObject | undefined): string | undefined => {
    if (documentsOf !== catalog.generation()) {
      documents.clear()
      documentsOf = catalog.generation()
    }
    const known = documents.get(key)
    if (known !== undefined) return known
    const built = build()
    if (built === undefined) return undefined
    const text = JSON.stringify(built)
    documents.set(key, text)
    return text
  }

  const document = (key: string, build: () => JsonObject | undefined): Outcome<ApiResponse> => {
    const text = cached(key, build)
    return text === undefined ? Result.fail(ApiStatus.noSuchPath) : Result.succeed(whole(text))
  }

  const discovery = (request: ApiRequest, part: "core" | "groups"): Outcome<ApiResponse> => {
    const wanted = Discovery.wantsAggregated(request.accept)
    if (wanted !== undefined) {
      const text = cached(`aggregated/${part}/${wanted}`, () => Discovery.aggregated(catalog.all(), part, wanted)) ?? ""
      return Result.succeed(whole(text, 200, Discovery.aggregatedMediaType(wanted)))
    }
    return part === "core"
      ? Result.succeed(whole(Discovery.coreVersions(request.address)))
      : document("groups", () => Discovery.groups(catalog.all()))
  }

  const target = (path: ReadonlyArray<string>): Target | undefined => {
    const core = path[0] === "api"
    const group = core ? "" : path[1] ?? ""
    const apiVersion = (core ? path[1] : path[2]) ?? ""
    const rest = path.slice(core ? 2 : 3)
    const [first, second, third, fourth, fifth, ...more] = rest
    if (first === undefined || more.length > 0) return undefined
    if (first === "namespaces" && third !== undefined) {
      const namespaceSubresource = core && (third === "status" || third === "finalize") && fourth === undefined
      if (!namespaceSubresource) {
        const type = catalog.find(group, apiVersion, third)
        return type === undefined || !type.namespaced
          ? undefined
          : { type, namespace: second, name: fourth, subresource: fifth ?? "" }
      }
    }
    const type = catalog.find(group, apiVersion, first)
    return type === undefined || fourth !== undefined
      ? undefined
      : { type, namespace: undefined, name: second, subresource: third ?? "" }
  }

  const intentOf = (
    request: ApiRequest,
    { namespace, subresource, type }: Target,
    applies: boolean,
    warn: (text: string) => void
  ): Outcome<Intent> =>
    Result.gen(function*() {
      const query = request.url.searchParams
      if (
        subresource !== "" && !(subresource === "status" && type.status) &&
        !(subresource === "scale" && type.scale !== undefined) &&
        !(subresource === "finalize" && type.key === "namespaces")
      ) return yield* Result.fail(ApiStatus.noSuchPath)
      return {
        type,
        namespace: namespace ?? "",
        subresource: subresource === "status" || subresource === "scale" || subresource === "finalize"
          ? subresource
          : "",
        dryRun: yield* dryRunOf(query.getAll("dryRun")),
        fieldManager: managerOf(request),
        fieldValidation: yield* validationOf(query.get("fieldValidation"), applies),
        nowMillis: clock.currentTimeMillisUnsafe(),
        warn
      }
    })

  const collection = (request: ApiRequest, found: Target, form: Representation.Form): Outcome<ApiResponse> =>
    Result.gen(function*() {
      const options = yield* ListOptions.read(found.type, request.url.searchParams, found.name)
      const namespace = found.type.namespaced ? found.namespace : ""
      if (options.watch) {
        const watch: Watch.WatchRequest = { type: found.type, namespace, options, form }
        yield* Watch.admit(store, watch)
        return { _tag: "Watch", watch, contentType: jsonType }
      }
      const page = yield* Lists.read(store, found.type, namespace, options)
      return whole(Representation.encodeList(found.type, page.bodies, page.meta, form, clock.currentTimeMillisUnsafe()))
    })

  const write = (request: ApiRequest, found: Target, warn: (text: string) => void): Outcome<Answer> =>
    Result.gen(function*() {
      const { name, type } = found
      const query = request.url.searchParams
      switch (request.method) {
        case "POST": {
          if (found.subresource === "token" && type.key === "serviceaccounts" && name !== undefined) {
            const body = yield* parseBody(request)
            const wanted = Json.isObject(body) ? body : Json.emptyObject
            return { code: 201, body: JSON.stringify(yield* access.issue(found.namespace ?? "", name, wanted)) }
          }
          const intent = yield* intentOf(request, found, false, warn)
          if (name !== undefined) return yield* Result.fail(ApiStatus.methodNotAllowed)
          const body = yield* parseObject(request, type)
          if (type.virtual) {
            const review = Json.isObject(body) ? body : Json.emptyObject
            return { code: 201, body: JSON.stringify(Reviews.answer(type, review, request.user, access)) }
          }
          if (!type.namespaced || found.namespace !== undefined) return yield* resources.create(intent, body)
          return yield* Result.fail(ApiStatus.methodNotAllowed)
        }
        case "PUT": {
          const intent = yield* intentOf(request, found, false, warn)
          if (name === undefined) return yield* Result.fail(ApiStatus.methodNotAllowed)
          return yield* resources.update(intent, name, yield* parseObject(request, type))
        }
        case "PATCH": {
          if (name === undefined) return yield* Result.fail(ApiStatus.methodNotAllowed)
          const { body, kind } = yield* patchOf(request, type)
          const intent = yield* intentOf(request, found, kind === "Apply", warn)
          const isNew = kind === "Apply" &&
            store.get({ resource: type.key, namespace: found.namespace ?? "", name }) === undefined
          if (isNew) yield* access.authorize(request.user, { ...attributesOf(found), verb: "create" })
          if (kind === "Apply" && (query.get("fieldManager") ?? "") === "") {
            return yield* Result.fail(
              ApiStatus.invalid({ group: "meta.k8s.io", kind: "PatchOptions", plural: "" }, "", [
                ApiStatus.required("fieldManager", "is required for apply patch")
              ])
            )
          }
          return yield* resources.patch(intent, name, kind, body, query.get("force") === "true")
        }
        case "DELETE": {
          const { dryRun, ...options } = yield* deleteOptionsOf(request)
          const intent = { ...(yield* intentOf(request, found, false, warn)), dryRun }
          if (found.subresource !== "") return yield* Result.fail(ApiStatus.methodNotAllowed)
          if (name !== undefined) return yield* resources.remove(intent, name, options)
          const selection = yield* ListOptions.read(type, query)
          const bodies = yield* resources.removeAll(intent, selection.selected, options)
          const meta = { resourceVersion: String(store.revision()) }
          return { code: 200, body: Representation.encodeList(type, bodies, meta, { _tag: "Json" }, intent.nowMillis) }
        }
        default:
          return yield* Result.fail(ApiStatus.methodNotAllowed)
      }
    })

  const resource = (request: ApiRequest, path: ReadonlyArray<string>): Outcome<ApiResponse> =>
    Result.gen(function*() {
      // The old form of a watch: /api/v1/watch/...
      const prefix = path[0] === "api" ? 2 : 3
      const legacy = path[prefix] === "watch"
      const found = target(legacy ? [...path.slice(0, prefix), ...path.slice(prefix + 1)] : path)
      if (found === undefined) return yield* Result.fail(ApiStatus.noSuchPath)
      if (legacy) request.url.searchParams.set("watch", "true")
      yield* access.authorize(request.user, { ...attributesOf(found), verb: verbOf(request, found.name) })
      const namespaceProblem = found.namespace === undefined ? [] : Names.labelProblems(found.namespace)
      if (namespaceProblem.length > 0) return yield* Result.fail(ApiStatus.noSuchPath)
      const form = yield* Representation.negotiate(request.accept, request.url.searchParams.get("includeObject"))
      const warnings: Array<string> = found.type.deprecation === undefined ? [] : [found.type.deprecation]
      const warn = (text: string) => void warnings.push(text)
      if (request.method === "GET" || request.method === "HEAD") {
        if (found.type.virtual) return yield* Result.fail(ApiStatus.methodNotAllowed)
        const watching = ["true", "1"].includes(request.url.searchParams.get("watch") ?? "")
        if (found.name === undefined || watching) return yield* collection(request, found, form)
        const intent = yield* intentOf(request, found, false, warn)
        const { body } = yield* resources.get(intent, found.name)
        const text = found.subresource === "scale"
          ? body
          : Representation.encodeOne(found.type, body, form, clock.currentTimeMillisUnsafe())
        return { _tag: "Whole", code: 200, contentType: jsonType, body: text, warnings }
      }
      const { body, code } = yield* write(request, found, warn)
      const isObject = !body.startsWith("{\"kind\":\"Status\"") && !["scale", "token"].includes(found.subresource) &&
        !found.type.virtual &&
        !(request.method === "DELETE" && found.name === undefined)
      const text = isObject ? Representation.encodeOne(found.type, body, form, clock.currentTimeMillisUnsafe()) : body
      return { _tag: "Whole", code, contentType: jsonType, body: text, warnings }
    })

  const route = (request: ApiRequest): Outcome<ApiResponse> => {
    const path = pathOf(request.url)
    if (path === undefined) return Result.fail(ApiStatus.badRequest("the path holds a broken escape"))
    const reads = request.method === "GET" || request.method === "HEAD"
    const depth = path.length
    switch (path[0]) {
      case "api":
        if (depth === 1 && reads) return discovery(request, "core")
        if (depth === 2 && reads) {
          return document(`resources/${path[1]}`, () => Discovery.resources(catalog.all(), "", path[1] ?? ""))
        }
        break
      case "apis":
        if (depth === 1 && reads) return discovery(request, "groups")
        if (depth === 2 && reads) {
          return document(`group/${path[1]}`, () => Discovery.group(catalog.all(), path[1] ?? ""))
        }
        if (depth === 3 && reads) {
          return document(
            `resources/${path[1]}/${path[2]}`,
            () => Discovery.resources(catalog.all(), path[1] ?? "", path[2] ?? "")
          )
        }
        break
      case "version":
        return Result.succeed(whole(version))
      case "healthz":
      case "livez":
      case "readyz":
        return Result.succeed(whole("ok", 200, "text/plain; charset=utf-8"))
      case "openapi": {
        if (path[1] === "v2") return document("openapi/v2", () => OpenApi.swagger(catalog.all()))
        if (path[1] !== "v3") return Result.fail(ApiStatus.noSuchPath)
        if (depth === 2) return document("openapi/v3", () => OpenApi.index(catalog.all()))
        const [, , kind, ...rest] = path
        const group = kind === "api" ? "" : rest[0] ?? ""
        const apiVersion = (kind === "api" ? rest[0] : rest[1]) ?? ""
        return document(path.join("/"), () => OpenApi.document(catalog.all(), group, apiVersion))
      }
      case undefined:
        return Result.succeed(whole({
          paths: ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        }))
      default:
        return Result.fail(ApiStatus.noSuchPath)
    }
    return resource(request, path)
  }

  return route
})
