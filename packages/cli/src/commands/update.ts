/**
 * `fsb-ctl update`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Pairs from "../Pairs.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import * as SandboxView from "../SandboxView.ts"
import * as Span from "../Span.ts"

const NEVER = "never"

const flags = {
  name: SandboxOperand.make(),
  ttl: Flags.optionalText("ttl", "TIME", "Stop it this long from now: 15m, 1h30m; 'never' removes the expiry"),
  expireTime: Flags.optionalText("expire-time", "DATE", "Stop it then: an RFC 3339 time"),
  failurePolicy: Flag.Literals("failure-policy", Sandbox.FailurePolicy.literals).pipe(
    Flag.withMetavar("POLICY"),
    Flag.withDescription("Manual: leave it when it fails; AutoRecreate: start it again"),
    Flag.optional
  ),
  recoveryTimeout: Flags.optionalText(
    "recovery-timeout",
    "TIME",
    "Its agent counts as lost after a silence of this time"
  ),
  labels: Flag.String("label").pipe(
    Flag.withAlias("l"),
    Flag.withMetavar("KEY=VALUE"),
    Flag.withDescription("Set a label; KEY- removes it"),
    Flag.atLeast(0)
  )
}

const MILLIS_PER_SECOND = 1000

const refuse = (problem: string): UsageError => new UsageError({ command: "update", problem })

const invalid = (field: string, problem: string): InvalidArgument => new InvalidArgument({ field, problem })

const parseSpan = (flag: string, text: string): Result.Result<number, InvalidArgument> =>
  Result.fromOption(Span.parse(text), () => invalid(flag, `${JSON.stringify(text)} is not ${Span.FORM}`))

const parseExpiry = (
  ttl: string | undefined,
  expireTime: string | undefined,
  now: DateTime.Utc
): Result.Result<DateTime.Utc | "never" | undefined, UsageError | InvalidArgument> => {
  if (ttl !== undefined && expireTime !== undefined) {
    return Result.fail(refuse("--ttl and --expire-time exclude each other"))
  }
  if (ttl === NEVER) return Result.succeed("never")
  if (ttl !== undefined) {
    return Result.map(parseSpan("--ttl", ttl), (millis) => DateTime.add(now, { milliseconds: millis }))
  }
  if (expireTime === undefined) return Result.succeed(undefined)
  return Result.fromOption(
    Span.parseDate(expireTime),
    () => invalid("--expire-time", `${JSON.stringify(expireTime)} is not a date such as 2026-12-31T23:59:59Z`)
  )
}

/** `fsb-ctl update` */
export const update = Command.make(
  "update",
  flags,
  Effect.fnUntraced(function*(flags) {
    const sandboxes = yield* Sandboxes
    const expireTime = yield* Effect.fromResult(
      parseExpiry(Option.getOrUndefined(flags.ttl), Option.getOrUndefined(flags.expireTime), yield* DateTime.now)
    )
    const recovery = Option.isNone(flags.recoveryTimeout)
      ? undefined
      : yield* Effect.fromResult(parseSpan("--recovery-timeout", flags.recoveryTimeout.value))
    const labels = yield* Effect.fromResult(
      Result.mapError(Pairs.labels(flags.labels), (problem) => invalid("--label", problem))
    )
    const failurePolicy = Option.getOrUndefined(flags.failurePolicy)
    if ([expireTime, recovery, failurePolicy].every((change) => change === undefined) && flags.labels.length === 0) {
      return yield* refuse("there is nothing to change; give at least one flag")
    }
    const sandbox = yield* sandboxes.update(flags.name, {
      expireTime,
      failurePolicy,
      recoveryTimeoutSeconds: recovery === undefined ? undefined : Math.ceil(recovery / MILLIS_PER_SECOND),
      labels
    })
    yield* SandboxView.printChanged(sandbox, yield* Globals.OutputFormat)
  })
).pipe(
  Command.withShortDescription("Change a sandbox"),
  Command.withDescription("Changes what may change after creation: the expiry, the failure policy and the labels."),
  Command.withExamples([
    { command: "fsb-ctl update web --ttl 30m", description: "Half an hour more from now" },
    {
      command: "fsb-ctl update web --ttl never -l team=blue -l old-",
      description: "No expiry; one label more, one less"
    },
    {
      command: "fsb-ctl update web --failure-policy AutoRecreate",
      description: "Start it again by itself when it fails"
    }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
