/**
 * How fast the Registry reserves, on one core:
 *
 *     node packages/controller/bench/registry.ts [agents=1000] [slots=100] [images=10] [samples.json]
 *
 * Fills a quarter of one pool's slots to warm up, measures the next half one reservation at a time, and prints percentiles
 * of the call of `reserve` in microseconds. Each reservation has a scope of its own and is confirmed, as every create does
 * it; that is in the rate, which counts all of it. Agents' views are in neither: what one costs is printed beside. With a
 * file name the samples are written to it.
 */
import { create } from "@bufbuild/protobuf"
import { type Image, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Agent from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { writeFileSync } from "node:fs"
import { cpus } from "node:os"
import type { AgentView } from "../src/agents/Agents.ts"
import { make } from "../src/registry/Registry.ts"

const [agentCount = 1000, slots = 100, imageCount = 10] = process.argv.slice(2, 5).map(Number)
const file = process.argv[5]

const images: ReadonlyMap<string, Image> = new Map(
  Array.from({ length: imageCount }, (_, index) => {
    const name = `docker.io/library/image-${index}:latest`
    return [name, create(Agent.ImageSchema, { name, digest: `sha256:${String(index).padStart(64, "0")}` })]
  })
)

const viewOf = (index: number): AgentView => ({
  uid: `agent-uid-${index}`,
  pod: `pool-agent-${index}`,
  namespace: "default",
  pool: "default-pool",
  node: `node-${index}`,
  connection: "synced",
  since: 0,
  draining: false,
  slots,
  slotsUsed: 0,
  portsUsed: new Set(),
  capacityRevision: 0n,
  instances: new Map(),
  images,
  parked: new Map(),
  warmImages: [],
  runtimeNotes: [],
  runtimeProblem: undefined
})

const percentile = (sorted: ReadonlyArray<number>, share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0

const summary = (samples: ReadonlyArray<number>) => {
  const sorted = samples.toSorted((left, right) => left - right)
  const micros = (share: number) => percentile(sorted, share).toFixed(1)
  const total = samples.reduce((sum, sample) => sum + sample, 0)
  return `p50 ${micros(0.5)} us, p99 ${micros(0.99)} us, p99.9 ${micros(0.999)} us, max ${micros(1)} us, ` +
    `mean ${(total / samples.length).toFixed(1)} us (${samples.length} samples)`
}

const program = Effect.gen(function*() {
  const registry = yield* make
  yield* Effect.forEach(Array.from({ length: agentCount }, (_, index) => viewOf(index)), registry.upsertAgent, {
    discard: true
  })
  let created = 0
  const reserve = (scope: Scope.Scope) =>
    Effect.suspend(() => {
      const id = created++
      return registry.reserve({
        instanceId: `instance-${id}`,
        namespace: "default",
        name: `sandbox-${id}`,
        pool: "default-pool",
        image: "docker.io/library/image-3:latest",
        ports: []
      })
    }).pipe(Scope.provide(scope))

  /** The slot stays taken, as by an agent that has the instance; gives the duration of the reservation, in microseconds. */
  const take = Effect.gen(function*() {
    const scope = yield* Scope.make()
    const before = performance.now()
    const reservation = yield* reserve(scope)
    const micros = (performance.now() - before) * 1000
    yield* registry.confirm(reservation)
    yield* Scope.close(scope, Exit.void)
    return micros
  })

  const total = agentCount * slots
  for (let n = 0; n < total / 4; n++) {
    yield* take
  }
  const samples: Array<number> = []
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  for (let n = 0; n < total / 2; n++) {
    samples.push(yield* take)
  }
  const perSecond = samples.length * 1000 / (performance.now() - startedAt)
  yield* Console.log(
    `${agentCount} agents, ${slots} slots each, ${imageCount} images each, ${cpus()[0]?.model}, Node ${process.version}`
  )
  yield* Console.log(`reserve: ${summary(samples)}`)
  yield* Console.log(`rate: ${Math.round(perSecond)} reservations a second, each confirmed`)

  const { system, user } = process.cpuUsage(cpuBefore)
  // The collector's threads count too, so this is what a reservation costs when the machine has other work.
  yield* Console.log(
    `CPU: ${((system + user) / samples.length).toFixed(1)} us for each reservation and its confirmation, all threads`
  )

  const views: Array<number> = []
  for (let index = 0; index < Math.min(agentCount, 1000); index++) {
    const view = viewOf(index)
    const instances = Array.from({ length: slots }, (_, slot) =>
      create(Agent.InstanceSchema, {
        instanceId: `shown-${index}-${slot}`,
        claim: { namespace: "default", sandboxName: `shown-${index}-${slot}` },
        state: InstanceState.RUNNING
      }))
    const shown: AgentView = { ...view, instances: new Map(instances.map((one) => [one.instanceId, one])) }
    const before = performance.now()
    yield* registry.upsertAgent(shown)
    views.push((performance.now() - before) * 1000)
  }
  yield* Console.log(`upsertAgent with ${slots} new instances: ${summary(views)}`)
  if (file !== undefined) {
    writeFileSync(
      file,
      JSON.stringify({ agentCount, slots, imageCount, perSecond, reserveMicros: samples, upsertMicros: views })
    )
  }
})

Effect.runFork(program)
