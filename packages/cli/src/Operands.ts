/**
 * How many of a command line's operands stand behind `--`. The parser hands them over without that mark, but for `run`
 * they are the program, not a name.
 */
import * as Context from "effect/Context"

/** The number of operands behind `--`. */
export const TrailingOperands: Context.Reference<number> = Context.Reference<number>(
  "@fast-sandbox/cli/Operands/TrailingOperands",
  { defaultValue: () => 0 }
)

const MARK = "--"

/** Counts them in a command line. */
export const countTrailing = (args: ReadonlyArray<string>): number => {
  const at = args.indexOf(MARK)
  return at < 0 ? 0 : args.length - at - 1
}
