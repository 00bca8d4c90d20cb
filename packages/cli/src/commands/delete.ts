/**
 * `fsb-ctl delete` and `fsb-ctl prune`
 */
import { type ListOptions, Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import type { SandboxInfo } from "@fast-sandbox/client/SandboxInfo"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ExitCode from "../ExitCode.ts"
import { describe, Ended, UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import { Screen } from "../Screen.ts"
import * as Span from "../Span.ts"

/** Deletions wait for programs to stop; so many may wait at once. */
const CONCURRENCY = 16

const flags = {
  selector: Globals.selector("Those with these labels: key=value,..."),
  allNamespaces: Globals.allNamespaces("Those of all namespaces, with --all or -l"),
  force: Flags.presence("force", "Kill at once; don't wait for an agent that is silent"),
  wait: Flag.Boolean("wait").pipe(
    Flag.withDescription("Return when they are gone; --no-wait: when it is certain that they go"),
    Flag.withDefault(true)
  )
}

/** Which sandbox; without a namespace the connection's. */
interface Target {
  readonly name: string
  readonly namespace?: string | undefined
}

/** Deletes them all; what fails is told, and does not keep the others. */
const removeAll = Effect.fnUntraced(function*(
  targets: ReadonlyArray<Target>,
  options: { readonly wait: boolean; readonly force: boolean }
) {
  const sandboxes = yield* Sandboxes
  const screen = yield* Screen
  const results = yield* Effect.forEach(
    targets,
    ({ name, namespace }) =>
      sandboxes.delete(name, { namespace, force: options.force }).pipe(
        Effect.andThen(options.wait ? sandboxes.waitForDeletion(name, { namespace }) : Effect.void),
        Effect.matchEffect({
          onSuccess: () => Effect.as(screen.data(`${name}\n`), true),
          onFailure: (failure) => Effect.as(screen.complain(describe(failure)), false)
        })
      ),
    { concurrency: CONCURRENCY }
  )
  if (results.includes(false)) return yield* new Ended({ exitCode: ExitCode.OURS })
})

const selection = (selector: Option.Option<string>, allNamespaces: boolean): ListOptions => ({
  labelSelector: Option.getOrUndefined(selector),
  ...(allNamespaces ? { allNamespaces } : {})
})

const refuse = (problem: string): UsageError => new UsageError({ command: "delete", problem })

/** `fsb-ctl delete` */
export const remove = Command.make(
  "delete",
  {
    ...flags,
    names: SandboxOperand.make("The sandboxes").pipe(Argument.variadic()),
    all: Flags.presence("all", "All sandboxes of the namespace")
  },
  Effect.fnUntraced(function*({ all, allNamespaces, force, names, selector, wait }) {
    const isQuery = all || Option.isSome(selector)
    if (names.length > 0 && (isQuery || allNamespaces)) {
      return yield* refuse("give names, or --all or -l, but not both")
    }
    if (isQuery) {
      const screen = yield* Screen
      const found = yield* (yield* Sandboxes).list(selection(selector, allNamespaces))
      if (found.length === 0) return yield* screen.talk("no sandboxes to delete\n")
      return yield* removeAll(found, { wait, force })
    }
    if (names.length === 0) return yield* refuse("NAME is missing; --all and -l choose many")
    yield* removeAll(names.map((name) => ({ name })), { wait, force })
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
    { command: "fsb-ctl rm -l app=web", description: "Those with a label" },
    { command: "fsb-ctl rm --all --force", description: "All of the namespace, without a grace period" },
    { command: "fsb-ctl rm --no-wait web", description: "Without waiting for the program to stop" }
  ]),
  Command.annotate(Operands, "NAME... | --all | -l QUERY"),
  Command.provide(Globals.connection)
)

/** When a program ended, as far as that is known. */
const endOf = ({ createdAt, finishedAt }: SandboxInfo): DateTime.Utc => finishedAt ?? createdAt

/** `fsb-ctl prune` */
export const prune = Command.make(
  "prune",
  {
    selector: flags.selector,
    allNamespaces: flags.allNamespaces.pipe(Flag.withDescription("Those of all namespaces")),
    olderThan: Flags.optionalText("older-than", "TIME", "Only those that ended before this time: 1h, 2d"),
    dryRun: Flags.presence("dry-run", "Print what would be deleted, and delete nothing")
  },
  Effect.fnUntraced(function*({ allNamespaces, dryRun, olderThan, selector }) {
    const screen = yield* Screen
    const age = Option.isNone(olderThan) ? 0 : yield* Span.require("--older-than", olderThan.value)
    const before = DateTime.subtract(yield* DateTime.now, { milliseconds: age })
    const found = yield* (yield* Sandboxes).list(selection(selector, allNamespaces))
    const ended = found.filter((sandbox) =>
      sandbox.phase !== "Unknown" && terminal.has(sandbox.phase) &&
      DateTime.isLessThanOrEqualTo(endOf(sandbox), before)
    )
    if (ended.length === 0) return yield* screen.talk("no ended sandboxes to delete\n")
    if (dryRun) return yield* screen.data(ended.map(({ name }) => `${name}\n`).join(""))
    yield* removeAll(ended, { wait: true, force: false })
  })
).pipe(
  Command.withShortDescription("Delete sandboxes whose program has ended"),
  Command.withDescription(
    "Deletes the sandboxes whose program has ended, with their logs. What runs, or is about to, is left alone. Prints the name of each."
  ),
  Command.withExamples([
    { command: "fsb-ctl prune --dry-run", description: "What would go" },
    { command: "fsb-ctl prune -A --older-than 1d", description: "What ended a day ago or earlier, everywhere" }
  ]),
  Command.annotate(Operands, ""),
  Command.provide(Globals.connection)
)
