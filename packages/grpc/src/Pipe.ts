/**
 * Bytes from and to other processes (FIFOs, standard streams of children, sockets) as Streams, with back-pressure in both
 * directions.
 */
import { Internal } from "@fast-sandbox/core/Errors"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { constants, openSync } from "node:fs"
import { Socket } from "node:net"

/** The reading half of a Node stream, as far as it is used. */
export interface Source {
  read(): Uint8Array | null
  readonly readableEnded: boolean
  readonly destroyed: boolean
  once(event: "readable" | "end" | "close" | "error", listener: () => void): unknown
  off(event: "readable" | "end" | "close" | "error", listener: () => void): unknown
}

/** The writing half of a Node stream, as far as it is used. */
export interface Sink {
  write(bytes: Uint8Array, done: (error?: Error | null) => void): boolean
  end(done: () => void): unknown
  readonly destroyed: boolean
}

const wakingEvents = ["readable", "end", "close", "error"] as const

const awaitReadable = (source: Source): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const detach = () => wakingEvents.forEach((event) => source.off(event, done))
    const done = () => {
      detach()
      resume(Effect.void)
    }
    wakingEvents.forEach((event) => source.once(event, done))
    // the end may have come between the last read and these listeners
    if (source.readableEnded || source.destroyed) done()
    return Effect.sync(detach)
  })

/**
 * What comes out of a pipe until its end. A pipe that breaks has ended. Once `idle` completes while nothing is there to
 * be read, that is the end, too: it is started anew for every wait.
 */
export const read = (source: Source, idle: Effect.Effect<void> = Effect.never): Stream.Stream<Uint8Array> => {
  const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Uint8Array>, Cause.Done> = Effect.suspend(() => {
    const bytes = source.read()
    if (bytes !== null) return Effect.succeed<Arr.NonEmptyReadonlyArray<Uint8Array>>([bytes])
    return source.readableEnded || source.destroyed
      ? Cause.done()
      : Effect.raceFirst(Effect.as(awaitReadable(source), false), Effect.as(idle, true)).pipe(
        Effect.flatMap((isOver) => isOver ? Cause.done() : pull)
      )
  })
  return Stream.fromPull(Effect.succeed(pull))
}

/** Writes and waits until the kernel has it. A reader that is gone misses nothing: its own end is told elsewhere. */
export const write = (sink: Sink, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (sink.destroyed) return resume(Effect.void)
    sink.write(bytes, () => resume(Effect.void))
  })

/** Writes all of a stream, as fast as the reader takes it. */
export const writeAll = <E, R>(sink: Sink, bytes: Stream.Stream<Uint8Array, E, R>): Effect.Effect<void, E, R> =>
  Stream.runForEach(bytes, (chunk) => write(sink, chunk))

/** Lets the reader read the end. */
export const end = (sink: Sink): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (sink.destroyed) return resume(Effect.void)
    sink.end(() => resume(Effect.void))
  })

/** Opened for reading and writing where `write` is set: a FIFO without a reader could not be opened otherwise. */
export const openFifo = (path: string, direction: "read" | "write") =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const access = direction === "read" ? constants.O_RDONLY : constants.O_RDWR
        const fd = openSync(path, access | constants.O_NONBLOCK)
        const socket = new Socket({ fd, readable: direction === "read", writable: direction === "write" })
        // what breaks shows as the end of the stream
        socket.on("error", () => {})
        return socket
      },
      catch: (cause) => new Internal({ problem: `a FIFO could not be opened: ${String(cause)}` })
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
