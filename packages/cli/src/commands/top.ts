/**
 * `fsb-ctl top`
 */
import { type ProcessInfo, Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as Progress from "../Progress.ts"
import * as SandboxOperand from "../SandboxOperand.ts"

const NANOS_PER_SECOND = 1_000_000_000
const SECONDS_PER_MINUTE = 60

/** `1:02.30`: minutes, seconds and hundredths, as top writes processor time. */
const formatTime = (nanos: number): string => {
  const seconds = nanos / NANOS_PER_SECOND
  const minutes = Math.floor(seconds / SECONDS_PER_MINUTE)
  return `${minutes}:${(seconds - minutes * SECONDS_PER_MINUTE).toFixed(2).padStart(5, "0")}`
}

const view: Output.View<ProcessInfo> = {
  columns: [
    { heading: "PID", cell: ({ pid }) => String(pid) },
    { heading: "PPID", cell: ({ parentPid }) => String(parentPid) },
    { heading: "UID", cell: ({ userId }) => String(userId) },
    { heading: "S", cell: ({ state }) => state },
    { heading: "RSS", cell: ({ memoryBytes }) => Progress.formatBytes(memoryBytes) },
    { heading: "TIME", cell: ({ cpuNanos }) => formatTime(cpuNanos) },
    { heading: "COMMAND", cell: ({ command }) => command.join(" "), narrow: "wrap" }
  ],
  wideColumns: [],
  name: ({ pid }) => `process/${pid}`,
  object: (process) => process
}

/** `fsb-ctl top` */
export const top = Command.make(
  "top",
  { name: SandboxOperand.make() },
  Effect.fnUntraced(function*({ name }) {
    const sandboxes = yield* Sandboxes
    const processes = yield* sandboxes.inside(name).processes
    yield* Output.printAll(view, processes, { format: yield* Globals.format, whenEmpty: "no processes" })
  })
).pipe(
  Command.withShortDescription("List the processes of a sandbox"),
  Command.withDescription(
    "Lists the processes of a sandbox with the ids that they have inside, their users, memory and processor time."
  ),
  Command.withExamples([{ command: "fsb-ctl top web" }]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
