import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { fileURLToPath } from "node:url"
import { leavesNothing } from "./e2e/Census.ts"
import * as Installation from "./e2e/Installation.ts"
import * as NixFlake from "./e2e/NixFlake.ts"

leavesNothing()

const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** A node whose controller, agent and janitor run from the flake's images. */
const installation = Layer.unwrap(Effect.gen(function*() {
  const flake = yield* NixFlake.NixFlake
  const archives = {
    controller: yield* flake.buildImage("image-controller"),
    agent: yield* flake.buildImage("image-agent"),
    janitor: yield* flake.buildImage("image-janitor")
  }
  return Installation.layer({ isTraced: false, archives })
}))

const flake = NixFlake.layer.pipe(Layer.provideMerge(NodeServices.layer))

describe("the flake", () => {
  layer(flake, { timeout: 120_000, excludeTestServices: true })((it) => {
    it.effect("passes its own checks, and offers all that it has", () =>
      Effect.gen(function*() {
        const { nix } = yield* NixFlake.NixFlake
        yield* nix("flake", "check")
        const shown = yield* nix("flake", "show")
        for (const name of ["fsb-ctl", "bundles", "native", "devShells", "overlays"]) assert.include(shown, name)
      }))

    it.effect("builds the very programs that npm builds", () =>
      Effect.gen(function*() {
        const { build } = yield* NixFlake.NixFlake
        const files = yield* FileSystem.FileSystem
        const bundles = yield* build("bundles")
        for (const name of ["controller.cjs", "agent.cjs", "janitor.cjs"]) {
          const ours = yield* files.readFileString(`${repository}/dist/${name}`)
          assert.isTrue(ours === (yield* files.readFileString(`${bundles}/lib/fast-sandbox/${name}`)), name)
        }
      }))

    it.layer(installation, { timeout: 120_000 })((it) => {
      it.effect("gives images that run a sandbox under containerd", () =>
        Effect.gen(function*() {
          const { agent, controller, fsbCtl, janitor } = yield* Installation.Installation
          const files = yield* FileSystem.FileSystem
          for (const { pid } of [controller, agent, janitor]) {
            assert.match(yield* files.readLink(`/proc/${pid}/exe`), /^\/nix\/store\/.*\/bin\/node$/)
          }
          const ran = yield* fsbCtl("run", "--rm", "--image", "busybox", "--", "sh", "-c", "echo hello; exit 3")
          assert.deepStrictEqual({ code: ran.code, stdout: ran.stdout }, { code: 3, stdout: "hello\n" }, ran.stderr)
        }).pipe(Installation.explained))
    })
  })
})
