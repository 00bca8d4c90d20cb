/**
 * What a fresh one-machine stack needs in its API before it is of use: the two kinds of resources, and a pool that
 * `fsb-ctl run` finds without being told. The pool is made once and is the user's from then on.
 */
import * as Names from "@fast-sandbox/core/Names"
import type { SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import { SandboxPool } from "@fast-sandbox/kube/FastSandbox"
import * as FastSandboxCrds from "@fast-sandbox/kube/FastSandboxCrds"
import { CustomResourceDefinition } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

const fieldManager = "fsb-ctl"

/** One agent that is always there, with as many slots as one machine's first hour needs, and room for a second one. */
const firstPool: SandboxPoolSpec = {
  capacity: { poolMin: 1, poolMax: 2, bufferMin: 1, bufferMax: 0 },
  maxSandboxesPerPod: 50
}

/** A kind can be used a moment after its definition was accepted: at most 50 times 100 ms. */
const untilServed = Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 50 }))

const isTaken = (error: KubeError): boolean => error.reason._tag === "AlreadyExists"

/** Writes what is missing. Definitions follow this version's; a pool that exists stays as it is. */
export const ensure: Effect.Effect<void, KubeError, KubeClient> = Effect.gen(function*() {
  const kube = yield* KubeClient
  yield* Effect.forEach(
    FastSandboxCrds.all,
    (definition) =>
      kube.apply(CustomResourceDefinition, {
        apiVersion: "apiextensions.k8s.io/v1",
        kind: "CustomResourceDefinition",
        ...definition
      }, { fieldManager, force: true }),
    { discard: true }
  )
  yield* kube.create(SandboxPool, {
    metadata: { name: Names.defaultPool, namespace: Names.defaultNamespace },
    spec: firstPool
  }, { fieldManager }).pipe(
    Effect.catchIf(isTaken, () => Effect.void),
    Effect.retry({ schedule: untilServed, while: (error) => error.reason._tag === "NotFound" })
  )
}).pipe(Effect.withSpan("FirstResources.ensure"))
