/**
 * `fsb-ctl port-forward`
 */
import { Sandboxes, type Session, terminal } from "@fast-sandbox/client/Sandboxes"
import { FailedPrecondition } from "@fast-sandbox/core/Errors"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { createServer, type Socket } from "node:net"
import { describe, LocalError, UsageError } from "../Failure.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import { Screen } from "../Screen.ts"

const flags = {
  name: SandboxOperand.make(),
  ports: Argument.String("[LOCAL:]PORT").pipe(
    Argument.withDescription("A port of the sandbox, and the one to listen on here; 0 takes a free one"),
    Argument.atLeast(1)
  ),
  address: Flag.String("address").pipe(
    Flag.withMetavar("ADDRESS"),
    Flag.withDescription("Listen on this address; 127.0.0.1 by default"),
    Flag.withDefault("127.0.0.1")
  )
}

const PORT_MAX = 65_535

/** A port here and the sandbox's behind it. */
export interface Mapping {
  readonly local: number
  readonly remote: number
}

/** `8080:80`, `80`, `:80` and `0:80`. */
export const parse = (text: string): Result.Result<Mapping, string> => {
  const [, before, after = ""] = /^(?:(\d*):)?(\d+)$/.exec(text) ?? []
  const remote = Number(after)
  const local = before === undefined ? remote : Number(before)
  return after === "" || remote < 1 || remote > PORT_MAX || local > PORT_MAX
    ? Result.fail(`${JSON.stringify(text)} is not [LOCAL:]PORT with ports up to ${PORT_MAX}`)
    : Result.succeed({ local, remote })
}

const listen = (address: string, { local }: Mapping, accept: (socket: Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly close: () => void; readonly port: number }, LocalError>((resume) => {
      // a side that has sent everything may still read
      const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, accept)
      server.once("error", (error) =>
        resume(Effect.fail(new LocalError({ problem: `can't listen on ${address}:${local}: ${error.message}` }))))
      server.listen(local, address, () => {
        const bound = server.address()
        const port = typeof bound === "object" && bound !== null ? bound.port : local
        resume(Effect.succeed({
          close: () =>
            server.close(),
          port
        }))
      })
    }),
    ({ close }) =>
      Effect.sync(close)
  )

const write = (socket: Socket, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.destroyed) return resume(Effect.interrupt)
    socket.write(bytes, () => resume(Effect.void))
  })

/** One connection, from its acceptance to its end on both sides. */
const forward = (session: Session, { remote }: Mapping, socket: Socket) =>
  Effect.gen(function*() {
    yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
    socket.on("error", () => {})
    const sent = Stream.fromAsyncIterable<Uint8Array, LocalError>(
      socket.iterator({ destroyOnReturn: false }),
      (cause) => new LocalError({ problem: String(cause) })
    )
    yield* Stream.runForEach(session.connect(remote, sent), (bytes) =>
      bytes.length === 0 ? Effect.void : write(socket, bytes))
    yield* Effect.callback<void>((resume) => {
      if (socket.destroyed) {
        return resume(Effect.void)
      }
      socket.end(() =>
        resume(Effect.void)
      )
    })
  }).pipe(Effect.scoped)

/** `fsb-ctl port-forward` */
export const portForward = Command.make(
  "port-forward",
  flags,
  Effect.fnUntraced(function*({ address, name, ports }) {
    const mappings = yield* Effect.forEach(ports, (text) =>
      Effect.fromResult(parse(text)).pipe(
        Effect.mapError((problem) => new UsageError({ command: "port-forward", problem }))
      ))
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const session = sandboxes.inside(name)
    // says at once when it does not run
    yield* Stream.runDrain(session.stats())
    const run = yield* FiberSet.makeRuntime()
    for (const mapping of mappings) {
      const { port } = yield* listen(address, mapping, (socket) => {
        run(Effect.catch(forward(session, mapping, socket), (error) => screen.talk(describe(error))))
      })
      yield* screen.talk(`Forwarding from ${address}:${port} to port ${mapping.remote} of ${name}\n`)
    }
    const { phase } = yield* sandboxes.wait(name, { for: terminal })
    return yield* new FailedPrecondition({ reason: "SandboxEnded", problem: `sandbox ${name} ended: ${phase}` })
  }, Effect.scoped)
).pipe(
  Command.withShortDescription("Reach ports of a sandbox from here"),
  Command.withDescription(
    "Listens here and passes every connection on to a port inside of a sandbox, also to one that listens on the sandbox's loopback device only. Ctrl-C ends it; so does the end of the sandbox."
  ),
  Command.withExamples([
    { command: "fsb-ctl port-forward web 8080", description: "The same port here" },
    { command: "fsb-ctl port-forward web 3000:80 :5432", description: "Another one, and a free one" }
  ]),
  Command.annotate(Operands, "NAME [LOCAL:]PORT..."),
  Command.provide(Globals.connection)
)
