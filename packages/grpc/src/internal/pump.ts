/**
 * Messages between Effect streams and calls, with back-pressure in both directions.
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"

/** The reading half of a call, as far as it is used. */
export interface Source<A> {
  read(): A | null
  readonly readableEnded: boolean
  readonly destroyed: boolean
  once(event: "readable" | "end" | "close", listener: () => void): unknown
  off(event: "readable" | "end" | "close", listener: () => void): unknown
}

/** The writing half of a call, as far as it is used. */
export interface Sink<A> {
  write(message: A): boolean
  readonly writableNeedDrain: boolean
  readonly destroyed: boolean
  once(event: "drain" | "close", listener: () => void): unknown
  off(event: "drain" | "close", listener: () => void): unknown
}

/**
 * Most messages in one pull. Larger batches cost fewer fiber steps; a bound keeps a fast peer from filling memory
 * while one pull collects.
 */
const MAX_BATCH = 64

const awaitReadable = <A>(source: Source<A>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = () => {
      detach()
      resume(Effect.void)
    }
    const detach = () => {
      source.off("readable", done)
      source.off("end", done)
      source.off("close", done)
    }
    source.once("readable", done)
    source.once("end", done)
    source.once("close", done)
    // the end may have come between the last read and these listeners
    if (source.readableEnded || source.destroyed) done()
    return Effect.sync(detach)
  })

/**
 * Reads until the call's end, then runs `atEnd`, which says whether that end was a failure. Every message that
 * arrived before a failure is delivered before it.
 */
export const read = <A, B, E>(source: Source<A>, options: {
  readonly decode: (message: A) => B
  /** What the reader fails with when `decode` throws. */
  readonly malformed: (cause: unknown) => E
  readonly atEnd: Effect.Effect<void, E>
}): Stream.Stream<B, E> => {
  const batch = (first: A) => (): Arr.NonEmptyReadonlyArray<B> => {
    const messages: Arr.NonEmptyArray<B> = [options.decode(first)]
    while (messages.length < MAX_BATCH) {
      const next = source.read()
      if (next === null) break
      messages.push(options.decode(next))
    }
    return messages
  }
  const pull: Pull.Pull<Arr.NonEmptyReadonlyArray<B>, E> = Effect.suspend(() => {
    const first = source.read()
    if (first !== null) return Effect.try({ try: batch(first), catch: options.malformed })
    return source.readableEnded || source.destroyed
      ? Effect.andThen(options.atEnd, Cause.done())
      : Effect.andThen(awaitReadable(source), pull)
  })
  return Stream.fromPull(Effect.succeed(pull))
}

const awaitDrain = <A>(sink: Sink<A>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = () => {
      detach()
      resume(Effect.void)
    }
    const detach = () => {
      sink.off("drain", done)
      sink.off("close", done)
    }
    sink.once("drain", done)
    sink.once("close", done)
    if (!sink.writableNeedDrain) done()
    return Effect.sync(detach)
  })

/**
 * Writes every message and waits whenever the transport's buffer is full. Does not end the call. When the call is gone
 * it does nothing more: whoever runs the call sees that end and interrupts the writer.
 */
export const write = <A, B, E, R>(
  stream: Stream.Stream<A, E, R>,
  sink: Sink<B>,
  encode: (message: A) => B
): Effect.Effect<void, E, R> => Stream.runForEachArray(stream, (messages) => writeAll(messages.values(), sink, encode))

const writeAll = <A, B>(
  messages: ArrayIterator<A>,
  sink: Sink<B>,
  encode: (message: A) => B
): Effect.Effect<void> =>
  Effect.suspend(() => {
    for (let next = messages.next(); next.done !== true; next = messages.next()) {
      if (sink.destroyed) return Effect.never
      if (!sink.write(encode(next.value))) {
        return Effect.andThen(awaitDrain(sink), writeAll(messages, sink, encode))
      }
    }
    return Effect.void
  })
