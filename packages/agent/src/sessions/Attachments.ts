/**
 * Those who are attached to the programs of sandboxes. The shim holds a program's terminal and `fsb-logger` records at
 * once what is printed, so an attached caller reads the log as it grows, and any number of them see the same; what they
 * type goes into the FIFO of which the shim holds the other end. Neither needs the agent to go on.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { type BoundaryError, FailedPrecondition, Internal, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { AttachHeader, AttachRequest, AttachResponseSchema } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Pipe from "@fast-sandbox/grpc/Pipe"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { type Entry, Instances } from "../Instances.ts"
import { LogDirectory } from "../LogDirectory.ts"
import * as LogFile from "../logs/LogFile.ts"
import type { LogRecord } from "../logs/LogRecord.ts"

/** What a caller hears. */
export type Answer = MessageInitShape<typeof AttachResponseSchema>

/** `attach` gives what the program prints until it ends, and gives it what the requests carry. */
export class Attachments extends Context.Service<Attachments, {
  readonly attach: (
    header: AttachHeader,
    requests: Stream.Stream<AttachRequest, BoundaryError>
  ) => Stream.Stream<Answer, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Attachments") {
  static readonly layer: Layer.Layer<Attachments, never, Instances | LogDirectory | Tasks> = Layer.effect(
    Attachments,
    Effect.suspend(() => make)
  )
}

const maxSignal = 64
const nanosPerMilli = 1_000_000n
const lineFeed = new Uint8Array([10])

/** The bytes as they were printed: a record that ends its line stands for the line feed, too. */
const bytesOf = (records: ReadonlyArray<LogRecord>): Uint8Array =>
  Buffer.concat(records.flatMap(({ partial, text }) => partial ? [text] : [text, lineFeed]))

const make = Effect.gen(function*() {
  const directory = yield* LogDirectory
  const instances = yield* Instances
  const tasks = yield* Tasks

  const isOver = ({ instance: { state } }: Entry): boolean =>
    state !== InstanceState.RUNNING && state !== InstanceState.STOPPING

  const stdinOf = Effect.fnUntraced(function*(entry: Entry, header: AttachHeader) {
    if (!header.stdin || isOver(entry)) return undefined
    if (entry.instance.spec?.stdin !== true) {
      return yield* new FailedPrecondition({
        reason: "NoStdin",
        problem: "the sandbox was created without stdin; attach without it, or run a program in it with exec"
      })
    }
    return yield* Pipe.openFifo(directory.stdinOf(entry.containerId), "write")
  })

  const attach = Effect.fn("Attachments.attach")(
    function*(header: AttachHeader, requests: Stream.Stream<AttachRequest, BoundaryError>) {
      const instanceId = header.sandbox?.sandboxId ?? ""
      if (instanceId === "") {
        return yield* new InvalidArgument({ field: "sandbox.sandbox_id", problem: "is missing" })
      }
      const entry = instances.get(instanceId)
      if (entry === undefined) return yield* new NotFound({ kind: "instance", name: instanceId })
      const { containerId } = entry
      // before anything is typed: the answer to it must not be taken for what was printed earlier
      const attachedAtNanos = BigInt(yield* Clock.currentTimeMillis) * nanosPerMilli
      const tty = entry.instance.spec?.tty ?? false
      const stdin = yield* stdinOf(entry, header)
      const resize = ({ columns, rows }: { readonly columns: number; readonly rows: number }) =>
        tty && !isOver(entry)
          ? Effect.ignore(tasks.resizePty({ containerId }, { columns, rows }), { log: "Debug" })
          : Effect.void
      if (header.size !== undefined) yield* resize(header.size)
      yield* Stream.runForEach(requests, ({ part }) => {
        switch (part.case) {
          case "stdin":
            return stdin === undefined ? Effect.void : Pipe.write(stdin, part.value)
          case "closeStdin":
            return stdin === undefined || tty
              ? Effect.void
              : Effect.andThen(Pipe.end(stdin), Effect.ignore(tasks.closeStdin({ containerId }), { log: "Debug" }))
          case "resize":
            return resize(part.value)
          case "signal":
            return part.value > 0 && part.value <= maxSignal && !isOver(entry)
              ? Effect.ignore(tasks.kill({ containerId }, part.value), { log: "Debug" })
              : Effect.void
          default:
            return Effect.void
        }
      }).pipe(Effect.ignore, Effect.forkScoped)
      const printed = LogFile.read({
        directory: directory.pathOf(containerId),
        ended: Deferred.await(entry.ended),
        follow: true,
        ...(header.replay ? {} : { sinceNanos: attachedAtNanos })
      }).pipe(
        Stream.mapError((error): BoundaryError => new Internal({ problem: error.message })),
        Stream.flatMap((records) =>
          Stream.fromIterable(
            (["stdout", "stderr"] as const).flatMap((stream): ReadonlyArray<Answer> => {
              const value = bytesOf(records.filter((record) => record.stream === stream))
              return value.length === 0 ? [] : [{ part: { case: stream, value } }]
            })
          )
        )
      )
      return Stream.concat(Stream.make<[Answer]>({ part: { case: "started", value: { tty } } }), printed)
    }
  )

  return Attachments.of({ attach: (header, requests) => Stream.unwrap(attach(header, requests)) })
})
