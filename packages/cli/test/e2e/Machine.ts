/**
 * What the stack under test has on the machine: its containers, its agents and its own process, seen from outside.
 */
import * as Proc from "@fast-sandbox/containerd/Proc"
import { Effect, FileSystem, Schema } from "effect"
import * as LocalStack from "./LocalStack.ts"
import * as Resources from "./Resources.ts"

const decodePid = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Struct({ pid: Schema.Int })))

const words = (text: string): ReadonlyArray<string> => text.split(/\s+/).filter((word) => word !== "")

const ctr = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(LocalStack.LocalStack, ({ home }) =>
    Resources.stdoutOf(
      LocalStack.run("ctr", ["-a", `${home}/containerd/containerd.sock`, "-n", "k8s.io", ...args])
    ))

const decodeLabels = Schema.decodeUnknownEffect(
  Schema.fromJsonString(Schema.Struct({ Labels: Schema.Record(Schema.String, Schema.String) }))
)

const listed = (...filters: ReadonlyArray<string>) => Effect.map(ctr("containers", "list", "-q", ...filters), words)

/**
 * The instance ids of all sandboxes that have a container; of one sandbox when its name is given. A parked slot is told
 * whose it is a moment after it was claimed.
 */
export const containers = (sandboxName?: string) => {
  const label = "labels.\"fast-sandbox.io/sandbox-name\""
  return Effect.flatMap(
    listed(sandboxName === undefined ? label : `${label}==${sandboxName}`),
    (ids) =>
      Effect.forEach(ids, (id) =>
        ctr("containers", "info", id).pipe(
          Effect.flatMap(decodeLabels),
          Effect.map(({ Labels }) => Labels["fast-sandbox.io/id"] ?? id)
        ))
  )
}

/** The ids of containers that are no sandboxes: parked slots and what holds shims. */
export const waiting = Effect.gen(function*() {
  const sandboxes = new Set(yield* listed("labels.\"fast-sandbox.io/sandbox-name\""))
  return (yield* listed()).filter((id) => !sandboxes.has(id))
})

/** The process of an agent: it lives in its Pod's folder. */
export const agentProcess = Effect.fnUntraced(function*(pod: string) {
  const { home } = yield* LocalStack.LocalStack
  const files = yield* FileSystem.FileSystem
  for (const { args, pid } of yield* Proc.processes) {
    if (args.some((arg) => arg.endsWith("agent.cjs"))) {
      const directory = yield* Effect.orElseSucceed(files.readLink(`/proc/${pid}/cwd`), () => "")
      if (directory === `${home}/agents/${pod}`) return pid
    }
  }
  return yield* Effect.die(new Error(`agent ${pod} has no process`))
})

/** The ids of the processes with exactly this command line. */
export const processesOf = (...command: ReadonlyArray<string>) =>
  Effect.map(
    Proc.processes,
    (processes) =>
      processes.filter(({ args }) => args.join("\0").replace(/\0$/, "") === command.join("\0")).map(({ pid }) => pid)
  )

/** The ids of processes that have ended and that the stack's shims, whose children they became, have not waited for. */
export const zombies = Effect.gen(function*() {
  const { home } = yield* LocalStack.LocalStack
  const files = yield* FileSystem.FileSystem
  const shims = new Set((yield* Proc.shims(`${home}/containerd/containerd.sock`)).map(({ pid }) => String(pid)))
  const pids = (yield* files.readDirectory("/proc")).filter((name) => /^\d+$/.test(name))
  const stats = yield* Effect.forEach(
    pids,
    (pid) => Effect.orElseSucceed(files.readFileString(`/proc/${pid}/stat`), () => "")
  )
  // pid (name) state parent
  return stats.flatMap((stat) => {
    const [, pid = "", parent = ""] = /^(\d+) \(.*\) Z (\d+) /s.exec(stat) ?? []
    return shims.has(parent) ? [pid] : []
  })
})

/** The stack's own process. */
export const stackProcess = Effect.gen(function*() {
  const { home } = yield* LocalStack.LocalStack
  const files = yield* FileSystem.FileSystem
  return (yield* decodePid(yield* files.readFileString(`${home}/run/stack.pid`))).pid
})

/** Kills the stack's own process without a warning. Its agents notice the end of it and go too. */
export const killStack = Effect.map(stackProcess, (pid) => {
  process.kill(pid, "SIGKILL")
})
