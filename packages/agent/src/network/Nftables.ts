/**
 * Loads rules: one transaction, which replaces the agent's table as a whole. It is rare (the agent's start, or somebody
 * threw the table away), so that `nft` may do it; single elements go through `Nfnetlink`.
 */
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

/** `nft` is missing, or refused. */
export class NftablesError extends Schema.TaggedError<NftablesError>()("NftablesError", {
  problem: Schema.String
}) {
  override get message(): string {
    return `nft: ${this.problem}`
  }
}

/** Carries a script out: all of it or nothing. */
export const load = Effect.fn("Nftables.load")(function*(
  script: string
): Effect.fn.Return<void, NftablesError, ChildProcessSpawner.ChildProcessSpawner> {
  yield* Effect.gen(function*() {
    const handle = yield* ChildProcess.make("nft", ["-f", "-"], {
      stdin: Stream.make(new TextEncoder().encode(script))
    })
    const output = yield* handle.all.pipe(Stream.decodeText(), Stream.mkString)
    const exitCode = yield* handle.exitCode
    if (exitCode !== 0) {
      return yield* new NftablesError({ problem: output.trim().split("\n")[0] || `exit code ${exitCode}` })
    }
  }).pipe(
    Effect.scoped,
    Effect.catchTag("PlatformError", ({ message }) => Effect.fail(new NftablesError({ problem: message })))
  )
})
