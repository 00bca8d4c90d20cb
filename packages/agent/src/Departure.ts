/**
 * Why the agent goes away decides what happens to its sandboxes: a SIGTERM is somebody's order and does as configured,
 * the death of the parent is an accident that sandboxes survive.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import { AgentConfig } from "./AgentConfig.ts"

/** `sandboxes` says what to do with them at the end; `parentGone` completes when the agent should end by itself. */
export class Departure extends Context.Service<Departure, {
  readonly sandboxes: Effect.Effect<"stop" | "leave">
  readonly parentGone: Effect.Effect<void>
}>()("@fast-sandbox/agent/Departure") {
  static readonly layer: Layer.Layer<Departure, never, AgentConfig> = Layer.effect(
    Departure,
    Effect.gen(function*() {
      const { exitWithParent, onTerm } = yield* AgentConfig
      const sandboxes = yield* Ref.make(onTerm)
      return Departure.of({
        sandboxes: Ref.get(sandboxes),
        parentGone: exitWithParent
          ? standardInputEnded.pipe(Effect.andThen(Ref.set(sandboxes, "leave")))
          : Effect.never
      })
    })
  )
}

const standardInputEnded: Effect.Effect<void> = Effect.callback((resume) => {
  const done = () => resume(Effect.void)
  process.stdin.on("end", done).on("error", done).resume()
  return Effect.sync(() => {
    process.stdin.off("end", done).off("error", done).pause()
  })
})
