/**
 * A control plane as its user sees it: Sandboxes that are applied, what became of them, and every write that the API
 * server has stored meanwhile.
 */
import type { Sandbox } from "@fast-sandbox/core/Sandbox"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { Event } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeKind, KubeObject } from "@fast-sandbox/kube/KubeObject"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import type { Store } from "@fast-sandbox/kube/Store"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { performance } from "node:perf_hooks"

export const namespace = "default"

export const image = "docker.io/library/busybox:latest"

/** Requests of the applying client under way at once, as a parallel `kubectl apply` or a controller would have. */
const applyConcurrency = 32

/** The control plane is quiet when nothing was written for so long: longer than its longest pause for counts. */
const quietMillis = 3_000

/** A pool of agents that are all there from the start. */
export const addPool = Effect.fnUntraced(function*(name: string, agents: number, slots: number) {
  const kube = yield* KubeClient
  yield* kube.create(FastSandbox.SandboxPool, {
    metadata: { name, namespace },
    spec: { capacity: { poolMin: agents, poolMax: agents }, maxSandboxesPerPod: slots }
  })
  const ready = Effect.map(
    kube.get(FastSandbox.SandboxPool, { name, namespace }),
    ({ status }) => (status?.slots?.total ?? 0) >= agents * slots
  )
  yield* Effect.repeat(ready, { until: (ready) => ready, schedule: Schedule.spaced("100 millis") })
})

/** Applies Sandboxes to a pool, all at once. */
export const applyAll = (names: ReadonlyArray<string>, pool: string) =>
  KubeClient.use((kube) =>
    Effect.forEach(
      names,
      (name) =>
        kube.create(FastSandbox.Sandbox, {
          metadata: { name, namespace },
          spec: { image, poolRef: pool, args: ["sleep", "3600"] }
        }),
      { concurrency: applyConcurrency, discard: true }
    )
  )

/** A live copy of the Sandboxes, to know when they run without asking the server all the time. */
export const sandboxes = Reflector.make(FastSandbox.Sandbox, {
  indices: { phase: ({ status }) => status?.phase === undefined ? [] : [status.phase] }
})

/** Waits until so many Sandboxes are Running. */
export const running = (store: Store<Sandbox, "phase">, count: number) =>
  Effect.repeat(store.byIndex("phase", "Running"), {
    until: (running) => running.length >= count,
    schedule: Schedule.spaced("50 millis")
  })

/** The server's revision: it grows by one with every write that is stored, of whatever kind. */
export const revision = KubeClient.use((kube) =>
  Effect.map(kube.list(FastSandbox.SandboxPool, { limit: 1 }), ({ resourceVersion }) => Number(resourceVersion))
)

/** Waits until nothing was written for a while; the revision at the end of the writes. */
export const quiet = Effect.gen(function*() {
  let last = yield* revision
  let since = performance.now()
  while (performance.now() - since < quietMillis) {
    yield* Effect.sleep("200 millis")
    const now = yield* revision
    if (now !== last) {
      last = now
      since = performance.now()
    }
  }
  return last
})

/** Writes of one kind since a revision: a watch from there tells each of them once, because the server keeps them all. */
const writesOf = <A extends KubeObject>(kind: KubeKind<A>, since: number) =>
  KubeClient.use((kube) =>
    kube.watch(kind, { resourceVersion: String(since), timeout: "2 seconds" }).pipe(
      Stream.filter(({ _tag }) => _tag !== "Bookmark"),
      Stream.runCount
    )
  )

/** Writes since a revision, by what was written. */
export const writes = Effect.fnUntraced(function*(since: number) {
  const total = (yield* revision) - since
  const [sandbox, event, pool] = yield* Effect.all([
    writesOf(FastSandbox.Sandbox, since),
    writesOf(Event, since),
    writesOf(FastSandbox.SandboxPool, since)
  ], { concurrency: "unbounded" })
  return { total, sandbox, event, pool, other: total - sandbox - event - pool }
})
