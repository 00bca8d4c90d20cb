/**
 * The program `fsb-network`, which makes network namespaces and talks netlink for the agent: Node has no calls for that.
 * It is started once and answers in about a tenth of a millisecond; one that ended is started again for the next request.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { type ChildProcessByStdio, spawn } from "node:child_process"
import { constants } from "node:os"
import type { Readable, Writable } from "node:stream"

/** The protocol of native/network.c. */
const operations = { make: 1, route: 2, netfilter: 3, index: 4, drop: 5, share: 6 } as const

type Operation = keyof typeof operations

const requestHeaderBytes = 12
const answerBytes = 8

/** The kernel or the program said no. `code` is the name of the errno (`EEXIST`), or `EPIPE` when the program ended. */
export class NetworkError extends Schema.TaggedError<NetworkError>()("NetworkError", {
  operation: Schema.String,
  subject: Schema.String,
  code: Schema.String,
  /** Which of the messages was refused. */
  position: Schema.Int
}) {
  override get message(): string {
    return `${this.operation} ${this.subject}: ${this.code} (message ${this.position})`
  }
}

const codes = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))

/**
 * - `make` makes a namespace that the file `path` holds, and sends rtnetlink messages inside; all or nothing. EEXIST when
 *   the file or something that the messages make is there already.
 * - `route` and `netfilter` send messages where the agent is.
 * - `index` gives the index of a link there.
 * - `drop` takes a file from its namespace, and away; safe to repeat.
 * - `share` lets a file hold the agent's own namespace.
 */
export class NetworkHelper extends Context.Service<NetworkHelper, {
  readonly make: (path: string, messages: ReadonlyArray<Buffer>) => Effect.Effect<void, NetworkError>
  readonly route: (subject: string, messages: ReadonlyArray<Buffer>) => Effect.Effect<void, NetworkError>
  readonly netfilter: (subject: string, transaction: Buffer) => Effect.Effect<void, NetworkError>
  readonly index: (link: string) => Effect.Effect<number, NetworkError>
  readonly drop: (path: string) => Effect.Effect<void, NetworkError>
  readonly share: (path: string) => Effect.Effect<void, NetworkError>
}>()("@fast-sandbox/agent/network/NetworkHelper") {
  static readonly layer = (binary: string): Layer.Layer<NetworkHelper> => Layer.effect(NetworkHelper, make(binary))
}

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

const encode = (operation: Operation, name: string, messages: ReadonlyArray<Buffer>): Buffer => {
  const subject = Buffer.from(name)
  const body = Buffer.concat(messages)
  const header = Buffer.alloc(requestHeaderBytes)
  header.writeUInt32LE(operations[operation], 0)
  header.writeUInt32LE(subject.length, 4)
  header.writeUInt32LE(body.length, 8)
  return Buffer.concat([header, subject, body])
}

const make = (binary: string) =>
  Effect.gen(function*() {
    let running: Running | undefined
    yield* Effect.addFinalizer(() => Effect.sync(() => running?.child.kill("SIGKILL")))

    /** Not to be cancelled: the program carries out what it was told, and its answers come in order. */
    const ask = (operation: Operation, subject: string, name: string, messages: ReadonlyArray<Buffer>) =>
      Effect.callback<number, NetworkError>((resume) => {
        if (running === undefined || isOver(running)) {
          running = start(binary)
        }
        const { child, waiting } = running
        waiting.push((error, value) =>
          resume(
            error === 0
              ? Effect.succeed(value)
              : Effect.fail(
                new NetworkError({
                  operation,
                  subject,
                  code: error === "ended" ? "EPIPE" : codes.get(error) ?? String(error),
                  position: value
                })
              )
          )
        )
        child.stdin.write(encode(operation, name, messages))
      }).pipe(Effect.uninterruptible)

    return NetworkHelper.of({
      make: (path, messages) => Effect.asVoid(ask("make", path, path, messages)),
      route: (subject, messages) => Effect.asVoid(ask("route", subject, "", messages)),
      netfilter: (subject, transaction) => Effect.asVoid(ask("netfilter", subject, "", [transaction])),
      index: (link) => ask("index", link, link, []),
      drop: (path) => Effect.asVoid(ask("drop", path, path, [])),
      share: (path) => Effect.asVoid(ask("share", path, path, []))
    })
  })
