/**
 * What users do: they create sandboxes in every way, delete them, sometimes at once, and reset them. Every answer goes
 * into the ledger.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { apiVersion, defaultNamespace, defaultPool } from "@fast-sandbox/core/Names"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { Seed } from "@fast-sandbox/testkit/sim/Seed"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Entry, Ledger } from "./Ledger.ts"
import { type Program, programs } from "./Programs.ts"
import { image, type SoakStack } from "./SoakStack.ts"

/** Every call ends within this time, whatever was killed. */
const deadline = "20 seconds"

/** A worker's pause between operations, at most. */
const pauseMillis = 400

/** With more than this many at once, the machine would be measured instead of the stack. */
const liveMax = 30

/** The server has looked at the request and made nothing. */
const refusals: ReadonlySet<string> = new Set(["ResourceExhausted", "InvalidArgument"])

const create = Effect.fn("Workload.create")(function*(ledger: Ledger, entry: Entry) {
  const sandboxes = yield* Sandboxes
  ledger.creates++
  yield* sandboxes.create({
    name: entry.name,
    image,
    args: entry.program.args,
    consistencyMode: entry.via === "strong" ? "strong" : "fast",
    terminationGracePeriodSeconds: entry.program.graceSeconds,
    deadline
  }).pipe(
    Effect.match({
      onSuccess: ({ instanceId }) => {
        ledger.acknowledged++
        entry.promised = "there"
        entry.instanceId = instanceId
      },
      onFailure: (error) => {
        ledger.countFailure(`create ${entry.via}`, error)
        entry.promised = refusals.has(error._tag) ? "refused" : "unsure"
      }
    })
  )
})

const apply = Effect.fn("Workload.apply")(function*(stack: SoakStack, ledger: Ledger, entry: Entry) {
  ledger.creates++
  yield* KubeClient.use((kube) =>
    kube.apply(FastSandbox.Sandbox, {
      apiVersion,
      kind: "Sandbox",
      metadata: { name: entry.name, namespace: defaultNamespace },
      spec: {
        image,
        poolRef: defaultPool,
        args: entry.program.args,
        terminationGracePeriodSeconds: entry.program.graceSeconds
      }
    }, { fieldManager: "soak" })
  ).pipe(
    Effect.provide(stack.kube, { local: true }),
    Effect.timeout(deadline),
    Effect.match({
      onSuccess: () => {
        ledger.acknowledged++
        entry.promised = "there"
      },
      onFailure: (error) => {
        ledger.countFailure("apply", { _tag: "Apply", message: String(error) })
        entry.promised = "unsure"
      }
    })
  )
})

/** Deletes it, and notes what the answer promises. */
export const remove = Effect.fn("Workload.remove")(function*(ledger: Ledger, entry: Entry) {
  const sandboxes = yield* Sandboxes
  const before = entry.promised
  ledger.deletes++
  yield* sandboxes.delete(entry.name, { deadline }).pipe(
    Effect.match({
      onSuccess: () => {
        entry.promised = "deleted"
      },
      onFailure: (error) => {
        ledger.countFailure("delete", error)
        if (before === "there" && error._tag === "NotFound") {
          ledger.wrongAnswers.push(`${entry.name} (${entry.via}) was acknowledged, and a delete says ${error.message}`)
        }
        entry.promised = "unsure"
      }
    })
  )
})

const reset = Effect.fn("Workload.reset")(function*(ledger: Ledger, entry: Entry) {
  const sandboxes = yield* Sandboxes
  ledger.resets++
  const replaced = entry.instanceId
  entry.instanceId = undefined
  yield* sandboxes.reset(entry.name, { deadline }).pipe(
    Effect.match({
      onSuccess: () => {
        entry.replaced = replaced
      },
      onFailure: (error) => {
        ledger.countFailure("reset", error)
        if (error._tag === "NotFound") {
          ledger.wrongAnswers.push(`${entry.name} (${entry.via}) was acknowledged, and a reset says ${error.message}`)
        }
        entry.replaced = undefined
      }
    })
  )
})

const programOf = (seed: Seed): Program => seed.pick(programs) ?? programs[0]!

const exclusively = <A, E, R>(entry: Entry, operation: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    entry.isBusy = true
    return operation
  }).pipe(Effect.ensuring(Effect.sync(() => {
    entry.isBusy = false
  })))

/** One user, who works until `isOver`. `tag` makes the names that it gives unique. */
export const user = Effect.fn("Workload.user")(function*(
  stack: SoakStack,
  ledger: Ledger,
  seed: Seed,
  tag: string,
  isOver: () => boolean
) {
  for (let n = 0; !isOver(); n++) {
    const idle = ledger.idle()
    const dice = idle.length >= liveMax ? 0.9 : seed.next()
    const taken = seed.pick(idle)
    if (dice < 0.65 || taken === undefined) {
      const entry = ledger.add({
        name: `s${tag}-${n}`,
        program: programOf(seed),
        via: dice < 0.3 ? "fast" : dice < 0.5 ? "strong" : "apply",
        askedAtMillis: yield* Clock.currentTimeMillis,
        promised: "asked",
        isBusy: true
      })
      const isShort = seed.chance(0.3)
      yield* exclusively(
        entry,
        (entry.via === "apply" ? apply(stack, ledger, entry) : create(ledger, entry)).pipe(
          Effect.andThen(
            Effect.suspend(() => isShort && entry.promised === "there" ? remove(ledger, entry) : Effect.void)
          )
        )
      )
    } else {
      yield* exclusively(taken, dice < 0.75 ? reset(ledger, taken) : remove(ledger, taken))
    }
    yield* Effect.sleep(seed.below(pauseMillis))
  }
})
