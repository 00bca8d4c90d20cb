/**
 * Users: they create sandboxes through the Fast-Path API and through kubectl, delete, reset and update them, scale and
 * change pools, and edit with their own hands what they should not. They are told what happens to their calls, or are
 * not, and the history knows what they were told.
 */
import { create as message } from "@bufbuild/protobuf"
import * as Assignment from "@fast-sandbox/core/Assignment"
import { type BoundaryError, Unavailable } from "@fast-sandbox/core/Errors"
import * as Instant from "@fast-sandbox/core/Instant"
import { apiVersion, forceDeleteAnnotation } from "@fast-sandbox/core/Names"
import type { Sandbox, SandboxSpec } from "@fast-sandbox/core/Sandbox"
import {
  ConsistencyMode,
  type CreateRequest,
  CreateRequestSchema,
  FailurePolicy
} from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { History } from "./History.ts"
import type { Seed } from "./Seed.ts"

/** The Fast-Path API, as far as users of a simulation use it. */
export interface FastPathPort {
  create(request: CreateRequest): Effect.Effect<Sandbox, BoundaryError>
  delete(namespace: string, name: string): Effect.Effect<void, BoundaryError>
  reset(namespace: string, name: string): Effect.Effect<Sandbox, BoundaryError>
}

/** Options of {@link run}. */
export interface WorkloadOptions {
  readonly seed: Seed
  readonly history: History
  /** The API over the users' network. */
  readonly kube: KubeClient["Service"]
  /** A call to whatever controller serves at the moment. */
  readonly fastPath: <A>(
    call: (port: FastPathPort) => Effect.Effect<A, BoundaryError>
  ) => Effect.Effect<A, BoundaryError>
  /** For how long users act, in milliseconds. */
  readonly millis: number
}

/** The namespace of everything. */
export const namespace = "default"

const pools = ["small", "large"]

/** Few names, so that users get in each other's way. */
const names = ["ada", "bob", "cy", "dee", "eve", "flo", "gus", "hal"]

const images = [
  "registry.example/server:1",
  "registry.example/server:1",
  "registry.example/server:1",
  "registry.example/server:2",
  "registry.example/job:1",
  "registry.example/crash:1",
  "registry.example/hungry:1",
  "docker.io/library/broken:latest"
]

/** Creates the pools that users share. */
export const addPools = (kube: KubeClient["Service"], seed: Seed) =>
  Effect.forEach(pools, (name) =>
    kube.create(Kinds.SandboxPool, {
      metadata: { name, namespace },
      spec: {
        capacity: name === "small"
          ? { poolMin: 1, poolMax: 1 + seed.below(2) }
          : { poolMin: 1 + seed.below(2), poolMax: 4, bufferMin: seed.below(3), bufferMax: 4 },
        maxSandboxesPerPod: 1 + seed.below(3)
      }
    }), { discard: true })

type Failure = BoundaryError | KubeError

const uidOf = ({ metadata }: Sandbox): string => metadata.uid ?? ""

/** Runs the users until their time is over. */
export const run = Effect.fnUntraced(function*({ fastPath, history, kube, millis, seed }: WorkloadOptions) {
  let calls = 0
  const begunAt = yield* Clock.currentTimeMillis

  /** Makes a call that the history knows of, and that nobody waits for. */
  const act = Effect.fnUntraced(function*<A>(
    what: string,
    sandbox: string | undefined,
    call: Effect.Effect<A, Failure>,
    told: (answer: A) => void = () => {}
  ) {
    const number = ++calls
    history.add({ _tag: "Invoked", call: number, what, sandbox })
    yield* call.pipe(
      Effect.timeoutOrElse({
        duration: "20 seconds",
        orElse: () => Effect.fail(new Unavailable({ target: "the API", problem: "the user gave up" }))
      }),
      Effect.match({
        onFailure: (error) => history.add({ _tag: "Answered", call: number, ok: false, what: error.message }),
        onSuccess: (answer) => {
          history.add({ _tag: "Answered", call: number, ok: true, what })
          told(answer)
        }
      }),
      Effect.forkChild
    )
  })

  const newSpec = (now: number): SandboxSpec => ({
    image: seed.pick(images) ?? "",
    poolRef: seed.chance(0.03) ? "nowhere" : seed.pick(pools) ?? "",
    ...(seed.chance(0.25) ? { exposedPorts: [8080 + seed.below(2)] } : {}),
    ...(seed.chance(0.5) ? { failurePolicy: "AutoRecreate" } : {}),
    ...(seed.chance(0.6) ? { recoveryTimeoutSeconds: 5 + seed.below(30) } : {}),
    ...(seed.chance(0.15) ? { expireTime: Instant.format(now + seed.below(20_000)) } : {}),
    terminationGracePeriodSeconds: seed.below(4)
  })

  const createByKubectl = Effect.fnUntraced(function*(name: string) {
    const spec = newSpec(yield* Clock.currentTimeMillis)
    const draft = { apiVersion, metadata: { name, namespace }, spec } as const
    yield* act(
      `kubectl create ${name} image=${spec.image} pool=${spec.poolRef}`,
      name,
      kube.create(Kinds.Sandbox, draft),
      (sandbox) => history.add({ _tag: "CreateAcknowledged", sandbox: `${namespace}/${name}`, id: uidOf(sandbox) })
    )
  })

  const createByFastPath = Effect.fnUntraced(function*(name: string) {
    const spec = newSpec(yield* Clock.currentTimeMillis)
    const mode = seed.chance(0.7) ? ConsistencyMode.FAST : ConsistencyMode.STRONG
    const request = message(CreateRequestSchema, {
      name,
      namespace,
      image: spec.image,
      poolRef: spec.poolRef,
      consistencyMode: mode,
      exposedPorts: [...spec.exposedPorts ?? []],
      failurePolicy: spec.failurePolicy === "AutoRecreate" ? FailurePolicy.AUTO_RECREATE : FailurePolicy.MANUAL,
      recoveryTimeoutSeconds: spec.recoveryTimeoutSeconds ?? 0,
      terminationGracePeriodSeconds: BigInt(spec.terminationGracePeriodSeconds ?? 0),
      requestId: seed.chance(0.3) ? `request-${seed.below(5)}` : ""
    })
    yield* act(
      `${mode === ConsistencyMode.FAST ? "fast" : "strong"} create ${name} image=${spec.image} pool=${spec.poolRef}`,
      name,
      fastPath((port) => port.create(request)),
      (sandbox) =>
        history.add({ _tag: "CreateAcknowledged", sandbox: `${namespace}/${name}`, id: Assignment.claimUid(sandbox) })
    )
  })

  const wantGone = (name: string) => history.add({ _tag: "DeleteInvoked", sandbox: `${namespace}/${name}` })

  const change = (what: string, name: string, body: { readonly [field: string]: unknown }) =>
    act(what, name, kube.patch(Kinds.Sandbox, { name, namespace }, { type: "merge", body }))

  const actions: ReadonlyArray<readonly [weight: number, action: (name: string) => Effect.Effect<void>]> = [
    [8, createByKubectl],
    [12, createByFastPath],
    [5, (name) => {
      wantGone(name)
      return act(`kubectl delete ${name}`, name, kube.delete(Kinds.Sandbox, { name, namespace }))
    }],
    [4, (name) => {
      wantGone(name)
      return act(
        `delete ${name}`,
        name,
        fastPath((port) => port.delete(namespace, name)),
        () => history.add({ _tag: "DeleteAcknowledged", sandbox: `${namespace}/${name}`, id: "" })
      )
    }],
    [3, (name) => act(`reset ${name}`, name, fastPath((port) => port.reset(namespace, name)))],
    [
      3,
      (name) =>
        Effect.flatMap(
          Clock.currentTimeMillis,
          (now) => change(`kubectl reset ${name}`, name, { spec: { resetRevision: Instant.format(now) } })
        )
    ],
    [2, (name) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        change(`expire ${name}`, name, {
          spec: { expireTime: seed.chance(0.3) ? null : Instant.format(now + seed.below(15_000)) }
        }))],
    [1, (name) =>
      change(`policy of ${name}`, name, {
        spec: { failurePolicy: seed.chance(0.5) ? "Manual" : "AutoRecreate" }
      })],
    [1, (name) => change(`label ${name}`, name, { metadata: { labels: { touched: String(seed.below(100)) } } })],
    [1, (name) =>
      act(
        `wipe the status of ${name}`,
        name,
        kube.patchStatus(Kinds.Sandbox, { name, namespace }, { type: "merge", body: { status: null } })
      )],
    [1, (name) => change(`take the finalizers of ${name}`, name, { metadata: { finalizers: null } })],
    [1, (name) => {
      wantGone(name)
      return change(`force the deletion of ${name}`, name, {
        metadata: { annotations: { [forceDeleteAnnotation]: "true" } }
      })
    }],
    [1, () => {
      const pool = seed.pick(pools) ?? ""
      const poolMin = seed.below(3)
      return act(
        `scale ${pool} from ${poolMin}`,
        undefined,
        kube.patch(Kinds.SandboxPool, { name: pool, namespace }, {
          type: "merge",
          body: { spec: { capacity: { poolMin, poolMax: poolMin + seed.below(3) + 1 } } }
        })
      )
    }],
    [1, () => {
      const pool = seed.pick(pools) ?? ""
      return act(
        `change the template of ${pool}`,
        undefined,
        kube.patch(Kinds.SandboxPool, { name: pool, namespace }, {
          type: "merge",
          body: { spec: { agentTemplate: { metadata: { annotations: { version: String(seed.below(100)) } } } } }
        })
      )
    }]
  ]
  const total = actions.reduce((sum, [weight]) => sum + weight, 0)
  const pause = 200 + seed.next() ** 2 * 3_000

  while ((yield* Clock.currentTimeMillis) < begunAt + millis) {
    let lot = seed.below(total)
    const [, action] = actions.find(([weight]) => (lot -= weight) < 0) ?? []
    const name = seed.pick(names) ?? ""
    if (action !== undefined) {
      yield* action(name)
    }
    yield* Effect.sleep(seed.exponential(pause))
  }
})

/** A Pod is lost: its node deletes it, or somebody does. */
export const losePod = (kube: KubeClient["Service"], name: string) =>
  Effect.ignore(kube.delete(Pod, { name, namespace }))
