/**
 * Our native programs, put where the node's shims can execute them. In a container they are files of the agent's image,
 * which containerd does not see; the state directory is the node's.
 */
import * as Executable from "@fast-sandbox/containerd/Executable"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { AgentConfig, nativeBinary } from "./AgentConfig.ts"

/** Programs of ours by their names; bundles lie beside them in the image. */
const isNative = (name: string): boolean => /^fsb-[a-z]+$/.test(name)

/** Copies them; a shim may be executing the one of an earlier agent. */
export const install: Effect.Effect<void, PlatformError.PlatformError, AgentConfig | FileSystem.FileSystem> = Effect
  .gen(function*() {
    const settings = yield* AgentConfig
    const { nativeDirectory } = settings
    if (nativeDirectory === undefined) return
    const files = yield* FileSystem.FileSystem
    for (const name of (yield* files.readDirectory(nativeDirectory)).filter(isNative)) {
      yield* Executable.install(`${nativeDirectory}/${name}`, nativeBinary(settings, name))
    }
  }).pipe(Effect.withSpan("NativePrograms.install"))
