/**
 * The program `fsb-network`, which makes network namespaces and talks netlink for the agent: Node has no calls for that.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as ResidentProgram from "../ResidentProgram.ts"

/** The protocol of native/network.c. */
const operations = { make: 1, route: 2, netfilter: 3, index: 4, drop: 5, share: 6 } as const

type Operation = keyof typeof operations

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

const make = (binary: string) =>
  Effect.gen(function*() {
    const program = yield* ResidentProgram.make(binary)

    const ask = (operation: Operation, subject: string, name: string, messages: ReadonlyArray<Buffer>) =>
      program({ operation: operations[operation], name, body: Buffer.concat(messages) }).pipe(
        Effect.mapError(({ code, value }) => new NetworkError({ operation, subject, code, position: value }))
      )

    return NetworkHelper.of({
      make: (path, messages) => Effect.asVoid(ask("make", path, path, messages)),
      route: (subject, messages) => Effect.asVoid(ask("route", subject, "", messages)),
      netfilter: (subject, transaction) => Effect.asVoid(ask("netfilter", subject, "", [transaction])),
      index: (link) => ask("index", link, link, []),
      drop: (path) => Effect.asVoid(ask("drop", path, path, [])),
      share: (path) => Effect.asVoid(ask("share", path, path, []))
    })
  })
