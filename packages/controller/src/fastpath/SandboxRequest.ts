/**
 * A create request as the Sandbox that it asks for, and whether two of them ask for the same.
 */
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Identifier from "@fast-sandbox/core/Identifier"
import * as Instant from "@fast-sandbox/core/Instant"
import {
  apiVersion,
  claimUidAnnotation,
  createdByAnnotation,
  defaultNamespace,
  finalizer,
  requestIdAnnotation
} from "@fast-sandbox/core/Names"
import { type Sandbox, type SandboxSpec, type SecurityContext, withDefaults } from "@fast-sandbox/core/Sandbox"
import * as SandboxValidation from "@fast-sandbox/core/SandboxValidation"
import {
  ConsistencyMode,
  type CreateRequest,
  FailurePolicy,
  type SecurityContext as SecurityContextMessage
} from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { GrpcCaller } from "@fast-sandbox/grpc/GrpcCaller"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import { createHash } from "node:crypto"

/** A Sandbox that does not exist yet: it has a name, a namespace and a claim. */
export interface Wanted extends Sandbox {
  readonly metadata: Sandbox["metadata"] & {
    readonly name: string
    readonly namespace: string
    readonly annotations: { readonly [key: string]: string }
  }
}

/** Hexadecimal digits of a generated name: with 40 bits a million sandboxes hardly ever meet. */
const generatedDigits = 10

/** Unix seconds beyond which no date can be written. */
const maxUnixSeconds = 253_402_300_799n

/**
 * A name for a request without one. One request id of a caller gives one name, so that its repeats find the first
 * sandbox.
 */
const generatedName = (namespace: string, creator: string, requestId: string, claimUid: string): string => {
  const seed = requestId === "" ? claimUid : JSON.stringify([creator, namespace, requestId])
  return `sandbox-${createHash("sha256").update(seed).digest("hex").slice(0, generatedDigits)}`
}

const refuse = (field: string, problem: string) => new InvalidArgument({ field, problem })

/** The failure policy that a number of the protocol stands for. */
export const failurePolicyOf = (policy: number): Effect.Effect<"Manual" | "AutoRecreate", InvalidArgument> => {
  switch (policy) {
    case FailurePolicy.MANUAL:
      return Effect.succeed("Manual")
    case FailurePolicy.AUTO_RECREATE:
      return Effect.succeed("AutoRecreate")
    default:
      return Effect.fail(refuse("spec.failurePolicy", `${policy} is none: use Manual (0) or AutoRecreate (1)`))
  }
}

const consistencyModeOf = (mode: number): Effect.Effect<"fast" | "strong", InvalidArgument> => {
  switch (mode) {
    case ConsistencyMode.FAST:
      return Effect.succeed("fast")
    case ConsistencyMode.STRONG:
      return Effect.succeed("strong")
    default:
      return Effect.fail(refuse("spec.consistencyMode", `${mode} is none: use fast (0) or strong (1)`))
  }
}

/** RFC 3339 of an instant in Unix seconds. */
export const expireTimeOf = (seconds: bigint): Effect.Effect<string, InvalidArgument> =>
  seconds < 0n || seconds > maxUnixSeconds
    ? Effect.fail(refuse("spec.expireTime", `${seconds} are no Unix seconds`))
    : Effect.succeed(Instant.format(Number(seconds) * 1000))

const securityContextOf = (
  { readOnlyRootFilesystem, runAsGroup, runAsNonRoot, runAsUser }: SecurityContextMessage
): SecurityContext => ({
  ...(runAsUser === undefined ? {} : { runAsUser }),
  ...(runAsGroup === undefined ? {} : { runAsGroup }),
  ...(runAsNonRoot === undefined ? {} : { runAsNonRoot }),
  ...(readOnlyRootFilesystem === undefined ? {} : { readOnlyRootFilesystem })
})

/** The Sandbox that a request asks for, checked. */
export const decode = Effect.fnUntraced(function*(request: CreateRequest): Effect.fn.Return<Wanted, InvalidArgument> {
  const namespace = request.namespace === "" ? defaultNamespace : request.namespace
  const { cpu = "", ephemeralStorage = "", memory = "", pids = 0n, shm = "" } = request.resources ?? {}
  const resources = {
    ...(cpu === "" ? {} : { cpu }),
    ...(memory === "" ? {} : { memory }),
    ...(pids === 0n ? {} : { pids: Number(pids) }),
    ...(shm === "" ? {} : { shm }),
    ...(ephemeralStorage === "" ? {} : { ephemeralStorage })
  }
  const spec: SandboxSpec = {
    image: request.image,
    poolRef: request.poolRef,
    consistencyMode: yield* consistencyModeOf(request.consistencyMode),
    failurePolicy: yield* failurePolicyOf(request.failurePolicy),
    ...(request.command.length === 0 ? {} : { command: request.command }),
    ...(request.args.length === 0 ? {} : { args: request.args }),
    ...(Object.keys(request.envs).length === 0
      ? {}
      : { envs: Object.entries(request.envs).map(([name, value]) => ({ name, value })) }),
    ...(request.workingDir === "" ? {} : { workingDir: request.workingDir }),
    ...(request.tty ? { tty: true } : {}),
    ...(request.stdin ? { stdin: true } : {}),
    ...(request.exposedPorts.length === 0 ? {} : { exposedPorts: request.exposedPorts }),
    ...(request.recoveryTimeoutSeconds === 0 ? {} : { recoveryTimeoutSeconds: request.recoveryTimeoutSeconds }),
    ...(request.expireTimeSeconds === 0n ? {} : { expireTime: yield* expireTimeOf(request.expireTimeSeconds) }),
    ...(request.ttlSeconds === 0n ? {} : { ttlSeconds: Number(request.ttlSeconds) }),
    ...(request.terminationGracePeriodSeconds === undefined
      ? {}
      : { terminationGracePeriodSeconds: Number(request.terminationGracePeriodSeconds) }),
    ...(Object.keys(resources).length === 0 ? {} : { resources }),
    ...(request.securityContext === undefined
      ? {}
      : { securityContext: securityContextOf(request.securityContext) })
  }
  const claimUid = yield* Identifier.fresh
  const { name: creator } = yield* GrpcCaller
  const wanted: Wanted = {
    apiVersion,
    kind: "Sandbox",
    metadata: {
      name: request.name === "" ? generatedName(namespace, creator, request.requestId, claimUid) : request.name,
      namespace,
      ...(Object.keys(request.labels).length === 0 ? {} : { labels: request.labels }),
      annotations: {
        [claimUidAnnotation]: claimUid,
        [createdByAnnotation]: creator,
        ...(request.requestId === "" ? {} : { [requestIdAnnotation]: request.requestId })
      },
      finalizers: [finalizer]
    },
    spec
  }
  yield* Effect.fromResult(SandboxValidation.validate(wanted))
  return wanted
})

/** Refuses what would be ended as soon as it was started. Not asked of a replay: its sandbox has had its time. */
export const checkExpiry = ({ spec }: Wanted): Effect.Effect<void, InvalidArgument> =>
  Effect.flatMap(
    Clock.currentTimeMillis,
    (now) =>
      Option.exists(Instant.parseMillis(spec.expireTime), (expiry) => expiry <= now)
        ? Effect.fail(refuse("spec.expireTime", `${spec.expireTime} is over: nothing would run`))
        : Effect.void
  )

/** What an update may have changed since. */
const immutable = (spec: SandboxSpec) => {
  const { expireTime: _e, failurePolicy: _f, recoveryTimeoutSeconds: _r, resetRevision: _v, ttlSeconds: _t, ...rest } =
    withDefaults(spec)
  return rest
}

/**
 * Whether an existing sandbox is what the request asks for: the same caller's, and the same request id and the same
 * program, or the very same spec. What was declared is anybody's who may create.
 */
export const isReplay = (existing: Sandbox, wanted: Wanted): boolean => {
  const creator = existing.metadata.annotations?.[createdByAnnotation]
  if (creator !== undefined && creator !== wanted.metadata.annotations[createdByAnnotation]) return false
  const requestId = wanted.metadata.annotations[requestIdAnnotation]
  return requestId !== undefined && existing.metadata.annotations?.[requestIdAnnotation] === requestId
    ? Equal.equals(immutable(existing.spec), immutable(wanted.spec))
    : Equal.equals(withDefaults(existing.spec), withDefaults(wanted.spec))
}
