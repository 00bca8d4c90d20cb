/**
 * Writes dist/images/busybox.tar, an OCI archive of docker.io/library/busybox:latest made from Debian's static busybox:
 * an image to begin with where there is no registry.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { busybox } from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Stream } from "effect"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"

const target = fileURLToPath(new URL("../../dist/images/busybox.tar", import.meta.url))

Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  yield* files.makeDirectory(dirname(target), { recursive: true })
  yield* OciArchive.make([yield* busybox]).pipe(Stream.run(files.sink(target)))
}).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
