/**
 * `fsb-ctl delete`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as ExitCode from "../ExitCode.ts"
import { describe, Ended } from "../Failure.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import { Screen } from "../Screen.ts"

/** Deletions wait for programs to stop; so many may wait at once. */
const CONCURRENCY = 16

/** `fsb-ctl delete` */
export const remove = Command.make(
  "delete",
  {
    names: Argument.String("NAME").pipe(
      Argument.withDescription("The sandboxes"),
      Argument.variadic({ min: 1 })
    ),
    wait: Flag.Boolean("wait").pipe(
      Flag.withDescription("Return when they are gone; --no-wait: when it is certain that they go"),
      Flag.withDefault(true)
    )
  },
  Effect.fnUntraced(function*({ names, wait }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const results = yield* Effect.forEach(names, (name) =>
      sandboxes.delete(name).pipe(
        Effect.andThen(wait ? sandboxes.waitForDeletion(name) : Effect.void),
        Effect.matchEffect({
          onSuccess: () => Effect.as(screen.data(`${name}\n`), true),
          onFailure: (failure) => Effect.as(screen.talk(describe(failure)), false)
        })
      ), { concurrency: CONCURRENCY })
    if (results.includes(false)) return yield* new Ended({ exitCode: ExitCode.OURS })
  })
).pipe(
  Command.withAlias("rm"),
  Command.withShortDescription("Stop sandboxes and delete them"),
  Command.withDescription(
    "Stops sandboxes gracefully and deletes them, with their logs. Prints the name of each that was deleted."
  ),
  Command.withExamples([
    { command: "fsb-ctl delete web", description: "One sandbox" },
    { command: "fsb-ctl rm web job-1 job-2", description: "Several at once" },
    { command: "fsb-ctl rm --no-wait web", description: "Without waiting for the program to stop" }
  ]),
  Command.annotate(Operands, "NAME..."),
  Command.provide(Globals.connection)
)
