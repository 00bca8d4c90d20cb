/**
 * The pacing of self-healing: how long a sandbox that failed or was lost waits before its next instance is started, and
 * after how many recoveries in a row it is given up. Only the number of the attempt and the instant of the next one are
 * stored (in the status), so the pacing goes on where it was after a restart of the controller.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Conditions from "./Conditions.ts"
import type { SandboxStatus } from "./Sandbox.ts"

/** The first pause: short, because most failures are over at once. */
export const base: Duration.Duration = Duration.seconds(1)

/** The longest pause before jitter: a sandbox whose cause was repaired is back within this time. */
export const cap: Duration.Duration = Duration.minutes(5)

/** Recoveries in a row after which the sandbox stays Failed: more than an hour of trying. */
export const attempts = 20

/** An instance that ran for this long was healthy: what fails afterwards is a new story with attempt 1. */
export const stableRunMillis = Duration.toMillis(Duration.minutes(10))

/** Schedule.jittered scales by at most this. */
const jitterFactor = 1.2

/** The longest pause that the schedule can give, in milliseconds. What the status says beyond it was not written by us. */
export const longestMillis = Duration.toMillis(cap) * jitterFactor

/** 1 s, 2 s, 4 s ... capped at 5 min, each scaled by 0.8 to 1.2 so that the sandboxes of a lost agent spread; 20 times. */
export const schedule: Schedule.Schedule<Duration.Duration> = Schedule.min([
  Schedule.exponential(base, 2),
  Schedule.spaced(cap)
]).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: attempts })
)

/** What became of a recovery: its next attempt has an instant, there will be no other, or its instance ran for long. */
export type Turn = "scheduled" | "exhausted" | "held"

/** What a change of a status says of its sandbox's recovery; undefined when nothing. */
export const turnOf = (before: SandboxStatus | undefined, after: SandboxStatus): Turn | undefined => {
  const attempt = before?.recovery?.attempt ?? 0
  const nextAttempt = after.recovery?.attempt ?? 0
  if (nextAttempt > attempt) return "scheduled"
  const { recoveryExhausted } = Conditions.reasons
  if (after.reason === recoveryExhausted && before?.reason !== recoveryExhausted) return "exhausted"
  return attempt > 0 && nextAttempt === 0 && after.phase === "Running" ? "held" : undefined
}

/**
 * One draw of the pauses before attempts 1, 2, 3 ... in milliseconds, as {@link schedule} gives them; as many as there
 * are attempts.
 */
export const drawDelays: Effect.Effect<ReadonlyArray<number>> = Effect.gen(function*() {
  const step = yield* Schedule.toStep(schedule)
  const delays: Array<number> = []
  // The schedule ends by itself; the bound keeps a future edit of it from looping for ever.
  while (delays.length <= attempts) {
    const delay = yield* step(0, undefined).pipe(
      Effect.map(([, duration]) => Duration.toMillis(duration)),
      Pull.catchDone(() => Effect.succeed(undefined))
    )
    if (delay === undefined) {
      break
    }
    delays.push(delay)
  }
  return delays
})
