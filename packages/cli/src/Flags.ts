/**
 * The two forms that most flags of commands have.
 */
import * as Flag from "effect/cli/Flag"
import type * as Option from "effect/Option"

/** A text that may be left out. */
export const optionalText = (name: string, metavar: string, description: string): Flag.Flag<Option.Option<string>> =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

/** One that is given or not: `--no-NAME` is none. */
export const presence = (name: string, description: string): Flag.Flag<boolean> =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false), Flag.withoutNegation)
