/**
 * `make soak`: a random workload on a stack of its own, while its processes are killed at random; after every epoch
 * what was promised is compared with what is, everything is deleted, and nothing may be left.
 *
 *   node infra/soak/main.ts [--minutes 10] [--seed 1] [--faults stack,agent,shim,containerd,janitor,pause]
 *
 * The seed determines what is asked for and what is killed; when exactly the machine does it, it does not.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Seed } from "@fast-sandbox/testkit/sim/Seed"
import { Clock, Console, Effect, FileSystem, Logger, Schedule } from "effect"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Command from "../bench/Command.ts"
import * as Check from "./Check.ts"
import * as Faults from "./Faults.ts"
import { Ledger } from "./Ledger.ts"
import * as Leftovers from "./Leftovers.ts"
import * as SoakStack from "./SoakStack.ts"
import * as Workload from "./Workload.ts"

const repository = fileURLToPath(new URL("../..", import.meta.url))

/** Calls at once, at most. */
const users = 8

/** How long an epoch works before it is checked. */
const epochMillis = 60_000

/** How long deletions and what follows them may take, without the janitor. */
const emptyWithin = "90 seconds"

/** The janitor looks every 2 minutes and removes what it sees again a minute later. */
const janitorWithin = "4 minutes"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(process.pid) },
    faults: { type: "string", default: Faults.kinds.join(",") }
  }
})
const minutes = Number(values.minutes)
const seedNumber = Number(values.seed)
const allowed = Faults.kinds.filter((kind) => values.faults.split(",").includes(kind))

const untilEmpty = (
  stack: SoakStack.SoakStack,
  ledger: Ledger,
  idle: ReadonlyArray<string>,
  within: "90 seconds" | "4 minutes"
) => {
  let left: ReadonlyArray<string> = []
  const look = Effect.gen(function*() {
    const { length } = yield* (yield* Sandboxes).list({ deadline: "5 seconds" })
    const now = Leftovers.added(idle, yield* Leftovers.take(stack, ledger))
    left = length === 0 ? now : [`${length} sandboxes are still listed`, ...now]
    return left.length === 0
  }).pipe(Effect.catch((error) =>
    Effect.sync(() => {
      left = [`the stack can't be asked: ${String(error)}`]
      return false
    })
  ))
  return look.pipe(
    Effect.repeat({ schedule: Schedule.spaced("1 second"), until: (isEmpty) => isEmpty }),
    Effect.timeoutOrElse({ duration: within, orElse: () => Effect.void }),
    Effect.andThen(Effect.sync(() => left))
  )
}

/** Two looks this far apart that see the same are taken for the state of rest. */
const stillFor = "3 seconds"

const untilStill = Effect.fnUntraced(function*<E, R>(look: Effect.Effect<ReadonlyArray<string>, E, R>) {
  let before = yield* look
  return yield* look.pipe(
    Effect.delay(stillFor),
    Effect.map((now) => {
      const isStill = now.join() === before.join()
      before = now
      return { isStill, now }
    }),
    Effect.repeat({ until: ({ isStill }) => isStill }),
    Effect.map(({ now }) => now)
  )
})

const deleteAll = Effect.fnUntraced(function*(ledger: Ledger) {
  const sandboxes = yield* Sandboxes
  const listed = new Set((yield* sandboxes.list({ deadline: "20 seconds" })).map(({ name }) => name))
  const present = [...ledger.entries.values()].filter(({ name }) => listed.has(name))
  yield* Effect.forEach(present, (entry) => Workload.remove(ledger, entry), { concurrency: users, discard: true })
})

const epoch = Effect.fnUntraced(function*(
  stack: SoakStack.SoakStack,
  ledger: Ledger,
  seed: Seed,
  number: number,
  idle: ReadonlyArray<string>
) {
  const endsAt = (yield* Clock.currentTimeMillis) + epochMillis
  const clock = yield* Clock.Clock
  const isOver = () => clock.currentTimeMillisUnsafe() >= endsAt
  const answersBefore = ledger.wrongAnswers.length
  yield* Effect.all([
    Faults.rage(stack, ledger, seed.fork("faults"), allowed, isOver),
    ...Array.from(
      { length: users },
      (_, n) => Workload.user(stack, ledger, seed.fork(`user ${n}`), `${number}${n}`, isOver)
    )
  ], { concurrency: "unbounded", discard: true })
  const startedAt = yield* Clock.currentTimeMillis
  const broken = yield* Check.settled(stack, ledger)
  const settledAt = yield* Clock.currentTimeMillis
  yield* deleteAll(ledger)
  const left = yield* untilEmpty(stack, ledger, idle, emptyWithin)
  const emptyAt = yield* Clock.currentTimeMillis
  const violations = [...ledger.wrongAnswers.slice(answersBefore), ...broken]
  yield* Console.log(
    `epoch ${number}: ${ledger.creates} asked, ${ledger.acknowledged} acknowledged, ${ledger.deletes} deletes, ` +
      `${ledger.resets} resets, ${ledger.kills} kills; settled in ${((settledAt - startedAt) / 1000).toFixed(1)} s, ` +
      `empty in ${((emptyAt - settledAt) / 1000).toFixed(1)} s; ${violations.length} violations, ${left.length} left`
  )
  for (const violation of violations) yield* Console.log(`  VIOLATION ${violation}`)
  for (const line of left.slice(0, 30)) yield* Console.log(`  left ${line}`)
  return violations
})

/** The logs of a run that failed, where `make clean` finds them. */
const keepLogs = Effect.fnUntraced(function*({ home }: SoakStack.SoakStack) {
  const files = yield* FileSystem.FileSystem
  const place = `${repository}/bench/soak-${seedNumber}`
  yield* files.makeDirectory(place, { recursive: true })
  yield* files.copyFile(home.log, `${place}/stack.log`)
  yield* files.copyFile(`${home.directory}/log/janitor.log`, `${place}/janitor.log`)
  yield* files.copyFile(`${home.containerdDirectory}/containerd.log`, `${place}/containerd.log`)
  for (const agent of yield* files.readDirectory(home.agentsDirectory)) {
    yield* files.copyFile(`${home.agentsDirectory}/${agent}/agent.log`, `${place}/${agent}.log`)
  }
  yield* Console.log(`logs are in ${place}`)
}, (self) => Effect.ignore(self))

const main = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-soak-" })
  yield* Console.log(`soak: seed ${seedNumber}, ${minutes} minutes, faults ${allowed.join(",")}, below ${directory}`)
  yield* Command.run(process.execPath, [`${repository}/infra/images/busybox.ts`])
  const stack = yield* SoakStack.make(repository, directory)
  yield* Effect.gen(function*() {
    const ledger = new Ledger()
    const seed = new Seed(seedNumber)
    const idle = yield* untilStill(Leftovers.take(stack, ledger))
    const endsAt = (yield* Clock.currentTimeMillis) + minutes * 60_000
    const violations: Array<string> = []
    for (let n = 1; (yield* Clock.currentTimeMillis) < endsAt; n++) {
      violations.push(...yield* epoch(stack, ledger, seed.fork(`epoch ${n}`), n, idle))
    }
    const leftToJanitor = yield* untilEmpty(stack, ledger, idle, emptyWithin)
    for (const line of leftToJanitor) yield* Console.log(`  for the janitor: ${line}`)
    const left = leftToJanitor.length === 0 ? [] : yield* untilEmpty(stack, ledger, idle, janitorWithin)
    violations.push(...left.map((line) => `left for good: ${line}`))
    for (const [failure, count] of ledger.failures) yield* Console.log(`  ${count} x ${failure}`)
    const verdict = violations.length === 0 ? "nothing was lost, nothing came back, nothing was left" : "FAILED"
    yield* Console.log(
      `soak: ${verdict}; seed ${seedNumber}, ${ledger.creates} sandboxes, ${ledger.kills} kills, ` +
        `${violations.length} violations, ${leftToJanitor.length} things for the janitor`
    )
    for (const violation of violations) yield* Console.log(`  ${violation}`)
    if (violations.length > 0) {
      yield* keepLogs(stack)
      yield* Console.log(
        `again: node infra/soak/main.ts --minutes ${values.minutes} --seed ${seedNumber} --faults ${allowed.join(",")}`
      )
      yield* Effect.sync(() => {
        process.exitCode = 1
      })
    }
  }).pipe(Effect.provide(Sandboxes.layer({ endpoint: stack.endpoint })))
}).pipe(Effect.scoped, Effect.provide([NodeServices.layer, Logger.layer([Logger.consolePretty()])]))

NodeRuntime.runMain(main)
