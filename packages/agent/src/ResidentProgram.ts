/**
 * A native program that stays beside the agent and does for it what Node has no calls for, one request after the other
 * (see `native/resident.h`). It is started with the first request, which is answered within a few tenths of a millisecond
 * from then on, where a process of its own would take as many to start; one that ended is started again for the next.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type ChildProcessByStdio, spawn } from "node:child_process"
import { constants } from "node:os"
import type { Readable, Writable } from "node:stream"

const requestHeaderBytes = 12
const answerBytes = 8

/**
 * The kernel or the program said no. `code` is the name of the errno (`EEXIST`), or `EPIPE` when the program ended or could
 * not be started; `value` is of the operation's own meaning.
 */
export class Refusal extends Schema.TaggedError<Refusal>()("Refusal", {
  code: Schema.String,
  value: Schema.Int
}) {}

/** What the program is asked for. */
export interface Request {
  readonly operation: number
  readonly name: string
  readonly body: Buffer
}

/** Asks, and gives the answer's value. Not to be cancelled: what was asked for is carried out. */
export type Ask = (request: Request) => Effect.Effect<number, Refusal>

const codes = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))

/** Who waits for the next answer. */
type Waiting = (error: number | "ended", value: number) => void

interface Running {
  readonly child: ChildProcessByStdio<Writable, Readable, null>
  readonly waiting: Array<Waiting>
}

const start = (binary: string): Running => {
  const child = spawn(binary, [], { stdio: ["pipe", "pipe", "inherit"] })
  const waiting: Array<Waiting> = []
  let rest = Buffer.alloc(0)
  child.stdout.on("data", (bytes: Buffer) => {
    rest = Buffer.concat([rest, bytes])
    while (rest.length >= answerBytes) {
      waiting.shift()?.(rest.readInt32LE(0), rest.readUInt32LE(4))
      rest = rest.subarray(answerBytes)
    }
  })
  const end = () => {
    for (const answer of waiting.splice(0)) {
      answer("ended", 0)
    }
  }
  child.once("error", end).once("close", end)
  // The end of the program is told by the two above.
  child.stdin.on("error", () => {})
  return { child, waiting }
}

const isOver = ({ child }: Running): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

const encode = ({ body, name, operation }: Request): Buffer => {
  const subject = Buffer.from(name)
  const header = Buffer.alloc(requestHeaderBytes)
  header.writeUInt32LE(operation, 0)
  header.writeUInt32LE(subject.length, 4)
  header.writeUInt32LE(body.length, 8)
  return Buffer.concat([header, subject, body])
}

/** The program at `binary`; it ends with the scope. */
export const make = (binary: string): Effect.Effect<Ask, never, Scope.Scope> =>
  Effect.gen(function*() {
    let running: Running | undefined
    yield* Effect.addFinalizer(() => Effect.sync(() => running?.child.kill("SIGKILL")))
    return (request) =>
      Effect.callback<number, Refusal>((resume) => {
        if (running === undefined || isOver(running)) {
          running = start(binary)
        }
        const { child, waiting } = running
        waiting.push((error, value) =>
          resume(
            error === 0
              ? Effect.succeed(value)
              : Effect.fail(
                new Refusal({ code: error === "ended" ? "EPIPE" : codes.get(error) ?? String(error), value })
              )
          )
        )
        child.stdin.write(encode(request))
      }).pipe(Effect.uninterruptible)
  })
