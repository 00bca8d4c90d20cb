/**
 * A one-machine stack of the run's own, and the pools that the scenarios need.
 */
import type { SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import { SandboxPool as SandboxPoolKind } from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Home from "@fast-sandbox/local/Home"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Command from "./Command.ts"

const namespace = "default"

/** An agent starts within a second or two. */
const readyWithin = "1 minute"

const lookPeriod = "100 millis"

/** The stack in `directory`, gone after the scope. */
export const make = Effect.fnUntraced(function*(directory: string, fsbCtl: string) {
  const home = yield* Home.make(directory)
  yield* Effect.acquireRelease(
    Command.run(fsbCtl, ["up", "--detach", "--containerd", "own", "--home", home.directory]),
    () => Command.run(fsbCtl, ["down", "--wipe", "--home", home.directory]).pipe(Effect.ignore({ log: "Warn" }))
  )
  return home
})

/** Its Kubernetes API. */
export const kubeClient = (home: Home.Home) =>
  KubeClient.layer.pipe(Layer.provide(KubeConfig.layerFile(home.kubeconfig)))

/** Makes a pool of one agent and waits until that agent answers. */
export const makePool = Effect.fnUntraced(function*(name: string, spec: SandboxPoolSpec) {
  const kube = yield* KubeClient
  yield* kube.create(SandboxPoolKind, {
    metadata: { name, namespace },
    spec: { ...spec, capacity: { poolMin: 1, poolMax: 1 } }
  })
  yield* kube.get(SandboxPoolKind, { namespace, name }).pipe(
    Effect.repeat({ schedule: Schedule.spaced(lookPeriod), until: ({ status }) => (status?.ready ?? 0) > 0 }),
    Effect.timeout(readyWithin)
  )
})

/** Changes what a pool keeps warm. */
export const warm = Effect.fnUntraced(function*(name: string, warmImages: NonNullable<SandboxPoolSpec["warmImages"]>) {
  const kube = yield* KubeClient
  yield* kube.patch(SandboxPoolKind, { namespace, name }, { type: "merge", body: { spec: { warmImages } } })
})

/** Makes a pool that goes with the scope. */
export const scopedPool = (name: string, spec: SandboxPoolSpec) =>
  Effect.acquireRelease(
    makePool(name, spec),
    () => Effect.ignore(KubeClient.use((kube) => kube.delete(SandboxPoolKind, { namespace, name })), { log: "Warn" })
  )

/** With a pool that is gone afterwards; its agent goes with it. */
export const withPool = <A, E, R>(name: string, spec: SandboxPoolSpec, use: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.andThen(scopedPool(name, spec), use))
