/**
 * What an agent is asked to run: a Sandbox's spec with everything resolved that an agent can't resolve by itself.
 * Defaults and upper limits come from the pool, values of Secrets and ConfigMaps from the Kubernetes API.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, FailedPrecondition, InvalidArgument } from "@fast-sandbox/core/Errors"
import * as ImageName from "@fast-sandbox/core/ImageName"
import * as Quantity from "@fast-sandbox/core/Quantity"
import type { EnvVar, Sandbox, SandboxResources, SecurityContext } from "@fast-sandbox/core/Sandbox"
import { withDefaults } from "@fast-sandbox/core/Sandbox"
import type { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import type { InstanceSpecSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeKind } from "@fast-sandbox/kube/KubeObject"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { toBoundary } from "./KubeFailure.ts"

/** What an agent is asked to run. */
export type InstanceSpec = MessageInitShape<typeof InstanceSpecSchema>

/** The agents' way to say that a limit is not set. */
const unlimited = 0n

const limit = (
  own: string | undefined,
  pool: string | undefined,
  field: string,
  parse: (text: string) => Option.Option<number>
): Result.Result<bigint, InvalidArgument> => {
  const read = (text: string | undefined, at: string): Result.Result<number | undefined, InvalidArgument> =>
    text === undefined ? Result.succeed(undefined) : Result.fromOption(
      parse(text),
      () => new InvalidArgument({ field: at, problem: `${text} is no quantity such as 500m or 128Mi` })
    )
  return Result.flatMap(
    read(own, `spec.resources.${field}`),
    (wanted) => Result.flatMap(read(pool, `spec.sandboxResources.${field}`), (most) => within(wanted, most, field))
  )
}

/** The sandbox's own limit, which must not be above the pool's; the pool's where it has none. */
const within = (
  wanted: number | undefined,
  most: number | undefined,
  field: string
): Result.Result<bigint, InvalidArgument> =>
  wanted !== undefined && most !== undefined && wanted > most
    ? Result.fail(
      new InvalidArgument({
        field: `spec.resources.${field}`,
        problem: "is above the limit of the pool (spec.sandboxResources); ask for less, or choose another pool"
      })
    )
    : Result.succeed(BigInt(wanted ?? most ?? unlimited))

/** The limits in the agents' units. */
const limits = (own: SandboxResources | undefined, pool: SandboxResources | undefined) =>
  Result.all({
    cpuMillis: limit(own?.cpu, pool?.cpu, "cpu", Quantity.parseCpuMillis),
    memoryBytes: limit(own?.memory, pool?.memory, "memory", Quantity.parseBytes),
    pids: within(own?.pids, pool?.pids, "pids"),
    shmBytes: limit(own?.shm, pool?.shm, "shm", Quantity.parseBytes),
    diskBytes: limit(own?.ephemeralStorage, pool?.ephemeralStorage, "ephemeralStorage", Quantity.parseBytes)
  })

/** The sandbox's own wishes before the pool's, but for what the pool forbids. */
const security = (own: SecurityContext = {}, pool: SecurityContext = {}) => {
  const runAsUser = own.runAsUser ?? pool.runAsUser
  const runAsGroup = own.runAsGroup ?? (own.runAsUser === undefined ? pool.runAsGroup : undefined)
  return {
    ...(runAsUser === undefined ? {} : { runAsUser }),
    ...(runAsGroup === undefined ? {} : { runAsGroup }),
    runAsNonRoot: own.runAsNonRoot === true || pool.runAsNonRoot === true,
    readOnlyRootFilesystem: own.readOnlyRootFilesystem === true || pool.readOnlyRootFilesystem === true
  }
}

/** The text of one key of a Secret or a ConfigMap; none when the object does not have it. */
type Lookup = (key: string) => Option.Option<string>

const ofConfigMap = (object: Kinds.ConfigMap): Lookup => (key) => Option.fromNullishOr(object.data?.[key])

/** A value that is not base64 was not written through the API; it counts as missing. */
const ofSecret = (object: Kinds.Secret): Lookup => (key) =>
  Option.flatMap(Option.fromNullishOr(object.data?.[key]), (value) => Result.getSuccess(Base64.decodeString(value)))

/** One environment variable with its value; none when what it refers to is missing and may be. */
const resolveEnv = Effect.fnUntraced(function*(env: EnvVar, field: string, namespace: string) {
  const secret = env.valueFrom?.secretKeyRef
  const selector = secret ?? env.valueFrom?.configMapKeyRef
  if (selector === undefined) {
    return Option.some({ name: env.name, value: env.value ?? "" })
  }
  const kube = yield* KubeClient
  const read = <A extends Kinds.Secret | Kinds.ConfigMap>(kind: KubeKind<A>, lookup: (object: A) => Lookup) =>
    kube.get(kind, { namespace, name: selector.name }).pipe(
      Effect.map((object) => lookup(object)(selector.key)),
      Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.succeed(Option.none<string>())),
      Effect.mapError(toBoundary(kind.kind))
    )
  const value = secret === undefined ? yield* read(Kinds.ConfigMap, ofConfigMap) : yield* read(Kinds.Secret, ofSecret)
  if (Option.isNone(value) && selector.optional !== true) {
    const kind = secret === undefined ? "ConfigMap" : "Secret"
    return yield* new FailedPrecondition({
      reason: `${kind}KeyMissing`,
      problem:
        `${field}: ${kind} ${namespace}/${selector.name} has no key ${selector.key}; create it, or mark it as optional`
    })
  }
  return Option.map(value, (value) => ({ name: env.name, value }))
})

/**
 * The spec for an agent. Only a sandbox that refers to Secrets or ConfigMaps makes calls to the Kubernetes API. Fails
 * with InvalidArgument for what validation should have refused, FailedPrecondition (`SecretKeyMissing`,
 * `ConfigMapKeyMissing`) for references to what is not there, and with the API's failures.
 */
export const make: (
  sandbox: Sandbox,
  pool: SandboxPool
) => Effect.Effect<InstanceSpec, BoundaryError, KubeClient> = Effect.fnUntraced(
  function*(sandbox, pool) {
    const spec = withDefaults(sandbox.spec)
    const namespace = sandbox.metadata.namespace ?? ""
    const image = yield* ImageName.normalize(spec.image).pipe(
      Effect.mapError(({ problem }) => new InvalidArgument({ field: "spec.image", problem }))
    )
    const envs = yield* Effect.forEach(
      spec.envs ?? [],
      (env, index) => resolveEnv(env, `spec.envs[${index}]`, namespace)
    )
    return {
      image,
      command: [...spec.command ?? []],
      args: [...spec.args ?? []],
      envs: envs.filter(Option.isSome).map(({ value }) => value),
      workingDir: spec.workingDir ?? "",
      exposedPorts: [...spec.exposedPorts ?? []],
      terminationGracePeriodSeconds: spec.terminationGracePeriodSeconds,
      tty: spec.tty ?? false,
      stdin: spec.stdin ?? false,
      ...(yield* Effect.fromResult(limits(spec.resources, pool.spec.sandboxResources))),
      ...security(spec.securityContext, pool.spec.sandboxSecurity)
    }
  }
)
