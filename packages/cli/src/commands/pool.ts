/**
 * `fsb-ctl pool`: what runs sandboxes, and how much of it there is.
 */
import { type PoolInfo, Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import { RuntimeType, type SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { LocalError, UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Manifest from "../Manifest.ts"
import * as Output from "../Output.ts"
import * as PoolView from "../PoolView.ts"
import { Screen } from "../Screen.ts"
import * as TextInput from "../TextInput.ts"

const name = Argument.String("NAME").pipe(Argument.withDescription("The pool"))

const list = Command.make(
  "list",
  { allNamespaces: Globals.allNamespaces("The pools of all namespaces") },
  Effect.fnUntraced(function*({ allNamespaces }) {
    const { pools } = yield* Sandboxes
    const now = yield* DateTime.now
    const found = yield* pools.list(allNamespaces ? { allNamespaces } : {})
    yield* Output.printAll(PoolView.pools({ now, namespaces: allNamespaces ? "all" : "one" }), found, {
      format: yield* Globals.format,
      whenEmpty: "no pools; 'fsb-ctl pool create' makes one"
    })
  })
).pipe(
  Command.withAlias("ls"),
  Command.withShortDescription("List pools"),
  Command.withDescription("Lists the pools of a namespace, or of all. AGENTS are ready/wanted, SLOTS used/total."),
  Command.withExamples([
    { command: "fsb-ctl pool list" },
    { command: "fsb-ctl pool ls -A -o wide", description: "Those of all namespaces, and what they lack" }
  ]),
  Command.annotate(Operands, ""),
  Command.provide(Globals.connection)
)

const get = Command.make(
  "get",
  { name },
  Effect.fnUntraced(function*({ name }) {
    const { pools } = yield* Sandboxes
    const now = yield* DateTime.now
    yield* Output.printOne(PoolView.pools({ now, namespaces: "one" }), yield* pools.get(name), {
      format: yield* Globals.format,
      details: PoolView.poolDetails(now)
    })
  })
).pipe(
  Command.withShortDescription("Show one pool"),
  Command.withDescription("Shows one pool: how much of it there is, what its sandboxes get, and what it lacks."),
  Command.withExamples([
    { command: "fsb-ctl pool get default-pool" },
    { command: "fsb-ctl pool get default-pool -o yaml", description: "The whole resource, as kubectl shows it" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)

const count = (name: string, metavar: string, description: string) =>
  Flag.Int(name).pipe(
    Flag.filter((value) => value >= 0, () => "0 or more"),
    Flag.withMetavar(metavar),
    Flag.withDescription(description),
    Flag.optional
  )

const capacity = {
  min: count("min", "AGENTS", "Agents that are always there"),
  max: count("max", "AGENTS", "The most agents; 0: no limit"),
  bufferMin: count("buffer-min", "SLOTS", "Free slots that are kept at least"),
  bufferMax: count("buffer-max", "SLOTS", "Free slots above which empty agents go")
}

type Capacity = Command.Command.Config.Infer<typeof capacity>

/** What was given. */
const capacityOf = ({ bufferMax, bufferMin, max, min }: Capacity): NonNullable<SandboxPoolSpec["capacity"]> => ({
  ...(Option.isSome(min) ? { poolMin: min.value } : {}),
  ...(Option.isSome(max) ? { poolMax: max.value } : {}),
  ...(Option.isSome(bufferMin) ? { bufferMin: bufferMin.value } : {}),
  ...(Option.isSome(bufferMax) ? { bufferMax: bufferMax.value } : {})
})

const printChanged = Effect.fnUntraced(function*(pool: PoolInfo) {
  const now = yield* DateTime.now
  yield* Output.printChanged(PoolView.pools({ now, namespaces: "one" }), pool, {
    format: yield* Globals.OutputFormat,
    details: PoolView.poolDetails(now)
  })
})

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

const networks = ["private", "pod", "none"] as const

const createFlags = {
  name: name.pipe(Argument.optional),
  ...capacity,
  slots: count("slots", "N", "Sandboxes that one agent may hold"),
  runtime: Flag.Literals("runtime", RuntimeType.literals).pipe(
    Flag.withMetavar("TYPE"),
    Flag.withDescription(`${RuntimeType.literals.join(", ")}; container by default`),
    Flag.optional
  ),
  network: Flag.Literals("network", networks).pipe(
    Flag.withMetavar("KIND"),
    Flag.withDescription(`${networks.join(", ")}; private by default`),
    Flag.optional
  ),
  cpu: text("cpu", "QUANTITY", "Limit of each sandbox, such as 500m"),
  memory: text("memory", "QUANTITY", "Limit of each sandbox, such as 256Mi"),
  pids: count("pids", "N", "Limit of each sandbox: processes and threads"),
  warm: Flag.String("warm").pipe(
    Flag.withMetavar("IMAGE[=N]"),
    Flag.withDescription("Keep an image ready, and N started containers of it on each agent"),
    Flag.atLeast(0)
  ),
  file: text("file", "FILE", "Read a SandboxPool from a YAML file, or stdin (-); flags go before it").pipe(
    Flag.withAlias("f")
  )
}

type CreateFlags = Command.Command.Config.Infer<typeof createFlags>

const warmImage = (
  text: string
): Effect.Effect<NonNullable<SandboxPoolSpec["warmImages"]>[number], InvalidArgument> => {
  const at = text.lastIndexOf("=")
  const image = at < 0 ? text : text.slice(0, at)
  const parked = at < 0 ? 0 : Number(text.slice(at + 1))
  return image === "" || !Number.isInteger(parked) || parked < 0
    ? Effect.fail(new InvalidArgument({ field: "--warm", problem: `${JSON.stringify(text)} is not IMAGE or IMAGE=N` }))
    : Effect.succeed({ image, parked })
}

/** What the flags ask for, over what a file says. */
const specOf = Effect.fnUntraced(function*(flags: CreateFlags, file: SandboxPoolSpec) {
  const { cpu, memory, network, pids, runtime, slots } = flags
  const warmImages = yield* Effect.forEach(flags.warm, warmImage)
  const sandboxResources = {
    ...file.sandboxResources,
    ...(Option.isSome(cpu) ? { cpu: cpu.value } : {}),
    ...(Option.isSome(memory) ? { memory: memory.value } : {}),
    ...(Option.isSome(pids) ? { pids: pids.value } : {})
  }
  return {
    ...file,
    capacity: { ...file.capacity, ...capacityOf(flags) },
    ...(Option.isSome(slots) ? { maxSandboxesPerPod: slots.value } : {}),
    ...(Option.isSome(runtime) ? { runtimeType: runtime.value } : {}),
    ...(Option.isSome(network) ? { network: network.value } : {}),
    ...(Object.keys(sandboxResources).length > 0 ? { sandboxResources } : {}),
    ...(warmImages.length > 0 ? { warmImages } : {})
  }
})

const readPool = Effect.fnUntraced(function*(path: string) {
  return yield* Manifest.parsePool(yield* TextInput.read(path)).pipe(
    Effect.mapError(({ line, problem }) => new LocalError({ problem: `${TextInput.nameOf(path)}:${line}: ${problem}` }))
  )
})

const create = Command.make(
  "create",
  createFlags,
  Effect.fnUntraced(function*(flags) {
    const { pools } = yield* Sandboxes
    const manifest = Option.isSome(flags.file) ? yield* readPool(flags.file.value) : undefined
    const name = Option.getOrElse(flags.name, () => manifest?.metadata.name ?? "")
    if (name === "") return yield* new UsageError({ command: "pool create", problem: "NAME is missing" })
    yield* printChanged(
      yield* pools.create(name, {
        namespace: manifest?.metadata.namespace,
        labels: manifest?.metadata.labels,
        spec: yield* specOf(flags, manifest?.spec ?? {})
      })
    )
  })
).pipe(
  Command.withShortDescription("Make a pool"),
  Command.withDescription("Makes a pool from flags, or from a file."),
  Command.withExamples([
    { command: "fsb-ctl pool create small --min 1 --max 3 --slots 20", description: "Up to 60 sandboxes" },
    {
      command: "fsb-ctl pool create py --buffer-min 10 --warm python:3.13=10",
      description: "Ten slots that start at once"
    },
    { command: "fsb-ctl pool create -f pool.yaml", description: "As 'kubectl apply' takes it" }
  ]),
  Command.annotate(Operands, "[NAME]"),
  Command.provide(Globals.connection)
)

const scale = Command.make(
  "scale",
  { name, ...capacity },
  Effect.fnUntraced(function*({ name, ...flags }) {
    const { pools } = yield* Sandboxes
    const change = capacityOf(flags)
    if (Object.keys(change).length === 0) {
      return yield* new UsageError({
        command: "pool scale",
        problem: "there is nothing to change; give --min, --max, --buffer-min or --buffer-max"
      })
    }
    yield* printChanged(yield* pools.scale(name, change))
  })
).pipe(
  Command.withShortDescription("Change how much of a pool there is"),
  Command.withDescription(
    "Changes a pool's bounds. An agent that holds a sandbox is never removed: it is drained first."
  ),
  Command.withExamples([
    { command: "fsb-ctl pool scale default-pool --min 3", description: "At least three agents" },
    {
      command: "fsb-ctl pool scale default-pool --max 10",
      description: "At most ten"
    }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)

const remove = Command.make(
  "delete",
  {
    name,
    force: Flags.presence("force", "Although it holds sandboxes, which are lost then")
  },
  Effect.fnUntraced(function*({ force, name }) {
    const { pools } = yield* Sandboxes
    yield* pools.delete(name, { force })
    yield* (yield* Screen).data(`${name}\n`)
  })
).pipe(
  Command.withAlias("rm"),
  Command.withShortDescription("Delete a pool and its agents"),
  Command.withDescription("Deletes a pool and its agents. Refuses while the pool holds sandboxes."),
  Command.withExamples([{ command: "fsb-ctl pool delete small" }]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)

/** `fsb-ctl pool` */
export const pools = Command.make("pool").pipe(
  Command.withShortDescription("List, make, scale and delete pools"),
  Command.withDescription("A pool is a number of agents that hold slots for sandboxes ready."),
  Command.withSubcommands([list, get, create, scale, remove])
)
