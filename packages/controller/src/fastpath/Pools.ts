/**
 * SandboxPools through the Fast-Path API, for whoever has no access to the Kubernetes API.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, FailedPrecondition, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import * as Instant from "@fast-sandbox/core/Instant"
import { apiVersion, defaultNamespace } from "@fast-sandbox/core/Names"
import { key as keyOf, terminalPhases } from "@fast-sandbox/core/Sandbox"
import { SandboxPool, type SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import * as SandboxValidation from "@fast-sandbox/core/SandboxValidation"
import type {
  DeletePoolRequest,
  PoolInfoSchema,
  ScalePoolRequest
} from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { toBoundary } from "../KubeFailure.ts"
import * as Audit from "./Audit.ts"
import { Directory } from "./Directory.ts"

/** SandboxPools. An empty namespace is `default`. */
export class Pools extends Context.Service<Pools, {
  /** Of one namespace, or of all (`*`). */
  list(namespace: string): Effect.Effect<ReadonlyArray<SandboxPool>, BoundaryError>
  get(namespace: string, name: string): Effect.Effect<SandboxPool, BoundaryError>
  /** From the JSON text of a SandboxPool. */
  create(resource: Uint8Array): Effect.Effect<SandboxPool, BoundaryError>
  scale(request: ScalePoolRequest): Effect.Effect<SandboxPool, BoundaryError>
  /** Refuses a pool that holds sandboxes, unless it is forced. */
  delete(request: DeletePoolRequest): Effect.Effect<void, BoundaryError>
}>()("@fast-sandbox/controller/fastpath/Pools") {
  static get layer(): Layer.Layer<Pools, never, KubeClient | Directory> {
    return Layer.effect(Pools, make)
  }
}

const everything = "*"

const namespaceOf = (namespace: string): string => namespace === "" ? defaultNamespace : namespace

const failure = toBoundary("pool")

const notFound = (namespace: string, name: string) =>
  new NotFound({ kind: "pool", name: keyOf(namespace, name), hint: "'fsb-ctl pool list' shows those there are" })

const issues = SchemaIssue.makeFormatterStandardSchemaV1()

const decode = Schema.decodeUnknownResult(Schema.fromJsonString(SandboxPool), {
  errors: "first",
  onExcessProperty: "error"
})

/** The resource, or which of its fields is wrong. */
const parse = (resource: Uint8Array): Result.Result<SandboxPool, InvalidArgument> =>
  Result.mapError(decode(new TextDecoder().decode(resource)), (error) => {
    const [issue] = issues(error.issue).issues
    const path = (issue?.path ?? []).map((part) => String(typeof part === "object" ? part.key : part))
    return new InvalidArgument({ field: path.join(".") || "resource", problem: issue?.message ?? error.message })
  })

/** The namespace that a resource names, `default` where it names none; none for what is no resource. */
export const namespaceOfResource = (resource: Uint8Array): Option.Option<string> =>
  Option.map(Result.getSuccess(parse(resource)), ({ metadata }) => namespaceOf(metadata.namespace ?? ""))

/** What a request changes of the capacity; the API refuses what does not fit together. */
const capacityOf = (
  { bufferMax, bufferMin, poolMax, poolMin }: ScalePoolRequest
): NonNullable<SandboxPoolSpec["capacity"]> => ({
  ...(poolMin === undefined ? {} : { poolMin }),
  ...(poolMax === undefined ? {} : { poolMax }),
  ...(bufferMin === undefined ? {} : { bufferMin }),
  ...(bufferMax === undefined ? {} : { bufferMax })
})

/** Makes the operations. */
export const make: Effect.Effect<Pools["Service"], never, KubeClient | Directory> = Effect.gen(function*() {
  const kube = yield* KubeClient
  const directory = yield* Directory

  const inUse = Effect.fnUntraced(function*(namespace: string, name: string) {
    const entries = yield* directory.list(namespace)
    return entries.filter(({ sandbox: { metadata, spec, status } }) =>
      spec.poolRef === name && metadata.deletionTimestamp === undefined &&
      (status?.phase === undefined || !terminalPhases.has(status.phase))
    ).length
  })

  const named = <A>(namespace: string, name: string, call: Effect.Effect<A, Parameters<typeof failure>[0]>) =>
    Effect.fromResult(SandboxValidation.validateRef(namespace, name)).pipe(
      Effect.andThen(
        Effect.mapError(call, (error) => error.reason._tag === "NotFound" ? notFound(namespace, name) : failure(error))
      )
    )

  return Pools.of({
    list: Effect.fn("Pools.list")(function*(text) {
      const namespace = namespaceOf(text)
      const { items } = yield* kube.list(Kinds.SandboxPool, {
        namespace: namespace === everything ? undefined : namespace
      }).pipe(Effect.mapError(failure))
      return items
    }),
    get: Effect.fn("Pools.get")(function*(text, name) {
      const namespace = namespaceOf(text)
      return yield* named(namespace, name, kube.get(Kinds.SandboxPool, { namespace, name }))
    }),
    create: Effect.fn("Pools.create")(function*(resource) {
      const { metadata, spec } = yield* Effect.fromResult(parse(resource))
      const namespace = namespaceOf(metadata.namespace ?? "")
      const name = metadata.name ?? ""
      yield* Effect.fromResult(SandboxValidation.validateRef(namespace, name))
      return yield* kube.create(Kinds.SandboxPool, {
        apiVersion,
        kind: "SandboxPool",
        metadata: { ...metadata, namespace },
        spec
      }).pipe(Effect.mapError(failure), Audit.mutation("create pool", keyOf(namespace, name)))
    }),
    scale: Effect.fn("Pools.scale")(function*(request) {
      const namespace = namespaceOf(request.namespace)
      const capacity = capacityOf(request)
      if (Object.keys(capacity).length === 0) {
        return yield* new InvalidArgument({ field: "pool_min", problem: "nothing to change is given" })
      }
      return yield* named(
        namespace,
        request.name,
        kube.patch(Kinds.SandboxPool, { namespace, name: request.name }, {
          type: "merge",
          body: { spec: { capacity } }
        })
      ).pipe(Audit.mutation("scale pool", keyOf(namespace, request.name)))
    }),
    delete: Effect.fn("Pools.delete")(function*({ force, name, namespace: text }) {
      const namespace = namespaceOf(text)
      const count = force ? 0 : yield* inUse(namespace, name)
      if (count > 0) {
        return yield* new FailedPrecondition({
          reason: "PoolInUse",
          problem: `pool ${keyOf(namespace, name)} holds ${count} sandboxes, which would be lost; delete them first, ` +
            "or force it"
        })
      }
      yield* named(namespace, name, kube.delete(Kinds.SandboxPool, { namespace, name })).pipe(
        Audit.mutation("delete pool", keyOf(namespace, name))
      )
    })
  })
})

const encoder = new TextEncoder()

/** What a pool lacks, as its conditions say. */
const problemOf = ({ status }: SandboxPool): string =>
  status?.conditions?.filter(({ status, type }) => type === "ScalingLimited" ? status === "True" : status === "False")
    .map(({ message }) => message).join("; ") ?? "its controller has not looked at it yet"

/** A pool as the API shows it. */
export const project = (pool: SandboxPool): MessageInitShape<typeof PoolInfoSchema> => {
  const { metadata, status } = pool
  const created = Option.getOrElse(Instant.parseMillis(metadata.creationTimestamp), () => 0)
  return {
    name: metadata.name ?? "",
    namespace: metadata.namespace ?? "",
    agentsReady: status?.ready ?? 0,
    agentsDesired: status?.desired ?? 0,
    slotsUsed: status?.slots?.used ?? 0,
    slotsTotal: status?.slots?.total ?? 0,
    slotsParked: status?.slots?.parked ?? 0,
    createdAt: BigInt(Math.floor(created / 1000)),
    problem: problemOf(pool),
    resource: encoder.encode(JSON.stringify(pool))
  }
}
