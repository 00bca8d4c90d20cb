/**
 * Builds `dist/release/fsb-ctl-VERSION-linux-ARCH`: fsb-ctl as one file, with its own node, for whoever talks to a server
 * elsewhere. It starts from the same snapshot of V8 as the repository's fsb-ctl and has the rest of its chunks as assets; the
 * server of one machine, which starts programs of its own, is in the archive only.
 *
 *     node packages/cli/build/executable.ts        after `make build`
 */
import { execFile } from "node:child_process"
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { runSnapshotBuilder } from "./snapshotBuilder.ts"

const run = promisify(execFile)
const root = fileURLToPath(new URL("../../..", import.meta.url))
const dist = join(root, "dist")

/** What stands in node's binary where it looks for the resource, and the resource's name: both are node's own. */
const FUSE = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2"
const RESOURCE = "NODE_SEA_BLOB"

/** The server of one machine. */
const SERVER = /^fsb-ctl-OneMachine-/

const { version }: { readonly version: string } = JSON.parse(await readFile(join(root, "package.json"), "utf8"))
const target = join(dist, "release", `fsb-ctl-${version}-linux-${process.arch}`)

const chunks = (await readdir(dist)).filter((name) => /^fsb-ctl-.*\.cjs$/.test(name) && !SERVER.test(name))
const scratch = await mkdtemp(join(tmpdir(), "fsb-executable-"))
try {
  const configuration = join(scratch, "configuration.json")
  const blob = join(scratch, "blob")
  await writeFile(
    configuration,
    JSON.stringify({
      main: join(dist, "fsb-ctl-snapshot.cjs"),
      output: blob,
      disableExperimentalSEAWarning: true,
      useSnapshot: true,
      execArgv: ["--no-verify-snapshot-checksum", "--no-rehash-snapshot"],
      assets: Object.fromEntries(chunks.map((name) => [name, join(dist, name)]))
    })
  )
  await runSnapshotBuilder(["--experimental-sea-config", configuration], { chunks: dist, cwd: scratch })
  const executable = join(scratch, "fsb-ctl")
  await copyFile(process.execPath, executable)
  await run(join(root, "node_modules/.bin/postject"), [executable, RESOURCE, blob, "--sentinel-fuse", FUSE])
  await mkdir(join(dist, "release"), { recursive: true })
  await copyFile(executable, target)
  await chmod(target, 0o755)
  process.stdout.write(`${target}: ${((await stat(target)).size / 1e6).toFixed(1)} MB\n`)
} finally {
  await rm(scratch, { recursive: true, force: true })
}
