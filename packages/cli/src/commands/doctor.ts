/**
 * `fsb-ctl doctor`
 */
import type { Finding } from "@fast-sandbox/local/Doctor"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as ExitCode from "../ExitCode.ts"
import { Ended } from "../Failure.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"

const view: Output.View<Finding> = {
  columns: [
    { heading: "CHECK", cell: ({ check }) => check },
    { heading: "STATE", cell: ({ state }) => state },
    { heading: "DETAIL", cell: ({ detail }) => detail, narrow: "wrap" }
  ],
  wideColumns: [{ heading: "FIX", cell: ({ fix }) => fix ?? "", narrow: "wrap" }],
  name: ({ check }) => `check/${check}`,
  object: (finding) => finding
}

// what looks at the machine is part of the large half of fsb-ctl, which other commands do without
const load = Effect.promise(async () => ({
  Doctor: await import("@fast-sandbox/local/Doctor"),
  Home: await import("@fast-sandbox/local/Home")
}))

/** `fsb-ctl doctor` */
export const doctor = Command.make(
  "doctor",
  { home: Globals.home },
  Effect.fnUntraced(function*({ home }) {
    const screen = yield* Screen
    const { Doctor, Home } = yield* load
    const findings = yield* Effect.flatMap(Home.make(home), Doctor.report)
    yield* Output.printAll(view, findings, {
      format: yield* Globals.format,
      whenEmpty: "nothing to check"
    })
    for (const { check, fix } of findings) {
      if (fix !== undefined) yield* screen.talk(`${check}: ${fix}\n`)
    }
    if (findings.some(({ state }) => state === "missing")) return yield* new Ended({ exitCode: ExitCode.OURS })
  })
).pipe(
  Command.withShortDescription("Check whether this machine can run sandboxes"),
  Command.withDescription("Checks what 'fsb-ctl up' needs of this machine, and says how to get what is missing."),
  Command.withExamples([{ command: "fsb-ctl doctor" }]),
  Command.annotate(Operands, "")
)
