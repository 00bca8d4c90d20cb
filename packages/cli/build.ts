/**
 * Builds what ships: `dist/` and the launcher `bin/fsb-ctl` at the root of the repository.
 *
 * fsb-ctl is split into chunks, so that a command loads only what it needs: the parser and the commands at once, what
 * speaks gRPC with the first call, the stack of this machine with `up`. esbuild splits ES modules only, and Node loads
 * CommonJS faster, so the chunks are turned into CommonJS afterwards. The agent, the controller and the janitor are one
 * file each.
 *
 * Every file has its source map beside it, without the sources: `node --enable-source-maps` names the line of a fault in
 * them. It is not on by default, because Effect makes many stack traces that nobody reads.
 *
 * On top of fsb-ctl lies a start-up snapshot: its heap as it waits for its command line. It fits the very Node that made
 * it and no other, so the launcher takes it with the Node of this repository only.
 */
import * as esbuild from "esbuild"
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import { lazyBuiltins } from "./build/lazyBuiltins.ts"
import { runSnapshotBuilder } from "./build/snapshotBuilder.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const dist = join(root, "dist")
const bin = join(root, "bin")

/** The release that `node_modules` pins. */
const TARGET = "node24"

const options = {
  bundle: true,
  platform: "node",
  target: TARGET,
  minify: true,
  legalComments: "none",
  sourcesContent: false,
  logLevel: "warning"
} satisfies esbuild.BuildOptions

/** Removes what earlier builds left, whose names change with their content; other files in `dist` stay. */
const removeStale = async (current: ReadonlyArray<string>) => {
  const stale = (await readdir(dist)).filter((name) =>
    /\.[cm]js(\.map)?$/.test(name) && !current.includes(name.replace(/\.map$/, ""))
  )
  await Promise.all(stale.map((name) => rm(join(dist, name))))
}

/** By it whoever imports a chunk's default takes that and not all of its exports. */
const MODULE_MARK = `Object.defineProperty(module.exports,"__esModule",{value:true});`

/**
 * esbuild has `module.exports` copy, by getters, an object that has getters itself, for the sake of a mark that this is an
 * ES module. Chunks know each other, and every use of another chunk's export runs them. Columns stay, for the source map.
 */
const exportDirectly = (code: string): string =>
  code.replace(
    /module\.exports=[\w$]+\(([\w$]+)\);/,
    (found, exported: string) => `module.exports=${exported};`.padEnd(found.length)
  ) + MODULE_MARK

/** Gives the names of its files. */
const buildCommandLine = async (): Promise<ReadonlyArray<string>> => {
  const { outputFiles } = await esbuild.build({
    ...options,
    entryPoints: { "fsb-ctl": join(root, "packages/cli/src/bin.ts") },
    outdir: dist,
    outExtension: { ".js": ".cjs" },
    chunkNames: "fsb-ctl-[name]-[hash]",
    format: "esm",
    splitting: true,
    plugins: [lazyBuiltins],
    // made when a module is loaded, but needed only where text is measured: it costs 10 ms
    define: { "Intl.Segmenter": "LazySegmenter" },
    inject: [join(root, "packages/cli/build/LazySegmenter.ts")],
    sourcemap: "inline",
    write: false
  })
  await Promise.all(outputFiles.map(async ({ path, text }) => {
    const name = basename(path)
    const { code, map } = await esbuild.transform(text, {
      format: "cjs",
      platform: "node",
      target: TARGET,
      minify: true,
      sourcemap: "external",
      sourcesContent: false,
      supported: { "dynamic-import": false }
    })
    await writeFile(join(dist, `${name}.map`), map)
    await writeFile(join(dist, name), `${exportDirectly(code)}//# sourceMappingURL=${name}.map\n`)
  }))
  return outputFiles.map(({ path }) => basename(path))
}

const SNAPSHOT = "fsb-ctl.blob"
const SNAPSHOT_ENTRY = "fsb-ctl-snapshot.cjs"

/** Made beside the old one and put into its place, since a program may start meanwhile. */
const buildSnapshot = async () => {
  const entry = join(dist, SNAPSHOT_ENTRY)
  const blob = join(dist, SNAPSHOT)
  await copyFile(join(root, "packages/cli/build/snapshotEntry.cjs"), entry)
  await runSnapshotBuilder(["--snapshot-blob", `${blob}.new`, "--build-snapshot", entry], { chunks: dist, cwd: dist })
  await rename(`${blob}.new`, blob)
}

/** The programs that run for long: one file each. */
const services = ["agent", "controller", "janitor"] as const

/** What of `node_modules` is in a file of the build, from the paths of its inputs. */
const packagesOf = async (inputs: ReadonlyArray<string>) => {
  const directories = inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? [])
  return Promise.all(
    [...new Set(directories)].toSorted().map(async (directory) => {
      const { license, name, version } = JSON.parse(await readFile(join(root, directory, "package.json"), "utf8"))
      return { name, version, license }
    })
  )
}

/** Also writes `packages.json`, from which the bills of materials of images are made. */
const buildServices = async () => {
  const { metafile } = await esbuild.build({
    ...options,
    entryPoints: Object.fromEntries(services.map((name) => [name, join(root, "packages", name, "src/main.ts")])),
    outdir: dist,
    outExtension: { ".js": ".cjs" },
    // Node makes the namespace of a module of its own by reading all of its exports, which for `node:http` loads a client
    // with everything that it has; `require` reads nothing.
    format: "cjs",
    sourcemap: "linked",
    metafile: true,
    absWorkingDir: root
  })
  const packages = await Promise.all(services.map(async (name) => {
    const inputs = metafile.outputs[`dist/${name}.cjs`]?.inputs ?? {}
    return [name, await packagesOf(Object.keys(inputs))] as const
  }))
  await writeFile(join(dist, "packages.json"), JSON.stringify(Object.fromEntries(packages), null, 2))
}

/** V8's options for all commands but the server of this machine. */
const SHORT = [
  "--no-rehash-snapshot",
  "--baseline-batch-compilation-threshold=65536",
  "--invocation-count-for-maglev=10000"
]

/**
 * Finds Node: FSB_NODE, else the pinned one beside this repository's modules, else the one on the PATH. The compile
 * cache keeps compiled code between calls; it is code, so it must lie where nobody else can write. The snapshot was
 * written by the same hands as the rest of `dist/`; that its checksum is not verified saves a tenth of the start. Asked
 * for nothing but its version, fsb-ctl is quicker without. What a copy of many small files leaves behind is garbage at
 * once, and no reason to let the space for new objects grow to 32 MB twice, as V8 does by itself.
 *
 * That V8 does not make its hash tables anew with a seed of this process saves a fifteenth. The seed keeps strangers from
 * choosing keys that collide, so the server of this machine (\`up\`) keeps it. Short programs also end before compiled code
 * pays, so V8 waits longer until it compiles.
 */
const launcher = `#!/bin/sh
self=$0
[ -L "$self" ] && self=$(readlink -f "$self")
case $self in */*) ;; *) self=./$self ;; esac
root=\${self%/*}/..
node=\${FSB_NODE:-$root/node_modules/.bin/node}
snapshot=$root/dist/fsb-ctl.blob
if [ -n "$FSB_NODE" ] || [ ! -x "$node" ]; then snapshot=; fi
[ -x "$node" ] || node=node
case $#$1 in 1--version | 1-v) snapshot= ;; esac
case $1 in cp) young=--max-semi-space-size=4 ;; *) young= ;; esac
if [ -n "$snapshot" ] && [ -r "$snapshot" ]; then
  case " $* " in
    *" up "*) short= ;;
    *) short="${SHORT.join(" ")}" ;;
  esac
  exec "$node" $young $short --no-verify-snapshot-checksum --snapshot-blob "$snapshot" "$root/dist/fsb-ctl.cjs" "$@"
fi
if [ -n "$HOME" ] && [ -z "$NODE_COMPILE_CACHE" ]; then
  export NODE_COMPILE_CACHE="\${XDG_CACHE_HOME:-$HOME/.cache}/fsb-ctl"
fi
exec "$node" $young "$root/dist/fsb-ctl.cjs" "$@"
`

const writeLauncher = async () => {
  await mkdir(bin, { recursive: true })
  const path = join(bin, "fsb-ctl")
  await writeFile(path, launcher)
  await chmod(path, 0o755)
}

await mkdir(dist, { recursive: true })
// what is in use goes last, so that a program that starts during a build finds its chunks
const [files] = await Promise.all([buildCommandLine(), buildServices(), writeLauncher()])
await buildSnapshot()
await removeStale([...files, ...services.map((name) => `${name}.cjs`), SNAPSHOT_ENTRY])
