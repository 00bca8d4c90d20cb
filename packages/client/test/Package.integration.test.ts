/**
 * The client as it is published: built, packed, unpacked in an empty project, and used there by Node without TypeScript,
 * by a compiler that knows nothing of this repository, and by a bundler.
 */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as esbuild from "esbuild"
import { execFile } from "node:child_process"
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as FakeFastPath from "./FakeFastPath.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const run = promisify(execFile)

/** An empty project that has what npm would install for the client. */
class Project extends Context.Service<Project, { readonly folder: string }>()("test/Project") {
  static readonly layer = Layer.effect(
    Project,
    Effect.acquireRelease(
      Effect.promise(async () => {
        const folder = await mkdtemp(join(tmpdir(), "fsb-client-"))
        await run(process.execPath, [join(root, "packages/client/build.ts")])
        const packed = await run("npm", ["pack", "--silent", "--pack-destination", folder, join(root, "dist/client")])
        const modules = join(folder, "node_modules")
        const client = join(modules, "@fast-sandbox/client")
        await mkdir(client, { recursive: true })
        await run("tar", ["-xzf", join(folder, packed.stdout.trim()), "-C", client, "--strip-components=1"])
        const { dependencies, peerDependencies } = JSON.parse(await readFile(join(client, "package.json"), "utf8"))
        for (const name of [...Object.keys(dependencies), ...Object.keys(peerDependencies), "@types/node"]) {
          await mkdir(join(modules, name, ".."), { recursive: true })
          await symlink(join(root, "node_modules", name), join(modules, name))
        }
        await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }))
        return { folder }
      }),
      ({ folder }) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
    )
  )
}

/** What a newcomer writes. */
const program = `
import { NotFound } from "@fast-sandbox/client/Errors"
import { connect } from "@fast-sandbox/client/Promise"
await using client = connect({ endpoint: process.env.ENDPOINT ?? "" })
await using sandbox = await client.run({ image: "alpine", name: "packed" })
const { stdout } = await sandbox.output({ command: ["cat"], stdin: "hello" })
const missing = await client.get("nope").catch((error: unknown) => error)
console.log(stdout, missing instanceof NotFound)
`

const withoutTypes = program.replace(": unknown", "")

/** What one import may cost who bundles it, in bytes of minified JavaScript, with Effect and the protocol. */
const limits = { promise: 340_000, errors: 90_000 } as const

layer(Layer.mergeAll(Project.layer, FakeFastPath.layer()), { excludeTestServices: true })("the packed client", (it) => {
  it.effect("serves a program of plain JavaScript outside of this repository", () =>
    Effect.gen(function*() {
      const { folder } = yield* Project
      const endpoint = yield* FakeFastPath.endpoint
      yield* Effect.promise(async () => {
        await writeFile(join(folder, "program.js"), withoutTypes)
        const { stdout } = await run(process.execPath, ["program.js"], { cwd: folder, env: { ENDPOINT: endpoint } })
        assert.strictEqual(stdout, "hello true\n")
        const hidden = await run(process.execPath, ["-e", "import('@fast-sandbox/client/internal/wire')"], {
          cwd: folder
        }).then(() => "open", ({ stderr }: { readonly stderr: string }) => stderr)
        assert.match(hidden, /ERR_PACKAGE_PATH_NOT_EXPORTED/)
      })
    }))

  it.effect("brings its types along", () =>
    Effect.gen(function*() {
      const { folder } = yield* Project
      yield* Effect.promise(async () => {
        await writeFile(join(folder, "program.ts"), program)
        await writeFile(
          join(folder, "wrong.ts"),
          `import { connect } from "@fast-sandbox/client/Promise"\nawait connect({ endpoint: 1 }).get("a")\n`
        )
        const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2024", "--types", "node"]
        const compile = (file: string) =>
          run(join(root, "node_modules/.bin/tsc"), [...options, "--lib", "es2024,esnext.disposable,dom", file], {
            cwd: folder
          }).then(() => "", ({ stdout }: { readonly stdout: string }) => stdout)
        assert.strictEqual(await compile("program.ts"), "")
        assert.match(await compile("wrong.ts"), /^wrong\.ts\(2,\d+\): error TS2322/)
      })
    }))

  it.effect("costs a bundle only what is imported", () =>
    Effect.gen(function*() {
      const { folder } = yield* Project
      const sizeOf = async (contents: string) => {
        const { outputFiles } = await esbuild.build({
          stdin: { contents, resolveDir: folder },
          bundle: true,
          minify: true,
          write: false,
          format: "esm",
          platform: "node",
          target: "node24"
        })
        return outputFiles[0]?.contents.length ?? 0
      }
      yield* Effect.promise(async () => {
        const promise = await sizeOf(
          `import { connect } from "@fast-sandbox/client/Promise"; connect({ endpoint: "a:1" })`
        )
        assert.isBelow(promise, limits.promise)
        const errors = await sizeOf(`import { NotFound } from "@fast-sandbox/client/Errors"; console.log(NotFound)`)
        assert.isBelow(errors, limits.errors)
        assert.strictEqual(await sizeOf(`import * as Promise from "@fast-sandbox/client/Promise"`), 0)
      })
    }))
})
