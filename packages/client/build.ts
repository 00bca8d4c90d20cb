/**
 * Builds the client library as it is published: `dist/client`, ready for `npm pack`.
 *
 * One plain JavaScript module and one declaration for each module of the sources, not a bundle: who imports one thing gets
 * what that needs and no more, and a stack trace names the module. What the client takes of `core` and `grpc`, which are
 * not published, goes with it.
 */
import { execFile } from "node:child_process"
import { copyFile, glob, mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const source = fileURLToPath(new URL(".", import.meta.url))
const root = join(source, "../..")
const out = join(root, "dist/client")
const library = join(out, "lib")

/** `@fast-sandbox/core/Errors` in quotes, and a source's own name in a declaration. */
const imported = /"@fast-sandbox\/(\w+)\/([\w/]+)"|"(\.[\w./]+)\.ts"/g

/** Imports of our packages lead to their files, imports of sources to what was made of them. */
const relink = (file: string, text: string): string =>
  text.replaceAll(imported, (_, name: string | undefined, module: string, sibling: string) => {
    if (name === undefined) return `"${sibling}.js"`
    const path = relative(dirname(file), join(library, name, "src", `${module}.js`))
    return `"${path.startsWith(".") ? path : `./${path}`}"`
  })

await rm(out, { recursive: true, force: true })
await mkdir(out, { recursive: true })
await promisify(execFile)(join(root, "node_modules/.bin/tsc"), ["-p", source])
for await (const name of glob("**/*.{js,d.ts}", { cwd: library })) {
  const file = join(library, name)
  await writeFile(file, relink(file, await readFile(file, "utf8")))
}

const { dependencies, description, license, name, sideEffects, type, version } = JSON.parse(
  await readFile(join(source, "package.json"), "utf8")
)
const { engines } = JSON.parse(await readFile(join(root, "package.json"), "utf8"))
await writeFile(
  join(out, "package.json"),
  JSON.stringify(
    {
      name,
      version,
      description,
      license,
      type,
      sideEffects,
      engines,
      files: ["lib"],
      exports: {
        "./*": { types: "./lib/client/src/*.d.ts", default: "./lib/client/src/*.js" },
        "./internal/*": null
      },
      dependencies: { "@bufbuild/protobuf": dependencies["@bufbuild/protobuf"] },
      // programs that use Effect themselves must share theirs with the client
      peerDependencies: { effect: `^${dependencies.effect}` }
    },
    undefined,
    2
  )
)
await copyFile(join(source, "README.md"), join(out, "README.md"))
await copyFile(join(root, "LICENSE"), join(out, "LICENSE"))
