/**
 * What goes wrong: processes of the stack are killed or held, one after the other, at random.
 */
import type { Seed } from "@fast-sandbox/testkit/sim/Seed"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Ledger } from "./Ledger.ts"
import type { SoakStack } from "./SoakStack.ts"

/**
 * - stack: the process of API server, controller and janitor is killed, and started again by `up`
 * - agent, shim, containerd: one is killed, and whoever keeps it has to bring it back
 * - janitor: the one beside the stack is killed, maybe between two of its removals, and started again
 * - pause: an agent is stopped for some seconds
 */
export const kinds = ["stack", "agent", "shim", "containerd", "janitor", "pause"] as const

/** One kind of fault. */
export type Kind = typeof kinds[number]

/** Between two faults, at least and at most. */
const pauseSeconds = { least: 3, most: 10 } as const

/** An agent is held for so long, at least and at most: shorter than the silence after which it is lost. */
const holdSeconds = { least: 2, most: 8 } as const

// Whatever is gone already needs no kill.
const signal = (pid: number, name: NodeJS.Signals) => Effect.ignore(Effect.try(() => process.kill(pid, name)))

const say = (text: string) => Effect.logInfo(`fault: ${text}`)

const inflict = Effect.fn("Faults.inflict")(function*(stack: SoakStack, ledger: Ledger, seed: Seed, kind: Kind) {
  switch (kind) {
    case "stack": {
      const pid = yield* stack.stackPid
      if (Option.isSome(pid)) {
        yield* say(`kill stack ${pid.value}`)
        yield* signal(pid.value, "SIGKILL")
        ledger.kills++
        yield* Effect.sleep(seed.below(1500))
      }
      return yield* stack.up
    }
    case "agent": {
      const pid = seed.pick(yield* stack.agentPids)
      if (pid === undefined) return
      yield* say(`kill agent ${pid}`)
      ledger.kills++
      return yield* signal(pid, "SIGKILL")
    }
    case "shim": {
      const pid = seed.pick(yield* stack.shimPids)
      if (pid === undefined) return
      yield* say(`kill shim ${pid}`)
      ledger.kills++
      yield* signal(pid, "SIGKILL")
      ledger.shimKillsMillis.push(yield* Clock.currentTimeMillis)
      return
    }
    case "containerd":
    case "janitor": {
      const pid = yield* kind === "janitor" ? stack.janitorPid : stack.containerdPid
      if (Option.isNone(pid)) return
      yield* say(`kill ${kind} ${pid.value}`)
      ledger.kills++
      return yield* signal(pid.value, "SIGKILL")
    }
    case "pause": {
      const pid = seed.pick(yield* stack.agentPids)
      if (pid === undefined) return
      const seconds = seed.between(holdSeconds.least, holdSeconds.most)
      yield* say(`hold agent ${pid} for ${seconds} s`)
      ledger.kills++
      yield* signal(pid, "SIGSTOP")
      yield* Effect.sleep(`${seconds} seconds`).pipe(Effect.ensuring(signal(pid, "SIGCONT")))
    }
  }
})

/** Faults of these kinds until `isOver`. */
export const rage = Effect.fn("Faults.rage")(function*(
  stack: SoakStack,
  ledger: Ledger,
  seed: Seed,
  allowed: ReadonlyArray<Kind>,
  isOver: () => boolean
) {
  while (!isOver()) {
    yield* Effect.sleep(`${seed.between(pauseSeconds.least, pauseSeconds.most)} seconds`)
    const kind = seed.pick(allowed)
    if (kind !== undefined && !isOver()) yield* inflict(stack, ledger, seed, kind)
  }
})
