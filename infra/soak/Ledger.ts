/**
 * What the stack has promised: every sandbox that was asked for, and what it must be by the answers that were given.
 */
import type { Program } from "./Programs.ts"

/**
 * - asked: a create is under way
 * - unsure: a call ended without an answer that tells what became of it
 * - refused: the create was refused, so there must be nothing
 * - there: acknowledged and not deleted
 * - deleted: its deletion was acknowledged
 */
export type Promised = "asked" | "unsure" | "refused" | "there" | "deleted"

/** One sandbox, by its name, which is never used twice. */
export interface Entry {
  readonly name: string
  readonly program: Program
  /** How it was asked for. */
  readonly via: "fast" | "strong" | "apply"
  readonly askedAtMillis: number
  promised: Promised
  /** The instance that was acknowledged; absent when none was, or when a reset has asked for another one. */
  instanceId?: string | undefined
  /** The instance that a reset replaces. */
  replaced?: string | undefined
  /** An operation has it, and no other one takes it. */
  isBusy: boolean
}

/** The promises of one run. */
export class Ledger {
  readonly entries = new Map<string, Entry>()
  /** When a shim was killed, which is what may end a program from outside. */
  readonly shimKillsMillis: Array<number> = []
  /** Answers that must not be given, as they come. */
  readonly wrongAnswers: Array<string> = []
  /** Failures of calls, by what they say. */
  readonly failures = new Map<string, number>()
  creates = 0
  acknowledged = 0
  deletes = 0
  resets = 0
  kills = 0

  add(entry: Entry): Entry {
    this.entries.set(entry.name, entry)
    return entry
  }

  /** Those that an operation may take now. */
  idle(): ReadonlyArray<Entry> {
    return [...this.entries.values()].filter(({ isBusy, promised }) => !isBusy && promised === "there")
  }

  countFailure(operation: string, error: { readonly _tag: string; readonly message: string }): void {
    const key = `${operation}: ${error._tag}: ${error.message.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}|s\d+-\d+/g, "*")}`
    this.failures.set(key, (this.failures.get(key) ?? 0) + 1)
  }

  /** Whether a kill may have ended this sandbox's program. */
  wasHit({ askedAtMillis }: Entry): boolean {
    return this.shimKillsMillis.some((at) => at >= askedAtMillis)
  }
}
