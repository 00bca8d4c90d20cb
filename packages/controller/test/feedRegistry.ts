import { Effect, Option, Stream } from "effect"
import { Agents } from "../src/agents/Agents.ts"
import { Registry } from "../src/registry/Registry.ts"

/** Keeps the Registry's view of simulated agents as `WatchedAgents` does that of real ones, and has a pool for them. */
export const feedRegistry = Effect.gen(function*() {
  const agents = yield* Agents
  const registry = yield* Registry
  const take = Effect.fnUntraced(function*(uid: string) {
    const view = yield* agents.get(uid)
    yield* Option.isSome(view) ? registry.upsertAgent(view.value) : registry.removeAgent(uid)
  })
  yield* registry.addPool("default", "pool")
  yield* agents.changes.pipe(
    Stream.runForEach(({ uid }) => take(uid)),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Effect.forEach(yield* agents.list, ({ uid }) => take(uid), { discard: true })
})
