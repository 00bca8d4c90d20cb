/**
 * The shared libraries that programs need, found in unpacked packages: the closure over the NEEDED entries of their ELF
 * headers. It is far smaller than what the packages depend on.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { run } from "./Command.ts"
import type { DebianPackage } from "./Debian.ts"

/** A file of a package. */
export interface PackagedFile {
  readonly origin: DebianPackage
  /** Absolute, on the build machine. */
  readonly path: string
}

/** None of the packages has it: name the package that does in the recipe. */
export class MissingFile extends Schema.TaggedError<MissingFile>()("MissingFile", {
  name: Schema.String
}) {
  override get message(): string {
    return `none of the packages has ${this.name}`
  }
}

/** The first package that has one of the paths. */
export const find = (
  packages: ReadonlyArray<DebianPackage>,
  name: string,
  directories: ReadonlyArray<string>
): Effect.Effect<PackagedFile, MissingFile> => {
  for (const origin of packages) {
    for (const directory of directories) {
      const path = join(origin.directory, directory, name)
      if (existsSync(path)) return Effect.succeed({ origin, path })
    }
  }
  return Effect.fail(new MissingFile({ name }))
}

/** Debian's folders of libraries for the architecture that this runs on. */
const directories = (triplet: string): ReadonlyArray<string> => [`usr/lib/${triplet}`, `lib/${triplet}`]

const neededBy = (path: string) =>
  Effect.map(
    run("objdump", ["-p", path]),
    (output) => [...output.matchAll(/NEEDED\s+(\S+)/g)].map(([, name = ""]) => name)
  )

/** By name (`libc.so.6`), in the order of their names. */
export const closure = Effect.fn("SharedLibraries.closure")(function*(
  programs: ReadonlyArray<string>,
  packages: ReadonlyArray<DebianPackage>,
  triplet: string
) {
  const found = new Map<string, PackagedFile>()
  const open = [...programs]
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    for (const name of yield* neededBy(path)) {
      if (!found.has(name)) {
        const library = yield* find(packages, name, directories(triplet))
        found.set(name, library)
        open.push(library.path)
      }
    }
  }
  return new Map([...found].toSorted(([a], [b]) => a < b ? -1 : 1))
})
