/**
 * Text from a file, or from stdin where the file is called `-`.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Stream from "effect/Stream"
import { LocalError } from "./Failure.ts"
import * as Terminal from "./Terminal.ts"

const STDIN = "-"

const readStdin = Terminal.input.pipe(Stream.decodeText(), Stream.mkString)

/** What a text from there is called in messages. */
export const nameOf = (path: string): string => path === STDIN ? "stdin" : path

/** Reads all of it. */
export const read = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  return path === STDIN ? yield* readStdin : yield* files.readFileString(path).pipe(
    Effect.mapError(({ message, reason }) =>
      new LocalError({
        problem: reason._tag === "NotFound" ? `there is no file ${path}` : `can't read ${path}: ${message}`
      })
    )
  )
})
