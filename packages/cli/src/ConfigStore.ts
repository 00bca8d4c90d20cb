/**
 * Changes a configuration file: one key at a time, checked as a whole before it is written, and written so that a crash
 * leaves the old file or the new one.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Config from "./Config.ts"
import { LocalError } from "./Failure.ts"

/** It may hold a token. */
const MODE = 0o600

const INDENT = 2

/** Keys that are texts of digits in a command line, but numbers in the file. */
const numbers = new Set(["port"])

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  Predicate.isObject(value) && !Array.isArray(value)

/** The value with something under a path of keys; without a value the key goes, and what becomes empty with it. */
export const withKey = (
  config: Readonly<Record<string, unknown>>,
  [key = "", ...rest]: ReadonlyArray<string>,
  value: string | undefined
): Readonly<Record<string, unknown>> => {
  const { [key]: old, ...others } = config
  if (rest.length === 0) {
    return value === undefined ? others : { ...config, [key]: numbers.has(key) ? Number(value) : value }
  }
  const next = withKey(isObject(old) ? old : {}, rest, value)
  return Object.keys(next).length === 0 ? others : { ...config, [key]: next }
}

/** Whether there is something under a path of keys. */
export const hasKey = (config: unknown, [key = "", ...rest]: ReadonlyArray<string>): boolean =>
  isObject(config) && Object.hasOwn(config, key) && (rest.length === 0 || hasKey(config[key], rest))

/** Changes the file, which is made where there is none. */
export const change = Effect.fnUntraced(function*(
  path: string,
  edit: (config: Config.ConfigFile) => Effect.Effect<Readonly<Record<string, unknown>>, LocalError>
) {
  const files = yield* FileSystem.FileSystem
  const before = Option.getOrElse(yield* Config.readFile(path), (): Config.ConfigFile => ({}))
  const after = yield* Effect.fromResult(Config.check(path, yield* edit(before)))
  const directory = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) || "/" : "."
  const temporary = `${path}.${process.pid}`
  yield* files.makeDirectory(directory, { recursive: true }).pipe(
    Effect.andThen(files.writeFileString(temporary, `${JSON.stringify(after, null, INDENT)}\n`, { mode: MODE })),
    Effect.andThen(files.rename(temporary, path)),
    Effect.mapError(({ message }) => new LocalError({ problem: `can't write ${path}: ${message}` })),
    Effect.onError(() => Effect.ignore(files.remove(temporary)))
  )
})
