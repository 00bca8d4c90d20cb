/**
 * Debian packages as files: downloaded by apt, so that their signatures are checked, and unpacked without being
 * installed. Images are made of parts of them, so that what is in an image does not depend on what the build machine has.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { run } from "./Command.ts"

/** A package that was unpacked. */
export interface DebianPackage {
  readonly name: string
  readonly version: string
  readonly architecture: string
  readonly source: string
  /** Of the .deb file. */
  readonly sha256: string
  /** Its control file, as scanners of images look for it. */
  readonly control: string
  /** The root of its files. */
  readonly directory: string
}

const download = Effect.fnUntraced(function*(names: ReadonlyArray<string>, directory: string) {
  const fetch = run("apt-get", ["download", "-q", ...names], { cwd: directory })
  // A machine that never asked its mirror knows no packages.
  yield* fetch.pipe(Effect.catch(() => Effect.andThen(run("apt-get", ["update", "-q"]), fetch)))
})

const field = (control: string, name: string): string | undefined =>
  new RegExp(`^${name}: (.*)$`, "m").exec(control)?.[1]

const inspect = Effect.fnUntraced(function*(path: string, directory: string) {
  const files = yield* FileSystem.FileSystem
  yield* files.remove(directory, { recursive: true, force: true })
  yield* files.makeDirectory(directory, { recursive: true })
  yield* run("dpkg-deb", ["-x", path, directory])
  const control = yield* run("dpkg-deb", ["-f", path])
  const bytes = yield* files.readFile(path)
  const name = field(control, "Package") ?? ""
  return {
    name,
    version: field(control, "Version") ?? "",
    architecture: field(control, "Architecture") ?? "",
    source: field(control, "Source") ?? name,
    sha256: createHash("sha256").update(bytes).digest("hex"),
    control,
    directory
  } satisfies DebianPackage
})

/**
 * The packages as the machine's release has them now. What `cache` has already is not asked for again: remove the folder
 * to take up Debian's security updates.
 */
export const packages = Effect.fn("Debian.packages")(function*(names: ReadonlyArray<string>, cache: string) {
  const files = yield* FileSystem.FileSystem
  const debs = join(cache, "debs")
  yield* files.makeDirectory(debs, { recursive: true })
  const archiveOf = (present: ReadonlyArray<string>, name: string) =>
    present.find((file) => file.startsWith(`${name}_`))
  const before = yield* files.readDirectory(debs)
  const missing = names.filter((name) => archiveOf(before, name) === undefined)
  if (missing.length > 0) {
    yield* download(missing, debs)
  }
  const present = yield* files.readDirectory(debs)
  return yield* Effect.forEach(
    names.toSorted(),
    (name) => inspect(join(debs, archiveOf(present, name) ?? name), join(cache, "unpacked", name))
  )
})
