/**
 * Our native programs, put where the node's shims can execute them. In a container they are files of the agent's image,
 * which containerd does not see; the state directory is the node's.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { basename, dirname } from "node:path"
import { AgentConfig, nativeBinary } from "./AgentConfig.ts"

const executable = 0o755

/** Programs of ours by their names; bundles lie beside them in the image. */
const isNative = (name: string): boolean => /^fsb-[a-z]+$/.test(name)

/** Copies them, each renamed into place, because a shim may be executing the one of an earlier agent. */
export const install: Effect.Effect<void, PlatformError.PlatformError, AgentConfig | FileSystem.FileSystem> = Effect
  .gen(function*() {
    const settings = yield* AgentConfig
    const { nativeDirectory } = settings
    if (nativeDirectory === undefined) return
    const files = yield* FileSystem.FileSystem
    for (const name of (yield* files.readDirectory(nativeDirectory)).filter(isNative)) {
      const target = nativeBinary(settings, name)
      yield* files.makeDirectory(dirname(target), { recursive: true })
      const fresh = `${dirname(target)}/.${basename(target)}`
      yield* files.copyFile(`${nativeDirectory}/${name}`, fresh)
      yield* files.chmod(fresh, executable)
      yield* files.rename(fresh, target)
    }
  }).pipe(Effect.withSpan("NativePrograms.install"))
