/**
 * A one-machine stack of the run's own, and the pools that the scenarios need.
 */
import type { SandboxPool, SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import { SandboxPool as SandboxPoolKind } from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Home from "@fast-sandbox/local/Home"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Command from "./Command.ts"

const namespace = "default"

/** An agent starts within a second or two; parking a hundred slots takes some more. */
const readyWithin = "1 minute"

const lookPeriod = "100 millis"

/** Looks at a pool until it is as wanted, or a minute has gone by. */
const until = (name: string, isReady: (pool: SandboxPool) => boolean) =>
  Effect.gen(function*() {
    const kube = yield* KubeClient
    return yield* kube.get(SandboxPoolKind, { namespace, name }).pipe(
      Effect.repeat({ schedule: Schedule.spaced(lookPeriod), until: isReady }),
      Effect.timeout(readyWithin)
    )
  })

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
  yield* until(name, ({ status }) => (status?.ready ?? 0) > 0)
})

/** Waits until a pool has parked `count` slots. */
export const untilParked = (name: string, count: number) =>
  until(name, ({ status }) => (status?.slots?.parked ?? 0) >= count)

/** Removes a pool; its agent goes with it. */
export const removePool = Effect.fnUntraced(function*(name: string) {
  const kube = yield* KubeClient
  yield* kube.delete(SandboxPoolKind, { namespace, name })
})
