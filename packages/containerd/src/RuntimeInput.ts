/**
 * crun as sandboxes get it: behind `fsb-runtime`, which gives it a standard input that it can't give away (see
 * `native/runtime.c`). The runtime itself stays where it is, so that what was found out about it holds.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { createHash, randomUUID } from "node:crypto"
import * as Executable from "./Executable.ts"
import type { Profile } from "./RuntimeProfile.ts"

/** Where and with what. */
export interface RuntimeInputOptions {
  /**
   * Absolute; containerd must see it under the same path, and may execute what lies in it. Sandboxes need it as long as
   * they live, and whoever removes them after their agent. Agents may share it.
   */
  readonly directory: string
  /** Absolute path of `fsb-runtime`, on this side. */
  readonly binary: string
}

/** Of the name that is made from a runtime's path: several of them may be used side by side. */
const keyLength = 8

/** Where `fsb-runtime` looks for the runtime that it stands before. */
const realSuffix = ".real"

/**
 * The profile with the runtime that sandboxes should be run with. Other runtimes than crun leave the input alone and are
 * used as they are; so is crun where `fsb-runtime` is not there.
 */
export const guard = Effect.fn("RuntimeInput.guard")(function*(
  profile: Profile,
  { binary, directory }: RuntimeInputOptions
): Effect.fn.Return<Profile, PlatformError.PlatformError, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  const { name, path, problem } = profile.runtime
  if (name !== "crun" || problem !== undefined || !(yield* files.exists(binary))) {
    return profile
  }
  const own = `${directory}/${createHash("sha256").update(path).digest("hex").slice(0, keyLength)}`
  const guarded = `${own}/${name}`
  const real = `${guarded}${realSuffix}`
  const fresh = `${real}.${randomUUID()}`
  yield* files.makeDirectory(own, { recursive: true })
  yield* files.symlink(path, fresh)
  // A shim may be executing the one of another agent.
  yield* files.rename(fresh, real)
  yield* Executable.install(binary, guarded)
  return { ...profile, runtime: { ...profile.runtime, path: guarded } }
})
