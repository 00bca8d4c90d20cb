/**
 * Writes the CustomResourceDefinitions to `infra/crds`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { fileURLToPath } from "node:url"
import { files } from "./src/CrdFiles.ts"
import * as FastSandboxCrds from "./src/FastSandboxCrds.ts"

const directory = fileURLToPath(new URL("../../infra/crds/", import.meta.url))

Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  yield* fs.makeDirectory(directory, { recursive: true })
  for (const [name, content] of files(FastSandboxCrds.all)) {
    yield* fs.writeFileString(directory + name, content)
  }
}).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
