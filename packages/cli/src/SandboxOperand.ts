/**
 * Operands that name a sandbox. What `-o name` prints, `sandbox/NAME`, names it too.
 */
import * as Argument from "effect/cli/Argument"

/** Before the name, where `-o name` prints it. */
const kind = "sandbox/"

/** The name that an operand gives. */
export const nameOf = (operand: string): string => operand.startsWith(kind) ? operand.slice(kind.length) : operand

/** One such operand. */
export const make = (description = "The sandbox"): Argument.Argument<string> =>
  Argument.String("NAME").pipe(Argument.withDescription(description), Argument.map(nameOf))
