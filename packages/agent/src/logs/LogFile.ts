/**
 * Reads the log files of one instance while `native/logger.c` may be writing them: `DIR/00000001.log`, then
 * `00000002.log` and so on. Names only go up, and a file never changes once the next one exists, so a reader needs no
 * lock: at the end of a file it looks for the next one, and reads the old one to its end once more before it moves on.
 *
 * A reader takes what it needs when it is asked (back-pressure); the writer never waits for it. A follower is woken by
 * the kernel's directory notifications and does not poll.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type FSWatcher, watch } from "node:fs"
import { type FileHandle, open, readdir } from "node:fs/promises"
import * as LogRecord from "./LogRecord.ts"

/** The log can't be read: `directory` is missing or unreadable. */
export class LogReadError extends Schema.TaggedError<LogReadError>()("LogReadError", {
  directory: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `cannot read the log in ${this.directory}`
  }
}

/** What to read. */
export interface ReadOptions {
  /** The directory that the instance's logger writes to. */
  readonly directory: string
  /** Completes when the writer is gone, so that what is in the files is all there will be. */
  readonly ended: Effect.Effect<void>
  /** Stay until `ended`; otherwise end with what is there now. */
  readonly follow?: boolean | undefined
  /** Only the last records of what is there now. */
  readonly tailLines?: number | undefined
  /** Nanoseconds since the epoch, inclusive. */
  readonly sinceNanos?: bigint | undefined
  /** Nanoseconds since the epoch, exclusive. */
  readonly untilNanos?: bigint | undefined
  readonly stream?: LogRecord.LogStreamName | undefined
}

/** One read of a file: what a logger's flush writes at most, so that a follower seldom needs two. */
const chunkBytes = 256 * 1024
const lineFeed = 0x0a

const fileNumber = (name: string): number | undefined => {
  const match = /^(\d{8})\.log$/.exec(name)
  return match === null ? undefined : Number(match[1])
}

const filePath = (directory: string, number: number): string => `${directory}/${String(number).padStart(8, "0")}.log`

const isMissing = (cause: unknown): boolean =>
  typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT"

/** Where a reader stands: one open file, and the beginning of a line whose end was not there yet. */
interface Cursor {
  readonly number: number
  readonly handle: FileHandle
  readonly carry: Buffer
  /** The next file exists, so this one has its final content. */
  readonly last: boolean
}

class LogCursor {
  readonly directory: string
  private cursor: Cursor | undefined

  constructor(directory: string) {
    this.directory = directory
  }

  private attempt<A>(evaluate: () => Promise<A>): Effect.Effect<A, LogReadError> {
    return Effect.tryPromise({
      try: evaluate,
      catch: (cause) => new LogReadError({ directory: this.directory, cause })
    })
  }

  /** The lowest file number above `after` that exists. */
  private next(after: number): Effect.Effect<number | undefined, LogReadError> {
    return this.attempt(async () => {
      const names = await readdir(this.directory).catch((cause: unknown) => {
        if (isMissing(cause)) {
          return []
        }
        throw cause
      })
      let lowest: number | undefined
      for (const name of names) {
        const number = fileNumber(name)
        if (number !== undefined && number > after && (lowest === undefined || number < lowest)) {
          lowest = number
        }
      }
      return lowest
    })
  }

  private openNext(after: number): Effect.Effect<boolean, LogReadError> {
    return Effect.gen({ self: this }, function*() {
      const number = yield* this.next(after)
      if (number === undefined) {
        return false
      }
      // Uninterruptible, so that an opened handle is never without an owner.
      return yield* Effect.uninterruptible(this.attempt(async () => {
        const handle = await open(filePath(this.directory, number), "r").catch((cause: unknown) => {
          // Rotated away since it was listed: the caller looks again.
          if (isMissing(cause)) {
            return undefined
          }
          throw cause
        })
        if (handle !== undefined) {
          await this.cursor?.handle.close()
          this.cursor = { number, handle, carry: Buffer.alloc(0), last: false }
        }
        return true
      }))
    })
  }

  /** The next records, or an empty array when there is nothing new yet. */
  readonly read: Effect.Effect<ReadonlyArray<LogRecord.LogRecord>, LogReadError> = Effect.gen(
    { self: this },
    function*() {
      for (;;) {
        const cursor = this.cursor
        if (cursor === undefined) {
          if (!(yield* this.openNext(0))) {
            return []
          }
          continue
        }
        const buffer = Buffer.allocUnsafe(chunkBytes)
        const { bytesRead } = yield* this.attempt(() => cursor.handle.read(buffer, 0, chunkBytes))
        if (bytesRead > 0) {
          const data = Buffer.concat([cursor.carry, buffer.subarray(0, bytesRead)])
          const end = data.lastIndexOf(lineFeed) + 1
          this.cursor = { ...cursor, carry: data.subarray(end) }
          const records = this.parse(data.subarray(0, end))
          if (records.length > 0) {
            return records
          }
          continue
        }
        if (cursor.last) {
          yield* this.openNext(cursor.number)
          continue
        }
        if ((yield* this.next(cursor.number)) === undefined) {
          return []
        }
        // The writer may have added to this file between our read and its successor: read it to its end once more.
        this.cursor = { ...cursor, last: true }
      }
    }
  )

  private parse(lines: Buffer): ReadonlyArray<LogRecord.LogRecord> {
    const records: Array<LogRecord.LogRecord> = []
    for (let at = 0; at < lines.length;) {
      const end = lines.indexOf(lineFeed, at)
      const record = LogRecord.parse(lines.subarray(at, end))
      if (Option.isSome(record)) {
        records.push(record.value)
      }
      at = end + 1
    }
    return records
  }

  readonly close: Effect.Effect<void> = Effect.promise(async () => {
    await this.cursor?.handle.close()
    this.cursor = undefined
  })
}

/** Wakes a follower. One pending wake-up is enough: whoever is woken reads all there is. */
const wakeUps = (directory: string): Effect.Effect<Queue.Queue<void>, LogReadError, Scope.Scope> =>
  Effect.gen(function*() {
    const queue = yield* Effect.acquireRelease(Queue.sliding<void>(1), Queue.shutdown)
    yield* Effect.acquireRelease(
      Effect.try({
        try: (): FSWatcher => {
          const watcher = watch(directory, { persistent: false }, () => Queue.offerUnsafe(queue, undefined))
          watcher.on("error", () => Queue.offerUnsafe(queue, undefined))
          return watcher
        },
        catch: (cause) => new LogReadError({ directory, cause })
      }),
      (watcher) => Effect.sync(() => watcher.close())
    )
    return queue
  })

const select = (options: ReadOptions) => (records: ReadonlyArray<LogRecord.LogRecord>) =>
  records.filter((record) =>
    (options.stream === undefined || record.stream === options.stream) &&
    (options.sinceNanos === undefined || record.timeNanos >= options.sinceNanos) &&
    (options.untilNanos === undefined || record.timeNanos < options.untilNanos)
  )

/**
 * The records of an instance, in the order in which they were written, in batches as they are found.
 *
 * With `follow` the stream ends when the writer is gone and everything was read; without, at the end of what is there.
 */
export const read = (options: ReadOptions): Stream.Stream<ReadonlyArray<LogRecord.LogRecord>, LogReadError> =>
  Stream.unwrap(Effect.gen(function*() {
    const log = yield* Effect.acquireRelease(
      Effect.sync(() => new LogCursor(options.directory)),
      (log) => log.close
    )
    const wake = options.follow === true ? yield* wakeUps(options.directory) : undefined
    let ended = false
    if (wake !== undefined) {
      yield* options.ended.pipe(
        Effect.andThen(Effect.sync(() => {
          ended = true
          Queue.offerUnsafe(wake, undefined)
        })),
        Effect.forkScoped
      )
    }
    const keep = select(options)

    const tail: Array<LogRecord.LogRecord> = []
    if (options.tailLines !== undefined) {
      for (;;) {
        const records = yield* log.read
        if (records.length === 0) {
          break
        }
        tail.push(...keep(records))
        tail.splice(0, Math.max(0, tail.length - options.tailLines))
      }
    }

    const pull: Effect.Effect<readonly [ReadonlyArray<LogRecord.LogRecord>], LogReadError | Cause.Done> = Effect.gen(
      function*() {
        for (;;) {
          const endedBefore = ended
          const records = yield* log.read
          if (records.length > 0) {
            const kept = keep(records)
            if (kept.length > 0) {
              return [kept]
            }
          } else if (wake === undefined || endedBefore) {
            return yield* Cause.done()
          } else if (Exit.isFailure(yield* Effect.exit(Queue.take(wake)))) {
            return yield* Cause.done()
          }
        }
      }
    )
    const rest = Stream.fromPull(Effect.succeed(pull))
    return tail.length === 0 ? rest : Stream.concat(Stream.make<[ReadonlyArray<LogRecord.LogRecord>]>(tail), rest)
  }))
